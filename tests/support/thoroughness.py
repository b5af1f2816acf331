"""How much the tests that could go on for ever do: a sample in every run, and all of it in `make soak`."""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# `make soak` sets it.
VARIABLE: Final = "MERKLESYNC_TESTS"
SOAKS: Final = os.environ.get(VARIABLE) == "soak"


def amount(ordinary: int, *, soak: int) -> int:
    """Return how many seeds, examples or kills a test tries: few in every run, many in a soak."""
    return soak if SOAKS else ordinary


def sampled(items: Sequence[T], every: int, first: int = 0) -> Sequence[T]:
    """Return every so many-th item, from one of the first on, in every run, and all of them in a soak."""
    return items if SOAKS else items[first % every :: every]
