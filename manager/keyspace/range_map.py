"""The map of key ranges: for every key of the key space, the root that the local content is known to be at.

It is the manager's memory of what is done, and the only part of its state that must survive a crash: the
writer stores it in the same transaction as the content that it describes (see ``checkpoint``).

Invariants:

- The ranges are sorted, and cover the whole key space without a gap or an overlap.
- Neighbours differ in their root: equal ones were merged, so the map stays as small as what it says.
- A range whose root is None holds anything: nothing is known about its local content.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from sortedcontainers import SortedDict

from manager.keyspace.keyspace import key_after, key_before


class KeyRange(NamedTuple):
    """One entry of the map.

    Attributes:
        start: The first key, inclusive.
        end: The last key, inclusive; None up to the last key there can be.
        root: The root that the local content of the range is at; None when unknown.
    """

    start: bytes
    end: bytes | None
    root: bytes | None


class RangeMap:
    """Which root each range of the key space is at.

    Args:
        max_key_bytes: The longest key of the scheme; it makes ranges adjacent without a gap.
        root: What the whole key space is at to begin with; None when unknown.
    """

    def __init__(self, max_key_bytes: int, root: bytes | None = None) -> None:
        self.max_key_bytes = max_key_bytes
        # Each range by its start; it reaches to the next start.
        self._roots: SortedDict[bytes, bytes | None] = SortedDict({b"": root})

    @classmethod
    def from_columns(cls, starts: Sequence[bytes], roots: Sequence[bytes | None], max_key_bytes: int) -> Self:
        """Return the map with these starts, strictly ascending from the empty key, and these roots."""
        ranges = cls(max_key_bytes)
        ranges._roots = SortedDict(zip(starts, roots, strict=True))
        return ranges

    def __iter__(self) -> Iterator[KeyRange]:
        starts = list(self._roots)
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            end = None if following is None else key_before(following, self.max_key_bytes)
            yield KeyRange(start, end, self._roots[start])

    def __len__(self) -> int:
        return len(self._roots)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeMap):
            return NotImplemented
        return self.max_key_bytes == other.max_key_bytes and self._roots == other._roots

    __hash__ = None  # type: ignore[assignment]  # A map that changes has no hash.

    def __repr__(self) -> str:
        ranges = (
            f"0x{start.hex()}: {root.hex()[:8] if root else None}" for start, root in self._roots.items()
        )
        return f"RangeMap({{{', '.join(ranges)}}})"

    def copy(self) -> Self:
        """Return a map that says the same and can be changed on its own."""
        copied = type(self)(self.max_key_bytes)
        copied._roots = self._roots.copy()  # noqa: SLF001 - the copy is one of us.
        return copied

    def root_at(self, key: bytes) -> bytes | None:
        """Return the root that the range of ``key`` is at, or None."""
        return self._roots.peekitem(self._roots.bisect_right(key) - 1)[1]

    def set(self, start: bytes, end: bytes | None, root: bytes | None) -> None:
        """Say that ``[start, end]`` is at ``root`` from now on, whatever was said before.

        Args:
            start: The first key.
            end: The last key, not below ``start``; None up to the last key there can be.
            root: The root that the local content of the range is at; None to forget.

        Raises:
            ValueError: ``end`` lies below ``start``.
        """
        if end is not None and end < start:
            raise ValueError(f"the range starts at 0x{start.hex()}, after its end 0x{end.hex()}")
        following = None if end is None else key_after(end, self.max_key_bytes)
        if following is not None and following not in self._roots:
            self._roots[following] = self.root_at(following)
        for inner in list(self._roots.irange(start, following, inclusive=(True, False))):
            del self._roots[inner]
        self._roots[start] = root
        self._merge_at(start)
        if following is not None:
            self._merge_at(following)

    def _merge_at(self, start: bytes) -> None:
        """Drop the border at ``start`` when both of its sides say the same."""
        index = self._roots.index(start)
        if index and self._roots.peekitem(index - 1)[1] == self._roots[start]:
            del self._roots[start]

    def is_at(self, target: bytes) -> bool:
        """Return whether the whole key space is at ``target``."""
        return len(self._roots) == 1 and self._roots[b""] == target

    def trim(self, max_ranges: int) -> None:
        """Forget the roots of everything after the first ``max_ranges`` - 1 ranges.

        What is forgotten is only fetched again.  Work goes from left to right, so the left part is what must
        be kept.

        Args:
            max_ranges: How many ranges may remain, at least 2.
        """
        if len(self._roots) > max_ranges:
            self.set(self._roots.peekitem(max_ranges - 1)[0], None, None)
