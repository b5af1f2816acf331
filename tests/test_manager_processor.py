"""Where blocking work runs: what the machine lacks for it is an error of its own, and may be there later."""

import subprocess
import sys

import pytest

from manager import MachineExhausted, OneThread

# An ordinary user, whom the system refuses a further thread.
WITHOUT_THREADS = """
import os, resource, trio
from manager import MachineExhausted, OneThread
if os.getuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    trio.run(OneThread().run, lambda: None)
except MachineExhausted as error:
    print(error.what)
"""


async def test_work_without_memory_is_a_typed_error() -> None:
    def exhaust() -> None:
        raise MemoryError

    with pytest.raises(MachineExhausted, match="no memory left for the sync"):
        await OneThread().run(exhaust)


async def test_another_failure_of_the_work_is_raised_as_it_is() -> None:
    def fail() -> None:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        await OneThread().run(fail)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts threads as processes")
def test_work_without_a_thread_is_a_typed_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "thread\n"
