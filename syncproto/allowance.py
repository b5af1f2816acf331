"""How many messages a side may send that nobody asked for: heads of a subscription, and pings.

Everything else is bounded by requests, each of which has one answer.  Pure: the time is an argument, in
seconds of a clock that does not run backwards.
"""

from typing import Final

from syncproto.errors import TooManyUnasked

# A server looks for a new head 50 times a second at most, and who only wants to know that the other side
# lives pings far less often.
UNASKED_PER_SECOND: Final = 100
# So many may come at once, after a time in which the network held them back.  All of them together are
# decoded in some milliseconds.
UNASKED_BURST: Final = 1_000


class Allowance:
    """Counts what nobody asked for, on one connection."""

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
