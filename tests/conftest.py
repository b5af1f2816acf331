"""What all tests share: the hypothesis profile."""

import os

from hypothesis import HealthCheck, settings

# The machines that run the tests differ tenfold in speed, so nothing here is timed. In continuous integration
# a run must say the same as the run before it; on a developer's machine new examples are worth more.
settings.register_profile(
    "merklesync",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("merklesync")
