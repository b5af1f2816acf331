"""The steps of ``bench.scale`` on one store, each in a process of its own, whose memory is then its own.

Each runs as ``python -m bench.store_steps STEP FOLDER KIND KEYS VALUE_BYTES`` and prints one JSON document at
its end.  The pairs are made while no clock runs.  What waits for the disk is timed by the clock on the wall,
everything else by the processor's time.
"""

import json
import resource
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import lmdb

import merkledb
from bench.data import MAP_BYTES
from bench.figures import Stopwatch
from bench.quantity import Measured, Quantity
from bench.workload import PROOF_KEYS, ROUNDS, Sample, Workload, values
from merkledb.store import LMDB_VERSION

# A proof of heavy values is cut here.
_PROOF_BYTES: Final = 1 << 23
_SINGLE_PROOFS: Final = 1000
# So many bytes of single proofs are held at once, at most.
_SINGLE_PROOFS_BYTES: Final = 1 << 26


def append_raw(folder: Path, workload: Workload) -> dict[str, Any]:
    """Append the pairs to an empty LMDB table, in the transactions that a load makes."""
    clock = Stopwatch()
    environment = lmdb.open(str(folder / "raw"), map_size=MAP_BYTES, lib_version=LMDB_VERSION)
    for keys, some_values in workload.batches():
        clock.lap("append", partial(_append, environment, keys, some_values))
    environment.close()
    return {"seconds": sum(clock.seconds["append"])}


def _append(environment: lmdb.Environment, keys: list[bytes], some_values: list[bytes]) -> None:
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(zip(keys, some_values, strict=True), append=True)


def load(folder: Path, workload: Workload) -> dict[str, Any]:
    """Load the pairs into a new store."""
    clock, key_bytes = Stopwatch(), 0
    with merkledb.open(folder / "store") as database:
        for keys, some_values in workload.batches():
            changes = dict(zip(keys, some_values, strict=True))
            clock.lap("commit", partial(database.commit, changes, keep_history=False))
            key_bytes += sum(map(len, keys))
        root = database.root.hex()
    # Linux counts in KiB.  Mapped pages of the store are among it.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = sum(clock.seconds["commit"])
    return {"seconds": seconds, "root": root, "key_bytes": key_bytes, "peak_bytes": peak_bytes}


def read(folder: Path, workload: Workload) -> Measured:
    """Read and prove what the store has, and verify and apply that."""
    sample = workload.sample()
    with merkledb.open(folder / "store", readonly=True) as database:
        with merkledb.open(folder / "replica") as replica:
            measured = _range_proofs(database, replica, sample)
        return measured | _gets(database, sample) | _single_proofs(database, workload, sample)


def _gets(database: merkledb.Database, sample: Sample) -> Measured:
    def get_all() -> None:
        for key in sample.present:
            database.get(key)

    get_all()  # The pages come into memory.
    clock = Stopwatch(time.process_time)
    clock.lap("get", get_all)
    return {Quantity.GET: clock.median("get") / len(sample.present) * 1e6}


def _range_proofs(database: merkledb.Database, replica: merkledb.Database, sample: Sample) -> Measured:
    working, writing, root = Stopwatch(time.process_time), Stopwatch(), database.root
    sizes: list[float] = []
    pairs: list[int] = []
    for start in sample.starts:
        prove = partial(database.prove_range, start, max_keys=PROOF_KEYS, max_bytes=_PROOF_BYTES)
        prove()  # The pages come into memory.
        proof = working.lap(Quantity.PROVE, prove)
        encoded = working.lap(Quantity.ENCODE, proof.encode)
        decoded = working.lap(Quantity.DECODE, partial(merkledb.RangeProof.decode, encoded))
        verified = working.lap(Quantity.VERIFY, partial(merkledb.verify_range, decoded, root, start))
        writing.lap(Quantity.APPLY, partial(replica.apply, verified))
        sizes.append(len(encoded) / len(proof.keys))
        pairs.append(len(proof.keys))
    steps = (Quantity.PROVE, Quantity.ENCODE, Quantity.DECODE, Quantity.VERIFY)
    return {
        Quantity.PROOF_PAIRS: statistics.median(pairs),
        **{step: working.median(step) * 1e3 for step in steps},
        Quantity.APPLY: writing.median(Quantity.APPLY) * 1e3,
        Quantity.PROOF_BYTES: statistics.median(sizes),
    }


def _single_proofs(database: merkledb.Database, workload: Workload, sample: Sample) -> Measured:
    most = min(_SINGLE_PROOFS, max(1, _SINGLE_PROOFS_BYTES // workload.value_bytes))
    keys, root, clock = sample.present[:most], database.root, Stopwatch(time.process_time)

    def prove_all() -> list[merkledb.RangeProof]:
        return [database.prove(key) for key in keys]

    def verify_all() -> None:
        for key, proof in zip(keys, proofs, strict=True):
            merkledb.verify_range(proof, root, key, key)

    proofs = clock.lap("prove", prove_all)
    clock.lap("verify", verify_all)
    return {
        Quantity.PROVE_ONE: clock.median("prove") / len(keys) * 1e6,
        Quantity.VERIFY_ONE: clock.median("verify") / len(keys) * 1e6,
        Quantity.BYTES_OF_ONE: statistics.mean(len(proof.encode()) for proof in proofs),
    }


def commit(folder: Path, workload: Workload) -> Measured:
    """Commit new pairs, and new values of others, scattered over the store, with history."""
    sample, clock = workload.sample(), Stopwatch()
    with merkledb.open(folder / "store") as database:
        for step, keys in ((Quantity.COMMIT_NEW, sample.new), (Quantity.COMMIT_CHANGED, sample.present)):
            for number in range(ROUNDS):
                some = keys[number::ROUNDS]
                new_values = values(f"{step} {number}", len(some), workload.value_bytes)
                changes = dict(zip(some, new_values, strict=True))
                clock.lap(step, partial(database.commit, changes))
    return {Quantity(step): clock.median(step) * 1e3 for step in clock.seconds}


STEPS: Final = {"append_raw": append_raw, "load": load, "read": read, "commit": commit}


def main(step: str, folder: str, kind: str, keys: str, value_bytes: str) -> None:
    """Take one step and print what it measured."""
    workload = Workload(kind, int(keys), int(value_bytes))
    print(json.dumps(STEPS[step](Path(folder), workload)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
