"""A database never goes dark: while it is brought forward, readers see its last complete root, or none.

The tip, what the tables hold, moves on piece by piece; the head moves once, when the tip is whole.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import merkledb
import merkledb.writing.transaction
from merkledb import EMPTY_ROOT, Database, Scheme, VerifiedChanges, VerifiedRange, verify_range
from merkledb.writing.transaction import WriteTransaction
from tests.support.databases import new_database
from tests.support.oracle import Contents
from tests.support.proof_verdicts import change_proof_of, proof_of
from tests.support.state_assertions import assert_proves_as, assert_reads_as, small_windows

SCHEME = Scheme()
A = {b"\x15": b"c", b"\x19\x01": b"d", b"\x19\x02": b"e" * 40, b"\x40": b"x", b"\x72": b"y"}
B = {b"\x11": b"f", b"\x15": b"c", b"\x40": b"z" * 33, b"\x71": b"g", b"\x72": b"y"}
C = {b"": b"h", b"\x15": b"i", b"\x19\x02": b"e" * 40, b"\x71": b"g"}
CUTS = (b"\x15", b"\x30", b"\x70")
PIECES = [*zip((None, *(cut + b"\x00" for cut in CUTS)), (*CUTS, None), strict=True)]
Piece = VerifiedRange | VerifiedChanges


def pieces(target: Contents) -> list[Piece]:
    """A content in verified ranges."""
    root = merkledb.root_of(target)
    return [
        verify_range(proof_of(target, SCHEME, start, end), root, start, end, scheme=SCHEME)
        for start, end in PIECES
    ]


def changed_pieces(database: Database, old: Contents, new: Contents) -> list[Piece]:
    """What leads from one content to another in verified changes, beside what the database holds."""
    root = merkledb.root_of(new)
    return [
        database.verify_changes(change_proof_of(old, new, SCHEME, start, end), root, start, end)
        for start, end in PIECES
    ]


def assert_shows(database: Database, content: Contents, *, catching_up: bool) -> None:
    """Fail unless readers see this content, whole, whatever the tables hold."""
    assert_reads_as(database, content, SCHEME)
    for key in {*A, *B, *C}:
        assert_proves_as(database, content, SCHEME, key, None)
    with database.at(merkledb.root_of(content)) as snapshot:
        assert_reads_as(snapshot, content, SCHEME)
    assert database.catching_up == catching_up
    assert (database.tip_root == database.root) or catching_up
    database.check()


READS: dict[str, Callable[[Database], object]] = {
    "root": lambda database: database.root,
    "revision": lambda database: database.revision,
    "len": len,
    "get": lambda database: database.get(b"\x15"),
    "[]": lambda database: database[b"\x15"],
    "in": lambda database: b"\x15" in database,
    "items": lambda database: list(database.items()),
    "items, reversed": lambda database: list(database.items(reverse=True)),
    "prove": lambda database: database.prove(b"\x15"),
    "prove_range": lambda database: database.prove_range(),
    "snapshot": lambda database: database.snapshot(),
    "at": lambda database: database.at(EMPTY_ROOT),
    "at the target": lambda database: database.at(merkledb.root_of(B)),
    "prove_changes": lambda database: database.prove_changes(EMPTY_ROOT, EMPTY_ROOT),
    "differences": lambda database: list(database.differences(EMPTY_ROOT, EMPTY_ROOT)),
}


@pytest.mark.parametrize("name", READS)
def test_a_first_sync_has_no_root_to_show_until_it_is_complete(name: str) -> None:
    with new_database() as database:
        for piece in pieces(B)[:-1]:
            database.apply(piece, progress=b"progress")
            with pytest.raises(merkledb.NoCompleteRoot):
                READS[name](database)
            assert (database.head, database.revisions()) == (None, [])
            assert database.catching_up
            assert not database.written_locally
            database.check()
        database.apply(pieces(B)[-1])
        assert_shows(database, B, catching_up=False)
        assert [revision.number for revision in database.revisions()] == [1]
        with pytest.raises(merkledb.HistoryGone):
            database.at(EMPTY_ROOT)


def test_a_first_piece_without_content_begins_a_sync_too() -> None:
    with new_database() as database:
        start, end = b"\x50", b"\x60"
        proof = proof_of(B, SCHEME, start, end)
        database.apply(verify_range(proof, merkledb.root_of(B), start, end))
        assert (database.tip_root, database.head) == (EMPTY_ROOT, None)


def test_a_first_sync_to_nothing_is_complete_at_once() -> None:
    with new_database() as database:
        assert database.apply(verify_range(proof_of({}, SCHEME), EMPTY_ROOT)) == EMPTY_ROOT
        assert_shows(database, {}, catching_up=False)
        assert database.revision == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5], ids=str)
@pytest.mark.parametrize("by_changes", [False, True], ids=["by ranges", "by changes"])
def test_a_replica_shows_its_last_root_until_the_next_is_whole(
    order: tuple[int, ...], by_changes: bool
) -> None:
    with new_database(A) as database:
        for step, at in enumerate(order):
            assert_shows(database, A, catching_up=step > 0)
            piece = changed_pieces(database, A, B)[at] if by_changes else pieces(B)[at]
            database.apply(piece, progress=b"%d" % step)
            assert database.progress == b"%d" % step
        assert_shows(database, B, catching_up=False)
        assert [revision.number for revision in database.revisions()] == [2, 1, 0]
        with database.at(merkledb.root_of(A)) as snapshot:
            assert_reads_as(snapshot, A, SCHEME)


def test_snapshots_and_iterations_stay_where_they_began() -> None:
    with small_windows(1), new_database(A) as database:
        before, iterator = database.snapshot(), database.items()
        seen = [next(iterator)]
        database.apply(pieces(B)[:2])
        during, backwards = database.snapshot(), database.items(reverse=True)
        seen_backwards = [next(backwards)]
        database.apply(pieces(B)[2:])
        database.apply(pieces(C))
        for snapshot in (before, during):
            assert_reads_as(snapshot, A, SCHEME)
            assert_proves_as(snapshot, A, SCHEME, b"\x15", b"\x40")
            snapshot.close()
        assert [*seen, *iterator] == sorted(A.items())
        assert [*seen_backwards, *backwards] == sorted(A.items(), reverse=True)


def test_only_the_root_of_what_was_just_applied_can_become_the_head() -> None:
    with new_database(A) as database:
        # B and a content that is B but for one key: pieces of both make B, and then the other.
        other = {**B, b"\x71": b"another"}
        database.apply(pieces(B)[:3])
        assert database.apply(pieces(other)[3]) == merkledb.root_of(other)
        assert_shows(database, other, catching_up=False)
        database.apply(pieces(A)[0])
        # The tip is whole, as `other`, but what was applied is a part of B.
        assert database.apply(pieces(B)[0]) == merkledb.root_of(other)
        assert_shows(database, other, catching_up=True)
        database.apply(pieces(B)[1:])
        assert_shows(database, B, catching_up=False)


def test_the_target_may_change_on_the_way() -> None:
    with new_database(A) as database:
        database.apply(pieces(B)[:2])
        database.apply(pieces(C)[1:3])
        assert_shows(database, A, catching_up=True)
        database.apply(pieces(B)[3])
        assert_shows(database, A, catching_up=True)
        # The first piece and the last are at B, those between at C already.
        for at, (start, end) in enumerate(PIECES):
            proof = change_proof_of(B if at in (0, 3) else C, C, SCHEME, start, end)
            database.apply(database.verify_changes(proof, merkledb.root_of(C), start, end))
        assert_shows(database, C, catching_up=False)
        assert [revision.root for revision in database.revisions()[:2]] == [
            merkledb.root_of(C),
            merkledb.root_of(A),
        ]


def test_a_target_that_goes_back_to_the_head_ends_there() -> None:
    with new_database(A) as database:
        head = database.head
        database.apply(pieces(B)[:3])
        database.apply(pieces(A)[:3])
        assert_shows(database, A, catching_up=False)
        assert database.head == head
        assert database.commit({b"new": b"1"}) == merkledb.root_of({**A, b"new": b"1"})
        with database.at(merkledb.root_of(A)) as snapshot:
            assert_reads_as(snapshot, A, SCHEME)
            assert_proves_as(snapshot, A, SCHEME, b"\x15", b"\x40")
        assert list(database.differences(merkledb.root_of(A), database.root)) == [(b"new", None, b"1")]


def test_a_root_of_which_history_is_kept_is_read_while_a_sync_is_under_way() -> None:
    with new_database(A) as database:
        database.commit({key: C.get(key) for key in {*A, *C}})
        database.apply(pieces(B)[1:3])
        for content in ({}, A, C):
            with database.at(merkledb.root_of(content)) as snapshot:
                assert_reads_as(snapshot, content, SCHEME)
                assert_proves_as(snapshot, content, SCHEME, b"\x15", b"\x40")
        proof = database.prove_changes(merkledb.root_of(A), merkledb.root_of(C))
        assert proof == change_proof_of(A, C, SCHEME)
        with pytest.raises(merkledb.UnknownRoot):
            database.at(database.tip_root)


NUMBERS = [(None, 2), (0, 2), (1, 2), (2, 2), (7, 7), (1 << 40, 1 << 40)]


@pytest.mark.parametrize(("given", "expected"), NUMBERS)
def test_a_revision_takes_over_the_number_of_its_source_where_it_is_greater(
    given: int | None, expected: int
) -> None:
    with new_database(A) as database:
        database.apply(pieces(B)[:2], revision=100)
        database.apply(pieces(B)[2:], revision=given)
        assert database.revision == expected
        assert [revision.number for revision in database.revisions()] == [expected, 1, 0]
        database.commit({b"key": b"value"})
        assert database.revision == expected + 1


def test_a_revision_of_the_same_root_may_get_a_greater_number() -> None:
    with new_database(A) as database:
        database.apply(pieces(A), revision=1)
        assert [revision.number for revision in database.revisions()] == [1, 0]
        database.apply(pieces(A), revision=5)
        assert [revision.number for revision in database.revisions()] == [5, 1, 0]
        assert_shows(database, A, catching_up=False)


# ------------------------------------------------------------------------------------- what is refused


def test_local_commits_wait_for_the_end_of_a_sync() -> None:
    with new_database(A) as database:
        view = database.view({b"key": b"value"})
        database.apply(pieces(B)[:2], progress=b"progress")
        commits: list[Callable[[], object]] = [
            lambda: database.commit({b"key": b"value"}),
            lambda: database.commit({}),
            lambda: database.view({b"key": b"value"}),
            view.commit,
        ]
        for commit in commits:
            with pytest.raises(merkledb.SyncUnfinished):
                commit()
        with pytest.raises(merkledb.SyncUnfinished), database.batch() as batch:
            batch[b"key"] = b"value"
        assert database.progress == b"progress"
        assert_shows(database, A, catching_up=True)
        database.apply(pieces(B)[2:])
        with pytest.raises(merkledb.StaleView):
            view.commit()
        view.close()
        database.commit({b"key": b"value"})
        assert_shows(database, {**B, b"key": b"value"}, catching_up=False)


def test_a_first_sync_takes_no_local_commits_either() -> None:
    with new_database() as database:
        database.apply(pieces(B)[:2])
        with pytest.raises(merkledb.SyncUnfinished):
            database.commit({b"key": b"value"})
        with pytest.raises(merkledb.NoCompleteRoot):
            database.view({b"key": b"value"})


def test_changes_are_stale_when_the_content_they_were_verified_against_has_changed() -> None:
    with new_database(A) as database:
        start, end = b"\x11", b"\x20"
        proof = change_proof_of(A, B, SCHEME, start, end)
        stale = database.verify_changes(proof, merkledb.root_of(B), start, end)
        around: dict[bytes, bytes | None] = {b"\x10": b"", b"\x20\x00": b"", b"\x40": None, b"": b"1"}
        database.commit(around)
        # What lies outside the range does not matter.
        database.apply(stale)
        inside = {b"\x11": b"f", b"\x15": b"c"}
        outside = {b"": b"1", b"\x10": b"", b"\x20\x00": b"", b"\x72": b"y"}
        assert database.tip_root == merkledb.root_of({**inside, **outside})
        with pytest.raises(merkledb.StaleChanges) as caught:
            database.apply(stale, progress=b"never")
        assert caught.value.start == start
        assert (database.tip_root, database.progress) == (merkledb.root_of({**inside, **outside}), None)
        database.check()


EDITS: dict[str, dict[bytes, bytes | None]] = {
    "a value": {b"\x15": b"other"},
    "a value at the start": {b"\x11": b"new"},
    "a value at the end": {b"\x20": b"new"},
    "a value on a branch": {b"\x19": b"new"},
    "a key that the changes delete": {b"\x19\x01": None},
    "a key that they do not touch": {b"\x12": b"new"},
    "what they would put": {b"\x11": b"f"},
    "everything": dict.fromkeys(A),
}


@pytest.mark.parametrize("name", EDITS)
def test_any_change_inside_the_range_makes_them_stale_and_nothing_is_changed(name: str) -> None:
    with new_database(A) as database:
        start, end = b"\x11", b"\x20"
        proof = change_proof_of(A, B, SCHEME, start, end)
        verified = database.verify_changes(proof, merkledb.root_of(B), start, end)
        database.commit(EDITS[name])
        head = database.head
        with pytest.raises(merkledb.StaleChanges):
            database.apply([*pieces(C)[2:], verified], progress=b"never")
        assert (database.head, database.progress, database.catching_up) == (head, None, False)
        database.check()
        if name != "everything":
            database.commit({key: A.get(key) for key in EDITS[name]})
            database.apply(verified)
            database.check()


def test_changes_in_one_transaction_are_stale_by_what_was_applied_before_them() -> None:
    with new_database(A) as database:
        by_changes = changed_pieces(database, A, B)
        with pytest.raises(merkledb.StaleChanges):
            database.apply([*pieces(C)[:1], *by_changes])
        assert_shows(database, A, catching_up=False)
        database.apply([by_changes[2], pieces(B)[0], by_changes[3], by_changes[1]])
        assert_shows(database, B, catching_up=False)


def test_nobody_but_the_verifier_makes_verified_changes_and_nobody_changes_them() -> None:
    with new_database(A) as database:
        with pytest.raises(TypeError):
            VerifiedChanges()  # type: ignore[call-arg]  # that it takes nothing a caller could give is tested
        (verified, *_) = changed_pieces(database, A, B)
        for attribute in ("keys", "values", "start", "end", "root", "complete", "invented"):
            with pytest.raises(AttributeError):
                setattr(verified, attribute, ())
        for thing in (change_proof_of(A, B, SCHEME), [change_proof_of(A, B, SCHEME)], dict(B), None):
            with pytest.raises(TypeError):
                database.apply(thing)  # type: ignore[arg-type]  # the wrong type is what is tested
        assert_shows(database, A, catching_up=False)


def test_changes_of_another_scheme_are_refused() -> None:
    other = Scheme("sha256", 4)
    with new_database(A) as database, new_database(A, other) as elsewhere:
        proof = change_proof_of(A, B, other)
        verified = elsewhere.verify_changes(proof, merkledb.root_of(B, other))
        with pytest.raises(merkledb.SchemeMismatch):
            database.apply(verified)


def test_a_proof_of_the_other_kind_is_malformed() -> None:
    with new_database(A) as database:
        changes, range_ = change_proof_of(A, B, SCHEME), proof_of(B, SCHEME)
        for verify in (
            lambda: verify_range(changes, merkledb.root_of(B)),  # type: ignore[arg-type]  # the wrong type
            lambda: database.verify_changes(range_, merkledb.root_of(B)),  # type: ignore[arg-type]  # is tested
        ):
            with pytest.raises(merkledb.InvalidProof) as caught:
                verify()
            assert caught.value.reason is merkledb.Reason.MALFORMED


# ------------------------------------------------------------------------------------------- giving up


@pytest.mark.parametrize("applied", range(1, 4))
@pytest.mark.parametrize("rows", [1, 2, 8192])
def test_a_sync_that_is_given_up_leaves_the_head(applied: int, rows: int) -> None:
    with new_database(A) as database, rolled_back_by(rows):
        head = database.head
        database.apply(pieces(B)[:applied], progress=b"progress")
        database.roll_back()
        assert (database.head, database.progress, database.written_locally) == (head, None, True)
        assert_shows(database, A, catching_up=False)
        database.roll_back()
        database.apply(changed_pieces(database, A, C)[:applied])
        database.roll_back()
        database.commit({b"\x15": b"new"})
        assert_shows(database, {**A, b"\x15": b"new"}, catching_up=False)
        with database.at(merkledb.root_of(A)) as snapshot:
            assert_reads_as(snapshot, A, SCHEME)
            assert_proves_as(snapshot, A, SCHEME, b"\x15", b"\x40")


@contextlib.contextmanager
def rolled_back_by(rows: int) -> Iterator[None]:
    """Roll back in transactions of so many rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merkledb.writing.transaction, "_ROLLED_BACK_ROWS", rows)
        yield


def test_a_first_sync_that_is_given_up_leaves_nothing() -> None:
    with new_database() as database:
        database.apply(pieces(B)[:2], progress=b"progress")
        database.roll_back()
        assert_shows(database, {}, catching_up=False)
        assert (database.revision, database.progress) == (0, None)
        database.commit(B)
        assert_shows(database, B, catching_up=False)


def test_without_a_sync_only_progress_is_given_up() -> None:
    with new_database(A) as database:
        head = database.head
        database.set_progress(b"progress")
        database.roll_back()
        assert (database.head, database.progress) == (head, None)


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize("target", [B, C, {}], ids=["B", "C", "nothing"])
def test_readers_see_the_head_while_a_sync_is_given_up_in_several_steps(target: Contents, steps: int) -> None:
    step, left = WriteTransaction.roll_back, iter(range(steps))

    def steps_and_death(write: WriteTransaction, *arguments: object) -> object:
        if next(left, None) is None:
            raise InterruptedError
        return step(write, *arguments)  # type: ignore[arg-type]  # whatever it takes

    with new_database(A) as database, rolled_back_by(1):
        database.apply(pieces(target)[:3], progress=b"progress")
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(InterruptedError):
            patch.setattr(WriteTransaction, "roll_back", steps_and_death)
            database.roll_back()
        assert database.progress is None
        assert_shows(database, A, catching_up=database.catching_up)
        # A sync may go on from there, and can be given up again.
        database.apply(pieces(C)[:2])
        assert_shows(database, A, catching_up=True)
        database.roll_back()
        assert_shows(database, A, catching_up=False)
        database.apply(pieces(C))
        assert_shows(database, C, catching_up=False)


def test_what_a_sync_would_destroy_is_known_before_and_after_it() -> None:
    with new_database(A) as database:
        steps: list[tuple[Callable[[], object], bool]] = [
            (lambda: database.apply([]), True),
            (lambda: database.apply(pieces(B)[:2]), False),
            (database.roll_back, True),
            (lambda: database.apply(pieces(B)), False),
            (lambda: database.commit({b"key": b"value"}), True),
        ]
        assert database.written_locally
        for step, expected in steps:
            step()
            assert database.written_locally == expected


# -------------------------------------------------------------------------------------- other openings


def test_readers_in_other_openings_see_complete_roots_only(tmp_path: Path) -> None:
    path = tmp_path / "store"
    for content, target in (({}, A), (A, B), (B, C)):
        for at, piece in enumerate(pieces(target)):
            with merkledb.open(path, history=2) as database:
                database.apply(piece, progress=b"%d" % at)
            with merkledb.open(path, readonly=True) as reader:
                assert reader.progress == b"%d" % at
                if at == len(PIECES) - 1:
                    assert_shows(reader, target, catching_up=False)
                elif content:
                    assert_shows(reader, content, catching_up=True)
                else:
                    assert reader.head is None
    with merkledb.open(path, readonly=True) as reader:
        assert [revision.root for revision in reader.revisions()] == [
            merkledb.root_of(C),
            merkledb.root_of(B),
        ]


def test_syncs_are_pruned_as_commits_are(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store", history=2) as database:
        for target in (A, B, C, A, B):
            for piece in pieces(target):
                database.apply(piece)
                assert len(database.revisions()) <= 2
                database.check()
        assert [revision.number for revision in database.revisions()] == [5, 4]
        with pytest.raises(merkledb.HistoryGone):
            database.at(merkledb.root_of(C))


@pytest.mark.slow
def test_a_large_sync_that_is_given_up_half_way_leaves_the_head() -> None:
    old = {number.to_bytes(3): b"%d" % number for number in range(0, 20_000, 2)}
    new = {number.to_bytes(3): b"new" for number in range(0, 20_000, 3)}
    with new_database(old) as database:
        start = (9000).to_bytes(3)
        for verified in (
            verify_range(proof_of(new, SCHEME, None, start), merkledb.root_of(new), None, start),
            database.verify_changes(
                change_proof_of(old, new, SCHEME, start + b"\x00"), merkledb.root_of(new), start + b"\x00"
            ),
        ):
            database.apply(verified)
            if not database.catching_up:
                break
            assert dict(database.items()) == old
            assert dict(database.items(reverse=True)) == old
            assert database.prove_range(start) == proof_of(old, SCHEME, start, None, 4096)
            database.roll_back()
            database.check()
            assert dict(database.items()) == old


# A head whose root comes back under a higher number.


@pytest.mark.parametrize("history", [1, 2, 256])
def test_a_higher_number_makes_a_revision_with_the_same_content(history: int, tmp_path: Path) -> None:
    with merkledb.open(tmp_path, history=history) as database:
        database.commit(A)
        database.commit({b"\x11": b"f"})
        before = database.revisions()
        database.renumber(before[0].number)
        assert database.revisions() == before, "no number that is not higher changes anything"
        content = dict(database.items())
        database.renumber(17)
        assert [revision.number for revision in database.revisions()] == [17, 2, 1, 0][:history]
        assert_shows(database, content, catching_up=False)
        assert database.written_locally
        for revision in database.revisions():
            with database.at(revision.root) as snapshot:
                assert merkledb.root_of(dict(snapshot.items())) == revision.root
        database.commit({b"after": b"all"})
        assert database.revision == 18
        assert database.revisions(limit=1)[0].number == 18
        database.check()


def test_a_copy_that_takes_a_higher_number_remains_a_copy() -> None:
    with new_database() as database:
        database.apply(pieces(A), revision=3)
        database.renumber(5)
        assert (database.revision, database.written_locally) == (5, False)
        database.apply(changed_pieces(database, A, B), revision=6)
        assert [revision.number for revision in database.revisions()] == [6, 5, 3]
        assert_shows(database, B, catching_up=False)


def test_what_a_sync_rolled_back_left_in_history_is_true_of_a_head_with_a_higher_number() -> None:
    with new_database() as database:
        database.apply(pieces(A), revision=3)
        database.apply(changed_pieces(database, A, B)[:2])
        with pytest.raises(merkledb.SyncUnfinished):
            database.renumber(5)
        database.roll_back()
        database.renumber(5)
        assert_shows(database, A, catching_up=False)
        database.apply(changed_pieces(database, A, B), revision=6)
        assert_shows(database, B, catching_up=False)
        with database.at(merkledb.root_of(A)) as snapshot:
            assert_reads_as(snapshot, A, SCHEME)
        assert [revision.number for revision in database.revisions()] == [6, 5, 3]
