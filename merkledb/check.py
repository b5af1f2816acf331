"""Checking a database: every branch and the root derived again from the values alone.

Of the revisions, what is said of them has to agree.  Of their history, each row has to be readable; whether
it says what was there is only seen when an old state is proved.

The values are folded in stretches, so memory stays small however large the store is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from merkledb.errors import HistoryGone, UnknownRoot
from merkledb.formats.branch_delta import parse_branch_delta
from merkledb.formats.scheme import Scheme
from merkledb.history.log import require_value_row
from merkledb.history.reader import HistoryReader
from merkledb.history.revisions import SEQUENCE_BYTES, Tip, find_revision, read_revision, read_tip
from merkledb.history.rows import HistoricalRows, Row, StoredRows
from merkledb.kernel.choice import kernel
from merkledb.kernel.interface import AnyFold
from merkledb.kernel.pure_fold import Branches
from merkledb.storage.store import StoreTransaction, key_of_row, row_key

# A stretch ends at either: enough pairs to fold fast, few enough bytes to hardly count as memory.
_STRETCH_PAIRS: Final = 4096
_STRETCH_BYTES: Final = 16 << 20


def root_of(
    pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], scheme: Scheme | None = None
) -> bytes:
    """Return the root of the trie that holds ``pairs``.

    Args:
        pairs: A mapping, or (key, value) pairs in any order; of a key that comes twice the last value
            counts.  Keys may be longer here than a database can hold them.
        scheme: Scheme() when not given.
    """
    scheme = scheme or Scheme()
    content = dict(pairs)
    keys = sorted(content)
    values = [content[key] for key in keys]
    fold = kernel().fold(scheme)
    fold.feed(kernel().leaves(scheme, keys, values))
    return fold.finish()[0]


def check(transaction: StoreTransaction, on_pairs: Callable[[int], None]) -> None:
    """Compare a store's branches and root with what follows from its values.

    Args:
        transaction: What is checked, in one snapshot.
        on_pairs: Called with the number of pairs done since the last call.

    Raises:
        CorruptDatabase: It names the first difference.
    """
    _Check(transaction).run(on_pairs)


class _Check:
    """One check, in one transaction."""

    def __init__(self, transaction: StoreTransaction) -> None:
        self._transaction = transaction
        self._store, self._lmdb, self._scheme = transaction.store, transaction.lmdb, transaction.scheme
        self._difference = transaction.corrupt
        self._branches = 0

    def run(self, on_pairs: Callable[[int], None]) -> None:
        """Fold all values and compare."""
        fold = kernel().fold(self._scheme)
        for keys, values in self._stretches(self._lmdb.cursor(db=self._store.values)):
            self._compare(self._feed(fold, keys, values))
            on_pairs(len(keys))
        root, last = fold.finish()
        self._compare(last)
        stored = self._store.entries(self._lmdb, self._store.branches)
        if stored != self._branches:
            raise self._difference(f"{stored} branches are stored, the values make {self._branches}")
        tip = read_tip(self._transaction)
        if tip.root != root:
            raise self._difference(f"the tip's root is {tip.root.hex()}, the values make {root.hex()}")
        self._check_revisions(tip)
        self._check_history(tip)
        if tip.has_head:
            self._check_head(tip)

    def _check_revisions(self, tip: Tip) -> None:
        """See whether each retained revision can be read, is found by its root, and comes after the last."""
        number = -1
        for sequence in range(tip.oldest, tip.newest + 1):
            revision, _ = read_revision(self._transaction, sequence)
            if revision.number <= number:
                raise self._difference(f"revision {sequence} has number {revision.number}, as one before it")
            number = revision.number
            try:
                newest = find_revision(self._transaction, tip._replace(unfinished=False), revision.root)
            except (UnknownRoot, HistoryGone) as error:
                raise self._difference(f"revision {sequence} is not found by its root") from error
            if newest < sequence:
                raise self._difference(f"the root of revision {sequence} leads to an older one")
        if not tip.unfinished and revision.keys != self._store.entries(self._lmdb, self._store.values):
            raise self._difference(f"the head says that it has {revision.keys} pairs, and the tables do not")

    def _check_history(self, tip: Tip) -> None:
        """See whether each row of history can be read, and belongs to a revision that there was."""
        # Rows of a sync that was given up stay after the newest revision.
        end = (tip.newest + 2).to_bytes(SEQUENCE_BYTES)
        try:
            for key, row in self._lmdb.cursor(db=self._store.value_history):
                self._require_history(key, end)
                require_value_row(row)
            for key, row in self._lmdb.cursor(db=self._store.branch_history):
                self._require_history(key, end)
                tokens = parse_branch_delta(row).tokens
                if max(key[SEQUENCE_BYTES:] + tokens, default=0) >= self._scheme.branch_factor:
                    raise ValueError("it has a token that is none")
        except ValueError as error:
            raise self._difference(f"the row 0x{key.hex()} of history is unreadable: {error}") from error

    def _require_history(self, key: bytes, end: bytes) -> None:
        if len(key) < SEQUENCE_BYTES or key >= end:
            raise self._difference(f"the row 0x{key.hex()} of history belongs to no revision")

    def _check_head(self, tip: Tip) -> None:
        """Compare the head's root with what readers see, which history stands between and the tables."""
        head, _ = read_revision(self._transaction, tip.newest)
        root = tip.root
        if tip.unfinished:
            history = HistoryReader(self._transaction, tip.newest, tip.sequence)
            # To look for keys in the trie would be to trust it.
            rows = HistoricalRows(StoredRows(self._transaction), history, lambda low: low)
            fold = kernel().fold(self._scheme)
            for keys, values in self._stretches(rows.ascending(None, None, _STRETCH_PAIRS)):
                self._feed(fold, keys, values)
            root, _ = fold.finish()
        if root != head.root:
            raise self._difference(f"the head's root is {head.root.hex()}, its values make {root.hex()}")

    def _feed(self, fold: AnyFold, keys: list[bytes], values: list[bytes]) -> Branches:
        """Fold pairs; return the branches that closed."""
        if len(max(keys, key=len)) > self._scheme.max_key_bytes:
            raise self._difference(f"behind key 0x{keys[0].hex()} is one that is too long")
        try:
            return fold.feed(kernel().leaves(self._scheme, keys, values))
        except ValueError as error:
            raise self._difference(f"behind key 0x{keys[0].hex()} keys are out of order") from error

    def _stretches(self, rows: Iterable[Row]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yield keys and values of rows in stretches."""
        keys: list[bytes] = []
        values: list[bytes] = []
        size = 0
        for row, value in rows:
            keys.append(key_of_row(row))
            values.append(value)
            size += len(value)
            if len(keys) == _STRETCH_PAIRS or size >= _STRETCH_BYTES:
                yield keys, values
                keys, values, size = [], [], 0
        if keys:
            yield keys, values

    def _compare(self, closed: Branches) -> None:
        for path, record in zip(closed.paths, closed.records, strict=True):
            if self._lmdb.get(row_key(path), db=self._store.branches) != record:
                raise self._difference(
                    f"the branch at path [{path.hex(' ')}] is not the one that the values make"
                )
        self._branches += len(closed.paths)
