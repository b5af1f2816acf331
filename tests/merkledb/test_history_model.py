"""A database with its history behaves as a list of dictionaries, whatever is committed, synced or given up.

The model knows every revision that there was, and what each answered when it was the head. The database is
made to need many windows and many steps for what a large one needs them for.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import merkledb
import merkledb.writing.transaction
from merkledb import Database, Scheme, Snapshot, VerifiedChanges, VerifiedRange, verify_range
from merkledb.storage.store import key_of_row
from merkledb.writing.transaction import WriteTransaction
from tests.support import oracle
from tests.support.merkledb_strategies import changes, keys, limits, ranges, schemes
from tests.support.proof_verdicts import change_proof_of, overlaid, proof_of
from tests.support.state_assertions import (
    Clock,
    Request,
    assert_proves_as,
    assert_reads_as,
    assert_reads_range_as,
    small_windows,
)
from tests.support.thoroughness import amount

Contents = dict[bytes, bytes]


class Known(NamedTuple):
    """A revision as the model knows it, with what it answered to a request when it was the head."""

    number: int
    root: bytes
    time: float
    content: Contents
    request: Request
    answer: bytes


def contents_of_tables(database: Database) -> Contents:
    """What the tables hold, be it a mixture."""
    store = database._store
    with store.read() as transaction:
        return {key_of_row(row): value for row, value in transaction.cursor(db=store.values)}


class HistoryMachine(RuleBasedStateMachine):
    """A database, all of its revisions, what its tables hold, and snapshots that each go with a revision."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.snapshots: list[tuple[Snapshot, Known]] = []
        self.tip: Contents = {}
        self.unfinished = False
        self.progress: bytes | None = None

    @initialize(
        scheme=schemes(),
        history=st.integers(1, 4),
        seconds=st.sampled_from([None, 100.0]),
        windows=st.integers(1, 3),
        pruned=st.sampled_from([1, 3, 4096]),
        request=st.builds(lambda limit: Request(None, None, *limit), limits()),
    )
    def create(
        self, scheme: Scheme, history: int, seconds: float | None, windows: int, pruned: int, request: Request
    ) -> None:
        self.windows = small_windows(windows, pruned_rows=pruned, retained=1)
        self.windows.__enter__()
        self.scheme, self.history, self.seconds = scheme, history, seconds
        self.open()
        answer = request.answer(self.database)
        self.known = [Known(0, merkledb.EMPTY_ROOT, self.clock.now, {}, request, answer)]
        self.oldest = 0

    def open(self) -> None:
        self.database = merkledb.open(
            self.folder / "store",
            scheme=self.scheme,
            history=self.history,
            history_seconds=self.seconds,
            clock=self.clock,
        )

    # The model.

    @property
    def head(self) -> Known | None:
        return None if self.unfinished and len(self.known) == 1 else self.known[-1]

    @property
    def retained(self) -> list[Known]:
        return self.known[self.oldest :] if self.head else []

    @property
    def pool(self) -> list[bytes]:
        return sorted(
            {key for known in (*self.retained, *self.known[-2:]) for key in known.content} | {*self.tip}
        )

    def new_revision(self, data: st.DataObject, number: int = 0) -> None:
        """What the tip holds has become the head."""
        request = Request(*data.draw(ranges(self.pool)), *data.draw(limits()))
        is_first_sync = self.unfinished and len(self.known) == 1
        number = max(number, self.known[-1].number + 1)
        root = oracle.root_of(self.tip, self.scheme)
        answer = request.answer(self.database)
        self.known.append(Known(number, root, self.clock.now, dict(self.tip), request, answer))
        newest = len(self.known) - 1
        self.oldest = newest if is_first_sync else max(self.oldest, newest - self.history + 1)
        while self.seconds is not None and self.oldest < newest:
            # Two revisions in a row have to find it too old.
            if self.known[self.oldest].time >= self.known[-2].time - self.seconds:
                break
            self.oldest += 1
        self.unfinished = False

    # Local commits.

    @rule(data=st.data(), way=st.sampled_from(["commit", "commit", "batch", "view", "views", "forget"]))
    def commit(self, data: st.DataObject, way: str) -> None:
        kind = data.draw(st.integers(0, 5))
        change: dict[bytes, bytes | None] = data.draw(changes(self.pool))
        if kind == 0:
            back = data.draw(st.sampled_from(self.known)).content
            change = oracle.changes_between(self.tip, back)
        elif kind == 1:
            change = dict.fromkeys(self.tip)
        if self.unfinished:
            has_nothing_to_view = self.head is None and way in ("view", "views")
            with pytest.raises(merkledb.NoCompleteRoot if has_nothing_to_view else merkledb.SyncUnfinished):
                self.make(change, way)
            return
        before = self.tip
        self.tip = oracle.changed(before, change)
        assert self.make(change, way) == oracle.root_of(self.tip, self.scheme)
        self.progress = None
        if self.tip != before:
            self.new_revision(data)
            if way == "forget":
                self.oldest = len(self.known) - 1

    def make(self, change: dict[bytes, bytes | None], way: str) -> bytes | None:
        if way in ("commit", "forget"):
            return self.database.commit(change, keep_history=way == "commit")
        if way == "batch":
            with self.database.batch() as batch:
                for key, value in change.items():
                    if value is None:
                        del batch[key]
                    else:
                        batch[key] = value
            return batch.root
        half = dict(list(change.items())[: len(change) // 2]) if way == "views" else {}
        with self.database.view(half) as below:
            return below.view(change).commit()

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    # Syncs.

    @rule(
        data=st.data(),
        number=st.none() | st.integers(0, 30),
        progress=st.sampled_from([None, b"one", b"two"]),
    )
    def apply_pieces(self, data: st.DataObject, number: int | None, progress: bytes | None) -> None:
        targets = [self.target(data) for _ in range(data.draw(st.integers(1, 2)))]
        cuts = sorted(data.draw(st.sets(keys() | st.sampled_from(self.pool or [b"k"]), max_size=4)))
        pieces = list(zip([None, *(cut + b"\x00" for cut in cuts)], [*cuts, None], strict=True))
        chosen = data.draw(st.lists(st.sampled_from(pieces), unique=True, max_size=3))
        self.apply(
            data,
            [self.piece(data, data.draw(st.sampled_from(targets)), *at) for at in chosen],
            number,
            progress,
        )

    @rule(data=st.data(), number=st.none() | st.integers(0, 30))
    def apply_all(self, data: st.DataObject, number: int | None) -> None:
        self.apply(data, [self.piece(data, self.target(data), None, None)], number, None)

    def target(self, data: st.DataObject) -> Contents:
        """A content to sync to: near what is there, or one that there was."""
        base = data.draw(st.sampled_from([self.tip, *(known.content for known in self.known)]))
        return oracle.changed(base, data.draw(st.just({}) | changes(self.pool)))

    def piece(
        self, data: st.DataObject, target: Contents, start: bytes | None, end: bytes | None
    ) -> VerifiedRange | VerifiedChanges:
        root = oracle.root_of(target, self.scheme)
        if data.draw(st.booleans()):
            proof = proof_of(target, self.scheme, start, end)
            return verify_range(proof, root, start, end, scheme=self.scheme)
        changed = change_proof_of(self.tip, target, self.scheme, start, end)
        return self.database.verify_changes(changed, root, start, end)

    def apply(
        self,
        data: st.DataObject,
        pieces: list[VerifiedRange | VerifiedChanges],
        number: int | None,
        progress: bytes | None,
    ) -> None:
        for piece in pieces:
            self.tip = overlaid(self.tip, piece)
        root = oracle.root_of(self.tip, self.scheme)
        assert self.database.apply(pieces, progress=progress, revision=number) == root
        self.progress = progress
        if not pieces:
            return
        if root not in {piece.root for piece in pieces}:
            event("a mixture")
            self.unfinished = True
        elif root == self.known[-1].root and (number or 0) <= self.known[-1].number:
            event("back at the head")
            self.unfinished = False
        else:
            event("a new head by a sync")
            if not self.unfinished:
                # A first sync may take one step.
                self.unfinished = len(self.known) == 1
            self.new_revision(data, number or 0)

    @rule(steps=st.integers(1, 4))
    def roll_back(self, steps: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merkledb.writing.transaction, "_ROLLED_BACK_ROWS", steps)
            self.database.roll_back()
        self.tip, self.unfinished, self.progress = self.known[-1].content, False, None

    @precondition(lambda self: self.unfinished)
    @rule(steps=st.integers(1, 3), rows=st.integers(1, 2))
    def roll_back_and_die_on_the_way(self, steps: int, rows: int) -> None:
        step, left = WriteTransaction.roll_back, iter(range(steps))

        def steps_and_death(write: WriteTransaction, *arguments: Any) -> Any:
            if next(left, None) is None:
                raise InterruptedError
            return step(write, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merkledb.writing.transaction, "_ROLLED_BACK_ROWS", rows)
            patch.setattr(WriteTransaction, "roll_back", steps_and_death)
            with contextlib.suppress(InterruptedError):
                self.database.roll_back()
        # How far it came is its own business, as long as readers see nothing of it.
        self.tip, self.progress = contents_of_tables(self.database), None
        self.unfinished = self.database.catching_up
        assert self.unfinished or self.tip == self.known[-1].content

    # Whatever may come between.

    @rule(history=st.integers(1, 4))
    def reopen(self, history: int) -> None:
        self.close_all()
        self.history = history
        self.open()

    @precondition(lambda self: self.head)
    @rule()
    def read_only(self) -> None:
        self.close_all()
        with merkledb.open(self.folder / "store", scheme=None, readonly=True) as reader:
            for known in self.retained:
                with reader.at(known.root) as snapshot:
                    assert_reads_as(snapshot, known.content, self.scheme)
        self.open()

    @precondition(lambda self: self.head)
    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.retained))
        with self.database.at(known.root) as snapshot:
            self.assert_is(snapshot, known, data)
            assert snapshot.revision == max(each.number for each in self.known if each.root == known.root)

    def assert_is(self, snapshot: Snapshot, known: Known, data: st.DataObject) -> None:
        assert_reads_as(snapshot, known.content, self.scheme)
        start, end = data.draw(ranges(self.pool))
        assert_reads_range_as(snapshot, known.content, start, end)
        assert_proves_as(snapshot, known.content, self.scheme, start, end)
        assert known.request.answer(snapshot) == known.answer

    @precondition(lambda self: self.head)
    @rule(data=st.data())
    def compare(self, data: st.DataObject) -> None:
        old, new = (data.draw(st.sampled_from(self.retained)) for _ in range(2))
        start, end = data.draw(ranges(self.pool))
        expected = oracle.changes_between(old.content, new.content, start, end)
        found = list(self.database.differences(old.root, new.root, start, end))
        assert [tuple(each) for each in found] == [
            (key, old.content.get(key), new.content.get(key)) for key in expected
        ]
        max_keys = data.draw(st.integers(1, 4))
        proof = self.database.prove_changes(old.root, new.root, start, end, max_keys=max_keys)
        assert proof == change_proof_of(old.content, new.content, self.scheme, start, end, max_keys)

    @precondition(lambda self: self.head and self.oldest)
    @rule(data=st.data())
    def ask_for_what_is_gone(self, data: st.DataObject) -> None:
        root = data.draw(st.sampled_from(self.known[: self.oldest])).root
        if root in {known.root for known in self.retained}:
            self.database.at(root).close()
        else:
            with pytest.raises(merkledb.HistoryGone):
                self.database.at(root)

    @precondition(lambda self: self.head and len(self.snapshots) < 3)
    @rule(data=st.data())
    def take_snapshot(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.retained))
        self.snapshots.append((self.database.at(known.root), known))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), close=st.booleans())
    def read_snapshot(self, data: st.DataObject, close: bool) -> None:
        snapshot, known = self.snapshots.pop(0)
        self.assert_is(snapshot, known, data)
        if close:
            snapshot.close()
        else:
            self.snapshots.append((snapshot, known))

    @invariant()
    def database_is_the_model_s(self) -> None:
        if not hasattr(self, "known"):
            return
        self.database.check(history=True)
        assert self.database.tip_root == oracle.root_of(self.tip, self.scheme)
        assert (self.database.catching_up, self.database.progress) == (self.unfinished, self.progress)
        assert [tuple(revision) for revision in self.database.revisions()] == [
            (known.number, known.root, known.time, len(known.content)) for known in reversed(self.retained)
        ]
        if self.head is None:
            assert self.database.head is None
            with pytest.raises(merkledb.NoCompleteRoot):
                self.database.snapshot()
            return
        assert_reads_as(self.database, self.head.content, self.scheme)
        assert self.database.revision == self.head.number
        assert self.head.request.answer(self.database) == self.head.answer

    def close_all(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.snapshots.clear()
        self.database.close()

    def teardown(self) -> None:
        if hasattr(self, "known"):
            self.close_all()
            self.windows.__exit__(None, None, None)
        shutil.rmtree(self.folder)


HistoryMachine.TestCase.settings = settings(max_examples=amount(30, soak=3_000), stateful_step_count=20)
TestHistory = pytest.mark.slow(HistoryMachine.TestCase)
