"""How long to wait before trying a peer again: longer after each failure, and never two clients in step.

Exponential backoff with "equal jitter" (Marc Brooker, "Exponential Backoff And Jitter", 2015): half of the
delay is fixed, so that a failing peer really gets rest, half is random, so that a crowd of clients that lost
the same server does not come back as a crowd.  Pure: the caller waits, and injects the source of randomness.

``PeerHealth`` gathers all of this for one peer: its score, its pauses, and how useful its answers are.  What
a failure says of a peer is for ``peer_session`` to judge.
"""

from dataclasses import dataclass
from math import ceil
from random import Random
from typing import Final

from manager.limits import Limits
from manager.peers.throughput import FULL_PROGRESS, HEDGING


@dataclass(slots=True)
class Backoff:
    """The delays between attempts at one thing.

    Attributes:
        base_seconds: The upper bound of the first delay.
        max_seconds: The upper bound of every delay.
        random: Where the jitter comes from.
        failures: How many attempts failed since the last success.
    """

    base_seconds: float
    max_seconds: float
    random: Random
    failures: int = 0

    def succeeded(self) -> None:
        """Forget the failures: the next delay is short again."""
        self.failures = 0

    def failed(self) -> float:
        """Count a failure, and return how long to wait before the next attempt, in seconds."""
        # Doubling stops early, for 2.0 ** 1024 would overflow after a very long outage.
        bound = min(self.max_seconds, self.base_seconds * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return self.jittered(bound)

    def jittered(self, bound_seconds: float) -> float:
        """Return a delay between half of ``bound_seconds`` and all of it."""
        return bound_seconds * (0.5 + 0.5 * self.random.random())


_AFTER_FAILURE: Final = 0.5
# How much of what is missing a good answer heals.
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


class PeerHealth:
    """When one peer may be asked again: what its answers and failures so far call for.

    Args:
        limits: How long the pauses are.
        random: Where their jitter comes from.

    Attributes:
        score: How much is asked of it at a time.
        backoff: How long to wait between two connections.
        usefulness: How much of what was asked for the last answers held, 0 to 1.
        yields_until: Until when it leaves work to a peer whose answers hold much more.
        slow_until: Until when it leaves work to a peer that is much faster and has a request to spare.
        paused_until: Until when it is asked for nothing.
    """

    def __init__(self, limits: Limits, random: Random) -> None:
        self.score = Score()
        self.backoff = Backoff(limits.backoff_seconds, limits.max_backoff_seconds, random)
        self.usefulness = 1.0
        self.yields_until = 0.0
        self.slow_until = 0.0
        self.paused_until = 0.0
        self._limits = limits
        # Apart from the failures: a peer that is only slow remains one of which something is expected.
        self._slowness = Backoff(limits.backoff_seconds, limits.max_backoff_seconds, random)
        self._shortness = Backoff(limits.backoff_seconds, limits.overdue_seconds, random)
        self._overload = Backoff(limits.backoff_seconds, limits.overload_backoff_seconds, random)
        # Since when it says that it is overloaded, and does nothing else.
        self._overloaded_since: float | None = None
        self._timeouts = 0

    def answered(self, progress: float | None, seconds: float, now: float) -> None:
        """Count an answer that was of use.

        Args:
            progress: How much of what was asked for it held, 0 to 1; None where it says nothing of the peer.
            seconds: How long it took.
            now: The time, in seconds.
        """
        if progress is not None:
            # A faster peer that waits for work takes it within one of its own answers, which is less.
            self.slow_until = now + min(seconds, self._limits.overdue_seconds)
            # A short answer counts at once, and is forgotten bit by bit.
            healed = self.usefulness + (progress - self.usefulness) * _HEALING
            self.usefulness = min(progress, healed)
            if progress < FULL_PROGRESS:
                self.yields_until = now + self._shortness.failed()
            else:
                self._shortness.succeeded()
        self._timeouts = 0
        self.score.succeeded()
        self.backoff.succeeded()
        self._slowness.succeeded()
        self.recover_from_overload()

    def rest(self, now: float) -> None:
        """Ask it for nothing for a while, longer each time, so that others take the work."""
        self.pause(self._slowness.failed(), now)

    def slow(self, now: float) -> None:
        """Count a request that others had to do, and let it rest."""
        self.score.failed()
        self.rest(now)

    def outrun(self, seconds: float, usual_seconds: float | None, now: float) -> None:
        """Count that another peer did the work that this one had.

        Args:
            seconds: For how long it had it.
            usual_seconds: What it takes for its work; None where it has done none yet.
            now: The time.
        """
        if seconds >= self._limits.overdue_seconds:
            self.slow(now)
        elif usual_seconds is None or seconds > HEDGING * usual_seconds:
            # It may be an honest peer that is slow for once, so it is there again soon.
            self.score.failed()
            self.pause(self._shortness.failed(), now)
        else:
            # It did what it always does, and the other one may have brought only a part.
            self.slow_until = now + min(usual_seconds, self._limits.overdue_seconds)

    def timed_out(self) -> bool:
        """Count a request that was not answered in time; return whether these are too many in a row."""
        self._timeouts += 1
        return self._timeouts >= self._limits.max_timeouts

    def overloaded(self, now: float) -> bool:
        """Count that it is overloaded; return whether it has been for so long that nothing is expected."""
        self.score.failed()
        if self._overloaded_since is None:
            self._overloaded_since = now
            return False
        return now - self._overloaded_since >= self._limits.overload_patience_seconds

    def overload_seconds(self, asked_seconds: float) -> float:
        """Return how long it gets rest: at least as long as it asks, within bounds, and longer each time."""
        # Jittered, the wait is up to twice as long as it says, and never above the bound.
        asked = min(asked_seconds, self._limits.max_backoff_seconds / 2)
        return max(self._overload.failed(), self._overload.jittered(2 * asked))

    def recover_from_overload(self) -> None:
        """Note that it does something else than saying that it is overloaded."""
        self._overload.succeeded()
        self._overloaded_since = None

    def pause(self, delay: float, now: float) -> None:
        """Ask it for nothing for so many seconds."""
        self.paused_until = max(self.paused_until, now + delay)
