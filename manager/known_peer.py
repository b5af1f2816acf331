"""What the manager knows of one peer: what it is doing, what its head is, and what is expected of it.

Nothing proves a head before something of it was fetched.  A peer that announced a root that no peer shows is
disbelieved for a while, longer each time, and believed again when a head of its was reached.  Which head is
followed is for ``manager.targets``, what becomes of a failure for ``peer_session``.

State is touched only between checkpoints, by tasks of one trio run.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import trio

from manager.errors import PeerError, PeerRefused, RootUnavailable
from manager.limits import Limits
from manager.peers.client import PeerClient
from manager.peers.health import Backoff, PeerHealth
from manager.peers.throughput import FULL_PROGRESS
from manager.scheduling.pivot import PivotTracker, SeenHead
from manager.status.progress import PeerProgress, PeerState

# A peer leaves work to another that gives so many times as much.  Below that, both have their turns, and the
# sync takes less than twice as long as with the better one alone.
MUCH_MORE: Final = 4
# Shorter times say what the machine had to do at the moment, not what the peer takes.
_LEAST_SECONDS: Final = 0.01
_NO_HEAD: Final = SeenHead(None, 0, 0, is_followed=False)


class KnownPeer:
    """One peer.

    Args:
        name: What errors and progress call it.
        limits: How long its pauses are.
        random: Where their jitter comes from.
        pivots: Which root is fetched.
        wake: Called when there is another time at which its heads are followed again.
        changed: Called when what is expected of it changed.

    Attributes:
        name: As given.
        health: When it may be asked, and how well that goes.
        client: Its connection, from the greeting to the end; None without one.
        state: What it is doing, apart from the root that it may lack.
        reason: Why it failed last; empty while it does not fail.
        keys: Verified pairs and changes that came from it.
        has_answered: Whether anything came from it on the last connection that was tried.
        unusable: Why nothing is expected of it, whatever the pivot; None while something is.
        lacking: The last root that it said it has not; None once it delivered something, or shows that root.
        lacking_until: Until when it is asked for nothing at that root, in trio's seconds.
        head: What it says that its head is; None while it is not connected.
        disbelieved_until: Until when none of its heads is followed, in trio's seconds.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        random: Random,
        pivots: PivotTracker,
        *,
        wake: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.health = PeerHealth(limits, random)
        self.client: PeerClient | None = None
        self.state = PeerState.CONNECTING
        self.reason = ""
        self.keys = 0
        self.has_answered = False
        self.unusable: PeerError | None = None
        self.lacking: RootUnavailable | None = None
        self.lacking_until = 0.0
        self.head: SeenHead | None = None
        self.disbelieved_until = 0.0
        self._max_seconds = limits.max_backoff_seconds
        self._requests_per_peer = limits.requests_per_peer
        self._pivots = pivots
        self._wake = wake
        self._changed = changed
        self._disbelief = Backoff(limits.backoff_seconds, limits.max_backoff_seconds, random)
        # A head that it announced, root and number, and that nobody could show.
        self._denied: tuple[bytes | None, int] | None = None

    @property
    def progress(self) -> PeerProgress:
        """Its part in the sync, as it is now."""
        head = self.head or _NO_HEAD
        is_lacking = self.state is PeerState.CONNECTED and self.lacks_pivot
        return PeerProgress(
            name=self.name,
            state=PeerState.LACKING if is_lacking else self.state,
            score=self.health.score.value,
            keys=self.keys,
            requests=0 if self.client is None else self.client.requests_in_flight,
            reason=self.reason,
            root=head.root,
            revision=head.revision,
            is_followed=head.is_followed,
            lacks_head=self.head is not None and not self.is_believed,
        )

    @property
    def is_banned(self) -> bool:
        """Whether it is not tried any more."""
        return self.state is PeerState.BANNED

    @property
    def lacks_pivot(self) -> bool:
        """Whether it said that it has not the root that is fetched."""
        pivot = self._pivots.pivot
        return self.lacking is not None and pivot is not None and self.lacking.root == pivot.root

    @property
    def why_no_help(self) -> PeerError | None:
        """Why nothing is expected of it on the way to the present pivot; None while something is."""
        if self.unusable is not None or self.lacking is None:
            return self.unusable
        return self.lacking if self.lacks_pivot else None

    def enter(self, state: PeerState) -> None:
        """Note what it is doing, unless it is dropped."""
        if self.state not in (state, PeerState.BANNED):
            self.state = state
            self._changed()

    def note_lacking(self, lacking: RootUnavailable) -> None:
        """Ask for nothing at a root that it does not have; that it is no pivot any more is no news."""
        self.lacking = lacking
        self.lacking_until = trio.current_time() + self.health.backoff.jittered(self._max_seconds)
        if self.shows(lacking.root):
            self.disbelieve(lacking.root)
        if self.lacks_pivot:
            self.reason = str(lacking)
            self._changed()

    def overload_seconds(self, overload: PeerRefused) -> float:
        """Return how long it gets rest, overloaded; expect nothing of it when it has been so for long."""
        if self.health.overloaded(trio.current_time()):
            self.unusable = overload
            self._changed()
        return self.health.overload_seconds((overload.detail or 0) / 1000)

    def outdoes(self, other: "KnownPeer") -> bool:
        """Whether this peer may be asked now, and gives much more than another that can leave it the work.

        Either its answers hold much more of what was asked for, and no less in the same time; or they take
        much less time, and it has a request to spare: a peer that is only slow does its part while the others
        are busy.
        """
        client, theirs, now = self.client, other.client, trio.current_time()
        if client is None or client.closing.is_set() or self.lacks_pivot or self.health.paused_until > now:
            return False
        health, seconds = self.health, client.throughput.work_seconds
        # One that keeps its requests for longer than the other needs for as much gives nothing for now.
        is_late = theirs is not None and now - client.asked_since > theirs.throughput.full_answer_seconds
        gives_more = health.usefulness >= MUCH_MORE * other.health.usefulness
        if theirs is None or seconds is None or theirs.throughput.work_seconds is None:
            return other.health.yields_until > now and gives_more and not is_late
        # What both give in the same time.
        gain = health.usefulness * max(theirs.throughput.work_seconds, _LEAST_SECONDS)
        their_gain = other.health.usefulness * max(seconds, _LEAST_SECONDS)
        if other.health.yields_until > now and gives_more and not is_late and gain >= their_gain:
            return True
        # One whose answers hold next to nothing leaves work to others itself, however fast it is.
        if other.health.slow_until <= now or health.usefulness < FULL_PROGRESS:
            return False
        # No more than the usual requests count: beyond them it may have to wait for memory.
        usual = min(client.useful_requests, self._requests_per_peer)
        is_free = client.requests_in_flight < health.score.requests_in_flight(usual)
        return is_free and seconds < theirs.throughput.work_seconds and gain >= MUCH_MORE * their_gain

    # Its head.

    @property
    def is_believed(self) -> bool:
        """Whether the last of its heads that was followed could be had, or none was followed yet."""
        return self._disbelief.failures == 0

    @property
    def offered(self) -> SeenHead | None:
        """Its head, if it may be had: None for a while after one that could not, or where it is of no use."""
        is_offered = self.unusable is None and self.disbelieved_until <= trio.current_time()
        return self.head if is_offered else None

    def shows(self, root: bytes) -> bool:
        """Whether ``root`` is its head's."""
        return self.head is not None and self.head.root == root

    def hear(self, head: SeenHead) -> None:
        """Note what it says that its head is."""
        self.head = head
        if (head.root, head.revision) != self._denied:
            # Should it come back to the root that it was denied, it may have it then.
            self._denied = None
        if self.lacking is not None and self.lacking.root == head.root:
            self.lacking = None
            self._wake()

    def disbelieve(self, root: bytes) -> None:
        """Follow none of its heads for a while, for it announced a root that nobody shows."""
        now, shows_it = trio.current_time(), self.shows(root)
        # Several requests in flight may find out the same.
        if self.disbelieved_until <= now or (shows_it and self._denied is None):
            self.disbelieved_until = now + self._disbelief.failed()
            self._wake()
        if self.head is not None and shows_it:
            self._denied = (root, self.head.revision)

    def believe(self, root: bytes) -> None:
        """Follow its heads as before, where its head is this root, all of which is here."""
        if self.shows(root):
            self._denied = None
            self.disbelieved_until = 0.0
            self._disbelief.succeeded()

    def forget_denial(self) -> None:
        """Take the same head for a new one when it is announced again."""
        self._denied = None
