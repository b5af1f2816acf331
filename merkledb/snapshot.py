"""Reading a database at one moment and one revision: pairs, order, proofs.

A snapshot is one LMDB read transaction.  It sees what was committed when it began, whole, whatever is written
since; it blocks no writer and no writer blocks it, and nothing that it needs is pruned.  Pages that it may
still read are not used again, so a snapshot that is kept open for long makes the file grow: close it.

    head, at rest          the tables are read as they are
    older, or head while
    a sync is under way    the tables are read through history
"""

from collections.abc import Iterator
from contextlib import contextmanager

from merkledb.errors import NoCompleteRoot
from merkledb.formats.scheme import Scheme, require_root
from merkledb.history.historical_trie import HistoricalTrie
from merkledb.history.reader import HistoryReader
from merkledb.history.revisions import Revision, find_revision, read_revision, read_tip
from merkledb.history.rows import HistoricalRows, Rows, StoredRows
from merkledb.readable import ReadableState
from merkledb.storage.store import Store, StoreTransaction
from merkledb.trie.trie import StoredTrie, Trie, first_path, last_path


class Snapshot(ReadableState):
    """One revision of a database.  A context manager; use it from one thread at a time, whichever that is.

    Attributes:
        root: The root of this state.
        revision: The number of the revision.
        time: When the revision was made, in seconds since 1970.
        scheme: The database's scheme.
    """

    def __init__(
        self,
        store: Store,
        scheme: Scheme,
        root: bytes | None = None,
        *,
        transaction: StoreTransaction | None = None,
    ) -> None:
        """Open a snapshot.

        Args:
            store: What is read.
            scheme: The store's.
            root: Of the newest retained revision with that root; None for the head.
            transaction: What is read in; one of its own when not given.

        Raises:
            NoCompleteRoot, UnknownRoot, HistoryGone, DatabaseReplaced
        """
        super().__init__(store)
        self.scheme = scheme
        if transaction is None:
            store.environment.require_present()
        self._transaction = transaction or StoreTransaction(store, store.begin(), scheme)
        self._is_to_end = transaction is None
        try:
            self._open(root)
        except BaseException:
            self.close()
            raise

    def _open(self, root: bytes | None) -> None:
        tip = read_tip(self._transaction)
        if not tip.has_head:
            raise NoCompleteRoot(str(self._store.path))
        sequence = tip.newest
        if root is not None:
            sequence = find_revision(self._transaction, tip, root)
        self._state, self._top = read_revision(self._transaction, sequence)
        self.root, self.revision, self.time = self._state.root, self._state.number, self._state.time
        self._require_pairs(sequence)
        self.sequence = sequence
        self._tip = tip
        # What stands between this state and the tables; None when they hold it.
        self._history = None if sequence == tip.sequence else self.past_until(None)

    def _require_pairs(self, sequence: int) -> None:
        """Raise CorruptDatabase when the location of the topmost node fits another number of pairs."""
        pairs, top = self._state.keys, self._top
        is_fitting = pairs == 0 if top is None else pairs == len(top.keys) if top.keys else pairs > 1
        if not is_fitting:
            difference = f"the row of revision {sequence} says that it has {pairs} pairs, and not where"
            raise self._transaction.corrupt(difference)

    def at_same_snapshot(self, root: bytes) -> "Snapshot":
        """Return another snapshot in the same transaction, which must not be closed before its last use."""
        require_root(root)
        return Snapshot(self._store, self.scheme, root, transaction=self._transaction)

    def past_until(
        self, later: "Snapshot | None", transaction: StoreTransaction | None = None
    ) -> HistoryReader:
        """Return what stands between this state and a later one; None is what the tables hold.

        Args:
            later: The later state.
            transaction: What ``views`` gave, to read there without copies; None for copies.
        """
        last = self._tip.sequence if later is None else later.sequence
        return HistoryReader(transaction or self._transaction, self.sequence, last)

    @contextmanager
    def views(self) -> Iterator[StoreTransaction]:
        """Give this snapshot's transaction with views, to read large values without copying them.

        The views end with the ``with`` block, so what is read becomes bytes within it.
        """
        views = self._store.begin_views(self._transaction.lmdb)
        try:
            yield self._transaction._replace(views=views)
        finally:
            if views is not None:
                self._store.end(views)

    @contextmanager
    def _provable_rows(self) -> Iterator[Rows]:
        with self.views() as transaction:
            rows = StoredRows(transaction)
            if self._history is None:
                yield rows
            else:
                yield HistoricalRows(rows, self.past_until(None, transaction), self._first_key)

    @property
    def transaction(self) -> StoreTransaction:
        """What it is read in, without views."""
        return self._transaction

    @property
    def description(self) -> Revision:
        """The revision that this is."""
        return self._state

    @property
    def is_tip(self) -> bool:
        """Whether the tables hold this state."""
        return self._history is None

    def close(self) -> None:
        """End the read transaction, if it has one of its own; the snapshot cannot be used afterwards."""
        if self._is_to_end:
            self._is_to_end = False
            self._store.end(self._transaction.lmdb)

    def __len__(self) -> int:
        with self._store.translated():
            # A look at the transaction, which raises when it has ended.
            self._store.entries(self._transaction.lmdb, self._store.meta)
        return self._state.keys

    def _rows(self) -> Rows:
        rows = StoredRows(self._transaction)
        return rows if self._history is None else self._historical(rows, self._history)

    def _historical(self, rows: StoredRows, history: HistoryReader) -> HistoricalRows:
        return HistoricalRows(rows, history, self._first_key, self._last_key)

    def _first_key(self, low: bytes) -> bytes | None:
        path = first_path(self.trie(), self.scheme.codec.path(low))
        return None if path is None else self.scheme.codec.pack(path)

    def _last_key(self, high: bytes | None) -> bytes | None:
        path = last_path(self.trie(), None if high is None else self.scheme.codec.path(high))
        return None if path is None else self.scheme.codec.pack(path)

    def trie(self) -> Trie:
        """Return the trie of this state."""
        stored = StoredTrie(self._transaction, self._tip.root)
        if self._history is None:
            return stored
        rows = self._historical(StoredRows(self._transaction), self._history)
        return HistoricalTrie(stored, self._history, rows, self.root, self._top)
