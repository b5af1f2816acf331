"""Plots of what ``bench.scale`` measured, against the size of the store.

matplotlib draws them, which nothing else needs; so nothing imports this module before plots are asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.figures import short
from bench.results import Measured, Quantity

# Text stays text, and the same numbers give the same file.
_STYLE: Final[dict[Any, str]] = {"svg.fonttype": "none", "svg.hashsalt": "merklesync"}
# Told apart by everybody, whatever colours they see (Okabe and Ito).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_MARKERS: Final = "osD^v"


class Plot(NamedTuple):
    """One plot, in a file of this name: a line for each quantity, all of one unit."""

    name: str
    title: str
    unit: str
    quantities: tuple[Quantity, ...]


_Q = Quantity
PLOTS: Final = (
    Plot("speed", "Speed", "keys a second", (_Q.RAW_KEYS, _Q.LOAD_KEYS, _Q.SYNC_KEYS)),
    Plot(
        "memory",
        "Peak memory of a process",
        "MB",
        (_Q.LOAD_MEMORY, _Q.LOAD_ANONYMOUS, _Q.SYNC_CLIENT_MEMORY, _Q.SYNC_SERVER_MEMORY),
    ),
    Plot(
        "store",
        "Size of the store",
        "bytes a key",
        (_Q.STORE_BYTES, _Q.STORE_VALUES, _Q.STORE_BRANCHES, _Q.SYNC_STORE),
    ),
    Plot(
        "range-proof",
        "A proof of 2,048 pairs",
        "ms",
        (_Q.PROVE, _Q.ENCODE, _Q.DECODE, _Q.VERIFY, _Q.APPLY),
    ),
    Plot("single-proof", "A proof of one key", "µs", (_Q.GET, _Q.PROVE_ONE, _Q.VERIFY_ONE)),
)


def draw(folder: Path, sizes: Sequence[int], measured: Sequence[Measured]) -> None:
    """Write every plot as an SVG file into ``folder``, which is made.

    ``measured`` has what was measured of the store of each size; the sizes ascend.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for plot in PLOTS:
            figure = _figure(plot, sizes, measured)
            figure.savefig(folder / f"{plot.name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _figure(plot: Plot, sizes: Sequence[int], measured: Sequence[Measured]) -> Figure:
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    for quantity, colour, marker in zip(plot.quantities, _COLOURS, _MARKERS, strict=False):
        heights = [each[quantity] for each in measured]
        axes.plot(sizes, heights, color=colour, marker=marker, label=quantity)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [short(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("keys in the store")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda height, _: f"{height:,g}" if height < 1e6 else short(height))
    )
    axes.set_ylabel(plot.unit)
    axes.set_title(plot.title)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
