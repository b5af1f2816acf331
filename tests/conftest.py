"""What all tests share: the hypothesis profiles, and a way to run without measuring coverage."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.thoroughness import SOAKS, amount

# Of a test that says nothing about it.
EXAMPLES = amount(100, soak=2000)

# The machines that run the tests differ tenfold in speed, so nothing here is timed. In continuous integration
# a run must say the same as the run before it; on a developer's machine new examples are worth more.
settings.register_profile(
    "merklesync",
    deadline=None,
    max_examples=EXAMPLES,
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# A soak looks for what no run has found yet, so it never repeats the examples of the run before it.
settings.register_profile("soak", settings.get_profile("merklesync"), derandomize=False)
settings.load_profile("soak" if SOAKS else "merklesync")


@pytest.fixture
def untraced() -> Iterator[None]:
    """Run a test without measuring coverage: a simulation would take three times as long.

    And show nothing new: what it runs is covered by tests of its parts.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
