"""Measure one database in one process: load, get, iterate, commit, prove, verify, apply; beside raw LMDB.

    python -m bench.database [--keys N] [--runs N] [--json]

The load is timed beside a raw LMDB append of the same pairs in the same transactions, one after the other in
each run; the median of the runs counts.
"""

import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import click
import lmdb

import merkledb
from bench.data import LOAD_BATCH_PAIRS, MAP_BYTES, batches, key_of, load, sorted_pairs, store_bytes, value_of
from bench.figures import Stopwatch
from merkledb.store import LMDB_VERSION

_PROOF_KEYS: Final = 2048
_COMMIT_PAIRS: Final = 10_000
_GETS: Final = 50_000
_PROOFS: Final = 30

Figures = dict[str, float]


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def raw_append(path: Path, keys: list[bytes], values: list[bytes], *, many_rows_a_call: bool) -> None:
    """Append sorted pairs to an empty LMDB table, in the transactions that a load makes."""
    environment = lmdb.open(str(path), map_size=MAP_BYTES, lib_version=LMDB_VERSION)
    for some_keys, some_values in batches(keys, values, LOAD_BATCH_PAIRS):
        rows = zip(some_keys, some_values, strict=True)
        with environment.begin(write=True) as transaction:
            if many_rows_a_call:
                transaction.cursor().putmulti(rows, append=True)
            else:
                for key, value in rows:
                    transaction.put(key, value, append=True)
    environment.close()


def measure_load(folder: Path, keys: list[bytes], values: list[bytes]) -> Figures:
    """Return how fast sorted pairs get into an empty store, beside a raw append."""
    raw_seconds = seconds(lambda: raw_append(folder / "raw", keys, values, many_rows_a_call=False))
    many_seconds = seconds(lambda: raw_append(folder / "many", keys, values, many_rows_a_call=True))
    load_seconds = seconds(lambda: load(folder / "store", keys, values))
    return {
        "load, keys a second": len(keys) / load_seconds,
        "raw append, keys a second": len(keys) / raw_seconds,
        "raw append by putmulti, keys a second": len(keys) / many_seconds,
        "load / raw append": raw_seconds / load_seconds,
        "load / raw append by putmulti": many_seconds / load_seconds,
        "store, bytes a key": store_bytes(folder / "store") / len(keys),
    }


def measure_reads(database: merkledb.Database, keys: list[bytes]) -> Figures:
    """Return how long a get takes, and a step of an iteration."""
    some = random.Random(1).choices(keys, k=_GETS)

    def get_all() -> None:
        for key in some:
            database.get(key)

    return {
        "get, µs": seconds(get_all) / _GETS * 1e6,
        "iterate, µs a key": seconds(lambda: list(database.items(end=keys[len(keys) // 4])))
        / len(keys)
        * 4e6,
    }


def measure_proofs(database: merkledb.Database, copy: merkledb.Database) -> Figures:
    """Return how long the parts of a sync take, a proof of 2,048 pairs each."""
    clock, root, sizes = Stopwatch(), database.root, []
    for start in starts():
        database.prove_range(start, max_keys=_PROOF_KEYS)  # The pages come into memory.
        proof = clock.lap("prove", partial(database.prove_range, start, max_keys=_PROOF_KEYS))
        encoded = clock.lap("encode", proof.encode)
        decoded = clock.lap("decode", partial(merkledb.RangeProof.decode, encoded))
        verified = clock.lap("verify", partial(merkledb.verify_range, decoded, root, start))
        clock.lap("apply", partial(copy.apply, verified))
        sizes.append(len(encoded) / _PROOF_KEYS)
    figures = {f"{name} {_PROOF_KEYS:,} pairs, ms": clock.median(name) * 1e3 for name in clock.seconds}
    return {**figures, "proof, bytes a key": statistics.median(sizes)}


def starts() -> Iterator[bytes]:
    """Yield where the measured proofs start: all over the key space."""
    for number in range(_PROOFS):
        yield bytes([256 * number // _PROOFS, 128])


def measure_single_proofs(database: merkledb.Database, keys: list[bytes]) -> Figures:
    """Return how long a proof of one key takes."""
    some = random.Random(2).choices(keys, k=1000)
    root = database.root
    # The lists of keys are the benchmark's: the garbage collector need not go through them for each proof.
    gc.freeze()
    proofs: list[merkledb.RangeProof] = []
    made = seconds(lambda: proofs.extend(database.prove(key) for key in some))

    def verify_all() -> None:
        for key, proof in zip(some, proofs, strict=True):
            merkledb.verify_range(proof, root, key, key)

    return {
        "prove one key, µs": made / len(some) * 1e6,
        "verify one key, µs": seconds(verify_all) / len(some) * 1e6,
    }


def measure_commit(database: merkledb.Database, count: int) -> Figures:
    """Return how long a commit of scattered new pairs takes."""
    changes: dict[bytes, bytes | None] = {
        key_of(index): value_of(index) for index in range(count, count + _COMMIT_PAIRS)
    }
    return {f"commit of {_COMMIT_PAIRS:,} new pairs, ms": seconds(lambda: database.commit(changes)) * 1e3}


def measure(folder: Path, keys: list[bytes], values: list[bytes]) -> Figures:
    """Return all figures of one run."""
    folder.mkdir()
    figures = measure_load(folder, keys, values)
    with merkledb.open(folder / "store") as database, merkledb.open(folder / "copy") as copy:
        figures |= measure_reads(database, keys)
        figures |= measure_proofs(database, copy)
        figures |= measure_single_proofs(database, keys)
        figures |= measure_commit(database, len(keys))
    return figures


@click.command(help=__doc__)
@click.option("--keys", "count", default=1_000_000, show_default=True, help="Pairs in the store.")
@click.option("--runs", default=3, show_default=True, help="How often all is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def main(*, count: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    keys, values = sorted_pairs(count)
    with tempfile.TemporaryDirectory(prefix="merklesync-bench-") as folder:
        rows = [measure(Path(folder) / str(run), keys, values) for run in range(runs)]
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    if as_json:
        print(json.dumps({"keys": count, "runs": runs, **medians}))
        return
    kernel = merkledb.kernel_name()
    print(f"{count:,} keys of 32 + 32 bytes, median of {runs} runs, {kernel} kernel\n")
    for name, figure in medians.items():
        print(f"{name:42}{figure:>12,.{3 if figure < 10 else 0}f}")


if __name__ == "__main__":
    main()
