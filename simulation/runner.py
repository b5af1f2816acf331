"""Running many seeds in several processes, and saying what happened and what failed.

::

    python -m simulation --seeds 1000 --jobs 2     the seeds 0 to 999, in two processes
    python -m simulation --seed 17                 one seed, with its log

Each failing seed is printed with its violation; run alone, it does exactly the same again.
"""

import argparse
import multiprocessing
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final, NamedTuple

from simulation.simulation import Simulation

# So many failures are printed; more are only counted.
MAX_FAILURES_SHOWN: Final = 10
# Most seeds take a tenth of a second; one that takes this long has met something that grows without end.
MAX_PROCESSOR_SECONDS: Final = 60.0
_SECONDS_BETWEEN_REPORTS: Final = 10.0
_DEFAULT_SEEDS: Final = 1000
# Seeds that a process takes at a time: enough that asking for them costs nothing.
_SEEDS_AT_ONCE: Final = 10


class Result(NamedTuple):
    """What one seed came to.

    Attributes:
        seed: Which.
        failure: What must not happen, and did; empty when all went well.
        counts: How often each kind of event happened.
        seconds: How long it took, in real time.
    """

    seed: int
    failure: str
    counts: Counter[str]
    seconds: float


class TooSlow(Exception):
    """A seed took longer than any seed may."""


def run_seed(seed: int) -> Result:
    """Run one seed, and return what it came to."""
    simulation, began = Simulation(seed), time.perf_counter()
    before = signal.signal(signal.SIGPROF, _too_slow)
    try:
        signal.setitimer(signal.ITIMER_PROF, MAX_PROCESSOR_SECONDS)
        violation: BaseException | None = simulation.run().violation
    except Exception as error:  # noqa: BLE001 - whatever a simulation raises is a finding.
        violation = error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
    failure = "" if violation is None else "; caused by ".join(map(_sentence, causes_of(violation)))
    return Result(seed, failure, simulation.trace.counts, time.perf_counter() - began)


def causes_of(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from, without the groups that nurseries make of errors."""
    causes: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        cause = left.pop()
        if isinstance(cause, BaseExceptionGroup):
            left.extend(cause.exceptions)
        elif cause is not None:
            causes.append(cause)
            left.append(cause.__cause__)
    return causes


def _sentence(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _too_slow(signal_number: int, frame: FrameType | None) -> None:
    del signal_number, frame
    raise TooSlow(f"it took more than {MAX_PROCESSOR_SECONDS:.0f} seconds of a processor")


def results_of(seeds: Sequence[int], jobs: int) -> Iterator[Result]:
    """Yield the result of each seed, in any order.

    Args:
        seeds: Which.
        jobs: In how many processes.
    """
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_seed, seeds, _SEEDS_AT_ONCE)


class Report:
    """What all seeds came to, so far.

    Args:
        total: How many seeds there are.
    """

    def __init__(self, total: int) -> None:
        self.failures: list[Result] = []
        self._total = total
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._seconds: list[float] = []
        self._began = self._reported = time.perf_counter()

    def add(self, result: Result) -> None:
        """Count a result; print it when it is a failure, and now and then how far all is."""
        self._done += 1
        self._counts.update(result.counts)
        self._seconds.append(result.seconds)
        if result.failure:
            self.failures.append(result)
            if len(self.failures) <= MAX_FAILURES_SHOWN:
                print(f"seed {result.seed} fails: {result.failure:.500}")
                print(f"    replay: {sys.executable} -m simulation --seed {result.seed}", flush=True)
        now = time.perf_counter()
        if now - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            rate = self._done / (now - self._began)
            print(
                f"{self._done} of {self._total} seeds, {rate:.1f} a second, {len(self.failures)} fail",
                flush=True,
            )

    def summary(self) -> str:
        """Return what happened, and how often."""
        ascending = sorted(self._seconds)
        median, slowest = ascending[len(ascending) // 2], ascending[-1]
        lines = [f"{count:10,}  {kind}" for kind, count in sorted(self._counts.items())]
        seeds = f"{self._done} seeds in {time.perf_counter() - self._began:.0f} seconds"
        times = f"{median:.2f} seconds at the median, {slowest:.1f} at most"
        return "\n".join([*lines, f"{seeds} ({times}); {len(self.failures)} fail"])


def show(seed: int) -> bool:
    """Run one seed and print its log; return whether all went well."""
    outcome = Simulation(seed, keep_lines=True).run()
    print("\n".join(outcome.lines))
    print(f"digest {outcome.digest}")
    if outcome.violation is not None:
        print("".join(traceback.format_exception(outcome.violation)))
    return outcome.violation is None


def run_all(seeds: Sequence[int], jobs: int) -> bool:
    """Run all seeds and print what they came to; return whether all went well."""
    report = Report(len(seeds))
    for result in results_of(seeds, jobs):
        report.add(result)
    print(report.summary())
    return not report.failures


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description="Deterministic simulations.")
    parser.add_argument("--seed", type=int, help="run this one alone, and print its log")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--seeds", type=int, default=_DEFAULT_SEEDS, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="in how many processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        sys.exit(0 if show(arguments.seed) else 1)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    sys.exit(0 if run_all(seeds, arguments.jobs) else 1)
