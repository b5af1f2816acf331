"""What a request costs that ends at or beside a large value: never the value itself, unless it is sent."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from merkledb import Database, LimitTooSmall, Scheme, Snapshot, View, verify_range
from merkledb.storage.store import MAX_DIGESTS, Digests, Store, Transaction
from merkledb.trie.trie import StoredTrie
from merkledb.view import ViewTrie
from tests.support.databases import new_database

LARGE = 1 << 20
OLD = {b"a": b"small", b"big": b"v" * LARGE, b"c": b"small", b"zz": b"small"}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A database with a large value that was replaced by another, and then left alone."""
    with new_database(OLD) as opened:
        opened.commit({b"big": b"w" * LARGE})
        opened.commit({b"d": b"new"})
        yield opened


def roots(database: Database) -> list[bytes]:
    return [revision.root for revision in database.revisions()][::-1][-3:]


def counted_values(patch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of the large values that tries read from now on."""
    read: list[bytes] = []
    for kind in (StoredTrie, ViewTrie):
        rows = kind.rows

        def counted(trie: Any, low: bytes, rows: Any = rows) -> Iterator[tuple[bytes, bytes]]:
            for row in rows(trie, low):
                read.extend(value for value in row[1:] if len(value) >= LARGE)
                yield row

        patch.setattr(kind, "rows", counted)
    return read


class Copies:
    """Counts the bytes of values that become objects in the tries and proofs of a snapshot."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.views = 0
        self.hashed = 0
        begin_views, digest = Store.begin_views, Scheme.digest

        def counted_views(store: Store, transaction: Transaction) -> Transaction | None:
            views = begin_views(store, transaction)
            self.views += views is not None
            return views

        def counted_digest(scheme: Scheme, value: bytes) -> bytes:
            self.hashed += len(value)
            return digest(scheme, value)

        patch.setattr(Store, "begin_views", counted_views)
        patch.setattr(Scheme, "digest", counted_digest)


def needed(state: Database | Snapshot, start: bytes | None, end: bytes | None = None) -> int:
    with pytest.raises(LimitTooSmall) as caught:
        state.prove_range(start, end, max_bytes=1)
    return caught.value.needed_bytes


@pytest.mark.parametrize("end", [None, b"big", b"bz"])
def test_a_large_pair_that_does_not_fit_is_refused_with_what_it_needs(
    database: Database, end: bytes | None
) -> None:
    for root in roots(database):
        with database.at(root) as snapshot:
            most = needed(snapshot, b"big", end)
            proof = snapshot.prove_range(b"big", end, max_keys=1, max_bytes=most)
            assert (proof.keys, len(proof.encode())) == ((b"big",), most)
            needed(snapshot, b"big", end)
            with pytest.raises(LimitTooSmall):
                snapshot.prove_range(b"big", end, max_keys=1, max_bytes=most - 1)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_large_change_that_does_not_fit_is_refused_with_what_it_needs(
    database: Database, turn: int
) -> None:
    old, new = roots(database)[:2][::turn]
    with pytest.raises(LimitTooSmall) as caught:
        database.prove_changes(old, new, max_bytes=1)
    most = caught.value.needed_bytes
    proof = database.prove_changes(old, new, max_bytes=most)
    assert (proof.keys, len(proof.encode())) == ((b"big",), most)


def test_a_proof_that_ends_before_a_large_value_is_made_of_bytes(database: Database) -> None:
    for root in roots(database):
        with database.at(root) as snapshot:
            proof = snapshot.prove_range(max_bytes=1000)
            assert (proof.keys, proof.values) == ((b"a",), (b"small",))
            whole = snapshot.prove_range(max_bytes=4 * LARGE)
            assert {type(part) for part in (*whole.keys, *whole.values)} == {bytes}
            assert dict(zip(whole.keys, whole.values, strict=True)) == dict(snapshot.items())


def test_where_a_commit_comes_between_values_are_copied_as_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.snapshot() as snapshot:
        expected = snapshot.prove_range(max_bytes=4 * LARGE), needed(snapshot, b"big")
        monkeypatch.setattr(Store, "begin_views", lambda _store, _transaction: None)
        assert (snapshot.prove_range(max_bytes=4 * LARGE), needed(snapshot, b"big")) == expected


def test_the_digest_of_a_large_value_beside_a_range_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_database(OLD) as database:
        old = database.root
        database.commit({b"c": b"other"})
        copies = Copies(monkeypatch)
        with database.at(old) as snapshot:
            proofs = [database.prove_range(b"big\x00"), snapshot.prove_range(b"big\x00")]
            assert LARGE <= copies.hashed < 2 * LARGE
            for _ in range(10):
                assert [database.prove_range(b"big\x00"), snapshot.prove_range(b"big\x00")] == proofs
        assert copies.hashed < 2 * LARGE


@pytest.mark.parametrize("key", [b"", b"big"])
def test_the_digest_of_the_only_value_is_made_once(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in no branch: its id is the root, of the head, of an old root, and of a view."""
    with new_database({key: b"v" * LARGE}) as database:
        old = database.root
        database.commit({key: b"w" * LARGE})
        copies = Copies(monkeypatch)
        beside = key + b"\x00"
        with database.at(old) as snapshot, database.view({key: b"x" * LARGE}) as view:
            states: list[Database | Snapshot | View] = [database, snapshot, view]
            proofs = [(state.prove_range(beside), state.prove(beside)) for state in states]
            hashed = copies.hashed
            assert 3 * LARGE <= hashed < 4 * LARGE
            read = counted_values(monkeypatch)
            for _ in range(10):
                assert [(state.prove_range(beside), state.prove(beside)) for state in states] == proofs
            assert (copies.hashed, read) == (hashed, [])
        for (range_proof, proof), root in zip(proofs, (database.root, old, view.root), strict=True):
            verify_range(range_proof, root, beside)
            verify_range(proof, root, beside, beside)


def test_the_only_value_is_not_hashed_again_to_apply_changes_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with new_database({b"big": b"v" * LARGE}) as source, new_database({b"big": b"v" * LARGE}) as copy:
        old = source.root
        new = source.commit({b"c": b"new"})
        assert copy.prove_range(b"c").keys == ()
        copies = Copies(monkeypatch)
        proof = source.prove_changes(old, new, b"c")
        copy.apply(copy.verify_changes(proof, new, b"c"))
        assert (copy.root, copies.hashed) == (new, 0)
        copy.check()


def test_the_only_value_is_not_copied_to_be_refused() -> None:
    with new_database({b"only": bytes(8 << 20)}) as database:
        tracemalloc.start()
        try:
            needed(database, None)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_deletions_below_a_large_value_neither_read_nor_hash_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deletions: dict[bytes, bytes | None] = {b"big" + bytes([number]): None for number in range(50)}
    with new_database(OLD) as source, new_database(OLD) as copy:
        old = source.root
        new = source.commit({b"zz": b"other"})
        proof = source.prove_changes(old, new)
        changes = deletions | dict(zip(proof.keys, proof.values, strict=True))
        keys, values = tuple(sorted(changes)), tuple(changes[key] for key in sorted(changes))
        copies = Copies(monkeypatch)
        verified = copy.verify_changes(proof._replace(keys=keys, values=values), new)
        assert (len(verified), verified.effective) == (51, 1)
        assert copies.hashed < LARGE
        copy.apply(verified)
        assert copy.root == new
        copy.check()


def test_a_put_below_a_large_value_makes_it_one_of_a_branch() -> None:
    with new_database(OLD) as source, new_database(OLD) as copy:
        old = source.root
        new = source.commit({b"big\x01": b"below", b"big\x02": None})
        for end in (None, b"big\x01"):
            verified = copy.verify_changes(source.prove_changes(old, new, None, end), new, None, end)
            assert verified.effective == 1
        copy.apply(copy.verify_changes(source.prove_changes(old, new), new))
        copy.check()


def test_the_memory_of_digests_is_bounded_and_forgets_the_oldest() -> None:
    digests = Digests()
    for number in range(MAX_DIGESTS + 10):
        digests.put(b"%d" % number, b"digest")
    assert digests.get(b"9") is None
    assert digests.get(None) is None
    assert digests.get(b"10") == digests.get(b"%d" % (MAX_DIGESTS + 9)) == b"digest"
