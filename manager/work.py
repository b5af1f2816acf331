"""The queue of work: pieces of the key space that nobody is fetching yet, on a heap, leftmost first.

Pieces are small where data is known to be and large where nothing is known yet.  Whoever takes work gets the
leftmost piece together with the pieces that follow it directly, as long as they are expected to fit into one
proof.  So what is fetched at one time lies side by side, which is how the store fills its pages best.

Invariant: pieces in the queue do not overlap.  This module does no I/O, and knows neither peers nor roots.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from manager.keyspace import key_after

# A proof names at most some hundred pieces and work is depth first, so the queue stays far below this; only a
# trie built to be deep everywhere reaches it, and then neighbours are joined.
MAX_PIECES: Final = 4096


class Work(NamedTuple):
    """A piece of the key space to fetch.

    Attributes:
        start: The first key, inclusive.
        end: The last key, inclusive; None up to the last key there can be.
        share: The part of all the work that this piece is believed to be, 0 to 1.
    """

    start: bytes
    end: bytes | None
    share: float


class WorkQueue:
    """A heap of pieces of work.

    Args:
        max_key_bytes: The longest key of the scheme; it tells which pieces are neighbours.
    """

    def __init__(self, max_key_bytes: int) -> None:
        self._max_key_bytes = max_key_bytes
        self._heap: list[Work] = []

    def __len__(self) -> int:
        return len(self._heap)

    def pieces(self) -> list[Work]:
        """Return the pieces, leftmost first."""
        return sorted(self._heap)

    def put(self, pieces: Iterable[Work]) -> None:
        """Add pieces that overlap neither each other nor what is here."""
        for piece in pieces:
            heappush(self._heap, piece)
        if len(self._heap) > MAX_PIECES:
            self._join_neighbours()

    def take(self, max_share: float) -> Work:
        """Remove and return the leftmost piece, joined with those that follow it directly.

        Args:
            max_share: Up to which share pieces are joined; the leftmost is taken whatever its share.

        Raises:
            IndexError: The queue is empty.
        """
        taken = heappop(self._heap)
        while self._heap and taken.share + self._heap[0].share <= max_share:
            joined = self._join(taken, self._heap[0])
            if joined is None:
                break
            heappop(self._heap)
            taken = joined
        return taken

    def _join(self, left: Work, right: Work) -> Work | None:
        """Return both pieces as one; None when they are no neighbours."""
        if left.end is None or key_after(left.end, self._max_key_bytes) != right.start:
            return None
        return Work(left.start, right.end, left.share + right.share)

    def _join_neighbours(self) -> None:
        """Halve the queue by joining every piece with its neighbour."""
        joined: list[Work] = []
        for piece in self.pieces():
            pair = self._join(joined[-1], piece) if len(joined) > MAX_PIECES // 4 else None
            if pair is None:
                joined.append(piece)
            else:
                joined[-1] = pair
        self._heap = joined
        heapify(self._heap)
