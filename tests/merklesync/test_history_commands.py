"""log, diff, --at, --history: what a store was before, by number, by root, and by the beginning of one."""

import math
from pathlib import Path

import pytest

import merkledb
from merkledb.history.revisions import put_revision, read_revision
from merklesync.commands.revision_option import RevisionNumber, RootPrefix, parse_revision
from tests.support.command_line import commit, content, fail, succeed, succeed_json

CHANGES: list[dict[bytes, bytes | None]] = [
    {b"a": b"1", b"b": b"2"},
    {b"a": b"1" * 200, b"c\n": b"\xff"},
    {b"b": None, b"d": b""},
]
CONTENTS = [{}, {b"a": b"1", b"b": b"2"}, {b"a": b"1" * 200, b"b": b"2", b"c\n": b"\xff"}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with merkledb.open(path, clock=iter([0.0, 1.0, 2.5, 1e9]).__next__) as database:
        for changes in CHANGES:
            database.commit(changes)
    return path


@pytest.fixture
def roots(store: Path) -> list[str]:
    """The roots by number."""
    with merkledb.open(store, readonly=True) as database:
        return [revision.root.hex() for revision in reversed(database.revisions())]


def test_log_lists_the_retained_revisions_newest_first(store: Path, roots: list[str]) -> None:
    assert succeed("log", store).splitlines() == [
        f"3  {roots[3]}  2001-09-09T01:46:40Z  3 keys",
        f"2  {roots[2]}  1970-01-01T00:00:02Z  3 keys",
        f"1  {roots[1]}  1970-01-01T00:00:01Z  2 keys",
        f"0  {roots[0]}  1970-01-01T00:00:00Z  0 keys",
    ]
    assert len(succeed("log", store, "--limit", "2").splitlines()) == 2
    document = succeed_json("log", store)
    assert document["store"] == str(store)
    assert document["revisions"][1] == {"revision": 2, "root": roots[2], "time": 2.5, "keys": 3}
    assert succeed_json("log", store, "--limit", "0")["revisions"] == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_was_is_read_by_number_root_or_the_beginning_of_one(
    store: Path, roots: list[str], tmp_path: Path, number: int
) -> None:
    root = roots[number]
    for name in (number, f"r{number}", f"r000{number}", root, f"0x{root}", root[:8], root[:31].upper()):
        document = succeed_json("list", store, "--values", "--at", name)
        assert (document["root"], document["revision"]) == (root, number)
        assert len(document["pairs"]) == len(CONTENTS[number])
    succeed("export", store, tmp_path / "then.jsonl", "--at", str(number))
    succeed("load", tmp_path / "again", tmp_path / "then.jsonl")
    assert content(tmp_path / "again") == CONTENTS[number]


def test_get_reads_a_value_as_it_was(store: Path, roots: list[str]) -> None:
    assert succeed("get", store, "b", "--at", "1") == "2"
    assert succeed_json("get", store, "a", "--at", roots[1]) == {"key": "a", "value": "1"}
    assert "has no key b" in fail(1, "get", store, "b")
    assert fail(1, "get", store, "d", "--at", "2").endswith("has no key d at revision 2")


def test_a_revision_that_cannot_be_had_is_named(tmp_path: Path, store: Path, roots: list[str]) -> None:
    assert "has no revision 4 yet: the newest is 3" in fail(1, "get", store, "a", "--at", "4")
    assert "retains no root that begins with 77777777" in fail(1, "get", store, "a", "--at", "77777777")
    assert "is unknown here" in fail(1, "get", store, "a", "--at", "77" * 32)
    succeed("put", store, "k", "v", "--history", "2")
    sentence = fail(1, "export", store, tmp_path / "target", "--at", "2", "--json")
    assert "revision 2 of" in sentence
    assert "is not retained any more: the oldest is 3" in sentence
    assert "is not retained any more" in fail(1, "prove", store, "a", "--at", roots[2])
    assert "is not retained any more" in fail(1, "diff", store, roots[2], "4", "--json")
    assert "retains no root" in fail(1, "diff", store, roots[2][:10], "4")


def test_a_replica_may_have_gone_over_a_revision(tmp_path: Path) -> None:
    with (
        merkledb.open(tmp_path / "source") as source,
        merkledb.open(tmp_path / "copy") as copy,
    ):
        for number in (7, 9):
            source.commit({b"a": bytes([number])})
            copy.apply(merkledb.verify_range(source.prove_range(), source.root), revision=number)
    assert "has no revision 8: it went over it" in fail(1, "list", tmp_path / "copy", "--at", "8")


def test_a_root_that_came_back_is_one_root(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = commit(store, {b"a": b"1"})
    commit(store, {b"a": b"2"})
    assert commit(store, {b"a": b"1"}) == first
    assert succeed("get", store, "a", "--at", "1") == "1"
    assert succeed("get", store, "a", "--at", first[:8]) == "1"
    assert succeed("diff", store, "1", "3") == ""
    assert succeed("diff", store, "1", "2") == "~ a\t1\t2\n"


def test_a_beginning_of_several_roots_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = [merkledb.Revision(number, b"\x12" * 16 + bytes([number] * 16)) for number in (2, 1)]
    monkeypatch.setattr(merkledb.Database, "revisions", lambda _database: same)
    assert "2 roots that" in fail(1, "list", store, "--at", "12121212")


def test_diff_lists_what_was_added_removed_and_changed(store: Path, roots: list[str]) -> None:
    assert succeed("diff", store, "1", "3").splitlines() == [
        f"~ a\t1\t{'1' * 99}…",
        "- b\t2",
        "+ 0x630a\t0xff",
        "+ d\t0x",
    ]
    assert succeed("diff", store, "r3", roots[1], "--keys-only").splitlines() == [
        "~ a",
        "+ b",
        "- 0x630a",
        "- d",
    ]
    assert succeed("diff", store, "2") == succeed("diff", store, "2", "3")
    assert succeed("diff", store, "1", "--start", "b", "--end", "c") == "- b\t2\n"
    assert succeed("diff", store, "1", "--prefix", "c", "--keys-only") == "+ 0x630a\n"
    assert succeed("diff", store, "3") == ""


def test_diff_prints_one_json_document(store: Path, roots: list[str]) -> None:
    document = succeed_json("diff", store, "1", "3")
    assert (document["old"], document["new"]) == (roots[1], roots[3])
    assert document["differences"][1:3] == [
        {"change": "removed", "key": "b", "old": "2", "new": None},
        {"change": "added", "key": "c\n", "old": None, "new": {"base64": "/w=="}},
    ]
    document = succeed_json("diff", store, "1", "--keys-only", "--prefix", "a")
    assert document["differences"] == [{"change": "changed", "key": "a"}]
    assert succeed_json("diff", store, "1", "1")["differences"] == []


def test_how_much_history_is_kept_is_the_stores_to_remember(tmp_path: Path) -> None:
    store = tmp_path / "store"
    succeed("put", store, "k", "0", "--history", "3")
    for value in range(1, 6):
        succeed("put", store, "k", str(value))
    assert len(succeed("log", store).splitlines()) == 3
    succeed("put", store, "k", "6", "--history", "5")
    assert len(succeed("log", store).splitlines()) == 4
    succeed("put", store, "k", "7", "--history-seconds", "0", "--history", "20")
    for value in range(8, 20):
        succeed("put", store, "k", str(value))
    assert len(succeed("log", store).splitlines()) == 8
    succeed("put", store, "k", "20", "--history-seconds", "inf")
    assert len(succeed("log", store).splitlines()) == 9


def test_a_command_that_is_refused_leaves_the_history_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for value in range(3):
        succeed("put", store, "k", str(value))
    fail(1, "put", store, "k", "v", "--hasher", "sha256", "--history", "1")
    succeed("put", store, "k", "v")
    assert len(succeed("log", store).splitlines()) == 5


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0", RevisionNumber(0)),
        ("1234567", RevisionNumber(1_234_567)),
        ("12345678", RootPrefix("12345678")),
        ("r12345678", RevisionNumber(12_345_678)),
        ("0x1234567890", RootPrefix("1234567890")),
        ("ABCDEF01", RootPrefix("abcdef01")),
        ("0" * 64, RootPrefix("0" * 64)),
    ],
)
def test_a_revision_has_several_names(text: str, name: RevisionNumber | RootPrefix) -> None:
    assert parse_revision(text) == name


@pytest.mark.parametrize(
    "text", ["", "r", "-1", "1.5", "abcdef", "0x123456", "0" * 65, "r" + "1" * 21, "\u0661", "latest"]
)
def test_what_names_no_revision_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no revision"):
        parse_revision(text)


@pytest.mark.parametrize("time", [math.nan, math.inf, -1e300, 1e300, 1.7e12])
def test_a_stored_time_that_is_none_is_shown_as_such(tmp_path: Path, time: float) -> None:
    path = tmp_path / "store"
    succeed("put", path, "k", "v")
    with merkledb.open(path) as database, database._write() as write:
        revision, top = read_revision(write.transaction, 1)
        put_revision(write.transaction, 1, revision._replace(time=time), top)
    assert "time unknown" in succeed("log", path)
    newest, first = succeed_json("log", path)["revisions"]
    assert newest["time"] is None
    assert first["time"] > 0
