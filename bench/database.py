"""Measure one database in one process: load, get, iterate, commit, prove, verify, apply; beside raw LMDB.

    python -m bench.database [--keys N] [--runs N] [--json]

The load is timed beside a raw LMDB append of the same pairs in the same transactions, one after the other in
each run; the median of the runs counts.  What is read was read before, so that it is in memory.
"""

import gc
import random
import time
from functools import partial
from pathlib import Path
from typing import Final

import click

import merkledb
from bench import options
from bench.data import PROOF_KEYS, batches, load, pairs_of, sorted_pairs, store_bytes
from bench.figures import Figure, Stopwatch, medians
from bench.proofs import measure_gets, measure_range_proofs, measure_single_proofs
from bench.raw import append_raw, open_raw
from bench.results import Quantity

_COMMIT_PAIRS: Final = 10_000
_GETS: Final = 50_000
_SINGLE_PROOFS: Final = 1_000
_RANGE_PROOFS: Final = 30
_STEPS: Final = ("prove", "encode", "decode", "verify", "apply")

Figures = dict[str, float]


def append_in_batches(path: Path, keys: list[bytes], values: list[bytes], *, row_by_row: bool) -> None:
    """Append sorted pairs to an empty LMDB table, in the transactions that a load makes."""
    with open_raw(path) as environment:
        for some_keys, some_values in batches(keys, values):
            if not row_by_row:
                append_raw(environment, some_keys, some_values)
                continue
            with environment.begin(write=True) as transaction:
                for key, value in zip(some_keys, some_values, strict=True):
                    transaction.put(key, value, append=True)


def measure_load(folder: Path, keys: list[bytes], values: list[bytes]) -> Figures:
    """Return how fast sorted pairs get into an empty store, beside a raw append."""
    clock = Stopwatch()
    for name, row_by_row in (("raw append", True), ("raw append by putmulti", False)):
        append = partial(append_in_batches, folder / name, keys, values, row_by_row=row_by_row)
        clock.lap(name, append)
    clock.lap("load", partial(load, folder / "store", keys, values))
    names = ("load", "raw append", "raw append by putmulti")
    return {
        **{f"{name}, keys a second": len(keys) / clock.median(name) for name in names},
        "load / raw append": clock.ratio("raw append", "load"),
        "load / raw append by putmulti": clock.ratio("raw append by putmulti", "load"),
        "store, bytes a key": store_bytes(folder / "store") / len(keys),
    }


def measure_reads(database: merkledb.Database, replica: merkledb.Database, keys: list[bytes]) -> Figures:
    """Return how long gets, a step of an iteration, and the parts of a sync take."""
    clock, last = Stopwatch(time.process_time), len(keys) // 4
    clock.lap("iterate", lambda: list(database.items(end=keys[last])))
    starts = [bytes([256 * number // _RANGE_PROOFS, 128]) for number in range(_RANGE_PROOFS)]
    measured = measure_range_proofs(database, replica, starts)
    measured |= measure_gets(database, random.Random(1).choices(keys, k=_GETS))
    measured |= measure_single_proofs(database, random.Random(2).choices(keys, k=_SINGLE_PROOFS))
    return {
        "get, µs": measured[Quantity.GET],
        "iterate, µs a key": clock.median("iterate") / (last + 1) * 1e6,
        **{f"{step} {PROOF_KEYS:,} pairs, ms": measured[Quantity[step.upper()]] for step in _STEPS},
        "proof, bytes a key": measured[Quantity.PROOF_BYTES],
        "prove one key, µs": measured[Quantity.PROVE_ONE],
        "verify one key, µs": measured[Quantity.VERIFY_ONE],
    }


def measure(keys: list[bytes], values: list[bytes]) -> Figures:
    """Return all figures of one run."""
    clock, changes = Stopwatch(), pairs_of(range(len(keys), len(keys) + _COMMIT_PAIRS))
    with options.work_folder() as folder:
        figures = measure_load(folder, keys, values)
        with merkledb.open(folder / "store") as database, merkledb.open(folder / "replica") as replica:
            figures |= measure_reads(database, replica, keys)
            clock.lap("commit", partial(database.commit, changes))
    return figures | {f"commit of {_COMMIT_PAIRS:,} new pairs, ms": clock.median("commit") * 1e3}


@click.command(cls=options.Benchmark, help=__doc__)
# Fewer, and most of the measured proofs would have fewer pairs than their figures say.
@options.number_option("--keys", 1_000_000, "Pairs in the store.", least=2 * PROOF_KEYS)
@options.RUNS
@options.AS_JSON
def main(*, keys: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    # Two raw tables, the store, and a part of it.
    options.require_room(4 * keys * options.PAIR_BYTES, pairs_in_memory=keys)
    pairs = sorted_pairs(keys)
    # All these pairs are the benchmark's own; the collector need not look at them again and again.
    gc.freeze()
    rows = [measure(*pairs) for _ in range(runs)]
    figures = [Figure(name, figure) for name, figure in medians(rows).items()]
    title = f"{keys:,} keys of 32 + 32 bytes, median of {runs} runs, {merkledb.kernel_name()} kernel"
    options.report(title, {"keys": keys, "runs": runs}, figures, as_json=as_json)


if __name__ == "__main__":
    main()
