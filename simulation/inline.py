"""Blocking work without threads: it takes virtual time, and happens at one moment of it.

What a thread does, the event loop sees at some moment between its beginning and its end, and knows of only
afterwards; so there is a wait before the work and a wait behind it.  As with threads, work that has begun is
waited for, also when cancelled.
"""

from collections.abc import Callable
from random import Random
from typing import TypeVar

import trio
from outcome import capture

from manager import SerialExecutor
from server import ThreadExecutor

Result = TypeVar("Result")


class Inline(ThreadExecutor, SerialExecutor):
    """The executor of a server, or of a manager.

    Args:
        random: Where the times come from.
        at_once: How much is worked on at a time.
        slowest_seconds: How long one piece of work takes at most, on either side of its moment.
    """

    def __init__(self, random: Random, at_once: int, slowest_seconds: float) -> None:
        super().__init__(at_once)
        self._random = random
        self._slowest_seconds = slowest_seconds

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work, and return what it returned or raise what it raised."""
        async with self._limiter:
            with trio.CancelScope(shield=True):
                await self._pass_time()
                outcome = capture(work)
                await self._pass_time()
            return outcome.unwrap()

    async def _pass_time(self) -> None:
        """Let some time pass: most often little, seldom as much as may be."""
        if self._slowest_seconds:
            await trio.sleep(self._slowest_seconds * self._random.random() ** 3)
        else:
            await trio.lowlevel.checkpoint()
