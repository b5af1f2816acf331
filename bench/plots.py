"""Plots of what ``bench.scale`` measured, against the size of the store.

matplotlib draws them, which nothing else needs; so nothing imports this module before plots are asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.figures import short
from bench.results import Results

# Text stays text, and the same numbers give the same file.
_STYLE: Final[dict[Any, str]] = {"svg.fonttype": "none", "svg.hashsalt": "merklesync"}
# Told apart by everybody, whatever colours they see (Okabe and Ito).
_LOOKS: Final = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "^"), ("#e69f00", "v"))
_SPEED: Final = ("raw append, keys a second", "load, keys a second", "sync, keys a second")
_MEMORY: Final = (
    "load, peak memory, MB",
    "load, peak anonymous memory, MB",
    "sync, client's peak anonymous memory, MB",
    "sync, server's peak anonymous memory, MB",
)
_STORE: Final = (
    "store, bytes a key",
    "of these, values",
    "of these, branches",
    "store after a sync, bytes a key",
)
_RANGE_PROOF: Final = tuple(
    f"range proof: {step}, ms" for step in ("prove", "encode", "decode", "verify", "apply durably")
)
_SINGLE_PROOF: Final = ("get, µs", "single proof: prove, µs", "single proof: verify, µs")
# The names of the files, the titles, the units, and the figures that have a line.
_PLOTS: Final = (
    ("speed", "Speed", "keys a second", _SPEED),
    ("memory", "Peak memory of a process", "MB", _MEMORY),
    ("store", "Size of the store", "bytes a key", _STORE),
    ("range-proof", "A proof of 2,048 pairs", "ms", _RANGE_PROOF),
    ("single-proof", "A proof of one key", "µs", _SINGLE_PROOF),
)


def draw(folder: Path, results: Results) -> None:
    """Write every plot of the stores of several sizes as an SVG file into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, title, unit, lines in _PLOTS:
            figure = _figure(title, unit, lines, results)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _figure(title: str, unit: str, lines: Sequence[str], results: Results) -> Figure:
    figure, sizes = Figure(figsize=(7, 4)), results.plan.sizes
    axes = figure.add_subplot()
    for line, (colour, marker) in zip(lines, _LOOKS, strict=False):
        heights = [results.measured[each][line] for each in results.plan.by_size()]
        axes.plot(sizes, heights, color=colour, marker=marker, label=line)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [short(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("keys in the store")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda height, _: f"{height:,g}" if height < 1e6 else short(height))
    )
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
