"""Where the work is that nobody does at the moment, sorted by what it needs.

    unsynced     as the sync found it: at a root that the database had before, or nothing is known of it
    stale        brought to a pivot that has been given up since
    suspected    a change proof did not hold here, so another peer looks first (see ``fetcher``)
    done         at the pivot: nothing has to be fetched

Unsynced and stale work are served by turns.  So unsynced work gets less however fast the target moves, and
stale work, the oldest first, is brought to the pivot before peers prune the roots that it is at.

Invariant: no two pieces overlap.  No I/O; the time is an argument.
"""

from collections.abc import Hashable, Iterable
from typing import Final

from manager.scheduling.work import Work, WorkQueue, join_neighbours, start_of
from manager.status.estimate import Density

# A proof is planned to be this full, so that the natural variation of keys seldom cuts it off.
_PLANNED_FILLING: Final = 0.85
# What is done is joined when there are so many pieces more than after the last time.
_DONE_PIECES: Final = 64


class Backlog:
    """Work that waits, or is done.

    Args:
        max_key_bytes: The longest key of the scheme.
        suspicion_seconds: For so long, who has caused a suspicion leaves it to others to look into it.
    """

    def __init__(self, max_key_bytes: int, suspicion_seconds: float) -> None:
        self._max_key_bytes = max_key_bytes
        self._suspicion_seconds = suspicion_seconds
        self._pivot: bytes | None = None
        self._unsynced_roots: set[bytes | None] = {None}
        self._unsynced = WorkQueue(max_key_bytes)
        # By the pivot that was left, the oldest first.
        self._stale: dict[bytes, WorkQueue] = {}
        self._suspected: list[Work] = []
        self._done: list[Work] = []
        self._join_done_at = _DONE_PIECES
        # By the root that content is at: how many changes a share of the tree holds; by None, how many pairs.
        self._densities: dict[bytes | None, Density] = {}
        self._took_stale = False

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._unsynced or self._stale or self._suspected)

    def pieces(self) -> list[Work]:
        """Return everything, ascending."""
        stale = [work for queue in self._stale.values() for work in queue.pieces()]
        return sorted(self._unsynced.pieces() + stale + self._suspected + self._done, key=start_of)

    def is_unsynced(self, work: Work) -> bool:
        """Whether work is as the sync found it."""
        return work.root in self._unsynced_roots

    def next_suspicion_end(self, now: float) -> float:
        """Return when the next piece of suspected work becomes work for everybody; infinity for never."""
        if not self._suspected:
            return float("inf")
        ends = (
            work.suspicion.since + self._suspicion_seconds
            for work in self._suspected
            if work.suspicion is not None
        )
        return min((end for end in ends if end > now), default=float("inf"))

    # Filling.

    def begin(self, pieces: Iterable[Work]) -> None:
        """Forget everything, and begin with other pieces, all as the sync finds them."""
        self.clear()
        pieces = list(pieces)
        self._unsynced_roots = {None, *(work.root for work in pieces)}
        self.put(pieces)

    def set_pivot(self, pivot: bytes) -> None:
        """Sort everything again for another pivot."""
        self._pivot = pivot
        moved = self._stale.pop(pivot).take_all() if pivot in self._stale else []
        moved += self._unsynced.take_all()
        moved += join_neighbours(sorted(self._done, key=start_of), self._max_key_bytes)
        self._done = []
        self.put(moved)
        kept = {None, *(work.root for work in moved), *self._stale}
        self._densities = {root: density for root, density in self._densities.items() if root in kept}

    def put(self, pieces: Iterable[Work]) -> None:
        """Add pieces that overlap neither each other nor what is here."""
        for work in pieces:
            if work.suspicion is not None:
                self._suspected.append(work)
            elif work.root is not None and work.root == self._pivot:
                self._put_done(work)
            elif work.root is None or self.is_unsynced(work):
                self._unsynced.put([work])
            else:
                self._stale.setdefault(work.root, WorkQueue(self._max_key_bytes)).put([work])

    def _put_done(self, work: Work) -> None:
        self._done.append(work)
        if len(self._done) >= self._join_done_at:
            self._done = join_neighbours(sorted(self._done, key=start_of), self._max_key_bytes)
            self._join_done_at = len(self._done) + _DONE_PIECES

    def clear(self) -> None:
        """Remove everything."""
        self._unsynced.clear()
        self._stale.clear()
        self._suspected.clear()
        self._done.clear()

    # Taking.

    def take(self, peer: Hashable, now: float, max_bytes: int) -> Work | None:
        """Remove and return what ``peer`` shall do next; None when there is nothing for it.

        Args:
            peer: Who will be asked.
            now: The time, in seconds.
            max_bytes: Of a proof that it will be asked for.
        """
        suspected = self._take_suspected(peer, now)
        if suspected is not None:
            return suspected
        self._took_stale = bool(self._stale) and not (self._took_stale and self._unsynced)
        if self._took_stale:
            return self._take_stale(max_bytes)
        return self._take_from(self._unsynced, max_bytes) if self._unsynced else None

    def _take_suspected(self, peer: Hashable, now: float) -> Work | None:
        for index, work in enumerate(self._suspected):
            assert work.suspicion is not None
            if work.suspicion.peer != peer or now >= work.suspicion.since + self._suspicion_seconds:
                return self._suspected.pop(index)
        return None

    def _take_stale(self, max_bytes: int) -> Work:
        root, queue = next(iter(self._stale.items()))
        work = self._take_from(queue, max_bytes)
        if not queue:
            del self._stale[root]
        return work

    def _take_from(self, queue: WorkQueue, max_bytes: int) -> Work:
        density = self._densities.get(queue.first.root)
        return queue.take(density.share_of(_PLANNED_FILLING, max_bytes) if density is not None else 0.0)

    def learn(self, root: bytes | None, filling: float, byte_count: int, share: float) -> None:
        """Note how full a proof was of a share of what is at ``root``, and how many bytes it had."""
        self._densities.setdefault(root, Density()).add(filling, byte_count, share)
