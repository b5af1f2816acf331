"""Closing a stream so that the last word arrives.

A close while bytes wait unread makes TCP reset the connection, and a reset destroys what the client has not
read.
"""

from collections import deque
from contextlib import suppress

import trio

from server.limits import LINGER_SECONDS, RECEIVE_BYTES
from syncproto import Error, encode


class Refusals:
    """Refuses connections, a limited number at a time: the oldest gives way to the newest.

    The oldest has been told why by then, unless clients come faster than the network takes a word.

    Args:
        max_refusals: At a time.
    """

    def __init__(self, max_refusals: int) -> None:
        self._max_refusals = max_refusals
        self._under_way: deque[trio.CancelScope] = deque()

    async def refuse(self, stream: trio.abc.Stream, error: Error) -> None:
        """Say an error as the last word of a connection, and close it, also when cancelled.

        It takes at most twice ``LINGER_SECONDS``, and less where newer refusals need the place.
        """
        if len(self._under_way) >= self._max_refusals:
            self._under_way.popleft().cancel()
        scope = trio.CancelScope()
        self._under_way.append(scope)
        try:
            with scope:
                await refuse(stream, error)
        finally:
            if scope in self._under_way:
                self._under_way.remove(scope)


async def refuse(stream: trio.abc.Stream, error: Error) -> None:
    """Say an error as the last word of a connection, and close it.

    It takes at most twice ``LINGER_SECONDS``.  A cancellation closes the stream at once.

    Args:
        stream: That was just accepted.
        error: For request id 0.
    """
    async with stream:
        with trio.move_on_after(LINGER_SECONDS) as patience, suppress(trio.BrokenResourceError):
            await stream.send_all(encode(error).data)
        if not patience.cancelled_caught:
            await linger(stream)


async def linger(stream: trio.abc.Stream) -> None:
    """Wait a moment for the client to close first, and throw away what it still sends.

    It takes at most ``LINGER_SECONDS``.  The stream is the caller's to close, also after a cancellation.
    """
    with trio.move_on_after(LINGER_SECONDS), suppress(trio.BrokenResourceError):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(RECEIVE_BYTES):
            pass
