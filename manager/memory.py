"""A budget of bytes: who wants memory waits in line until there is enough of it.

This is what bounds the memory of a sync.  Every request reserves room for the largest answer it may get,
gives back what the answer did not need, and the rest once the answer is applied.

Invariants: reservations are granted in the order they were asked for, so a large one is not starved by small
ones; one that is larger than the whole budget is granted when it is alone.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from manager.errors import Preempted


class ByteBudget:
    """Bytes to be reserved and released.

    Args:
        limit_bytes: How many may be reserved at one time.
        starving: Called when somebody has to wait, so that whoever holds memory back lets go of it.
    """

    def __init__(self, limit_bytes: int, starving: Callable[[], None]) -> None:
        self._limit = limit_bytes
        self._reserved = 0
        self._line: deque[tuple[int, trio.Event]] = deque()
        self._starving = starving

    @property
    def reserved_bytes(self) -> int:
        """How many bytes are reserved now."""
        return self._reserved

    @property
    def is_starving(self) -> bool:
        """Whether somebody waits for bytes."""
        return bool(self._line)

    async def reserve(self, count: int) -> None:
        """Wait until ``count`` bytes are free and take them.  Cancelled, it took nothing."""
        granted = trio.Event()
        place = (count, granted)
        self._line.append(place)
        self._grant()
        if not granted.is_set():
            self._starving()
        try:
            await granted.wait()
        except trio.Cancelled:
            self._leave(place)
            raise

    def release(self, count: int) -> None:
        """Give ``count`` reserved bytes back."""
        self._reserved -= count
        self._grant()

    def _grant(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            count, granted = self._line.popleft()
            self._reserved += count
            granted.set()

    def _fits(self, count: int) -> bool:
        return self._reserved == 0 or self._reserved + count <= self._limit

    def _leave(self, place: tuple[int, trio.Event]) -> None:
        count, granted = place
        if granted.is_set():
            self.release(count)
        else:
            self._line.remove(place)
            self._grant()


class LargeValueLane:
    """Who fetches a large pair, and who waits to.

    Args:
        patience_seconds: How long the first who waits does so before the one at work has to give way.
        starving: Called when somebody has to wait, so that whoever holds memory back lets go of it.

    Attributes:
        budget: The memory; whatever is reserved in it is granted alone.
    """

    def __init__(self, patience_seconds: float, starving: Callable[[], None]) -> None:
        self.budget = ByteBudget(1, self._somebody_waits)
        self._least_patience_seconds = self._patience_seconds = patience_seconds
        self._starving = starving
        self._turn: trio.CancelScope | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether somebody fetches a large pair at the moment, which may take long."""
        return self._turn is not None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Bound what is done inside, with memory reserved, once another peer waits for its turn.

        Raises:
            Preempted: What is done inside was cancelled.
        """
        with trio.CancelScope() as scope:
            self._turn = scope
            if self.budget.is_starving:
                self._end_soon(scope)
            try:
                yield
            finally:
                self._turn = None
        if scope.cancelled_caught:
            self._patience_seconds *= 2
            raise Preempted
        # So long a turn was not needed this time.
        self._patience_seconds = max(self._patience_seconds / 2, self._least_patience_seconds)

    def _somebody_waits(self) -> None:
        self._starving()
        if self._turn is not None:
            self._end_soon(self._turn)

    def _end_soon(self, scope: trio.CancelScope) -> None:
        scope.deadline = min(scope.deadline, trio.current_time() + self._patience_seconds)
