"""One write transaction of a database: what it does to the tables, and what then becomes of tip and head.

    commit       the tables hold the head; afterwards they hold a new one
    apply        the tables hold the head or a mixture; afterwards a mixture, or a new head
    renumber     the tables hold the head; afterwards the same content is a newer one
    roll_back    the tables hold a mixture; afterwards less of one, or the head

Whoever commits it writes history, except for a first sync: before its end there is no head to be read.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from merkledb.arguments import require_bytes
from merkledb.errors import RevisionTooHigh, SyncUnfinished
from merkledb.formats.branch_delta import NodeLocation
from merkledb.formats.scheme import Scheme
from merkledb.history.log import HistoryWriter, location_of, prune_history, value_rows
from merkledb.history.revisions import (
    MAX_REVISION,
    TIP,
    Revision,
    Tip,
    drop_revisions,
    put_revision,
    read_retention,
    read_revision,
    read_tip,
    require_time,
)
from merkledb.proofs.change_verifier import VerifiedChanges
from merkledb.proofs.range_verifier import VerifiedRange
from merkledb.storage.store import Store, StoreTransaction, Transaction
from merkledb.trie.merge_stream import ChangeColumns, sorted_changes
from merkledb.trie.trie import StoredTrie
from merkledb.writing.applier import Applier

PROGRESS: Final = b"progress"
# The manager's state of a sync is a map of a few hundred ranges; more would make every transaction write it
# again.
MAX_PROGRESS_BYTES: Final = 1 << 20
# A sync is rolled back in transactions of so many values or bytes.
_ROLLED_BACK_ROWS: Final = 8192
_ROLLED_BACK_BYTES: Final = 16 << 20


class WriteTransaction:
    """A write transaction, committed at the end of its ``with`` block and undone on an exception.

    Args:
        store: What is written.
        scheme: The store's scheme.
        clock: Tells the time of a new revision, in seconds since 1970.

    Attributes:
        transaction: What it writes in.
        tip: How the tables stand.
    """

    def __init__(self, store: Store, scheme: Scheme, clock: Callable[[], float]) -> None:
        self._store = store
        self._scheme = scheme
        self._clock = clock
        self._context: AbstractContextManager[Transaction] = store.write()

    def __enter__(self) -> Self:
        self.transaction = StoreTransaction(self._store, self._context.__enter__(), self._scheme)
        try:
            self.tip = read_tip(self.transaction)
            self._retention = read_retention(self.transaction)
        except BaseException as error:
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)

    def commit(self, changes: ChangeColumns, *, keep_history: bool = True) -> bytes:
        """Make changes to the head; return the new root.

        Args:
            changes: In columns.
            keep_history: Whether older revisions are retained, as far as the store retains any.

        Raises:
            SyncUnfinished: The tables do not hold the head.
        """
        if self.tip.unfinished:
            raise SyncUnfinished(str(self._store.path))
        retained = self._retention.revisions > 1
        history = self._history(unfinished=False) if retained and keep_history else None
        root = Applier(self.transaction, history).commit(changes, self.tip.root)
        if root != self.tip.root:
            self._make_revision(root, 0, history, written_locally=True)
        return root

    def apply(self, ranges: Sequence[VerifiedRange | VerifiedChanges], number: int | None) -> None:
        """Replace the content of ranges; where that makes the tables whole, make it the head.

        Args:
            ranges: What was verified.
            number: The number of the revision, if this makes one; None for the next.
        """
        history = self._history(unfinished=True) if self.tip.newest else None
        writer, root = Applier(self.transaction, history), self.tip.root
        for each in ranges:
            root = writer.apply(each, root)
        head, _ = read_revision(self.transaction, self.tip.newest)
        if root not in {each.root for each in ranges}:
            self._put_tip(self.tip._replace(root=root, unfinished=True))
        elif root == head.root and (number or 0) <= head.number:
            self._put_tip(self.tip._replace(root=root, unfinished=False, written_locally=False))
        else:
            self._make_revision(root, number or 0, history, written_locally=False)

    def renumber(self, number: int) -> None:
        """Make a revision with the head's content and a higher number; a lower one changes nothing.

        Raises:
            SyncUnfinished: The tables do not hold the head.
        """
        if self.tip.unfinished:
            raise SyncUnfinished(str(self._store.path))
        head, _ = read_revision(self.transaction, self.tip.newest)
        if number > head.number:
            # No row was overwritten, so its history is empty, and older revisions can be read as before.
            history = self._history(unfinished=False)
            self._make_revision(head.root, number, history, written_locally=self.tip.written_locally)

    def roll_back(self, low: bytes) -> bytes | None:
        """Undo a part of an unfinished sync.

        Args:
            low: The key from which on.

        Returns:
            The key to go on from in another transaction; None at the end.
        """
        if not self.tip.unfinished:
            return None
        if not self.tip.newest:
            for table in (self._store.values, self._store.branches):
                self.transaction.lmdb.drop(table, delete=False)
            self._put_tip(Tip())
            return None
        rows, rest = value_rows(
            self.transaction, self.tip.sequence, low, _ROLLED_BACK_ROWS, _ROLLED_BACK_BYTES
        )
        # What is overwritten is a mixture.  Of values history has what the head had; of a branch that only
        # now changes, for another lost its children, it has to learn it.
        writer = Applier(self.transaction, self._history(unfinished=True))
        root = writer.commit(sorted_changes(rows, self._scheme), self.tip.root)
        head, _ = read_revision(self.transaction, self.tip.newest)
        if rest is None and root != head.root:
            raise self.transaction.corrupt(f"rolled back, the root is {root.hex()}, not {head.root.hex()}")
        # The rows stay: they say what the head has, which is true whatever comes next.
        is_rolled_back = root == head.root
        self._put_tip(self.tip._replace(root=root, unfinished=not is_rolled_back))
        return None if is_rolled_back else rest

    def put_progress(self, progress: bytes | None) -> None:
        """Store the manager's state of a sync, or forget it.

        Raises:
            TypeError: It is not bytes.
            ValueError: It has more than MAX_PROGRESS_BYTES.
        """
        if progress is None:
            self.transaction.lmdb.delete(PROGRESS, db=self._store.sync)
            return
        require_bytes("the progress", progress)
        if len(progress) > MAX_PROGRESS_BYTES:
            raise ValueError(f"the progress has {len(progress)} bytes, more than {MAX_PROGRESS_BYTES}")
        self.transaction.lmdb.put(PROGRESS, progress, db=self._store.sync)

    def _history(self, *, unfinished: bool) -> HistoryWriter:
        return HistoryWriter(self.transaction, self.tip.newest + 1, unfinished=unfinished)

    def _make_revision(
        self, root: bytes, number: int, history: HistoryWriter | None, *, written_locally: bool
    ) -> None:
        """Make what the tables hold the head, and drop what is not retained any more.

        Args:
            root: Its root.
            number: Its number, if that is above the head's.
            history: Where the history went; None when nothing before this revision can be read.
            written_locally: Whether a local commit made it.
        """
        transaction, now = self.transaction, require_time(self._clock())
        head, _ = read_revision(transaction, self.tip.newest)
        newest = self.tip.newest + 1
        number = max(number, head.number + 1)
        if number > MAX_REVISION:
            raise RevisionTooHigh(number, MAX_REVISION)
        revision = Revision(number, root, now, self._store.entries(transaction.lmdb, self._store.values))
        put_revision(transaction, newest, revision, self._top(root))
        tip = Tip(root, newest, self.tip.oldest, written_locally, unfinished=False)
        least = newest if history is None else self.tip.oldest
        tip = drop_revisions(transaction, tip, least, self._retention, now)
        prune_history(transaction, tip.oldest, 0 if history is None else history.rows)
        self._put_tip(tip)

    def _top(self, root: bytes) -> NodeLocation | None:
        """Return the location of the topmost node, which has the id ``root``."""
        top = StoredTrie(self.transaction, root).top()
        if top is None:
            return None
        return location_of(top.bucket.pairs if top.bucket else top, b"", self._scheme.codec) or NodeLocation()

    def _put_tip(self, tip: Tip) -> None:
        self.tip = tip
        self.transaction.lmdb.put(TIP, tip.encode(), db=self._store.meta)


class Batch:
    """Changes collected for one commit at the end of the ``with`` block; forgotten on an exception.

    Attributes:
        root: The new root, once committed.
    """

    def __init__(self, commit: Callable[[Mapping[bytes, bytes | None]], bytes]) -> None:
        self._commit = commit
        self._changes: dict[bytes, bytes | None] = {}
        self.root: bytes | None = None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        require_bytes("a key", key)
        require_bytes("a value", value)
        self._changes[key] = value

    def __delitem__(self, key: bytes) -> None:
        require_bytes("a key", key)
        self._changes[key] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.root = self._commit(self._changes)
