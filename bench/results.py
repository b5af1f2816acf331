"""What ``bench.scale`` measured of which stores: a document for programs, and tables and plots for people."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import click

from bench.figures import Figures, Grid, number, short
from bench.workload import KINDS, Workload

Growth = Literal["flat", "logarithmic", "linear"]

# What machines that others use make of one and the same figure.
_NOISE: Final = 1.25
# What is decided, not measured, does not grow.
_GIVEN: Final = ("keys", "bytes of a key", "bytes of a value", "range proof, pairs", "commit, pairs")
_USUAL_VALUE_BYTES: Final = 32
_BY_SIZE: Final = f"Stores of uniform keys, values of {_USUAL_VALUE_BYTES} bytes"
_BY_KIND: Final = f"Keys of other kinds, values of {_USUAL_VALUE_BYTES} bytes"
# Lengths of values, and by how much fewer there are, so that no store takes more than a few gigabytes.
_VALUES: Final = {
    "8 bytes": (8, 1),
    "32 bytes": (_USUAL_VALUE_BYTES, 1),
    "4 KiB": (4096, 4),
    "1 MiB": (1 << 20, 1000),
}
# The measured part of a document is between these lines.
_BEGIN: Final = "<!-- measured: begin -->\n"
_END: Final = "<!-- measured: end -->\n"

# Text stays text, and the same numbers give the same file.
_STYLE: Final[dict[Any, str]] = {"svg.fonttype": "none", "svg.hashsalt": "merklesync"}
# Told apart by everybody, whatever colours they see (Okabe and Ito).
_LOOKS: Final = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "^"), ("#e69f00", "v"))
# The names of the files, the titles, the units, and what the names of the figures match that have a line.
_PLOTS: Final = (
    ("speed", "Speed", "keys a second", r".*, keys a second"),
    ("memory", "Peak memory of a process", "MB", r".* memory, MB"),
    ("store", "Size of the store", "bytes a key", r"store.*|of these, (values|branches)"),
    ("range-proof", "A proof of 2,048 pairs", "ms", r"range proof: .*"),
    ("single-proof", "A proof of one key", "µs", r".*, µs"),
)


class Plan(NamedTuple):
    """What is measured, and how often: stores of uniform keys of these sizes, ascending, and others.

    The others have other keys or values; where ``distribution_keys`` is 0, there are none.
    """

    sizes: tuple[int, ...]
    distribution_keys: int
    runs: int

    def by_size(self) -> dict[Workload, str]:
        """Return the stores that differ in their size, with what their columns are called."""
        return {Workload("uniform", size, _USUAL_VALUE_BYTES): short(size) for size in self.sizes}

    def tables(self) -> dict[str, dict[Workload, str]]:
        """Return the titles of the tables, each with its stores as ``by_size`` returns them."""
        keys, values = self.distribution_keys, _VALUES.items()
        by_kind = {Workload(kind, keys, _USUAL_VALUE_BYTES): kind for kind in KINDS}
        by_value = {Workload("uniform", -(-keys // fewer), size): head for head, (size, fewer) in values}
        others = {_BY_KIND: by_kind, "Values of other lengths, uniform keys": by_value}
        return {_BY_SIZE: self.by_size(), **(others if keys else {})}

    def workloads(self) -> list[Workload]:
        """Return all stores; one that is wanted twice comes once."""
        return list(dict.fromkeys(chain.from_iterable(self.tables().values())))


class Results(NamedTuple):
    """What was measured on a machine: the medians for each store of a plan."""

    machine: str
    plan: Plan
    measured: dict[Workload, Figures]

    def document(self) -> dict[str, Any]:
        """Return the results for a program."""
        stores = [{**each._asdict(), "figures": figures} for each, figures in self.measured.items()]
        return {"machine": self.machine, **self.plan._asdict(), "stores": stores}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Results":
        """Return the results that a document has."""
        plan = Plan(tuple(document["sizes"]), document["distribution_keys"], document["runs"])
        measured = {
            Workload(store["kind"], store["keys"], store["value_bytes"]): dict(store["figures"])
            for store in document["stores"]
        }
        return cls(document["machine"], plan, measured)


def grids(results: Results) -> Iterator[Grid]:
    """Yield the tables of what was measured; their first stores have every figure."""
    for title, stores in results.plan.tables().items():
        columns, heads = [results.measured[each] for each in stores], list(stores.values())
        rows = {
            name: [number(column[name]) if name in column else "-" for column in columns]
            for name in columns[0]
        }
        if title == _BY_SIZE:
            heads.append("growth")
            for name, cells in rows.items():
                given = name in _GIVEN
                found = None if given else trend(results.plan.sizes, [column[name] for column in columns])
                cells.append("" if found is None else f"{found[0]:.2g} times, {found[1]}")
        yield Grid(title, heads, list(rows.items()))


def trend(sizes: Sequence[float], figures: Sequence[float]) -> tuple[float, Growth] | None:
    """Return how a figure changes from the smallest size to the largest.

    It is a judgement of noisy numbers, not a fit: what changes by less than a quarter does not grow; what
    changes by no more than the logarithm of the size, give or take a quarter, grows like the height of a
    trie; the rest is told apart by how much of the change the last step to a larger store brought.

    Args:
        sizes: Ascending, above 1.
        figures: What was measured at each.

    Returns:
        The last figure over the first, and how it grows; where the ratio is below one, how its inverse does.
        None where there is nothing to compare: fewer than two sizes, or a figure that is not above zero.
    """
    if len(sizes) < 2 or min(figures) <= 0:
        return None
    ratio = figures[-1] / figures[0]
    figures = figures if ratio >= 1 else [1 / figure for figure in figures]
    change, logarithms = figures[-1] / figures[0], [math.log(size) for size in sizes]
    by_logarithm, by_size = logarithms[-1] / logarithms[0], sizes[-1] / sizes[0]
    if change <= _NOISE:
        return ratio, "flat"
    if change <= _NOISE * by_logarithm:
        return ratio, "logarithmic"
    if len(sizes) == 2:
        is_linear = change > math.sqrt(by_logarithm * by_size)
    else:
        is_linear = _last_share(figures) > (_last_share(logarithms) + _last_share(sizes)) / 2
    return ratio, "linear" if is_linear else "logarithmic"


def _last_share(figures: Sequence[float]) -> float:
    """Return how much of the whole change the last step brought."""
    return (figures[-1] - figures[-2]) / (figures[-1] - figures[0])


def text(results: Results) -> str:
    """Return the results for a person at a terminal."""
    heading = f"{results.machine}\nmedians of {results.plan.runs} runs"
    return "\n\n".join([heading, *(grid.text() for grid in grids(results))])


def markdown(results: Results) -> str:
    """Return the results for a document."""
    machine, plan, _ = results
    sizes = "".join(f" --keys {size}" for size in plan.sizes)
    heading = (
        f"Measured by `python -m bench.scale{sizes} --distribution-keys {plan.distribution_keys} "
        f"--runs {plan.runs}` on {machine}. Each figure is the median of {plan.runs} runs. "
        "MB are millions of bytes."
    )
    return "\n\n".join([heading, *(grid.markdown() for grid in grids(results))]) + "\n"


def replace_measured(document: str, tables: str) -> str:
    """Return a document with other tables between its marks.

    Raises:
        click.UsageError: It has not both marks, or not in this order.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise click.UsageError(f"the document has no lines {_BEGIN.strip()} and, after it, {_END.strip()}")
    return f"{before}{begin}\n{tables}\n{end}{after}"


def draw_plots(folder: Path, results: Results) -> None:
    """Write the plots of the stores of several sizes as SVG files into ``folder``, which is made."""
    import matplotlib as mpl  # noqa: PLC0415 - nothing else needs it, so that it is optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    sizes, stores = results.plan.sizes, [results.measured[each] for each in results.plan.by_size()]
    with mpl.rc_context(_STYLE):
        for name, title, unit, pattern in _PLOTS:
            figure = Figure(figsize=(7, 4))
            axes = figure.add_subplot()
            lines = [line for line in stores[0] if re.fullmatch(pattern, line)]
            for line, (colour, marker) in zip(lines, _LOOKS, strict=False):
                axes.plot(sizes, [store[line] for store in stores], color=colour, marker=marker, label=line)
            axes.set_xscale("log")
            axes.set_xticks(sizes, [short(size) for size in sizes])
            axes.set_xticks([], minor=True)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(
                lambda height, _: f"{height:,g}" if height < 1e6 else short(height)
            )
            axes.set(title=title, xlabel="keys in the store", ylabel=unit)
            axes.grid(visible=True, axis="y", alpha=0.3)
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
