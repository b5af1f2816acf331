"""How long the event loop of a process was blocked: a watch on every step of its tasks.

A step is what a task does from one checkpoint to the next; nothing else happens in the loop meanwhile.  It is
timed twice: by the clock, for so long the loop is blocked, and by the processor time of the loop's thread,
which is the step's own work.  The difference was spent waiting: for the interpreter, which another thread
holds, or for a processor.  Whoever holds the interpreter in Python gives it away when asked for 5 ms (see
``sys.setswitchinterval``); what is one call of C to Python, or a collection of garbage, is not interrupted.
"""

import gc
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

_NANOSECONDS: Final = 1_000_000
# One step in so many is longer than what is called rare here: the percentile 99.9.
_RARE: Final = 1000


class LoopWatch(trio.abc.Instrument):
    """Times each step that the event loop runs, and each collection of garbage in any thread."""

    def __init__(self) -> None:
        self._blocked, self._own, self._collections = array("q"), array("q"), array("q")
        self._began = self._own_began = self._collection_began = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the event loop that runs this, as long as the block lasts."""
        trio.lowlevel.add_instrument(self)
        gc.callbacks.append(self._note_collection)
        self.before_task_step(trio.lowlevel.current_task())
        try:
            yield
        finally:
            gc.callbacks.remove(self._note_collection)
            trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Note that a step begins."""
        self._own_began, self._began = time.thread_time_ns(), time.perf_counter_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Note that a step has ended."""
        self._blocked.append(time.perf_counter_ns() - self._began)
        self._own.append(time.thread_time_ns() - self._own_began)

    def _note_collection(self, phase: str, _: dict[str, Any]) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._collection_began = now
        else:
            self._collections.append(now - self._collection_began)

    def figures(self) -> dict[str, float]:
        """Return what was seen, in milliseconds."""
        return {
            "loop_blocked_most_ms": _milliseconds(max(self._blocked, default=0)),
            "loop_blocked_rare_ms": _milliseconds(rare(self._blocked)),
            "loop_own_work_most_ms": _milliseconds(max(self._own, default=0)),
            "collection_most_ms": _milliseconds(max(self._collections, default=0)),
            "collection_sum_ms": _milliseconds(sum(self._collections)),
        }


def rare(times: "array[int]") -> int:
    """Return what one in a thousand exceeds; 0 where there is none."""
    return sorted(times)[len(times) - 1 - len(times) // _RARE] if times else 0


def _milliseconds(nanoseconds: int) -> float:
    return nanoseconds / _NANOSECONDS
