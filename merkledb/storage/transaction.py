"""One transaction of a store: LMDB's, with the tables that it sees and the scheme of what they hold.

All that reads or writes rows is given one of these.  It owns nothing: where LMDB's transaction began, it is
committed and ended.
"""

from typing import NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.formats.scheme import Scheme
from merkledb.storage.store import Store, Transaction


class StoreTransaction(NamedTuple):
    """A transaction, for reading or for writing.

    Attributes:
        store: Has the tables.
        lmdb: LMDB's transaction.
        scheme: The store's.
        views: A second one of the same moment that copies no value, see ``Store.begin_views``; None where
            values are copied.
    """

    store: Store
    lmdb: Transaction
    scheme: Scheme
    views: Transaction | None = None

    def corrupt(self, difference: str) -> CorruptDatabase:
        """Return the error that says how the store contradicts itself."""
        return CorruptDatabase(str(self.store.path), difference)
