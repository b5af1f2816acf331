"""What is between a peer and the disk: work that peers were sent for, and what came of it.

What is out is with one peer, and with more once it is overdue.  An assignment belongs to one peer and one
time: work that was called off and is taken again is another assignment, even if the same peer takes it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from manager.keyspace.range_map import RangeMap
from manager.memory import ByteBudget
from manager.scheduling.backlog import Work
from merkledb import VerifiedChanges, VerifiedRange


class HeldAnswer(NamedTuple):
    """What an answer says of its peer: how much of what was asked for it holds, and how long it took."""

    progress: float
    seconds: float


@dataclass(eq=False, slots=True)
class Assignment:
    """What one peer was sent for.

    Attributes:
        peer: Who was sent.
        out: What it was sent for, with all who were.
        taken: When, in trio's seconds.
        scope: Cancelled when it is called off.
        is_outrun: Whether it was called off for another peer was faster.
        is_asked: Whether the request was sent: before, it waits for memory.
        held: The answer that has come, and waits for another peer to bring more of the same work; or None.
        patience_seconds: For how long that peer may have the work, by then: as long as this one needs for a
            full answer's worth, so that waiting in vain at most doubles the time.
    """

    peer: Hashable
    out: "InFlight"
    taken: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_outrun: bool = False
    is_asked: bool = False
    held: HeldAnswer | None = None
    patience_seconds: float = float("inf")


@dataclass(eq=False, slots=True)
class InFlight:
    """Work that is out.

    Attributes:
        work: What was taken.
        taken: When somebody took it last, in trio's seconds.
        assignments: Who works on it.
    """

    work: Work
    taken: float = 0.0
    assignments: list[Assignment] = field(default_factory=list)


Verified = VerifiedRange | VerifiedChanges


class VerificationResult(NamedTuple):
    """What the verification of an answer found.

    Attributes:
        verified: What the answer shows.
        rest: What it leaves of the work that it was asked for.
        memory_bytes: About how much memory ``verified`` takes; counting that looks at every pair.
        proof_bytes: The size of its proof.
        content_bytes: About how many bytes of a proof its content takes, without the boundary.
        filling: How much of the number that was asked for it holds, 0 to 1.
        fullness: How much of what was asked for, in number or bytes, whichever limit is nearer, 0 to 1.
    """

    verified: Verified
    rest: list[Work]
    memory_bytes: int
    proof_bytes: int
    content_bytes: int
    filling: float
    fullness: float

    @property
    def progress(self) -> float:
        """How much of what was asked for it holds, 0 to 1; 1 if it reaches the requested end."""
        return 1.0 if self.verified.complete else self.fullness


class Piece:
    """A verified range on its way to the disk.

    Args:
        result: What was verified.
        before: The range as it was: with its share of all the work, and the root that it is still at.
        budget: Where its memory is reserved until the piece is on disk, or dropped.
        since: When it was verified, in trio's seconds.

    Attributes:
        before, budget, since: As given.
        root: That the range is at when the piece is on disk.
        keys: Pairs that it holds, if they are those of a range.
        changes: Changes that it holds.
        proof_bytes: The size of the proof that it came in.
        memory_bytes: About how much memory it takes.
    """

    def __init__(self, result: VerificationResult, before: Work, budget: ByteBudget, since: float) -> None:
        verified = result.verified
        self._verified: Verified | None = verified
        self.before = before
        self.budget = budget
        self.since = since
        self.root = verified.root
        is_range = isinstance(verified, VerifiedRange)
        self.keys, self.changes = (len(verified), 0) if is_range else (0, len(verified))
        self.proof_bytes = result.proof_bytes
        self.memory_bytes = result.memory_bytes

    def take(self) -> Verified:
        """Return what to apply, and let go of it: who takes it is the last to hold it.

        To be called once, unless it is put back.
        """
        verified, self._verified = self._verified, None
        assert verified is not None
        return verified

    def put_back(self, verified: Verified) -> None:
        """Hold again what was taken, for it could not be applied yet."""
        self._verified = verified


class PlannedTransaction(NamedTuple):
    """What one transaction of the writer puts on disk.

    Attributes:
        pieces: Of one root, ascending.
        ranges: The map as it is when they are on disk.
        progress: The bytes to save with them; None when all will be at the pivot.
        revision: The number that their root has at its source; None when unknown.
    """

    pieces: list[Piece]
    ranges: RangeMap
    progress: bytes | None
    revision: int | None


def count(pieces: Sequence[Piece]) -> tuple[int, int, int]:
    """Return how many pairs, changes, and bytes of proofs there are in pieces."""
    keys = changes = byte_count = 0
    for piece in pieces:
        keys += piece.keys
        changes += piece.changes
        byte_count += piece.proof_bytes
    return keys, changes, byte_count
