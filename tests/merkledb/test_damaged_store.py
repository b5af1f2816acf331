"""A damaged store: a typed error that names the damage, never a killed process or an untyped error."""

import contextlib
import math
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import merkledb
from merkledb import Database
from tests.support import damaged_stores, oracle
from tests.support.databases import new_database

# In a process of its own, for reading behind the end of a mapped file would kill it.
READER = """
import sys, merkledb
try:
    with merkledb.open(sys.argv[1], readonly=sys.argv[2] == "readonly") as database:
        database.check()
        print(len(dict(database.items())))
except merkledb.CorruptDatabase as error:
    print("corrupt")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "store"
    some = random.Random(3)
    with merkledb.open(path) as database:
        for _ in range(5):
            database.commit({some.randbytes(32): some.randbytes(300) for _ in range(1000)})
    return path


def read(path: Path, mode: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READER, path, mode], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("mode", ["readonly", "writing"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_file_that_was_cut_off_is_found_out(store: Path, tmp_path: Path, share: float, mode: str) -> None:
    path = Path(shutil.copytree(store, tmp_path / "store"))
    data = path / "data.mdb"
    size = int(data.stat().st_size * share) // 4096 * 4096
    with data.open("r+b") as file:
        file.truncate(max(size, 2 * 4096))
    assert read(path, mode) == "corrupt"


def test_pages_that_nobody_refers_to_may_be_missing_at_the_end(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "store"))
    assert read(path, "readonly") == read(path, "writing") == "5000"


def change_branch(database: Database, change: Callable[[bytes], bytes]) -> None:
    """Overwrite the topmost branch's record."""
    with database._store.write() as transaction:
        cursor = transaction.cursor(db=database._store.branches)
        assert cursor.first()
        transaction.put(cursor.key(), change(cursor.value()), db=database._store.branches)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda record: record[:-1],
    "cut off in its children": lambda record: record[:40],
    "a digest of a wrong length": lambda record: record[:-17] + b"\x01\x20short" + record[-16:],
    "neither value nor none": lambda record: record[:-17] + b"\x07" + record[-16:],
    "a weight too few": lambda record: record[:-1],
    "a weight too many": lambda record: record + b"\x01",
    "a weight that is none": lambda record: record[:-1] + b"\x00",
    "a weight above what its values have": lambda record: record[:-1] + b"\x11",
    "tokens in the wrong order": lambda record: record[:1] + record[34:67] + record[1:34] + record[67:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_branch_is_named(damage: Callable[[bytes], bytes]) -> None:
    pairs: dict[bytes, bytes | None] = {bytes([number]) * 8: bytes(40) for number in range(256)}
    with new_database() as database:
        database.commit(pairs)
        change_branch(database, damage)
        with pytest.raises(merkledb.CorruptDatabase, match="the branch at path"):
            database.check()
        with pytest.raises(merkledb.CorruptDatabase):
            database.commit({b"\x00new": b"1", b"\x11new": b"2", b"\xf0new": b"3"})


@pytest.mark.parametrize(("length", "tail"), [(700, b""), (1, bytes(8))], ids=["a heavy leaf", "a bucket"])
def test_a_slot_without_content_is_named(length: int, tail: bytes) -> None:
    with new_database() as database:
        database.commit({bytes([number]) + tail: bytes(length) for number in range(0, 256, 16)})
        with database._store.write() as transaction:
            transaction.delete(b"\x20" + tail, db=database._store.values)
        for use in (database.check, lambda: database.prove(b"\x20" + tail)):
            with pytest.raises(merkledb.CorruptDatabase):
                use()


def test_a_bucket_that_lost_a_pair_is_named() -> None:
    with new_database() as database:
        database.commit({bytes([number]): b"" for number in range(0, 256, 5)})
        with database._store.write() as transaction:
            transaction.delete(b"\x0f", db=database._store.values)
        for use in (
            database.check,
            lambda: database.prove(b"\x05"),
            lambda: database.commit({b"\x07": b"new"}),
            lambda: database.view({b"\x07": b"new"}),
        ):
            with pytest.raises(merkledb.CorruptDatabase):
                use()


@pytest.mark.parametrize("values", [2, 20])
def test_pairs_without_any_branch_are_named_unless_they_are_a_bucket(values: int) -> None:
    with new_database() as database:
        database.commit({bytes([number]): b"" for number in range(values)})
        with database._store.write() as transaction:
            transaction.drop(database._store.branches, delete=False)
        with pytest.raises(merkledb.CorruptDatabase) if values > 8 else contextlib.nullcontext():
            database.prove(b"\x01")


@pytest.mark.slow
def test_check_needs_little_memory_for_large_values() -> None:
    with new_database() as database:
        for number in range(12):
            database.commit({bytes([number]): bytes([number]) * (20 << 20)})
        seen: list[int] = []
        database.check(seen.append)
        assert seen == [1] * 12


def change_row(database: Database, table: str, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Overwrite a row."""
    with database._store.write() as transaction:
        opened = getattr(database._store, table)
        transaction.put(key, change(transaction.get(key, db=opened) or b""), db=opened)


def two_revisions(database: Database) -> tuple[bytes, bytes]:
    return database.commit({b"a": b"1"}), database.commit({b"a": b"2", b"b": bytes(900)})


def test_a_root_is_never_answered_with_another() -> None:
    with new_database() as database:
        old, new = two_revisions(database)
        change_row(database, "revisions", old, lambda _: (2).to_bytes(7))
        for use in (
            lambda: database.at(old),
            lambda: list(database.differences(old, new)),
            lambda: database.prove_changes(old, new),
            database.check,
        ):
            with pytest.raises(merkledb.CorruptDatabase, match=f"the row of the root {old.hex()}"):
                use()
        with database.at(new) as snapshot:
            assert snapshot[b"a"] == b"2"


@pytest.mark.parametrize("newest", [3, 1 << 24, (1 << 56) - 2, (1 << 56) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("flags", [1, 2])
def test_a_damaged_number_of_the_newest_revision_is_found_without_counting_up_to_it(
    newest: int, flags: int
) -> None:
    with new_database() as database:
        old, _ = two_revisions(database)
        change_row(
            database, "meta", b"tip", lambda tip: tip[:32] + newest.to_bytes(8) + tip[40:48] + bytes([flags])
        )
        for use in (lambda: database.at(old), lambda: database.get(b"a"), database.revisions, database.check):
            with damaged_stores.bounded(1000), pytest.raises(merkledb.CorruptDatabase):
                use()


def revision_row(number: int, time: float, pairs: int) -> Callable[[bytes], bytes]:
    return lambda row: row[:32] + struct.pack(">QdQ", number, time, pairs) + row[56:]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda row: row[:55],
        revision_row((1 << 64) - 1, 1.0, 2),
        revision_row(2, 1.0, (1 << 64) - 1),
        revision_row(2, 1.0, 1),
        lambda row: row[:56],
        lambda row: row + b"\x00",
        lambda row: row + row[56:],
        lambda row: row[:56] + b"\x80\x01a\x80\x01a",
        lambda row: row[:56] + b"\x00\x01\x63",
    ],
    ids=[
        "cut off", "a number without room", "pairs without end", "one pair",
        "no place", "half a part", "two places", "the same key twice", "no token",
    ],
)  # fmt: skip
def test_a_damaged_row_of_a_revision_is_named(damaged: Callable[[bytes], bytes]) -> None:
    with new_database() as database:
        _, root = two_revisions(database)
        database.commit({b"a": b"3"})
        change_row(database, "revisions", (2).to_bytes(7), damaged)
        with pytest.raises(merkledb.CorruptDatabase), database.at(root) as snapshot:
            snapshot.prove(b"a")


@pytest.mark.parametrize("sequence", [0, 1, 2])
@pytest.mark.parametrize("time", [math.nan, math.inf, -1.0, 1e300])
def test_a_time_of_a_revision_that_is_none_is_found_by_check_and_stands_in_no_ones_way(
    time: float, sequence: int
) -> None:
    with new_database() as database:
        old, new = two_revisions(database)
        packed = struct.pack(">d", time)
        key = sequence.to_bytes(7)
        change_row(database, "revisions", key, lambda row: row[:40] + packed + row[48:])
        with pytest.raises(
            merkledb.CorruptDatabase, match=rf"revision {sequence} has the time {re.escape(str(time))}"
        ):
            database.check()
        assert [difference.key for difference in database.differences(old, new)] == [b"a", b"b"]


def history_of_counts(database: Database) -> list[dict[bytes, bytes]]:
    """Let keys come, go and come back; return what each revision held, the empty one first."""
    contents: list[dict[bytes, bytes]] = [{}]
    for number in range(1, 7):
        changes = {bytes([key]): None if key % number else b"%d" % number for key in range(0, 60, 7 - number)}
        database.commit(changes)
        contents.append(oracle.changed(contents[-1], changes))
    assert [revision.keys for revision in database.revisions()] == [len(each) for each in contents[::-1]]
    return contents


def with_count(count: int) -> Callable[[bytes], bytes]:
    return lambda row: row[:48] + count.to_bytes(8) + row[56:]


@pytest.mark.parametrize("state", ["at rest", "in a sync", "after a sync that was given up"])
@pytest.mark.parametrize("sequence", range(7))
def test_a_wrong_count_of_pairs_of_any_revision_is_found(sequence: int, state: str) -> None:
    with new_database({b"": b"", b"new": b"1", b"\x07": b"2"}) as source, new_database() as database:
        contents = history_of_counts(database)
        if state != "at rest":
            root = source.root
            database.apply(merkledb.verify_range(source.prove_range(b"", b"\x07"), root, b"", b"\x07"))
            assert database.catching_up
        if state == "after a sync that was given up":
            database.roll_back()
        database.check()
        key, count = sequence.to_bytes(7), len(contents[sequence])
        for wrong in (count + 1, count - 1):
            if wrong < 2:
                continue  # The place of the topmost node tells as much, before anything is counted.
            change_row(database, "revisions", key, with_count(wrong))
            with pytest.raises(merkledb.CorruptDatabase, match=f"has {wrong} pairs"):
                database.check()
        change_row(database, "revisions", key, with_count(count))
        database.check()


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (b"\x01" * 32, (2).to_bytes(7)),
        (b"\x01" * 32, (9).to_bytes(7)),
        (b"\x01" * 32, b""),
        (b"\x01" * 31, (2).to_bytes(7)),
        (b"\x01" * 33, (2).to_bytes(7)),
        (b"\x01" * 6, bytes(56)),
    ],
)
def test_a_row_of_a_root_that_never_was_is_found(key: bytes, row: bytes) -> None:
    with new_database() as database:
        two_revisions(database)
        database.check()
        change_row(database, "revisions", key, lambda _: row)
        with pytest.raises(
            merkledb.CorruptDatabase, match=f"the row 0x{key.hex()} of the revisions belongs to"
        ):
            database.check()


def test_a_pruned_revision_whose_root_is_not_known_any_more_is_found(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store", history=1) as database:
        old, _ = two_revisions(database)
        database.check()
        with database._store.write() as transaction:
            transaction.delete(old, db=database._store.revisions)
        with pytest.raises(merkledb.CorruptDatabase, match="the row 0x00000000000001 of the revisions"):
            database.check()


def replaced(row: bytes, _: bytes) -> bytes:
    return row


def test_a_branch_that_is_another_than_its_parent_says_is_found() -> None:
    pairs = {bytes([number]) * 2: bytes(40) for number in range(256)}
    with new_database() as database:
        database.commit(pairs)
        with database._store.read() as transaction:
            rows = list(transaction.cursor(db=database._store.branches))
        for path, record in rows:
            # One bit of an id: a record as good as before, of which only its own id tells.
            damaged = record[:5] + bytes([record[5] ^ 1]) + record[6:]
            change_row(database, "branches", path, partial(replaced, damaged))
            with pytest.raises(merkledb.CorruptDatabase, match=r"is not the one that the values make"):
                database.check()
            change_row(database, "branches", path, partial(replaced, record))
        database.check()


def test_a_topmost_branch_of_the_past_that_is_another_than_its_root_says_is_found() -> None:
    with new_database({bytes([number]) * 2: bytes(40) for number in range(256)}) as database:
        database.commit({b"\x11new": b"1"})
        database.check()
        change_row(
            database,
            "branch_history",
            (2).to_bytes(7),
            lambda row: row[:-1] + bytes([row[-1] ^ 1]),
        )
        with pytest.raises(merkledb.CorruptDatabase, match="the topmost node of revision 1 is"):
            database.check()


@pytest.mark.parametrize("row", [b"", b"\x00rest", b"\x02value", b"\xff"])
def test_a_damaged_row_of_the_history_of_values_is_named(row: bytes) -> None:
    with new_database() as database:
        old, new = two_revisions(database)
        change_row(database, "value_history", (2).to_bytes(7) + b"a", lambda _: row)
        with database.at(old) as snapshot:
            for use in (
                lambda: snapshot.get(b"a"),
                lambda: list(snapshot.items()),
                lambda: list(database.differences(old, new)),
                database.check,
            ):
                with pytest.raises(merkledb.CorruptDatabase):
                    use()


@pytest.mark.parametrize("row", [b"", b"\x03\x00", b"\x00"])
def test_a_damaged_format_is_damage(tmp_path: Path, row: bytes) -> None:
    with merkledb.open(tmp_path / "store") as database:
        change_row(database, "meta", b"format", lambda _: row)
    with pytest.raises(merkledb.CorruptDatabase, match="the row of the format"):
        merkledb.open(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["pure", "compiled"])
def test_whatever_is_damaged_gives_a_right_result_or_a_typed_error(tmp_path: Path, kernel: str) -> None:
    """Try seeds that once gave something else, and some more; the module itself tries as many as told."""
    if kernel == "compiled":
        pytest.importorskip("merklekernel", reason="the compiled kernel is not installed")
    with damaged_stores.running(kernel):
        search = damaged_stores.Search(tmp_path)
        for seed in (386, 10062, 10305, 20102, *range(40)):
            search.run(seed)
    assert search.failures == []


def test_a_token_inside_the_path_of_a_branch_that_is_none_is_damage() -> None:
    with new_database({b"a%03d" % number: b"v" * 40 for number in range(200)}) as database:
        with database._write() as write:
            lmdb, table = write.transaction.lmdb, write.transaction.store.branches
            longest = max(lmdb.cursor(db=table).iternext(values=False), key=len)
            row = lmdb.pop(longest, db=table)
            assert row is not None
            lmdb.put(longest[:1] + bytes([longest[1] | 0x80]) + longest[2:], row, db=table)
        with new_database({b"b%03d" % number: b"w" * 40 for number in range(200)}) as source:
            proof = source.prove_range(max_keys=1000)
            verified = merkledb.verify_range(proof, source.root, None, None, scheme=source.scheme)
            with pytest.raises(merkledb.CorruptDatabase):
                database.apply(verified)
        with pytest.raises(merkledb.CorruptDatabase):
            database.check()
