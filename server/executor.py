"""Where blocking work runs: threads in production, or what a test or a simulation puts in their place."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

Result = TypeVar("Result")


class Workers(Protocol):
    """Runs blocking work without blocking the event loop."""

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work and return what it returned, or raise what it raised."""


class ThreadExecutor:
    """Workers that are threads, taken in the order in which tasks ask.

    Each connection asks for one at a time, so that connections take turns, however much one of them asks.

    Args:
        max_threads: At work at a time.
    """

    def __init__(self, max_threads: int) -> None:
        self._limiter = trio.CapacityLimiter(max_threads)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work in a thread, and wait for it even when cancelled: the database may be closed next."""
        begun = False

        def begin() -> Result:
            nonlocal begun
            begun = True
            return work()

        try:
            return await trio.to_thread.run_sync(begin, limiter=self._limiter)
        except RuntimeError:
            if begun:
                raise
            # The system has no thread to give. The work blocks the event loop then, but it is done.
            return work()
