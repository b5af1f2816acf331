"""Running trio so that a seed decides everything: the order of tasks, the time, and nothing else does.

Trio runs the tasks that are ready in a random order.  That order is drawn here from the seed, by the hook
that trio keeps for Hypothesis (``_ALLOW_DETERMINISTIC_SCHEDULING``, as pytest-trio uses it): ready tasks are
sorted by their age and then shuffled by ``trio._core._run._r``.  The clock is virtual, and jumps to the next
deadline as soon as every task waits.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio
import trio.testing
from trio._core import _run

Result = TypeVar("Result")

# No step of a simulation waits for anything real, so tasks that run for so many turns of the loop at one
# moment of the virtual time go round in a circle.
MAX_TURNS_AT_ONE_TIME: Final = 50_000


class StandstillAlarm(trio.abc.Instrument):
    """Sounds when tasks run for ever without letting time pass.

    Args:
        sound: Called once, inside the run.
    """

    def __init__(self, sound: Callable[[], None]) -> None:
        self._sound = sound
        self._time = -1.0
        self._turns = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count a turn of the loop."""
        del timeout
        now = trio.current_time()
        if now != self._time:
            self._time, self._turns = now, 0
        self._turns += 1
        if self._turns == MAX_TURNS_AT_ONE_TIME:
            self._sound()


def run(seed: int, function: Callable[[], Awaitable[Result]]) -> Result:
    """Run an async function on a virtual clock, with the seed deciding in which order tasks run."""
    with _scheduled_by(seed), _without_collections():
        return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def _scheduled_by(seed: int) -> Iterator[None]:
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # The documented way for tests.
    _run._r.seed(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector from running finalizers at moments that no seed decides."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
