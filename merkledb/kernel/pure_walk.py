"""One step of the walk to where changes lie: which branches open, and which of their children come next.

The walk goes down the trie level by level, so that a whole level's branches are parsed at once.  This is a
part of the kernel: the compiled one takes the same columns.
"""

from bisect import bisect_left
from typing import NamedTuple

from merkledb.formats.branch_record import InvalidRecord, parse_record
from merkledb.formats.paths import PathCodec, prefix_end
from merkledb.formats.weights import HEAVY


class Step(NamedTuple):
    """What a step found, as columns.

    Attributes:
        opened: The numbers of those branches that have a change at or below them; the others stay closed.
        own: For each of these, the number of the change at its own path, if there is one.
        digests: For each of these, the digest that its own value had, or None.
        weights: For each of these, what that value weighs; anything without one.
        slots: The slots below them that have changes, and hold no bucket.
        ids: The ids of what hangs there.
        lows: For each slot, the number of the first change there.
        highs: The number after the last one.
        bucket_slots: The slots that have changes, and hold a bucket.
        bucket_weights: What these weigh.
    """

    opened: list[int]
    own: list[int | None]
    digests: list[bytes | None]
    weights: list[int]
    slots: list[bytes]
    ids: list[bytes]
    lows: list[int]
    highs: list[int]
    bucket_slots: list[bytes]
    bucket_weights: list[int]


class Walk:
    """Steps through a trie with changes.

    Args:
        codec: Turns keys into paths.
        keys: Those that change, ascending.
    """

    def __init__(self, codec: PathCodec, keys: list[bytes]) -> None:
        self._branch_factor = codec.branch_factor
        self._changed = codec.paths(keys)

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them.

        Args:
            paths: Of nodes.
            records: Theirs; None for a leaf, which cannot be opened.
            lows: For each, the number of the first change that may lie there.
            highs: The number after the last one.

        Raises:
            InvalidRecord: A record is none.
        """
        step = Step([], [], [], [], [], [], [], [], [], [])
        for number, (path, record, low, high) in enumerate(zip(paths, records, lows, highs, strict=True)):
            if record is not None:
                self._open(step, number, path, record, *self._narrowed(path, low, high))
        return step

    def _narrowed(self, path: bytes, low: int, high: int) -> tuple[int, int]:
        """Return which of the changes [low, high) lie at or below a path."""
        changed = self._changed
        if low < high and changed[low].startswith(path) and changed[high - 1].startswith(path):
            return low, high
        low = bisect_left(changed, path, low, high)
        after = prefix_end(path)
        return low, high if after is None else bisect_left(changed, after, low, high)

    def _open(self, step: Step, number: int, path: bytes, row: bytes, low: int, high: int) -> None:
        if low == high:
            return
        try:
            record = parse_record(row)
            if record.tokens and record.tokens[-1] >= self._branch_factor:
                raise ValueError("a record has a token that is none")
        except ValueError as error:
            raise InvalidRecord(number, str(error)) from error
        is_changed = self._changed[low] == path
        step.opened.append(number)
        step.own.append(low if is_changed else None)
        step.digests.append(record.digest)
        step.weights.append(record.weights[-1] if record.weights else HEAVY)
        low += is_changed
        while low < high:
            slot = self._changed[low][: len(path) + 1]
            after = prefix_end(slot)
            end = high if after is None else bisect_left(self._changed, after, low, high)
            index = record.tokens.find(slot[-1])
            if index >= 0 and record.weights[index] == HEAVY:
                step.slots.append(slot)
                step.ids.append(record.child_at(index))
                step.lows.append(low)
                step.highs.append(end)
            elif index >= 0:
                step.bucket_slots.append(slot)
                step.bucket_weights.append(record.weights[index])
            low = end
