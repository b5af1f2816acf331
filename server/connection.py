"""One client, from its first byte to its last: its tasks and the rules between them.

::

    stream -> receive -> requests (at most max_requests) -> answer -> send -> stream
                 |                                                     ^
                 +----------------- pongs, refusals -------------------+
                 +--- subscription (one message) ---> announce --------+

- *receive* reads messages and puts requests in order.  What it refuses or echoes it hands to *send* itself,
  and waits until that takes it: a client that does not read is not read from either.
- *answer* takes one request at a time, has a thread make the frame, and hands it to *send*, see ``answerer``.
- *announce*, while the client is subscribed, hands over the subscription whenever ``head_notifier`` has put
  something there, see ``_Announcer``.
- *send* is alone in writing to the stream, see ``sender``.

Invariant: these tasks run in one event loop and touch the ``Connection`` between checkpoints only.

A connection ends when the client has left and everything is answered; with a last word, for the client's
misbehaviour, its silence, or our shutdown; or when the stream breaks.  Nothing that a client does raises an
error here.
"""

import math
from itertools import count

import trio

from server.answerer import Answerer, overloaded
from server.closing import linger
from server.handlers import refusal, sendable
from server.head_notifier import Subscription
from server.limits import LINGER_SECONDS, RECEIVE_BYTES
from server.sender import Outgoing, Sender
from server.services import Services
from syncproto import (
    Allowance,
    Cancel,
    Connection,
    Error,
    ErrorCode,
    Frame,
    Goodbye,
    Hello,
    LocalProtocolError,
    Message,
    Ping,
    Pong,
    RemoteProtocolError,
    Request,
    Role,
    State,
    Subscribe,
    TruncatedStream,
)


class ClientConnection:
    """Talks with one client.

    Args:
        stream: To the client; closed at the end.
        hello: What we say first.
        services: What is shared with other connections.
        heard: What was received before, while the client waited for a place.
        hello_was_said: Whether our hello was sent before, while the client waited for a place.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        hello: Hello,
        services: Services,
        heard: bytes = b"",
        *,
        hello_was_said: bool = False,
    ) -> None:
        self._stream = stream
        self._heard = heard
        self._hello_was_said = hello_was_said
        self._services = services
        self._limits = services.limits
        self._counters = services.counters
        self._connection = Connection(Role.SERVER, hello)
        self._allowance = Allowance()
        self._leaving = trio.Event()
        self._last_word: Error | None = None
        self._silence = trio.CancelScope()
        self._whole = trio.CancelScope()
        self._last_work = trio.current_time()
        self._sender = Sender(stream, self._connection, self._counters, self._limits, self._note_sent)
        self._answerer = Answerer(self._connection, self._sender, services)
        self._announcer = _Announcer(self._connection, self._sender, services)

    def leave(self) -> None:
        """Begin the end: say goodbye, answer what is in flight, refuse what still comes, and close."""
        self._leaving.set()

    def displace(self, sentence: str) -> None:
        """Begin the end, as another client needs the place: answer what is in flight, say why, and close."""
        self._last_word = Error(0, ErrorCode.OVERLOADED, sentence, self._limits.retry_after_milliseconds)
        self._whole.deadline = trio.current_time() + self._limits.leave_seconds
        self._leaving.set()

    async def run(self) -> None:
        """Talk until the connection ends, and close the stream.

        A cancellation cuts the client off without a word, after the thread that may be making an answer.
        Either way, the stream is closed afterwards, and nothing of the shared memory is kept.
        """
        try:
            with self._whole:
                await self._talk()
        finally:
            self._answerer.close()

    @property
    def has_greeted(self) -> bool:
        """Whether the client has said hello, or broken a rule instead."""
        return self._connection.their_state is not State.BEFORE_HELLO

    @property
    def has_large_proof(self) -> bool:
        """Whether a large pair is made for the client, or sent to it."""
        return self._answerer.has_large_proof

    @property
    def is_subscribed(self) -> bool:
        """Whether the client is told of new heads."""
        return self._connection.subscription is not None

    @property
    def idle_seconds(self) -> float:
        """For how long the client has asked nothing and waited for no answer."""
        return 0.0 if self.is_busy else trio.current_time() - self._last_work

    @property
    def is_busy(self) -> bool:
        """Whether the client waits for an answer, or is sent one."""
        return bool(self._connection.in_flight) or self._sender.answering

    def cut_off(self) -> None:
        """End at once, without a word."""
        self._whole.cancel()

    async def _talk(self) -> None:
        """Run the sender around everything that puts something, so that it ends last.

        The stream is closed at the end, also when cancelled, which may cut off a message.
        """
        async with self._stream:
            async with trio.open_nursery() as nursery:
                # Our hello counts as said before anything is received, for a request may follow the client's.
                hello = self._connection.send(self._connection.hello)
                if self._hello_was_said:
                    hello = b""
                nursery.start_soon(self._send_all, hello, nursery.cancel_scope)
                # The sender ends when nothing can be put any more and the last of it was sent.
                async with self._sender:
                    last_word = await self._converse()
                    if last_word is not None:
                        await self._sender.put(last_word)
            await linger(self._stream)

    async def _converse(self) -> Message | None:
        """Receive and answer until that ends; return our last word, if any.

        A cancellation takes effect after the thread that may be making an answer, and ends the subscription.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answerer.run)
                nursery.start_soon(self._announcer.run)
                nursery.start_soon(self._leave_when_told)
                last_word = await self._receive_all()
                # After its goodbye a client asks nothing more, and waits for what it has asked.
                if self._connection.their_state is State.LEAVING:
                    await self._answerer.wait_until_idle()
                nursery.cancel_scope.cancel()
        finally:
            self._announcer.unsubscribe()
        return last_word

    async def _leave_when_told(self) -> None:
        """Wait until the server wants the connection to end, answer the rest, and end the receiving.

        A cancellation leaves the receiving as it is; the caller cancels this when that has ended.
        """
        await self._leaving.wait()
        # A displaced client is told why at the very end, by the last word that the receiving returns.
        if self._last_word is not None:
            await self._answerer.wait_until_idle()
            self._silence.cancel()
            return
        await self._sender.put(Goodbye())
        await self._answerer.wait_until_idle()
        # Requests that crossed our goodbye are refused one by one, so that their client knows at once.
        await trio.sleep(LINGER_SECONDS)
        self._silence.cancel()

    # Receiving.

    async def _receive_all(self) -> Message | None:
        """Receive until the stream or the client's part ends; return our last word.

        A cancellation may come in the middle of what was received: nothing can be received afterwards.
        """
        self._silence.deadline = trio.current_time() + self._limits.hello_timeout_seconds
        try:
            with self._silence:
                return await self._receive_messages()
        except TruncatedStream:
            return None
        except RemoteProtocolError as error:
            self._counters.protocol_errors += 1
            return _last_error(ErrorCode.BAD_REQUEST, str(error))
        except trio.BrokenResourceError:
            return None
        if self._leaving.is_set():
            return self._last_word
        # Not we but the deadline ended the scope.  Silence may be the network's fault, also before the first
        # word, so it is no error of the client.
        self._counters.timeouts += 1
        return Goodbye()

    async def _receive_messages(self) -> Message | None:
        while data := self._take_heard() or await self._stream.receive_some(RECEIVE_BYTES):
            self._counters.bytes_received += len(data)
            for message in self._connection.receive_data(data):
                last_word = await self._receive(message)
                if last_word is not None or self._connection.their_state is not State.OPEN:
                    return last_word
                self._mind_silence()
        self._connection.receive_end()
        return None

    def _take_heard(self) -> bytes:
        heard, self._heard = self._heard, b""
        return heard

    def _mind_silence(self) -> None:
        """Give the client its time again, after a whole message of either side."""
        seconds = math.inf if self._connection.in_flight else self._limits.idle_timeout_seconds
        self._silence.deadline = trio.current_time() + seconds

    async def _receive(self, message: Message) -> Message | None:
        """Handle a message; return our last word where it ends the connection.

        It may wait until the sender takes an answer; cancelled meanwhile, that answer is not sent.
        """
        if isinstance(message, Request):
            await self._receive_request(message)
        elif isinstance(message, Cancel):
            # Of a request, the connection remembers it until that is answered.
            self._announcer.cancel(message.request_id)
        elif isinstance(message, Ping):
            self._allowance.spend(trio.current_time())
            await self._sender.put(Pong(message.request_id))
        elif isinstance(message, Hello):
            return _scheme_mismatch(self._connection.hello, message)
        return None

    async def _receive_request(self, request: Request) -> None:
        self._counters.requests += 1
        self._last_work = trio.current_time()
        if self._last_word is not None:
            await self._sender.put(overloaded(request, self._limits, self._last_word.message))
        elif self._leaving.is_set():
            sentence = "the server is shutting down: use another"
            await self._sender.put(refusal(request, ErrorCode.SHUTTING_DOWN, sentence))
        elif isinstance(request, Subscribe):
            self._announcer.subscribe(request)
        # The request is in flight already, so the one above the limit makes it more than the limit.
        elif self._connection.in_flight > self._limits.max_requests:
            sentence = f"more than {self._limits.max_requests} requests are in flight: wait for answers"
            await self._sender.put(overloaded(request, self._limits, sentence))
        else:
            self._answerer.put(request)

    # Sending.

    async def _send_all(self, hello: bytes, connection: trio.CancelScope) -> None:
        """Send until nothing more can come; end the connection when the client does not take it.

        A cancellation may leave a part of a message sent, see ``Sender.run``.
        """
        try:
            await self._sender.run(hello)
        except trio.TooSlowError:
            self._counters.timeouts += 1
        except trio.BrokenResourceError:
            pass
        except LocalProtocolError as error:
            self._services.report(error)
        else:
            return
        connection.cancel()

    def _note_sent(self, content: Outgoing) -> None:
        self._answerer.note_sent()
        if isinstance(content, Frame | Error):
            self._last_work = trio.current_time()
        # What we say unasked proves nothing of the client: it gets no more time for that.
        if not isinstance(content, Subscription | Ping):
            self._mind_silence()


class _Announcer:
    """Tells one client of new heads, while it is subscribed.

    Args:
        connection: Says whether a ping of ours has no pong yet.
        sender: Takes the subscription whenever something waits in it.
        services: What is shared with other connections.
    """

    def __init__(self, connection: Connection, sender: Sender, services: Services) -> None:
        self._connection = connection
        self._sender = sender
        self._heads = services.heads
        self._ping_seconds = services.limits.idle_timeout_seconds / 2
        self._subscription: Subscription | None = None
        # The next one may come when the end of the last one was sent, a little before its task has seen that.
        self._put, self._subscriptions = trio.open_memory_channel[Subscription](1)

    def subscribe(self, request: Subscribe) -> None:
        """Announce every head from now on, the one of this moment first."""
        self._subscription = Subscription(request.request_id)
        self._heads.add(self._subscription)
        self._put.send_nowait(self._subscription)

    def unsubscribe(self) -> None:
        """Let no more heads wait; nothing happens where the client is not subscribed."""
        if self._subscription is not None:
            self._heads.remove(self._subscription)

    def cancel(self, request_id: int) -> None:
        """End the subscription, if it has this id."""
        if self._subscription is not None and request_id == self._subscription.request_id:
            self.unsubscribe()
            self._subscription.end(ErrorCode.CANCELLED, "the subscription has ended")

    async def run(self) -> None:
        """Have what waits in one subscription after the other sent, until cancelled, in the event loop.

        The sender takes what is the newest when its turn comes, so nothing is queued here.  A cancellation
        leaves the subscription as it is; the caller then calls ``unsubscribe``.
        """
        async for subscription in self._subscriptions:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping_now_and_then)
                while not subscription.is_over:
                    await subscription.wait()
                    sent = await self._sender.put(subscription)
                    await sent.wait()
                nursery.cancel_scope.cancel()

    async def _ping_now_and_then(self) -> None:
        """Give a subscriber, which has nothing to say, the opportunity to show that it lives.

        A cancellation leaves no ping half sent: the sender has it, or it was not handed over.
        """
        for number in count(1):
            await trio.sleep(self._ping_seconds)
            if not self._connection.unanswered_pings:
                await self._sender.put(Ping(number))


def _last_error(code: ErrorCode, sentence: str) -> Error:
    return Error(0, code, sendable(sentence))


def _scheme_mismatch(ours: Hello, theirs: Hello) -> Error | None:
    """Return our last word to a client whose store has another scheme, None where both are the same."""
    if (theirs.hasher, theirs.branch_factor) == (ours.hasher, ours.branch_factor):
        return None
    sentence = (
        f"this server has {ours.hasher} with branch factor {ours.branch_factor}, "
        f"you {theirs.hasher} with branch factor {theirs.branch_factor}: use a store of that scheme"
    )
    return _last_error(ErrorCode.SCHEME_MISMATCH, sentence)
