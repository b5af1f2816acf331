"""How well a peer does, as a number between 0 and 1, and what follows from it.

A failure halves the score, a success heals a part of what is missing.  A peer with a low score keeps fewer
requests in flight, so that little has to be asked again elsewhere when it fails again.  Pure.
"""

from math import ceil
from typing import Final

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
