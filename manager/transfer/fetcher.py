"""Fetching one piece of work from one peer: reserve memory, ask, verify, and hand the result on.

Nothing that a peer sends is believed before it is verified (see ``verification``); what is believed then is
applied to the database, and what it leaves of the work goes back to the scheduler.

Where the root of the local content is known, changes from it are asked for; a peer whose history does not
reach back to it sends a range instead, and is asked for ranges from then on.

A change proof that does not hold says that the peer lies, or that the local content is not at the root that
it is held to be at: for a damaged disk no honest peer must be dropped, and for a lie no content fetched
again for ever.  So the work is *suspected*, and whoever takes it next, preferably another peer, is first
asked for a proof that nothing changes from the old root to the old root.  If that holds, the local content
is what it is held to be, the suspected proof was a lie, and its sender is dropped.  Nobody can forge it: it
is verified against the local content and the old root.  If it does not hold, or nobody can give it, nobody
is blamed, and the range is copied in full, which is right in either case.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, NamedTuple

import trio

from manager.errors import (
    PeerMisbehaved,
    PeerRefused,
    ProofSuspected,
    RequestTimeout,
    SizeClaimBroken,
    SyncError,
    ValueTooLargeForPeer,
)
from manager.executor import SerialExecutor
from manager.known_peer import KnownPeer
from manager.limits import Limits, change_proof_memory_bytes, range_proof_memory_bytes
from manager.memory import ByteBudget
from manager.peers.client import PeerClient
from manager.peers.throughput import FULL_PROGRESS
from manager.scheduling.assignment import Assignment, HeldAnswer, VerificationResult
from manager.scheduling.backlog import Suspicion, Work
from manager.scheduling.scheduler import Scheduler
from manager.transfer.sync_writer import SyncWriter
from manager.transfer.verification import ProofRequest, has_no_changes, verify_answer
from merkledb import Database, MerkleDBError, VerifiedChanges, VerifiedRange
from syncproto import Changes, ErrorCode, Hello, Range

# Below this a range proof is verified in less time than a thread takes to begin.
THREAD_PROOF_BYTES: Final = 4096
# More requests than usual go to peers far away while no more than this part of the memory is reserved for
# answers: eight range proofs fit into it, and who only seems to be far away leaves others enough to go on.
_UNCROWDED: Final = 3 / 8
# A peer that has sent so many change proofs in a row that change nothing and end early is asked for ranges,
# which hold a pair at least.  A server that looks at so many rows of its history for each may have no change
# to show; one that only pretends to could go on for as long as there are possible keys.
MAX_EMPTY_ANSWERS: Final = 8
# The turn of a request that never has to give way.
_ANY_TIME: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class Sync:
    """What everybody who works on one sync shares.

    Attributes:
        database: What is synced; touched in the executor only.
        hello: What we say first to every peer.
        limits: What the sync may use.
        scheduler: What is left to fetch, in flight, verified, and on disk.
        writer: Where verified ranges go.
        executor: Where proofs are verified.
        random: Where all jitter comes from.
        trusts_heads: Whether what peers announce becomes the target.
        subscribes: Whether peers are asked for their heads.
        unbans: Whether a peer that was dropped is tried again after a long time.
        is_outdone: Whether a peer shall leave work to another that gives much more.
        report_invalid_proof: Called with a suspicion that was a lie.
        heard: Called when a peer has said what its head is.
        fail: Called with an error that ends the sync.
    """

    database: Database
    hello: Hello
    limits: Limits
    scheduler: Scheduler
    writer: SyncWriter
    executor: SerialExecutor
    random: Random
    trusts_heads: bool
    subscribes: bool
    unbans: bool
    is_outdone: Callable[[KnownPeer], bool]
    report_invalid_proof: Callable[[Suspicion], None]
    heard: Callable[[], None]
    fail: Callable[[SyncError | MerkleDBError], None]

    @property
    def is_crowded(self) -> bool:
        """Whether no peer is to have more requests in flight than usual, for the sake of the others."""
        return self.writer.requested_bytes > self.limits.buffered_bytes * _UNCROWDED


class Delivery(NamedTuple):
    """What an assignment came to.

    Attributes:
        keys: How many pairs and changes came; 0 when another peer was faster.
        progress: How much of what was asked for they are, 0 to 1; None where nothing came that says
            anything of the peer.
        seconds: How long it took, until it was verified; None where nothing came.
    """

    keys: int
    progress: float | None
    seconds: float | None


_NOTHING: Final = Delivery(0, None, None)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What one request brought; its memory stays reserved until it is accepted."""

    result: VerificationResult
    reserved_bytes: int
    reserved_in: ByteBudget


@dataclass(slots=True)
class _Attempt:
    """One peer's attempt at one piece of work.

    Attributes:
        client: The connection to the peer.
        assignment: What it was sent for.
        work: The piece.
        sync: What it belongs to.
        old_root: What changes are asked from; None to ask for a range.
        root: The root that is asked for: the pivot at the moment of the first request, None before that.
        began: When the attempt began, in trio's seconds.
        dispelled: A suspicion that the peer has dispelled: up to its end, the content is what it is held to
            be.
    """

    client: PeerClient
    assignment: Assignment
    work: Work
    sync: Sync
    old_root: bytes | None
    root: bytes | None = None
    began: float = field(default_factory=trio.current_time)
    dispelled: Suspicion | None = None


async def fetch(client: PeerClient, assignment: Assignment, sync: Sync) -> Delivery:
    """Fetch the beginning of an assignment, as much as one proof holds, and hand it to the writer.

    On an error, and cancelled, nothing has changed and the work is still out.  Runs in the event loop; what
    takes long is verified in the executor.

    Args:
        client: A connection that the peer has greeted.
        assignment: Taken from the scheduler.
        sync: What it belongs to.

    Returns:
        What came of it.

    Raises:
        PeerError: The peer did not give a proof that holds.
        ConcurrentWrite: Somebody else has written to the database.
        MerkleDBError: The database cannot be read.
    """
    work, limits = assignment.out.work, sync.limits
    old_root = None if work.root in client.forgotten_roots else work.root
    attempt = _Attempt(client, assignment, work, sync, old_root)
    if work.suspicion is not None and not await _examine(attempt, work.suspicion):
        return _NOTHING
    asked_bytes, has_grown = client.throughput.max_bytes, False
    max_keys = limits.max_keys if attempt.old_root is None else limits.max_changes
    while True:
        try:
            fetched = await _request(attempt, sync.writer.budget, max_keys, asked_bytes)
        except PeerRefused as refusal:
            if refusal.code is not ErrorCode.LIMIT_TOO_SMALL:
                raise
            needed_bytes = refusal.detail or 0
        else:
            return await _accept(attempt, fetched)
        if has_grown or not asked_bytes < needed_bytes <= limits.max_bytes:
            break
        # The pair is too large for the line to carry it soon, and no large one: it is asked for once more.
        asked_bytes, has_grown = needed_bytes, True
    async with client.large_value:
        return await _accept(attempt, await _fetch_large_pair(attempt, needed_bytes, asked_bytes))


async def _request(
    attempt: _Attempt,
    budget: ByteBudget,
    max_keys: int,
    max_bytes: int,
    turn: AbstractContextManager[None] = _ANY_TIME,
) -> _Fetched:
    """Reserve memory, ask for a proof and verify it; the memory stays reserved unless an error is raised."""
    client, work, old_root = attempt.client, attempt.work, attempt.old_root
    memory_bytes = range_proof_memory_bytes if old_root is None else change_proof_memory_bytes
    reserved = memory_bytes(max_bytes, max_keys)
    # A worker that waits on would keep the session from opening another connection.
    with client.until_closing():
        await budget.reserve(reserved)
    try:
        if attempt.root is None:
            # Only now, for the pivot may have moved on while memory was waited for.
            pivot = attempt.sync.scheduler.pivots.pivot
            assert pivot is not None
            attempt.root = pivot.root
        request = ProofRequest(work, old_root, attempt.root, max_keys, max_bytes)
        start = work.start or None
        attempt.assignment.is_asked = True
        with turn:
            answer = await client.ask(
                request.root, start, work.end, max_keys=max_keys, max_bytes=max_bytes, old_root=old_root
            )
        if old_root is not None and isinstance(answer, Range):
            client.forget_root(old_root)
        result = await _verify(attempt, answer, request)
    except BaseException:
        budget.release(reserved)
        raise
    _note_empty(attempt, result.verified)
    return _Fetched(result, reserved, budget)


async def _verify(attempt: _Attempt, answer: Range | Changes, request: ProofRequest) -> VerificationResult:
    """Verify a proof: in the executor if it is large, or if the database is needed."""
    sync = attempt.sync
    verify = partial(verify_answer, answer, request, sync.database, sync.writer.tip_root_now)
    if isinstance(answer, Range) and len(answer.proof) < THREAD_PROOF_BYTES:
        return verify()
    try:
        return await sync.executor.run(verify)
    except ProofSuspected as suspected:
        if attempt.assignment.scope.cancel_called:
            # Another peer was faster, and by now the content may be where its proof has brought it.
            await trio.lowlevel.checkpoint()
        if attempt.dispelled is not None and reaches(attempt.dispelled.end, suspected.end):
            raise suspected.failure from suspected
        raise


def _note_empty(attempt: _Attempt, verified: VerifiedRange | VerifiedChanges) -> None:
    """Count change proofs that changed nothing and ended early; after too many, ask for ranges."""
    client = attempt.client
    is_empty = isinstance(verified, VerifiedChanges) and not verified.complete and not verified.effective
    client.empty_answers = client.empty_answers + 1 if is_empty else 0
    if client.empty_answers >= MAX_EMPTY_ANSWERS and attempt.old_root is not None:
        client.empty_answers = 0
        client.forget_root(attempt.old_root)


async def _accept(attempt: _Attempt, fetched: _Fetched) -> Delivery:
    """Hand what came to the writer, and give back the memory that it does not need.

    Cancelled, which is only while it is held, nothing has changed.
    """
    sync, budget, result = attempt.sync, fetched.reserved_in, fetched.result
    throughput, seconds = attempt.client.throughput, trio.current_time() - attempt.began
    throughput.note_fullness(result.fullness, seconds, reaches_end=result.verified.complete)
    attempt.assignment.patience_seconds = throughput.full_answer_seconds
    reserved = fetched.reserved_bytes
    if result.progress < FULL_PROGRESS:
        # What is held keeps no memory that the peer may need which it is held for.
        budget.release(reserved - result.memory_bytes)
        reserved = result.memory_bytes
        try:
            attempt.assignment.held = HeldAnswer(result.progress, seconds)
            await _hold(attempt.assignment, sync.scheduler)
        except trio.Cancelled:
            budget.release(reserved)
            raise
    piece = sync.scheduler.accept(attempt.assignment, result, budget)
    if piece is None:
        # Another peer was faster.
        budget.release(reserved)
        return Delivery(0, result.progress, seconds)
    budget.release(reserved - piece.memory_bytes)
    return Delivery(piece.keys + piece.changes, result.progress, seconds)


async def _hold(assignment: Assignment, scheduler: Scheduler) -> None:
    """Wait with an answer that holds little, while another peer may bring more of the same work.

    Accepted at once, it would throw away what the other has under way: an answer that comes soon and holds
    next to nothing would always win.  Where all who have the work hold an answer, the last one is accepted.
    """
    # Those that hold an answer already look again.
    scheduler.wake()
    while not scheduler.is_closed:
        deadline = scheduler.work.awaited_until(assignment)
        if deadline <= trio.current_time():
            return
        await scheduler.wait_until(deadline)


# Suspicions.


async def _examine(attempt: _Attempt, suspicion: Suspicion) -> bool:
    """Find out who is to blame for a change proof that did not hold; return whether work is left."""
    work, sync = attempt.work, attempt.sync
    assert work.root is not None
    if not await _is_unchanged(attempt, work.root, suspicion):
        attempt.old_root = None
        return True
    attempt.dispelled = suspicion
    sync.scheduler.work.clear_suspicion(attempt.assignment)
    sync.report_invalid_proof(suspicion)
    pivot = sync.scheduler.pivots.pivot
    return pivot is None or pivot.root != work.root


async def _is_unchanged(attempt: _Attempt, root: bytes, suspicion: Suspicion) -> bool:
    """Return whether the peer can show that the local content is at ``root``."""
    sync, budget = attempt.sync, attempt.sync.writer.budget
    start, max_bytes = attempt.work.start or None, sync.limits.max_bytes
    reserved = change_proof_memory_bytes(max_bytes, 1)
    with attempt.client.until_closing():
        await budget.reserve(reserved)
    try:
        answer = await attempt.client.ask(
            root, start, suspicion.end, max_keys=1, max_bytes=max_bytes, old_root=root
        )
        if isinstance(answer, Range):
            return False
        check = partial(has_no_changes, answer.proof, root, start, suspicion.end, sync.database)
        return await sync.executor.run(check)
    except PeerRefused as refusal:
        if refusal.is_overload:
            # It has not looked, so it says nothing of the content: the suspicion stays.
            raise
        return False
    finally:
        budget.release(reserved)


# Large pairs.


async def _fetch_large_pair(attempt: _Attempt, needed_bytes: int, refused_bytes: int) -> _Fetched:
    """Fetch the single first pair, which by the peer's claim needs a proof above the usual size.

    The peer that makes the claim has to stand by it.  It may correct it once, for it is asked for one pair
    now and was asked for more before; and once more where changes are asked for, because it may have pruned
    the old root since, and then speaks of the first pair instead of the first change.
    """
    for _ in range(2 if attempt.old_root is None else 3):
        _judge_claim(attempt, needed_bytes, refused_bytes)
        try:
            return await _request_large_pair(attempt, needed_bytes)
        except PeerRefused as refusal:
            if refusal.code is not ErrorCode.LIMIT_TOO_SMALL:
                raise
            refused_bytes, needed_bytes = needed_bytes, refusal.detail or 0
    raise SizeClaimBroken(refused_bytes, "refused that many")


def _judge_claim(attempt: _Attempt, needed_bytes: int, refused_bytes: int) -> None:
    """Raise unless it makes sense to ask for ``needed_bytes`` after ``refused_bytes`` were refused."""
    hello = attempt.client.peer_hello
    ceiling = min(attempt.sync.limits.max_proof_bytes, hello.max_bytes if hello is not None else 0)
    if needed_bytes > ceiling:
        raise ValueTooLargeForPeer(needed_bytes, ceiling)
    if needed_bytes <= refused_bytes:
        raise PeerMisbehaved(f"it refused {refused_bytes} bytes as too few, and then named {needed_bytes}")


async def _request_large_pair(attempt: _Attempt, needed_bytes: int) -> _Fetched:
    """Ask for a proof of one pair that needs so many bytes; give way to others that wait to do so."""
    lane = attempt.sync.writer.large_values
    try:
        fetched = await _request(attempt, lane.budget, 1, needed_bytes, lane.turn())
    except RequestTimeout as error:
        raise SizeClaimBroken(needed_bytes, f"sent {error}", is_late=True) from error
    # A range instead of changes is no answer to what the claim was about, and holds all the same.
    is_another_kind = attempt.old_root is not None and isinstance(fetched.result.verified, VerifiedRange)
    if fetched.result.proof_bytes < needed_bytes // 2 and not is_another_kind:
        lane.budget.release(fetched.reserved_bytes)
        raise SizeClaimBroken(needed_bytes, f"sent a proof of {fetched.result.proof_bytes}")
    return fetched


def reaches(end: bytes | None, other: bytes | None) -> bool:
    """Return whether a range with the end ``end`` reaches to ``other``; None is after every key."""
    return end is None or (other is not None and other <= end)
