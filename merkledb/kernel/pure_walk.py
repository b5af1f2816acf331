"""Changes, sorted; and one step of the walk to where they lie: which branches open, and what comes next.

The walk goes down the trie level by level, so that a whole level's branches are parsed at once.  This is a
part of the kernel: the compiled one takes the same columns.
"""

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from merkledb.formats.branch_record import CHILD_BYTES, HEAVY, InvalidRecord, Record, parse_record
from merkledb.formats.scheme import Scheme

# All keys, those that get a value, their values, the others; the lengths of the longest key and value.
Sorted: TypeAlias = tuple[list[bytes], list[bytes], list[bytes], list[bytes], int, int]


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
        scheme: The trie's.
        keys: Those that change, ascending.
    """

    def __init__(self, scheme: Scheme, keys: list[bytes]) -> None:
        self._branch_factor = scheme.branch_factor
        self._changed = scheme.codec.paths(keys)

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
        changed = self._changed
        opened: list[tuple[bytes, Record, int, int]] = []
        for number, (path, row, low, high) in enumerate(zip(paths, records, lows, highs, strict=True)):
            first = bisect_left(changed, path, low, high)
            if row is None or first == high or not changed[first].startswith(path):
                continue
            try:
                record = parse_record(row, self._branch_factor)
            except ValueError as error:
                raise InvalidRecord(number, str(error)) from error
            is_changed = changed[first] == path
            step.opened.append(number)
            step.own.append(first if is_changed else None)
            step.digests.append(record.digest)
            step.weights.append(record.weights[-1] if record.weights else HEAVY)
            opened.append((path, record, first + is_changed, high))
        self._go_below(step, opened)
        return step

    def _go_below(self, step: Step, opened: list[tuple[bytes, Record, int, int]]) -> None:
        """Add the slots with changes below opened branches; [low, high) holds the changes below each."""
        changed = self._changed
        for path, record, first, high in opened:
            end = first
            while end < high and changed[end].startswith(path):
                low, slot = end, changed[end][: len(path) + 1]
                end = bisect_right(changed, slot, low, high, key=itemgetter(slice(len(slot))))
                index = record.tokens.find(slot[-1])
                if index >= 0 and record.weights[index] == HEAVY:
                    step.slots.append(slot)
                    step.ids.append(record.children[CHILD_BYTES * index + 1 : CHILD_BYTES * (index + 1)])
                    step.lows.append(low)
                    step.highs.append(end)
                elif index >= 0:
                    step.bucket_slots.append(slot)
                    step.bucket_weights.append(record.weights[index])


def pure_sort_changes(new: dict[bytes, bytes | None]) -> Sorted:
    """Return all keys, those that get a value, their values, and the others, each ascending by key.

    And the lengths of the longest key and of the longest value.

    Raises:
        TypeError: A key is not bytes, or a value neither bytes nor None.
    """
    value_types = set(map(type, new.values()))
    if not {bytes}.issuperset(map(type, new)) or not {bytes, type(None)}.issuperset(value_types):
        raise TypeError("changes map bytes to bytes, or to None to delete")
    keys = sorted(new)
    deleted = [key for key in keys if new[key] is None] if type(None) in value_types else []
    put_keys = [key for key in keys if new[key] is not None] if deleted else keys
    put_values = [value for value in map(new.__getitem__, put_keys) if value is not None]
    longest_key, longest_value = max(map(len, keys), default=0), max(map(len, put_values), default=0)
    return keys, put_keys, put_values, deleted, longest_key, longest_value
