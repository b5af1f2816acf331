"""Making range proofs: the pairs of a range, cut exactly at a limit of pairs or bytes, and their boundary.

One pass over the pairs.  How much room the boundary takes is known only once the end is, so the pairs are
read up to the limit and given back from the end until everything fits: each step takes two descents for the
new end, never another scan and never an encoding of the pairs.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from merkledb.errors import LimitTooSmall
from merkledb.proof import MAX_PROOF_KEYS, RangeProof, encoded_bin_bytes, encoded_proof_bytes
from merkledb.store import Cursor, key_of_row, seek
from merkledb.trie import Trie

# Defaults of a proof's size: large enough that boundary and round trip hardly count, small enough that a
# handful in flight stays in the processor's cache and below a megabyte each.
DEFAULT_MAX_KEYS: Final = 4096
DEFAULT_MAX_BYTES: Final = 1 << 20
# A cut-off proof may leave this many bytes unused rather than search for the last pair that fits.
_MAX_UNUSED_BYTES: Final = 8 * 1024
# Boundaries that change with every key make aiming useless; after so many it is given up.
_MAX_AIMS: Final = 6


class _Pairs(NamedTuple):
    """The pairs that were read; ``more`` says whether the range holds others behind them."""

    keys: list[bytes]
    values: list[bytes]
    encoded_bytes: int
    more: bool


class Prover:
    """Makes range proofs from one snapshot.

    Args:
        trie: The snapshot's trie.
        cursor: A cursor of the snapshot's values.
        path_of: Turns a key into its path.
    """

    def __init__(self, trie: Trie, cursor: Cursor, path_of: Callable[[bytes], bytes]) -> None:
        self._trie = trie
        self._cursor = cursor
        self._path_of = path_of

    def prove(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> RangeProof:
        """Return the proof of [start, end], cut off where it reaches a limit.

        Raises:
            LimitTooSmall: The smallest proof that makes progress has more than ``max_bytes``.
        """
        pairs = self._read(start, end, min(max_keys, MAX_PROOF_KEYS), max_bytes)
        complete_bytes = None
        if not pairs.more:
            proof, complete_bytes = self._assemble(pairs, start, end)
            if complete_bytes <= max_bytes:
                return proof
        return self._cut(pairs, start, max_bytes, complete_bytes)

    def _read(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> _Pairs:
        """Read pairs from ``start`` until a limit is reached or the range ends."""
        keys: list[bytes] = []
        values: list[bytes] = []
        encoded_bytes = 0
        if not seek(self._cursor, start):
            return _Pairs(keys, values, 0, more=False)
        for row, value in self._cursor:
            key = row if row[0] else key_of_row(row)
            if end is not None and key > end:
                break
            key_length, value_length = len(key), len(value)
            if key_length < 256 > value_length:
                pair_bytes = key_length + value_length + 4
            else:
                pair_bytes = encoded_bin_bytes(key_length) + encoded_bin_bytes(value_length)
            if len(keys) == max_keys or (keys and encoded_bytes + pair_bytes > max_bytes):
                return _Pairs(keys, values, encoded_bytes, more=True)
            encoded_bytes += pair_bytes
            keys.append(key)
            values.append(value)
        return _Pairs(keys, values, encoded_bytes, more=False)

    def _assemble(self, pairs: _Pairs, start: bytes | None, end: bytes | None) -> tuple[RangeProof, int]:
        """Return the proof of ``pairs`` up to ``end``, and how many bytes it encodes to."""
        start_path = None if start is None else self._path_of(start)
        end_path = None if end is None else self._path_of(end)
        boundary = self._trie.boundary(start_path, end_path)
        size = encoded_proof_bytes(len(pairs.keys), pairs.encoded_bytes, end, boundary)
        return RangeProof(tuple(pairs.keys), tuple(pairs.values), end, boundary), size

    def _cut(
        self, pairs: _Pairs, start: bytes | None, max_bytes: int, complete_bytes: int | None
    ) -> RangeProof:
        """Return the proof of as many of ``pairs`` as fit.

        Narrows down between a count that fits and one that is too many, until they are neighbours or little
        room is left: first by aiming at the right size, which hits at once where boundaries are alike, then
        by halving what is between.
        """
        best: RangeProof | None = None
        size = aims = 0
        fits, too_many, count, pair_bytes = 0, len(pairs.keys) + 1, len(pairs.keys), pairs.encoded_bytes
        while too_many - fits > 1:
            kept = _Pairs(pairs.keys[:count], pairs.values[:count], pair_bytes, more=True)
            proof, size = self._assemble(kept, start, pairs.keys[count - 1])
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
                pair_bytes = sum(map(encoded_bin_bytes, map(len, pairs.keys[:count] + pairs.values[:count])))
        if best is None:
            # What was tried last carries one pair, which is what a client can ask for alone.  Where there is
            # no other pair, the complete proof serves as well.
            sizes = [size, complete_bytes] if len(pairs.keys) <= 1 else [size]
            raise LimitTooSmall(max_bytes, min(tried for tried in sizes if tried))
        return best


def _aim(
    pairs: _Pairs, count: int, pair_bytes: int, unused_bytes: int, fits: int, too_many: int
) -> tuple[int, int]:
    """Return the count of pairs to try next, strictly between both bounds, and the bytes that they take."""
    step = -1 if unused_bytes < 0 else 1
    while fits < count + step < too_many:
        changed = count - 1 if step < 0 else count
        moved = encoded_bin_bytes(len(pairs.keys[changed])) + encoded_bin_bytes(len(pairs.values[changed]))
        if step > 0 and moved > unused_bytes and count > fits:
            break
        count, pair_bytes, unused_bytes = count + step, pair_bytes + step * moved, unused_bytes - step * moved
        if step < 0 <= unused_bytes:
            break
    return count, pair_bytes
