"""Fetching one piece of work from one peer: reserve memory, ask, verify, and hand the result on.

Nothing that a peer sends is believed before ``verify_range`` has returned; what is believed then is applied
to the database, and what it leaves of the work goes back to the queue.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from manager.budget import ByteBudget
from manager.client import PeerClient
from manager.errors import (
    ClaimNotKept,
    PairRefused,
    PeerMisbehaved,
    PeerRefused,
    ProofRejected,
    RequestTimeout,
)
from manager.ledger import Ledger, rest_of
from manager.limits import Limits, memory_bytes
from manager.processor import Processor
from manager.work import Work
from manager.writer import Writer
from merkledb import InvalidProof, RangeProof, Scheme, VerifiedRange, verify_range
from syncproto import ErrorCode, Hello

# Below this a proof is verified in less time than a thread takes to begin.
THREAD_PROOF_BYTES: Final = 4096
# The turn of a request that never has to give way.
_ANY_TIME: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class Sync:
    """What everybody who works on one sync shares.

    Attributes:
        scheme: Of the database, and so of all peers.
        hello: What we say first to every peer.
        limits: What the sync may use.
        ledger: Its books.
        writer: Where verified ranges go.
        processor: Where proofs are verified.
        random: Where all jitter comes from.
    """

    scheme: Scheme
    hello: Hello
    limits: Limits
    ledger: Ledger
    writer: Writer
    processor: Processor
    random: Random


@dataclass(frozen=True, slots=True)
class _Verified:
    """What one request brought."""

    verified: VerifiedRange
    rest: list[Work]
    proof_bytes: int
    reserved_bytes: int
    reserved_in: ByteBudget


async def fetch(client: PeerClient, work: Work, sync: Sync) -> int:
    """Fetch the beginning of ``work``, as much as one proof holds, and hand it to the writer.

    On an error, and cancelled, nothing has changed and the work is still out.

    Args:
        client: A connection that the peer has greeted.
        work: Taken from the ledger.
        sync: What it belongs to.

    Returns:
        How many pairs it were; 0 when another peer was faster.

    Raises:
        PeerError: The peer did not give a proof that holds.
    """
    try:
        budget = sync.writer.budget
        fetched = await _request(client, work, sync, budget, sync.limits.max_keys, sync.limits.max_bytes)
    except PeerRefused as refusal:
        if refusal.code is not ErrorCode.LIMIT_TOO_SMALL:
            raise
        async with client.large_pair:
            fetched = await _fetch_large_pair(client, work, sync, refusal.detail or 0)
    piece = sync.ledger.accept(work, fetched.verified, fetched.rest, fetched.proof_bytes)
    if piece is None:
        fetched.reserved_in.release(fetched.reserved_bytes)
        return 0
    fetched.reserved_in.release(fetched.reserved_bytes - piece.memory_bytes)
    sync.writer.put(piece, fetched.reserved_in)
    return len(piece.verified)


async def _fetch_large_pair(client: PeerClient, work: Work, sync: Sync, needed_bytes: int) -> _Verified:
    """Fetch the single first pair of ``work``, which by the peer's claim needs a proof above the usual size.

    The peer that makes the claim has to stand by it.  It may correct it once, for it is asked for one pair
    now and was asked for more before.
    """
    _judge_claim(client, sync, needed_bytes, sync.limits.max_bytes)
    try:
        return await _request_large_pair(client, work, sync, needed_bytes)
    except PeerRefused as refusal:
        if refusal.code is not ErrorCode.LIMIT_TOO_SMALL:
            raise
        corrected_bytes = refusal.detail or 0
    _judge_claim(client, sync, corrected_bytes, needed_bytes)
    try:
        return await _request_large_pair(client, work, sync, corrected_bytes)
    except PeerRefused as refusal:
        if refusal.code is not ErrorCode.LIMIT_TOO_SMALL:
            raise
        raise ClaimNotKept(corrected_bytes, "refused that many") from refusal


def _judge_claim(client: PeerClient, sync: Sync, needed_bytes: int, refused_bytes: int) -> None:
    """Raise unless it makes sense to ask for ``needed_bytes`` after the peer refused ``refused_bytes``."""
    sent = client.peer_hello.max_bytes if client.peer_hello is not None else 0
    ceiling = min(sync.limits.max_proof_bytes, sent)
    if needed_bytes > ceiling:
        raise PairRefused(needed_bytes, ceiling)
    if needed_bytes <= refused_bytes:
        raise PeerMisbehaved(f"it refused {refused_bytes} bytes as too few, and then named {needed_bytes}")


async def _request_large_pair(client: PeerClient, work: Work, sync: Sync, needed_bytes: int) -> _Verified:
    """Ask for a proof of one pair that needs so many bytes; give way to others that wait to do the same."""
    line = sync.writer.large_pairs
    try:
        fetched = await _request(client, work, sync, line.budget, 1, needed_bytes, line.turn())
    except RequestTimeout as error:
        raise ClaimNotKept(needed_bytes, f"sent {error}") from error
    if fetched.proof_bytes < needed_bytes // 2:
        line.budget.release(fetched.reserved_bytes)
        raise ClaimNotKept(needed_bytes, f"sent a proof of {fetched.proof_bytes}")
    return fetched


async def _request(
    client: PeerClient,
    work: Work,
    sync: Sync,
    budget: ByteBudget,
    max_keys: int,
    max_bytes: int,
    turn: AbstractContextManager[None] = _ANY_TIME,
) -> _Verified:
    """Ask for a proof and verify it; the memory for it stays reserved unless an error is raised."""
    reserved = memory_bytes(max_bytes, max_keys)
    await budget.reserve(reserved)
    try:
        with turn:
            proof = await client.get_range(
                sync.ledger.target,
                work.start or None,
                work.end,
                max_keys=max_keys,
                max_bytes=max_bytes,
            )
        verified, rest = await _verify_somewhere(proof, work, sync, max_keys)
    except BaseException:
        budget.release(reserved)
        raise
    return _Verified(verified, rest, len(proof), reserved, budget)


async def _verify_somewhere(
    proof: bytes, work: Work, sync: Sync, max_keys: int
) -> tuple[VerifiedRange, list[Work]]:
    """Verify a proof, in a thread if it is large."""
    verify = partial(_verify, proof, work, sync.ledger.target, sync.scheme, max_keys)
    return verify() if len(proof) < THREAD_PROOF_BYTES else await sync.processor.run(verify)


def _verify(
    data: bytes, work: Work, target: bytes, scheme: Scheme, max_keys: int
) -> tuple[VerifiedRange, list[Work]]:
    """Return what a proof shows and what it leaves of the work.  Pure.

    Raises:
        ProofRejected: It does not hold.
    """
    try:
        proof = RangeProof.decode(data)
        verified = verify_range(proof, target, work.start or None, work.end, scheme=scheme, max_keys=max_keys)
    except InvalidProof as error:
        raise ProofRejected(error.reason, error.detail) from error
    return verified, rest_of(work, verified)
