"""Plots of what ``bench.scale`` measured, against the size of the store.

matplotlib draws them, which nothing else needs; so nothing imports this module before plots are asked for.
"""

import re
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.figures import short
from bench.results import Results

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


def draw(folder: Path, results: Results) -> None:
    """Write every plot of the stores of several sizes as an SVG file into ``folder``, which is made."""
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
