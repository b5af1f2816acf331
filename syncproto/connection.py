"""The rules of a conversation: what may come when, ids matched to requests, limits.

No I/O: bytes go in, messages come out, and the other way round.  Who may send what in which state is
``state``; what may answer which request is ``requests``; what comes without a request is ``unasked``.

- A request needs both hellos, and a server that has not said goodbye as far as the client knows.
- Every request is answered exactly once: by what it asked for or by an error.  Then its id is free again.
  Cancelling asks for that answer soon; when it comes, the client's connection swallows it.
- A subscription, at most one, is answered by any number of heads, until an error ends it.  It counts as no
  request.  Heads that cross its cancel are swallowed, ``UNASKED_BURST`` at most, as the error is that answers
  the cancel.
- A frame may be no longer than what can rightfully come at that moment: a hello, a control message, or on the
  client the largest proof that was asked for and has not come.
- After the peer's misbehaviour nothing is understood any more: the connection raises the same error for ever.

A connection belongs to one task, or to several that use it only between checkpoints.
"""

from collections.abc import Iterator
from typing import Final, NoReturn

from syncproto.codec import Frame, encode, kind_of
from syncproto.errors import (
    FrameTooLong,
    NoFreeRequest,
    NoSuchRequest,
    NotAllowedNow,
    OversizedAnswer,
    RemoteProtocolError,
    RepeatedRequestId,
    RequestIdInUse,
    TooManyRequests,
    TooManyUnasked,
    TruncatedStream,
    UnexpectedMessage,
    UnsolicitedAnswer,
)
from syncproto.framing import LENGTH_BYTES, FrameBuffer
from syncproto.messages import (
    MAX_CONTROL_BYTES,
    MAX_HELLO_BYTES,
    RANGE_OVERHEAD_BYTES,
    Answer,
    Cancel,
    Changes,
    Hello,
    Kind,
    Message,
    Ping,
    Pong,
    Range,
    Request,
    Subscribe,
)
from syncproto.requests import Requests, max_proof_bytes, why_no_answer
from syncproto.state import ANSWERS, Role, State, next_state, why_not
from syncproto.unasked import UNASKED_BURST, UNASKED_PER_SECOND, Pings

# A server refuses the requests above its limit one by one; a peer that goes on is not confused but hostile.
# As many cancels may cross answers: a client can only cancel what it believes to be in flight.
EXCESS_REQUESTS_FACTOR: Final = 2


def _check_length(frame: Frame, limit: int) -> None:
    length = len(frame.data) - LENGTH_BYTES
    if length > limit:
        raise FrameTooLong(length, limit)


class Connection:
    """One side of a conversation.

    Args:
        role: Whether we ask or answer.
        hello: What we shall say first; its limits are what we hold the peer to.
    """

    def __init__(self, role: Role, hello: Hello) -> None:
        self.role: Final = role
        self.hello: Final = hello
        self.peer: Hello | None = None
        self.our_state = State.BEFORE_HELLO
        self.their_state = State.BEFORE_HELLO
        self._buffer = FrameBuffer()
        self._max_received_requests = EXCESS_REQUESTS_FACTOR * hello.max_requests
        self._requests = Requests(self._max_received_requests)
        self._pings = Pings()
        self._failure: RemoteProtocolError | None = None

    @property
    def in_flight(self) -> int:
        """Requests without an answer, cancelled ones included, the subscription not."""
        return len(self._requests)

    @property
    def subscription(self) -> int | None:
        """The request id of the subscription, also of one that was cancelled and has not ended; or None."""
        return self._requests.subscription

    @property
    def unanswered_pings(self) -> int:
        """Pings of ours without a pong."""
        return len(self._pings)

    @property
    def free_requests(self) -> int:
        """How many requests a client may make now without waiting for an answer."""
        if self.peer is None or State.OPEN is not self.our_state or State.OPEN is not self.their_state:
            return 0
        return max(0, self.peer.max_requests - len(self._requests))

    @property
    def max_answer_bytes(self) -> int:
        """The longest proof that the peer accepts in one frame, 0 before its hello."""
        return 0 if self.peer is None else self.peer.max_frame_bytes - RANGE_OVERHEAD_BYTES

    def is_in_flight(self, request_id: int) -> bool:
        """Whether a request waits for its answer, and the client still wants that."""
        return self._requests.is_wanted(request_id)

    def next_request_id(self) -> int:
        """Return an id that is not in flight: ids count up and begin again at 1 after ``MAX_REQUEST_ID``."""
        return self._requests.next_id()

    # Sending.

    def send(self, message: Message) -> bytes:
        """Note that a message is sent, and return the bytes to send.

        Raises:
            LocalProtocolError: As a rule or a limit forbids it; nothing has changed then.
        """
        frame = encode(message)
        self._check_sending(frame)
        # From here on, every branch checks before it changes anything.
        if isinstance(message, Request):
            self._check_request(message)
            self._requests.add(message)
        elif isinstance(message, Cancel):
            if not self._requests.cancel(message.request_id):
                raise NoSuchRequest(message.request_id)
        elif isinstance(message, Ping):
            self._pings.send_ping(message.request_id)
        elif isinstance(message, Pong):
            self._pings.send_pong(message.request_id)
        else:
            self._note_sent(frame)
        return frame.data

    def send_frame(self, frame: Frame) -> bytes:
        """Note that an ``Answer`` is sent which another thread encoded, and return the bytes to send.

        Raises:
            LocalProtocolError: As ``send``.
        """
        if frame.kind not in ANSWERS:
            raise NotAllowedNow(frame.name, "only answers are sent as frames")
        self._check_sending(frame)
        self._note_sent(frame)
        return frame.data

    def _check_sending(self, frame: Frame) -> None:
        reason = why_not(self.role, self.our_state, frame.kind, frame.request_id)
        # The last word is always ours to say: it tells the peer what was wrong with its own.
        if reason is None and self.their_state is State.ENDED and not frame.ends_connection:
            reason = "the peer has ended the connection, or it was ended for its misbehaviour"
        if reason is not None:
            raise NotAllowedNow(frame.name, reason)
        # Every hello allows a control message, so an error for request id 0 may go out before the peer's.
        _check_length(frame, MAX_CONTROL_BYTES if self.peer is None else self.peer.max_frame_bytes)

    def _check_request(self, request: Request) -> None:
        name = type(request).__name__
        if self.peer is None or self.their_state is not State.OPEN:
            raise NotAllowedNow(name, "the server has not said hello, or has said goodbye")
        if request.request_id in self._requests:
            raise RequestIdInUse(request.request_id)
        if isinstance(request, Subscribe):
            if self.subscription is not None:
                raise NotAllowedNow(name, f"subscription {self.subscription} has not ended")
        elif len(self._requests) >= self.peer.max_requests:
            raise NoFreeRequest(self.peer.max_requests)
        longest = self.hello.max_frame_bytes - RANGE_OVERHEAD_BYTES
        if max_proof_bytes(request) > longest:
            raise NotAllowedNow(name, f"our hello allows no answer above {longest} bytes")

    def _note_sent(self, frame: Frame) -> None:
        self.our_state = next_state(self.our_state, frame.kind, frame.request_id)
        if frame.kind in ANSWERS and not frame.ends_connection:
            self._note_answer(frame)

    def _note_answer(self, frame: Frame) -> None:
        request = self._requests.get(frame.request_id)
        if request is None:
            raise NoSuchRequest(frame.request_id)
        reason = why_no_answer(request, frame.kind)
        if reason is not None:
            raise NotAllowedNow(frame.name, reason)
        if frame.kind in (Kind.RANGE, Kind.CHANGES):
            _check_length(frame, max_proof_bytes(request) + RANGE_OVERHEAD_BYTES)
        self._requests.answer(frame.request_id, frame.kind)

    # Receiving.

    def receive_data(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Take bytes in and return the messages that they complete.

        Iterate to the end before the next call.  A message is decoded, in some 10 microseconds, only when it
        is asked for: so a caller can handle a few in a step, and an error follows all that came before it.

        Args:
            data: Any number of bytes, as they came.

        Returns:
            An iterator of messages, without answers to cancelled requests and cancels of answered requests.

        Raises:
            RemoteProtocolError: From the iterator, or at once where the connection failed before.
        """
        if self._failure is not None:
            # Without the old traceback, which would grow with each call and keep what it points to.
            raise self._failure.with_traceback(None)
        self._buffer.feed(data)
        return self._messages()

    def receive_end(self) -> None:
        """Note that the stream has ended.

        Raises:
            TruncatedStream: Inside a frame, or before the peer's hello.  Requests in flight are lost anyway.
        """
        if self._failure is None and (len(self._buffer) or self.their_state is State.BEFORE_HELLO):
            self._fail(TruncatedStream(len(self._buffer)))

    def _messages(self) -> Iterator[Message]:
        while True:
            try:
                # The limit may have changed with the message before, so it is asked for anew.
                message = self._buffer.next_message(self._limit_bytes())
                wanted = message is not None and self._receive(message)
            except RemoteProtocolError as error:
                self._fail(error)
            if message is None:
                return
            if wanted:
                yield message

    def _fail(self, error: RemoteProtocolError) -> NoReturn:
        self._failure = error
        self.their_state = State.ENDED
        self._buffer.clear()
        raise error

    def _limit_bytes(self) -> int:
        """Return the longest frame that the peer may rightfully send now."""
        if self.their_state is State.BEFORE_HELLO:
            return MAX_HELLO_BYTES
        if self.role is Role.SERVER:
            return MAX_CONTROL_BYTES
        # It does not matter which of the proofs comes: its own limit is checked when its id is known.
        return max(MAX_CONTROL_BYTES, self._requests.max_proof_bytes + RANGE_OVERHEAD_BYTES)

    def _receive(self, message: Message) -> bool:
        """Apply the rules to a message of the peer and say whether our side should see it."""
        kind, request_id = kind_of(message), getattr(message, "request_id", 0)
        theirs = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        reason = why_not(theirs, self.their_state, kind, request_id)
        if reason is not None:
            raise UnexpectedMessage(type(message).__name__, reason)
        self.their_state = next_state(self.their_state, kind, request_id)
        if isinstance(message, Hello):
            self.peer = message
        elif isinstance(message, Request):
            self._receive_request(message)
        elif isinstance(message, Cancel):
            return self._receive_cancel(message)
        elif isinstance(message, Ping):
            self._pings.receive_ping(message.request_id)
        elif isinstance(message, Pong):
            self._pings.receive_pong(message.request_id)
        elif isinstance(message, Answer) and message.request_id:
            # An error for request id 0 answers nothing: it has just ended the connection.
            return self._receive_answer(message)
        return True

    def _receive_request(self, request: Request) -> None:
        if self.our_state is State.BEFORE_HELLO:
            raise UnexpectedMessage(type(request).__name__, "we have not said hello")
        if request.request_id in self._requests:
            raise RepeatedRequestId(request.request_id)
        if isinstance(request, Subscribe):
            if self.subscription is not None:
                raise UnexpectedMessage("Subscribe", f"subscription {self.subscription} has not ended")
        # Our user refuses what is above the limit of our hello; only far above it is misbehaviour.
        elif len(self._requests) >= self._max_received_requests:
            raise TooManyRequests(self._max_received_requests)
        self._requests.add(request)

    def _receive_cancel(self, cancel: Cancel) -> bool:
        wanted = self._requests.cancel(cancel.request_id)
        # One that has crossed the answer leaves nothing to do; the message is left out.
        if not wanted and not self._requests.allow_late_cancel():
            raise UnexpectedMessage("Cancel", "no answer is left that it could have crossed")
        return wanted

    def _receive_answer(self, answer: Answer) -> bool:
        name, request_id, kind = type(answer).__name__, answer.request_id, kind_of(answer)
        request = self._requests.get(request_id)
        if request is None:
            raise UnsolicitedAnswer(name, request_id)
        reason = why_no_answer(request, kind)
        if reason is not None:
            raise UnexpectedMessage(name, reason)
        if isinstance(answer, Range | Changes) and len(answer.proof) > max_proof_bytes(request):
            raise OversizedAnswer(request_id, len(answer.proof), max_proof_bytes(request))
        is_wanted = self._requests.answer(request_id, kind)
        if self._requests.crossing_heads > UNASKED_BURST:
            raise TooManyUnasked(UNASKED_PER_SECOND)
        return is_wanted
