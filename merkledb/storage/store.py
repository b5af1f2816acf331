"""The LMDB environment below a database: opening, tables, transactions, row keys, and its errors translated.

    folder/data.mdb      LMDB 0.9's file format, chosen on purpose: tools and other languages read it
    folder/lock.mdb      LMDB's table of readers
    folder/writer.lock   held (flock) by the one process that has the database open for writing

    table            key → value
    values           row key of a key → value, at the tip
    branches         row key of a path → record, at the tip; buckets have none
    value_history    sequence number ‖ key → the value before that revision
    branch_history   sequence number ‖ path → the branch before that revision, as far as it changed
    revisions        sequence number → root, number, time, pairs; root → its newest sequence number
    meta             format, scheme, LMDB version, and how much history is retained; tip → where all stands
    sync             the manager's progress

Invariants: one writer; a transaction is whole or absent; nothing outside this module sees an ``lmdb.Error``.

LMDB has no empty keys, so the empty key has the row key 0x00, and every key that begins with 0x00 has one
more 0x00 before it.  Row keys sort as the keys do.
"""

import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from merkledb.errors import (
    CorruptDatabase,
    FormatTooNew,
    FormatTooOld,
    MerkleDBError,
    NotADatabase,
)
from merkledb.formats.scheme import Scheme
from merkledb.storage.environment import LMDB_VERSION as LMDB_VERSION  # noqa: PLC0414 - for those who use a store.
from merkledb.storage.environment import Cursor as Cursor  # noqa: PLC0414
from merkledb.storage.environment import Environment
from merkledb.storage.environment import Transaction as Transaction  # noqa: PLC0414
from merkledb.storage.folder import CUT_SHORT, prepare_folder

FORMAT: Final = 3
# Address space, not disk and not memory: the file grows as it fills.  One tebibyte is far above any store
# that one machine syncs, and far below the 128 tebibytes that a process has.
DEFAULT_MAP_BYTES: Final = 1 << 40
# What LMDB 0.9 allows.
MAX_ROW_KEY_BYTES: Final = 511
# Which of eleven rows each pass puts.  A little more than half first, so that the second pass
# overfills no page.
_FIRST_PASS: Final = (1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1)
_SECOND_PASS: Final = tuple(1 - taken for taken in _FIRST_PASS)
_TABLES: Final = (
    b"values",
    b"branches",
    b"value_history",
    b"branch_history",
    b"revisions",
    b"meta",
    b"sync",
)
# A reader looks this often whether a short file grows: a writer lengthens it a moment after its commit.
_LENGTH_CHECKS: Final = 1000
# Often enough that a killed reader costs little, seldom enough to cost nothing.
_WRITES_BETWEEN_READER_CHECKS: Final = 32
# Smaller values are read and hashed in less time than matters, and would drive out the others.
REMEMBERED_BYTES: Final = 16 << 10
# So many digests take about a megabyte of memory, and stand for 64 MB of values or more.
MAX_DIGESTS: Final = 4096
Table = Any  # lmdb's handle of a table; its type has no public name.


class DamagedRow(lmdb.CorruptedError):
    """A row that no store has; ``Store.translated`` says whose, as it does of LMDB's own error."""


def row_key(key: bytes) -> bytes:
    """Return the key of the row that holds ``key`` (or a path)."""
    return key if key[:1] > b"\0" else b"\0" + key


def key_of_row(row: bytes) -> bytes:
    """Return the key (or path) that a row key stands for.

    Raises:
        DamagedRow: No key has this row key.
    """
    if row[:1] > b"\0":
        return row
    if row[1:2] > b"\0":
        raise DamagedRow(f"no key has the row key 0x{row.hex()}")
    return row[1:]


def seek(cursor: Cursor, key: bytes | None) -> bool:
    """Move ``cursor`` to the first row at or after that of ``key``; None is the first row.

    Returns:
        Whether there is such a row.
    """
    return cursor.first() if key is None else seek_row(cursor, row_key(key))


def seek_row(cursor: Cursor, row: bytes) -> bool:
    """Move ``cursor`` to the first row whose key is ``row`` or after it, which may be longer than any is.

    Returns:
        Whether there is such a row.
    """
    found = cursor.set_range(row[:MAX_ROW_KEY_BYTES])
    # Only a row that is the cut-off row key itself can lie before it.
    return cursor.next() if found and bytes(cursor.key()) < row else found


class Digests:
    """Digests of large values that were read before, by the id of their leaf; the oldest make room.

    A leaf's id commits to its path and to the digest of its value.  So who knows a leaf's id finds the digest
    here, whichever state the leaf belongs to, and nothing here is ever outdated.  A value of 60 MB takes
    50 ms and more to be read and hashed, which each request that ends beside it would cost.  Any thread may
    use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[bytes, bytes] = {}

    def get(self, leaf_id: bytes | None) -> bytes | None:
        """Return the digest that a leaf's id commits to; None where it is not remembered."""
        return None if leaf_id is None else self._by_id.get(leaf_id)

    def put(self, leaf_id: bytes, digest: bytes) -> None:
        """Remember a digest that was derived from a value, as the leaf's id was from the digest."""
        with self._lock:
            while len(self._by_id) >= MAX_DIGESTS:
                del self._by_id[next(iter(self._by_id))]
            self._by_id[leaf_id] = digest


class Store:
    """An open LMDB environment with its tables.

    Args:
        path: The folder.
        first_rows: The first rows of a new store by table, made in one transaction with its tables.
        readonly: Open for reading only; several processes may.
        create: Make the folder and the tables where nothing is.
        map_bytes: The most that the store may ever grow to; address space only.

    Raises:
        NotADatabase, FormatTooNew, FormatTooOld, DatabaseInUse, DatabaseFull, CorruptDatabase
    """

    def __init__(
        self,
        path: Path,
        first_rows: Mapping[bytes, Mapping[bytes, bytes]],
        *,
        readonly: bool,
        create: bool,
        map_bytes: int,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._writing = threading.Lock()
        self._writes = 0
        self.digests = Digests()
        with contextlib.ExitStack() as undo:
            lock_file = prepare_folder(path, readonly=readonly, create=create)
            if lock_file is not None:
                undo.callback(os.close, lock_file)
            self.environment = Environment(path, readonly=readonly, map_bytes=map_bytes, lock_file=lock_file)
            undo.pop_all()
            undo.callback(self.environment.close)
            self.begin, self.end = self.environment.begin, self.environment.end
            self._page_bytes = self.environment.lmdb.stat()["psize"]
            self._require_whole_file()
            # Each reader that was killed leaves its place to the next one that opens the store.
            with self.translated():
                self.environment.forget_dead_readers()
            self._keep_tables(self._open_tables(first_rows))
            self.environment.renewed = self._renew_tables
            undo.pop_all()

    def _keep_tables(self, tables: list[Table]) -> None:
        self.values, self.branches, self.value_history, self.branch_history = tables[:4]
        self.revisions, self.meta, self.sync = tables[4:]

    def _renew_tables(self) -> None:
        """Open the tables in an environment that was opened anew."""
        self._keep_tables([self._open_existing(name) for name in _TABLES])

    def _open_tables(self, first_rows: Mapping[bytes, Mapping[bytes, bytes]]) -> list[Table]:
        """Return the tables in the order of ``_TABLES``, made in one transaction when the store is new."""
        with self.translated():
            if self.environment.lmdb.stat()["entries"]:
                self._require_known_format()
                return [self._open_existing(name) for name in _TABLES]
            if self.readonly:
                raise NotADatabase(str(self.path), CUT_SHORT)
            with self.environment.lmdb.begin(write=True) as transaction:
                tables = [self.environment.lmdb.open_db(name, transaction) for name in _TABLES]
                for table, rows in first_rows.items():
                    for key, value in rows.items():
                        transaction.put(key, value, db=tables[_TABLES.index(table)])
            return tables

    def _require_known_format(self) -> None:
        """Look at the format before anything else, for a newer one may have other tables."""
        meta = self._open_existing(b"meta")
        with self.read() as transaction:
            row = transaction.get(b"format", b"", db=meta)
        found = int.from_bytes(row)
        if len(row) != 1 or not found:
            raise CorruptDatabase(str(self.path), f"the row of the format has {len(row)} bytes")
        if found > FORMAT:
            raise FormatTooNew(str(self.path), found, FORMAT)
        if found < FORMAT:
            raise FormatTooOld(str(self.path), found, FORMAT)

    def _open_existing(self, name: bytes) -> Table:
        try:
            return self.environment.lmdb.open_db(name, create=False)
        except (lmdb.NotFoundError, lmdb.IncompatibleError) as error:
            foreign = "is an LMDB environment that merkledb did not make: name another path"
            raise NotADatabase(str(self.path), foreign) from error

    def _require_whole_file(self) -> None:
        """See to it that no page lies after the end of the data file: reading there would kill the process.

        A file can honestly be short of pages that a transaction took and gave back, which nobody refers to.
        The one writer lengthens it then, so that pages which somebody does refer to read as damaged.

        Raises:
            CorruptDatabase: The file is short, and this is a reader, which must not touch it.
        """
        if not self.readonly:
            self._lengthen()
        elif all(self._missing_pages() > 0 for _ in range(_LENGTH_CHECKS)):
            difference = f"data.mdb lacks {self._missing_pages()} pages: open it for writing and check it"
            raise CorruptDatabase(str(self.path), difference)

    def _missing_pages(self) -> int:
        """Return how many pages the file lacks at its end."""
        pages = self.environment.lmdb.info()["last_pgno"] + 1
        return pages - (self.environment.folder / "data.mdb").stat().st_size // self._page_bytes

    def _lengthen(self) -> None:
        """Make the data file as long as it says it is.

        Raises:
            CorruptDatabase: It says that it is longer than any file here can be.
        """
        missing = self._missing_pages()
        if missing <= 0:
            return
        data = self.environment.folder / "data.mdb"
        try:
            os.truncate(data, (data.stat().st_size // self._page_bytes + missing) * self._page_bytes)
        except (OSError, OverflowError) as error:
            raise CorruptDatabase(str(self.path), f"data.mdb lacks {missing} pages: {error}") from error

    def close(self) -> None:
        """Close the environment; every transaction must have ended."""
        self.environment.close()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn LMDB's errors within into this package's."""
        if self.environment.is_forked:
            self.environment.require_usable()
        try:
            yield
        except lmdb.Error as error:
            raise self.translate(error) from error

    def translate(self, error: lmdb.Error) -> MerkleDBError:
        """Return this package's error for one of LMDB's."""
        return self.environment.translate(error)

    def require_usable(self) -> None:
        """Raise as ``Environment.require_usable``: an iterator may outlive its database, or its process."""
        if self.environment.is_forked or self.environment.is_closed:
            self.environment.require_usable()

    def begin_views(self, transaction: Transaction) -> Transaction | None:
        """Begin a second read transaction of the same moment, which copies no value before it is wanted.

        Its row keys and values are views of the map, typed as bytes all the same: they have a length, and
        become bytes by ``bytes``, as long as the transaction lasts.

        Returns:
            None where a commit came between, or where no row has a value large enough to be worth it.
        """
        tables = (self.values, self.value_history)
        if not any(transaction.stat(table)["overflow_pages"] for table in tables):
            return None
        return self.environment.begin_views(transaction)

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Give one read transaction: a snapshot of the last commit.

        Raises:
            DatabaseReplaced: What is open here is not in the folder any more.
        """
        self.environment.require_present()
        transaction = self.begin()
        with self.translated():
            try:
                yield transaction
            finally:
                self.end(transaction)

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Give the one write transaction; commit it, durably, at the end, or undo it on any exception."""
        # Before the lock: of a thread that the fork left behind, nobody would ever release it.
        self.environment.require_usable()
        with self._writing:
            transaction = self.begin(write=True)
            with self.translated():
                try:
                    yield transaction
                    # As late as can be: into a file that is gone, a commit would go nowhere.
                    self.environment.require_present()
                    transaction.commit()
                    # The commit stands, so nothing that fails from here on may say otherwise.
                    with contextlib.suppress(MerkleDBError, lmdb.Error, OSError):
                        self._tidy()
                finally:
                    self.end(transaction)

    def _tidy(self) -> None:
        """Do after a commit what keeps the file whole, and old pages of use."""
        self._lengthen()
        self._writes += 1
        if self._writes % _WRITES_BETWEEN_READER_CHECKS == 0:
            self.environment.forget_dead_readers()

    def entries(self, transaction: Transaction, table: Table) -> int:
        """Return how many rows ``table`` has."""
        return int(transaction.stat(table)["entries"])


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


def put_sorted(
    transaction: Transaction, table: Table, keys: Sequence[bytes], values: Sequence[bytes]
) -> None:
    """Put pairs that ascend by key (or path), so that pages end up full."""
    if keys:
        rows = keys if keys[0][:1] > b"\0" else [key if key[:1] > b"\0" else b"\0" + key for key in keys]
        put_rows(transaction, table, rows, values)


def put_rows(transaction: Transaction, table: Table, rows: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Put rows that ascend, so that pages end up full.

    Rows after the table's last row are appended, which fills pages to the brim.  Elsewhere LMDB splits a
    full page in halves, so a run of ascending rows would leave every page half empty.  Put in two passes,
    the first pass makes half-full pages of every other row, and the second fills the gaps.
    """
    cursor = transaction.cursor(db=table)
    split = bisect_right(rows, cursor.key()) if cursor.last() else 0
    if split:
        between, values_between = rows[:split], values[:split]
        for chosen in (_FIRST_PASS, _SECOND_PASS):
            cursor.putmulti(compress(zip(between, values_between, strict=True), cycle(chosen)))
    if split < len(rows):
        cursor.putmulti(zip(rows[split:], values[split:], strict=True), append=True)


def delete_rows(transaction: Transaction, table: Table, keys: Iterable[bytes]) -> None:
    """Delete the rows of ``keys``, where they exist."""
    for key in keys:
        transaction.delete(row_key(key), db=table)
