"""From an answer of a peer to what it proves: nothing else leads from one to the other.

A range proof is judged by itself.  A change proof is judged against the local content, which it shows to be
at the new root when its changes are made; so when it does not hold, the content may be to blame, unless the
proof is malformed whatever the content.

Runs in threads.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from manager.errors import ConcurrentWrite, ProofRejected, ProofSuspected
from manager.scheduling.assignment import VerificationResult, result_of
from manager.scheduling.work import Work
from merkledb import ChangeProof, Database, InvalidProof, RangeProof, Reason, Scheme, verify_range
from syncproto import Changes, Range

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

    @property
    def start(self) -> bytes | None:
        """The first key wanted; None from the first."""
        return self.work.start or None


def verify_answer(
    answer: Range | Changes, order: ProofRequest, database: Database, tip_root: Callable[[], bytes]
) -> VerificationResult:
    """Return what an answer shows and what it leaves of the work.

    Args:
        answer: As it came.
        order: What was asked for.
        database: What a change proof is verified against.
        tip_root: Says which root the database is held to have.

    Raises:
        ProofRejected: It does not hold.
        ProofSuspected: It does not hold, or the local content is not at the old root.
        ConcurrentWrite: It does not hold, and somebody else has written to the database.
        MerkleDBError: The database cannot be read.
    """
    if isinstance(answer, Range):
        return verify_range_answer(answer, order, database.scheme)
    _require_size(answer, order)
    proof = _decode_changes(answer.proof)
    try:
        verified = database.verify_changes(
            proof, order.root, order.start, order.work.end, max_keys=order.max_keys
        )
    except InvalidProof as error:
        if database.tip_root != tip_root():
            raise ConcurrentWrite from error
        failure = ProofRejected(error.reason, error.detail)
        if error.reason in _MAY_BE_OURS:
            raise ProofSuspected(failure, proof.end) from error
        raise failure from error
    return result_of(order.work, verified)


def verify_range_answer(answer: Range, order: ProofRequest, scheme: Scheme) -> VerificationResult:
    """Return what a range proof shows and what it leaves of the work.  Pure.

    Raises:
        ProofRejected: It does not hold.
    """
    _require_size(answer, order)
    try:
        proof = RangeProof.decode(answer.proof)
        verified = verify_range(
            proof, order.root, order.start, order.work.end, scheme=scheme, max_keys=order.max_keys
        )
    except InvalidProof as error:
        raise ProofRejected(error.reason, error.detail) from error
    return result_of(order.work, verified)


def has_no_changes(
    data: bytes, root: bytes, start: bytes | None, end: bytes | None, database: Database
) -> bool:
    """Return whether a change proof shows that the local content of [start, end] is at ``root`` already."""
    try:
        verified = database.verify_changes(_decode_changes(data), root, start, end, max_keys=1)
    except (InvalidProof, ProofRejected):
        return False
    return verified.complete and not verified.keys


def _require_size(answer: Range | Changes, order: ProofRequest) -> None:
    """Raise unless an answer is as small as was asked for: memory was reserved for no more."""
    if len(answer.proof) > order.max_bytes:
        raise ProofRejected(Reason.TOO_MANY_BYTES, f"{len(answer.proof)} of at most {order.max_bytes}")


def _decode_changes(data: bytes) -> ChangeProof:
    try:
        return ChangeProof.decode(data)
    except InvalidProof as error:
        raise ProofRejected(error.reason, error.detail) from error
