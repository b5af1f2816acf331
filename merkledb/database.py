"""The database: opening, reading the head, commits, and the application of verified ranges.

Crash safety is LMDB's: every change is one transaction that is durable when the call returns, or absent.
The root, the content, the branches and the manager's progress always belong together.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb

from merkledb.changes import sorted_changes
from merkledb.check import check
from merkledb.content import Content
from merkledb.errors import CorruptDatabase, SchemeMismatch
from merkledb.proof import RangeProof
from merkledb.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS
from merkledb.scheme import Scheme
from merkledb.snapshot import HEAD, Head, Snapshot, read_head, require_range
from merkledb.store import (
    DEFAULT_MAP_BYTES,
    FORMAT,
    LMDB_VERSION,
    MAX_ROW_KEY_BYTES,
    Store,
    Transaction,
    row_key,
)
from merkledb.verifier import VerifiedRange
from merkledb.writer import Writer

_PROGRESS: Final = b"progress"
# The manager's state of a sync is a map of a few hundred ranges; more would make every
# transaction write it again.
MAX_PROGRESS_BYTES: Final = 1 << 20


def open(  # noqa: A001 - the package's verb, used as merkledb.open
    path: str | os.PathLike[str],
    *,
    scheme: Scheme | None = Scheme(),  # noqa: B008 - immutable
    readonly: bool = False,
    create: bool = True,
    map_bytes: int = DEFAULT_MAP_BYTES,
) -> "Database":
    """Open the database in the folder ``path``; make it when there is none.

    Args:
        path: The folder.  One process may have it open for writing, any number for reading.
        scheme: The scheme it must have; None accepts the one it has, and makes a new one with Scheme().
        readonly: Open for reading only.
        create: Make the database when there is none; otherwise that is an error.
        map_bytes: The most that the file may ever grow to.  Address space, not disk: the file grows with
            its content.

    Raises:
        NotADatabase: Nothing is there and it may not be made, or something else is there.
        SchemeMismatch: It has another scheme.
        FormatTooNew: A newer release made it.
        DatabaseInUse: It is open for writing elsewhere.
        DatabaseFull: There is no room for its first pages.
    """
    first_meta = _first_meta(scheme or Scheme())
    store = Store(Path(path), first_meta, readonly=readonly, create=create, map_bytes=map_bytes)
    try:
        found = _read_scheme(store)
        if scheme is not None and found != scheme:
            raise SchemeMismatch(str(store.path), scheme, found)
    except BaseException:
        store.close()
        raise
    return Database(store, found)


def _first_meta(scheme: Scheme) -> dict[bytes, bytes]:
    """Return the meta rows of a new store."""
    return {
        b"format": bytes([FORMAT]),
        b"scheme": f"{scheme.hasher}/{scheme.branch_factor}".encode(),
        b"lmdb": str(LMDB_VERSION).encode(),
        HEAD: Head().encode(),
    }


def _read_scheme(store: Store) -> Scheme:
    with store.read() as transaction:
        row = transaction.get(b"scheme", b"", db=store.meta)
    try:
        hasher, branch_factor = row.decode().split("/")
        return Scheme(hasher, int(branch_factor))  # type: ignore[arg-type] # Scheme checks the name itself.
    except ValueError as error:
        raise CorruptDatabase(str(store.path), f"the scheme {row!r} is unknown") from error


class Database(Content):
    """An open database; made by ``merkledb.open``, and a context manager.

    Reads see the newest commit; ``snapshot`` gives several reads that belong together.  All methods may be
    called from any thread; writers wait for each other.

    Attributes:
        scheme: Its scheme.
        path: Its folder.
        readonly: Whether it was opened for reading.
    """

    def __init__(self, store: Store, scheme: Scheme) -> None:
        self._store = store
        self.scheme = scheme
        self.path = store.path
        self.readonly = store.readonly

    def __repr__(self) -> str:
        return f"<Database {str(self.path)!r}, {self.scheme}>"

    def close(self) -> None:
        """Close the database; its snapshots must be closed before."""
        self._store.close()

    # Reading.

    def snapshot(self) -> Snapshot:
        """Return the newest commit as a snapshot, to be closed by the caller."""
        return Snapshot(self._store, self.scheme)

    def _head(self) -> Head:
        with self._store.read() as transaction:
            return read_head(self._store, transaction)

    @property
    def root(self) -> bytes:
        """The root of the newest commit."""
        return self._head().root

    @property
    def revision(self) -> int:
        """The number of the newest commit; 0 before the first."""
        return self._head().revision

    def __len__(self) -> int:
        with self.snapshot() as snapshot:
            return len(snapshot)

    def _value(self, key: bytes) -> bytes | None:
        row = row_key(key)
        if len(row) > MAX_ROW_KEY_BYTES:
            return None
        transaction = self._store.begin()
        try:
            return transaction.get(row, db=self._store.values)
        except lmdb.Error as error:
            raise self._store.translate(error) from error
        finally:
            transaction.abort()

    def items(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of [start, end] as Snapshot.items does; the snapshot ends with the iteration."""
        require_range(start, end)
        return self._items(start, end, reverse=reverse)

    def _items(
        self, start: bytes | None, end: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        with self.snapshot() as snapshot:
            yield from snapshot.items(start, end, reverse=reverse)

    def prove(self, key: bytes) -> RangeProof:
        """Return the proof that ``key`` is present with its value, or absent."""
        with self.snapshot() as snapshot:
            return snapshot.prove(key)

    def prove_range(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> RangeProof:
        """Return a proof of the pairs in [start, end] at the head; see Snapshot.prove_range."""
        with self.snapshot() as snapshot:
            return snapshot.prove_range(start, end, max_keys=max_keys, max_bytes=max_bytes)

    def check(self, on_pairs: Callable[[int], None] = lambda _: None) -> None:
        """Derive every branch and the root again from the values, and compare.

        Args:
            on_pairs: Called now and then with the number of pairs done since the last call.

        Raises:
            CorruptDatabase: It names the first difference.
        """
        check(self._store, self.scheme, on_pairs)

    # Writing.

    def commit(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Make all changes, durably, or none.

        The content counts as written locally from then on, and a sync's progress is forgotten, for it would
        no longer be true.

        Args:
            changes: The new value of each key; None deletes it.  Deleting an absent key changes nothing.

        Returns:
            The new root.

        Raises:
            KeyTooLong, ValueTooLong: And nothing is changed.
            TypeError: A key or value is not bytes.
            DatabaseFull: And nothing is changed.
            ReadonlyDatabase: It was opened for reading.
        """
        columns = sorted_changes(changes, self.scheme)
        with self._store.write() as transaction:
            head = read_head(self._store, transaction)
            root = Writer(self._store, transaction, self.scheme).commit(columns, head.root)
            self._put_progress(transaction, None)
            self._put_head(transaction, Head(root, head.revision + 1, written_locally=True))
        return root

    def batch(self) -> "Batch":
        """Return a context manager that collects changes for one commit."""
        return Batch(self)

    def apply(
        self, verified: VerifiedRange | Sequence[VerifiedRange], *, progress: bytes | None = None
    ) -> bytes:
        """Replace the content of verified ranges by what was verified, all in one durable transaction.

        The content counts as a copy from then on, which later syncs may replace, unless no range was given.

        Args:
            verified: One verified range or several, applied in order.
            progress: The manager's own state, kept in the same transaction; None forgets it.

        Returns:
            The new root of the whole local content.

        Raises:
            SchemeMismatch: A range was verified under another scheme.
            DatabaseFull: And nothing is changed.
            ReadonlyDatabase: It was opened for reading.
        """
        ranges = verified if isinstance(verified, Sequence) else [verified]
        for each in ranges:
            if type(each) is not VerifiedRange:
                raise TypeError(f"only what verify_range returns can be applied, not {type(each).__name__}")
            if each.scheme != self.scheme:
                raise SchemeMismatch(str(self.path), each.scheme, self.scheme)
        with self._store.write() as transaction:
            head = read_head(self._store, transaction)
            root = head.root
            writer = Writer(self._store, transaction, self.scheme)
            for each in ranges:
                root = writer.apply(each)
            self._put_progress(transaction, progress)
            still_local = head.written_locally and not ranges
            self._put_head(transaction, Head(root, head.revision + 1, written_locally=still_local))
        return root

    # What a sync needs to remember.

    @property
    def progress(self) -> bytes | None:
        """The state that ``apply`` or ``set_progress`` stored last.

        None when a sync ended, or was never begun.
        """
        with self._store.read() as transaction:
            return transaction.get(_PROGRESS, db=self._store.sync)

    def set_progress(self, progress: bytes | None) -> None:
        """Store the manager's state, or forget it, in a transaction of its own."""
        with self._store.write() as transaction:
            self._put_progress(transaction, progress)

    @property
    def written_locally(self) -> bool:
        """Whether local commits since the last ``apply`` made content, which a sync would destroy."""
        with self._store.read() as transaction:
            head = read_head(self._store, transaction)
            return head.written_locally and self._store.entries(transaction, self._store.values) > 0

    def _put_head(self, transaction: Transaction, head: Head) -> None:
        transaction.put(HEAD, head.encode(), db=self._store.meta)

    def _put_progress(self, transaction: Transaction, progress: bytes | None) -> None:
        if progress is None:
            transaction.delete(_PROGRESS, db=self._store.sync)
            return
        if len(progress) > MAX_PROGRESS_BYTES:
            raise ValueError(f"the progress has {len(progress)} bytes, more than {MAX_PROGRESS_BYTES}")
        transaction.put(_PROGRESS, progress, db=self._store.sync)


class Batch:
    """Changes collected for one commit at the end of the ``with`` block; forgotten on an exception.

    Attributes:
        root: The new root, once committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changes: dict[bytes, bytes | None] = {}
        self.root: bytes | None = None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._changes[key] = value

    def __delitem__(self, key: bytes) -> None:
        self._changes[key] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.root = self._database.commit(self._changes)
