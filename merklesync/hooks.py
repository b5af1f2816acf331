"""A command that is run for each root that a follower reaches: ``follow --on-root``.

One at a time, and for the newest root only when it is slow; what it fails at is shown, and ends nothing.  It
is a command line for the shell, in a process group of its own.  When the follower ends, the group is told to
end too, and killed where the shell is still there after a grace time.

Its standard output goes to our standard error, for ours belongs to the roots.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import trio

from manager import Reached
from manager.status.latest_value import LatestValue

# As long as people wait at a terminal after Ctrl-C; a command that has to finish more should not mind TERM.
GRACE_SECONDS: Final = 5.0
_STANDARD_ERROR: Final = 2


class _Offer(NamedTuple):
    """A root, and whether the command has been run for it."""

    reached: Reached
    done: trio.Event


class RootHook:
    """Runs a command for the newest root, one at a time.

    Args:
        command: For ``sh -c``.
        store: The folder of the store.
        complain: Called with a sentence when the command fails.
    """

    def __init__(self, command: str, store: Path, complain: Callable[[str], None]) -> None:
        self._command = command
        self._store = store.absolute()
        self._complain = complain
        self._offers: LatestValue[_Offer] = LatestValue()
        self._newest: _Offer | None = None

    def offer(self, reached: Reached) -> None:
        """Let the command be run for a root, in place of an older one that still waits."""
        self._newest = _Offer(reached, trio.Event())
        self._offers.put(self._newest)

    async def run(self) -> None:
        """Run the command for what is offered, until cancelled."""
        async for offer in self._offers:
            await self._run(offer.reached)
            offer.done.set()

    async def finished(self) -> None:
        """Wait until the command has been run for the root that was offered last."""
        if self._newest is not None:
            await self._newest.done.wait()

    async def _run(self, reached: Reached) -> None:
        environment = {
            **os.environ,
            "MERKLESYNC_ROOT": reached.root.hex(),
            "MERKLESYNC_REVISION": str(reached.revision),
            "MERKLESYNC_STORE": str(self._store),
        }
        try:
            ended = await trio.run_process(
                ["sh", "-c", self._command],
                stdin=subprocess.DEVNULL,
                stdout=_STANDARD_ERROR,
                env=environment,
                check=False,
                start_new_session=True,
                deliver_cancel=_end_group,
            )
        except OSError as error:
            self._complain(f"the command of --on-root could not be run: {error.strerror}")
            return
        if ended.returncode:
            self._complain(
                f"the command of --on-root {_ending(ended.returncode)} for root {reached.root.hex()}"
            )


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


async def _end_group(process: trio.Process) -> None:
    """Tell a process and its children to end; kill them when they take too long."""
    # It is over when the process is: trio cancels this then.
    _signal_group(process.pid, signal.SIGTERM)
    await trio.sleep(GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
