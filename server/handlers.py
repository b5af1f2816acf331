"""From a request to the bytes of its answer, and the threads in which that happens, for it blocks.

Each function reads one state of the database, makes one answer, encodes and frames it, so that the event loop
only sends it.  What the client did wrong, and what we do not have, becomes an ``Error``; what we did wrong is
raised.  When an answer is made, and what memory it may take, is for ``answerer`` to say.
"""

import threading
from collections.abc import Callable
from time import thread_time
from typing import Final, NamedTuple, TypeAlias, TypeVar

import trio

from merkledb import (
    CorruptDatabase,
    Database,
    HistoryGone,
    InvalidRange,
    KeyTooLong,
    LimitTooSmall,
    NoCompleteRoot,
    RangeProof,
    Snapshot,
    UnknownRoot,
)
from merkledb.arguments import require_int
from syncproto import (
    MAX_TEXT_BYTES,
    Changes,
    Error,
    ErrorCode,
    Frame,
    GetChanges,
    GetHead,
    GetRange,
    Head,
    Range,
    Request,
    encode,
)

Result = TypeVar("Result")


class ThreadExecutor:
    """Runs blocking work in threads, which tasks get in the order in which they ask.

    Each connection asks for one at a time, so that connections take turns, however much one of them asks.
    Tests and simulations on a virtual clock override ``run``.

    Args:
        max_threads: At work at a time, at least 1.

    Raises:
        TypeError, ValueError: It is no whole number, or below 1.
    """

    def __init__(self, max_threads: int) -> None:
        require_int("max_threads", max_threads, 1)
        self._limiter = trio.CapacityLimiter(max_threads)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work in a thread, and return what it returned or raise what it raised.

        A cancellation before the work has begun leaves nothing behind.  One after that takes effect when the
        work has ended, whose result is then lost: the caller may close the database next.  Waiting for a
        thread and moving there costs some 50 microseconds.
        """
        begun = False

        def begin() -> Result:
            nonlocal begun
            begun = True
            return work()

        try:
            return await trio.to_thread.run_sync(begin, limiter=self._limiter)
        except RuntimeError:
            # Python has no class of its own for a thread that the system refuses, so this may be the work's.
            if begun:
                raise
            # The work blocks the event loop then, but it is done.
            return work()


class HeadFacts(NamedTuple):
    """What a hello and a head tell of the database.

    Attributes:
        root: Of the newest complete revision; None where there is none.
        revision: Its number, 0 where there is none.
        keys: Pairs that it has, 0 where there is none.
    """

    root: bytes | None = None
    revision: int = 0
    keys: int = 0


class Large(NamedTuple):
    """Instead of an answer: a single pair needs more bytes than an ordinary proof may have.

    Attributes:
        needed_bytes: That a proof of the pair takes, within what client and server allow.
    """

    needed_bytes: int


class Allowed(NamedTuple):
    """How much an answer may hold.

    Attributes:
        max_keys: The server's limit.
        max_bytes: Of this proof.
        max_large_bytes: Of a proof that holds one large pair, what the client's frames take considered.
    """

    max_keys: int
    max_bytes: int
    max_large_bytes: int


class HistoryChecks:
    """Decides which proofs at old roots are verified before they are sent.

    A damaged row of history makes a proof that does not hold, for which a client takes the server for a
    liar.  To verify a full one takes half as long as to make it, with the pure kernel twice as long.  Proofs
    are therefore verified as long as that takes up to a fifth of the time, and all of them from the first one
    on that does not hold.  Change proofs are not: that would take the content that they start from, whole.
    Any thread may use it.

    Args:
        clock: Tells the seconds that the calling thread has worked.
    """

    def __init__(self, clock: Callable[[], float] = thread_time) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        # What may still be spent; of long quiet times not all is kept.
        self._credit_seconds = 0.0
        self._found_damage = False

    def check(
        self,
        snapshot: Snapshot,
        proof: RangeProof,
        start: bytes | None,
        end: bytes | None,
        making_seconds: float,
    ) -> None:
        """Verify a proof, if there is time for it.

        Args:
            snapshot: What it was made of.
            proof: The proof.
            start: The start that it was made with.
            end: The end that it was made with.
            making_seconds: What it took to make it.

        Raises:
            CorruptDatabase: It does not hold.
        """
        with self._lock:
            earned = self._credit_seconds + CHECKED_SHARE * making_seconds
            self._credit_seconds = min(earned, _MAX_CREDIT_SECONDS)
            if self._credit_seconds <= 0 and not self._found_damage:
                return
        began = self.clock()
        try:
            snapshot.check_proof(proof, start, end)
        except CorruptDatabase:
            self._found_damage = True
            raise
        finally:
            with self._lock:
                self._credit_seconds -= self.clock() - began


# What a worker answers: a subscription is answered by the event loop.
Answerable: TypeAlias = GetHead | GetRange | GetChanges
_Proving: TypeAlias = GetRange | GetChanges

# Of the time that making proofs at old roots takes, this part is spent to verify them.
CHECKED_SHARE: Final = 0.2
_MAX_CREDIT_SECONDS: Final = 0.1
_UNKNOWN: Final = "this server does not know the root: ask for its head"
_GONE: Final = "this server does not retain the root any more: ask for its head"
_INCOMPLETE: Final = "this server's first copy is unfinished: ask another one, or try again later"


def read_head(database: Database) -> HeadFacts:
    """Return what there is to tell of the head."""
    head = database.head
    return HeadFacts() if head is None else HeadFacts(head.root, head.number, head.keys)


def answer(
    database: Database, request: Answerable, allowed: Allowed, checks: HistoryChecks
) -> Frame | Error | Large:
    """Return the frame that answers a request, or the error that does.

    Args:
        database: Read at the root that the request names.
        request: Whose root may be any that the database retains.
        allowed: The server's part of the limits; the request's own may be lower.
        checks: Says which proofs at old roots are verified.

    Raises:
        Exception: The database failed; the client is not at fault.
    """
    if isinstance(request, GetHead):
        return encode(Head(request.request_id, *read_head(database)))
    try:
        return _prove(database, request, allowed, checks)
    except LimitTooSmall as error:
        return _large_or_refused(request, allowed, error.needed_bytes)
    except UnknownRoot:
        return refusal(request, ErrorCode.UNKNOWN_ROOT, _UNKNOWN)
    except NoCompleteRoot:
        return refusal(request, ErrorCode.UNKNOWN_ROOT, _INCOMPLETE)
    except HistoryGone:
        return refusal(request, ErrorCode.HISTORY_GONE, _GONE)
    except (InvalidRange, KeyTooLong) as error:
        return refusal(request, ErrorCode.BAD_REQUEST, str(error))


def _prove(database: Database, request: _Proving, allowed: Allowed, checks: HistoryChecks) -> Frame:
    if isinstance(request, GetRange):
        return _prove_range(database, request, request.root, allowed, checks)
    try:
        return _prove_changes(database, request, allowed)
    except (HistoryGone, UnknownRoot) as error:
        if error.root == request.new_root:
            raise
    # Our history does not reach back to where the client is: the content of the range serves it as well.
    return _prove_range(database, request, request.new_root, allowed, checks)


def _prove_range(
    database: Database, request: _Proving, root: bytes, allowed: Allowed, checks: HistoryChecks
) -> Frame:
    began = checks.clock()
    with database.at(root) as snapshot:
        proof = snapshot.prove_range(
            request.start,
            request.end,
            max_keys=min(request.max_keys, allowed.max_keys),
            max_bytes=min(request.max_bytes, allowed.max_bytes),
        )
        if not snapshot.is_tip:
            checks.check(snapshot, proof, request.start, request.end, checks.clock() - began)
    encoded = proof.encode()
    # The pairs are given back before the frame takes the same memory again.
    del proof
    return encode(Range(request.request_id, encoded))


def _prove_changes(database: Database, request: GetChanges, allowed: Allowed) -> Frame:
    proof = database.prove_changes(
        request.old_root,
        request.new_root,
        request.start,
        request.end,
        max_keys=min(request.max_keys, allowed.max_keys),
        max_bytes=min(request.max_bytes, allowed.max_bytes),
    )
    encoded = proof.encode()
    del proof
    return encode(Changes(request.request_id, encoded))


def _large_or_refused(request: _Proving, allowed: Allowed, needed_bytes: int) -> Error | Large:
    if needed_bytes <= min(request.max_bytes, allowed.max_large_bytes):
        return Large(needed_bytes)
    sentence = f"the next pair needs a proof of {needed_bytes} bytes: ask with a max_bytes of that many"
    return refusal(request, ErrorCode.LIMIT_TOO_SMALL, sentence, needed_bytes)


def refusal(request: Request, code: ErrorCode, message: str, detail: int | None = None) -> Error:
    """Return the error that answers a request."""
    return Error(request.request_id, code, sendable(message), detail)


def sendable(message: str) -> str:
    """Return a sentence in the form that a message may carry: printable, and not too long."""
    printable = "".join(character if character.isprintable() else "?" for character in message)
    return printable.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
