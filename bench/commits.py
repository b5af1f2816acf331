"""Measure commits of new pairs into a growing store, with history, beside raw LMDB puts of the same pairs.

    python -m bench.commits [--keys N] [--batch N] [--runs N] [--json]

Both sides get the same batches in turn, each in one transaction, until all pairs are in: once durable, on the
disk, and once in a folder whose files are memory, where nobody waits for a disk.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import click
import lmdb

import merkledb
from bench.data import MAP_BYTES, key_of, value_of
from bench.figures import Figure, Stopwatch, document, table
from merkledb.store import LMDB_VERSION

# A folder of files in memory, where a system has one: to flush them costs nothing.
_MEMORY: Final = Path("/dev/shm")


def put_raw(environment: lmdb.Environment, pairs: Mapping[bytes, bytes]) -> None:
    """Put pairs, sorted, in one transaction."""
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(sorted(pairs.items()))


def measure(folder: Path, keys: int, batch: int) -> Stopwatch:
    """Return how long the batches of both sides took."""
    watch = Stopwatch()
    environment = lmdb.open(str(folder / "raw"), map_size=MAP_BYTES, lib_version=LMDB_VERSION)
    with merkledb.open(folder / "store") as database:
        for first in range(0, keys, batch):
            pairs = {key_of(index): value_of(index) for index in range(first, min(first + batch, keys))}
            watch.lap("store", partial(database.commit, pairs))
            watch.lap("raw", partial(put_raw, environment, pairs))
    environment.close()
    return watch


def figures_of(
    name: str,
    measured: Callable[[], Stopwatch],
    keys: int,
    runs: int,
    *,
    ratio: float | None = None,
    rate: float | None = None,
) -> list[Figure]:
    """Return the medians of so many runs, with what is asked of them."""
    watches = [measured() for _ in range(runs)]
    rates = [keys / sum(watch.seconds["store"]) for watch in watches]
    ratios = [sum(watch.seconds["raw"]) / sum(watch.seconds["store"]) for watch in watches]
    last = [watch.seconds["store"][-1] * 1e3 for watch in watches]
    last_ratios = [watch.seconds["raw"][-1] / watch.seconds["store"][-1] for watch in watches]
    return [
        Figure(f"{name}: pairs a second", statistics.median(rates), at_least=rate),
        Figure(f"{name}: commits / raw puts", statistics.median(ratios), at_least=ratio),
        Figure(f"{name}: the last commit, ms", statistics.median(last)),
        Figure(f"{name}: the last commit / raw puts", statistics.median(last_ratios)),
    ]


@click.command(help=__doc__)
@click.option(
    "--keys",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="Pairs in the store at the end.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=10_000, show_default=True, help="Pairs a commit."
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=3, show_default=True, help="How often all is measured."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def main(*, keys: int, batch: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""

    def measured(parent: Path | None) -> Stopwatch:
        with tempfile.TemporaryDirectory(prefix="merklesync-bench-", dir=parent) as folder:
            return measure(Path(folder), keys, batch)

    figures = figures_of("durable", partial(measured, None), keys, runs, ratio=0.25)
    if _MEMORY.is_dir():
        figures += figures_of("in memory", partial(measured, _MEMORY), keys, runs, rate=60_000)
    if as_json:
        print(json.dumps({"keys": keys, "batch": batch, "runs": runs, **document(figures)}))
        return
    title = f"{keys:,} pairs of 32 + 32 bytes in commits of {batch:,}, median of {runs} runs"
    print(table(f"{title}, {merkledb.kernel_name()} kernel", figures))


if __name__ == "__main__":
    main()
