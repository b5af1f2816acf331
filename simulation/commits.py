"""What the writer commits.

Keys love to be prefixes of each other, values lie on both sides of every limit, and changes are of every
size and go back and forth.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from simulation.model import Changes, Contents, Made, Model

_LIKELY_BYTES: Final = (0x00, 0x01, 0x0F, 0x10, 0x61, 0x7F, 0x80, 0xF0, 0xFE, 0xFF)
# Branch factor 2 allows no longer key than this.
_LONGEST_KEY_BYTES: Final = 60


class Author:
    """Thinks of changes.

    Args:
        random: Where chances come from.
        longest_value_bytes: Of a value, which may be above what one proof usually holds.
        large_changes: How many keys a large commit changes, at most.
    """

    def __init__(self, random: Random, longest_value_bytes: int, large_changes: int) -> None:
        self._random = random
        self._longest_value_bytes = longest_value_bytes
        self._large_changes = large_changes

    def pairs(self, count: int) -> dict[bytes, bytes]:
        """Return about so many pairs."""
        return {self._key(()): self._value() for _ in range(count)}

    def next_changes(self, model: Model) -> tuple[str, Changes]:
        """Return the changes of the next commit, and what kind they are."""
        contents = model.contents_of(model.newest.root)
        assert contents is not None
        kinds = {
            "small": (30, self._some),
            "large": (15, self._many),
            "values": (15, self._values),
            "deletions": (15, self._deletions),
            "range deleted": (8, self._range_deleted),
            "back": (10, self._back),
            "emptied": (3, self._emptied),
            "nothing": (4, self._nothing),
        }
        weights = [weight for weight, _ in kinds.values()]
        kind = self._random.choices(list(kinds), weights)[0]
        return kind, kinds[kind][1](model, contents)

    def _some(self, _: Model, contents: Contents) -> Changes:
        keys = sorted(contents)
        return {
            self._key(keys): self._value() if self._random.random() < 0.7 else None
            for _ in range(self._random.randrange(1, 5))
        }

    def _many(self, _: Model, contents: Contents) -> Changes:
        keys = sorted(contents)
        count = self._random.randrange(1, self._large_changes + 1)
        return {self._key(keys): self._value() if self._random.random() < 0.8 else None for _ in range(count)}

    def _values(self, _: Model, contents: Contents) -> Changes:
        """Change values, and leave the keys alone."""
        return {key: self._value() for key in self._chosen(sorted(contents))}

    def _deletions(self, _: Model, contents: Contents) -> Changes:
        return dict.fromkeys(self._chosen(sorted(contents)))

    def _range_deleted(self, _: Model, contents: Contents) -> Changes:
        keys = sorted(contents)
        first, last = sorted(self._random.randrange(len(keys) + 1) for _ in range(2))
        return dict.fromkeys(keys[first:last])

    def _back(self, model: Model, contents: Contents) -> Changes:
        """Return to a content that was there before."""
        earlier: Made = self._random.choice(model.made[-4:])
        return difference(contents, model.contents_of(earlier.root) or {})

    def _emptied(self, _: Model, contents: Contents) -> Changes:
        return dict.fromkeys(contents)

    def _nothing(self, _: Model, contents: Contents) -> Changes:
        """Write what is there already."""
        return {key: contents[key] for key in self._chosen(sorted(contents))[:2]}

    def _chosen(self, keys: Sequence[bytes]) -> list[bytes]:
        share = self._random.choice([0.02, 0.1, 0.5])
        return [key for key in keys if self._random.random() < share]

    def _key(self, present: Sequence[bytes]) -> bytes:
        """Return a key that is present, or beside one that is, or any other."""
        random = self._random
        if not present or random.random() < 0.3:
            return self._any_key()
        key = random.choice(present)
        match random.randrange(4):
            case 0:
                return (key + bytes([random.choice(_LIKELY_BYTES)]))[:_LONGEST_KEY_BYTES]
            case 1:
                return key[: random.randrange(len(key) + 1)]
            case 2 if key:
                return key[:-1] + bytes([key[-1] ^ random.choice([1, 2, 16, 128])])
            case _:
                return key

    def _any_key(self) -> bytes:
        random = self._random
        match random.randrange(4):
            case 0:
                return bytes(random.choice(_LIKELY_BYTES) for _ in range(random.randrange(5)))
            case 1:
                return b"deep" * random.randrange(1, 10) + random.randbytes(random.randrange(4))
            case _:
                return random.randbytes(random.choice([1, 2, 8, 20, 32]))

    def _value(self) -> bytes:
        random = self._random
        length = random.choice([0, 1, 8, 31, 32, 33, 60, 64, 300, 600])
        if random.random() < 0.01:
            length = random.randrange(1, self._longest_value_bytes + 1)
        return random.randbytes(length)


def difference(before: Contents, after: Contents) -> dict[bytes, bytes | None]:
    """Return the changes that turn one content into another."""
    changes: dict[bytes, bytes | None] = dict.fromkeys(before.keys() - after.keys())
    changes.update({key: value for key, value in after.items() if before.get(key) != value})
    return dict(sorted(changes.items()))
