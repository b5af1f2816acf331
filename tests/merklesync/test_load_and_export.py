"""load and export: folders, JSON Lines and CSV into a store and back, interrupted, repeated, refused."""

import csv
import errno
import io
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import root_of
from merklesync.commands import load as load_command
from merklesync.console.bar import CountedPairs, ProgressBar
from merklesync.files import bulk_load, sorted_pairs
from merklesync.files.bulk_load import load_pairs
from merklesync.files.tree_reader import Unread
from tests.support.command_line import (
    content,
    fail,
    fill,
    finish,
    folder_of_ordinary_user,
    run,
    run_as_ordinary_user,
    start,
    succeed,
    succeed_json,
)
from tests.support.databases import new_database
from tests.support.thoroughness import amount

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


@pytest.mark.slow
def test_replace_removes_nothing_below_a_folder_that_cannot_be_read() -> None:
    with folder_of_ordinary_user() as work:
        store, tree = work / "store", work / "tree"
        for name in ("gone", "sub/f", "sub/deep/g", "sub-x"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
        assert run_as_ordinary_user("load", store, tree).returncode == 0
        (tree / "gone").unlink()
        (tree / "sub-x").unlink()
        (tree / "sub").chmod(0)
        done = run_as_ordinary_user("load", store, tree, "--replace")
        (tree / "sub").chmod(0o755)
        assert done.returncode == 1
        assert done.stderr == (
            "Error: not all was loaded: 1 name could not be read, such as sub/; "
            "2 keys stayed where names were skipped; mend that and load again\n"
        )
        assert "2 removed, 2 kept" in done.stdout
        assert content(store) == {b"sub/f": b"sub/f", b"sub/deep/g": b"sub/deep/g"}
        # Without --replace nothing could be lost, but not all that was asked for is done either.
        (tree / "sub" / "f").chmod(0)
        done = run_as_ordinary_user("load", store, tree, "--json")
        document = json.loads(done.stdout)
        assert (done.returncode, document["exit_code"]) == (1, 1)
        assert (document["unchanged"], document["kept"]) == (1, 0)
        assert document["skipped"] == {"unreadable": {"count": 1, "names": ["sub/f"]}}


@pytest.mark.parametrize("max_batch_keys", [1, 2, 100])
def test_replace_keeps_what_lies_at_or_below_a_name_that_was_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_batch_keys: int
) -> None:
    monkeypatch.setattr(bulk_load, "MAX_BATCH_KEYS", max_batch_keys)
    store, tree = tmp_path / "store", tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    (tree / "b").symlink_to("a")
    (tree / "loop").symlink_to("loop")
    os.mkfifo(tree / "p")
    (tree / "z").write_text("1")
    kept = [b"b", b"b/c", b"b/c/d", b"loop", b"p"]
    gone = [b"", b"b-", b"b.c", b"b0", b"bb/c", b"a/b", b"loop1", b"o", b"p\0", b"zz"]
    fill(store, dict.fromkeys([*kept, *gone, b"z"], b"old"))
    result = run("load", store, tree, "--replace")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: not all was loaded: 5 keys stayed where names were skipped; mend that and load again\n",
    )
    assert content(store) == {b"a": b"1", b"z": b"1", **dict.fromkeys(kept, b"old")}


@pytest.mark.parametrize("failure", ["open", "read", "scandir", "lines"])
def test_replace_removes_nothing_where_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    store, tree = tmp_path / "store", tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    for name in ("folder/a", "folder/b", "z"):
        (tree / name).write_text("1")
    succeed("load", store, tree)
    before = content(store)
    calls: list[object] = []
    real_open, real_scandir = os.open, os.scandir

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def open_top(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            refuse()
        return real_open(path, flags, mode)

    def scan_top(descriptor: int) -> Any:
        calls.append(descriptor)
        # The load looks at the folder before it makes a store for it.
        return real_scandir(descriptor) if len(calls) <= 2 else refuse()

    if failure == "lines":
        source = tmp_path / "pairs.jsonl"
        succeed("export", store, source)
        monkeypatch.setattr(load_command, "read_json_lines", refuse)
        assert "Input/output error" in fail(1, "load", store, source, "--replace")
    else:
        replacement = {"open": open_top, "read": refuse, "scandir": scan_top}[failure]
        with monkeypatch.context() as patch:
            patch.setattr(os, failure, replacement)
            assert "could not be read" in run("load", store, tree, "--replace").stderr
    assert content(store) == before


def test_replace_keeps_a_folder_that_changed_while_it_was_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, tree = tmp_path / "store", tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    succeed("load", store, tree)
    real_scandir = os.scandir

    def move_meanwhile(folder: Any) -> Any:
        if isinstance(folder, int):
            (tree / "a").unlink()
            os.utime(tree, ns=(0, 0))
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", move_meanwhile)
    result = run("load", store, tree, "--replace", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["exit_code"], document["removed"], document["kept"]) == (1, 1, 0, 1)
    assert "1 name could not be read, such as ." in result.stderr
    assert content(store) == {b"a": b"1"}


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
    monkeypatch.setattr(bulk_load, "MAX_BATCH_KEYS", 2)
    succeed("load", tmp_path / "store", tree)
    assert [each["keys"] for each in succeed_json("log", tmp_path / "store")["revisions"]] == [5]


def test_a_load_keeps_what_a_store_held_before(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    succeed("put", store, "k", "v")
    monkeypatch.setattr(bulk_load, "MAX_BATCH_KEYS", 2)
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


def test_a_first_line_that_looks_like_a_header_is_loaded_and_noted(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("name,value\nAda,1815\n")
    result = run("load", tmp_path / "store", tmp_path / "people.csv")
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: line 1, name,value, looks like a header and is taken as a pair")
    assert content(tmp_path / "store") == {b"name": b"value", b"Ada": b"1815"}


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


def test_names_that_export_will_refuse_are_loaded_and_noted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("C:\\a", "\\b", "fine"):
        (folder / name).write_text(name)
    result = run("load", tmp_path / "store", folder)
    assert result.exit_code == 0
    assert "Note: C:\\a begins with a drive" in result.stderr
    assert "1 more like it: export refuses to write it as a file" in result.stderr
    assert "C:\\a begins with a drive" in fail(1, "export", tmp_path / "store", tmp_path / "target")
    succeed("export", tmp_path / "store", tmp_path / "pairs.jsonl")
    (folder / "C:\\a").unlink()
    (folder / "\\b").unlink()
    assert "Note" not in run("load", tmp_path / "store", folder).stderr


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

    monkeypatch.setattr(ProgressBar, "show", interrupt)
    assert "interrupted: export again" in fail(130, "export", tmp_path / "store", tmp_path / "target.jsonl")
    assert not (tmp_path / "target.jsonl").exists()


def test_an_interrupted_load_leaves_a_store_that_the_same_load_finishes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(pairs: CountedPairs) -> Iterator[tuple[bytes, bytes]]:
        yield from list(pairs._pairs)[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bulk_load, "MAX_BATCH_KEYS", 1)
        patch.setattr(CountedPairs, "__iter__", interrupt)
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
        patch.setattr(bulk_load, "MAX_BATCH_KEYS", max_batch_keys)
        pairs = sorted(source.items())
        load_pairs(added, pairs, replace=False)
        loaded = load_pairs(replaced, pairs, replace=True)
        assert dict(added.items()) == before | source
        assert dict(replaced.items()) == source
        assert replaced.root == root_of(source)
        assert loaded.removed == len(before.keys() - source.keys())
        assert loaded.unchanged == sum(before.get(key) == value for key, value in pairs)
        assert loaded.keys == len(source)


some_paths = st.text("a/.", max_size=4).map(str.encode)


@settings(max_examples=amount(30, soak=500))  # each makes a store, durably
@given(
    before=st.dictionaries(some_paths, st.just(b"old"), max_size=20),
    source=st.sets(some_paths, max_size=10),
    names=st.sets(some_paths, max_size=3),
    max_batch_keys=st.integers(1, 5),
)
def test_a_load_removes_what_is_gone_and_keeps_what_could_not_be_read(
    before: dict[bytes, bytes], source: set[bytes], names: set[bytes], max_batch_keys: int
) -> None:
    unread, told = Unread(), Unread()
    for name in names:
        told.add(name)
    waiting = sorted(names)

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        # A walk tells of a name at its place in the order of the keys, at the latest.
        for key in sorted(source):
            while waiting and waiting[0] <= key:
                unread.add(waiting.pop(0))
            yield key, b"new"
        for name in waiting:
            unread.add(name)

    with pytest.MonkeyPatch.context() as patch, new_database(before) as database:
        patch.setattr(bulk_load, "MAX_BATCH_KEYS", max_batch_keys)
        loaded = load_pairs(database, pairs(), replace=True, unread=unread)
        others = before.keys() - source
        kept = {key for key in others if told.covers(key)}
        assert dict(database.items()) == {**dict.fromkeys(source, b"new"), **dict.fromkeys(kept, b"old")}
        # A store that held nothing has nothing to remove.
        assert (loaded.removed, loaded.kept) == (len(others) - len(kept), len(kept))


def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_load, "MAX_BATCH_BYTES", 10)
    pairs = [(b"%d" % number, b"12345") for number in range(5)]
    assert [len(batch) for batch in bulk_load.cut_batches(pairs)] == [2, 2, 1]


def test_a_file_larger_than_memory_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_pairs, "MAX_MEMORY_BYTES", 400)
    pairs = {b"%d" % (number * 7919 % 100): b"x" for number in range(100)}
    assert fill(tmp_path / "store", pairs) == root_of(pairs).hex()


some_bytes = st.binary(max_size=12) | st.sampled_from(
    [b"0x-contract-addresses", b"0xdead", b"0x", b"key", b"value", b"\xef\xbb\xbf", b"\r", b"\n", b"{}", b" "]
)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@settings(max_examples=amount(30, soak=500))  # each makes two stores, durably
@given(pairs=st.dictionaries(some_bytes, some_bytes, max_size=6))
def test_every_pair_comes_back_exactly_from_what_export_writes(form: str, pairs: dict[bytes, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder, "store"), pairs)
        exported = run("export", f"{folder}/store", "-", "--format", form).stdout_bytes
        succeed("load", f"{folder}/again", "-", "--format", form, stdin=exported)
        assert content(Path(folder, "again")) == pairs


def test_text_that_begins_with_0x_is_loaded_as_it_is(tmp_path: Path) -> None:
    lines = b"0x-contract-addresses,1\n0xdead,0xBEEF\n"
    arguments = ["load", tmp_path / "store", "-", "--format", "csv"]
    succeed(*arguments, stdin=lines)
    assert content(tmp_path / "store") == {b"0x-contract-addresses": b"1", b"0xdead": b"0xBEEF"}
    exported = succeed("export", tmp_path / "store", "-", "--format", "csv")
    assert exported == '"key","value"\n"0x-contract-addresses","1"\n"0xdead","0xBEEF"\n'
    assert "0x-contract-addresses is not 0x and an even number" in fail(
        1, *arguments, "--keys", "auto", stdin=lines
    )
    succeed(*arguments, "--replace", "--keys", "hex", "--values", "auto", stdin=b"ffad,text\n0xFFAF,0x00\n")
    assert content(tmp_path / "store") == {b"\xff\xad": b"text", b"\xff\xaf": b"\0"}
    target = tmp_path / "target.csv"
    assert "is no text: write it as hex or auto" in fail(
        1, "export", tmp_path / "store", target, "--keys", "text"
    )
    assert not target.exists()
    succeed("export", tmp_path / "store", target, "--keys", "hex")
    assert target.read_text() == '"key_hex","value"\n"ffad","text"\n"ffaf","\0"\n'
    assert "--keys and --values are for CSV" in fail(
        2, "load", tmp_path / "store", "-", "--format", "jsonl", "--keys", "hex"
    )


@pytest.mark.parametrize("branch_factor", [2, 16])
def test_nothing_of_a_bad_file_is_loaded_into_an_empty_store_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, branch_factor: int
) -> None:
    monkeypatch.setattr(bulk_load, "MAX_BATCH_KEYS", 1)
    store = tmp_path / "store"
    fill(store, {}, "--branch-factor", branch_factor)
    limit = {2: 63, 16: 252}[branch_factor]
    lines = b"a,1\nb,2\n" + b"k" * (limit + 1) + b",3\n"
    sentence = fail(1, "load", store, "-", "--format", "csv", stdin=lines)
    assert f"line 3: the key has {limit + 1} bytes, the store's limit is {limit}" in sentence
    assert content(store) == {}
    succeed("load", store, "-", "--format", "csv", stdin=b"k" * limit + b",3\n")
