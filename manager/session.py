"""One peer's part in a sync: connect, let workers fetch, and after a failure wait and try again.

What becomes of a failure depends on what it says of the peer:

    an invalid proof, another scheme, a request     the peer is dropped for the rest of the sync; one that is
    called bad, a pair that it will not send, a     followed, for a long time
    claim of a large pair that it did not keep
    (for the second time, if it was only late),
    protocol broken before its first hello

    it does not have the goal                       it is asked for nothing at that root for a while, unless
                                                    it announces it; that says nothing bad of it

    it does not have a root that was the goal       nothing: it is asked for the new goal

    connection lost, several timeouts in a row,     tried again after a backoff; nothing is expected of it any
    protocol broken later, internal error,          more after ``max_failures`` in a row
    shutting down

    one timeout, overloaded, a large pair that      the connection stays, the score falls; it is asked for
    kept others waiting, another peer was faster,   nothing for a while, so that others take the work
    a change proof in doubt (see ``fetch``)

In every case the work goes back to the ledger.  A peer of which nothing is expected is still tried as long as
the sync lasts: it may come back.
"""

from collections.abc import Callable
from logging import getLogger

import trio

from manager.backoff import Backoff
from manager.client import PeerClient
from manager.errands import Errand
from manager.errors import (
    ClaimNotKept,
    ConnectionLost,
    GaveWay,
    HeadImplausible,
    PairRefused,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    ProofDoubted,
    ProofRejected,
    RequestTimeout,
    RootLacking,
    SchemeDiffers,
)
from manager.fetch import Sync, fetch
from manager.peer import Peer
from manager.progress import PeerProgress, PeerState, SeenHead
from manager.score import Score
from manager.work import Doubt
from merkledb import MAX_FOREIGN_REVISION, MerkleDBError
from syncproto import ErrorCode, Head, Hello

_logger = getLogger(__name__)


class PeerSession:
    """What the manager knows of one peer, and the tasks that work with it.

    Args:
        peer: Who it is.
        sync: What it works for.
        changed: Called when the state of the peer changed.

    Attributes:
        peer: Who it is.
        head: What it says that its head is; None while it is not connected.
    """

    def __init__(self, peer: Peer, sync: Sync, changed: Callable[[], None]) -> None:
        self.peer = peer
        self.head: SeenHead | None = None
        self._sync = sync
        self._changed = changed
        self._state = PeerState.CONNECTING
        self._score = Score()
        self._backoff = Backoff(sync.limits.backoff_seconds, sync.limits.max_backoff_seconds, sync.random)
        # Apart from the failures: a peer that is only slow remains one of which something is expected.
        self._slowness = Backoff(sync.limits.backoff_seconds, sync.limits.max_backoff_seconds, sync.random)
        # How long a peer that was dropped stays so, where it is ever forgiven.
        self._grudge = Backoff(sync.limits.forgive_seconds, sync.limits.max_forgive_seconds, sync.random)
        self._client: PeerClient | None = None
        self._scope = trio.CancelScope()
        self._was_greeted = False
        self._hopeless: PeerError | None = None
        self._lacking: RootLacking | None = None
        self._lacking_until = 0.0
        # A root that it announced and did not have.
        self._denied: bytes | None = None
        self._workers = 0
        self._timeouts = 0
        self._late_claims = 0
        self._paused_until = 0.0
        self._keys = 0
        self._reason = ""

    @property
    def progress(self) -> PeerProgress:
        """The peer's part in the sync, as it is now."""
        head = self.head or SeenHead(None, 0, 0, is_followed=False)
        return PeerProgress(
            name=self.peer.name,
            state=self.state,
            score=self._score.value,
            keys=self._keys,
            requests=0 if self._client is None else self._client.requests_in_flight,
            reason=self._reason,
            root=head.root,
            revision=head.revision,
            is_followed=head.is_followed,
        )

    @property
    def state(self) -> PeerState:
        """What it is doing."""
        is_lacking = self._state is PeerState.CONNECTED and self._lacks_goal()
        return PeerState.LACKING if is_lacking else self._state

    @property
    def hopeless(self) -> PeerError | None:
        """Why nothing is expected of the peer on the way to the present goal; None while something is."""
        return self._hopeless or (self._lacking if self._lacks_goal() else None)

    @property
    def offered(self) -> SeenHead | None:
        """Its head, if it may have it: None where it did not have what it announced, or is of no use."""
        is_offered = self._hopeless is None and (self.head is None or self.head.root != self._denied)
        return self.head if is_offered else None

    @property
    def is_dropped(self) -> bool:
        """Whether it is not tried any more."""
        return self._state is PeerState.DROPPED

    def _lacks_goal(self) -> bool:
        goal = self._sync.ledger.goals.goal
        return self._lacking is not None and goal is not None and self._lacking.root == goal.root

    async def run(self) -> None:
        """Work with the peer until the ledger is closed or the peer is dropped."""
        with trio.CancelScope() as self._scope:
            while not self._sync.ledger.is_closed:
                if self.is_dropped:
                    if not self._sync.forgives:
                        return
                    await trio.sleep(self._grudge.failed())
                    self._forgive()
                self._enter(PeerState.CONNECTING)
                failure = await self._connect_and_work()
                if failure is None:
                    return
                if not self.is_dropped:
                    await trio.sleep(self._note(failure))

    def leave(self) -> None:
        """Stop waiting for the peer; where there is a connection, its workers end with the ledger."""
        if self._client is None:
            self._scope.cancel()

    def drop(self, failure: PeerError) -> None:
        """Have nothing more to do with the peer for the rest of the sync, or for a long time."""
        if self.is_dropped:
            return
        _logger.warning("dropped peer %s: %s", self.peer.name, failure)
        self._score.failed()
        self._sync.ledger.tally.expectation.forget(self)
        self._reason = str(failure)
        self._hopeless = failure
        self._state = PeerState.DROPPED
        if self._client is not None:
            self._client.fail(failure)
        self._changed()

    def _forgive(self) -> None:
        """Try a dropped peer again: what came from it may have been damaged on its way."""
        self._hopeless = self._denied = None
        self._state = PeerState.CONNECTING

    def _enter(self, state: PeerState) -> None:
        if not self.is_dropped:
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
        except (OSError, UnicodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # A UnicodeError is a name that no resolver takes.
            return ConnectionLost(f"no connection: {error}")
        client = PeerClient(stream, self._sync.hello, self._sync.database.scheme, self._sync.limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(self._wake_workers, client)
            # It may have been accused while it was connected to.
            if await client.greeted() and not self.is_dropped:
                await self._work(client)
            failure = client.failure
            await client.leave()
            nursery.cancel_scope.cancel()
        if failure is None and not self._sync.ledger.is_closed:
            return ConnectionLost("it is shutting down")
        return failure

    async def _wake_workers(self, client: PeerClient) -> None:
        """Let the workers that wait for work see that the connection takes no more requests."""
        await client.closing.wait()
        self._sync.ledger.wake()

    async def _work(self, client: PeerClient) -> None:
        assert client.peer_hello is not None
        self._client, self._was_greeted = client, True
        if isinstance(self._hopeless, ConnectionLost):
            # It is there again, whatever it will be good for.
            self._hopeless = None
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
            self._client = self.head = None

    async def _subscribe(self, client: PeerClient) -> None:
        try:
            await client.subscribe(self._hear_head)
        except PeerError as failure:
            client.fail(failure)

    def _hear_head(self, head: Head) -> None:
        """Note a head; where nothing is asked for, this is how a peer shows that it works."""
        if self._sync.ledger.is_fetched:
            self._backoff.succeeded()
            self._hopeless = None
            self._reason = ""
        self._hear(head)

    def _hear(self, head: Hello | Head) -> None:
        """Note what the peer says that its head is."""
        if self._sync.trusts_heads and head.revision > MAX_FOREIGN_REVISION:
            # Followed, it would make every honest head an older one.
            self.drop(HeadImplausible(head.revision, MAX_FOREIGN_REVISION))
            return
        self.head = SeenHead(head.root, head.revision, head.keys, is_followed=isinstance(head, Head))
        if head.root != self._denied:
            # Should it come back to that root, it may have it then.
            self._denied = None
        if self._lacking is not None and self._lacking.root == head.root:
            self._lacking = None
            self._sync.ledger.wake()
        self._expect()
        self._sync.heard()

    def _expect(self) -> None:
        """Tell how many pairs there are in all, where the peer says so of the goal."""
        goal = self._sync.ledger.goals.goal
        if self.head is not None and goal is not None and self.head.root == goal.root:
            self._sync.ledger.tally.expectation.hear(self, self.head.keys)

    def _start_workers(self, client: PeerClient, working: trio.Nursery) -> None:
        """Have as many workers as the link has use for; should it become slower, the last ones wait."""
        while self._workers < client.useful_requests:
            working.start_soon(self._worker, client, self._workers, working)
            self._workers += 1

    async def _worker(self, client: PeerClient, index: int, working: trio.Nursery) -> None:
        """Keep a request in flight as long as there is work, the connection lasts and the score allows it."""

        def ready_at() -> float:
            if index >= self._score.requests_in_flight(client.useful_requests):
                return float("inf")
            if index >= self._sync.limits.requests_per_peer and self._sync.is_crowded:
                return float("inf")
            return max(self._paused_until, self._lacking_until if self._lacks_goal() else 0.0)

        ledger = self._sync.ledger
        while (errand := await ledger.take(self, ready_at, client.closing.is_set, client.link)) is not None:
            self._expect()
            with errand.scope:
                await self._do(client, errand)
            self._start_workers(client, working)
            if errand.is_outrun and errand.scope.cancelled_caught:
                self._score.failed()
                self._pause(self._slowness.failed())

    async def _do(self, client: PeerClient, errand: Errand) -> None:
        """Fetch what an errand is for; whatever happens, what was not done is given back."""
        doubt: Doubt | None = None
        failure: PeerError | None = None
        try:
            keys = await fetch(client, errand, self._sync)
        except ProofDoubted as error:
            failure = error
            doubt = Doubt(self, error.failure, error.end, trio.current_time())
        except PeerError as error:
            failure = error
        except MerkleDBError as error:
            self._sync.fail(error)
        else:
            self._request_succeeded(keys)
        finally:
            # What the failure says of the peer comes first: given back, the work may go to it again at once.
            if failure is not None:
                self._request_failed(client, failure)
            self._sync.ledger.give_back(errand, doubt)

    def _request_succeeded(self, keys: int) -> None:
        self._keys += keys
        self._sync.ledger.tally.expectation.deliver(self, keys)
        self._timeouts = 0
        self._reason = ""
        self._score.succeeded()
        self._backoff.succeeded()
        self._slowness.succeeded()
        self._hopeless = self._lacking = None
        self._sync.ledger.wake()

    def _request_failed(self, client: PeerClient, error: PeerError) -> None:
        """Let the peer rest, or end the connection, whichever the error calls for."""
        if isinstance(error, RootLacking):
            self._note_lacking(error)
            return
        self._reason = str(error)
        if isinstance(error, RequestTimeout):
            self._score.failed()
            self._timeouts += 1
            if self._timeouts >= self._sync.limits.max_timeouts:
                client.fail(error)
            self._pause(self._slowness.failed())
        elif isinstance(error, GaveWay | ProofDoubted):
            self._score.failed()
            self._pause(self._slowness.failed())
        elif isinstance(error, PeerRefused) and error.code is ErrorCode.OVERLOADED:
            self._pause(self._overload_seconds(error))
        elif not (isinstance(error, PeerRefused | ConnectionLost) and client.closing.is_set()):
            # A connection that is closing ends on its own, when the other answers have come.
            client.fail(error)

    def _note_lacking(self, lacking: RootLacking) -> None:
        """Ask for nothing at a root that the peer does not have; that it is no goal any more is no news."""
        self._lacking = lacking
        self._lacking_until = trio.current_time() + self._backoff.jittered(
            self._sync.limits.max_backoff_seconds
        )
        if self.head is not None and self.head.root == lacking.root:
            self._denied = lacking.root
        if self._lacks_goal():
            self._reason = str(lacking)
            self._changed()

    def _overload_seconds(self, overload: PeerRefused) -> float:
        """Return how long an overloaded peer gets rest: as it says, and a little longer each time."""
        asked = min((overload.detail or 0) / 1000, self._sync.limits.max_backoff_seconds)
        return max(self._count_failure(overload), self._backoff.jittered(2 * asked))

    def _pause(self, delay: float) -> None:
        """Ask the peer for nothing for so many seconds; until then others take the work."""
        self._paused_until = max(self._paused_until, trio.current_time() + delay)

    # Between connections.

    def _note(self, failure: PeerError) -> float:
        """Draw the conclusion; return how long to wait, in seconds, if the peer is not dropped."""
        if self._is_final(failure):
            self.drop(failure)
            return 0.0
        self._reason = str(failure)
        delay = self._count_failure(failure)
        _logger.info("peer %s: %s; trying again in %.1f seconds", self.peer.name, failure, delay)
        self._enter(PeerState.WAITING)
        return delay

    def _is_final(self, failure: PeerError) -> bool:
        if isinstance(failure, PeerRefused):
            return failure.code in (ErrorCode.BAD_REQUEST, ErrorCode.SCHEME_MISMATCH)
        if isinstance(failure, PeerMisbehaved):
            return not self._was_greeted
        if isinstance(failure, ClaimNotKept) and failure.is_late:
            # Once, the network may be to blame.
            self._late_claims += 1
            return self._late_claims > 1
        return isinstance(failure, ProofRejected | SchemeDiffers | PairRefused | ClaimNotKept)

    def _count_failure(self, failure: PeerError) -> float:
        """Count a failure in a row; return the delay that it calls for."""
        limits = self._sync.limits
        self._score.failed()
        delay = self._backoff.failed()
        if self._backoff.failures >= (
            limits.max_failures if self._was_greeted else limits.max_connect_failures
        ):
            self._hopeless = failure
            self._changed()
        return delay
