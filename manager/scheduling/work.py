"""The queue of work: pieces of the key space that nobody is fetching yet, on a heap, leftmost first.

Pieces are small where data is known to be and large where nothing is known yet.  Whoever takes work gets the
leftmost piece together with the pieces that follow it directly, as long as they are expected to fit into one
proof; of the piece that does not fit any more, so much of its width as should.  So proofs are full, and what
is fetched at one time lies side by side, which is how the store fills its pages best.

Invariants: pieces in the queue do not overlap; only pieces whose local content is at the same root are
joined, for one change proof can bring forward no others.  This module does no I/O, and knows no peers.
"""

from collections.abc import Hashable, Iterable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from operator import attrgetter
from typing import Final, NamedTuple

from manager.errors import ProofRejected
from manager.keyspace.keyspace import key_after, key_before, key_within

# A proof names at most some hundred pieces and work is depth first, so the queue stays far below this; only a
# trie built to be deep everywhere reaches it, and then neighbours are joined.
MAX_PIECES: Final = 4096
# Room for less than this part of what is wanted is not worth another cut through the key space.
_LEAST_ROOM: Final = 1 / 8


class Suspicion(NamedTuple):
    """A change proof that does not hold, where peer or local content may be to blame.

    Attributes:
        peer: Who sent it.
        failure: What is wrong with the peer, if it is the peer.
        end: The end of the proof; None up to the last key there can be.
        since: When it came, in trio's seconds.
    """

    peer: Hashable
    failure: ProofRejected
    end: bytes | None
    since: float


class Work(NamedTuple):
    """A piece of the key space to fetch.

    Attributes:
        start: The first key, inclusive.
        end: The last key, inclusive; None up to the last key there can be.
        share: The part of all the work that this piece is believed to be, 0 to 1.
        root: The root that the local content of the piece is at; None when nothing is known of it.
        suspicion: Why it may not be at that root; None without a reason.
    """

    start: bytes
    end: bytes | None
    share: float
    root: bytes | None = None
    suspicion: Suspicion | None = None


# What pieces are sorted by.
start_of: Final = attrgetter("start")


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

    @property
    def first(self) -> Work:
        """The leftmost piece, which stays here.

        Raises:
            IndexError: The queue is empty.
        """
        return self._heap[0]

    def pieces(self) -> list[Work]:
        """Return the pieces, leftmost first."""
        return sorted(self._heap, key=start_of)

    def put(self, pieces: Iterable[Work]) -> None:
        """Add pieces that overlap neither each other nor what is here."""
        for piece in pieces:
            heappush(self._heap, piece)
        if len(self._heap) > MAX_PIECES:
            self._join_neighbours()

    def take(self, max_share: float) -> Work:
        """Remove and return the leftmost piece, joined with what follows it directly.

        Args:
            max_share: Up to which share is joined; the leftmost piece is taken whatever its share.

        Raises:
            IndexError: The queue is empty.
        """
        taken = heappop(self._heap)
        while self._heap and (joined := self._join(taken, self._heap[0])) is not None:
            if joined.share > max_share:
                return self._fill_up(taken, max_share)
            heappop(self._heap)
            taken = joined
        return taken

    def _fill_up(self, taken: Work, max_share: float) -> Work:
        """Return what was taken with so much of the piece after it as there is room for."""
        room, following = max_share - taken.share, self._heap[0]
        parts = None
        if room >= max_share * _LEAST_ROOM:
            parts = cut(following, room / following.share, self._max_key_bytes)
        if parts is None:
            return taken
        heapreplace(self._heap, parts[1])
        return self._join(taken, parts[0]) or taken

    def clear(self) -> None:
        """Remove everything."""
        self._heap = []

    def take_all(self) -> list[Work]:
        """Remove and return everything, leftmost first."""
        pieces, self._heap = self.pieces(), []
        return pieces

    def _join(self, left: Work, right: Work) -> Work | None:
        return join(left, right, self._max_key_bytes)

    def _join_neighbours(self) -> None:
        """Make the queue shorter: leave the leftmost pieces as they are, and join the others."""
        self._heap = join_neighbours(self.pieces(), self._max_key_bytes, apart=MAX_PIECES // 4)
        heapify(self._heap)


def cut(piece: Work, part: float, max_key_bytes: int) -> tuple[Work, Work] | None:
    """Return a piece as two, or None where it cannot be cut so.

    Within the slot of a branch, keys that are hashes lie evenly.  Where others do not, a proof is less full,
    or is cut off; nothing else depends on it.

    Args:
        piece: Any.
        part: Of its width and of its share that the first one gets, 0 to 1.
        max_key_bytes: The longest key of the scheme.
    """
    border = key_within(piece.start, piece.end, part, max_key_bytes)
    if border is None:
        return None
    first = piece._replace(end=key_before(border, max_key_bytes), share=piece.share * part)
    return first, piece._replace(start=border, share=piece.share - first.share)


def join(left: Work, right: Work, max_key_bytes: int) -> Work | None:
    """Return both pieces as one; None when they are no neighbours, at different roots, or suspected."""
    if left.end is None or key_after(left.end, max_key_bytes) != right.start:
        return None
    if left.root != right.root or left.suspicion is not None or right.suspicion is not None:
        return None
    return Work(left.start, right.end, left.share + right.share, left.root)


def join_neighbours(pieces: Sequence[Work], max_key_bytes: int, *, apart: int = 0) -> list[Work]:
    """Return ascending pieces with each one joined to its neighbour where that can be.

    Args:
        pieces: Ascending, without an overlap.
        max_key_bytes: The longest key of the scheme.
        apart: How many of the first pieces stay as they are.
    """
    joined = list(pieces[:apart])
    for piece in pieces[apart:]:
        pair = join(joined[-1], piece, max_key_bytes) if len(joined) > apart else None
        if pair is None:
            joined.append(piece)
        else:
            joined[-1] = pair
    return joined
