"""Everything that can end a sync, as one tree.

::

    SyncError
    ├── LocalContent             the database holds content written locally, and may not be replaced
    ├── WrongRoot                all was applied, twice, and the root is not the target: something else wrote
    ├── MachineExhausted         the machine has no memory left; following, it is tried again
    ├── ConcurrentWrite          something else wrote; the manager then looks again, on its own
    ├── InvalidProgress          the stored progress cannot be read; the manager then starts anew, on its own
    └── NoPeersLeft              no peer is left that can help; ``failures`` names each with its reason
        ├── PeerUnreachable      none could be reached: nothing came from any of them
        ├── PeersOverloaded      who could be reached has said for long that it is overloaded
        ├── TargetGone           peers were reached, and each has pruned the target or never had it
        ├── PairTooLarge         a pair needs a larger proof than may be fetched, or than any peer sends
        └── VerificationFailed   the last hope sent a proof that does not hold: ``peer`` and ``reason``

    PeerError                    one peer failed; never leaves the manager, which tries again or elsewhere
    ├── ConnectionLost           no connection, or it ended
    ├── RequestTimeout           no answer in time
    ├── PeerMisbehaved           it broke the protocol
    ├── SchemeDiffers            its store has another hasher or branch factor
    ├── PeerRefused              it answered with an error code
    │   └── RootUnavailable      it never had the root that was asked for, or has pruned it
    ├── SizeClaimBroken          it claimed a large pair, and then sent no such thing
    ├── Preempted                it was slow to send a large pair, and another peer waited to send one
    ├── ValueTooLargeForPeer     a pair does not fit into what it sends, or into what we fetch
    ├── PeerNotReady             it has no complete root to copy
    ├── HeadImplausible          its head has a number that no honest store reaches
    ├── ProofSuspected           a change proof does not hold: the peer lies, or the local content is not at
    │                            the old root
    └── ProofRejected            it sent a proof that does not hold

Errors of ``merkledb`` about the local database (full, damaged, in use) pass through as they are: what to do
about them stands in their own sentence.
"""

import os
import socket
import ssl
from typing import Final, NamedTuple

from merkledb import PicklableError, Reason, Scheme
from syncproto import ErrorCode

# A reason is for one line on a terminal; a transport of somebody else's may raise anything.
MAX_REASON_CHARACTERS: Final = 300
# More causes, one of the other, are a circle.
_MAX_CAUSES: Final = 16


def reason_of(error: BaseException) -> str:
    """Return why a connection failed: what the innermost cause says that says anything.

    What is raised at the top often says nothing, as trio's ``BrokenResourceError`` where TLS failed.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < _MAX_CAUSES:
        causes.append(cause)
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
    reasons = [_own_reason(each) for each in causes if not isinstance(each, BaseExceptionGroup)]
    reason = next((each for each in reversed(reasons) if each), type(causes[-1]).__name__)
    printable = "".join(character if character.isprintable() else " " for character in reason)
    return printable[:MAX_REASON_CHARACTERS]


def _own_reason(error: BaseException) -> str:
    """Return what an error itself says; an error that only its transport knows is named, too."""
    if isinstance(error, ssl.SSLError | socket.gaierror):
        # Their numbers are none of the operating system's.
        return error.strerror or str(error)
    if isinstance(error, OSError):
        return str(error) if error.errno is None else os.strerror(error.errno)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else ""


class PeerFailure(NamedTuple):
    """Why one peer is of no more use.

    Attributes:
        peer: The name of the peer, as the caller gave it.
        error: What it did last.
        has_answered: Whether anything came from it on the last connection that was tried.
    """

    peer: str
    error: "PeerError"
    has_answered: bool = False

    def __str__(self) -> str:
        return f"{self.peer}: {self.error}"


class SyncError(PicklableError):
    """The root of every error that ends a sync on purpose.  What was applied by then is not fetched again."""


class LocalContent(SyncError):
    """The database holds content that was written locally, which the sync would delete."""

    def __init__(self, root: bytes) -> None:
        super().__init__(
            f"the database holds content written locally (root {root.hex()}), which the sync would replace: "
            "sync into another database, or allow it with replace=True"
        )
        self.root = root


class WrongRoot(SyncError):
    """All ranges were applied, and again after the sync began anew, and yet the root is not the target."""

    def __init__(self, expected: bytes, found: bytes) -> None:
        super().__init__(
            f"the local root is {found.hex()}, not the target {expected.hex()}: the database was written "
            "while it was synced; sync again with nothing else writing to it"
        )
        self.expected = expected
        self.found = found


class MachineExhausted(SyncError):
    """The machine has no memory for what is to be done; nothing of it was done."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the machine has no {what} left for the sync: end other programs, or allow it more")
        self.what = what


class ConcurrentWrite(SyncError):
    """Somebody else wrote to the database; the manager then looks again at what it holds, on its own."""

    def __init__(self) -> None:
        super().__init__("somebody else wrote to the database while it was synced: let nothing else write")


class InvalidProgress(SyncError):
    """The stored progress is not something that this release wrote."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the stored progress cannot be read ({detail}): start the sync anew")
        self.detail = detail


class NoPeersLeft(SyncError):
    """No peer is left that can help.

    Attributes:
        failures: Each peer with what it did last.
    """

    sentence = "no peer is left that can help: add peers, or try again later"

    def __init__(self, failures: tuple[PeerFailure, ...]) -> None:
        super().__init__("; ".join([self.sentence, *map(str, failures)]))
        self.failures = failures


class PeerUnreachable(NoPeersLeft):
    """None of the peers could be reached: nothing came from any of them when it was tried last."""

    sentence = "no peer could be reached: check the addresses, and that merklesync runs there, then try again"


class PeersOverloaded(NoPeersLeft):
    """Every peer that could be reached has said for long that it is overloaded."""

    sentence = "every peer that answers is overloaded: try again later, or add peers"


class TargetGone(NoPeersLeft):
    """Peers were reached, and each of them has pruned the target root or never had it.

    What was copied is kept, and serves the next target.
    """

    sentence = "no peer has the target root (any more): ask for a newer root, or add peers that have it"


class PairTooLarge(NoPeersLeft):
    """A pair needs a larger proof than may be fetched.

    Attributes:
        needed_bytes: What the proof would need, as a peer claims.
        max_bytes: The most that may be fetched.
    """

    sentence = "a pair is too large to be fetched: raise the limit for a single proof"

    def __init__(self, failures: tuple[PeerFailure, ...], needed_bytes: int, max_bytes: int) -> None:
        super().__init__(failures)
        self.needed_bytes = needed_bytes
        self.max_bytes = max_bytes


class VerificationFailed(NoPeersLeft):
    """A peer sent a proof that does not hold, and no other peer is left.

    Attributes:
        peer: Who sent it.
        reason: Which rule it breaks.
    """

    sentence = "a peer sent an invalid proof and was dropped: add a peer that is honest"

    def __init__(self, failures: tuple[PeerFailure, ...], peer: str, reason: Reason) -> None:
        super().__init__(failures)
        self.peer = peer
        self.reason = reason


class PeerError(PicklableError):
    """One peer failed at one request or connection; another peer, or another time, may do."""


class ConnectionLost(PeerError):
    """There is no connection to the peer, or it ended."""


class RequestTimeout(PeerError):
    """The peer did not answer in time."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"no answer within {timeout_seconds:.0f} seconds")
        self.timeout_seconds = timeout_seconds


class PeerMisbehaved(PeerError):
    """The peer sent what the protocol does not allow."""


class SchemeDiffers(PeerError):
    """The peer's store has another hasher or branch factor, so its proofs can never hold here."""

    def __init__(self, expected: Scheme, hasher: str, branch_factor: int) -> None:
        super().__init__(
            f"it serves {hasher} with branch factor {branch_factor}, the database has {expected}: "
            "sync into a database of the same scheme"
        )
        self.expected = expected
        self.hasher = hasher
        self.branch_factor = branch_factor


class PeerRefused(PeerError):
    """The peer answered with an error code.

    Attributes:
        code: From the protocol's closed list.
        message: What it said.
        detail: The bytes needed, or the milliseconds to wait; None with other codes.
    """

    def __init__(self, code: ErrorCode, message: str, detail: int | None) -> None:
        super().__init__(f"{code.name.lower().replace('_', ' ')}: {message}")
        self.code = code
        self.message = message
        self.detail = detail

    @property
    def is_overload(self) -> bool:
        """Whether it has only too much to do: it is there, and says when to try again."""
        return self.code is ErrorCode.OVERLOADED


class RootUnavailable(PeerRefused):
    """The peer never had the root that it was asked for, or has pruned it.

    Attributes:
        root: The root.
    """

    def __init__(self, root: bytes, code: ErrorCode, message: str) -> None:
        super().__init__(code, message, None)
        self.root = root


class ValueTooLargeForPeer(PeerError):
    """A pair does not fit into what the peer sends, or into what we fetch.

    Attributes:
        needed_bytes: What the proof would need, as the peer claims.
        max_bytes: The most that it sends, or that we fetch, whichever is less.
    """

    def __init__(self, needed_bytes: int, max_bytes: int) -> None:
        super().__init__(f"a pair needs a proof of {needed_bytes} bytes, over the limit of {max_bytes}")
        self.needed_bytes = needed_bytes
        self.max_bytes = max_bytes


class SizeClaimBroken(PeerError):
    """The peer claimed that a pair needs a large proof, and then did not send one.

    Attributes:
        needed_bytes: What the proof would need, as the peer claimed.
        is_late: Whether it only did not come in time.
    """

    def __init__(self, needed_bytes: int, detail: str, *, is_late: bool = False) -> None:
        super().__init__(f"it claimed that a pair needs {needed_bytes} bytes, and then {detail}")
        self.needed_bytes = needed_bytes
        self.is_late = is_late


class Preempted(PeerError):
    """The peer was slow to send a large pair, and another one waited to send one too."""

    def __init__(self) -> None:
        super().__init__("it was slow to send a large pair, and another peer waited")


class PeerNotReady(PeerError):
    """The peer has no complete root: its own first sync is unfinished."""

    def __init__(self) -> None:
        super().__init__("it has no complete root to show yet")


class HeadImplausible(PeerError):
    """The peer announces a head whose number no honest store reaches."""

    def __init__(self, revision: int, limit: int) -> None:
        super().__init__(
            f"its head has the revision {revision}, above {limit}, which no honest store reaches"
        )
        self.revision = revision
        self.limit = limit


class ProofSuspected(PeerError):
    """A change proof does not hold, which may be due to the local content.

    Attributes:
        failure: What the peer is guilty of if the local content is what it is held to be.
        end: The end of the proof.
    """

    def __init__(self, failure: "ProofRejected", end: bytes | None) -> None:
        super().__init__(f"{failure}, or the local content is not what it is held to be")
        self.failure = failure
        self.end = end


class ProofRejected(PeerError):
    """The peer sent a proof that does not hold."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"invalid proof: {reason}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


def no_peers_left(failures: tuple[PeerFailure, ...]) -> NoPeersLeft:
    """Return the error for a sync in which nothing is expected of any peer: the kind that says most."""
    for name, error, _ in failures:
        if isinstance(error, ProofRejected):
            return VerificationFailed(failures, name, error.reason)
    for _, error, _ in failures:
        if isinstance(error, ValueTooLargeForPeer):
            return PairTooLarge(failures, error.needed_bytes, error.max_bytes)
    if any(isinstance(error, RootUnavailable) for _, error, _ in failures):
        return TargetGone(failures)
    # Of a peer that greeted and then fell silent it is wrong that it could not be reached.
    lost = [isinstance(error, ConnectionLost) and not has_answered for _, error, has_answered in failures]
    if all(lost):
        return PeerUnreachable(failures)
    overloaded = [isinstance(error, PeerRefused) and error.is_overload for _, error, _ in failures]
    if all(map(any, zip(lost, overloaded, strict=True))):
        return PeersOverloaded(failures)
    return NoPeersLeft(failures)
