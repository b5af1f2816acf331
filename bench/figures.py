"""What a benchmark measured: times taken step by step, figures beside what is asked of them, and a table."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")


class Figure(NamedTuple):
    """One measured number.

    Attributes:
        name: What it is, with its unit.
        value: The number.
        at_most: What is asked of it; None where nothing is.
    """

    name: str
    value: float
    at_most: float | None = None


class Stopwatch:
    """Collects how long steps take, by name.

    Args:
        clock: Tells the time in seconds.  What waits for no disk is timed by the processor's time, which
            others that use the machine do not disturb.

    Attributes:
        seconds: What each step took, in the order of its laps.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def lap(self, name: str, work: Callable[[], Result]) -> Result:
        """Do one step; return its result."""
        began = self._clock()
        result = work()
        self.seconds[name].append(self._clock() - began)
        return result

    def median(self, name: str) -> float:
        """Return the median of what a step took, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios of two steps that were done in turn."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return statistics.median(one / other for one, other in pairs)


def table(title: str, figures: Sequence[Figure]) -> str:
    """Return the figures for a person."""
    lines = [title, "", f"{'':62}{'measured':>12}{'asked':>12}"]
    lines += [_line(figure) for figure in figures]
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    line = f"{figure.name:62}{_number(figure.value):>12}"
    if figure.at_most is None:
        return line
    verdict = "" if figure.value <= figure.at_most else "  missed"
    return f"{line}{f'<= {_number(figure.at_most)}':>12}{verdict}"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"


def document(figures: Sequence[Figure]) -> dict[str, float]:
    """Return the figures for a program."""
    return {figure.name: figure.value for figure in figures}
