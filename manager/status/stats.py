"""What a sync has done so far, and what people may want to know of the rest.

``SyncStats`` counts.  ``Rate`` smooths what happens over time.  ``Expectation`` keeps how many pairs there
are in all, which only peers can say, and which nothing proves: it serves what people see, and the work does
not know it.

Nothing here decides anything.  As long as nothing is known, the answer is None: no estimate is better than an
invented one.  Pure: the time is an argument, in seconds of any clock that does not run backwards.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from math import exp
from typing import Final

from manager.scheduling.backlog import Work

# Long enough to ride out a transaction's flush, short enough to notice within half a minute
# that a peer became slow.
RATE_WINDOW_SECONDS: Final = 15.0
# A rate fades towards nothing while nothing happens; whatever takes longer than a year, nobody knows when.
MAX_SECONDS_LEFT: Final = 365 * 86_400.0
# The share done that is shown at most as long as something is left, however little seems to be left.
_ALMOST_ALL: Final = 0.999


class SyncStats:
    """The counts of one sync.

    Args:
        keys: Pairs that earlier runs of it applied.
        changes: Changes that they applied.
        byte_count: Bytes of the proofs that these came in.
        expected_keys: How many pairs there are in all, as earlier runs heard.
        now: The time, in seconds.

    Attributes:
        keys: Pairs applied.
        changes: Changes applied.
        bytes: Bytes of the proofs that they came in.
        share: The part of all the work that is on disk, as far as it can be known; it never falls before the
            database is at a target.
        expectation: What peers say that there is in all.
        began: When this run began, in seconds.
        keys_rate: Keys a second.
        bytes_rate: Bytes a second.
    """

    def __init__(
        self, keys: int, changes: int, byte_count: int, expected_keys: int | None, now: float
    ) -> None:
        self.keys = keys
        self.changes = changes
        self.bytes = byte_count
        self.share = 0.0
        self.expectation = Expectation(expected_keys)
        self._is_copying = True
        self.began = now
        self.keys_rate, self.bytes_rate = Rate(now), Rate(now)

    def add(self, keys: int, changes: int, byte_count: int, now: float) -> None:
        """Count what is on disk since the last call."""
        self.keys += keys
        self.changes += changes
        self.bytes += byte_count
        self.keys_rate.add(keys + changes, now)
        self.bytes_rate.add(byte_count, now)

    def look(self, everything: Iterable[Work], root: bytes | None, forgotten: Collection[bytes]) -> bool:
        """Take a look at how much is left; return whether there is anything to be copied in full.

        Args:
            everything: All pieces of the key space, as they are on disk.
            root: The pivot's; None where there is none.
            forgotten: Roots from which no peer has changes any more.
        """
        unknown_share = done_share = 0.0
        copies_in_full = False
        for work in everything:
            if work.root is None:
                unknown_share += work.share
                copies_in_full = True
            elif work.root == root:
                done_share += work.share
            elif work.root in forgotten:
                copies_in_full = True
        self._is_copying = unknown_share > 0.0
        share = done_share
        if self._is_copying:
            expected = self.expectation.keys(self.keys)
            share = self.keys / expected if expected else 1.0 - unknown_share
        self.share = max(self.share, min(share, _ALMOST_ALL))
        return copies_in_full

    def finish(self) -> None:
        """Note that the database is at a target."""
        self.share = 1.0
        self._is_copying = False

    def begin(self) -> None:
        """Note that the database is on the way to another target."""
        self.share = 0.0

    @property
    def expected_keys(self) -> int | None:
        """How many pairs are to be copied in all; None while nobody says anything."""
        return self.expectation.keys(self.keys) if self._is_copying else self.keys

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes at the current rate; None while nobody can know.

        That is so while no peer says how many pairs there are, when there turn out to be more, and while
        changes are fetched, for nobody says how many these are.
        """
        if self.share == 1.0:
            return 0.0
        left = (self.expected_keys or 0) - self.keys
        return seconds_left(left, self.keys_rate.at(now)) if left > 0 else None


class Rate:
    """Something a second, smoothed: an exponentially fading sum of amounts over one of times.

    Args:
        now: When counting begins, in seconds.
        window_seconds: After this time the past counts for a third.
    """

    def __init__(self, now: float, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._last = now
        self._amount = 0.0
        self._seconds = 0.0

    def add(self, amount: float, now: float) -> None:
        """Count ``amount`` as done between the last call and ``now``."""
        fading = exp(-(now - self._last) / self._window)
        self._seconds = self._seconds * fading + now - self._last
        self._amount = self._amount * fading + amount
        self._last = now

    def at(self, now: float) -> float | None:
        """Return the rate a second at ``now``; None while nothing was counted or no time has passed.

        It falls while nothing is counted, so a sync that stalls says so.
        """
        fading = exp(-(now - self._last) / self._window)
        seconds = self._seconds * fading + now - self._last
        if self._amount == 0.0 or seconds <= 0.0:
            return None
        return self._amount * fading / seconds


class Expectation:
    """How many pairs the target holds, as peers say whose head it is.  None of it is proved.

    Where peers disagree, the one counts that has delivered most verified pairs: to be believed, a liar has to
    do most of the work, while the largest number would belong to whoever lies most.  A number that verified
    pairs have gone beyond counts only where nobody says a larger one.

    Args:
        earlier: What an earlier run of the sync expected; it counts as long as no peer says anything.
    """

    def __init__(self, earlier: int | None = None) -> None:
        self._earlier = earlier
        self._said: dict[Hashable, int] = {}
        self._delivered: Counter[Hashable] = Counter()

    def hear(self, peer: Hashable, keys: int) -> None:
        """Note what a peer says; 0 says nothing, for a target without pairs needs no sync."""
        if keys:
            self._said[peer] = keys
        else:
            self.forget(peer)

    def forget(self, peer: Hashable) -> None:
        """Forget what a peer said, for it has lied about something else."""
        self._said.pop(peer, None)

    def deliver(self, peer: Hashable, keys: int) -> None:
        """Note that a peer has delivered so many verified pairs more."""
        self._delivered[peer] += keys

    def keys(self, done: int) -> int | None:
        """Return how many pairs there are in all; None while nobody says anything.

        Args:
            done: How many there are at least, as verified.

        Returns:
            At least 1, and at least ``done``.
        """

        def credit(peer: Hashable) -> tuple[bool, int]:
            return self._said[peer] >= done, self._delivered[peer]

        said = self._said[max(self._said, key=credit)] if self._said else self._earlier
        return None if said is None else max(said, done)


def seconds_left(amount_left: float, rate: float | None) -> float | None:
    """Return how long the rest takes at this rate, in seconds up to a year; None when nobody knows.

    Args:
        amount_left: What is not done, of anything that can be counted.
        rate: How much of it is done a second; None when unknown.
    """
    if amount_left <= 0.0:
        return 0.0
    seconds = amount_left / rate if rate else MAX_SECONDS_LEFT
    return seconds if seconds < MAX_SECONDS_LEFT else None
