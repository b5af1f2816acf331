"""Which root a sync goes to: what the caller names, or the best of the heads that trusted peers announce.

The head with the highest revision above what is here is followed.  Nothing proves a head before something of
it was fetched, so one of which nothing can be had gives way, and whoever announced it is believed less than
every other peer from then on, whatever the number: its heads are followed only where nothing else is left to
be done, until one of them was reached.

How the scheduler goes to a target stands in ``scheduling.pivot``, what is known of each head in
``known_peer``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from manager.known_peer import KnownPeer
from manager.limits import Limits
from manager.scheduling.pivot import Target, newest_announced
from manager.scheduling.scheduler import Scheduler
from merkledb import Revision


class _Announced(NamedTuple):
    """A head that peers announced.

    Attributes:
        target: Root and number.
        is_believed: Whether a peer that is believed did so.
        announcers: All of that kind that did.
    """

    target: Target
    is_believed: bool
    announcers: tuple[KnownPeer, ...]


class TargetChooser:
    """The target of a sync.

    Args:
        limits: How long a head may stay unproven.
        trusts_heads: Whether heads that peers announce are targets.
        changed: Called when there is another target.

    Attributes:
        target: The newest; None while nobody has named one.
        reached_revision: The number of what is here, below which no peer is followed.
    """

    def __init__(self, limits: Limits, *, trusts_heads: bool, changed: Callable[[], None]) -> None:
        self.target: Target | None = None
        self.reached_revision = 0
        self._limits = limits
        self._trusts_heads = trusts_heads
        self._changed = changed
        self._scheduler: Scheduler | None = None
        self._peers: Sequence[KnownPeer] = ()
        self._is_announced = False
        # Whether whoever announced the target is believed; a target that was named always is.
        self._is_believed = True
        # Who announced the target, and the pivot.
        self._announcers: dict[bytes, tuple[KnownPeer, ...]] = {}

    def begin(self, scheduler: Scheduler, peers: Sequence[KnownPeer]) -> None:
        """Choose from now on where a scheduler goes, which has the target already."""
        self._scheduler, self._peers = scheduler, peers

    def name(self, target: Target) -> None:
        """Go to a target that the caller has named."""
        self._aim(target, is_announced=False, is_believed=True)

    def is_only_tried(self) -> bool:
        """Whether the target is a head that could not be had before, while what is here is whole."""
        scheduler = self._scheduler
        if scheduler is None or self._is_believed or not scheduler.local.is_at_rest:
            return False
        return self.reached_revision > 0 and not scheduler.pivots.is_proven

    def _follow(self, announced: _Announced) -> None:
        """Go to a head that a peer announced."""
        pivot = self._scheduler.pivots.pivot if self._scheduler is not None else None
        # They may announce something else by the time that this turns out to be nowhere.
        kept = {} if pivot is None else {pivot.root: self._announcers.get(pivot.root, ())}
        self._announcers = kept | {announced.target.root: announced.announcers}
        self._aim(announced.target, is_announced=True, is_believed=announced.is_believed)

    def _aim(self, target: Target, *, is_announced: bool, is_believed: bool) -> None:
        was_believed, self._is_believed = self._is_believed, is_believed
        self.target, self._is_announced = target, is_announced
        scheduler = self._scheduler
        if scheduler is None:
            return
        scheduler.aim(target, trio.current_time())
        if not was_believed and not scheduler.pivots.is_newest and not scheduler.pivots.is_proven:
            # Nothing was fetched of what took its place only because there was nothing better to do.
            scheduler.abandon_pivot(trio.current_time())
        self._changed()

    # Heads.

    def consider_heads(self) -> None:
        """Go to the best of the announced heads, if it is better than the target.

        Whoever announced a head that could not be had is followed only where nothing else is to be done.
        """
        assert self._scheduler is not None
        best, target = self._best_announced(), self.target
        if best is None or target == best.target:
            return
        # A target of which nothing can be had gives way to whatever there is above what is here.
        is_lost = not self._is_believed and not self._scheduler.pivots.is_proven
        if target is not None and not is_lost:
            may_lead = best.is_believed or self._scheduler.is_done
            if not may_lead or (best.target.revision or 0) <= max(
                self.reached_revision, target.revision or 0
            ):
                return
        self._follow(best)

    def _best_announced(self) -> _Announced | None:
        """Return the announced head with the highest revision above what is here, if peers are trusted.

        One that is not believed only where there is no other.
        """
        for is_believed in (True, False) if self._trusts_heads else ():
            peers = [peer for peer in self._peers if peer.is_believed is is_believed]
            heads = [peer.offered for peer in peers]
            newest = newest_announced([head for head in heads if head is not None], self.reached_revision)
            if newest is not None:
                announcers = [peer for peer in peers if peer.shows(newest.root)]
                return _Announced(newest, is_believed, tuple(announcers))
        return None

    async def watch_heads(self, is_excused: Callable[[], bool]) -> None:
        """Follow another head where nobody shows anything of the present one, and try it again later.

        It ends with the scheduler, or cancelled, and leaves nothing behind.

        Args:
            is_excused: Whether a single large pair is on its way, which may honestly take long.
        """
        assert self._scheduler is not None
        scheduler = self._scheduler
        while not scheduler.is_closed:
            now = trio.current_time()
            quiet_at = scheduler.pivots.quiet_since + self._limits.unproven_seconds
            if not scheduler.is_done and quiet_at <= now and not is_excused():
                self._leave_unproven_pivot(scheduler)
            self.consider_heads()
            times = [quiet_at, *(peer.disbelieved_until for peer in self._peers)]
            await scheduler.wait_until(min((time for time in times if time > now), default=float("inf")))

    def _leave_unproven_pivot(self, scheduler: Scheduler) -> None:
        """Go to another head, or stay at the one that is here, where a peer shows that; else go on."""
        now = trio.current_time()
        pivot, head = scheduler.pivots.pivot, scheduler.local.head
        scheduler.pivots.forget_proof(now)
        if pivot is None:
            return
        self._disbelieve(pivot.root)
        best = self._best_announced()
        if best is not None and best.target.root != pivot.root:
            self._follow(best)
        elif not (head is not None and self._is_confirmed(head) and self._stay_at(head)):
            scheduler.advance(now)

    def go_elsewhere(self, *, may_wait: bool) -> bool:
        """Leave a target that nobody has, for the best head that may be had, or for what is here.

        Args:
            may_wait: Whether it may stay at what is here though no peer confirms that this is the newest.

        Returns:
            Whether that could be done; a target that no peer announced as trusted is not left.
        """
        if not self._trusts_heads or self.target is None or self._scheduler is None:
            return False
        lost = self.target.root
        self._disbelieve(lost)
        best, head = self._best_announced(), self._scheduler.local.head
        if best is not None and best.target.root != lost:
            self._follow(best)
            return True
        # What is here is the newest that there is, but only a peer can say so, and a run that ends says that
        # it has reached the newest.
        if head is None or not (may_wait or self._is_confirmed(head)):
            return False
        return self._stay_at(head)

    def _disbelieve(self, root: bytes) -> None:
        """Note that a root that was announced cannot be had, whatever its announcers say by now."""
        for peer in self._peers:
            if peer.shows(root) or peer in self._announcers.get(root, ()):
                peer.disbelieve(root)
        if self.target is not None:
            announcers = self._announcers.get(self.target.root, ())
            self._is_believed = self.target.root != root and (
                not announcers or any(peer.is_believed for peer in announcers)
            )

    def _is_confirmed(self, head: Revision) -> bool:
        """Whether a peer that is believed shows what is here."""
        return any(peer.is_believed and peer.shows(head.root) for peer in self._peers)

    def _stay_at(self, head: Revision) -> bool:
        """Make what is here the target, in place of an announced head of which nothing is here.

        Returns:
            Whether it could be done.
        """
        assert self._scheduler is not None
        if not (self._is_announced and self._scheduler.local.is_at_rest and head.number):
            return False
        self.name(Target(head.root, self.reached_revision))
        return True
