"""Making proofs: the pairs or changes of a range, cut exactly at a limit, and their boundary.

One pass over the pairs.  How much room the boundary takes is known only once the end is, so the pairs are
read up to the limit and given back from the end until everything fits: each step takes two descents for the
new end, never another scan and never an encoding of the pairs.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from merkledb.errors import LimitTooSmall
from merkledb.formats.proof import (
    MAX_PROOF_KEYS,
    ChangeProof,
    RangeProof,
    encoded_column_bytes,
    encoded_proof_bytes,
    encoded_value_bytes,
)
from merkledb.history.rows import ProofPairs, Rows, pairs_of
from merkledb.trie.trie import Trie

if TYPE_CHECKING:
    from merkledb.differences import Difference, Differences

# Defaults of a proof's size: large enough that boundary and round trip hardly count, small enough that a
# handful in flight stays in the processor's cache and below a megabyte each.
DEFAULT_MAX_KEYS: Final = 4096
DEFAULT_MAX_BYTES: Final = 1 << 20
# A cut-off proof may leave this many bytes unused rather than search for the last pair that fits.
_MAX_UNUSED_BYTES: Final = 8 * 1024
# Boundaries that change with every key make aiming useless; after so many it is given up.
_MAX_AIMS: Final = 6
# A change proof ends where so many rows of history were read and looked up for it.  Keys that were changed
# and changed back cost rows and fill no proof: without a bound, a request for one change could read all of
# history.  So many rows take some 50 ms.
MAX_PROOF_READS: Final = 1 << 15

Proof = TypeVar("Proof", RangeProof, ChangeProof)


def prove_key(trie: Trie, rows: Rows, key: bytes) -> RangeProof:
    """Return the proof that ``key`` is present in a state with its value, or absent."""
    value, path = rows.value(key), trie.scheme.codec.path(key)
    boundary = trie.boundary(path, path)
    if value is None:
        return RangeProof((), (), key, boundary)
    return RangeProof((key,), (value,), key, boundary)


def prove_range(
    trie: Trie, rows: Rows, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int
) -> RangeProof:
    """Return the proof of the pairs in [start, end] of a state, cut off where it reaches a limit.

    Args:
        trie: The state's.
        rows: The state's.
        start: The smallest key; None for no bound.
        end: The largest key; None for no bound.
        max_keys: The most pairs.
        max_bytes: The most encoded bytes.

    Raises:
        LimitTooSmall: The smallest proof that makes progress has more than ``max_bytes``.
    """
    max_keys = min(max_keys, MAX_PROOF_KEYS)
    pairs = rows.pairs(start, end, max_keys, max_bytes)
    return _cut(pairs, start, end, max_bytes, trie, RangeProof)


def prove_changes(
    differences: "Differences",
    trie: Trie,
    start: bytes | None,
    end: bytes | None,
    max_keys: int,
    max_bytes: int,
) -> ChangeProof:
    """Return the proof of what changed in [start, end] between two states, cut off where it is full.

    Where so many keys were changed and changed back that ``MAX_PROOF_READS`` is used up first, the proof ends
    at the last of them that was looked at; it may then hold no change at all.

    Args:
        differences: Those between the state whose content the receiver has, and the one it shall have.
        trie: The latter's.
        start: The smallest key; None for no bound.
        end: The largest key; None for no bound.
        max_keys: The most changes.
        max_bytes: The most encoded bytes.

    Raises:
        LimitTooSmall: The smallest proof that makes progress has more than ``max_bytes``.
    """
    max_keys = min(max_keys, MAX_PROOF_KEYS)
    pairs = _take(differences.between(start, end, max_keys, MAX_PROOF_READS), max_keys, max_bytes)
    reached = end if pairs.more else differences.reached
    return _cut(pairs, start, reached, max_bytes, trie, ChangeProof)


def _take(differences: Iterator["Difference"], max_keys: int, max_bytes: int) -> ProofPairs:
    """Return the changes up to a limit, but at least one if there is any."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    encoded_bytes = 0
    for key, _, value in differences:
        change_bytes = encoded_value_bytes(key) + encoded_value_bytes(value)
        if len(keys) == max_keys or (keys and encoded_bytes + change_bytes > max_bytes):
            return pairs_of(keys, values, encoded_bytes, max_bytes, more=True)
        encoded_bytes += change_bytes
        keys.append(key)
        values.append(value)
    return pairs_of(keys, values, encoded_bytes, max_bytes, more=False)


def _cut(
    pairs: ProofPairs,
    start: bytes | None,
    end: bytes | None,
    max_bytes: int,
    trie: Trie,
    kind: Callable[..., Proof],
) -> Proof:
    """Return the proof of as many of ``pairs``, read from ``start`` on, as fit.

    Args:
        pairs: What was read.
        start: The smallest key; None for no bound.
        end: The largest key that was asked for; None for no bound.
        max_bytes: The most encoded bytes.
        trie: What the boundary is taken from.
        kind: RangeProof or ChangeProof.

    Raises:
        LimitTooSmall: The smallest proof that makes progress has more than ``max_bytes``.
    """
    assembler = _Assembler(pairs, start, trie, kind)
    if pairs.is_too_large:
        ends = [pairs.keys[0]] if pairs.more else [pairs.keys[0], end]
        needed = min(assembler.assemble(1, pairs.encoded_bytes, each)[1] for each in ends)
        raise LimitTooSmall(max_bytes, needed)
    complete_bytes = None
    if not pairs.more:
        proof, complete_bytes = assembler.assemble(len(pairs.keys), pairs.encoded_bytes, end)
        if complete_bytes <= max_bytes:
            return proof
    return assembler.cut(max_bytes, complete_bytes)


class _Assembler(Generic[Proof]):
    """Makes a proof of the first of some pairs."""

    def __init__(
        self, pairs: ProofPairs, start: bytes | None, trie: Trie, kind: Callable[..., Proof]
    ) -> None:
        self._pairs = pairs
        self._trie = trie
        self._kind: Callable[..., Proof] = kind
        self._path_of = trie.scheme.codec.path
        self._start_path = None if start is None else self._path_of(start)

    def assemble(self, count: int, pair_bytes: int, end: bytes | None) -> tuple[Proof, int]:
        """Return the proof of the first ``count`` pairs up to ``end``, and how many bytes it encodes to."""
        keys, values = self._pairs.keys[:count], self._pairs.values[:count]
        boundary = self._trie.boundary(self._start_path, None if end is None else self._path_of(end))
        size = encoded_proof_bytes(count, pair_bytes, end, boundary)
        return self._kind(tuple(keys), tuple(values), end, boundary), size

    def cut(self, max_bytes: int, complete_bytes: int | None) -> Proof:
        """Return the proof of as many pairs as fit.

        Narrows down between a count that fits and one that is too many, until they are neighbours or little
        room is left: first by aiming at the right size, which hits at once where boundaries are alike, then
        by halving what is between.

        Args:
            max_bytes: The most encoded bytes.
            complete_bytes: What the complete proof takes, where there is one.
        """
        pairs = self._pairs
        best: Proof | None = None
        size = aims = 0
        fits, too_many, count, pair_bytes = 0, len(pairs.keys) + 1, len(pairs.keys), pairs.encoded_bytes
        while too_many - fits > 1:
            proof, size = self.assemble(count, pair_bytes, pairs.keys[count - 1])
            unused_bytes = max_bytes - size
            if unused_bytes < 0:
                too_many = count
            else:
                fits, best = count, proof
                if unused_bytes < _MAX_UNUSED_BYTES:
                    break
            aims += 1
            if aims < _MAX_AIMS:
                count, pair_bytes = _aim(pairs, count, pair_bytes, unused_bytes, fits, too_many)
            else:
                count = (fits + too_many) // 2
                pair_bytes = encoded_column_bytes(pairs.keys[:count], pairs.values[:count])
        if best is None:
            # What was tried last carries one pair, which is what a client can ask for alone.  Where there is
            # no other pair, the complete proof serves as well.
            sizes = [size, complete_bytes] if len(pairs.keys) <= 1 else [size]
            raise LimitTooSmall(max_bytes, min(tried for tried in sizes if tried))
        return best


def _aim(
    pairs: ProofPairs, count: int, pair_bytes: int, unused_bytes: int, fits: int, too_many: int
) -> tuple[int, int]:
    """Return the count of pairs to try next, strictly between both bounds, and the bytes that they take."""
    step = -1 if unused_bytes < 0 else 1
    while fits < count + step < too_many:
        changed = count - 1 if step < 0 else count
        moved = encoded_value_bytes(pairs.keys[changed]) + encoded_value_bytes(pairs.values[changed])
        if step > 0 and moved > unused_bytes and count > fits:
            break
        count, pair_bytes, unused_bytes = count + step, pair_bytes + step * moved, unused_bytes - step * moved
        if step < 0 <= unused_bytes:
            break
    return count, pair_bytes
