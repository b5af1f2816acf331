"""How much the tests that could go on for ever do: a sample in every run, and all of it in `make soak`."""

import os
from typing import Final

# `make soak` sets it.
VARIABLE: Final = "MERKLESYNC_TESTS"
SOAKS: Final = os.environ.get(VARIABLE) == "soak"


def amount(ordinary: int, *, soak: int) -> int:
    """Return how many seeds, examples or kills a test tries: few in every run, many in a soak."""
    return soak if SOAKS else ordinary
