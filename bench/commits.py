"""Measure commits of new pairs into a growing store, with history, beside raw LMDB puts of the same pairs.

    python -m bench.commits [--keys N] [--batch N] [--runs N] [--json]

Both sides get the same batches in turn, each in one transaction, until all pairs are in: once durable, on the
disk, and once in a folder whose files are memory, where nobody waits for a disk, if that folder has the room.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Final

import click

import merkledb
from bench import options
from bench.data import pairs_of
from bench.figures import Figures, Stopwatch, medians
from bench.raw import open_raw, put_raw

# A folder of files in memory, where a system has one: to flush them costs nothing.
_MEMORY: Final = Path("/dev/shm")
_ASKED: Final = {
    "durable: commits / raw puts": (">=", 0.25),
    "in memory: pairs a second": (">=", 60_000),
}


def measure(name: str, place: Path | None, keys: int, batch: int) -> Figures:
    """Return what both sides took in stores that are made in ``place``, which the figures call ``name``."""
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
    commits, puts = clock.seconds["store"], clock.seconds["raw"]
    return {
        f"{name}: pairs a second": keys / sum(commits),
        f"{name}: commits / raw puts": sum(puts) / sum(commits),
        f"{name}: the last commit, ms": commits[-1] * 1e3,
        f"{name}: the last commit / raw puts": puts[-1] / commits[-1],
    }


@click.command(cls=options.Benchmark, help=__doc__)
@options.number_option("--keys", 1_000_000, "Pairs in the store at the end.")
@options.number_option("--batch", 10_000, "Pairs a commit.")
@options.RUNS
@options.AS_JSON
def main(*, keys: int, batch: int, runs: int, as_json: bool) -> None:
    disk_bytes = keys * (2 * options.PAIR_BYTES + options.CHANGE_BYTES)
    options.require_room(disk_bytes, pairs_in_memory=min(batch, keys))
    figures = medians([measure("durable", None, keys, batch) for _ in range(runs)])
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= disk_bytes:
        figures |= medians([measure("in memory", _MEMORY, keys, batch) for _ in range(runs)])
    else:
        click.echo(f"not measured in memory: {_MEMORY} lacks {disk_bytes / 1e9:,.1f} GB of room", err=True)
    title = f"{keys:,} pairs of 32 + 32 bytes in commits of {batch:,}, median of {runs} runs"
    sizes = {"keys": keys, "batch": batch, "runs": runs}
    options.report(f"{title}, {merkledb.kernel_name()} kernel", sizes, figures, _ASKED, as_json=as_json)


if __name__ == "__main__":
    main()
