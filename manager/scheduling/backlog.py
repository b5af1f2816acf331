"""Where the work is that nobody does at the moment, sorted by what it needs.

    unsynced     as the sync found it: at a root that the database had before, or nothing is known of it
    stale        brought to a pivot that has been given up since
    suspected    a change proof did not hold here, so another peer looks first (see ``fetcher``)
    done         at the pivot: nothing has to be fetched

Unsynced and stale work are served by turns.  So unsynced work gets less however fast the target moves, and
stale work, the oldest first, is brought to the pivot before peers prune the roots that it is at.

Unsynced and stale work lie on heaps, leftmost first.  Pieces are small where data is known to be and large
where nothing is known yet.  Whoever takes work gets the leftmost piece together with the pieces that follow
it directly, as long as they are expected to fit into one proof; of the piece that does not fit any more, so
much of its width as should.  So proofs are full, and what is fetched at one time lies side by side, which is
how the store fills its pages best.

Invariants: no two pieces overlap; only pieces whose local content is at the same root are joined, for one
change proof can bring forward no others.  No I/O; the time is an argument.
"""

from collections.abc import Hashable, Iterable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from manager.errors import ProofRejected
from manager.keyspace.keyspace import key_after, key_before, key_within

# A proof is planned to be this full, so that the natural variation of keys seldom cuts it off.
_PLANNED_FILLING: Final = 0.85
# How much of the past remains after each full proof; about as much counts as the last ten of these hold.
_DENSITY_MEMORY: Final = 0.9
# What is done is joined when there are so many pieces more than after the last time.
_DONE_PIECES: Final = 64
# Pivots of which it is known in which order they were left; by then, peers have pruned the ones before.
_REMEMBERED_PIVOTS: Final = 64
# A proof names at most some hundred pieces and work is depth first, so a heap stays far below this; only a
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


class Backlog:
    """Work that waits, or is done.

    Args:
        max_key_bytes: The longest key of the scheme.
        suspicion_seconds: For so long, who has caused a suspicion leaves it to others to look into it.
        pieces: What there is, as the sync finds it.
    """

    def __init__(self, max_key_bytes: int, suspicion_seconds: float, pieces: Iterable[Work]) -> None:
        self._max_key_bytes = max_key_bytes
        self._suspicion_seconds = suspicion_seconds
        self._pivot: bytes | None = None
        # The pivots that were left, the last one last.
        self._left: dict[bytes, None] = {}
        # By the root that content is at: how many changes a share of the tree holds; by None, how many pairs.
        self._densities: dict[bytes | None, Density] = {}
        self._took_stale = False
        self.begin(pieces)

    def begin(self, pieces: Iterable[Work]) -> None:
        """Forget everything, and begin with other pieces, all as the sync finds them."""
        pieces = list(pieces)  # It may be an iterator, and is looked at twice.
        self._unsynced_roots = {None, *(work.root for work in pieces)}
        self._unsynced: list[Work] = []
        # By the pivot that was left.
        self._stale: dict[bytes | None, list[Work]] = {}
        self._suspected: list[Work] = []
        self._done: list[Work] = []
        self._join_done_at = _DONE_PIECES
        self.put(pieces)

    def reach(self, root: bytes) -> None:
        """Note that the content of all that is here is at ``root``; a suspicion is refuted by that."""
        self.begin([work._replace(root=root, suspicion=None) for work in self.pieces()])

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._unsynced or self._stale or self._suspected)

    def pieces(self) -> list[Work]:
        """Return everything, ascending."""
        waiting = chain(self._unsynced, *self._stale.values(), self._suspected)
        return sorted([*waiting, *self._done], key=start_of)

    def is_unsynced(self, work: Work) -> bool:
        """Whether work is as the sync found it."""
        return work.root in self._unsynced_roots

    def set_pivot(self, pivot: bytes) -> None:
        """Sort everything again for another pivot."""
        if self._pivot is not None:
            self._left.pop(self._pivot, None)
            self._left[self._pivot] = None
            if len(self._left) > _REMEMBERED_PIVOTS:
                del self._left[next(iter(self._left))]
        self._pivot = pivot
        # Stale work of other roots and suspected work stay what they are, whatever the pivot.
        done = join_neighbours(sorted(self._done, key=start_of), self._max_key_bytes)
        moved = [*self._stale.pop(pivot, ()), *self._unsynced, *done]
        self._unsynced, self._done = [], []
        self.put(moved)
        kept = {*self._stale, *self._unsynced_roots, pivot}
        self._densities = {root: density for root, density in self._densities.items() if root in kept}

    def put(self, pieces: Iterable[Work]) -> None:
        """Add pieces that overlap neither each other nor what is here."""
        for work in pieces:
            if work.suspicion is not None:
                self._suspected.append(work)
            elif work.root is not None and work.root == self._pivot:
                self._done.append(work)
                if len(self._done) >= self._join_done_at:
                    self._done = join_neighbours(sorted(self._done, key=start_of), self._max_key_bytes)
                    self._join_done_at = len(self._done) + _DONE_PIECES
            else:
                is_unsynced = work.root in self._unsynced_roots
                heap = self._unsynced if is_unsynced else self._stale.setdefault(work.root, [])
                heappush(heap, work)
                if len(heap) > MAX_PIECES:
                    shorten(heap, self._max_key_bytes)

    def take(self, peer: Hashable, now: float, max_bytes: int) -> Work | float:
        """Remove and return what ``peer`` shall do next, or return when suspected work becomes its too.

        Args:
            peer: Who will be asked.
            now: The time, in seconds.
            max_bytes: Of a proof that it will be asked for.

        Returns:
            Work; or a time in seconds, infinity where no suspected work waits.
        """
        free_at = float("inf")
        for index, work in enumerate(self._suspected):
            assert work.suspicion is not None
            until = work.suspicion.since + self._suspicion_seconds
            if work.suspicion.peer != peer or until <= now:
                return self._suspected.pop(index)
            free_at = min(free_at, until)
        self._took_stale = bool(self._stale) and not (self._took_stale and self._unsynced)
        if not self._took_stale and not self._unsynced:
            return free_at
        pivot_left, heap = self._oldest() if self._took_stale else (None, self._unsynced)
        density = self._densities.get(heap[0].root)
        max_share = density.share_of(_PLANNED_FILLING, max_bytes) if density is not None else 0.0
        taken = take_leftmost(heap, max_share, self._max_key_bytes)
        if self._took_stale and not heap:
            del self._stale[pivot_left]
        return taken

    def _oldest(self) -> tuple[bytes | None, list[Work]]:
        """Return the stale work of the pivot that was left first, and that pivot."""
        # Work that is given back keeps its turn.  A pivot that is not remembered was left before all others.
        turns = {root: turn for turn, root in enumerate(self._left)}
        pivot_left = min(self._stale, key=lambda root: -1 if root is None else turns.get(root, -1))
        return pivot_left, self._stale[pivot_left]

    def learn(self, root: bytes | None, filling: float, byte_count: int, share: float, weight: float) -> None:
        """Note what a proof held of a share of what is at ``root``; see ``Density.add``."""
        self._densities.setdefault(root, Density()).add(filling, byte_count, share, weight)


class Density:
    """How much of a proof a share of the work fills, in the neighbourhood of the last proofs.

    Such a share is one of the *tree* (see ``subdivide``), which for keys that are hashes is the share of the
    content too, and for folders of files, which keep most of it in one corner, is not.
    """

    def __init__(self) -> None:
        self._proofs = 0.0
        self._bytes = 0.0
        self._share = 0.0

    def add(self, proofs: float, byte_count: int, share: float, weight: float) -> None:
        """Count verified content that did a share of all the work.

        Args:
            proofs: Which part of the number of pairs, or changes, that a proof may hold.
            byte_count: The size of its content.
            share: What it did, 0 to 1.
            weight: How full its proof was, 0 to 1.
        """
        # A proof that holds little says little: many of them must not make a full one be forgotten.
        memory = _DENSITY_MEMORY**weight
        self._proofs = self._proofs * memory + proofs
        self._bytes = self._bytes * memory + byte_count
        self._share = self._share * memory + share

    def share_of(self, proofs: float, max_bytes: int) -> float:
        """Return which share is expected to fill so much of a proof; 0 as long as nothing is known.

        Args:
            proofs: Which part, 0 to 1.
            max_bytes: Of a whole proof.
        """
        fullness = max(self._proofs, self._bytes / max_bytes)
        if fullness:
            return self._share * proofs / fullness
        # Where changes are few, the first answers may hold none: any share fits, as far as is known.
        return float("inf") if self._share else 0.0


# Pieces on a heap, and side by side.


def take_leftmost(heap: list[Work], max_share: float, max_key_bytes: int) -> Work:
    """Remove and return the leftmost piece of a heap, joined with what follows it directly.

    Args:
        heap: Not empty.
        max_share: Up to which share is joined; the leftmost piece is taken whatever its share.
        max_key_bytes: The longest key of the scheme; it tells which pieces are neighbours.
    """
    taken = heappop(heap)
    while heap and (joined := join(taken, heap[0], max_key_bytes)) is not None:
        if joined.share > max_share:
            return _fill_up(taken, heap, max_share, max_key_bytes)
        heappop(heap)
        taken = joined
    return taken


def _fill_up(taken: Work, heap: list[Work], max_share: float, max_key_bytes: int) -> Work:
    """Return what was taken with so much of the piece after it as there is room for."""
    room, following = max_share - taken.share, heap[0]
    parts = None
    if room >= max_share * _LEAST_ROOM:
        parts = cut(following, room / following.share, max_key_bytes)
    if parts is None:
        return taken
    heapreplace(heap, parts[1])
    return join(taken, parts[0], max_key_bytes) or taken


def shorten(heap: list[Work], max_key_bytes: int) -> None:
    """Leave the leftmost pieces of a heap as they are, and join the others where they are neighbours."""
    heap[:] = join_neighbours(sorted(heap, key=start_of), max_key_bytes, apart=MAX_PIECES // 4)
    heapify(heap)


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
