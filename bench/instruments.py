"""What the threads of a sync do all the time: how long its event loop is blocked, and what its worker does.

``LoopWatch`` times every step of the tasks in the event loop, from one checkpoint to the next: nothing else
happens in the loop meanwhile.  It is timed by the clock (blocked); by the clock, less what the loop's thread
waited for a processor that others had (blocked by process); and by the thread's processor time (own work).
What is between the last two was spent waiting for the interpreter, which another thread held.  Who holds it
in Python gives it away after a while (see ``sys.setswitchinterval``), or when it calls what lets go of it; a
single call that does not, and a collection of garbage, are not interrupted.

``WatchedThread`` is the thread in which a manager verifies and writes by turns (see ``manager.executor``).
Where it does nothing, it waits for the network, or for the event loop to hand it work that is there.
"""

import gc
import os
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import trio

from manager import SerialExecutor
from manager.transfer.verification import verify_answer
from merkledb import ChangeProof, RangeProof

Result = TypeVar("Result")

_NANOSECONDS_A_MILLISECOND: Final = 1_000_000
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
    def watching(self) -> Iterator[dict[str, float]]:
        """Watch the event loop that runs this; yield what has the figures when the block has ended."""
        figures: dict[str, float] = {}
        if _SCHEDULED.exists():
            self._scheduled = os.open(_SCHEDULED, os.O_RDONLY)
        trio.lowlevel.add_instrument(self)
        gc.callbacks.append(self._note_collection)
        self.before_task_step(trio.lowlevel.current_task())
        try:
            yield figures
        finally:
            gc.callbacks.remove(self._note_collection)
            trio.lowlevel.remove_instrument(self)
            if self._scheduled is not None:
                os.close(self._scheduled)
            figures.update(self._figures())

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
        """Return for how long this thread has waited for a processor so far; 0 where that is not told."""
        if self._scheduled is None:
            return 0
        return int(os.pread(self._scheduled, _MAX_SCHEDULED_BYTES, 0).split()[1])

    def _note_collection(self, phase: str, _: dict[str, Any]) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._collection_began = now
        else:
            self._collections.append(now - self._collection_began)

    def _figures(self) -> dict[str, float]:
        nanoseconds = {
            "loop_blocked_most_ms": max(self._blocked, default=0),
            "loop_blocked_rare_ms": rare(self._blocked),
            "loop_blocked_by_process_most_ms": max(self._by_process, default=0),
            "loop_blocked_by_process_rare_ms": rare(self._by_process),
            "loop_own_work_most_ms": max(self._own, default=0),
            "collection_most_ms": max(self._collections, default=0),
            "collection_sum_ms": sum(self._collections),
        }
        return {name: figure / _NANOSECONDS_A_MILLISECOND for name, figure in nanoseconds.items()}


def rare(times: "array[int]") -> int:
    """Return what one in a thousand exceeds; 0 where there is none."""
    return sorted(times)[len(times) - 1 - len(times) // _RARE] if times else 0


class Job(NamedTuple):
    """One piece of work of the thread, a verification or a write, with times in seconds of one clock."""

    is_verification: bool
    asked: float
    began: float
    ended: float


class WatchedThread(SerialExecutor):
    """A ``SerialExecutor`` that times its jobs, and the decoding of proofs, which is a part of verifying."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: list[Job] = []
        self._decoding_seconds = 0.0
        for proof in (RangeProof, ChangeProof):
            proof.decode = partial(self._decode, proof.decode)  # type: ignore[method-assign]

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work as ``SerialExecutor`` does."""
        return await super().run(partial(self._work, work, time.perf_counter()))

    def _work(self, work: Callable[[], Result], asked: float) -> Result:
        is_verification = isinstance(work, partial) and work.func is verify_answer
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._jobs.append(Job(is_verification, asked, began, time.perf_counter()))

    def _decode(self, decode: Callable[[bytes], Any], data: bytes) -> Any:
        began = time.perf_counter()
        try:
            return decode(data)
        finally:
            self._decoding_seconds += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        """Return how the time from the first job to the end of the last one divides, in seconds."""
        spent = {"decoding": self._decoding_seconds, **divide(self._jobs)}
        spent["verifying"] -= self._decoding_seconds
        return {f"thread_{name}_seconds": seconds for name, seconds in spent.items()}


def divide(jobs: list[Job]) -> dict[str, float]:
    """Return what a thread did with its time, in seconds, from jobs in the order in which it did them."""
    spent = dict.fromkeys(("verifying", "writing", "handing_over", "waiting_for_answers"), 0.0)
    idle_with_verified_work = 0.0
    for job in jobs:
        spent["verifying" if job.is_verification else "writing"] += job.ended - job.began
    for before, job in pairwise(jobs):
        wanted = max(job.asked, before.ended)
        spent["waiting_for_answers"] += wanted - before.ended
        spent["handing_over"] += job.began - wanted
        # A transaction takes all that is verified.
        if before.is_verification:
            idle_with_verified_work += job.began - before.ended
    return {**spent, "idle_with_verified_work": idle_with_verified_work}
