"""What a side may say without being asked: pings with their pongs, and how often pings and heads may come.

Everything else is bounded by requests, each of which has one answer.  Pure: the time is an argument, in
seconds of a clock that does not run backwards.
"""

from typing import Final

from syncproto.errors import (
    NoFreeRequest,
    NoSuchRequest,
    RepeatedRequestId,
    RequestIdInUse,
    TooManyRequests,
    TooManyUnasked,
    UnsolicitedAnswer,
)

# More pings without a pong tell nothing new of the peer.
MAX_PINGS: Final = 8
# A server looks for a new head 50 times a second at most, and a ping, which only asks whether the other side
# lives, comes far less often.
UNASKED_PER_SECOND: Final = 100
# So many may come at once, after a time in which the network held them back.  All of them together are
# decoded in some milliseconds.
UNASKED_BURST: Final = 1_000


class Pings:
    """The pings without a pong on one connection, in both directions; their ids are apart from requests'."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._theirs: set[int] = set()

    def __len__(self) -> int:
        """Return how many of ours have no pong."""
        return len(self._ours)

    def send_ping(self, ping_id: int) -> None:
        """Note that we ping.

        Raises:
            RequestIdInUse, NoFreeRequest: Nothing was noted.
        """
        if ping_id in self._ours:
            raise RequestIdInUse(ping_id)
        if len(self._ours) >= MAX_PINGS:
            raise NoFreeRequest(MAX_PINGS)
        self._ours.add(ping_id)

    def send_pong(self, ping_id: int) -> None:
        """Note that we answer a ping; NoSuchRequest is raised where the peer did not send it."""
        if ping_id not in self._theirs:
            raise NoSuchRequest(ping_id)
        self._theirs.remove(ping_id)

    def receive_ping(self, ping_id: int) -> None:
        """Note that the peer pings.

        Raises:
            RepeatedRequestId, TooManyRequests: The peer's misbehaviour.
        """
        if ping_id in self._theirs:
            raise RepeatedRequestId(ping_id)
        if len(self._theirs) >= MAX_PINGS:
            raise TooManyRequests(MAX_PINGS)
        self._theirs.add(ping_id)

    def receive_pong(self, ping_id: int) -> None:
        """Note that the peer answers a ping; UnsolicitedAnswer is raised where we did not send it."""
        if ping_id not in self._ours:
            raise UnsolicitedAnswer("Pong", ping_id)
        self._ours.remove(ping_id)


class Allowance:
    """Counts on one connection what nothing asked for: heads of a subscription, and pings.

    A bucket of ``UNASKED_BURST`` tokens, which is filled with ``UNASKED_PER_SECOND``.
    """

    def __init__(self) -> None:
        self._left = float(UNASKED_BURST)
        self._counted_at = 0.0

    def spend(self, now: float) -> None:
        """Count one message.

        Raises:
            TooManyUnasked: It is one too many.
        """
        self._left = min(UNASKED_BURST, self._left + (now - self._counted_at) * UNASKED_PER_SECOND)
        self._counted_at = now
        if self._left < 1.0:
            raise TooManyUnasked(UNASKED_PER_SECOND)
        self._left -= 1.0
