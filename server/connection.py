"""One client, from its first byte to its last: its tasks and the rules between them.

::

    stream -> receive -> requests (at most max_requests) -> answer -> send -> stream
                 |                                                     ^
                 +----------------- pongs, refusals -------------------+
                 +--- subscription (one message) ---> announce --------+

- *receive* reads messages and puts requests in order.  What it refuses or echoes it hands to *send* itself,
  and waits until that takes it: a client that does not read is not read from either.
- *answer* takes one request at a time, has a worker make the frame, and hands it to *send*.  So a connection
  holds at most two frames, one that is sent and one that waits, and asks for one worker at a time.
- *announce*, while the client is subscribed, hands over the subscription whenever the watcher of heads has
  put something there.
- *send* is alone in writing to the stream, see ``sender``.

The ``Connection`` is touched by these tasks between checkpoints only.

A conversation ends: when the client has left and everything is answered; with a last word, for its
misbehaviour, its silence, or our shutdown; or when the stream breaks.  It raises nothing for what the client
does.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import NamedTuple

import trio

from merkledb import Database
from server.budget import AnswerBudget, Reservation
from server.closing import linger
from server.counters import Counters
from server.handlers import Allowed, Answerable, Large, ThreadExecutor, answer, refusal, sendable
from server.head_notifier import HeadNotifier, Subscription
from server.limits import LINGER_SECONDS, RECEIVE_BYTES, ServerLimits
from server.sender import Outgoing, Sender
from syncproto import (
    Allowance,
    Cancel,
    Connection,
    Error,
    ErrorCode,
    Frame,
    GetChanges,
    GetHead,
    Goodbye,
    Hello,
    Kind,
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


class Services(NamedTuple):
    """What all conversations of a server share.

    Attributes:
        database: Which is served.
        limits: Of the server.
        counters: Of the server.
        executor: That read the database.
        heads: That watches for new ones.
        large_proofs: As many places as there may be large proofs at a time.
        budget: The memory of all other proofs.
        report: Called with every failure of our own.
    """

    database: Database
    limits: ServerLimits
    counters: Counters
    executor: ThreadExecutor
    heads: HeadNotifier
    large_proofs: trio.Semaphore
    budget: AnswerBudget
    report: Callable[[Exception], None]


class ClientConnection:
    """Talks with one client.

    Args:
        stream: To the client; closed at the end.
        hello: What we say first.
        services: What is shared with other conversations.

    Attributes:
        has_large_proof: Whether a large pair is made for the client, or sent to it.
    """

    def __init__(self, stream: trio.abc.Stream, hello: Hello, services: Services) -> None:
        self._stream = stream
        self._services = services
        self._limits = services.limits
        self._counters = services.counters
        self._connection = Connection(Role.SERVER, hello)
        self._account = services.budget.account()
        self._allowance = Allowance()
        self._leaving = trio.Event()
        self._last_word: Error | None = None
        self.has_large_proof = False
        self._answered = trio.Event()
        self._silence = trio.CancelScope()
        self._whole = trio.CancelScope()
        self._last_work = trio.current_time()
        self._subscription: Subscription | None = None
        # The next one may come when the end of the last one was sent, a little before its task has seen that.
        self._put_subscription, self._subscriptions = trio.open_memory_channel[Subscription](1)
        self._put_request, self._requests = trio.open_memory_channel[Answerable](self._limits.max_requests)
        self._sender = Sender(stream, self._connection, self._counters, self._limits, self._note_sent)

    def leave(self) -> None:
        """Begin the end: say goodbye, answer what is in flight, refuse what still comes, and close."""
        self._leaving.set()

    def displace(self, sentence: str) -> None:
        """Begin the end, as another client needs the place: answer what is in flight, say why, and close."""
        self._last_word = Error(0, ErrorCode.OVERLOADED, sentence, self._limits.retry_after_milliseconds)
        self._whole.deadline = trio.current_time() + self._limits.leave_seconds
        self._leaving.set()

    async def run(self) -> None:
        """Talk until the conversation ends, and close the stream."""
        try:
            with self._whole:
                await self._talk()
        finally:
            self._account.close()

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

    @property
    def has_grace(self) -> bool:
        """Whether the client has asked something too short a time ago to make room for another."""
        limits = self._limits
        grace_seconds = limits.subscriber_grace_seconds if self.is_subscribed else limits.grace_seconds
        return self.idle_seconds < grace_seconds

    def cut_off(self) -> None:
        """End at once, without a word."""
        self._whole.cancel()

    async def _talk(self) -> None:
        async with self._stream:
            async with trio.open_nursery() as nursery:
                # Our hello counts as said before anything is received, for a request may follow the client's.
                hello = self._connection.send(self._connection.hello)
                nursery.start_soon(self._send_all, hello, nursery.cancel_scope)
                # The sender ends when nobody can put anything any more, and has sent the last of it then.
                async with self._sender:
                    last_word = await self._converse()
                    if last_word is not None:
                        await self._sender.put(last_word)
            await linger(self._stream)

    async def _converse(self) -> Message | None:
        """Receive and answer until that ends; return our last word, if there is one to say."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer_all)
                nursery.start_soon(self._announce_all)
                nursery.start_soon(self._leave_when_told)
                last_word = await self._receive_all()
                if self._connection.their_state is State.LEAVING:
                    await self._wait_for_answers()
                nursery.cancel_scope.cancel()
        finally:
            self._unsubscribe()
        return last_word

    async def _wait_for_answers(self) -> None:
        """Wait until everything that was asked is answered."""
        while self._connection.in_flight:
            await self._answered.wait()

    async def _leave_when_told(self) -> None:
        await self._leaving.wait()
        if self._last_word is not None:
            await self._wait_for_answers()
            self._silence.cancel()
            return
        await self._sender.put(Goodbye())
        await self._wait_for_answers()
        # Requests that crossed our goodbye are refused one by one, so that their client knows at once.
        await trio.sleep(LINGER_SECONDS)
        self._silence.cancel()

    # Receiving.

    async def _receive_all(self) -> Message | None:
        """Receive until the stream or the client's part of the conversation ends; return our last word."""
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
        # Silence may be the network's fault, also before the first word, so it is no error of the client.
        self._counters.timeouts += 1
        return Goodbye()

    async def _receive_messages(self) -> Message | None:
        while data := await self._stream.receive_some(RECEIVE_BYTES):
            self._counters.bytes_received += len(data)
            for message in self._connection.receive_data(data):
                last_word = await self._receive(message)
                if last_word is not None or self._connection.their_state is not State.OPEN:
                    return last_word
                self._mind_silence()
        self._connection.receive_end()
        return None

    def _mind_silence(self) -> None:
        """Give the client its time again, after a whole message of either side."""
        seconds = math.inf if self._connection.in_flight else self._limits.idle_timeout_seconds
        self._silence.deadline = trio.current_time() + seconds

    async def _receive(self, message: Message) -> Message | None:
        """Handle a message; return our last word where it ends the conversation."""
        if isinstance(message, Request):
            await self._receive_request(message)
        elif isinstance(message, Cancel):
            self._receive_cancel(message)
        elif isinstance(message, Ping):
            self._allowance.spend(trio.current_time())
            await self._sender.put(Pong(message.request_id))
        elif isinstance(message, Hello):
            return self._check_scheme(message)
        return None

    def _check_scheme(self, theirs: Hello) -> Error | None:
        ours = self._connection.hello
        if (theirs.hasher, theirs.branch_factor) == (ours.hasher, ours.branch_factor):
            return None
        sentence = (
            f"this server has {ours.hasher} with branch factor {ours.branch_factor}, "
            f"you {theirs.hasher} with branch factor {theirs.branch_factor}: use a store of that scheme"
        )
        return _last_error(ErrorCode.SCHEME_MISMATCH, sentence)

    async def _receive_request(self, request: Request) -> None:
        self._counters.requests += 1
        self._last_work = trio.current_time()
        if self._last_word is not None:
            await self._sender.put(self._overloaded(request, self._last_word.message))
        elif self._leaving.is_set():
            sentence = "the server is shutting down: use another"
            await self._sender.put(refusal(request, ErrorCode.SHUTTING_DOWN, sentence))
        elif isinstance(request, Subscribe):
            self._subscribe(request)
        elif self._connection.in_flight > self._limits.max_requests:
            sentence = f"more than {self._limits.max_requests} requests are in flight: wait for answers"
            await self._sender.put(self._overloaded(request, sentence))
        else:
            self._put_request.send_nowait(request)

    def _receive_cancel(self, cancel: Cancel) -> None:
        # Of a request, the connection remembers it until that is answered.
        if self._subscription is not None and cancel.request_id == self._subscription.request_id:
            self._unsubscribe()
            self._subscription.end(ErrorCode.CANCELLED, "the subscription has ended")

    # Announcing.

    def _subscribe(self, request: Subscribe) -> None:
        self._subscription = Subscription(request.request_id)
        self._services.heads.add(self._subscription)
        self._put_subscription.send_nowait(self._subscription)

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._services.heads.remove(self._subscription)

    async def _announce_all(self) -> None:
        async for subscription in self._subscriptions:
            await self._announce(subscription)

    async def _announce(self, subscription: Subscription) -> None:
        """Have what waits in a subscription sent, until its end was sent."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ping_now_and_then)
            while not subscription.is_over:
                await subscription.wait()
                sent = await self._sender.put(subscription)
                await sent.wait()
            nursery.cancel_scope.cancel()

    async def _ping_now_and_then(self) -> None:
        """Give a subscriber, which has nothing to say, the opportunity to show that it lives."""
        for number in count(1):
            await trio.sleep(self._limits.idle_timeout_seconds / 2)
            if not self._connection.unanswered_pings:
                await self._sender.put(Ping(number))

    async def _answer_all(self) -> None:
        async for request in self._requests:
            await self._answer(request)

    async def _answer(self, request: Answerable) -> None:
        if not self._connection.is_in_flight(request.request_id):
            await self._sender.put(refusal(request, ErrorCode.CANCELLED, "cancelled before it was worked on"))
            return
        # A head is a few bytes.
        reservation = await self._reserve(0 if isinstance(request, GetHead) else request.max_bytes)
        outcome = await self._work(request, reservation.byte_count)
        if isinstance(outcome, Frame):
            reservation.shrink(min(len(outcome.data), reservation.byte_count))
            await self._sender.put(outcome, reservation.release)
            return
        reservation.release()
        if isinstance(outcome, Large):
            await self._answer_large(request, outcome.needed_bytes)
        else:
            await self._sender.put(outcome)

    async def _reserve(self, max_bytes: int) -> Reservation:
        """Reserve memory for an ordinary answer; wait for nobody but this client, until it reads another."""
        byte_count = min(max_bytes, self._limits.max_ordinary_bytes)
        while (reservation := self._account.take(byte_count)) is None:
            await self._answered.wait()
        return reservation

    async def _answer_large(self, request: Answerable, needed_bytes: int) -> None:
        """Answer with one large pair, which keeps its place among few until it is sent."""
        with trio.move_on_after(self._limits.large_timeout_seconds) as waiting:
            await self._services.large_proofs.acquire()
        if waiting.cancelled_caught:
            await self._sender.put(
                self._overloaded(request, "too many large pairs are being sent: try again")
            )
            return
        self.has_large_proof = True
        try:
            sent = await self._sender.put(await self._work_large(request, needed_bytes))
            await sent.wait()
        finally:
            self.has_large_proof = False
            self._services.large_proofs.release()

    async def _work_large(self, request: Answerable, needed_bytes: int) -> Frame | Error:
        outcome = await self._work(request, needed_bytes)
        if isinstance(outcome, Large):
            return self._overloaded(request, "the content has just changed: try again")
        return outcome

    async def _work(self, request: Answerable, max_bytes: int) -> Frame | Error | Large:
        """Have a worker make the answer; a failure of ours becomes an error that does not tell its cause."""
        most = min(self._limits.max_bytes, self._connection.max_answer_bytes)
        allowed = Allowed(self._limits.max_keys, min(max_bytes, most), most)
        try:
            outcome = await self._services.executor.run(
                partial(answer, self._services.database, request, allowed)
            )
        except Exception as error:  # noqa: BLE001 - whatever fails in a worker must not end the server
            self._services.report(error)
            return refusal(request, ErrorCode.INTERNAL, "the server failed: use another")
        if isinstance(request, GetChanges) and isinstance(outcome, Frame) and outcome.kind is Kind.RANGE:
            self._counters.fallbacks += 1
        return outcome

    def _overloaded(self, request: Request, sentence: str) -> Error:
        return refusal(request, ErrorCode.OVERLOADED, sentence, self._limits.retry_after_milliseconds)

    # Sending.

    async def _send_all(self, hello: bytes, conversation: trio.CancelScope) -> None:
        """Send until nothing more can come; end the conversation when the client does not take it."""
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
        conversation.cancel()

    def _note_sent(self, content: Outgoing) -> None:
        self._answered.set()
        self._answered = trio.Event()
        if isinstance(content, Frame | Error):
            self._last_work = trio.current_time()
        # What we say unasked proves nothing of the client: it gets no more time for that.
        if not isinstance(content, Subscription | Ping):
            self._mind_silence()


def _last_error(code: ErrorCode, sentence: str) -> Error:
    return Error(0, code, sendable(sentence))
