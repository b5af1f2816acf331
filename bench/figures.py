"""What a benchmark measured: times taken step by step, figures beside what is asked of them, and tables."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
Name = TypeVar("Name", bound=str)


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

    def in_turn(self, work: Mapping[str, Callable[[], object]], turn: int) -> None:
        """Do each step once; another one begins each turn, so that none profits from its place."""
        names = list(work)
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            self.lap(name, work[name])

    def median(self, name: str) -> float:
        """Return the median of what a step took, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios of two steps that were done in turn."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return statistics.median(one / other for one, other in pairs)


def medians(rows: Sequence[Mapping[Name, float]]) -> dict[Name, float]:
    """Return the median of each figure over the runs that measured it."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


class Grid(NamedTuple):
    """A table of several columns.

    Attributes:
        title: What it shows.
        heads: One for each column after the first, which has the names of the rows.
        rows: The name of each, and what is in its columns.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]

    def text(self) -> str:
        """Return the table for a person at a terminal."""
        lines = [("", self.heads), *self.rows]
        width = max(len(name) for name, _ in self.rows)
        widths = [max(map(len, column)) for column in zip(*(cells for _, cells in lines), strict=True)]
        padded = (
            f"{name:{width}}" + "".join(f"  {cell:>{room}}" for cell, room in zip(cells, widths, strict=True))
            for name, cells in lines
        )
        return "\n".join([self.title, "", *(line.rstrip() for line in padded)])

    def markdown(self) -> str:
        """Return the table for a document."""
        lines = [("", self.heads), ("---", ["--:"] * len(self.heads)), *self.rows]
        rows = ["| " + " | ".join([name, *cells]) + " |" for name, cells in lines]
        rows[1] = rows[1].replace(" ", "")
        return "\n".join([f"### {self.title}", "", *rows])


def table(title: str, figures: Sequence[Figure]) -> str:
    """Return the figures for a person, each beside what is asked of it."""
    return Grid(title, ["measured", "asked", ""], [(each.name, _cells(each)) for each in figures]).text()


def _cells(figure: Figure) -> list[str]:
    if figure.at_most is not None:
        asked, is_met = f"<= {number(figure.at_most)}", figure.value <= figure.at_most
    elif figure.at_least is not None:
        asked, is_met = f">= {number(figure.at_least)}", figure.value >= figure.at_least
    else:
        asked, is_met = "", True
    return [number(figure.value), asked, "" if is_met else "missed"]


def number(value: float) -> str:
    """Return a number with as many digits as a reader needs."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def short(value: float) -> str:
    """Return a large round number as it is said: 10 M for ten million."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
