"""Where blocking work runs: verifying proofs, and everything that touches the database.

One piece of work at a time.  Verifying and writing share the interpreter, and the store lets go of it for
every row that it writes; beside a second busy thread each row then waits to get it back, which costs hundreds
of times what the row costs.  Nothing is lost, for one thread at a time is all that the interpreter runs
anyway.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from manager.errors import MachineExhausted

Result = TypeVar("Result")


class Processor(Protocol):
    """Runs blocking work; a simulation on a virtual clock puts its own in place."""

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work, and return what it returned or raise what it raised."""


class SerialExecutor:
    """A executor that is a thread; tasks get it in the order in which they ask."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work in a thread; once begun it is waited for, also when cancelled.

        Where the system has no thread to give, the work blocks the event loop, but it is done.

        Raises:
            MachineExhausted: There is no memory for it.
        """
        begun = False

        def begin() -> Result:
            nonlocal begun
            begun = True
            return work()

        try:
            return await trio.to_thread.run_sync(begin, limiter=self._limiter)
        except MemoryError as error:
            raise MachineExhausted("memory") from error
        except RuntimeError:
            # Python has no class of its own for a thread that the system refuses.
            if begun:
                raise
            return work()
