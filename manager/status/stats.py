"""What a sync has done so far, and what people may want to know of the rest.

Nothing here decides anything: it counts, and says only what can be known (see ``estimate``).
"""

from typing import Final

from manager.status.estimate import Expectation, Rate, seconds_left

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
        self._began = now
        self._keys_rate, self._bytes_rate = Rate(now), Rate(now)

    def add(self, keys: int, changes: int, byte_count: int, now: float) -> None:
        """Count what is on disk since the last call."""
        self.keys += keys
        self.changes += changes
        self.bytes += byte_count
        self._keys_rate.add(keys + changes, now)
        self._bytes_rate.add(byte_count, now)

    def look(self, *, unknown_share: float, done_share: float) -> None:
        """Take a look at how much is left.

        Args:
            unknown_share: The part of the tree of which nothing is known, so that it is copied in full.
            done_share: The part that is at the pivot.
        """
        self._is_copying = unknown_share > 0.0
        share = done_share
        if self._is_copying:
            expected = self.expectation.keys(self.keys)
            share = self.keys / expected if expected else 1.0 - unknown_share
        self.share = max(self.share, min(share, _ALMOST_ALL))

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

    def rates(self, now: float) -> tuple[float | None, float | None]:
        """Return keys and bytes a second; None while nothing is known."""
        return self._keys_rate.at(now), self._bytes_rate.at(now)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes at the current rate; None while nobody can know.

        That is so while no peer says how many pairs there are, when there turn out to be more, and while
        changes are fetched, for nobody says how many these are.
        """
        if self.share == 1.0:
            return 0.0
        left = (self.expected_keys or 0) - self.keys
        return seconds_left(left, self._keys_rate.at(now)) if left > 0 else None

    def elapsed_seconds(self, now: float) -> float:
        """Return for how long this run has been going."""
        return now - self._began
