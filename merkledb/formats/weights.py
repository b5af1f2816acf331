"""Weights: which branches are stored, and which follow from a short scan of the values.

A *bucket* is a subtree that holds only a few small values.  Its branches are not stored: whoever needs one
reads the bucket's pairs, which lie side by side, and folds them.  At 32 bytes a value that leaves one row of
a branch for twelve pairs instead of one for three.

    weight of a value      1, and 1 more for every 64 bytes of it
    weight of a subtree    the sum of its values' weights
    bucket                 a subtree of at most MAX_WEIGHT

The weight follows from the content alone.  So all stores with the same pairs have the same rows, and where an
id stays the same, what is stored below it does too.
"""

from collections.abc import Sequence
from typing import Final

# A scan of so much costs about as much as a lookup of one branch.
MAX_WEIGHT: Final = 8
# The weight of everything that is no bucket; as any weight, it fits into a byte.
HEAVY: Final = 255
_UNIT_BYTES: Final = 64


def weight_of(value: bytes) -> int:
    """Return the weight of one value."""
    weight = 1 + len(value) // _UNIT_BYTES
    return weight if weight <= MAX_WEIGHT else HEAVY


def weights_of(values: Sequence[bytes]) -> bytes:
    """Return the weights of values, one a byte."""
    if max(map(len, values), default=0) < _UNIT_BYTES:
        return b"\x01" * len(values)
    return bytes(map(weight_of, values))
