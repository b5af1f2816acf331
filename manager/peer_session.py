"""One peer's part in a sync: connect, let workers fetch, and after a failure wait and try again.

What becomes of a failure depends on what it says of the peer:

    an invalid proof, another scheme, a request     the peer is dropped for the rest of the sync; one that is
    called bad, a pair that it will not send, a     followed, for a long time
    claim of a large pair that it did not keep
    (for the second time, if it was only late),
    protocol broken before its first hello

    it does not have the pivot                       it is asked for nothing at that root for a while, unless
                                                    it announces it; that says nothing bad of it

    it does not have a root that was the pivot       nothing: it is asked for the new pivot

    connection lost, several timeouts in a row,     tried again after a backoff; nothing is expected of it any
    protocol broken later, internal error,          more after ``max_failures`` in a row
    shutting down

    overloaded, for a request or all of a           tried again when it says, no sooner; nothing is expected
    connection                                      of it any more after ``overload_patience_seconds``

    one timeout, a large pair that                  the connection stays, the score falls; it is asked for
    kept others waiting, another peer was faster,   nothing for a while, so that others take the work
    a change proof in suspicion (see ``fetcher``)

    true answers, far smaller than what was         nothing bad: it may have limits, or huge values.  But as
    asked for                                       long as another peer sends much more, that one gets the
                                                    work, and this one a try now and then

    true answers, far slower than another's         nothing bad: it does its part, but work that a much faster
                                                    peer waits for goes to that one

In every case the work goes back to the scheduler.  A peer of which nothing is expected is still tried as
long as the sync lasts: it may come back.
"""

from collections.abc import Callable
from functools import partial
from logging import getLogger

import trio

from manager.errors import (
    ConcurrentWrite,
    ConnectionLost,
    HeadImplausible,
    MachineExhausted,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    Preempted,
    ProofRejected,
    ProofSuspected,
    RequestTimeout,
    RootUnavailable,
    SchemeDiffers,
    SizeClaimBroken,
    ValueTooLargeForPeer,
    reason_of,
)
from manager.known_peer import KnownPeer
from manager.peers.address import Peer
from manager.peers.client import PeerClient
from manager.peers.health import Backoff
from manager.peers.throughput import FULL_PROGRESS
from manager.scheduling.assignment import Assignment
from manager.scheduling.backlog import Suspicion
from manager.scheduling.pivot import SeenHead
from manager.status.progress import PeerState
from manager.transfer.fetcher import Sync, fetch
from manager.transfer.sync_writer import NO_ROOM
from merkledb import MAX_FOREIGN_REVISION, MerkleDBError
from syncproto import ErrorCode, Head, Hello

_logger = getLogger(__name__)


class PeerSession:
    """The life of one peer in a sync: one connection after the other, and the pauses between them.

    Args:
        peer: Who it is.
        sync: What it works for.
        changed: Called when the state of the peer changed.

    Attributes:
        known: What is known of the peer.
    """

    def __init__(self, peer: Peer, sync: Sync, changed: Callable[[], None]) -> None:
        limits, scheduler = sync.limits, sync.scheduler
        self.known = KnownPeer(
            peer.name, limits, sync.random, scheduler.pivots, wake=scheduler.wake, changed=changed
        )
        self._peer = peer
        self._sync = sync
        self._changed = changed
        # How long a peer that was dropped stays so, where it is ever forgiven.
        self._ban_backoff = Backoff(limits.ban_seconds, limits.max_ban_seconds, sync.random)
        self._scope = trio.CancelScope()
        # Whether it ever answered with a hello, or a refusal: the address is right then.
        self._was_met = False
        self._late_claims = 0

    async def run(self) -> None:
        """Work with the peer until the scheduler is closed or the peer is dropped.

        Cancelled, it leaves no connection, and the work that the peer had is given back.
        """
        with trio.CancelScope() as self._scope:
            while not self._sync.scheduler.is_closed:
                if self.known.is_banned:
                    if not self._sync.unbans:
                        return
                    await trio.sleep(self._ban_backoff.failed())
                    self._unban()
                self.known.enter(PeerState.CONNECTING)
                failure = await self._connect_and_work()
                if failure is None:
                    return
                if not self.known.is_banned and not self._sync.scheduler.is_closed:
                    await trio.sleep(self._note(failure))

    def leave(self) -> None:
        """Stop waiting for the peer; where there is a connection, its workers end with the scheduler."""
        if self.known.client is None:
            self._scope.cancel()

    def ban(self, failure: PeerError) -> None:
        """Have nothing more to do with the peer for the rest of the sync, or for a long time."""
        known = self.known
        if known.is_banned:
            return
        _logger.warning("dropped peer %s: %s", known.name, failure)
        known.health.score.failed()
        self._sync.scheduler.stats.expectation.forget(known)
        known.reason = str(failure)
        known.unusable = failure
        known.state = PeerState.BANNED
        if known.client is not None:
            known.client.fail(failure)
        self._changed()

    def _unban(self) -> None:
        """Try a dropped peer again: what came from it may have been damaged on its way."""
        self.known.unusable = None
        self.known.forget_denial()
        self.known.state = PeerState.CONNECTING
        self._changed()

    async def _connect_and_work(self) -> PeerError | None:
        """Use a connection as long as it lasts; return why it ended, None when nothing is left to do."""
        known, sync = self.known, self._sync
        stream = await self._connect()
        if isinstance(stream, ConnectionLost):
            known.has_answered = False
            return stream
        client = PeerClient(stream, sync.hello, sync.database.scheme, sync.limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(self._wake_workers, client)
            # It may have been accused while it was connected to.
            if await client.greeted() and not known.is_banned:
                self._was_met = True
                await ConnectionWork(known, client, sync, self.ban).run()
            failure = client.failure
            await client.leave()
            nursery.cancel_scope.cancel()
        # Only now, for until then the failure before counts, with what came on that connection.
        known.has_answered = client.has_answered
        if failure is None and not sync.scheduler.is_closed:
            return ConnectionLost("it is shutting down")
        return failure

    async def _connect(self) -> trio.abc.Stream | ConnectionLost:
        """Return an open stream, or why there is none."""
        timeout = self._sync.limits.connect_timeout_seconds
        try:
            with trio.fail_after(timeout):
                return await self._peer.open_stream()
        except trio.TooSlowError:
            return ConnectionLost(f"no connection within {timeout:.0f} seconds")
        except Exception as error:  # noqa: BLE001 - a transport may be anybody's, and raise anything
            return ConnectionLost(f"no connection: {reason_of(error)}")

    async def _wake_workers(self, client: PeerClient) -> None:
        """Let the workers that wait for work see that the connection takes no more requests."""
        await client.closing.wait()
        self._sync.scheduler.wake_workers()

    def _note(self, failure: PeerError) -> float:
        """Draw the conclusion; return how long to wait, in seconds, if the peer is not dropped."""
        if self._is_final(failure):
            self.ban(failure)
            return 0.0
        self.known.reason = str(failure)
        state = PeerState.WAITING
        if isinstance(failure, PeerRefused):
            # A refusal before any greeting is an answer all the same: the address is right.
            self._was_met = True
        if isinstance(failure, PeerRefused) and failure.is_overload:
            state, delay = PeerState.OVERLOADED, self.known.overload_seconds(failure)
        else:
            delay = self._count_failure(failure)
        _logger.info("peer %s: %s; trying again in %.1f seconds", self.known.name, failure, delay)
        self.known.enter(state)
        return delay

    def _is_final(self, failure: PeerError) -> bool:
        if isinstance(failure, PeerRefused):
            return failure.code in (ErrorCode.BAD_REQUEST, ErrorCode.SCHEME_MISMATCH)
        if isinstance(failure, PeerMisbehaved):
            return not self._was_met
        if isinstance(failure, SizeClaimBroken) and failure.is_late:
            # Once, the network may be to blame.
            self._late_claims += 1
            return self._late_claims > 1
        return isinstance(failure, ProofRejected | SchemeDiffers | ValueTooLargeForPeer | SizeClaimBroken)

    def _count_failure(self, failure: PeerError) -> float:
        """Count a failure in a row; return the delay that it calls for."""
        limits, health = self._sync.limits, self.known.health
        health.score.failed()
        delay = health.backoff.failed()
        if health.backoff.failures >= (limits.max_failures if self._was_met else limits.max_connect_failures):
            self.known.unusable = failure
            self._changed()
        return delay


class ConnectionWork:
    """The tasks that work on one connection: they hear what the peer's head is, and fetch.

    Args:
        known: What is known of the peer.
        client: The connection; the peer has greeted.
        sync: What they work for.
        ban: Called with why the peer is to be dropped.
    """

    def __init__(
        self, known: KnownPeer, client: PeerClient, sync: Sync, ban: Callable[[PeerError], None]
    ) -> None:
        self._known = known
        self._client = client
        self._sync = sync
        self._ban = ban
        self._workers = 0

    async def run(self) -> None:
        """Work until the connection takes no more requests, or the scheduler is closed.

        Cancelled, the workers give back what they had.
        """
        known, client = self._known, self._client
        assert client.peer_hello is not None
        known.client, known.has_answered = client, True
        if isinstance(known.unusable, ConnectionLost | PeerRefused):
            # It is there again, or has a place again, whatever it will be good for.
            known.unusable = None
        known.state = PeerState.CONNECTED
        self._hear(client.peer_hello)
        try:
            async with trio.open_nursery() as nursery:
                if self._sync.subscribes:
                    nursery.start_soon(self._subscribe)
                async with trio.open_nursery() as working:
                    self._start_workers(working)
                nursery.cancel_scope.cancel()
        finally:
            known.client = known.head = None

    # Its head.

    async def _subscribe(self) -> None:
        try:
            await self._client.subscribe(self._hear_head)
        except PeerError as failure:
            self._client.fail(failure)

    def _hear_head(self, head: Head) -> None:
        """Note a head; where nothing is asked for, this is how a peer shows that it works."""
        known = self._known
        if self._sync.scheduler.work.is_fetched:
            known.health.backoff.succeeded()
            known.health.recover_from_overload()
            known.unusable = None
            known.reason = ""
        self._hear(head)

    def _hear(self, head: Hello | Head) -> None:
        """Note what the peer says that its head is."""
        if self._sync.trusts_heads and head.revision > MAX_FOREIGN_REVISION:
            # Followed, it would make every honest head an older one.
            self._ban(HeadImplausible(head.revision, MAX_FOREIGN_REVISION))
            return
        is_followed = isinstance(head, Head)
        self._known.hear(SeenHead(head.root, head.revision, head.keys, is_followed=is_followed))
        self._expect()
        self._sync.heard()

    def _expect(self) -> None:
        """Tell how many pairs there are in all, where the peer says so of the pivot."""
        pivot, head = self._sync.scheduler.pivots.pivot, self._known.head
        if head is not None and pivot is not None and head.root == pivot.root:
            self._sync.scheduler.stats.expectation.hear(self._known, head.keys)

    # Fetching.

    def _start_workers(self, working: trio.Nursery) -> None:
        """Have as many workers as the line to the peer has use for; where it becomes slower, some wait."""
        useful = self._client.useful_requests
        for index in range(self._workers, useful):
            working.start_soon(self._worker, index, working)
        self._workers = max(self._workers, useful)

    async def _worker(self, index: int, working: trio.Nursery) -> None:
        """Keep a request in flight as long as there is work, the connection lasts and the score allows it."""
        scheduler, known, client = self._sync.scheduler, self._known, self._client
        ready_at = partial(self._ready_at, index)
        while (
            assignment := await scheduler.take(known, ready_at, client.closing.is_set, client.throughput)
        ) is not None:
            self._expect()
            began = trio.current_time()
            with assignment.scope:
                await self._do(assignment, began)
            self._start_workers(working)
            if known.health.usefulness < FULL_PROGRESS:
                # Who waits for work gets what is left of this: it is woken by the first checkpoint, and takes
                # the work before the second.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            if assignment.is_outrun and assignment.scope.cancelled_caught:
                self._note_outrun(assignment, began)

    def _ready_at(self, index: int) -> float:
        """Return when a worker may take work, as far as is known now, in trio's seconds."""
        known, health, sync = self._known, self._known.health, self._sync
        # The first worker may always ask: a peer that only failed is still tried, one request at a time.
        if index and index >= health.score.requests_in_flight(self._client.useful_requests):
            return float("inf")
        if index >= sync.limits.requests_per_peer and sync.is_crowded:
            return float("inf")
        ready_at = health.paused_until
        if known.lacking is not None and known.lacks_pivot:
            ready_at = max(ready_at, known.lacking_until)
        yields_until = max(health.yields_until, health.slow_until)
        if yields_until > max(ready_at, trio.current_time()) and sync.is_outdone(known):
            return yields_until
        return ready_at

    async def _do(self, assignment: Assignment, began: float) -> None:
        """Fetch what an assignment is for; whatever happens, what was not done is given back."""
        suspicion: Suspicion | None = None
        failure: PeerError | None = None
        try:
            delivery = await fetch(self._client, assignment, self._sync)
        except ProofSuspected as error:
            failure = error
            suspicion = Suspicion(self._known, error.failure, error.end, trio.current_time())
        except PeerError as error:
            failure = error
        except ConcurrentWrite:
            self._sync.writer.note_concurrent_write()
            # The writer calls everybody off before it begins again, and that cancels this.
            await trio.sleep_forever()
        except (MerkleDBError, MachineExhausted) as error:
            if not (self._sync.unbans and isinstance(error, NO_ROOM)):
                self._sync.fail(error)
            # The peer is not to blame, and what the machine lacks now it may have later.
            self._known.health.rest(trio.current_time())
        else:
            self._request_succeeded(*delivery, began)
        finally:
            # What the failure says of the peer comes first: given back, the work may go to it again at once.
            if failure is not None:
                self._request_failed(failure)
            self._sync.scheduler.give_back(assignment, suspicion)

    def _request_succeeded(
        self, keys: int, progress: float | None, seconds: float | None, began: float
    ) -> None:
        known, now = self._known, trio.current_time()
        known.keys += keys
        # What an answer was held for says nothing of its peer.
        seconds = now - began if seconds is None else seconds
        known.health.answered(progress, seconds, now)
        self._client.throughput.finish_work(seconds)
        self._sync.scheduler.stats.expectation.deliver(known, keys)
        if not known.is_banned:
            known.reason = ""
            known.unusable = known.lacking = None
        self._sync.scheduler.wake()

    def _note_outrun(self, assignment: Assignment, began: float) -> None:
        """Note that another peer was faster, or brought more than what came here."""
        throughput, now = self._client.throughput, trio.current_time()
        if assignment.held is not None:
            # What an answer was held for says nothing of its peer.
            self._known.health.answered(*assignment.held, now)
            throughput.finish_work(assignment.held.seconds)
            return
        usual = throughput.work_seconds
        self._known.health.outrun(now - began, usual, now)
        if usual is None or now - began > usual:
            throughput.finish_work(now - began)

    def _request_failed(self, error: PeerError) -> None:
        """Let the peer rest, or end the connection, whichever the error calls for."""
        known, client, now = self._known, self._client, trio.current_time()
        if isinstance(error, RootUnavailable):
            known.note_lacking(error)
            return
        known.reason = str(error)
        if isinstance(error, RequestTimeout):
            if known.health.timed_out():
                client.fail(error)
            known.health.slow(now)
            self._sync.scheduler.work.silent.add(known)
        elif isinstance(error, Preempted | ProofSuspected):
            known.health.slow(now)
        elif isinstance(error, PeerRefused) and error.is_overload:
            # An error for all of the connection is counted when it ends.
            if not client.closing.is_set():
                known.health.pause(known.overload_seconds(error), now)
        elif not (isinstance(error, PeerRefused | ConnectionLost) and client.closing.is_set()):
            # A connection that is closing ends on its own, when the other answers have come.
            client.fail(error)
