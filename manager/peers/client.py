"""What is asked on one connection: several requests in flight, matched to their answers.

How bytes move, and what ends a connection, stands in ``conversation``.  Nothing here knows of proofs: they
are bytes.

Invariants:

- A request that nobody waits for any more was cancelled with the peer; its late answer is dropped.
- The first failure is final: every request, waiting or new, raises it.
"""

from collections.abc import Callable
from typing import Final

import trio

from manager.errors import (
    ConnectionLost,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    RequestTimeout,
    RootUnavailable,
)
from manager.limits import Limits
from manager.peers.conversation import Conversation
from merkledb import Scheme
from syncproto import (
    Cancel,
    Changes,
    Error,
    ErrorCode,
    GetChanges,
    GetRange,
    Head,
    Hello,
    LocalProtocolError,
    Message,
    Range,
    Subscribe,
)

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


class PeerClient(Conversation):
    """The client's side of one connection.

    Args:
        stream: An open stream; ``run`` closes it.
        hello: What we say first.
        scheme: The scheme that the peer must serve; None where any will do, see ``Conversation``.
        limits: How long it may take.

    Attributes:
        forgotten_roots: Roots from which the peer has no changes any more.
        empty_answers: Change proofs in a row that changed nothing and ended early.
        large_value: Held by the one request for a large pair that the connection may have.
        useful_requests: How many requests in flight keep the way to the peer full, as far as it takes them.
    """

    def __init__(self, stream: trio.abc.Stream, hello: Hello, scheme: Scheme | None, limits: Limits) -> None:
        super().__init__(stream, hello, scheme, limits)
        self._pending: dict[int, _Pending] = {}
        # The last of the heads that one step of the reading task brought.
        self._newest_head: Head | None = None
        self._heard: Callable[[Head], None] = _ignore
        self._first_head = trio.Event()
        self._step_ended = trio.lowlevel.ParkingLot()
        self.forgotten_roots: set[bytes] = set()
        self.empty_answers = 0
        self.large_value = trio.Lock()
        self.useful_requests = 0

    @property
    def requests_in_flight(self) -> int:
        """How many requests somebody waits for."""
        return len(self._pending)

    @property
    def asked_since(self) -> float:
        """When the oldest of these was asked, in trio's seconds; infinity where there is none."""
        return min((pending.asked for pending in self._pending.values()), default=float("inf"))

    def fail(self, failure: PeerError) -> None:
        """End the connection: whoever waits, or asks from now on, gets the first failure there was."""
        super().fail(failure)
        assert self.failure is not None
        for pending in self._pending.values():
            pending.resolve(self.failure)
        self._first_head.set()

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
        """Note that the peer has no changes from ``root`` that help, so it is asked for ranges instead."""
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
        if self.failure is not None:
            raise self.failure
        if waiting.cancelled_caught:
            raise RequestTimeout(self._limits.request_timeout_seconds)

    async def _ask(self, request: GetRange | GetChanges) -> ProofAnswer:
        """Send a request and wait for its answer."""
        if self.failure is not None:
            raise self.failure
        if self.closing.is_set():
            raise ConnectionLost("it takes no more requests, for it is shutting down")
        # A request that was cancelled counts until its answer has come.
        with self.until_closing(), trio.move_on_after(self._limits.request_timeout_seconds):
            while not self._connection.free_requests:
                await self._step_ended.park()
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
            self._close()
        return PeerRefused(answer.code, answer.message, answer.detail)

    def _cancel(self, request_id: int) -> None:
        """Tell the peer that an answer is not wanted any more, if it did not come."""
        if self.failure is None and self._connection.is_in_flight(request_id):
            self._post(self._connection.send(Cancel(request_id)))

    # What comes.

    def _handle(self, message: Message) -> None:
        pending = self._pending.get(message.request_id) if isinstance(message, ProofAnswer) else None
        if pending is None or isinstance(message, Error):
            self.throughput.pass_over()
        else:
            self.throughput.answer(pending.asked, trio.current_time())
            self._adapt()
        if pending is not None and isinstance(message, ProofAnswer):
            pending.resolve(message)
        elif isinstance(message, Head):
            self._newest_head = message
        else:
            super()._handle(message)

    def _end_step(self) -> None:
        """Tell of the newest head that came in this step, and answer its pings."""
        if self._newest_head is not None:
            head, self._newest_head = self._newest_head, None
            self._first_head.set()
            self._heard(head)
        self._step_ended.unpark_all()
        super()._end_step()

    def _greet(self, hello: Hello) -> None:
        super()._greet(hello)
        self._adapt()

    def _adapt(self) -> None:
        """Have as many requests in flight as the way has use for by now."""
        if self.peer_hello is not None:
            self.useful_requests = min(self.throughput.requests, self.peer_hello.max_requests)


def _ignore(head: Head) -> None:
    """Hear a head that nobody asked for: the connection lets none through."""
