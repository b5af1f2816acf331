"""A command that is run for each root that a follower reaches: ``follow --on-root``.

One run at a time; when the command is slow, roots in between are skipped and the newest is next.  A failure
is noted, and ends nothing.  The command line is given to the shell, in a process group of its own.  When
the follower ends, the group gets SIGTERM, and SIGKILL where the shell is still there after a grace time.

Its standard output goes to our standard error, because ours holds the roots.
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
from manager.status.progress import LatestValue

# People at a terminal wait this long after Ctrl-C; a command that has to finish more can ignore SIGTERM.
GRACE_SECONDS: Final = 5.0
_STANDARD_ERROR: Final = 2


class _PendingRun(NamedTuple):
    """A root, and whether the command has been run for it."""

    reached: Reached
    done: trio.Event


class RootHook:
    """Runs a command for the newest root, one at a time.

    Args:
        command: For ``sh -c``.
        store: The folder of the store.
        on_error: Called with a sentence when the command fails.
    """

    def __init__(self, command: str, store: Path, on_error: Callable[[str], None]) -> None:
        self._command = command
        self._store = store.absolute()
        self._on_error = on_error
        self._pending: LatestValue[_PendingRun] = LatestValue()
        self._newest: _PendingRun | None = None

    def enqueue_newest(self, reached: Reached) -> None:
        """Let the command be run for a root; an older root that still waits is forgotten."""
        self._newest = _PendingRun(reached, trio.Event())
        self._pending.put(self._newest)

    async def run(self) -> None:
        """Run the command for each root that is enqueued, until cancelled.

        Cancelled, the process group of a running command gets SIGTERM; this returns when the shell has
        ended, or was killed after GRACE_SECONDS.
        """
        async for pending in self._pending:
            await self._run(pending.reached)
            pending.done.set()

    async def wait_until_idle(self) -> None:
        """Wait until the command has been run for the root that was enqueued last.

        A cancellation leaves the command running.
        """
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
            self._on_error(f"the command of --on-root could not be run: {error.strerror}")
            return
        if ended.returncode:
            self._on_error(
                f"the command of --on-root {_ending(ended.returncode)} for root {reached.root.hex()}"
            )


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


async def _end_group(process: trio.Process) -> None:
    """Tell a process and its children to end; kill them when they take too long."""
    # trio cancels this function as soon as the process has ended, so the kill reaches only what still runs.
    _signal_group(process.pid, signal.SIGTERM)
    await trio.sleep(GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
