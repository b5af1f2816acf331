"""Verified ranges on their way from a peer to the disk, and what they leave of the work.

A piece knows the range both as it was and as it will be, so it can be applied as well as dropped: a piece for
an older goal brings its range one step further, but one that leads away from the goal is of no use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from manager.split import split_rest
from manager.work import Work
from merkledb import VerifiedChanges, VerifiedRange

Verified = VerifiedRange | VerifiedChanges


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A verified range on its way to the disk.

    Attributes:
        verified: What to apply.
        before: The range as it was: with its share of all the work, and the root that it is still at.
        proof_bytes: The size of the proof that it came in.
        memory_bytes: About how much memory it takes.
    """

    verified: Verified
    before: Work
    proof_bytes: int
    memory_bytes: int

    @property
    def after(self) -> Work:
        """The range as it is when the piece is on disk."""
        return self.before._replace(root=self.verified.root, doubt=None)


def count(pieces: Sequence[Piece]) -> tuple[int, int, int]:
    """Return how many pairs, changes, and bytes of proofs there are in pieces."""
    keys = sum(len(piece.verified) for piece in pieces if isinstance(piece.verified, VerifiedRange))
    changes = sum(len(piece.verified) for piece in pieces if isinstance(piece.verified, VerifiedChanges))
    return keys, changes, sum(piece.proof_bytes for piece in pieces)


def rest_of(work: Work, verified: Verified) -> list[Work]:
    """Return what a verified range leaves of the work that it was asked for; pure, so any thread may."""
    if verified.complete:
        return []
    scheme = verified.scheme
    rest = split_rest(
        work,
        verified.keys,
        verified.next_keys,
        branch_factor=scheme.branch_factor,
        max_key_bytes=scheme.max_key_bytes,
    )
    return [piece._replace(root=work.root) for piece in rest]
