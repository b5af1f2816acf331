"""What people may want to know of the rest of a sync: its rate, how much there is, and how long it takes.

``Rate`` smooths what happens over time.  ``Expectation`` keeps how many pairs there are in all, which only
peers can say, and which nothing proves: it serves what people see, and the work does not know it.

Nothing here decides anything.  As long as nothing is known, the answer is None: no estimate is better than an
invented one.  Pure: the time is an argument, in seconds of any clock that does not run backwards.
"""

from collections import Counter
from collections.abc import Hashable
from math import exp
from typing import Final

# Long enough to ride out a transaction's flush, short enough to notice within half a minute
# that a peer became slow.
RATE_WINDOW_SECONDS: Final = 15.0
# A rate fades towards nothing while nothing happens; whatever takes longer than a year, nobody knows when.
MAX_SECONDS_LEFT: Final = 365 * 86_400.0


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
