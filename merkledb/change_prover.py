"""What changed between two retained revisions: for change proofs, and for people.

The keys that were touched between both stand in history, sorted within each revision; they are collected in
windows, ascending.  What the earlier revision had is the first row of each; what the later one had is the
first row behind it, or what the tables hold.  A key that was changed and changed back is no change.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from merkledb.history import value_of_row
from merkledb.proof import MAX_PROOF_KEYS, ChangeProof, encoded_value_bytes
from merkledb.prover import cut
from merkledb.rows import Pairs
from merkledb.snapshot import Snapshot

# A window of touched keys: as many rows, or about so many bytes.
_WINDOW_ROWS: Final = 4096
_WINDOW_BYTES: Final = 4 << 20


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
    """

    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        self._new_is_earlier = new.sequence < old.sequence
        self._earlier, self._later = (new, old) if self._new_is_earlier else (old, new)
        self._between = self._earlier.past_until(self._later)
        self._behind = self._later.past_until(None)
        self._tables = self._later.tables()

    def between(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Difference]:
        """Yield the differences in [start, end], ascending by key.

        Args:
            start: The smallest key; None for no bound.
            end: The largest key; None for no bound.
            expected: About how many will be read.
        """
        low: bytes | None = start or b""
        limit = min(expected + 1, _WINDOW_ROWS)
        while low is not None:
            touched, horizon = self._between.overlay(low, end, limit, _WINDOW_BYTES)
            if touched:
                yield from self._window(touched, horizon)
            low = None if horizon is None or horizon == end else horizon + b"\0"
            limit = _WINDOW_ROWS

    def _window(self, touched: dict[bytes, bytes], high: bytes | None) -> Iterator[Difference]:
        keys = sorted(touched)
        again, horizon = self._behind.overlay(keys[0], high, 2 * len(keys), _WINDOW_BYTES)
        for key in keys:
            before = value_of_row(touched[key])
            if horizon is not None and key > horizon:
                # More was changed afterwards than this window takes.
                after = self._later.get(key)
            elif key in again:
                after = value_of_row(again[key])
            else:
                after = self._tables.value(key)
            if before != after:
                yield (
                    Difference(key, after, before) if self._new_is_earlier else Difference(key, before, after)
                )


def prove_changes(
    old: Snapshot, new: Snapshot, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int
) -> ChangeProof:
    """Return the proof of what changed in [start, end] between two snapshots, cut off where it is full.

    Args:
        old: Whose content the receiver has.
        new: Whose content it shall have.
        start: The smallest key; None for no bound.
        end: The largest key; None for no bound.
        max_keys: The most changes.
        max_bytes: The most encoded bytes.

    Raises:
        LimitTooSmall: The smallest proof that makes progress has more than ``max_bytes``.
    """
    max_keys = min(max_keys, MAX_PROOF_KEYS)
    differences = Differences(old, new).between(start, end, max_keys)
    keys: list[bytes] = []
    values: list[bytes | None] = []
    encoded_bytes, more = 0, False
    for key, _, value in differences:
        change_bytes = encoded_value_bytes(key) + encoded_value_bytes(value)
        if len(keys) == max_keys or (keys and encoded_bytes + change_bytes > max_bytes):
            more = True
            break
        encoded_bytes += change_bytes
        keys.append(key)
        values.append(value)
    pairs = Pairs(keys, values, encoded_bytes, more)
    return cut(pairs, start, end, max_bytes, new.trie(), ChangeProof)
