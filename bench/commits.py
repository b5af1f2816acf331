"""Measure commits of new pairs into a growing store, with history, beside raw LMDB puts of the same pairs.

    python -m bench.commits [--keys N] [--batch N] [--runs N] [--json]

Both sides get the same batches in turn, each in one transaction, until all pairs are in: once durable, on the
disk, and once in a folder whose files are memory, where nobody waits for a disk, if that folder has the room.
"""

import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Final

import click

import merkledb
from bench import options
from bench.data import pairs_of
from bench.figures import Figure, Stopwatch
from bench.raw import open_raw, put_raw

# A folder of files in memory, where a system has one: to flush them costs nothing.
_MEMORY: Final = Path("/dev/shm")


def measure(place: Path | None, keys: int, batch: int) -> Stopwatch:
    """Return how long the batches of both sides took, in stores that are made in ``place``."""
    clock = Stopwatch()
    with (
        options.work_folder(place) as folder,
        open_raw(folder / "raw") as raw,
        merkledb.open(folder / "store") as database,
    ):
        for first in range(0, keys, batch):
            pairs = pairs_of(range(first, min(first + batch, keys)))
            clock.lap("store", partial(database.commit, pairs))
            clock.lap("raw", partial(put_raw, raw, pairs))
    return clock


def figures_of(
    name: str, clocks: list[Stopwatch], keys: int, *, ratio: float | None = None, rate: float | None = None
) -> list[Figure]:
    """Return the medians of all runs, beside the ratio and the rate that are asked for."""
    sides = [(clock.seconds["store"], clock.seconds["raw"]) for clock in clocks]
    rates = [keys / sum(store) for store, _ in sides]
    ratios = [sum(raw) / sum(store) for store, raw in sides]
    return [
        Figure(f"{name}: pairs a second", statistics.median(rates), at_least=rate),
        Figure(f"{name}: commits / raw puts", statistics.median(ratios), at_least=ratio),
        Figure(f"{name}: the last commit, ms", statistics.median(store[-1] * 1e3 for store, _ in sides)),
        Figure(
            f"{name}: the last commit / raw puts",
            statistics.median(raw[-1] / store[-1] for store, raw in sides),
        ),
    ]


@click.command(cls=options.Benchmark, help=__doc__)
@options.number_option("--keys", 1_000_000, "Pairs in the store at the end.")
@options.number_option("--batch", 10_000, "Pairs a commit.")
@options.RUNS
@options.AS_JSON
def main(*, keys: int, batch: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    disk_bytes = keys * (2 * options.PAIR_BYTES + options.CHANGE_BYTES)
    options.require_room(disk_bytes, pairs_in_memory=min(batch, keys))
    durable = [measure(None, keys, batch) for _ in range(runs)]
    figures = figures_of("durable", durable, keys, ratio=0.25)
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= disk_bytes:
        in_memory = [measure(_MEMORY, keys, batch) for _ in range(runs)]
        figures += figures_of("in memory", in_memory, keys, rate=60_000)
    else:
        click.echo(f"not measured in memory: {_MEMORY} lacks {disk_bytes / 1e9:,.1f} GB of room", err=True)
    title = f"{keys:,} pairs of 32 + 32 bytes in commits of {batch:,}, median of {runs} runs"
    sizes = {"keys": keys, "batch": batch, "runs": runs}
    options.report(f"{title}, {merkledb.kernel_name()} kernel", sizes, figures, as_json=as_json)


if __name__ == "__main__":
    main()
