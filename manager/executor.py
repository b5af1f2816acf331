"""Where blocking work runs: verifying proofs, and everything that touches the database.

One piece of work at a time.  Verifying and writing share the interpreter, and the store lets go of it for
every row that it writes; beside a second busy thread each row then waits to get it back, which costs hundreds
of times what the row costs.  Nothing is lost, for one thread at a time is all that the interpreter runs
anyway.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

from manager.errors import MachineExhausted

Result = TypeVar("Result")


class SerialExecutor:
    """Runs blocking work in one thread, which tasks get in the order in which they ask.

    Tests and simulations on a virtual clock override ``run``.
    """

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work in a thread, and return what it returned or raise what it raised.

        Once begun, it is waited for, also when cancelled.  Where the system has no thread to give, the work
        blocks the event loop, but it is done.

        Raises:
            MachineExhausted: There is no memory for it.
        """
        begun = False

        def begin() -> Result:
            nonlocal begun
            begun = True
            return work()

        try:
            try:
                return await trio.to_thread.run_sync(begin, limiter=self._limiter)
            except RuntimeError:
                # Python has no class of its own for a thread that the system refuses.
                if begun:
                    raise
                return work()
        except MemoryError as error:
            raise MachineExhausted("memory") from error
