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
from bench.data import PROOF_KEYS, append, batches, load, pairs_of, sorted_pairs, store_bytes
from bench.figures import Figures, Stopwatch, medians
from bench.raw import append_row_by_row
from bench.steps import measure_reads

_COMMIT_PAIRS: Final = 10_000
_GETS: Final = 50_000
_SINGLE_PROOFS: Final = 1_000
_RANGE_PROOFS: Final = 30
_STEPS: Final = ("prove", "encode", "decode", "verify", "apply durably")


def measure(keys: list[bytes], values: list[bytes]) -> Figures:
    """Return all figures of one run."""
    with options.work_folder() as folder:
        by_row = append(folder / "raw by row", batches(keys, values), append_row_by_row)
        by_many = append(folder / "raw by many", batches(keys, values))
        loaded = load(folder / "store", batches(keys, values)).seconds
        return {
            "load, keys a second": len(keys) / loaded,
            "raw append, keys a second": len(keys) / by_row,
            "raw append by putmulti, keys a second": len(keys) / by_many,
            "load / raw append": by_row / loaded,
            "load / raw append by putmulti": by_many / loaded,
            "store, bytes a key": store_bytes(folder / "store") / len(keys),
            **measure_store(folder, keys),
        }


def measure_store(folder: Path, keys: list[bytes]) -> Figures:
    """Return how long gets, a step of an iteration, the parts of a sync and a commit take."""
    clock, iterating, last = Stopwatch(), Stopwatch(time.process_time), len(keys) // 4
    new_pairs = pairs_of(range(len(keys), len(keys) + _COMMIT_PAIRS))
    starts = [bytes([256 * number // _RANGE_PROOFS, 128]) for number in range(_RANGE_PROOFS)]
    with merkledb.open(folder / "store") as database, merkledb.open(folder / "replica") as replica:
        iterating.lap("iterate, µs a key", lambda: list(database.items(end=keys[last])), times=last + 1)
        gets = random.Random(1).choices(keys, k=_GETS)
        single_keys = random.Random(2).choices(keys, k=_SINGLE_PROOFS)
        read = measure_reads(database, replica, starts, gets, single_keys)
        commit = partial(database.commit, new_pairs)
        clock.lap(f"commit of {_COMMIT_PAIRS:,} new pairs, ms", commit)
    return {
        "get, µs": read["get, µs"],
        **iterating.figures(),
        **{
            f"{step.split()[0]} {PROOF_KEYS:,} pairs, ms": read[f"range proof: {step}, ms"] for step in _STEPS
        },
        "proof, bytes a key": read["range proof, bytes a key"],
        "prove one key, µs": read["single proof: prove, µs"],
        "verify one key, µs": read["single proof: verify, µs"],
        **clock.figures(),
    }


@click.command(cls=options.Benchmark, help=__doc__)
# Fewer, and most of the measured proofs would have fewer pairs than their figures say.
@options.number_option("--keys", 1_000_000, "Pairs in the store.", least=2 * PROOF_KEYS)
@options.RUNS
@options.AS_JSON
def main(*, keys: int, runs: int, as_json: bool) -> None:
    # Two raw tables, the store, and a part of it.
    options.require_room(4 * keys * options.PAIR_BYTES, pairs_in_memory=keys)
    pairs = sorted_pairs(keys)
    # All these pairs are the benchmark's own; the collector need not look at them again and again.
    gc.freeze()
    figures = medians([measure(*pairs) for _ in range(runs)])
    title = f"{keys:,} keys of 32 + 32 bytes, median of {runs} runs, {merkledb.kernel_name()} kernel"
    options.report(title, {"keys": keys, "runs": runs}, figures, {}, as_json=as_json)


if __name__ == "__main__":
    main()
