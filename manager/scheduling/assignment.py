"""Work that is out: who was sent for it, and how whoever is slower is called off.

What is out is with one peer, and with more once it is overdue.  An assignment belongs to one peer and one
time: work that was called off and is taken again is another assignment, even if the same peer takes it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from manager.peers.health import FULL_PROGRESS
from manager.scheduling.subdivide import subdivide
from manager.scheduling.work import Work
from merkledb import VerifiedChanges, VerifiedRange


@dataclass(eq=False, slots=True)
class Assignment:
    """What one peer was sent for.

    Attributes:
        peer: Who was sent.
        out: What it was sent for, with all who were.
        scope: Cancelled when it is called off.
        is_outrun: Whether it was called off for another peer was faster.
    """

    peer: Hashable
    out: "InFlight"
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_outrun: bool = False

    @property
    def work(self) -> Work:
        """What it was sent for."""
        return self.out.work


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
    """

    verified: Verified
    rest: list[Work]
    memory_bytes: int


class Piece:
    """A verified range on its way to the disk.

    Args:
        verified: What to apply.
        before: The range as it was: with its share of all the work, and the root that it is still at.
        proof_bytes: The size of the proof that it came in.
        memory_bytes: About how much memory it takes.

    Attributes:
        before: As given.
        proof_bytes: As given.
        memory_bytes: As given.
        root: That the range is at when the piece is on disk.
        keys: Pairs that it holds, if they are those of a range.
        changes: Changes that it holds.
    """

    __slots__ = ("_verified", "before", "changes", "keys", "memory_bytes", "proof_bytes", "root")

    def __init__(self, verified: Verified, before: Work, proof_bytes: int, memory_bytes: int) -> None:
        self._verified: Verified | None = verified
        self.before = before
        self.proof_bytes = proof_bytes
        self.memory_bytes = memory_bytes
        self.root = verified.root
        is_range = isinstance(verified, VerifiedRange)
        self.keys, self.changes = (len(verified), 0) if is_range else (0, len(verified))

    @property
    def after(self) -> Work:
        """The range as it is when the piece is on disk."""
        return self.before._replace(root=self.root, suspicion=None)

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


def count(pieces: Sequence[Piece]) -> tuple[int, int, int]:
    """Return how many pairs, changes, and bytes of proofs there are in pieces."""
    keys = sum(piece.keys for piece in pieces)
    changes = sum(piece.changes for piece in pieces)
    return keys, changes, sum(piece.proof_bytes for piece in pieces)


def result_of(work: Work, verified: Verified) -> VerificationResult:
    """Return what a verified range says of the work that it was asked for; pure, so any thread may."""
    return VerificationResult(verified, rest_of(work, verified), verified.memory_bytes)


def rest_of(work: Work, verified: Verified) -> list[Work]:
    """Return what a verified range leaves of the work that it was asked for; pure, so any thread may."""
    if verified.complete:
        return []
    scheme = verified.scheme
    keys = verified.keys
    if verified.end is not None and keys[-1:] != (verified.end,):
        # A change proof may end after its last change.
        keys = (*keys, verified.end)
    rest = subdivide(
        work,
        keys,
        verified.next_keys,
        branch_factor=scheme.branch_factor,
        max_key_bytes=scheme.max_key_bytes,
    )
    return [piece._replace(root=work.root) for piece in rest]


def progress_of(verified: Verified, max_keys: int, max_bytes: int) -> float:
    """Return how much of what was asked for an answer holds, 0 to 1; 1 if it reaches the requested end.

    Changes that change nothing do not count: whoever sends them could send any number.
    """
    if verified.complete:
        return 1.0
    count = len(verified)
    if isinstance(verified, VerifiedChanges) and verified.effective < count:
        return min(1.0, verified.effective / max_keys)
    filling = count / max_keys
    if filling < FULL_PROGRESS:
        # Few pairs can be as many bytes as may be; where there are many, nobody need count.
        size = sum(map(len, verified.keys)) + verified.value_bytes
        filling = max(filling, size / max_bytes)
    return min(1.0, filling)
