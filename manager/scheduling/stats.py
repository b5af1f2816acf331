"""What a sync has done so far: counts for what people see, and for the checkpoint.

How fast it is and how long the rest takes is ``manager.status.estimate``'s.  Nothing here decides anything.
Pure: the time is an argument, in seconds of any clock that does not run backwards.
"""

from collections.abc import Collection, Iterable
from typing import Final

from manager.scheduling.backlog import Work
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
