"""How long to wait before trying a peer again: longer after each failure, and never two clients in step.

Exponential backoff with "equal jitter" (Marc Brooker, "Exponential Backoff And Jitter", 2015): half of the
delay is fixed, so that a failing peer really gets rest, half is random, so that a crowd of clients that lost
the same server does not come back as a crowd.  Pure: the caller waits, and injects the source of randomness.
"""

from math import ceil
from random import Random
from typing import Final


class Backoff:
    """The delays between attempts at one thing.

    Args:
        base_seconds: The upper bound of the first delay.
        max_seconds: The upper bound of every delay.
        random: Where the jitter comes from.

    Attributes:
        failures: How many attempts failed since the last success.
    """

    def __init__(self, base_seconds: float, max_seconds: float, random: Random) -> None:
        self._base = base_seconds
        self._max = max_seconds
        self._random = random
        self.failures = 0

    def succeeded(self) -> None:
        """Forget the failures: the next delay is short again."""
        self.failures = 0

    def failed(self) -> float:
        """Count a failure, and return how long to wait before the next attempt, in seconds."""
        # Doubling stops early, for 2.0 ** 1024 would overflow after a very long outage.
        bound = min(self._max, self._base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return self.jittered(bound)

    def jittered(self, bound_seconds: float) -> float:
        """Return a delay between half of ``bound_seconds`` and all of it."""
        return bound_seconds * (0.5 + 0.5 * self._random.random())


_AFTER_FAILURE: Final = 0.5
_HEALING: Final = 0.25


class Score:
    """The score of one peer; a new peer is trusted to work until it does not.

    Attributes:
        value: Between 0 (only failed) and 1 (only succeeded, lately).
    """

    def __init__(self) -> None:
        self.value = 1.0

    def succeeded(self) -> None:
        """Count an answer that was of use."""
        self.value += (1.0 - self.value) * _HEALING

    def failed(self) -> None:
        """Count a timeout, a lost connection or an error."""
        self.value *= _AFTER_FAILURE

    def requests_in_flight(self, limit: int) -> int:
        """Return how many requests the peer may have in flight: between 1 and ``limit``."""
        return max(1, ceil(limit * self.value - 0.5))
