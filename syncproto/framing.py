"""Bytes to frames: a buffer that knows how much may come before it takes any of it.

Feeding costs time linear in the bytes fed, whatever the pieces: a frame is looked at when it is complete, and
taking it off the front moves nothing.

Invariant: after a length that was refused, nothing is buffered.
"""

from typing import Final

from syncproto.codec import LENGTH, decode
from syncproto.errors import MalformedFrame, OversizedFrame
from syncproto.messages import Message

LENGTH_BYTES: Final = LENGTH.size


class FrameBuffer:
    """Collects bytes and yields the messages that are complete.

    It holds at most one unfinished frame and what was fed in the same call after it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes that were received."""
        self._buffer += data

    def clear(self) -> None:
        """Forget all bytes, as nothing after an error can be understood."""
        # A new buffer, not a shorter one: the error's traceback may hold slices of the old one, and while it
        # does, that cannot be resized.
        self._buffer = bytearray()

    def next_message(self, limit_bytes: int) -> Message | None:
        """Take the next message off the buffer.

        Args:
            limit_bytes: The longest frame that may come now, without its four bytes of length.

        Returns:
            None where the frame is not complete.

        Raises:
            OversizedFrame: The length is above the limit.
            RemoteProtocolError: As ``codec.decode``.
        """
        buffer = self._buffer
        if len(buffer) < LENGTH_BYTES:
            return None
        (length,) = LENGTH.unpack_from(buffer)
        if length > limit_bytes:
            raise OversizedFrame(length, limit_bytes)
        if length == 0:
            raise MalformedFrame("an empty frame")
        stop = LENGTH_BYTES + length
        if len(buffer) < stop:
            return None
        with memoryview(buffer) as whole, whole[LENGTH_BYTES:stop] as payload:
            message = decode(payload)
        del buffer[:stop]
        return message
