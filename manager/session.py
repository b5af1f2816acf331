"""One peer's part in a sync: connect, let workers fetch, and after a failure wait and try again.

What becomes of a failure depends on what it says of the peer:

    an invalid proof, another scheme, a request     the peer is dropped for the rest of the sync
    called bad, a pair that it will not send, a
    claim of a large pair that it did not keep,
    protocol broken before its first hello

    the target root is unknown to it                nothing is expected of it now; it is tried again, rarely

    connection lost, several timeouts in a row,     tried again after a backoff; nothing is expected of it any
    protocol broken later, internal error,          more after ``max_failures`` in a row
    shutting down

    one timeout, overloaded, a large pair that      the connection stays, the score falls; it is asked for
    kept others waiting, another peer was faster    nothing for a while, so that others take the work

In every case the work goes back to the queue.  A peer of which nothing is expected is still tried as long as
others are at work: it may come back.
"""

from collections.abc import Callable
from logging import getLogger

import trio

from manager.backoff import Backoff
from manager.client import PeerClient
from manager.errors import (
    ClaimNotKept,
    ConnectionLost,
    GaveWay,
    PairRefused,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    ProofRejected,
    RequestTimeout,
    SchemeDiffers,
)
from manager.fetch import Sync, fetch
from manager.peer import Peer
from manager.progress import PeerProgress, PeerState
from manager.score import Score
from syncproto import ErrorCode

_logger = getLogger(__name__)


class PeerSession:
    """What the manager knows of one peer, and the tasks that work with it.

    Args:
        peer: Who it is.
        sync: What it works for.
        changed: Called when the state of the peer changed.

    Attributes:
        peer: Who it is.
        hopeless: Why nothing is expected of the peer any more; None while something is.
    """

    def __init__(self, peer: Peer, sync: Sync, changed: Callable[[], None]) -> None:
        self.peer = peer
        self.hopeless: PeerError | None = None
        self._sync = sync
        self._changed = changed
        self._state = PeerState.CONNECTING
        self._score = Score()
        self._backoff = Backoff(sync.limits.backoff_seconds, sync.limits.max_backoff_seconds, sync.random)
        # Apart from the failures: a peer that is only slow remains one of which something is expected.
        self._slowness = Backoff(sync.limits.backoff_seconds, sync.limits.max_backoff_seconds, sync.random)
        self._client: PeerClient | None = None
        self._was_greeted = False
        self._timeouts = 0
        self._paused_until = 0.0
        self._keys = 0
        self._reason = ""

    @property
    def progress(self) -> PeerProgress:
        """The peer's part in the sync, as it is now."""
        requests = 0 if self._client is None else self._client.requests_in_flight
        return PeerProgress(
            self.peer.name, self._state, self._score.value, self._keys, requests, self._reason
        )

    async def run(self) -> None:
        """Work with the peer until everything is fetched or the peer is dropped."""
        while not self._sync.ledger.is_fetched:
            self._enter(PeerState.CONNECTING)
            failure = await self._connect_and_work()
            if failure is None:
                return
            delay = self._note(failure)
            if delay is None:
                return
            await trio.sleep(delay)

    def _enter(self, state: PeerState) -> None:
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
        client = PeerClient(stream, self._sync.hello, self._sync.scheme, self._sync.limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(self._wake_workers, client)
            if await client.greeted():
                await self._work(client)
            failure = client.failure
            await client.leave()
            nursery.cancel_scope.cancel()
        if failure is None and not self._sync.ledger.is_fetched:
            return ConnectionLost("it is shutting down")
        return failure

    async def _wake_workers(self, client: PeerClient) -> None:
        """Let the workers that wait for work see that the connection takes no more requests."""
        await client.closing.wait()
        self._sync.ledger.wake()

    async def _work(self, client: PeerClient) -> None:
        assert client.peer_hello is not None
        self._client, self._was_greeted = client, True
        if client.peer_hello.root == self._sync.ledger.target:
            self._sync.ledger.expectation.hear(self, client.peer_hello.keys)
        self._enter(PeerState.CONNECTED)
        workers = min(self._sync.limits.requests_per_peer, client.peer_hello.max_requests)
        try:
            async with trio.open_nursery() as nursery:
                for index in range(workers):
                    nursery.start_soon(self._worker, client, index, workers)
        finally:
            self._client = None

    async def _worker(self, client: PeerClient, index: int, workers: int) -> None:
        """Keep a request in flight as long as there is work, the connection lasts and the score allows it."""
        ledger = self._sync.ledger

        def is_wanted() -> bool:
            may_ask = trio.current_time() >= self._paused_until
            return may_ask and index < self._score.requests_in_flight(workers)

        while (work := await ledger.take(self, is_wanted, client.closing.is_set)) is not None:
            with ledger.scope_of(self, work) as race:
                try:
                    keys = await fetch(client, work, self._sync)
                except PeerError as error:
                    failure: PeerError | None = error
                else:
                    failure = None
                    self._request_succeeded(keys)
                finally:
                    ledger.give_back(self, work)
            if race.cancelled_caught:
                self._score.failed()
                await self._pause(client, self._slowness.failed())
            elif failure is not None:
                await self._request_failed(client, failure)

    def _request_succeeded(self, keys: int) -> None:
        self._keys += keys
        self._sync.ledger.expectation.deliver(self, keys)
        self._timeouts = 0
        self._reason = ""
        self._score.succeeded()
        self._backoff.succeeded()
        self._slowness.succeeded()
        self.hopeless = None

    async def _request_failed(self, client: PeerClient, error: PeerError) -> None:
        """Wait, or end the connection, whichever the error calls for."""
        self._reason = str(error)
        if isinstance(error, RequestTimeout):
            self._score.failed()
            self._timeouts += 1
            if self._timeouts >= self._sync.limits.max_timeouts:
                client.fail(error)
            await self._pause(client, self._slowness.failed())
        elif isinstance(error, GaveWay):
            self._score.failed()
            await self._pause(client, self._slowness.failed())
        elif isinstance(error, PeerRefused) and error.code is ErrorCode.OVERLOADED:
            await self._pause(client, self._overload_seconds(error))
        elif not (isinstance(error, PeerRefused | ConnectionLost) and client.closing.is_set()):
            # A connection that is closing ends on its own, when the other answers have come.
            client.fail(error)

    def _overload_seconds(self, overload: PeerRefused) -> float:
        """Return how long an overloaded peer gets rest: as it says, and a little longer each time."""
        asked = min((overload.detail or 0) / 1000, self._sync.limits.max_backoff_seconds)
        return max(self._count_failure(overload), self._backoff.jittered(2 * asked))

    async def _pause(self, client: PeerClient, delay: float) -> None:
        """Ask the peer for nothing for so many seconds; until then others take the work."""
        self._paused_until = max(self._paused_until, trio.current_time() + delay)
        with trio.move_on_at(self._paused_until):
            await client.closing.wait()
        self._sync.ledger.wake()

    # Between connections.

    def _note(self, failure: PeerError) -> float | None:
        """Draw the conclusion; return how long to wait, in seconds, or None when the peer is dropped."""
        self._reason = str(failure)
        if self._is_final(failure):
            self._score.failed()
            _logger.warning("dropped peer %s: %s", self.peer.name, failure)
            self._sync.ledger.expectation.forget(self)
            self.hopeless = failure
            self._enter(PeerState.DROPPED)
            return None
        delay = self._count_failure(failure)
        if isinstance(failure, PeerRefused) and failure.code is ErrorCode.UNKNOWN_ROOT:
            self.hopeless = failure
            delay = self._backoff.jittered(self._sync.limits.max_backoff_seconds)
        _logger.info("peer %s: %s; trying again in %.1f seconds", self.peer.name, failure, delay)
        self._enter(PeerState.WAITING)
        return delay

    def _is_final(self, failure: PeerError) -> bool:
        if isinstance(failure, PeerRefused):
            return failure.code in (ErrorCode.BAD_REQUEST, ErrorCode.SCHEME_MISMATCH)
        if isinstance(failure, PeerMisbehaved):
            return not self._was_greeted
        return isinstance(failure, ProofRejected | SchemeDiffers | PairRefused | ClaimNotKept)

    def _count_failure(self, failure: PeerError) -> float:
        """Count a failure in a row; return the delay that it calls for."""
        limits = self._sync.limits
        self._score.failed()
        delay = self._backoff.failed()
        if self._backoff.failures >= (
            limits.max_failures if self._was_greeted else limits.max_connect_failures
        ):
            self.hopeless = failure
            self._changed()
        return delay
