"""A budget of bytes: who wants memory waits in line until there is enough of it.

This is what bounds the memory of a sync.  Every request reserves room for the largest answer it may get,
gives back what the answer did not need, and the rest once the answer is applied.

Invariants: reservations are granted in the order they were asked for, so a large one is not starved by small
ones; one that is larger than the whole budget is granted when it is alone.
"""

from collections import deque
from collections.abc import Callable

import trio


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
