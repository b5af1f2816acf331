"""A stream of values of which only the newest counts, for one consumer, however slow it is."""

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import trio

Latest = TypeVar("Latest")


class LatestValue(AsyncIterator[Latest], Generic[Latest]):
    """An async iterator of the newest value; what the consumer has no time for is left out.

    It ends when it is told to, after the last value was handed out.
    """

    def __init__(self) -> None:
        self._newest: list[Latest] = []
        self._ended = False
        self._changed = trio.Event()

    def put(self, value: Latest) -> None:
        """Replace what the consumer sees next."""
        self._newest = [value]
        self._changed.set()

    def end(self) -> None:
        """Let the consumer's loop end after the newest value."""
        self._ended = True
        self._changed.set()

    async def __anext__(self) -> Latest:
        await self._changed.wait()
        if not self._newest:
            raise StopAsyncIteration
        value = self._newest.pop()
        if not self._ended:
            self._changed = trio.Event()
        return value
