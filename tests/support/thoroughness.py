"""How much endless tests do: a sample, a quarter of it in `make quick`, and all of it in `make soak`."""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# `make quick` and `make soak` set it.
VARIABLE: Final = "MERKLESYNC_TESTS"
SOAKS: Final = os.environ.get(VARIABLE) == "soak"
IS_QUICK: Final = os.environ.get(VARIABLE) == "quick"
# What `make quick` tries of what a whole run does: it is run after each change, so its runs are many.
_QUICK_SHARE: Final = 4


def amount(ordinary: int, *, soak: int) -> int:
    """Return how many seeds, examples or kills a test tries: few, fewer in a quick run, many in a soak."""
    if SOAKS:
        return soak
    return -(-ordinary // _QUICK_SHARE) if IS_QUICK else ordinary


def sampled(items: Sequence[T], every: int, first: int = 0) -> Sequence[T]:
    """Return every so many-th item, from one of the first on, in every run, and all of them in a soak."""
    return items if SOAKS else items[first % every :: every]
