"""The answers to one client, one request at a time: when each is made, and in what memory.

An ordinary answer takes memory from the server's budget before it is made, and gives it back when it was
sent.  A pair above the ordinary limit is made a second time, alone, when one of the few places for large
proofs is free.  What an answer holds is for ``handlers`` to say.

Invariant: a connection holds at most two answers, one that is sent and one that waits for ``sender``, and
asks for one thread at a time.
"""

from functools import partial

import trio

from server.budget import Reservation
from server.handlers import Allowed, Answerable, Large, answer, refusal
from server.limits import ServerLimits
from server.sender import Sender
from server.services import Services
from syncproto import Connection, Error, ErrorCode, Frame, GetChanges, GetHead, Kind, Request


class Answerer:
    """Answers the requests of one client in the order in which they came.

    Args:
        connection: Says whether a request is still wanted, and how long an answer the client accepts.
        sender: Takes the answers.
        services: What is shared with other connections.

    Attributes:
        has_large_proof: Whether a large pair is made for the client, or sent to it.
    """

    def __init__(self, connection: Connection, sender: Sender, services: Services) -> None:
        self._connection = connection
        self._sender = sender
        self._services = services
        self._limits = services.limits
        self._account = services.budget.account()
        self._sent = trio.Event()
        self.has_large_proof = False
        self._put, self._requests = trio.open_memory_channel[Answerable](self._limits.max_requests)

    def put(self, request: Answerable) -> None:
        """Take a request; the caller refuses what is above ``max_requests``."""
        self._put.send_nowait(request)

    def note_sent(self) -> None:
        """Note that something was sent, so that memory may be free and a request answered."""
        self._sent.set()
        self._sent = trio.Event()

    async def wait_until_idle(self) -> None:
        """Wait until everything that was asked is answered; a cancellation leaves nothing behind."""
        while self._connection.in_flight:
            await self._sent.wait()

    def close(self) -> None:
        """Give back the memory of answers that will not be sent any more."""
        self._account.close()

    async def run(self) -> None:
        """Answer until cancelled, in the event loop; what reads the database runs in a thread.

        A cancellation while an answer is made waits for its thread, see ``ThreadExecutor.run``.  It gives
        back the place of a large proof, and leaves the memory of ordinary ones to ``close``.
        """
        async for request in self._requests:
            await self._answer(request)

    async def _answer(self, request: Answerable) -> None:
        if not self._connection.is_in_flight(request.request_id):
            await self._sender.put(refusal(request, ErrorCode.CANCELLED, "cancelled before it was worked on"))
            return
        # Nothing is known of the answer's length yet, so the longest is reserved; a head is a few bytes.
        reservation = await self._reserve(0 if isinstance(request, GetHead) else request.max_bytes)
        outcome = await self._work(request, reservation.byte_count)
        if isinstance(outcome, Frame):
            reservation.shrink(min(len(outcome.data), reservation.byte_count))
            # The sender keeps the frame from here on, so it gives back the memory when the frame was sent.
            await self._sender.put(outcome, reservation.release)
            return
        reservation.release()
        if isinstance(outcome, Large):
            await self._answer_large(request, outcome.needed_bytes)
        else:
            await self._sender.put(outcome)

    async def _reserve(self, max_bytes: int) -> Reservation:
        """Reserve memory for an ordinary answer; where there is none, wait until the client reads another.

        A cancellation reserves nothing.
        """
        byte_count = min(max_bytes, self._limits.max_ordinary_bytes)
        while (reservation := self._account.take(byte_count)) is None:
            await self._sent.wait()
        return reservation

    async def _answer_large(self, request: Answerable, needed_bytes: int) -> None:
        """Answer with one large pair, which keeps its place among few until it is sent.

        A cancellation gives the place back.
        """
        with trio.move_on_after(self._limits.large_timeout_seconds) as waiting:
            await self._services.large_proofs.acquire()
        # The memory of the ordinary answer was released before, so only large answers wait for each other.
        if waiting.cancelled_caught:
            await self._sender.put(
                overloaded(request, self._limits, "too many large pairs are being sent: try again")
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
        # Between the two readings a commit may have made the pair longer.
        if isinstance(outcome, Large):
            return overloaded(request, self._limits, "the content has just changed: try again")
        return outcome

    async def _work(self, request: Answerable, max_bytes: int) -> Frame | Error | Large:
        """Have a thread make the answer; a failure of ours becomes an error that does not tell its cause.

        A cancellation waits for the thread, and its answer is lost.
        """
        most = min(self._limits.max_bytes, self._connection.max_answer_bytes)
        allowed = Allowed(self._limits.max_keys, min(max_bytes, most), most)
        try:
            outcome = await self._services.executor.run(
                partial(answer, self._services.database, request, allowed, self._services.checks)
            )
        except Exception as error:  # noqa: BLE001 - whatever fails in a worker must not end the server
            self._services.report(error)
            return refusal(request, ErrorCode.INTERNAL, "the server failed: use another")
        if isinstance(request, GetChanges) and isinstance(outcome, Frame) and outcome.kind is Kind.RANGE:
            self._services.counters.fallbacks += 1
        return outcome


def overloaded(request: Request, limits: ServerLimits, sentence: str) -> Error:
    """Return the error that tells a client to ask again, and when."""
    return refusal(request, ErrorCode.OVERLOADED, sentence, limits.retry_after_milliseconds)
