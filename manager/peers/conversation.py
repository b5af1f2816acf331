"""The life of one connection: bytes in and out, the greeting, signs of life, the goodbye, and why it is over.

The rules of the conversation are ``syncproto.Connection``'s; this module moves the bytes, keeps the time, and
turns whatever goes wrong into a ``PeerError``.  What is asked on a connection is for ``client``.

Invariants:

- One task reads and one task writes, so no request that is cancelled leaves half a frame on the stream.
- The first failure is final: every request, waiting or new, raises it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Final

import trio

from manager.errors import (
    ConnectionLost,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    SchemeDiffers,
    reason_of,
)
from manager.limits import Limits
from manager.peers.throughput import ThroughputEstimator
from merkledb import Scheme
from syncproto import (
    Allowance,
    Connection,
    Error,
    Goodbye,
    Head,
    Hello,
    LocalProtocolError,
    Message,
    Ping,
    Pong,
    RemoteProtocolError,
    Role,
    TruncatedStream,
)

# A proof comes in a few reads instead of some hundred: each read wakes a task and waits for the interpreter.
RECEIVE_BYTES: Final = 256 * 1024
# Control frames that may wait to be sent: two for each request in flight, and pongs.  A peer that reads so
# slowly that more pile up is as good as gone.
OUTBOX_FRAMES: Final = 256
# Taking leave is a courtesy, not worth a wait that anybody notices.
GOODBYE_SECONDS: Final = 0.5
# So many messages are decoded and handled in one step of the event loop: less than a millisecond's worth.
MESSAGES_PER_STEP: Final = 32
# Who refuses us may close before it has read what we sent, so that sending fails while its last word waits.
LAST_WORD_SECONDS: Final = 0.5


class Conversation(ABC):
    """One connection, from our hello to the goodbye; what it is for is a subclass's.

    Args:
        stream: An open stream; ``run`` closes it.
        hello: What we say first.
        scheme: The scheme that the peer must serve; None to say hello after it, in whatever scheme it serves,
            and to take it as it is, also where it serves nothing.
        limits: How long it may take.

    Attributes:
        throughput: What the way to the peer carries.
        peer_hello: What the peer said first; None before that.
        closing: Set when the peer takes no more requests: it said goodbye, or the connection failed.
        failure: Why the connection is over; None while it is not.
    """

    def __init__(self, stream: trio.abc.Stream, hello: Hello, scheme: Scheme | None, limits: Limits) -> None:
        self._stream = stream
        self._scheme = scheme
        self._limits = limits
        self._received_bytes = 0
        self._connection = Connection(Role.CLIENT, hello)
        self._outbox, self._frames = trio.open_memory_channel[bytes](OUTBOX_FRAMES)
        self._greeted = trio.Event()
        self._sent_all = trio.Event()
        self._allowance = Allowance()
        # What one step of the reading task gathers.
        self._pongs = bytearray()
        self.throughput = ThroughputEstimator(limits)
        self.closing = trio.Event()
        # What is done for requests to come, and is of no use once there will be none.
        self._until_closing: set[trio.CancelScope] = set()
        self.failure: PeerError | None = None
        self.peer_hello: Hello | None = None

    @property
    def has_answered(self) -> bool:
        """Whether anything came from the peer."""
        return self._received_bytes > 0

    @property
    @abstractmethod
    def requests_in_flight(self) -> int:
        """How many requests somebody waits for."""

    async def run(self) -> None:
        """Say hello, then move bytes until the connection fails, or for ever.

        However it ends, cancelled too, the stream is closed then, and whoever waits gets ``failure``.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_alive)
                if self._scheme is not None:
                    self._post(self._connection.send(self._connection.hello))
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.fail(ConnectionLost("the connection was closed"))
            # A transport may be anybody's; what it cannot close is of no more use anyway.
            with suppress(Exception):
                await trio.aclose_forcefully(self._stream)

    async def greeted(self) -> bool:
        """Wait for the peer's hello; return whether requests may follow, else ``failure`` says why not."""
        timeout = self._limits.connect_timeout_seconds
        with trio.move_on_after(timeout):
            await self._greeted.wait()
        if not self._greeted.is_set():
            self.fail(ConnectionLost(f"it said no hello within {timeout:.0f} seconds"))
        return self.failure is None

    async def leave(self) -> None:
        """Say goodbye, if that takes no time.  Afterwards, and once cancelled, nothing can be asked."""
        self._close()
        if self.failure is not None:
            return
        with trio.move_on_after(GOODBYE_SECONDS):
            self._post(self._connection.send(Goodbye()))
            self._outbox.close()
            await self._sent_all.wait()

    def fail(self, failure: PeerError) -> None:
        """End the connection: whoever waits, or asks from now on, gets the first failure there was."""
        if self.failure is None:
            self.failure = failure
        self._greeted.set()
        self._close()

    def _close(self) -> None:
        """Let nobody ask any more, nor wait for what is only needed to ask."""
        self.closing.set()
        for scope in self._until_closing:
            scope.cancel()

    @contextmanager
    def until_closing(self) -> Iterator[None]:
        """Do what is only needed to ask, such as waiting for memory, while the peer takes requests.

        Raises:
            PeerError: It takes none any more; what was done inside was cancelled then.
        """
        with trio.CancelScope() as scope:
            if self.closing.is_set():
                scope.cancel()
            self._until_closing.add(scope)
            try:
                yield
            finally:
                self._until_closing.remove(scope)
        if scope.cancelled_caught:
            raise self.failure or ConnectionLost("it takes no more requests, for it is shutting down")

    # Out.

    def _post(self, frame: bytes) -> None:
        """Hand a frame to the writing task; never waits, so that no cancellation can come between."""
        try:
            self._outbox.send_nowait(frame)
        except trio.WouldBlock:
            self.fail(ConnectionLost(f"it read none of the last {OUTBOX_FRAMES} frames"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # We said goodbye, or the connection just failed: nobody waits for this frame.
            return

    async def _write(self) -> None:
        try:
            async for frame in self._frames:
                await self._stream.send_all(frame)
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, it carries nothing any more
            self._sent_all.set()
            # The reading task says better why it is over, if the peer has said so.
            await trio.sleep(LAST_WORD_SECONDS)
            self.fail(_broken(error))
        finally:
            # Also when cancelled: a peer that closes as soon as it hears our goodbye ends this task with it.
            self._sent_all.set()

    async def _keep_alive(self) -> None:
        """Ping while nothing else is said: servers hang up on who is silent, and an idle line may be dead."""
        for number in count(1):
            await trio.sleep(self._limits.ping_seconds)
            if self.requests_in_flight or self.closing.is_set() or self._connection.peer is None:
                continue
            try:
                self._post(self._connection.send(Ping(number)))
            except LocalProtocolError:
                self.fail(ConnectionLost("it answers no ping"))

    # In.

    async def _read(self) -> None:
        """Handle what comes, until the connection is over; ``failure`` then says why."""
        try:
            while self.failure is None and (data := await self._receive()):
                self._received_bytes += len(data)
                self.throughput.receive(len(data), trio.current_time())
                await self._take_in(data)
            self._connection.receive_end()
        except TruncatedStream as error:
            self._fail_because(ConnectionLost, error)
        except RemoteProtocolError as error:
            self._fail_because(PeerMisbehaved, error)
        except ConnectionLost as error:
            self.fail(error)
        else:
            self.fail(ConnectionLost("it closed the connection"))

    def _fail_because(self, kind: Callable[[str], PeerError], error: RemoteProtocolError) -> None:
        """End the connection with a failure that names its cause."""
        failure = kind(str(error))
        # Without the traceback, which would keep the connection for as long as the failure is remembered.
        failure.__cause__ = error.with_traceback(None)
        self.fail(failure)

    async def _receive(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(RECEIVE_BYTES)
        except Exception as error:
            raise _broken(error) from error

    async def _take_in(self, data: bytes | bytearray) -> None:
        """Handle the messages that some bytes complete, few in a step.

        Raises:
            RemoteProtocolError: The peer broke a rule; what came before was handled.
        """
        try:
            for number, message in enumerate(self._connection.receive_data(data), start=1):
                if self.failure is not None:
                    # No message goes on with what the one before it, or a task between two steps, has ended.
                    return
                if isinstance(message, Head | Ping):
                    self._allowance.spend(trio.current_time())
                self._handle(message)
                if number % MESSAGES_PER_STEP == 0:
                    self._end_step()
                    await trio.lowlevel.checkpoint()
        finally:
            self._end_step()

    def _handle(self, message: Message) -> None:
        """Handle what is neither an answer nor a head."""
        match message:
            case Hello():
                self._greet(message)
            case Error():
                # Answers that somebody waits for are handled: this ends the connection, or the subscription.
                self.fail(PeerRefused(message.code, message.message, message.detail))
            case Ping():
                self._pongs += self._connection.send(Pong(message.request_id))
            case Goodbye():
                self._close()
            case _:
                pass  # A pong: that it came is all that it says.

    def _end_step(self) -> None:
        """Answer the pings that came in one step with one piece of bytes."""
        if self._pongs:
            self._post(bytes(self._pongs))
            self._pongs.clear()

    def _greet(self, hello: Hello) -> None:
        self.peer_hello = hello
        if self._scheme is None:
            ours = replace(self._connection.hello, hasher=hello.hasher, branch_factor=hello.branch_factor)
            self._post(self._connection.send(ours))
        elif (hello.hasher, hello.branch_factor) != (self._scheme.hasher, self._scheme.branch_factor):
            self.fail(SchemeDiffers(self._scheme, hello.hasher, hello.branch_factor))
        elif not hello.max_requests:
            self.fail(PeerMisbehaved("it serves nothing: check that the address is that of a server"))
        self._greeted.set()


def _broken(error: Exception) -> ConnectionLost:
    """Return what it means that a stream raised an error."""
    return ConnectionLost(f"the connection broke: {reason_of(error)}")
