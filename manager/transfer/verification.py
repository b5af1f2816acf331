"""From an answer of a peer to what it proves: nothing else leads from one to the other.

A range proof is judged by itself.  A change proof is judged against the local content, which it shows to be
at the new root when its changes are made; so when it does not hold, the content may be to blame, unless the
proof is malformed whatever the content.

Runs in threads.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from manager.errors import ConcurrentWrite, ProofRejected, ProofSuspected
from manager.peers.throughput import FULL_PROGRESS
from manager.scheduling.assignment import VerificationResult, Verified
from manager.scheduling.backlog import Work
from manager.scheduling.subdivide import subdivide
from merkledb import ChangeProof, Database, InvalidProof, RangeProof, Reason, VerifiedChanges, verify_range
from syncproto import Changes, Range

# What the encoding of a pair takes beside key and value.
_PAIR_OVERHEAD_BYTES: Final = 4
# What an honest change proof can be rejected for, when the local content is not at the old root.
_MAY_BE_OURS: Final = frozenset({Reason.WRONG_ROOT, Reason.ITEM_BELOW_STUB, Reason.STUB_NOT_DIRECT})


class ProofRequest(NamedTuple):
    """What a peer is asked for.

    Attributes:
        work: The range.
        old_root: What the local content is held to be at; None when a range proof is asked for.
        root: The root that is asked for.
        max_keys: Pairs, or changed keys, at most.
        max_bytes: Bytes of the encoded proof at most.
    """

    work: Work
    old_root: bytes | None
    root: bytes
    max_keys: int
    max_bytes: int


def verify_answer(
    answer: Range | Changes, request: ProofRequest, database: Database, tip_root: Callable[[], bytes]
) -> VerificationResult:
    """Return what an answer shows and what it leaves of the work.

    Args:
        answer: As it came.
        request: What was asked for.
        database: What a change proof is verified against; a range proof needs no more of it than its scheme.
        tip_root: Says which root the database is held to have.

    Raises:
        ProofRejected: It does not hold.
        ProofSuspected: It does not hold, or the local content is not at the old root.
        ConcurrentWrite: It does not hold, and somebody else has written to the database.
        MerkleDBError: The database cannot be read.
    """
    work, proof_bytes = request.work, len(answer.proof)
    if proof_bytes > request.max_bytes:
        # Memory was reserved for no more.
        raise ProofRejected(Reason.TOO_MANY_BYTES, f"{proof_bytes} of at most {request.max_bytes}")
    start, changes = work.start or None, None
    verified: Verified
    try:
        if isinstance(answer, Range):
            verified = verify_range(
                RangeProof.decode(answer.proof),
                request.root,
                start,
                work.end,
                scheme=database.scheme,
                max_keys=request.max_keys,
            )
        else:
            changes = ChangeProof.decode(answer.proof)
            verified = database.verify_changes(
                changes, request.root, start, work.end, max_keys=request.max_keys
            )
    except InvalidProof as error:
        failure = ProofRejected(error.reason, error.detail)
        if changes is not None and database.tip_root != tip_root():
            # It was held against content that is not what it is believed to be, so it says nothing.
            raise ConcurrentWrite from error
        if changes is not None and error.reason in _MAY_BE_OURS:
            raise ProofSuspected(failure, changes.end) from error
        raise failure from error
    useful, content_bytes = content_of(verified, proof_bytes, request.max_keys)
    filling = useful / request.max_keys
    fullness = min(max(filling, content_bytes / request.max_bytes), 1.0)
    return VerificationResult(
        verified,
        rest_of(work, verified),
        verified.memory_bytes,
        proof_bytes,
        content_bytes,
        filling,
        fullness,
    )


def rest_of(work: Work, verified: Verified) -> list[Work]:
    """Return what a verified range leaves of the work that it was asked for; pure."""
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


def content_of(verified: Verified, proof_bytes: int, max_keys: int) -> tuple[int, int]:
    """Return how many pairs or changes an answer brings, and about how many bytes of a proof they take.

    Changes that change nothing do not count: whoever sends them could send any number.
    """
    count = len(verified)
    if isinstance(verified, VerifiedChanges) and verified.effective < count:
        return verified.effective, 0
    if count >= max_keys * FULL_PROGRESS:
        # The boundary is next to nothing of such a proof, and so many pairs need not be looked at.
        return count, proof_bytes
    # Of a small proof the boundary is most, and the next pairs bring no other one with them.
    return count, sum(map(len, verified.keys)) + verified.value_bytes + count * _PAIR_OVERHEAD_BYTES


def has_no_changes(
    data: bytes, root: bytes, start: bytes | None, end: bytes | None, database: Database
) -> bool:
    """Return whether a change proof shows that the local content of [start, end] is at ``root`` already."""
    try:
        verified = database.verify_changes(ChangeProof.decode(data), root, start, end, max_keys=1)
    except InvalidProof:
        return False
    return verified.complete and not verified.keys
