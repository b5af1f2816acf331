"""Old revisions whose history is damaged: a verified read, and the check of all history, find each damage.

The store has six revisions of some hundred keys.  Each kind of damage is done to three of them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import merkledb
from merkledb import CorruptDatabase, Database, Snapshot
from merkledb.formats.branch_delta import NodeLocation, parse_branch_delta
from merkledb.history.log import ABSENT
from merkledb.history.revisions import SEQUENCE_BYTES
from tests.support.databases import new_database
from tests.support.oracle import Contents, changed

# The revision that a damaged row is of: it says what was there before.
SEQUENCES = {"the oldest": 2, "a middle one": 4, "the newest": 6}
HEAVY_KEY = b"\x30heavy"
# A row of the history of a table, and what becomes of it; None of a row that is taken away.
Damage = Callable[["History"], None]


class History:
    """The rows of one revision's history, to be damaged.

    Attributes:
        sequence: The revision's.
    """

    def __init__(self, database: Database, sequence: int) -> None:
        self.database = database
        self.sequence = sequence
        self._prefix = sequence.to_bytes(SEQUENCE_BYTES)

    def rows(self, table: str) -> dict[bytes, bytes]:
        """The rows, by key or path."""
        with self.database._store.read() as transaction:
            rows = dict(transaction.cursor(db=getattr(self.database._store, table)))
        return {key[SEQUENCE_BYTES:]: row for key, row in rows.items() if key.startswith(self._prefix)}

    def put(self, table: str, key: bytes, row: bytes | None) -> None:
        with self.database._store.write() as transaction:
            opened = getattr(self.database._store, table)
            if row is None:
                assert transaction.delete(self._prefix + key, db=opened)
            else:
                transaction.put(self._prefix + key, row, db=opened)

    def values(self, *, absent: bool = False) -> dict[bytes, bytes]:
        rows = self.rows("value_history")
        return {key: row for key, row in rows.items() if (row == ABSENT) == absent and key != HEAVY_KEY}

    def branches(self, depth: int) -> dict[bytes, bytes]:
        return {path: row for path, row in self.rows("branch_history").items() if len(path) == depth}


def flip(row: bytes, at: int) -> bytes:
    changed_row = bytearray(row)
    changed_row[at] ^= 1
    return bytes(changed_row)


def flip_a_value(history: History) -> None:
    key, row = next(iter(history.values().items()))
    history.put("value_history", key, flip(row, -1))


def flip_a_large_value(history: History) -> None:
    history.put("value_history", HEAVY_KEY, flip(history.rows("value_history")[HEAVY_KEY], 500))


def drop_a_value(history: History) -> None:
    history.put("value_history", next(iter(history.values())), None)


def drop_an_absence(history: History) -> None:
    history.put("value_history", next(iter(history.values(absent=True))), None)


def make_a_value_an_absence(history: History) -> None:
    history.put("value_history", next(iter(history.values())), ABSENT)


def make_an_absence_a_value(history: History) -> None:
    history.put("value_history", next(iter(history.values(absent=True))), b"\x01value")


def swap_two_values(history: History) -> None:
    (one, one_row), (other, other_row) = list(history.values().items())[:2]
    assert one_row != other_row
    history.put("value_history", one, other_row)
    history.put("value_history", other, one_row)


def swap_a_value_and_an_absence(history: History) -> None:
    value, absence = next(iter(history.values().items())), next(iter(history.values(absent=True)))
    history.put("value_history", value[0], ABSENT)
    history.put("value_history", absence, value[1])


def duplicate_a_value(history: History) -> None:
    (_, row), (other, _) = list(history.values().items())[:2]
    history.put("value_history", other, row)


def add_an_absence(history: History) -> None:
    """Of a key that has not changed."""
    keys = {key for key, _ in history.database.items()} - history.rows("value_history").keys()
    history.put("value_history", min(keys), ABSENT)


def add_a_value(history: History) -> None:
    history.put("value_history", b"\x07never", b"\x01value")


def cut_a_value_short(history: History) -> None:
    key, row = next(iter(history.values().items()))
    history.put("value_history", key, row[:-1])


def flip_an_id(history: History) -> None:
    path, row = min(history.branches(1).items())
    history.put("branch_history", path, flip(row, 1 + row[0] + 1 + 1 + 5))


def flip_an_id_at_the_top(history: History) -> None:
    row = history.branches(0)[b""]
    history.put("branch_history", b"", flip(row, 1 + row[0] + 1 + 1 + 5))


def drop_a_branch(history: History) -> None:
    history.put("branch_history", min(history.branches(1)), None)


def drop_the_topmost_branch(history: History) -> None:
    history.put("branch_history", b"", None)


def swap_two_branches(history: History) -> None:
    (one, one_row), (other, other_row) = sorted(history.branches(1).items())[:2]
    history.put("branch_history", one, other_row)
    history.put("branch_history", other, one_row)


def duplicate_a_branch(history: History) -> None:
    (_, row), (other, _) = sorted(history.branches(1).items())[:2]
    history.put("branch_history", other, row)


def name_another_key(history: History) -> None:
    """Of a bucket below a branch, with a key that never was."""
    change_last_place(history, lambda place: NodeLocation(keys=(*place.keys[:-1], place.keys[-1] + b"x")))


def name_too_many_keys(history: History) -> None:
    change_last_place(history, lambda place: NodeLocation(keys=(*place.keys, place.keys[-1] + b"x")))


def name_a_branch_where_a_bucket_was(history: History) -> None:
    change_last_place(history, lambda _: NodeLocation(b"\x01\x02"))


def name_no_place(history: History) -> None:
    """Then the child is a branch right at its slot."""
    change_last_place(history, lambda _: None)


def change_last_place(history: History, change: Callable[[NodeLocation], NodeLocation | None]) -> None:
    path, row = min(history.branches(1).items())
    delta = parse_branch_delta(row)
    locations = dict(delta.locations)
    token, place = locations.popitem()
    new = change(place)
    history.put(
        "branch_history",
        path,
        delta._replace(locations=locations if new is None else {**locations, token: new}).encode(),
    )


def drop_a_token(history: History) -> None:
    path, row = min(history.branches(1).items())
    delta = parse_branch_delta(row)
    token = max(set(delta.tokens) - delta.ids.keys(), default=max(delta.ids))
    ids = {each: node_id for each, node_id in delta.ids.items() if each != token}
    locations = {each: location for each, location in delta.locations.items() if each != token}
    tokens = delta.tokens.replace(bytes([token]), b"")
    history.put("branch_history", path, delta._replace(tokens=tokens, ids=ids, locations=locations).encode())


NODE = r"node \[[0-9a-f ]*\] is [0-9a-f]*, not [0-9a-f]{64}"
COUNT = r"revision \d says that it has \d+ pairs, the values and their history make \d+"
PRESENCE = r"history says that key 0x[0-9a-f]+ was there, or with another value"
ABSENCE = r"history says that key 0x[0-9a-f]+ was absent"
VALUE = r"history lacks the value of key 0x[0-9a-f]+"
DAMAGES: dict[Damage, str] = {
    flip_a_value: NODE,
    flip_a_large_value: NODE,
    # What a later revision says of the key counts then, which may be that it was absent.
    drop_a_value: f"{NODE}|{VALUE}",
    drop_an_absence: COUNT,
    make_a_value_an_absence: f"{ABSENCE}|{VALUE}",
    make_an_absence_a_value: PRESENCE,
    swap_two_values: NODE,
    swap_a_value_and_an_absence: f"{ABSENCE}|{PRESENCE}",
    duplicate_a_value: NODE,
    add_an_absence: ABSENCE,
    add_a_value: PRESENCE,
    cut_a_value_short: NODE,
    flip_an_id: NODE,
    flip_an_id_at_the_top: NODE,
    drop_a_branch: NODE,
    drop_the_topmost_branch: NODE,
    swap_two_branches: NODE,
    duplicate_a_branch: NODE,
    name_another_key: VALUE,
    name_too_many_keys: VALUE,
    name_a_branch_where_a_bucket_was: NODE,
    name_no_place: NODE,
    drop_a_token: NODE,
}


def store_with_history(database: Database) -> list[Contents]:
    """Make six revisions; return what each held, the empty one first."""
    contents: list[Contents] = [{}]
    for number in range(1, 7):
        changes: dict[bytes, bytes | None] = {HEAVY_KEY: b"%d" % number * 700}
        for key in range(0, 256, 1 if number == 1 else 3):
            changes[bytes([key, key ^ 0x5A, number % 2])] = b"%d of %d" % (key, number) * 3
        for key in range(number, 250, 16):
            changes[bytes([key, key ^ 0x5A, 1])] = None
        for key in range(number, 250, 40):
            changes[bytes([key, key ^ 0x5A, 16 + number])] = b"new"
        database.commit(changes)
        contents.append(changed(contents[-1], changes))
    return contents


def test_history_without_damage_is_none() -> None:
    with new_database() as database:
        for content in store_with_history(database):
            root = merkledb.root_of(content)
            with database.at(root) as snapshot:
                assert dict(snapshot.verified_items()) == dict(snapshot.folded_items()) == content
        database.check(history=True)


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize(("damage", "said"), DAMAGES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_each_damage_of_history_is_found_and_its_revision_named(
    damage: Damage, said: str, sequence: int
) -> None:
    with new_database() as database:
        contents = store_with_history(database)
        damage(History(database, sequence))
        with pytest.raises(CorruptDatabase, match=said) as caught:
            database.check(history=True)
        named = f"revision {sequence - 1}, {merkledb.root_of(contents[sequence - 1]).hex()}"
        assert named in str(caught.value) or f"revision {sequence - 1} says" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_no_verified_read_gives_what_is_not_so(damage: Damage, sequence: int) -> None:
    reads: list[Callable[[Snapshot], Contents]] = [
        lambda snapshot: dict(snapshot.folded_items()),
        lambda snapshot: dict(snapshot.verified_items()),
        lambda snapshot: dict(snapshot.verified_items(reverse=True)),
    ]
    with new_database() as database:
        contents = store_with_history(database)
        damage(History(database, sequence))
        wrong_reads = 0
        for content in contents:
            with database.at(merkledb.root_of(content)) as snapshot:
                for read in reads:
                    try:
                        assert read(snapshot) == content
                    except CorruptDatabase:
                        wrong_reads += 1
                for key in contents[0].keys() | contents[-1].keys():
                    try:
                        assert snapshot.verified_get(key) == content.get(key)
                    except CorruptDatabase:
                        wrong_reads += 1
        assert wrong_reads


def test_a_damage_of_what_lies_before_two_revisions_names_the_newer() -> None:
    with new_database() as database:
        contents = store_with_history(database)
        history = History(database, 4)
        untouched = history.values().keys() - History(database, 3).values().keys()
        key = min(untouched)
        history.put("value_history", key, b"\x01other")
        with pytest.raises(CorruptDatabase, match=f"at revision 3, {merkledb.root_of(contents[3]).hex()}"):
            database.check(history=True)


def test_a_value_on_a_branch_that_history_says_otherwise_is_found() -> None:
    with new_database() as database:
        database.commit({b"a": b"1", **{b"a%d" % number: bytes(100) for number in range(20)}})
        database.commit({b"a": b"2"})
        database.check(history=True)
        History(database, 2).put("value_history", b"a", b"\x013")
        database.check()
        with pytest.raises(CorruptDatabase, match="was there, or with another value"):
            database.check(history=True)
        History(database, 2).put("value_history", b"a", None)
        database.check()
        with pytest.raises(CorruptDatabase, match="history says another value of key 0x61 than its branch"):
            database.check(history=True)


def test_what_a_sync_that_was_given_up_left_is_checked_too(tmp_path: Path) -> None:
    content: Contents = {bytes([number, 0]): b"%d" % number * 9 for number in range(200)}
    other: Contents = {key: value + b"!" for key, value in content.items()}
    with (
        new_database(content) as database,
        merkledb.open(tmp_path / "source", scheme=database.scheme) as source,
    ):
        source.commit(dict(other))
        proof = source.prove_range(b"\x10", b"\x40", max_keys=30)
        database.apply(merkledb.verify_range(proof, source.root, b"\x10", b"\x40", max_keys=30))
        database.check(history=True)
        database.roll_back()
        database.check(history=True)
        history = History(database, 2)
        flip_a_value(history)
        database.check()
        with pytest.raises(CorruptDatabase, match=NODE):
            database.check(history=True)
