"""What the thread of a sync does all the time: decode, verify, write, or nothing, and then why.

The manager has one thread verify and write by turns (see ``manager.processor``).  Where it does nothing, it
waits for the network, or for the event loop to hand it work that is there.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from manager import OneThread
from manager.verifying import verify_answer
from merkledb import ChangeProof, RangeProof

Result = TypeVar("Result")

# The method of proofs that is timed.
_DECODE: Final = "decode"


class Job(NamedTuple):
    """One piece of work of the thread, with times in seconds of one clock.

    Attributes:
        is_verification: Whether it verifies an answer; else it writes.
        asked: When the event loop wanted it.
        began: When the thread began.
        ended: When it had ended.
    """

    is_verification: bool
    asked: float
    began: float
    ended: float


class WatchedThread(OneThread):
    """A processor that times what it does.

    Attributes:
        jobs: All that it has done, in this order.
        decoding_seconds: The part of the verifications in which proofs were decoded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.decoding_seconds = 0.0
        for proof in (RangeProof, ChangeProof):
            # The name in a constant, for a method of theirs must not be assigned to in the usual way.
            setattr(proof, _DECODE, partial(self._decode, proof.decode))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work as ``OneThread`` does."""
        return await super().run(partial(self._work, work, time.perf_counter()))

    def _work(self, work: Callable[[], Result], asked: float) -> Result:
        is_verification = isinstance(work, partial) and work.func is verify_answer
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.jobs.append(Job(is_verification, asked, began, time.perf_counter()))

    def _decode(self, decode: Callable[[bytes], Any], data: bytes) -> Any:
        began = time.perf_counter()
        try:
            return decode(data)
        finally:
            self.decoding_seconds += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        """Return how the time from the first job to the end of the last one divides, in seconds."""
        spent = {"decoding": self.decoding_seconds, **divide(self.jobs)}
        spent["verifying"] -= self.decoding_seconds
        return {f"{name}_seconds": seconds for name, seconds in spent.items()}


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
