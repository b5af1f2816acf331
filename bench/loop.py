"""How long the event loop of a process was blocked: a watch on every step of its tasks.

A step is what a task does from one checkpoint to the next; nothing else happens in the loop meanwhile.  It is
timed three times:

    blocked             by the clock
    blocked by process  the same, less what the loop's thread waited for a processor that others had
    own work            by the processor time of the loop's thread

What is between the last two was spent waiting for the interpreter, which another thread held.  Who holds it
in Python gives it away after a while (see ``sys.setswitchinterval``), or when it calls what lets go of it; a
single call that does not, and a collection of garbage, are not interrupted.
"""

import gc
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

_NANOSECONDS: Final = 1_000_000
# One step in so many is longer than what is called rare here: the percentile 99.9.
_RARE: Final = 1000
# Of this thread: nanoseconds on a processor, nanoseconds waiting for one, times on one.  Linux has it.
_SCHEDULED: Final = Path("/proc/thread-self/schedstat")
_MAX_SCHEDULED_BYTES: Final = 80


class LoopWatch(trio.abc.Instrument):
    """Times each step that the event loop runs, and each collection of garbage in any thread."""

    def __init__(self) -> None:
        self._blocked, self._by_process, self._own = array("q"), array("q"), array("q")
        self._collections = array("q")
        self._began = self._own_began = self._queued_began = self._collection_began = 0
        self._scheduled: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the event loop that runs this, as long as the block lasts."""
        if _SCHEDULED.exists():
            self._scheduled = os.open(_SCHEDULED, os.O_RDONLY)
        trio.lowlevel.add_instrument(self)
        gc.callbacks.append(self._note_collection)
        self.before_task_step(trio.lowlevel.current_task())
        try:
            yield
        finally:
            gc.callbacks.remove(self._note_collection)
            trio.lowlevel.remove_instrument(self)
            if self._scheduled is not None:
                os.close(self._scheduled)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Note that a step begins."""
        self._queued_began = self._queued()
        self._own_began, self._began = time.thread_time_ns(), time.perf_counter_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Note that a step has ended."""
        blocked = time.perf_counter_ns() - self._began
        self._own.append(time.thread_time_ns() - self._own_began)
        self._blocked.append(blocked)
        self._by_process.append(max(0, blocked - self._queued() + self._queued_began))

    def _queued(self) -> int:
        """Return for how long this thread has waited for a processor so far; 0 where nobody says so."""
        if self._scheduled is None:
            return 0
        return int(os.pread(self._scheduled, _MAX_SCHEDULED_BYTES, 0).split()[1])

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
            "loop_blocked_by_process_most_ms": _milliseconds(max(self._by_process, default=0)),
            "loop_blocked_by_process_rare_ms": _milliseconds(rare(self._by_process)),
            "loop_own_work_most_ms": _milliseconds(max(self._own, default=0)),
            "collection_most_ms": _milliseconds(max(self._collections, default=0)),
            "collection_sum_ms": _milliseconds(sum(self._collections)),
        }


def rare(times: "array[int]") -> int:
    """Return what one in a thousand exceeds; 0 where there is none."""
    return sorted(times)[len(times) - 1 - len(times) // _RARE] if times else 0


def _milliseconds(nanoseconds: int) -> float:
    return nanoseconds / _NANOSECONDS
