"""The line for large pairs: one is fetched at a time, with memory of its own.

A pair above the usual size of a proof is rare, and that there is one is only what a peer claims.  So nobody
else waits for the memory that it takes; and who fetches one gives way after a while to another peer that
waits to, for it may be slow on purpose.

Invariants: at most one large pair is in memory; patience doubles each time somebody had to give way, so that
among slow peers one gets to the end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from manager.budget import ByteBudget
from manager.errors import GaveWay


class LargePairs:
    """Who fetches a large pair, and who waits to.

    Args:
        patience_seconds: How long the first who waits does so before the one at work has to give way.
        starving: Called when somebody has to wait, so that whoever holds memory back lets go of it.

    Attributes:
        budget: The memory; whatever is reserved in it is granted alone.
    """

    def __init__(self, patience_seconds: float, starving: Callable[[], None]) -> None:
        self.budget = ByteBudget(1, self._somebody_waits)
        self._patience_seconds = patience_seconds
        self._starving = starving
        self._turn: trio.CancelScope | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether somebody fetches a large pair at the moment, which may take long."""
        return self._turn is not None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Bound what is done inside, with memory reserved, once another peer waits for its turn.

        Raises:
            GaveWay: What is done inside was cancelled.
        """
        with trio.CancelScope() as scope:
            self._turn = scope
            if self.budget.is_starving:
                self._end_soon(scope)
            try:
                yield
            finally:
                self._turn = None
        if scope.cancelled_caught:
            self._patience_seconds *= 2
            raise GaveWay

    def _somebody_waits(self) -> None:
        self._starving()
        if self._turn is not None:
            self._end_soon(self._turn)

    def _end_soon(self, scope: trio.CancelScope) -> None:
        scope.deadline = min(scope.deadline, trio.current_time() + self._patience_seconds)
