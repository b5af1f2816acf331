"""One connection to one peer: several requests in flight on a trio stream, matched to their answers.

The rules of the conversation are ``syncproto.Connection``'s; this module moves the bytes, keeps the time, and
turns whatever goes wrong into a ``PeerError``.  It knows nothing of proofs: they are bytes here.

Invariants:

- One task reads and one task writes, so no request that is cancelled leaves half a frame on the stream.
- A request that nobody waits for any more was cancelled with the peer; its late answer is dropped.
- The first failure is final: every request, waiting or new, raises it.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

import trio

from manager.errors import (
    ConnectionLost,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    RequestTimeout,
    RootUnavailable,
    SchemeDiffers,
    reason_of,
)
from manager.limits import Limits
from manager.peers.throughput import ThroughputEstimator
from merkledb import Scheme
from syncproto import (
    Allowance,
    Cancel,
    Changes,
    Connection,
    Error,
    ErrorCode,
    GetChanges,
    GetRange,
    Goodbye,
    Head,
    Hello,
    LocalProtocolError,
    Message,
    Ping,
    Pong,
    Range,
    RemoteProtocolError,
    Role,
    Subscribe,
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
# Roots of a peer's past that are remembered as forgotten; without one of them, it is asked once more in vain.
MAX_FORGOTTEN_ROOTS: Final = 256

ProofAnswer = Range | Changes | Error


class _Pending:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.asked = trio.current_time()
        self.answered = trio.Event()
        self.answer: ProofAnswer | PeerError | None = None

    def resolve(self, answer: ProofAnswer | PeerError) -> None:
        """Let the one who waits have the answer, or what came instead."""
        self.answer = answer
        self.answered.set()


class PeerClient:
    """The client's side of one connection.

    Args:
        stream: An open stream; ``run`` closes it.
        hello: What we say first.
        scheme: The scheme that the peer must serve.
        limits: How long it may take.

    Attributes:
        forgotten_roots: Roots from which the peer has no changes any more.
        empty_answers: Change proofs in a row that changed nothing and ended early.
        throughput: What the way to the peer carries.
        large_value: Held by the one request for a large pair that the connection may have.
        peer_hello: What the peer said first; None before that.
        useful_requests: How many requests in flight keep the way to the peer full, as far as it takes them.
        closing: Set when the peer takes no more requests: it said goodbye, or the connection failed.
        failure: Why the connection is over; None while it is not.
    """

    def __init__(self, stream: trio.abc.Stream, hello: Hello, scheme: Scheme, limits: Limits) -> None:
        self._stream = stream
        self._scheme = scheme
        self._limits = limits
        self._received_bytes = 0
        self._connection = Connection(Role.CLIENT, hello)
        self._pending: dict[int, _Pending] = {}
        self._outbox, self._frames = trio.open_memory_channel[bytes](OUTBOX_FRAMES)
        self._greeted = trio.Event()
        self._sent_all = trio.Event()
        self._allowance = Allowance()
        # What one step of the reading task gathers.
        self._newest_head: Head | None = None
        self._pongs = bytearray()
        self._heard: Callable[[Head], None] = _ignore
        self._first_head = trio.Event()
        self.forgotten_roots: set[bytes] = set()
        self.empty_answers = 0
        self.throughput = ThroughputEstimator(limits)
        self.large_value = trio.Lock()
        self.closing = trio.Event()
        self.failure: PeerError | None = None
        self.peer_hello: Hello | None = None
        self.useful_requests = 0

    @property
    def requests_in_flight(self) -> int:
        """How many requests somebody waits for."""
        return len(self._pending)

    # The life of a connection.

    async def run(self) -> None:
        """Say hello, then move bytes until the connection fails, or for ever; close the stream at the end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_alive)
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
        """Say goodbye, if that takes no time; nothing can be asked afterwards."""
        self.closing.set()
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
        for pending in self._pending.values():
            pending.resolve(self.failure)
        self._greeted.set()
        self._first_head.set()
        self.closing.set()

    # Requests.

    async def ask(
        self,
        root: bytes,
        start: bytes | None,
        end: bytes | None,
        *,
        max_keys: int,
        max_bytes: int,
        old_root: bytes | None = None,
    ) -> Range | Changes:
        """Ask for a proof, and return it as it came: encoded and not verified.

        Cancelled, it cancels the request with the peer.

        Args:
            root: At which root.
            start: The first key wanted; None from the first.
            end: The last key wanted; None up to the last.
            max_keys: Pairs, or changed keys, wanted at most.
            max_bytes: Bytes of the encoded proof at most.
            old_root: From which root changes are wanted; None where a range is wanted.

        Returns:
            A range proof where no changes were asked for; else a change proof, or the range proof that a peer
            sends that does not have ``old_root`` any more.

        Raises:
            PeerError: ConnectionLost, RequestTimeout, PeerMisbehaved, PeerRefused, or RootUnavailable.
        """
        request_id = self._connection.next_request_id()
        answer = await self._ask(
            GetRange(request_id, root, start, end, max_keys, max_bytes)
            if old_root is None
            else GetChanges(request_id, old_root, root, start, end, max_keys, max_bytes)
        )
        if isinstance(answer, Error) or (old_root is None and isinstance(answer, Changes)):
            raise self._refusal(answer, root)
        return answer

    def forget_root(self, root: bytes) -> None:
        """Note that the peer has sent a range where changes from ``root`` were asked for."""
        if len(self.forgotten_roots) >= MAX_FORGOTTEN_ROOTS:
            self.forgotten_roots.clear()
        self.forgotten_roots.add(root)

    async def subscribe(self, heard: Callable[[Head], None]) -> None:
        """Ask for the peer's head, now and whenever it changes; return when the first has come.

        Args:
            heard: Called with every head, as long as the connection lasts; the peer may send none for days.

        Raises:
            PeerError: ConnectionLost, or RequestTimeout.
        """
        self._heard = heard
        try:
            self._post(self._connection.send(Subscribe(self._connection.next_request_id())))
        except LocalProtocolError as error:
            raise ConnectionLost(f"it takes no subscription: {error}") from error
        with trio.move_on_after(self._limits.request_timeout_seconds) as waiting:
            await self._first_head.wait()
        if waiting.cancelled_caught:
            raise RequestTimeout(self._limits.request_timeout_seconds)

    async def _ask(self, request: GetRange | GetChanges) -> ProofAnswer:
        """Send a request and wait for its answer."""
        if self.failure is not None:
            raise self.failure
        if self.closing.is_set():
            raise ConnectionLost("it takes no more requests, for it is shutting down")
        try:
            frame = self._connection.send(request)
        except LocalProtocolError as error:
            raise ConnectionLost(f"it takes no more requests: {error}") from error
        pending = self._pending[request.request_id] = _Pending()
        self._post(frame)
        try:
            await self._wait_for(pending)
        finally:
            del self._pending[request.request_id]
            self._cancel(request.request_id)
        if pending.answer is None:
            self.throughput.time_out()
            self._adapt()
            raise RequestTimeout(self._limits.request_timeout_seconds)
        if isinstance(pending.answer, PeerError):
            raise pending.answer
        return pending.answer

    async def _wait_for(self, pending: _Pending) -> None:
        """Wait for an answer, as long as the peer is fast enough.

        The bytes of a large answer get the time that the slowest useful peer needs for them, but only once
        they have come: silence is not waited for any longer because much was asked for.
        """
        began, received = trio.current_time(), self._received_bytes
        while not pending.answered.is_set():
            seconds = (self._received_bytes - received) / self._limits.min_bytes_per_second
            deadline = began + self._limits.request_timeout_seconds + seconds
            if deadline <= trio.current_time():
                return
            with trio.move_on_at(deadline):
                await pending.answered.wait()

    def _refusal(self, answer: Error | Changes, root: bytes) -> PeerError:
        """Return what an error means, in answer to a request for what is at ``root``."""
        if isinstance(answer, Changes):
            return PeerMisbehaved("it sent changes where a range was asked for")
        if answer.code in (ErrorCode.UNKNOWN_ROOT, ErrorCode.HISTORY_GONE):
            return RootUnavailable(root, answer.code, answer.message)
        if answer.code is ErrorCode.SHUTTING_DOWN:
            self.closing.set()
        return PeerRefused(answer.code, answer.message, answer.detail)

    def _cancel(self, request_id: int) -> None:
        """Tell the peer that an answer is not wanted any more, if it did not come."""
        if self.failure is None and self._connection.is_in_flight(request_id):
            self._post(self._connection.send(Cancel(request_id)))

    # Bytes.

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
            if self._pending or self.closing.is_set() or self._connection.peer is None:
                continue
            try:
                self._post(self._connection.send(Ping(number)))
            except LocalProtocolError:
                self.fail(ConnectionLost("it answers no ping"))

    async def _read(self) -> None:
        """Handle what comes, until the connection is over; ``failure`` then says why."""
        try:
            while self.failure is None and (data := await self._receive()):
                self._received_bytes += len(data)
                self.throughput.receive(len(data), trio.current_time())
                await self._take_in(data)
            self._connection.receive_end()
        except TruncatedStream as error:
            self.fail(ConnectionLost(str(error)))
        except RemoteProtocolError as error:
            self.fail(PeerMisbehaved(str(error)))
        except ConnectionLost as error:
            self.fail(error)
        else:
            self.fail(ConnectionLost("it closed the connection"))

    async def _receive(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(RECEIVE_BYTES)
        except Exception as error:
            raise _broken(error) from error

    async def _take_in(self, data: bytes | bytearray) -> None:
        """Handle the messages that some bytes complete, few in a step; of heads that come together, the last.

        Raises:
            RemoteProtocolError: The peer broke a rule; what came before was handled.
        """
        try:
            for number, message in enumerate(self._connection.receive_data(data), start=1):
                if isinstance(message, Head | Ping):
                    self._allowance.spend(trio.current_time())
                self._handle(message)
                if number % MESSAGES_PER_STEP == 0:
                    self._end_step()
                    await trio.lowlevel.checkpoint()
        finally:
            self._end_step()

    def _end_step(self) -> None:
        """Tell of the newest head that came in this step, and answer its pings with one piece of bytes."""
        if self._newest_head is not None:
            head, self._newest_head = self._newest_head, None
            self._first_head.set()
            self._heard(head)
        if self._pongs:
            self._post(bytes(self._pongs))
            self._pongs.clear()

    def _handle(self, message: Message) -> None:
        self._note(message)
        match message:
            case Hello():
                self._greet(message)
            case Error(request_id=0):
                self.fail(PeerRefused(message.code, message.message, message.detail))
            case Range() | Changes() | Error() if message.request_id in self._pending:
                self._pending[message.request_id].resolve(message)
            case Head():
                self._newest_head = message
            case Error():
                # Only answers that somebody waits for come through: this one ends the subscription.
                self.fail(PeerRefused(message.code, message.message, message.detail))
            case Ping():
                self._pongs += self._connection.send(Pong(message.request_id))
            case Goodbye():
                self.closing.set()
            case _:
                pass  # A pong: that it came is all that it says.

    def _note(self, message: Message) -> None:
        """Let a message say what it can of the way that it came."""
        pending = self._pending.get(message.request_id) if isinstance(message, Range | Changes) else None
        if pending is None:
            self.throughput.pass_over()
        else:
            self.throughput.answer(pending.asked, trio.current_time())
            self._adapt()

    def _adapt(self) -> None:
        """Have as many requests in flight as the way has use for by now."""
        if self.peer_hello is not None:
            self.useful_requests = min(self.throughput.requests, self.peer_hello.max_requests)

    def _greet(self, hello: Hello) -> None:
        self.peer_hello = hello
        self._adapt()
        if (hello.hasher, hello.branch_factor) != (self._scheme.hasher, self._scheme.branch_factor):
            self.fail(SchemeDiffers(self._scheme, hello.hasher, hello.branch_factor))
        elif not hello.max_requests:
            self.fail(PeerMisbehaved("it serves nothing: check that the address is that of a server"))
        self._greeted.set()


def _broken(error: Exception) -> ConnectionLost:
    """Return what it means that a stream raised an error."""
    return ConnectionLost(f"the connection broke: {reason_of(error)}")


def _ignore(head: Head) -> None:
    """Hear a head that nobody asked for: the connection lets none through."""
