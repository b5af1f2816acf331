"""What the way to one peer carries, and so how much to ask at a time, and how many times at once.

An answer should be there soon, for as long as it takes nobody knows whether the peer is silent, its memory is
reserved, and what it brings gets older.  And while one answer is on its way the next ones should be too, or a
long way stays empty most of the time::

    asked                       first byte                   whole
      |------- round trip -----------|------- transfer ---------|
                  asked                                         |---- transfer ----|

Both are measured from outside, whatever the reason: a server that is slow is asked for less, too.  What a
peer does to these measurements moves what is asked between the limits.

How long a piece of work takes from end to end, waiting and verification included, is measured too.  It says
when work that another peer has is asked for here as well: when that peer has had it for longer than it takes
here, a request that is *hedged* (Dean and Barroso, "The Tail at Scale", 2013).  And it says for how long an
answer that holds little is held for that peer.

Pure: the time is an argument, in seconds of any clock that does not run backwards.
"""

from math import ceil
from typing import Final

from manager.limits import KIB, Limits

# What is asked of a peer that has not answered yet: a tenth of a second where a megabyte a second comes.
FIRST_BYTES: Final = 128 * KIB
# Shorter answers say nothing of the way: the time that making them took is most of their time.
MEASURED_BYTES: Final = 32 * KIB
# How much of the past remains after each answer; about the last three count.
_MEMORY: Final = 0.7
# A round trip below this is over before what came last is verified and written, so nothing waits for it.
SHORT_ROUND_TRIP_SECONDS: Final = 0.02
# What a full proof takes to be verified and written, about; answers need not come faster.
_WORK_SECONDS: Final = 0.01
_UNKNOWN: Final = float("inf")
# Another peer keeps its work for so many times what it takes here: answers that take twice the usual time are
# rare among peers that are equally fast, so little is fetched twice.
HEDGING: Final = 2
# And never for less than this, which nobody notices and a busy machine may take.
MIN_HEDGE_SECONDS: Final = 0.1
# An answer that holds this part of what was asked for is as good as a full one: proofs are cut between pairs,
# and servers have limits of their own.
FULL_PROGRESS: Final = 1 / 4
# What it keeps it for while nothing is known here.  An answer of ``FIRST_BYTES`` takes less from most peers;
# from the others, that much is fetched twice, once.
FIRST_HEDGE_SECONDS: Final = 0.25
# How much of what is new counts.
_RENEWAL: Final = 0.3


class ThroughputEstimator:
    """The way to one peer, as the answers on one connection show it.

    Args:
        limits: Between which it moves what is asked.

    Attributes:
        max_bytes: How many bytes of a proof to ask for: as many requests as usual end within
            ``answer_seconds``.
        requests: How many requests keep the way full, from ``requests_per_peer`` to
            ``max_requests_per_peer``.
        work_seconds: How long pieces of work took lately, from the taking to the verified result; None before
            the first.
        full_answer_seconds: How long it takes for as much as a full answer holds; while nothing is known, the
            timeout of a request.
        hedge_seconds: For how long another peer keeps work before it is asked for here as well.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Sums that fade: of the answers, of their bytes, and of the seconds that these took.
        self._answers = 0.0
        self._bytes = 0.0
        self._seconds = 0.0
        self._round_trip = _UNKNOWN
        self._received_bytes = 0
        self._first_byte_at: float | None = None
        self._last_whole_at = float("-inf")
        self.max_bytes = min(FIRST_BYTES, limits.max_bytes)
        self.requests = limits.requests_per_peer
        self.work_seconds: float | None = None
        self.full_answer_seconds = limits.request_timeout_seconds
        self._is_full = True
        self.hedge_seconds = min(FIRST_HEDGE_SECONDS, limits.overdue_seconds)

    def note_fullness(self, fullness: float, seconds: float, *, reaches_end: bool) -> None:
        """Note how much of what was asked for an answer held.

        Args:
            fullness: Which part, 0 to 1.
            seconds: From the taking to the verified result.
            reaches_end: Whether there was no more to send; that it held little says nothing then.
        """
        if reaches_end and fullness < FULL_PROGRESS:
            return
        self._is_full = fullness >= FULL_PROGRESS
        # However soon it came, an answer costs work on both sides that no clock of a fast line shows.
        seconds, longest = max(seconds, MIN_HEDGE_SECONDS), self._limits.request_timeout_seconds
        self.full_answer_seconds = min(seconds / fullness, longest) if fullness > 0.0 else longest

    def finish_work(self, seconds: float) -> None:
        """Note how long a piece of work took, or for how long at least, where it was called off."""
        if self.work_seconds is None:
            self.work_seconds = seconds
        else:
            self.work_seconds += (seconds - self.work_seconds) * _RENEWAL
        # Where answers hold little, others bring more with one, and so keep their work for longer.
        patience = HEDGING * (self.work_seconds if self._is_full else self.full_answer_seconds)
        patience = max(patience, MIN_HEDGE_SECONDS)
        self.hedge_seconds = min(patience, self._limits.overdue_seconds)

    def receive(self, byte_count: int, now: float) -> None:
        """Note that bytes came."""
        self._received_bytes += byte_count
        if self._first_byte_at is None:
            self._first_byte_at = now

    def answer(self, asked: float, now: float) -> None:
        """Note that an answer is whole.

        Args:
            asked: When it was asked for.
            now: The time.
        """
        first_byte_at = now if self._first_byte_at is None else self._first_byte_at
        if first_byte_at >= asked:
            self._round_trip = min(self._round_trip, first_byte_at - asked)
        # Before that, the way was another answer's, or what was asked could not be here.
        began = max(self._last_whole_at, min(asked + self._round_trip, now))
        if self._received_bytes >= MEASURED_BYTES:
            self._answers = self._answers * _MEMORY + 1
            self._bytes = self._bytes * _MEMORY + self._received_bytes
            self._seconds = self._seconds * _MEMORY + now - began
        self._received_bytes, self._first_byte_at, self._last_whole_at = 0, None, now
        self._adapt()

    def pass_over(self) -> None:
        """Note that what came was no answer."""
        self._first_byte_at = None

    def time_out(self) -> None:
        """Note that an answer did not come in time: the next one is to be as small as may be."""
        self._answers, self._bytes, self._seconds = 1.0, 0.0, self._limits.answer_seconds
        self._adapt()

    def _adapt(self) -> None:
        """Draw from the measurements how much to ask for; without any, what is asked at first stays."""
        limits = self._limits
        if self._answers == 0.0:
            return
        fitting = float("inf")
        if self._seconds > 0.0:
            fitting = self._bytes / self._seconds * limits.answer_seconds / limits.requests_per_peer
        self.max_bytes = int(min(max(fitting, limits.min_bytes), limits.max_bytes))
        self.requests = limits.requests_per_peer
        if SHORT_ROUND_TRIP_SECONDS <= self._round_trip < _UNKNOWN:
            answer_seconds = max(self._seconds / self._answers, _WORK_SECONDS)
            most = min(1 + self._round_trip / answer_seconds, limits.max_requests_per_peer)
            self.requests = max(self.requests, ceil(most))
