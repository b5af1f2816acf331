"""From a request to the bytes of its answer, and the threads in which that happens, for it blocks.

Each function reads one state of the database, makes one answer, encodes and frames it, so that the event loop
only sends it.  What the client did wrong, and what we do not have, becomes an ``Error``; what we did wrong is
raised.  When an answer is made, and what memory it may take, is for ``answerer`` to say.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, TypeVar

import trio

from merkledb import (
    Database,
    HistoryGone,
    InvalidRange,
    KeyTooLong,
    LimitTooSmall,
    NoCompleteRoot,
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


# What a worker answers: a subscription is answered by the event loop.
Answerable: TypeAlias = GetHead | GetRange | GetChanges
_Proving: TypeAlias = GetRange | GetChanges

_UNKNOWN: Final = "this server does not know the root: ask for its head"
_GONE: Final = "this server does not retain the root any more: ask for its head"
_INCOMPLETE: Final = "this server's first copy is unfinished: ask another one, or try again later"


def read_head(database: Database) -> HeadFacts:
    """Return what there is to tell of the head."""
    head = database.head
    return HeadFacts() if head is None else HeadFacts(head.root, head.number, head.keys)


def answer(database: Database, request: Answerable, allowed: Allowed) -> Frame | Error | Large:
    """Return the frame that answers a request, or the error that does.

    Args:
        database: Read at the root that the request names.
        request: Whose root may be any that the database retains.
        allowed: The server's part of the limits; the request's own may be lower.

    Raises:
        Exception: The database failed; the client is not at fault.
    """
    if isinstance(request, GetHead):
        return encode(Head(request.request_id, *read_head(database)))
    try:
        return _prove(database, request, allowed)
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


def _prove(database: Database, request: _Proving, allowed: Allowed) -> Frame:
    if isinstance(request, GetRange):
        return _prove_range(database, request, request.root, allowed)
    try:
        return _prove_changes(database, request, allowed)
    except (HistoryGone, UnknownRoot) as error:
        if error.root == request.new_root:
            raise
    # Our history does not reach back to where the client is: the content of the range serves it as well.
    return _prove_range(database, request, request.new_root, allowed)


def _prove_range(database: Database, request: _Proving, root: bytes, allowed: Allowed) -> Frame:
    with database.at(root) as snapshot:
        proof = snapshot.prove_range(
            request.start,
            request.end,
            max_keys=min(request.max_keys, allowed.max_keys),
            max_bytes=min(request.max_bytes, allowed.max_bytes),
        )
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
