"""Reading a database at one moment: pairs, order, proofs.

A snapshot is one LMDB read transaction.  It sees the commit that was the head when it began, whole,
whatever is written since; it blocks no writer and no writer blocks it.  Pages that it may still read are
not used again, so a snapshot that is kept open for long makes the file grow: close it.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from merkledb.content import Content
from merkledb.errors import CorruptDatabase, InvalidRange
from merkledb.proof import RangeProof
from merkledb.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS, Prover
from merkledb.scheme import EMPTY_ROOT, ID_BYTES, Scheme
from merkledb.store import MAX_ROW_KEY_BYTES, Store, Transaction, key_of_row, row_key, seek
from merkledb.trie import Trie

HEAD: Final = b"head"
_REVISION_BYTES: Final = 8


class Head(NamedTuple):
    """What the newest commit left: one row of the meta table, ``root ‖ revision ‖ written locally``.

    Attributes:
        root: The root of the content.
        revision: How many commits there have been.
        written_locally: Whether the content comes from local commits, so that a sync would destroy it.
    """

    root: bytes = EMPTY_ROOT
    revision: int = 0
    written_locally: bool = False

    def encode(self) -> bytes:
        """Return the row."""
        return self.root + self.revision.to_bytes(_REVISION_BYTES) + bytes([self.written_locally])


def read_head(store: Store, transaction: Transaction) -> Head:
    """Return the head as ``transaction`` sees it."""
    row = transaction.get(HEAD, db=store.meta)
    if row is None:
        raise CorruptDatabase(str(store.path), "the head's row is missing")
    if len(row) != ID_BYTES + _REVISION_BYTES + 1:
        raise CorruptDatabase(str(store.path), f"the head's row has {len(row)} bytes")
    revision = int.from_bytes(row[ID_BYTES : ID_BYTES + _REVISION_BYTES])
    return Head(row[:ID_BYTES], revision, bool(row[-1]))


class Snapshot(Content):
    """One state of a database.  A context manager; use it from one thread at a time, whichever that is.

    Attributes:
        root: The root of this state.
        revision: The number of the commit that made it.
        scheme: The database's scheme.
    """

    def __init__(self, store: Store, scheme: Scheme) -> None:
        self._store = store
        self._transaction = store.begin()
        self.scheme = scheme
        head = read_head(store, self._transaction)
        self.root = head.root
        self.revision = head.revision

    def close(self) -> None:
        """End the read transaction; the snapshot cannot be used afterwards."""
        self._transaction.abort()

    def __len__(self) -> int:
        with self._store.translated():
            return self._store.entries(self._transaction, self._store.values)

    def _value(self, key: bytes) -> bytes | None:
        row = row_key(key)
        if len(row) > MAX_ROW_KEY_BYTES:
            return None
        with self._store.translated():
            return self._transaction.get(row, db=self._store.values)

    def items(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of [start, end] in the order of their keys, or in reverse.

        Args:
            start: The smallest key, inclusive; None for no bound.
            end: The largest key, inclusive; None for no bound.
            reverse: Yield the largest key first.

        Raises:
            InvalidRange: ``start`` lies behind ``end``.
        """
        require_range(start, end)
        return self._descending(start, end) if reverse else self._ascending(start, end)

    def _ascending(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._store.translated():
            cursor = self._transaction.cursor(db=self._store.values)
            if not seek(cursor, start):
                return
            for row, value in cursor:
                key = key_of_row(row)
                if end is not None and key > end:
                    return
                yield key, value

    def _descending(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._store.translated():
            cursor = self._transaction.cursor(db=self._store.values)
            if end is None or not seek(cursor, end):
                found = cursor.last()
            else:
                found = key_of_row(cursor.key()) == end or cursor.prev()
            while found:
                key = key_of_row(cursor.key())
                if start is not None and key < start:
                    return
                yield key, cursor.value()
                found = cursor.prev()

    def prove(self, key: bytes) -> RangeProof:
        """Return the proof that ``key`` is present with its value, or absent.

        A range proof with start == end.
        """
        return self.prove_range(key, key, max_bytes=_NO_LIMIT)

    def prove_range(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> RangeProof:
        """Return a proof of the pairs in [start, end], cut off at its end where a limit is reached.

        A proof that was cut off carries at least one pair, and its ``end`` is its last key; the rest of the
        range starts at ``proof.end`` with a zero byte added.

        Args:
            start: The smallest key, inclusive; None for no bound.
            end: The largest key, inclusive; None for no bound.
            max_keys: The most pairs, at least 1; never more than 65,536 are sent.
            max_bytes: The most bytes that the encoded proof may have.

        Raises:
            InvalidRange: ``start`` lies behind ``end``.
            ValueError: ``max_keys`` is below 1.
            LimitTooSmall: No proof that makes progress fits into ``max_bytes``; it says how many would do.
        """
        require_range(start, end)
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}: a proof that makes progress carries at least one pair")
        with self._store.translated():
            trie = Trie(self._store, self._transaction, self.scheme)
            cursor = self._transaction.cursor(db=self._store.values)
            return Prover(trie, cursor, self.scheme.codec.path).prove(start, end, max_keys, max_bytes)


# A proof of one key is as large as it is; its caller has the value in memory anyway.
_NO_LIMIT: Final = 1 << 62


def require_range(start: bytes | None, end: bytes | None) -> None:
    """Raise InvalidRange when ``start`` lies behind ``end``."""
    if start is not None and end is not None and start > end:
        raise InvalidRange(start, end)
