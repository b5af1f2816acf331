"""What everything has that holds one content with a root: pairs, order, proofs.

A snapshot is the content of a revision, a view one that is only proposed; both read the same way.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from merkledb.content import Content, require_bytes
from merkledb.errors import InvalidRange
from merkledb.proof import RangeProof
from merkledb.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS, prove_key, prove_range
from merkledb.rows import Rows
from merkledb.scheme import Scheme
from merkledb.store import Store, key_of_row
from merkledb.trie import Trie


class State(Content):
    """One content with its root.  A context manager; use it from one thread at a time, whichever that is.

    Attributes:
        root: The root.
        scheme: The database's scheme.
    """

    root: bytes
    scheme: Scheme

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    def _rows(self) -> Rows:
        """Return the rows."""

    @abstractmethod
    def trie(self) -> Trie:
        """Return the trie of this state."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many pairs there are."""

    @contextmanager
    def _provable_rows(self) -> Iterator[Rows]:
        """Give the rows that a proof is made of, whose values may be views until they are taken."""
        yield self._rows()

    def _value(self, key: bytes) -> bytes | None:
        with self._store.translated():
            return self._rows().value(key)

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
            for row, value in self._rows().ascending(start, end, DEFAULT_MAX_KEYS):
                key = key_of_row(row)
                if end is not None and key > end:
                    return
                yield key, value
                self._store.require_own()

    def _descending(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._store.translated():
            for row, value in self._rows().descending(start, end):
                key = key_of_row(row)
                if start is not None and key < start:
                    return
                yield key, value
                self._store.require_own()

    def prove(self, key: bytes) -> RangeProof:
        """Return the proof that ``key`` is present with its value, or absent.

        A range proof with start == end.
        """
        require_bytes("a key", key)
        with self._store.translated():
            return prove_key(self.trie(), self._rows(), key)

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
        require_max_keys(max_keys)
        with self._store.translated(), self._provable_rows() as rows:
            return prove_range(self.trie(), rows, start, end, max_keys, max_bytes)


def require_range(start: bytes | None, end: bytes | None) -> None:
    """Raise InvalidRange when ``start`` lies behind ``end``, and TypeError where a bound is no bytes."""
    if start is not None:
        require_bytes("a start", start)
    if end is not None:
        require_bytes("an end", end)
    if start is not None and end is not None and start > end:
        raise InvalidRange(start, end)


def require_max_keys(max_keys: int) -> None:
    """Raise ValueError when no proof with so few pairs makes progress."""
    if max_keys < 1:
        raise ValueError(f"max_keys is {max_keys}: a proof that makes progress carries at least one pair")
