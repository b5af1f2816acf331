"""load and export: folders, JSON Lines and CSV into a store and back, interrupted, repeated, refused."""

import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import root_of
from merklesync import loading, sorting
from merklesync.loading import load_pairs
from merklesync.output import Bar, WatchedPairs
from tests.command_line import content, fail, fill, finish, start, succeed, succeed_json
from tests.stores import new_database
from tests.thoroughness import amount

TREE = {b"a/b": b"1", b"a-b": b"", b"a/c/d": b"\x00\xff", b"\xff\xfe": b"not UTF-8", b"z z": b"x" * 5000}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name, contents in TREE.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return folder


def content_of_folder(folder: Path) -> dict[bytes, bytes]:
    return {
        os.fsencode(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    document = succeed_json("load", tmp_path / "store", tree)
    assert document["root"] == root_of(TREE).hex()
    assert (document["added"], document["bytes"]) == (5, sum(len(key) + len(TREE[key]) for key in TREE))
    assert content(tmp_path / "store") == TREE
    succeed("export", tmp_path / "store", tmp_path / "target")
    assert content_of_folder(tmp_path / "target") == TREE


@pytest.mark.parametrize("name", ["target.jsonl", "target.ndjson", "target.csv", "target.JSONL"])
def test_any_bytes_come_back_from_a_file_of_pairs(tmp_path: Path, name: str) -> None:
    pairs = {**TREE, b"": b"", b"0x": b"0xzz", b"/abs": b"\n", b'"': b',"\r'}
    root = fill(tmp_path / "store", pairs)
    succeed("export", tmp_path / "store", tmp_path / name)
    document = succeed_json("load", tmp_path / "again", tmp_path / name)
    assert document["root"] == root
    assert content(tmp_path / "again") == pairs


def test_export_to_a_stream_prints_the_pairs_alone(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"k": b"line\nbreak"})
    exported = succeed("export", tmp_path / "store", "-", "--format", "jsonl")
    assert json.loads(exported) == {"key": "k", "value": "line\nbreak"}
    exported = succeed("export", tmp_path / "store", "-", "--format", "csv")
    assert list(csv.reader(io.StringIO(exported))) == [["key", "value"], ["k", "line\nbreak"]]


def test_export_tells_what_it_did(tmp_path: Path) -> None:
    root = fill(tmp_path / "store", {b"k": b"value"})
    document = succeed_json("export", tmp_path / "store", tmp_path / "folder")
    assert {**document, "seconds": 0} == {
        "root": root,
        "revision": 1,
        "keys": 1,
        "hasher": "blake3",
        "branch_factor": 16,
        "target": str(tmp_path / "folder"),
        "format": "folder",
        "bytes": 6,
        "seconds": 0,
    }


def test_a_format_that_is_given_goes_before_the_name(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"k": b"v"})
    succeed("export", tmp_path / "store", tmp_path / "pairs", "--format", "csv")
    assert succeed_json("load", tmp_path / "again", tmp_path / "pairs", "--format", "csv")["keys"] == 1
    fail(2, "load", tmp_path / "again", tmp_path / "pairs", "--format", "folder")
    fail(2, "load", tmp_path / "again", tmp_path, "--format", "csv")


def test_load_adds_and_replace_removes_the_others(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, {b"a/b": b"old", b"other": b"kept", b"~": b"kept"})
    document = succeed_json("load", store, tree)
    assert {name: document[name] for name in ("added", "changed", "unchanged", "removed", "keys")} == {
        "added": 4,
        "changed": 1,
        "unchanged": 0,
        "removed": 0,
        "keys": 7,
    }
    document = succeed_json("load", store, tree, "--replace")
    assert (document["unchanged"], document["removed"]) == (5, 2)
    assert content(store) == TREE


def test_load_again_writes_nothing(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    revision = succeed_json("load", store, tree)["revision"]
    document = succeed_json("load", store, tree)
    assert (document["unchanged"], document["revision"]) == (5, revision)


def test_of_a_key_that_comes_twice_the_last_value_counts(tmp_path: Path) -> None:
    lines = b'b,1\na,2\nb,"3"\n'
    document = succeed_json("load", tmp_path / "store", "-", "--format", "csv", stdin=lines)
    assert (document["added"], document["repeated"]) == (2, 1)
    assert content(tmp_path / "store") == {b"a": b"2", b"b": b"3"}


def test_nothing_of_a_bad_file_is_loaded(tmp_path: Path) -> None:
    source, store = tmp_path / "pairs.jsonl", tmp_path / "store"
    source.write_text('{"key": "a", "value": "b"}\n' * 3 + '{"key": "a"}\n')
    assert f"{source}, line 4: must be an object" in fail(1, "load", store, source)
    assert not store.exists()
    fill(store, {b"k": b"v"})
    assert "nothing was loaded" in fail(1, "load", store, source)
    assert content(store) == {b"k": b"v"}


def test_the_limits_of_the_store_hold_for_a_file_of_pairs(tmp_path: Path) -> None:
    long_key = b'{"key": "' + b"k" * 64 + b'", "value": ""}'
    arguments = ["load", tmp_path / "store", "-", "--format", "jsonl"]
    assert "the key has 64 bytes" in fail(1, *arguments, "--branch-factor", "2", stdin=long_key)
    succeed(*arguments, "--branch-factor", "4", stdin=long_key)
    assert "standard input, line 1: the key has 127 bytes" in fail(
        1, *arguments, stdin=b'{"key": "' + b"k" * 127 + b'", "value": ""}'
    )


def test_load_says_what_it_skipped(tree: Path, tmp_path: Path) -> None:
    for number in range(7):
        (tree / f"link{number}").symlink_to("a-b")
    os.mkfifo(tree / "pipe")
    (tree / ("n" * 64)).write_text("")
    with (tree / "large").open("wb") as file:
        file.truncate(merkledb.MAX_VALUE_BYTES + 1)
    document = succeed_json("load", tmp_path / "store", tree, "--branch-factor", "2")
    assert document["skipped"] == {
        "symbolic link": {"count": 7, "names": [f"link{number}" for number in range(5)]},
        "socket, pipe or device": {"count": 1, "names": ["pipe"]},
        "path too long for a key": {"count": 1, "names": ["n" * 64]},
        "too large": {"count": 1, "names": ["large"]},
    }
    assert document["keys"] == 5
    lines = succeed("load", tmp_path / "store", tree).splitlines()
    assert any(line.startswith("skipped, symbolic link ") and "7: link0, " in line for line in lines)


def test_a_store_inside_the_folder_is_not_loaded_into_itself(tree: Path) -> None:
    store = tree / "store"
    assert succeed_json("load", store, tree)["skipped"]["left out"]["names"] == ["store/"]
    assert content(store) == TREE
    assert "cannot be loaded into itself" in fail(2, "load", store, store)


def test_load_of_what_is_not_there_makes_no_store(tmp_path: Path) -> None:
    assert "does not exist" in fail(1, "load", tmp_path / "store", tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_load_into_a_new_store_retains_its_end_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MAX_BATCH_KEYS", 2)
    succeed("load", tmp_path / "store", tree)
    assert [each["keys"] for each in succeed_json("log", tmp_path / "store")["revisions"]] == [5]


def test_a_load_keeps_what_a_store_held_before(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    succeed("put", store, "k", "v")
    monkeypatch.setattr(loading, "MAX_BATCH_KEYS", 2)
    succeed("load", store, tree, "--replace")
    assert [each["keys"] for each in succeed_json("log", store)["revisions"]][-2:] == [1, 0]
    assert succeed("get", store, "k", "--at", "1") == "v"
    emptied = tmp_path / "emptied"
    succeed("put", emptied, "k", "v")
    succeed("delete", emptied, "k")
    succeed("load", emptied, tree)
    assert succeed("get", emptied, "k", "--at", "1") == "v"


def test_an_empty_source_makes_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert succeed_json("load", tmp_path / "store", tmp_path / "empty")["keys"] == 0
    succeed("export", tmp_path / "store", tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize(
    "key", [b"/etc/passwd", b"../up", b"a/../../up", b"", b"a\x00", b"a//b", b"C:\\x", b"n" * 256]
)
def test_export_refuses_a_key_by_name_and_writes_nothing(tmp_path: Path, key: bytes) -> None:
    store = tmp_path / "store"
    fill(store, {b"fine": b"", key: b"evil"}, "--branch-factor", "256")
    before = sorted(tmp_path.rglob("*"))
    sentence = fail(1, "export", store, tmp_path / "target")
    assert "cannot be written as files below the target" in sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_export_refuses_a_name_that_is_a_file_and_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"a": b"", b"a-b": b"", b"a/b": b""})
    sentence = fail(1, "export", tmp_path / "store", tmp_path / "target")
    assert "a/b needs a to be a file and a folder" in sentence
    assert not (tmp_path / "target").exists()


def test_export_leaves_alone_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"a": b"1"})
    for name in ("target.jsonl", "target.csv"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
        assert "exists already" in fail(1, "export", tmp_path / "store", tmp_path / name)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").symlink_to(tmp_path / "outside")
    assert "is not empty" in fail(1, "export", tmp_path / "store", tmp_path / "target")
    assert not (tmp_path / "outside").exists()
    (tmp_path / "file").write_text("kept")
    assert "Not a directory" in fail(1, "export", tmp_path / "store", tmp_path / "file")


def test_a_file_that_cannot_be_finished_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "store", {b"a": b"1"})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "show", interrupt)
    assert "interrupted: export again" in fail(130, "export", tmp_path / "store", tmp_path / "target.jsonl")
    assert not (tmp_path / "target.jsonl").exists()


def test_an_interrupted_load_leaves_a_store_that_the_same_load_finishes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(pairs: WatchedPairs) -> Iterator[tuple[bytes, bytes]]:
        yield from list(pairs._pairs)[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loading, "MAX_BATCH_KEYS", 1)
        patch.setattr(WatchedPairs, "__iter__", interrupt)
        sentence = fail(130, "load", tmp_path / "store", tree)
    assert "is whole and holds 2 keys" in sentence
    assert "run the same command again to finish" in sentence
    document = succeed_json("load", tmp_path / "store", tree)
    assert (document["unchanged"], document["added"]) == (2, 3)
    assert content(tmp_path / "store") == TREE


def test_ctrl_c_while_a_pipe_is_read_loads_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with start("load", tmp_path / "store", "-", "--format", "jsonl", stdin=reading) as process:
        os.close(reading)
        # More than a pipe holds: once it is written, the process is known to read.
        os.write(writing, b'{"key": "a", "value": "b"}\n' * 10_000)
        process.send_signal(signal.SIGINT)
        _, errors = finish(process)
    os.close(writing)
    assert (process.returncode, errors) == (130, "Error: interrupted: nothing was loaded\n")
    assert not (tmp_path / "store").exists()


keys = st.binary(max_size=3)
contents = st.dictionaries(keys, st.binary(max_size=3), max_size=30)


@settings(max_examples=amount(30, soak=2_000))  # each makes two stores, durably
@given(before=contents, source=contents, max_batch_keys=st.integers(1, 8))
def test_a_load_makes_the_content_the_sources_whatever_the_batches(
    before: dict[bytes, bytes], source: dict[bytes, bytes], max_batch_keys: int
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        new_database(before) as added,
        new_database(before) as replaced,
    ):
        patch.setattr(loading, "MAX_BATCH_KEYS", max_batch_keys)
        pairs = sorted(source.items())
        load_pairs(added, pairs, replace=False)
        loaded = load_pairs(replaced, pairs, replace=True)
        assert dict(added.items()) == before | source
        assert dict(replaced.items()) == source
        assert replaced.root == root_of(source)
        assert loaded.removed == len(before.keys() - source.keys())
        assert loaded.unchanged == sum(before.get(key) == value for key, value in pairs)
        assert loaded.keys == len(source)


def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_BATCH_BYTES", 10)
    pairs = [(b"%d" % number, b"12345") for number in range(5)]
    assert [len(batch) for batch in loading.batches(pairs)] == [2, 2, 1]


def test_a_file_larger_than_memory_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "MAX_MEMORY_BYTES", 400)
    pairs = {b"%d" % (number * 7919 % 100): b"x" for number in range(100)}
    assert fill(tmp_path / "store", pairs) == root_of(pairs).hex()
