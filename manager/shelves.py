"""Where the work is that nobody does at the moment, sorted by what it needs.

    base       as the sync found it: at a root that the database had before, or nothing is known of it
    left       brought to a goal that has been left since
    doubted    a change proof did not hold here, so somebody else looks first (see ``fetch``)
    resting    at the goal: nothing has to be done

Work at the base and work left behind is served by turns.  So the base gets less however fast the target
moves, and what was left behind, the oldest first, is brought along before peers forget the roots that it is
at.

Invariant: no two pieces overlap.  No I/O; the time is an argument.
"""

from collections.abc import Hashable, Iterable
from typing import Final

from manager.estimate import Density
from manager.work import Work, WorkQueue, join_neighbours, start_of

# A proof is planned to be this full, so that the natural variation of keys seldom cuts it off.
_PLANNED_FILLING: Final = 0.85
# What rests is joined when there are so many pieces more than after the last time.
_RESTING_PIECES: Final = 64


class Shelves:
    """Work that waits, or rests.

    Args:
        max_key_bytes: The longest key of the scheme.
        doubt_seconds: For so long, who has caused a doubt leaves it to others to look into it.
    """

    def __init__(self, max_key_bytes: int, doubt_seconds: float) -> None:
        self._max_key_bytes = max_key_bytes
        self._doubt_seconds = doubt_seconds
        self._goal: bytes | None = None
        self._base_roots: set[bytes | None] = {None}
        self._base = WorkQueue(max_key_bytes)
        # By the goal that was left, the oldest first.
        self._left: dict[bytes, WorkQueue] = {}
        self._doubted: list[Work] = []
        self._resting: list[Work] = []
        self._join_resting_at = _RESTING_PIECES
        # By the root that content is at: how many changes a share of the tree holds; by None, how many pairs.
        self._densities: dict[bytes | None, Density] = {}
        self._took_left = False

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._base or self._left or self._doubted)

    def pieces(self) -> list[Work]:
        """Return everything, ascending."""
        left = [work for queue in self._left.values() for work in queue.pieces()]
        return sorted(self._base.pieces() + left + self._doubted + self._resting, key=start_of)

    def is_base(self, work: Work) -> bool:
        """Whether work is as the sync found it."""
        return work.root in self._base_roots

    def next_doubt_end(self, now: float) -> float:
        """Return when the next piece of doubted work becomes work for everybody; infinity for never."""
        ends = (work.doubt.since + self._doubt_seconds for work in self._doubted if work.doubt is not None)
        return min((end for end in ends if end > now), default=float("inf"))

    # Filling.

    def begin(self, pieces: Iterable[Work]) -> None:
        """Forget everything, and begin with other pieces, all as the sync finds them."""
        self.clear()
        pieces = list(pieces)
        self._base_roots = {None, *(work.root for work in pieces)}
        self.put(pieces)

    def set_goal(self, goal: bytes) -> None:
        """Sort everything again for another goal."""
        self._goal = goal
        moved = self._left.pop(goal).take_all() if goal in self._left else []
        moved += self._base.take_all()
        moved += join_neighbours(sorted(self._resting, key=start_of), self._max_key_bytes)
        self._resting = []
        self.put(moved)
        kept = {None, *(work.root for work in moved), *self._left}
        self._densities = {root: density for root, density in self._densities.items() if root in kept}

    def put(self, pieces: Iterable[Work]) -> None:
        """Add pieces that overlap neither each other nor what is here."""
        for work in pieces:
            if work.doubt is not None:
                self._doubted.append(work)
            elif work.root is not None and work.root == self._goal:
                self._rest(work)
            elif work.root is None or self.is_base(work):
                self._base.put([work])
            else:
                self._left.setdefault(work.root, WorkQueue(self._max_key_bytes)).put([work])

    def _rest(self, work: Work) -> None:
        self._resting.append(work)
        if len(self._resting) >= self._join_resting_at:
            self._resting = join_neighbours(sorted(self._resting, key=start_of), self._max_key_bytes)
            self._join_resting_at = len(self._resting) + _RESTING_PIECES

    def clear(self) -> list[Work]:
        """Remove and return everything, ascending."""
        pieces = self.pieces()
        self._base.take_all()
        self._left.clear()
        self._doubted.clear()
        self._resting.clear()
        return pieces

    # Taking.

    def take(self, peer: Hashable, now: float, max_bytes: int) -> Work | None:
        """Remove and return what ``peer`` shall do next; None when there is nothing for it.

        Args:
            peer: Who will be asked.
            now: The time, in seconds.
            max_bytes: Of a proof that it will be asked for.
        """
        doubted = self._take_doubted(peer, now)
        if doubted is not None:
            return doubted
        self._took_left = bool(self._left) and not (self._took_left and self._base)
        if self._took_left:
            return self._take_left(max_bytes)
        return self._take_from(self._base, max_bytes) if self._base else None

    def _take_doubted(self, peer: Hashable, now: float) -> Work | None:
        for index, work in enumerate(self._doubted):
            assert work.doubt is not None
            if work.doubt.peer != peer or now >= work.doubt.since + self._doubt_seconds:
                return self._doubted.pop(index)
        return None

    def _take_left(self, max_bytes: int) -> Work:
        root, queue = next(iter(self._left.items()))
        work = self._take_from(queue, max_bytes)
        if not queue:
            del self._left[root]
        return work

    def _take_from(self, queue: WorkQueue, max_bytes: int) -> Work:
        density = self._densities.get(queue.first.root)
        return queue.take(density.share_of(_PLANNED_FILLING, max_bytes) if density is not None else 0.0)

    def learn(self, root: bytes | None, filling: float, byte_count: int, share: float) -> None:
        """Note how full a proof was of a share of what is at ``root``, and how many bytes it had."""
        self._densities.setdefault(root, Density()).add(filling, byte_count, share)
