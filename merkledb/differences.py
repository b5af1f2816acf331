"""What changed between two retained revisions: for change proofs, and for people.

The keys that were touched between both stand in history, sorted within each revision; they are collected in
windows, ascending.  What the earlier revision had is the first row of each; what the later one had is the
first row after it, or what the tables hold.  A key that was changed and changed back is no change.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from merkledb.history.log import value_of_row
from merkledb.history.rows import WINDOW_GROWTH, StoredRows
from merkledb.snapshot import Snapshot
from merkledb.storage.store import StoreTransaction

# A window of touched keys: as many rows, or about so many bytes.
_WINDOW_ROWS: Final = 4096
_WINDOW_BYTES: Final = 4 << 20
# Values are compared so many bytes at a time.
_COMPARED_BYTES: Final = 1 << 20


class Difference(NamedTuple):
    """A key that has not the same value in two states.

    Attributes:
        key: The key.
        old: Its value in the one; None when it is absent there.
        new: Its value in the other; None when it is absent there.
    """

    key: bytes
    old: bytes | None
    new: bytes | None


class Differences:
    """The differences between two snapshots of one transaction.

    Args:
        old: The one.
        new: The other, before or after it.
        transaction: What both are read in, with views: then values are views.  See ``Snapshot.views``.
    """

    def __init__(self, old: Snapshot, new: Snapshot, transaction: StoreTransaction) -> None:
        self._new_is_earlier = new.sequence < old.sequence
        self._earlier, self._later = (new, old) if self._new_is_earlier else (old, new)
        self._between = self._earlier.past_until(self._later, transaction)
        self._behind = self._later.past_until(None, transaction)
        self._tables = StoredRows(transaction)
        # Up to where all differences were yielded: what was asked for, unless the budget was used up before.
        self.reached: bytes | None = None
        self._reads = 0

    def between(
        self, start: bytes | None, end: bytes | None, expected: int, max_reads: int | None = None
    ) -> Iterator[Difference]:
        """Yield the differences in [start, end], ascending by key.

        Args:
            start: The smallest key; None for no bound.
            end: The largest key; None for no bound.
            expected: About how many will be read.
            max_reads: About how many rows of history may be read; where it takes more, the differences end
                early, and ``reached`` says where.  None for as many as it takes.
        """
        self.reached = end
        self._reads = 0
        low: bytes | None = start or b""
        limit = min(expected + 1, _WINDOW_ROWS)
        while low is not None:
            room = None if max_reads is None else (max_reads - self._reads) // 2
            touched, horizon, reads = self._between.overlay(low, end, limit, _WINDOW_BYTES, room)
            self._reads += reads
            if touched:
                yield from self._window(touched, horizon, room, max_reads)
            is_spent = max_reads is not None and self._reads >= max_reads
            if self.reached != end or horizon is None or horizon == end:
                return
            if is_spent:
                self.reached = horizon
                return
            low, limit = horizon + b"\0", min(WINDOW_GROWTH * limit, _WINDOW_ROWS)

    def _window(
        self, touched: dict[bytes, bytes], high: bytes | None, room: int | None, max_reads: int | None
    ) -> Iterator[Difference]:
        """Yield the differences among the touched keys up to ``high``, as far as the budget goes."""
        keys = sorted(touched)
        again, horizon, reads = self._behind.overlay(keys[0], high, 2 * len(keys), _WINDOW_BYTES, room)
        self._reads += reads
        for index, key in enumerate(keys):
            before = value_of_row(touched[key])
            if horizon is not None and key > horizon:
                # More was changed afterwards than this window takes: from here on, each key is looked up.
                if max_reads is not None and self._reads >= max_reads:
                    self.reached = keys[index - 1]
                    return
                self._reads += self._behind.revisions
                after = self._later.get(key)
            elif key in again:
                after = value_of_row(again[key])
            else:
                after = self._tables.value(key)
            if _differ(before, after):
                yield (
                    Difference(key, after, before) if self._new_is_earlier else Difference(key, before, after)
                )


def _differ(one: bytes | None, other: bytes | None) -> bool:
    """Return whether two values are different; large ones are compared without a copy of the whole."""
    if one is None or other is None or len(one) != len(other):
        return one is not other
    if len(one) <= _COMPARED_BYTES:
        return bytes(one) != bytes(other)
    steps = range(0, len(one), _COMPARED_BYTES)
    return any(
        bytes(one[at : at + _COMPARED_BYTES]) != bytes(other[at : at + _COMPARED_BYTES]) for at in steps
    )
