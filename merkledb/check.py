"""Checking a database: every branch and the root derived again from the values alone.

The values are folded in stretches, so memory stays small however large the store is.
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from merkledb.errors import CorruptDatabase
from merkledb.fold import Branches, Fold
from merkledb.mapping import leaves
from merkledb.scheme import Scheme
from merkledb.snapshot import read_head
from merkledb.store import Store, Transaction, key_of_row, row_key

_STRETCH_PAIRS: Final = 4096


def check(store: Store, scheme: Scheme, on_pairs: Callable[[int], None]) -> None:
    """Compare the store's branches and root with what follows from its values.

    Args:
        store: What is checked, in one snapshot.
        scheme: The store's scheme.
        on_pairs: Called with the number of pairs done since the last call.

    Raises:
        CorruptDatabase: It names the first difference.
    """
    with store.read() as transaction:
        _Check(store, transaction, scheme).run(on_pairs)


class _Check:
    """One check, in one transaction."""

    def __init__(self, store: Store, transaction: Transaction, scheme: Scheme) -> None:
        self._store = store
        self._transaction = transaction
        self._scheme = scheme
        self._branches = 0

    def run(self, on_pairs: Callable[[int], None]) -> None:
        """Fold all values and compare."""
        fold = Fold(self._scheme)
        rows = iter(self._transaction.cursor(db=self._store.values))
        while stretch := list(islice(rows, _STRETCH_PAIRS)):
            keys = [key_of_row(row) for row, _ in stretch]
            self._compare(fold.feed(leaves(self._scheme, keys, [value for _, value in stretch])))
            on_pairs(len(stretch))
        root, last = fold.finish()
        self._compare(last)
        stored = self._store.entries(self._transaction, self._store.branches)
        if stored != self._branches:
            raise self._difference(f"{stored} branches are stored, the values make {self._branches}")
        head = read_head(self._store, self._transaction)
        if head.root != root:
            raise self._difference(f"the head's root is {head.root.hex()}, the values make {root.hex()}")

    def _compare(self, closed: Branches) -> None:
        for path, record in zip(closed.paths, closed.records, strict=True):
            if self._transaction.get(row_key(path), db=self._store.branches) != record:
                raise self._difference(f"the branch at path {path.hex()} is not the one that the values make")
        self._branches += len(closed.paths)

    def _difference(self, what: str) -> CorruptDatabase:
        return CorruptDatabase(str(self._store.path), what)
