"""What a benchmark measured: times taken step by step, figures by their names, and tables."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
Name = TypeVar("Name", bound=str)
# Numbers by what they are, with their units; and what is asked of some of them: "<=" or ">=", and a bound.
Figures = dict[str, float]
Asked = Mapping[str, tuple[str, float]]


class Stopwatch:
    """Collects how long steps take, by name.

    What waits for no disk is timed by the processor's time, which others that use the machine do not disturb:
    ``clock`` tells the seconds.  ``seconds`` has what each step took, in the order of its laps.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def lap(self, name: str, work: Callable[[], Result], *, times: int = 1) -> Result:
        """Do one step, which does something so many times; return its result."""
        began = self._clock()
        result = work()
        self.seconds[name].append((self._clock() - began) / times)
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

    def figures(self) -> Figures:
        """Return the median of each step, in µs where its name says so, else in ms."""
        return {name: self.median(name) * (1e6 if ", µs" in name else 1e3) for name in self.seconds}

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios of two steps that were done in turn."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return statistics.median(one / other for one, other in pairs)


def medians(rows: Sequence[Mapping[Name, float]]) -> dict[Name, float]:
    """Return the median of each figure over the runs that measured it."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


class Grid(NamedTuple):
    """A table: its title, the heads of its columns, and rows of a name and what is in the columns."""

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
        heads = ["|  | " + " | ".join(self.heads) + " |", "|---|" + "--:|" * len(self.heads)]
        rows = ["| " + " | ".join([name, *cells]) + " |" for name, cells in self.rows]
        return "\n".join([f"### {self.title}", "", *heads, *rows])


def table(title: str, figures: Mapping[str, float], asked: Asked) -> str:
    """Return the figures for a person, each beside what is asked of it."""
    rows = []
    for name, value in figures.items():
        cells = [number(value), "", ""]
        if name in asked:
            sign, bound = asked[name]
            is_met = value <= bound if sign == "<=" else value >= bound
            cells[1:] = f"{sign} {number(bound)}", "" if is_met else "missed"
        rows.append((name, cells))
    return Grid(title, ["measured", "asked", ""], rows).text()


def number(value: float) -> str:
    """Return a number with as many digits as a reader needs."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def short(value: float) -> str:
    """Return a large round number as it is said: 10 M for ten million."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
