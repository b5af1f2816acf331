"""The messages of the protocol as immutable values, and the limits that every peer keeps.

What travels is ``docs/protocol.md``; how it is encoded is ``codec``; in which order it may come is
``connection``.  A proof is opaque bytes here: this package knows nothing of tries.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

PROTOCOL_VERSION: Final = 1

ROOT_BYTES: Final = 32
MAX_REQUEST_ID: Final = 2**32 - 1
# The highest number that a store can have; whether a number is plausible is for its receiver to judge.
MAX_REVISION: Final = 2**63 - 1
# Signed integers of 64 bits hold it in every language, and no store has more pairs.
MAX_PAIRS: Final = 2**63 - 1
# The longest key has 504 bytes, and what follows a key in order is that key and one byte more.  The rest
# leaves room for longer keys.
MAX_BOUND_BYTES: Final = 1024
# A sentence for a log or a terminal needs no more, and a control frame must hold it.
MAX_TEXT_BYTES: Final = 512
MAX_USER_AGENT_BYTES: Final = 128
# A delay above an hour says "go away", which is what ``SHUTTING_DOWN`` is for.
MAX_RETRY_AFTER_MILLISECONDS: Final = 3_600_000

# The hello of any version is short, and before it the peer deserves no memory at all.  An error that refuses
# the connection must fit too.
MAX_HELLO_BYTES: Final = 1024
# Every message but ``range`` and ``changes`` fits into a control frame, so no peer may announce less: the
# largest is a get_changes with two roots and two bounds.
MAX_CONTROL_BYTES: Final = 4096
# The frame of a range, or of changes, is its proof and so many bytes at most: 1 for the array, 1 for the
# kind, 5 for the request id, and 5 for the length of the proof.
RANGE_OVERHEAD_BYTES: Final = 12
MAX_FRAME_BYTES: Final = 2**32 - 1
MAX_PROOF_BYTES: Final = MAX_FRAME_BYTES - RANGE_OVERHEAD_BYTES


class Kind(IntEnum):
    """The first element of every frame."""

    HELLO = 0
    GOODBYE = 1
    PING = 2
    PONG = 3
    ERROR = 4
    CANCEL = 5
    GET_HEAD = 16
    HEAD = 17
    GET_RANGE = 18
    RANGE = 19
    GET_CHANGES = 20
    CHANGES = 21
    SUBSCRIBE = 22


class ErrorCode(IntEnum):
    """Why a request, or with request id 0 the whole connection, is refused: a closed list."""

    UNKNOWN_ROOT = 1  # the server never had the root, as far as it knows
    HISTORY_GONE = 2  # the server had the root, and retains it no longer
    LIMIT_TOO_SMALL = 3  # the first pair does not fit; detail: max_bytes that would do
    BAD_REQUEST = 4  # the request makes no sense, such as a start after its end
    SCHEME_MISMATCH = 5  # hasher or branch factor differ
    OVERLOADED = 6  # detail: milliseconds after which to try again
    SHUTTING_DOWN = 7  # the server answers what is in flight and leaves
    INTERNAL = 8  # the server failed; it knows why
    CANCELLED = 9  # the client cancelled the request before it was worked on, or ended its subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Opens a connection, from both sides.

    Attributes:
        hasher: The name of the hash function, such as ``blake3``.
        branch_factor: Slots of a branch, 2 to 65,536.
        root: The head's root, 32 bytes; None while the sender's first sync is unfinished, for then it has no
            complete root to show.  With None, revision and keys are 0.
        revision: The head's number.
        keys: Pairs at the head, 0 to ``MAX_PAIRS``; 0 where it serves nothing.  Nothing proves it, so nothing
            but an estimate may depend on it.
        max_frame_bytes: The longest frame that the sender accepts, at least ``MAX_CONTROL_BYTES``.
        max_keys: Pairs that one answer of the sender holds at most; 0 where it serves nothing.
        max_bytes: Bytes of a proof that one answer of the sender holds at most; 0 where it serves nothing.
        max_requests: Requests in flight that the sender accepts; 0 where it serves nothing.
        user_agent: Program and version, for logs.
        version: Of the protocol; the same on both sides or the connection ends.
    """

    hasher: str
    branch_factor: int
    root: bytes | None
    revision: int
    keys: int = 0
    max_frame_bytes: int
    max_keys: int = 0
    max_bytes: int = 0
    max_requests: int = 0
    user_agent: str = ""
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender leaves: no more requests from a client, none taken by a server; the rest is answered."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong with the same number, to show that both sides live."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Error:
    """Ends a request without its answer, or with request id 0 the connection.

    Attributes:
        request_id: Of the request that is refused, or 0.
        code: From the closed list.
        message: A sentence for people, without control characters, at most ``MAX_TEXT_BYTES``.
        detail: The bytes needed with ``LIMIT_TOO_SMALL``, milliseconds with ``OVERLOADED``, else None.
    """

    request_id: int
    code: ErrorCode
    message: str
    detail: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Says that the answer is not wanted any more; the request is still answered, once and soon."""

    request_id: int


@dataclass(frozen=True, slots=True)
class GetHead:
    """Asks for the head: its root, its revision, and how many pairs it holds."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Head:
    """Answers ``GetHead``, and ``Subscribe`` as often as the head changes.

    Attributes:
        request_id: Of the request, or of the subscription.
        root: The head's root, 32 bytes; None as in a hello.
        revision: The head's number.
        keys: Pairs at the head, as in a hello: a hint.
    """

    request_id: int
    root: bytes | None
    revision: int
    keys: int


@dataclass(frozen=True, slots=True)
class GetRange:
    """Asks for a proof of the pairs in [start, end] at a root.

    Attributes:
        request_id: Chosen by the client, 1 to ``MAX_REQUEST_ID``, not in flight.
        root: 32 bytes.
        start: First key wanted, at most ``MAX_BOUND_BYTES``; None: from the first.
        end: Last key wanted; None: up to the last.
        max_keys: Pairs wanted at most, at least 1; the server may send fewer.
        max_bytes: Bytes of the encoded proof at most, at least 1; the server may send fewer.
    """

    request_id: int
    root: bytes
    start: bytes | None
    end: bytes | None
    max_keys: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Range:
    """Answers ``GetRange`` with a proof, in the bytes that the prover encoded it to."""

    request_id: int
    proof: bytes


@dataclass(frozen=True, slots=True)
class GetChanges:
    """Asks for a proof of what differs in [start, end] between two roots.

    The answer is ``Changes``, or a ``Range`` at the new root where the server's history does not reach back
    to the old one: a change proof is only an optimisation.  So an error that names a root means the new one.

    Attributes:
        request_id: As of ``GetRange``.
        old_root: 32 bytes, at which the client knows the range to be.
        new_root: 32 bytes, to which the proof shall belong.
        start: First key wanted, at most ``MAX_BOUND_BYTES``; None: from the first.
        end: Last key wanted; None: up to the last.
        max_keys: Changed keys wanted at most, at least 1; the server may send fewer.
        max_bytes: Bytes of the encoded proof at most, at least 1; the server may send fewer.
    """

    request_id: int
    old_root: bytes
    new_root: bytes
    start: bytes | None
    end: bytes | None
    max_keys: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Answers ``GetChanges`` with a proof, in the bytes that the prover encoded it to."""

    request_id: int
    proof: bytes


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for the head now, and for each new head from now on.

    It is answered by any number of ``Head`` and stays in flight until an ``Error`` ends it, which ``Cancel``
    asks for.  Who reads slowly gets the newest head, not all of them.  A connection has one subscription at
    most, which counts as no request.
    """

    request_id: int


Request: TypeAlias = GetHead | GetRange | GetChanges | Subscribe
Answer: TypeAlias = Head | Range | Changes | Error
Message: TypeAlias = Hello | Goodbye | Ping | Pong | Cancel | Request | Answer
