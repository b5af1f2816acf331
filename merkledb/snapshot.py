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

from merkledb.errors import CorruptDatabase, NoCompleteRoot
from merkledb.formats.scheme import Scheme
from merkledb.history.historical_trie import HistoricalTrie
from merkledb.history.reader import HistoryReader
from merkledb.history.revisions import Revision, find_revision, read_revision, read_tip
from merkledb.history.rows import HistoricalRows, Rows, StoredRows
from merkledb.readable import ReadableState
from merkledb.storage.store import Store, Transaction
from merkledb.trie.trie import StoredTrie, Trie


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
        transaction: Transaction | None = None,
    ) -> None:
        """Open a snapshot.

        Args:
            store: What is read.
            scheme: The store's.
            root: Of the newest retained revision with that root; None for the head.
            transaction: What is read in; one of its own when not given.

        Raises:
            NoCompleteRoot, UnknownRoot, HistoryGone
        """
        super().__init__(store)
        self.scheme = scheme
        self._transaction = transaction or store.begin()
        self._is_to_end = transaction is None
        try:
            self._open(root)
        except BaseException:
            self.close()
            raise

    def _open(self, root: bytes | None) -> None:
        tip = read_tip(self._store, self._transaction)
        if not tip.has_head:
            raise NoCompleteRoot(str(self._store.path))
        sequence = tip.newest
        if root is not None:
            sequence = find_revision(self._store, self._transaction, tip, root)
        self._state, self._top = read_revision(self._store, self._transaction, sequence)
        self.root, self.revision, self.time = self._state.root, self._state.number, self._state.time
        self._require_pairs(sequence)
        self.sequence = sequence
        self._last = tip.sequence
        # What stands between this state and the tables; None when they hold it.
        self._history = None if sequence == tip.sequence else self.past_until(None)

    def _require_pairs(self, sequence: int) -> None:
        """Raise CorruptDatabase when the place of the topmost node fits another number of pairs."""
        pairs, top = self._state.keys, self._top
        is_fitting = pairs == 0 if top is None else pairs == len(top.keys) if top.keys else pairs > 1
        if not is_fitting:
            difference = f"the row of revision {sequence} says that it has {pairs} pairs, and not where"
            raise CorruptDatabase(str(self._store.path), difference)

    def at_same_snapshot(self, root: bytes) -> "Snapshot":
        """Return another snapshot in the same transaction, which must not be closed before its last use."""
        return Snapshot(self._store, self.scheme, root, transaction=self._transaction)

    def past_until(self, later: "Snapshot | None", views: Transaction | None = None) -> HistoryReader:
        """Return what stands between this state and a later one; None is what the tables hold."""
        last = self._last if later is None else later.sequence
        return HistoryReader(self._store, self._transaction, self.sequence, last, views)

    @contextmanager
    def views(self) -> Iterator[Transaction | None]:
        """Give what to read large values in without copying them, see ``Store.begin_views``."""
        views = self._store.begin_views(self._transaction)
        try:
            yield views
        finally:
            if views is not None:
                self._store.end(views)

    @contextmanager
    def _provable_rows(self) -> Iterator[Rows]:
        with self.views() as views:
            if self._history is None:
                yield self.tables(views)
            else:
                yield HistoricalRows(self.tables(views), self.past_until(None, views), self._first_key)

    def tables(self, views: Transaction | None = None) -> StoredRows:
        """Return the rows of the tables, which may be another state's than this."""
        return StoredRows(self._store, self._transaction, views)

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
            self._store.end(self._transaction)

    def __len__(self) -> int:
        with self._store.translated():
            # A look at the transaction, which raises when it has ended.
            self._store.entries(self._transaction, self._store.meta)
        return self._state.keys

    def _rows(self) -> Rows:
        return self.tables() if self._history is None else self._past_rows(self._history)

    def _past_rows(self, past: HistoryReader) -> HistoricalRows:
        return HistoricalRows(self.tables(), past, self._first_key, self._last_key)

    def _first_key(self, low: bytes) -> bytes | None:
        path = self.trie().first_path(self.scheme.codec.path(low))
        return None if path is None else self.scheme.codec.pack(path)

    def _last_key(self, high: bytes) -> bytes | None:
        path = self.trie().last_path(self.scheme.codec.path(high))
        return None if path is None else self.scheme.codec.pack(path)

    def trie(self) -> Trie:
        """Return the trie of this state."""
        stored = StoredTrie(self._store, self._transaction, self.scheme)
        if self._history is None:
            return stored
        return HistoricalTrie(stored, self._history, self._past_rows(self._history), self._top)
