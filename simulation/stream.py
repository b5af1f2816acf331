"""Streams of a network that is slow, small, and breaks: two pipes, each with a window and a clock.

A pipe delivers bytes in order, each piece at its own time: when the bytes before it are through, and the
delay has passed.  The sender waits while the window is full.  What goes wrong was decided when the connection
was made (see ``Fate``), at a number of bytes, so that it happens anywhere: between two frames, within the
length of one, within a proof.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

import trio

# A frame that is shorter than this carries no proof.
SHORT_FRAME_BYTES: Final = 300


class Line(NamedTuple):
    """What a pipe is made of.

    Attributes:
        delay_seconds: That every piece takes.
        jitter_seconds: That a piece takes more, at most.
        bytes_per_second: Its width.
        window_bytes: How much may be under way.
    """

    delay_seconds: float
    jitter_seconds: float
    bytes_per_second: float
    window_bytes: int


class Fate(NamedTuple):
    """What goes wrong with one direction of a connection; None: nothing does.

    Attributes:
        cut_at: Behind so many bytes the connection breaks, on both sides.
        end_at: Behind so many bytes it ends as if the sender had closed it.
        corrupt_at: Behind so many bytes one byte arrives as another.
        stall_at: Behind so many bytes nothing arrives for ``stall_seconds``.
        stall_seconds: See there.
        spare_short_frames: Whether a frame without a proof is never corrupted: nothing but a proof protects
            the head that a peer announces, so who trusts its peers must have a line that keeps their words.
    """

    cut_at: int | None = None
    end_at: int | None = None
    corrupt_at: int | None = None
    stall_at: int | None = None
    stall_seconds: float = 0.0
    spare_short_frames: bool = False


class Pipe:
    """One direction of a connection.

    Args:
        line: What it is made of.
        fate: What goes wrong.
        random: Where chances come from.
        harmed: Called with a word when something goes wrong.

    Attributes:
        blocked_until: Before this time nothing arrives, for the network is parted.
    """

    def __init__(self, line: Line, fate: Fate, random: Random, harmed: Callable[[str], None]) -> None:
        self.line = line
        self.fate = fate
        self.blocked_until = 0.0
        self.is_broken = False
        self.is_swallowing = False
        self._random = random
        self._harmed = harmed
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._ended = False
        self._under_way = 0
        self._sent = 0
        self._free_at = 0.0
        self._changed = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Let both sides look again."""
        self._changed.unpark_all()

    def shatter(self) -> None:
        """Break it: what is under way is lost."""
        self.is_broken = True
        self._pieces.clear()
        self._under_way = 0
        self.wake()

    def end(self) -> None:
        """Send no more: the reader gets what is under way, and then the end."""
        self._ended = True
        self.wake()

    async def send(self, data: bytes) -> bool:
        """Send all of ``data``; return False where the connection has to break behind it."""
        data = self._corrupt(bytes(data))
        view = memoryview(data)
        while view:
            await self._wait_for_room()
            if self.is_broken:
                raise trio.BrokenResourceError("the connection is broken")
            if self.is_swallowing:
                return True
            if self._ended:
                raise trio.BrokenResourceError("the other side has closed")
            piece = view[: self.line.window_bytes - self._under_way]
            view = view[len(piece) :]
            if not self._put(bytes(piece)):
                return False
        return True

    async def _wait_for_room(self) -> None:
        while self._under_way >= self.line.window_bytes and not self._is_over:
            await self._changed.park()

    @property
    def _is_over(self) -> bool:
        """Whether no room is needed any more."""
        return self.is_broken or self._ended or self.is_swallowing

    def _corrupt(self, data: bytes) -> bytes:
        at = self.fate.corrupt_at
        has_grace = self.fate.spare_short_frames and len(data) < SHORT_FRAME_BYTES
        if at is None or self._sent + len(data) <= at or has_grace:
            return data
        self.fate = self.fate._replace(corrupt_at=None)
        self._harmed("corrupted")
        where = self._random.randrange(len(data))
        changed = data[where] ^ (1 << self._random.randrange(8))
        return data[:where] + bytes([changed]) + data[where + 1 :]

    def _put(self, piece: bytes) -> bool:
        """Put a piece under way; return False where the connection breaks behind it."""
        cut_at = self._first_end()
        whole = cut_at is None or self._sent + len(piece) <= cut_at
        if cut_at is not None and not whole:
            piece = piece[: max(cut_at - self._sent, 0)]
        self._sent += len(piece)
        if piece:
            self._under_way += len(piece)
            self._pieces.append((self._arrival(len(piece)), piece))
        self.wake()
        if not whole:
            self._harmed("cut" if self.fate.cut_at is not None else "ended early")
        if not whole and self.fate.cut_at is None:
            self.end()
            return True
        return whole

    def _first_end(self) -> int | None:
        return self.fate.cut_at if self.fate.cut_at is not None else self.fate.end_at

    def _arrival(self, length: int) -> float:
        """Return when a piece arrives that is sent now."""
        now = trio.current_time()
        self._free_at = max(self._free_at, now) + length / self.line.bytes_per_second
        if self.fate.stall_at is not None and self._sent > self.fate.stall_at:
            self._free_at += self.fate.stall_seconds
            self._harmed("stalled")
            self.fate = self.fate._replace(stall_at=None)
        delay = self.line.delay_seconds + self.line.jitter_seconds * self._random.random()
        last = self._pieces[-1][0] if self._pieces else 0.0
        return max(self._free_at + delay, last)

    async def receive(self, max_bytes: int) -> bytes:
        """Wait for bytes and return some of them; none at the end."""
        while True:
            if self.is_broken:
                raise trio.BrokenResourceError("the connection was reset")
            due = max(self._pieces[0][0], self.blocked_until) if self._pieces else float("inf")
            if due <= trio.current_time():
                return self._take(max_bytes)
            if self._ended and not self._pieces and not self.is_swallowing:
                return b""
            with trio.move_on_at(due):
                await self._changed.park()

    def _take(self, max_bytes: int) -> bytes:
        arrival, piece = self._pieces.popleft()
        # A read may return less than there is, wherever a packet ends.
        length = min(max_bytes, len(piece))
        if length > 1 and self._random.random() < 0.1:
            length = self._random.randrange(1, length)
        if length < len(piece):
            self._pieces.appendleft((arrival, piece[length:]))
        self._under_way -= length
        self.wake()
        return piece[:length]


class Connection:
    """Two pipes between two nodes.

    Args:
        name: For the log.
        client: The node that dialled.
        server: The node that was dialled.
        up: From the client to the server.
        down: From the server to the client.
    """

    def __init__(self, name: str, client: str, server: str, up: Pipe, down: Pipe) -> None:
        self.name = name
        self.client = client
        self.server = server
        self.up = up
        self.down = down
        self.open_sides = 2

    def reset(self) -> None:
        """Break it on both sides."""
        self.up.shatter()
        self.down.shatter()

    def swallow(self) -> None:
        """Let nothing arrive any more, and nobody know: one side has no power."""
        for pipe in (self.up, self.down):
            pipe.is_swallowing = True
            pipe.blocked_until = float("inf")
            pipe.wake()

    def block(self, until: float) -> None:
        """Let nothing arrive before a time."""
        for pipe in (self.up, self.down):
            pipe.blocked_until = max(pipe.blocked_until, until)
            pipe.wake()

    def calm(self) -> None:
        """Let nothing go wrong any more that has not gone wrong yet, and heal what parts the network."""
        for pipe in (self.up, self.down):
            pipe.fate = Fate()
            if not pipe.is_swallowing:
                pipe.blocked_until = 0.0
            pipe.wake()

    def streams(self) -> tuple["SimulatedStream", "SimulatedStream"]:
        """Return the client's stream and the server's."""
        return SimulatedStream(self, self.up, self.down), SimulatedStream(self, self.down, self.up)


class SimulatedStream(trio.abc.HalfCloseableStream):
    """One side of a connection.

    Attributes:
        connection: Which.
        client: The node that connected.
    """

    def __init__(self, connection: Connection, outgoing: Pipe, incoming: Pipe) -> None:
        self.connection = connection
        self.client = connection.client
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; wait while too many are under way."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        if not await self._outgoing.send(bytes(data)):
            self.connection.reset()
            raise trio.BrokenResourceError("the connection was cut")
        self._require_open()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.checkpoint()
        self._require_open()

    async def send_eof(self) -> None:
        """Say that no more bytes follow."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        self._outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the bytes that arrive next; none at the end."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        data = await self._incoming.receive(max_bytes or 65_536)
        self._require_open()
        return data

    def _require_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed here")

    async def aclose(self) -> None:
        """Close this side: the other reads what is under way and then the end, and cannot send any more."""
        if not self._closed:
            self._closed = True
            self.connection.open_sides -= 1
            self._outgoing.end()
            # Who sends to a closed side finds the connection broken.
            self._incoming.end()
        await trio.lowlevel.checkpoint()
