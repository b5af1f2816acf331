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

In every case the work goes back to the scheduler.  A peer of which nothing is expected is still tried as
long as the sync lasts: it may come back.
"""

from collections.abc import Callable
from logging import getLogger
from typing import Final

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
from manager.peers.address import Peer
from manager.peers.announced_head import AnnouncedHead
from manager.peers.client import PeerClient
from manager.peers.health import FULL_PROGRESS, Backoff, PeerHealth
from manager.scheduling.assignment import Assignment
from manager.scheduling.backlog import Suspicion
from manager.scheduling.pivot import SeenHead
from manager.status.progress import PeerProgress, PeerState
from manager.transfer.fetcher import Sync, fetch
from manager.transfer.sync_writer import NO_ROOM
from merkledb import MAX_FOREIGN_REVISION, MerkleDBError
from syncproto import ErrorCode, Head, Hello

_logger = getLogger(__name__)

# A peer leaves work to another whose answers hold so many times as much of what was asked for.  Below that,
# both have their turns, and the sync takes less than twice as long as with the better one alone.
_MUCH_MORE: Final = 4


class PeerSession:
    """What the manager knows of one peer, and the tasks that work with it.

    Args:
        peer: Who it is.
        sync: What it works for.
        changed: Called when the state of the peer changed.

    Attributes:
        peer: Who it is.
        announced: What it says that its head is, and whether that is followed.
    """

    def __init__(self, peer: Peer, sync: Sync, changed: Callable[[], None]) -> None:
        limits = sync.limits
        self.peer = peer
        self.announced = AnnouncedHead(
            Backoff(limits.backoff_seconds, limits.max_backoff_seconds, sync.random), sync.scheduler.wake
        )
        self._sync = sync
        self._changed = changed
        self._state = PeerState.CONNECTING
        self._health = PeerHealth(limits, sync.random)
        # How long a peer that was dropped stays so, where it is ever forgiven.
        self._ban_backoff = Backoff(limits.ban_seconds, limits.max_ban_seconds, sync.random)
        self._client: PeerClient | None = None
        self._scope = trio.CancelScope()
        self._was_greeted = False
        self._unusable: PeerError | None = None
        self._lacking: RootUnavailable | None = None
        self._lacking_until = 0.0
        self._workers = 0
        self._late_claims = 0
        self._keys = 0
        self._reason = ""

    @property
    def progress(self) -> PeerProgress:
        """The peer's part in the sync, as it is now."""
        head = self.announced.head or SeenHead(None, 0, 0, is_followed=False)
        return PeerProgress(
            name=self.peer.name,
            state=self.state,
            score=self._health.score.value,
            keys=self._keys,
            requests=0 if self._client is None else self._client.requests_in_flight,
            reason=self._reason,
            root=head.root,
            revision=head.revision,
            is_followed=head.is_followed,
            lacks_head=self.announced.head is not None and not self.announced.is_believed,
        )

    @property
    def state(self) -> PeerState:
        """What it is doing."""
        is_lacking = self._state is PeerState.CONNECTED and self._lacks_pivot()
        return PeerState.LACKING if is_lacking else self._state

    @property
    def unusable(self) -> PeerError | None:
        """Why nothing is expected of the peer on the way to the present pivot; None while something is."""
        return self._unusable or (self._lacking if self._lacks_pivot() else None)

    @property
    def offered(self) -> SeenHead | None:
        """Its head, if it may be had: None for a while after one that could not, or where it is of no use."""
        is_offered = self._unusable is None and self.announced.disbelieved_until <= trio.current_time()
        return self.announced.head if is_offered else None

    @property
    def is_banned(self) -> bool:
        """Whether it is not tried any more."""
        return self._state is PeerState.BANNED

    def _lacks_pivot(self) -> bool:
        pivot = self._sync.scheduler.pivots.pivot
        return self._lacking is not None and pivot is not None and self._lacking.root == pivot.root

    async def run(self) -> None:
        """Work with the peer until the scheduler is closed or the peer is dropped."""
        with trio.CancelScope() as self._scope:
            while not self._sync.scheduler.is_closed:
                if self.is_banned:
                    if not self._sync.unbans:
                        return
                    await trio.sleep(self._ban_backoff.failed())
                    self._unban()
                self._enter(PeerState.CONNECTING)
                failure = await self._connect_and_work()
                if failure is None:
                    return
                if not self.is_banned:
                    await trio.sleep(self._note(failure))

    def leave(self) -> None:
        """Stop waiting for the peer; where there is a connection, its workers end with the scheduler."""
        if self._client is None:
            self._scope.cancel()

    def ban(self, failure: PeerError) -> None:
        """Have nothing more to do with the peer for the rest of the sync, or for a long time."""
        if self.is_banned:
            return
        _logger.warning("dropped peer %s: %s", self.peer.name, failure)
        self._health.score.failed()
        self._sync.scheduler.stats.expectation.forget(self)
        self._reason = str(failure)
        self._unusable = failure
        self._state = PeerState.BANNED
        if self._client is not None:
            self._client.fail(failure)
        self._changed()

    def _unban(self) -> None:
        """Try a dropped peer again: what came from it may have been damaged on its way."""
        self._unusable = None
        self.announced.forget_denial()
        self._state = PeerState.CONNECTING

    def _enter(self, state: PeerState) -> None:
        if not self.is_banned:
            self._state = state
        self._changed()

    # One connection.

    async def _connect_and_work(self) -> PeerError | None:
        """Use a connection as long as it lasts; return why it ended, None when nothing is left to do."""
        timeout = self._sync.limits.connect_timeout_seconds
        try:
            with trio.fail_after(timeout):
                stream = await self.peer.open_stream()
        except trio.TooSlowError:
            return ConnectionLost(f"no connection within {timeout:.0f} seconds")
        except Exception as error:  # noqa: BLE001 - a transport may be anybody's, and raise anything
            return ConnectionLost(f"no connection: {reason_of(error)}")
        client = PeerClient(stream, self._sync.hello, self._sync.database.scheme, self._sync.limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(self._wake_workers, client)
            # It may have been accused while it was connected to.
            if await client.greeted() and not self.is_banned:
                await self._work(client)
            failure = client.failure
            await client.leave()
            nursery.cancel_scope.cancel()
        if failure is None and not self._sync.scheduler.is_closed:
            return ConnectionLost("it is shutting down")
        return failure

    async def _wake_workers(self, client: PeerClient) -> None:
        """Let the workers that wait for work see that the connection takes no more requests."""
        await client.closing.wait()
        self._sync.scheduler.wake_workers()

    async def _work(self, client: PeerClient) -> None:
        assert client.peer_hello is not None
        self._client, self._was_greeted = client, True
        if isinstance(self._unusable, ConnectionLost | PeerRefused):
            # It is there again, or has a place again, whatever it will be good for.
            self._unusable = None
        self._workers = 0
        self._enter(PeerState.CONNECTED)
        self._hear(client.peer_hello)
        try:
            async with trio.open_nursery() as nursery:
                if self._sync.subscribes:
                    nursery.start_soon(self._subscribe, client)
                async with trio.open_nursery() as working:
                    self._start_workers(client, working)
                nursery.cancel_scope.cancel()
        finally:
            self._client = self.announced.head = None

    async def _subscribe(self, client: PeerClient) -> None:
        try:
            await client.subscribe(self._hear_head)
        except PeerError as failure:
            client.fail(failure)

    def _hear_head(self, head: Head) -> None:
        """Note a head; where nothing is asked for, this is how a peer shows that it works."""
        if self._sync.scheduler.work.is_fetched:
            self._health.backoff.succeeded()
            self._health.recover_from_overload()
            self._unusable = None
            self._reason = ""
        self._hear(head)

    def _hear(self, head: Hello | Head) -> None:
        """Note what the peer says that its head is."""
        if self._sync.trusts_heads and head.revision > MAX_FOREIGN_REVISION:
            # Followed, it would make every honest head an older one.
            self.ban(HeadImplausible(head.revision, MAX_FOREIGN_REVISION))
            return
        is_followed = isinstance(head, Head)
        self.announced.hear(SeenHead(head.root, head.revision, head.keys, is_followed=is_followed))
        if self._lacking is not None and self._lacking.root == head.root:
            self._lacking = None
            self._sync.scheduler.wake()
        self._expect()
        self._sync.heard()

    def _expect(self) -> None:
        """Tell how many pairs there are in all, where the peer says so of the pivot."""
        pivot, head = self._sync.scheduler.pivots.pivot, self.announced.head
        if head is not None and pivot is not None and head.root == pivot.root:
            self._sync.scheduler.stats.expectation.hear(self, head.keys)

    def _start_workers(self, client: PeerClient, working: trio.Nursery) -> None:
        """Have as many workers as the link has use for; should it become slower, the last ones wait."""
        useful = client.useful_requests
        for index in range(self._workers, useful):
            working.start_soon(self._worker, client, index, working)
        self._workers = max(self._workers, useful)

    async def _worker(self, client: PeerClient, index: int, working: trio.Nursery) -> None:
        """Keep a request in flight as long as there is work, the connection lasts and the score allows it."""

        def ready_at() -> float:
            # The first worker may always ask: a peer that only failed is still tried, one request at a time.
            if index and index >= health.score.requests_in_flight(client.useful_requests):
                return float("inf")
            if index >= self._sync.limits.requests_per_peer and self._sync.is_crowded:
                return float("inf")
            is_outdone = health.yields_until > 0.0 and self._sync.is_outdone(self, health.usefulness)
            yields_until = health.yields_until if is_outdone else 0.0
            return max(health.paused_until, yields_until, self._lacking_until if self._lacks_pivot() else 0.0)

        scheduler, health = self._sync.scheduler, self._health
        while (
            assignment := await scheduler.take(self, ready_at, client.closing.is_set, client.throughput)
        ) is not None:
            self._expect()
            with assignment.scope:
                await self._do(client, assignment)
            self._start_workers(client, working)
            if health.usefulness < FULL_PROGRESS:
                # Who waits for work gets what is left of this: it is woken by the first checkpoint, and takes
                # the work before the second.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            if assignment.is_outrun and assignment.scope.cancelled_caught:
                health.slow(trio.current_time())

    async def _do(self, client: PeerClient, assignment: Assignment) -> None:
        """Fetch what an assignment is for; whatever happens, what was not done is given back."""
        suspicion: Suspicion | None = None
        failure: PeerError | None = None
        try:
            delivery = await fetch(client, assignment, self._sync)
        except ProofSuspected as error:
            failure = error
            suspicion = Suspicion(self, error.failure, error.end, trio.current_time())
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
            self._health.rest(trio.current_time())
        else:
            self._request_succeeded(*delivery)
        finally:
            # What the failure says of the peer comes first: given back, the work may go to it again at once.
            if failure is not None:
                self._request_failed(client, failure)
            self._sync.scheduler.give_back(assignment, suspicion)

    def _request_succeeded(self, keys: int, progress: float | None) -> None:
        self._keys += keys
        self._health.answered(progress, trio.current_time())
        self._sync.scheduler.stats.expectation.deliver(self, keys)
        self._reason = ""
        self._unusable = self._lacking = None
        self._sync.scheduler.wake()

    def is_better_than(self, usefulness: float) -> bool:
        """Whether this peer may be asked now, and its answers hold much more than those of another."""
        is_ready = self._client is not None and not self._client.closing.is_set() and not self._lacks_pivot()
        is_free = self._health.paused_until <= trio.current_time()
        return is_ready and is_free and self._health.usefulness >= _MUCH_MORE * usefulness

    def _request_failed(self, client: PeerClient, error: PeerError) -> None:
        """Let the peer rest, or end the connection, whichever the error calls for."""
        if isinstance(error, RootUnavailable):
            self._note_lacking(error)
            return
        self._reason = str(error)
        if isinstance(error, RequestTimeout):
            if self._health.timed_out():
                client.fail(error)
            self._health.slow(trio.current_time())
        elif isinstance(error, Preempted | ProofSuspected):
            self._health.slow(trio.current_time())
        elif isinstance(error, PeerRefused) and error.is_overload:
            # An error for all of the connection is counted when it ends.
            if not client.closing.is_set():
                self._health.pause(self._overload_seconds(error), trio.current_time())
        elif not (isinstance(error, PeerRefused | ConnectionLost) and client.closing.is_set()):
            # A connection that is closing ends on its own, when the other answers have come.
            client.fail(error)

    def _note_lacking(self, lacking: RootUnavailable) -> None:
        """Ask for nothing at a root that the peer does not have; that it is no pivot any more is no news."""
        self._lacking = lacking
        self._lacking_until = trio.current_time() + self._health.backoff.jittered(
            self._sync.limits.max_backoff_seconds
        )
        if self.announced.shows(lacking.root):
            self.announced.disbelieve(lacking.root)
        if self._lacks_pivot():
            self._reason = str(lacking)
            self._changed()

    def _overload_seconds(self, overload: PeerRefused) -> float:
        """Return how long an overloaded peer gets rest; expect nothing of it when it has been so for long."""
        if self._health.overloaded(trio.current_time()):
            self._unusable = overload
            self._changed()
        return self._health.overload_seconds((overload.detail or 0) / 1000)

    # Between connections.

    def _note(self, failure: PeerError) -> float:
        """Draw the conclusion; return how long to wait, in seconds, if the peer is not dropped."""
        if self._is_final(failure):
            self.ban(failure)
            return 0.0
        self._reason = str(failure)
        state = PeerState.WAITING
        if isinstance(failure, PeerRefused):
            # A refusal before any greeting is an answer all the same: the address is right.
            self._was_greeted = True
        if isinstance(failure, PeerRefused) and failure.is_overload:
            state, delay = PeerState.OVERLOADED, self._overload_seconds(failure)
        else:
            delay = self._count_failure(failure)
        _logger.info("peer %s: %s; trying again in %.1f seconds", self.peer.name, failure, delay)
        self._enter(state)
        return delay

    def _is_final(self, failure: PeerError) -> bool:
        if isinstance(failure, PeerRefused):
            return failure.code in (ErrorCode.BAD_REQUEST, ErrorCode.SCHEME_MISMATCH)
        if isinstance(failure, PeerMisbehaved):
            return not self._was_greeted
        if isinstance(failure, SizeClaimBroken) and failure.is_late:
            # Once, the network may be to blame.
            self._late_claims += 1
            return self._late_claims > 1
        return isinstance(failure, ProofRejected | SchemeDiffers | ValueTooLargeForPeer | SizeClaimBroken)

    def _count_failure(self, failure: PeerError) -> float:
        """Count a failure in a row; return the delay that it calls for."""
        limits = self._sync.limits
        self._health.score.failed()
        delay = self._health.backoff.failed()
        if self._health.backoff.failures >= (
            limits.max_failures if self._was_greeted else limits.max_connect_failures
        ):
            self._unusable = failure
            self._changed()
        return delay
