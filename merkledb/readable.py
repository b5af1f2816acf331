"""What everything has that holds content: reads by key and in order, proofs, and closing.

A database is a ``ReadableMapping``; a snapshot, which is the content of a revision, and a view, which is one
that is only proposed, are a ``ReadableState`` too, and read the same way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, Self, TypeVar, overload

from merkledb.arguments import require_bytes, require_instance
from merkledb.formats.proof import RangeProof, require_bounds, require_limits
from merkledb.formats.scheme import Scheme, require_range
from merkledb.history.rows import FIRST_ROWS, Rows
from merkledb.proofs.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS, prove_key, prove_range
from merkledb.proofs.verified_reads import Pair, folded_blocks, proved_blocks, require_pairs, require_true
from merkledb.storage.store import Store, key_of_row
from merkledb.trie.trie import Trie

Default = TypeVar("Default")


class ReadableMapping(ABC):
    """A mapping of keys to values that is read by key, and a context manager that closes itself.

    It is true even when it is empty, as other open things are: ``if database`` asks whether there is one.
    What it yields in order is pairs, so it is read with ``items`` and is not iterable itself: a list of its
    keys and a dict of its pairs would both be surprised.
    """

    @abstractmethod
    def _value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""

    @abstractmethod
    def close(self) -> None:
        """End the use of the store, or of a transaction, that it reads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is no iterable: its pairs come in order from items()")

    def __contains__(self, key: bytes) -> bool:
        require_bytes("a key", key)
        return self._value(key) is not None

    def __getitem__(self, key: bytes) -> bytes:
        require_bytes("a key", key)
        value = self._value(key)
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: Default) -> bytes | Default: ...
    def get(self, key: bytes, default: Default | None = None) -> bytes | Default | None:
        """Return the value of ``key``; ``default`` when there is none.

        What is read is checked for form, not compared with the root: that does a snapshot's ``verified_get``.
        """
        require_bytes("a key", key)
        value = self._value(key)
        return default if value is None else value


class ReadableState(ReadableMapping):
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

        What is read is checked for form, not compared with the root: that does ``verified_items``.

        Args:
            start: The smallest key, inclusive; None for no bound.
            end: The largest key, inclusive; None for no bound.
            reverse: Yield the largest key first.

        Raises:
            InvalidRange: ``start`` lies after ``end``.
        """
        require_range(start, end)
        return self._descending(start, end) if reverse else self._ascending(start, end)

    def _ascending(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._store.translated():
            for row, value in self._rows().ascending(start, end, FIRST_ROWS):
                key = key_of_row(row)
                if end is not None and key > end:
                    return
                yield key, value
                self._store.require_usable()

    def _descending(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._store.translated():
            for row, value in self._rows().descending(start, end):
                key = key_of_row(row)
                if start is not None and key < start:
                    return
                yield key, value
                self._store.require_usable()

    def verified_get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, None when there is none: both as a proof shows that the root says.

        ``get`` and ``items`` do without that.  What they read is checked for form; a row of a damaged disk
        that has the form of one makes them say a wrong value, or none.

        Raises:
            CorruptDatabase: What is read is not what the root says.

        Cost: some 0.1 ms, at an old root up to 2; and of a large value the hash, which is not remembered.
        """
        require_bytes("a key", key)
        with self._store.translated():
            trie, value = self.trie(), self._rows().value(key)
            require_pairs(trie, [] if value is None else [(key, value)], key, key)
            return value

    def verified_items(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield what ``items`` does, each pair after a proof has shown that the root says so of it.

        So does the end: when it comes, there are no other pairs in [start, end].

        Args:
            start: The smallest key, inclusive; None for no bound.
            end: The largest key, inclusive; None for no bound.
            reverse: Yield the largest key first.

        Raises:
            InvalidRange: ``start`` lies after ``end``.
            CorruptDatabase: What is read next is not what the root says.

        Cost: as of proving and verifying; memory for 4,096 pairs, or about 16 MiB of values.
        """
        require_range(start, end)
        return self._in_blocks(lambda: proved_blocks(self.trie(), self._rows(), start, end, reverse=reverse))

    def folded_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs, ascending, and fold them: the root that they make is compared at the end.

        At the head it needs no branch that is stored, so damage besides the values does not matter; at an old
        root branches lead over what came since.  Until it ends, nothing is known of what was yielded.

        Raises:
            CorruptDatabase: After the last pair: they do not make the root.

        Cost: 1 µs a pair more than ``items`` with the compiled kernel, 4 with the pure one.
        """
        return self._in_blocks(
            lambda: folded_blocks(self._rows(), self.root, self.scheme, self.trie().corrupt)
        )

    def _in_blocks(self, read: Callable[[], Iterator[Iterable[Pair]]]) -> Iterator[Pair]:
        with self._store.translated():
            for block in read():
                yield from block
                self._store.require_usable()

    def prove(self, key: bytes) -> RangeProof:
        """Return the proof that ``key`` is present with its value, or absent.

        A range proof with start == end.  What it is made of may be damaged: ``check_proof`` tells.
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
            InvalidRange: ``start`` lies after ``end``.
            BoundTooLong: One of them has more than 1,024 bytes.
            ValueError: ``max_keys`` is below 1, or ``max_bytes`` negative.
            TypeError: A bound is not bytes, or a limit not an int.
            LimitTooSmall: No proof that makes progress fits into ``max_bytes``; it says how many would do.
        """
        require_bounds(start, end)
        require_limits(max_keys, max_bytes)
        with self._store.translated(), self._provable_rows() as rows:
            return prove_range(self.trie(), rows, start, end, max_keys, max_bytes)

    def check_proof(self, proof: RangeProof, start: bytes | None = None, end: bytes | None = None) -> None:
        """Verify a proof that was made here, before it goes to somebody who would take it for a lie.

        Args:
            proof: What ``prove`` or ``prove_range`` returned.
            start: The start that it was made with.
            end: The end that it was made with.

        Raises:
            CorruptDatabase: It does not hold, so what it was made of is damaged.
            InvalidRange: ``start`` lies after ``end``.
            TypeError: The proof is none, or a bound is not bytes.
        """
        require_instance("proof", proof, RangeProof)
        require_bounds(start, end)
        require_true(self.trie(), proof, start, end)
