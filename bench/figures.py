"""What a benchmark measured: times taken step by step, figures beside what is asked of them, and tables."""

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
        at_least: The same, where more is better.
    """

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None


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
    line = f"{figure.name:62}{number(figure.value):>12}"
    if figure.at_most is not None:
        asked, is_met = f"<= {number(figure.at_most)}", figure.value <= figure.at_most
    elif figure.at_least is not None:
        asked, is_met = f">= {number(figure.at_least)}", figure.value >= figure.at_least
    else:
        return line
    return f"{line}{asked:>12}{'' if is_met else '  missed'}"


def number(value: float) -> str:
    """Return a number with as many digits as anybody looks at."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def short(value: float) -> str:
    """Return a large round number as it is said: 10 M for ten million."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def document(figures: Sequence[Figure]) -> dict[str, float]:
    """Return the figures for a program."""
    return {figure.name: figure.value for figure in figures}


class Grid(NamedTuple):
    """A table of several columns.

    Attributes:
        title: What it shows.
        heads: One a column behind the first, which has the names of the rows.
        rows: The name of each, and what is in its columns.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]

    def text(self) -> str:
        """Return the table for a person at a terminal."""
        width = max(len(name) for name, _ in self.rows)
        widths = [
            max(map(len, column))
            for column in zip(self.heads, *(cells for _, cells in self.rows), strict=True)
        ]
        lines = [self.title, ""]
        for name, cells in [("", self.heads), *self.rows]:
            columns = "".join(f"  {cell:>{room}}" for cell, room in zip(cells, widths, strict=True))
            lines.append(f"{name:{width}}{columns}".rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the table for a document."""
        lines = [f"### {self.title}", "", _markdown_row("", self.heads)]
        lines.append("|---" + "|--:" * len(self.heads) + "|")
        lines += [_markdown_row(name, cells) for name, cells in self.rows]
        return "\n".join(lines)


def _markdown_row(name: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"
