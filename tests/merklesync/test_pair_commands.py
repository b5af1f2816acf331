"""put, get, delete, list, root, check: single pairs and whole stores, for people and for machines."""

import re
import sqlite3
from pathlib import Path

import pytest

import merkledb
from merkledb import Scheme, root_of
from tests.support.command_line import content, fail, fill, run, succeed, succeed_json

READING = ["get", "list", "root", "log", "diff", "prove", "verify", "status", "check", "export"]
COMMANDS = ["load", "put", "delete", "serve", "sync", "follow", "rollback", "demo", *READING]
PAIRS = {b"": b"empty", b"a": b"1", b"a/b": b"", b"\xff\x00": b"\x00\xff", b"line\nbreak": b"x"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    fill(path, PAIRS)
    return path


def test_put_creates_a_store_and_prints_its_root(tmp_path: Path) -> None:
    root = succeed("put", tmp_path / "store", "key", "value")
    assert root == root_of({b"key": b"value"}).hex() + "\n"
    assert succeed("root", tmp_path / "store") == root


def test_put_takes_hex_files_and_standard_input(tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "file"
    file.write_bytes(b"\x00from a file")
    succeed("put", store, "0xff00", "0x00ff")
    succeed("put", store, "file", "--file", file)
    succeed("put", store, "stdin", "--file", "-", stdin=b"\xff from a pipe")
    with merkledb.open(store) as database:
        assert dict(database.items()) == {
            b"\xff\x00": b"\x00\xff",
            b"file": b"\x00from a file",
            b"stdin": b"\xff from a pipe",
        }


def test_put_makes_a_store_of_the_scheme_that_was_chosen(tmp_path: Path) -> None:
    store = tmp_path / "store"
    document = succeed_json("put", store, "k", "v", "--hasher", "sha256", "--branch-factor", "256")
    assert document == {
        "root": root_of({b"k": b"v"}, Scheme("sha256", 256)).hex(),
        "revision": 1,
        "keys": 1,
        "hasher": "sha256",
        "branch_factor": 256,
    }
    succeed("put", store, "k2", "v")
    succeed("put", store, "k2", "v", "--hasher", "sha256")
    assert "has sha256 with branch factor 256, not" in fail(1, "put", store, "k", "v", "--branch-factor", "2")


@pytest.mark.parametrize("key", list(PAIRS))
def test_get_prints_the_bytes_of_a_value_alone(store: Path, key: bytes) -> None:
    result = run("get", store, "0x" + key.hex())
    assert (result.exit_code, result.stdout_bytes) == (0, PAIRS[key])


def test_get_shows_a_pair_as_json(store: Path) -> None:
    assert succeed_json("get", store, "0xff00") == {"key": {"hex": "ff00"}, "value": {"base64": "AP8="}}
    assert succeed_json("get", store, "") == {"key": "", "value": "empty"}


def test_get_of_an_absent_key_fails_by_name(store: Path) -> None:
    assert fail(1, "get", store, "0xff").endswith("has no key 0xff")


def test_list_shows_each_key_in_order_on_a_line_of_its_own(store: Path) -> None:
    assert succeed("list", store).splitlines() == ["0x", "a", "a/b", "0x6c696e650a627265616b", "0xff00"]
    assert succeed("list", store, "--values", "--start", "a", "--end", "a/b") == "a\t1\na/b\t0x\n"
    assert succeed("list", store, "--reverse", "--limit", "1") == "0xff00\n"
    assert succeed("list", store, "--prefix", "a", "--reverse") == "a/b\na\n"
    assert succeed("list", store, "--prefix", "0xff") == "0xff00\n"


def test_list_prints_one_json_document(store: Path) -> None:
    document = succeed_json("list", store, "--values")
    assert document["root"] == succeed("root", store).strip()
    assert document["pairs"][0] == {"key": "", "value": "empty"}
    assert document["pairs"][-1] == {"key": {"hex": "ff00"}, "value": {"base64": "AP8="}}
    assert succeed_json("list", store, "--limit", "0")["pairs"] == []
    assert succeed_json("list", store, "--limit", "1")["pairs"] == [{"key": ""}]


def test_list_of_a_range_that_ends_before_it_starts_is_refused(store: Path) -> None:
    assert "the range starts at b, after its end 0x00ff: swap them" in fail(
        2, "list", store, "--start", "b", "--end", "0x00ff"
    )
    assert "swap them" in fail(2, "prove", store, "--start", "b", "--end", "a", "--json")
    assert "--prefix" in fail(2, "list", store, "--start", "b", "--prefix", "a")


def test_delete_removes_all_keys_or_none(store: Path) -> None:
    assert "has no key nope: nothing was deleted" in fail(1, "delete", store, "a", "nope")
    assert "a" in succeed("list", store).splitlines()
    root = succeed("delete", store, "a", "0xff00", "0x", "a/b").strip()
    assert root == root_of({b"line\nbreak": b"x"}).hex()


def test_root_and_check_describe_a_store(store: Path) -> None:
    root = root_of(PAIRS).hex()
    described = {"root": root, "revision": 1, "keys": 5, "hasher": "blake3", "branch_factor": 16}
    assert succeed("root", store) == root + "\n"
    assert succeed_json("root", store) == described
    assert succeed_json("check", store) == {"ok": True, **described}
    assert "5 keys" in succeed("check", store)


def test_check_of_a_damaged_store_fails_and_names_the_difference(store: Path) -> None:
    with merkledb.open(store) as database, database._store.write() as transaction:
        transaction.put(b"a", b"forged", db=database._store.values)
    assert "is damaged" in fail(3, "check", store)


def test_reading_commands_create_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    root = "00" * 32
    for command in (
        ["get", missing, "k"],
        ["list", missing],
        ["root", missing],
        ["check", missing],
        ["prove", missing, "k", "--json"],
        ["export", missing, tmp_path / "target"],
        ["serve", missing, "--listen", "127.0.0.1:0"],
        ["delete", missing, "k"],
        ["log", missing],
        ["diff", missing, "1", "2"],
        ["rollback", missing],
    ):
        assert "is no store" in fail(1, *command), root
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["root", "put"])
def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path, command: str) -> None:
    file, folder, other = tmp_path / "file", tmp_path / "folder", tmp_path / "other"
    file.write_text("kept")
    folder.mkdir()
    (folder / "kept").write_text("kept")
    other.mkdir()
    with sqlite3.connect(other / "data.mdb") as connection:
        connection.execute("create table t (x)")
    connection.close()
    arguments = ["k", "v"] if command == "put" else []
    for path in (file, folder, other):
        fail(1, command, path, *arguments)
    assert file.read_text() == "kept"
    assert list(folder.iterdir()) == [folder / "kept"]


def test_a_store_that_another_process_writes_can_be_read_and_not_written(store: Path) -> None:
    with merkledb.open(store, scheme=None):
        assert "is being written by another process" in fail(1, "put", store, "k", "v")


def test_a_store_of_a_newer_format_is_refused(store: Path) -> None:
    with merkledb.open(store) as database, database._store.write() as transaction:
        transaction.put(b"format", b"\xfe", db=database._store.meta)
    assert "install a newer merklesync" in fail(1, "root", store)
    assert "install a newer merklesync" in fail(1, "put", store, "k", "v")


def test_a_key_that_is_too_long_is_refused(store: Path) -> None:
    assert "over the limit of 252" in fail(1, "put", store, "k" * 253, "v")
    assert succeed("list", store, "--prefix", "k" * 253) == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["put", "s", "k"], "give either VALUE or --file"),
        (["put", "s", "0x1", "v"], "0x1 is not 0x and an even number of hex digits"),
        (["put", "s", "k", "v", "--branch-factor", "3"], "'3' is not one of"),
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
        (["get", "s"], "Missing argument"),
        (["list", "s", "--limit", "x"], "'x' is not a valid integer"),
        (["verify", "/dev/null", "--root", "12"], "'12' is not a root: a root has 64 hex digits"),
        (
            ["status", "example.org:http"],
            "there is no store 'example.org:http', and 'example.org:http' is not",
        ),
        (["status", "::1:7440"], "is not HOST:PORT"),
        (["status", "h:99999"], "is not HOST:PORT"),
        (["status", "h:1", "--from", "h:2"], "--from compares a store with its peers"),
        (["follow", "s", "--from", "h:1"], "give either --roots FILE or --trust-peer"),
        (["get", "s", "k", "--at", "1234567g"], "'1234567g' is no revision: give its number, or at least 8"),
        (["diff", "s", "abc"], "'abc' is no revision"),
        (["put", "s", "k", "v", "--history", "0"], "0 is not in the range 1<=x<="),
        (["put", "s", "k", "v", "--history-seconds", "nan"], "'nan' is not in the range of seconds"),
        (["put", "s", "k", "v", "--history-seconds", "-1"], "'-1' is not in the range of seconds"),
        (["sync", "s", "--from", "h:1"], "give either --root HEX or --trust-peer"),
        (
            ["sync", "s", "--from", "h:1", "--trust-peer", "--root", "00" * 32],
            "give either --root HEX or --trust-peer",
        ),
        (["load", "s", "-"], "add --format jsonl or --format csv"),
        (["load", "s", "/etc/passwd"], "add --format jsonl or --format csv"),
        (["prove", "s", "k", "--start", "k"], "give either KEY or --start and --end"),
        (["export", "s", "-", "--format", "csv", "--json"], "--json and - both want standard output"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    assert sentence in fail(2, *arguments)


def test_a_failure_is_a_json_document_where_one_was_asked_for(store: Path) -> None:
    assert fail(1, "get", store, "nope", "--json").endswith("has no key nope")
    assert "No such command" in fail(2, "nonsense", "--json")
    assert "No such option" in fail(2, "get", store, "--nonsense", "--json")
    assert "no key --json" in run("get", store, "--", "--json").stderr
    assert run("get", store, "--", "--json").stdout == ""


def test_a_file_that_is_missing_is_no_wrong_command_line(store: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for command in (
        ["put", store, "k", "--file", missing],
        ["verify", missing, "--root", "00" * 32],
        ["load", store, missing],
        ["status", missing],
    ):
        sentence = fail(1, *command)
        assert str(missing) in sentence
    assert "neither a store nor HOST:PORT" in sentence


def test_help_names_every_command_and_exit_code() -> None:
    for text in (succeed(), succeed("--help")):
        for command in COMMANDS:
            assert f"\n  {command} " in text
        for code in (0, 1, 2, 3, 4, 130):
            assert f"\n    {code} " in text
    assert re.fullmatch(r"merklesync, version \S+, (pure|compiled) kernel\n", succeed("--version"))


def test_with_text_a_key_may_begin_with_0x(tmp_path: Path) -> None:
    store = tmp_path / "store"
    succeed("put", store, "--text", "0x-contract", "0xdead")
    succeed("put", store, "0xffad", "0xbeef")
    assert content(store) == {b"0x-contract": b"0xdead", b"\xff\xad": b"\xbe\xef"}
    assert succeed("get", store, "0x-contract", "--text") == "0xdead"
    assert succeed("list", store, "--prefix", "0x-", "--text") == "0x" + b"0x-contract".hex() + "\n"
    assert "or with --text" in fail(2, "get", store, "0x-contract")
    assert "has no key 0x307864656164" in fail(1, "delete", store, "--text", "0xdead")
    succeed("prove", store, "--text", "0x-contract", "--output", tmp_path / "proof")
    root = succeed("root", store).strip()
    succeed("verify", tmp_path / "proof", "--text", "0x-contract", "--root", root)
    assert succeed("diff", store, "1", "2", "--start", "0x-", "--text", "--keys-only") == "+ 0xffad\n"
    succeed("delete", store, "--text", "0x-contract")
    assert content(store) == {b"\xff\xad": b"\xbe\xef"}
