"""The only writer to a client's stream: takes messages one at a time, each within a time that it allows.

Nothing is queued here: a task that puts a message waits until it is taken, so a slow client slows it down.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Self, TypeAlias

import trio

from server.head_notifier import Subscription
from server.limits import MIN_SEND_BYTES_PER_SECOND, SEND_BYTES, ServerLimits
from server.services import Counters
from syncproto import RANGE_OVERHEAD_BYTES, Connection, Error, Frame, Head, Kind, Message, State

# A message, an answer in its frame, or a subscription, of which is sent what waits when its turn has come.
Outgoing: TypeAlias = Message | Frame | Subscription


# Around a proof: the length of the frame, and what stands before the proof in it.
FRAME_OVERHEAD_BYTES: Final = 4 + RANGE_OVERHEAD_BYTES


class _Outgoing(NamedTuple):
    """What is to be sent, and who waits until it is."""

    content: Outgoing
    sent: trio.Event
    on_sent: Callable[[], None]


class Sender:
    """Sends what the tasks of a connection put, in the order in which they put it.

    A context manager: at its end nothing more can be put, and ``run`` returns when it has sent the rest.

    Args:
        stream: To the client.
        connection: That checks and encodes what is sent.
        counters: Of the server.
        limits: How long the client may take.
        on_sent: Called with each content that was sent.

    Attributes:
        answering: Whether an answer is on its way to the client at this moment.
    """

    def __init__(
        self,
        stream: trio.abc.SendStream,
        connection: Connection,
        counters: Counters,
        limits: ServerLimits,
        on_sent: Callable[[Outgoing], None],
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._counters = counters
        self._limits = limits
        self._on_sent = on_sent
        self.answering = False
        self._put, self._parcels = trio.open_memory_channel[_Outgoing](0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._put.aclose()

    async def put(self, content: Outgoing, on_sent: Callable[[], None] = lambda: None) -> trio.Event:
        """Hand over what is to be sent, when its turn has come; return what is set when it is sent.

        Waits as long as the client takes what was put before.  A cancellation means that it was not handed
        over, and ``on_sent`` will not be called.

        Args:
            content: What is to be sent.
            on_sent: Called when it was sent and takes no memory any more.
        """
        parcel = _Outgoing(content, trio.Event(), on_sent)
        await self._put.send(parcel)
        return parcel.sent

    async def run(self, hello: bytes) -> None:
        """Send until no more can be put, in the event loop.

        A cancellation may leave a part of a message sent, so that nothing can be said any more: the caller
        closes the stream.

        Args:
            hello: The bytes that go first.

        Raises:
            trio.TooSlowError: The client does not take what is sent.
            trio.BrokenResourceError: The stream is closed.
            LocalProtocolError: A rule forbids what was put: our own mistake.
        """
        await self._send_bytes(hello)
        while True:
            try:
                await self._send_next()
            except trio.EndOfChannel:
                return

    async def _send_next(self) -> None:
        """Send what was put first; it takes no memory while the next is waited for, as this method ends.

        A cancellation may leave a part of it sent; ``on_sent`` is not called then.
        """
        content, sent, on_sent = await self._parcels.receive()
        data = self._bytes_of(content)
        self.answering = isinstance(content, Frame)
        if data is not None:
            await self._send_bytes(data)
        self.answering = False
        on_sent()
        sent.set()
        self._on_sent(content)

    async def _send_bytes(self, data: bytes) -> None:
        """Send bytes; a large answer a piece at a time, for others wait until the client has taken it.

        An ordinary one goes to the network as a whole: pieces would cost both sides some percent of a sync.
        A cancellation may leave a part of it sent.
        """
        limits = self._limits
        is_large = len(data) > limits.max_ordinary_bytes + FRAME_OVERHEAD_BYTES
        patience_seconds = (
            limits.large_timeout_seconds
            if is_large
            else max(limits.send_timeout_seconds, len(data) / MIN_SEND_BYTES_PER_SECOND)
        )
        whole, piece_bytes = memoryview(data), SEND_BYTES if is_large else len(data) or 1
        # Two limits: a client that takes a byte now and then keeps to the inner one, never to the outer one.
        with trio.fail_after(limits.send_timeout_seconds + len(data) / MIN_SEND_BYTES_PER_SECOND):
            for at in range(0, len(data), piece_bytes):
                with trio.fail_after(patience_seconds):
                    await self._stream.send_all(whole[at : at + piece_bytes])
        self._counters.bytes_sent += len(data)

    def _bytes_of(self, content: Outgoing) -> bytes | None:
        """Return the bytes to send, None where there are none or the client has ended the connection."""
        message = content.take() if isinstance(content, Subscription) else content
        last_word = isinstance(message, Error) and message.request_id == 0
        if message is None or (self._connection.their_state is State.ENDED and not last_word):
            return None
        self._count(message)
        if isinstance(message, Frame):
            return self._connection.send_frame(message)
        return self._connection.send(message)

    def _count(self, message: Message | Frame) -> None:
        if isinstance(message, Error):
            self._counters.refusals[message.code] += 1
        elif isinstance(message, Frame):
            self._counters.answers += 1
            self._counters.changes += message.kind is Kind.CHANGES
        elif isinstance(message, Head):
            # The head that was asked for is a frame: this one is announced.
            self._counters.announcements += 1
