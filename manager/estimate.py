"""What is left to do and how long it takes, as far as it can be known.

``Rate`` smooths what happens over time; ``Density`` tells how much content a share of the work holds around
where the work currently is.  A share of the work is a share of the *tree* (see ``split``): for keys that are
hashes that is the share of the content too; where a store keeps most of its content in one corner, as folders
of files do, nobody who sees only the boundaries of proofs can know how much is left.  Then, and as long as
nothing is known, the answer is None, and the manager shows that: no estimate is better than an invented one.
Pure: the time is an argument, in seconds of any clock that does not run backwards.
"""

from math import exp
from typing import Final

# Long enough to ride out a transaction's flush, short enough to notice within half a minute that a peer
# became slow.
RATE_WINDOW_SECONDS: Final = 15.0
# How much of the past remains after each proof; about the last ten proofs count.
_DENSITY_MEMORY: Final = 0.9
# Further apart than this, the last proofs and all of them together do not tell the same story.
_MAX_UNEVENNESS: Final = 3.0


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


class Density:
    """How much of a proof a share of the work fills, in the neighbourhood of the last proofs."""

    def __init__(self) -> None:
        self._proofs = 0.0
        self._share = 0.0
        self._all_proofs = 0.0
        self._all_share = 0.0

    def add(self, proofs: float, share: float) -> None:
        """Count verified content that filled ``proofs`` of a proof, and did ``share`` of all the work."""
        self._all_proofs += proofs
        self._all_share += share
        self._proofs = self._proofs * _DENSITY_MEMORY + proofs
        self._share = self._share * _DENSITY_MEMORY + share

    def share_of(self, proofs: float) -> float:
        """Return which share is expected to fill ``proofs`` of a proof; 0 as long as nothing is known."""
        return self._share * proofs / self._proofs if self._proofs else 0.0

    @property
    def is_even(self) -> bool:
        """Whether content was spread evenly over the work so far, so that the rest can be foreseen."""
        recent, overall = self._share * self._all_proofs, self._all_share * self._proofs
        return recent <= overall * _MAX_UNEVENNESS and overall <= recent * _MAX_UNEVENNESS


def seconds_left(share_left: float, share_rate: float | None) -> float | None:
    """Return how long the rest takes at this rate, in seconds; None when nobody knows.

    Args:
        share_left: The part of all the work that is not done, 0 to 1.
        share_rate: The part done a second; None when unknown.
    """
    if share_left <= 0.0:
        return 0.0
    return share_left / share_rate if share_rate else None
