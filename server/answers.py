"""From a request to the bytes of its answer: blocking, run by workers, one snapshot for each request.

Each function makes one answer, encodes and frames it, so that the event loop only sends it.  What the client
did wrong becomes an ``Error``; what we did wrong is raised.
"""

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from merkledb import InvalidRange, KeyTooLong, LimitTooSmall
from syncproto import MAX_TEXT_BYTES, Error, ErrorCode, Frame, GetHead, GetRange, Head, Range, Request, encode


class EncodableProof(Protocol):
    """A proof that knows its bytes."""

    def encode(self) -> bytes:
        """Return the bytes that travel."""


class ProvableSnapshot(Protocol):
    """What a server reads from one state of a database; ``merkledb.Snapshot`` is one."""

    @property
    def root(self) -> bytes:
        """The state's root."""

    @property
    def revision(self) -> int:
        """The state's number."""

    def __len__(self) -> int:
        """Return how many pairs it holds, at no cost."""

    def prove_range(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = ...,
        max_bytes: int = ...,
    ) -> EncodableProof:
        """Return a proof of [start, end], cut off where it reaches a limit."""


class SchemeNames(Protocol):
    """The two names that must be the same on both sides."""

    @property
    def hasher(self) -> str:
        """The hash function's name."""

    @property
    def branch_factor(self) -> int:
        """Slots of a branch."""


class ProvableDatabase(Protocol):
    """What a server serves; ``merkledb.Database`` is one."""

    @property
    def scheme(self) -> SchemeNames:
        """The database's scheme."""

    def snapshot(self) -> AbstractContextManager[ProvableSnapshot]:
        """Return the state at the head."""


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


def read_head(database: ProvableDatabase) -> tuple[bytes, int, int]:
    """Return the root and the revision of the head, and how many pairs it holds."""
    with database.snapshot() as snapshot:
        return snapshot.root, snapshot.revision, len(snapshot)


def answer(database: ProvableDatabase, request: Request, allowed: Allowed) -> Frame | Error | Large:
    """Return the frame that answers a request, or the error that does.

    Args:
        database: Read at its head.
        request: Whose root must be the head's.
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
    except (InvalidRange, KeyTooLong) as error:
        return refusal(request, ErrorCode.BAD_REQUEST, str(error))


def _prove(database: ProvableDatabase, request: GetRange, allowed: Allowed) -> Frame | Error:
    with database.snapshot() as snapshot:
        if snapshot.root != request.root:
            sentence = f"the root is not this server's head, which is {snapshot.root.hex()}: ask for the head"
            return refusal(request, ErrorCode.UNKNOWN_ROOT, sentence)
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


def _large_or_refused(request: GetRange, allowed: Allowed, needed_bytes: int) -> Error | Large:
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
