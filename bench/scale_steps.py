"""The steps of ``bench.scale`` on one store, each in a process of its own, whose memory is then its own.

Each runs as ``bench.processes`` says: ``python -m bench.scale_steps STEP [FOLDER, KIND, KEYS, VALUE_BYTES]``.
The pairs are made while no clock runs.  What waits for the disk is timed by the clock on the wall, everything
else by the processor's time.
"""

import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import merkledb
from bench.figures import Stopwatch
from bench.processes import run_role
from bench.proofs import measure_gets, measure_range_proofs, measure_single_proofs
from bench.raw import append_raw, open_raw
from bench.results import Measured, Quantity
from bench.workload import ROUNDS, Workload, values

_SINGLE_PROOFS: Final = 1000
# So many bytes of single proofs are held at once, at most.
_SINGLE_PROOFS_BYTES: Final = 1 << 26
# Linux counts the peak memory in KiB, macOS in bytes.
_PEAK_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


def append(folder: Path, workload: Workload) -> Measured:
    """Append the pairs to an empty LMDB table, in the transactions that a load makes."""
    clock = Stopwatch()
    with open_raw(folder / "raw") as environment:
        for keys, some_values in workload.batches():
            clock.lap("append", partial(append_raw, environment, keys, some_values))
    return {Quantity.RAW_KEYS: workload.keys / sum(clock.seconds["append"])}


def load(folder: Path, workload: Workload) -> Measured:
    """Load the pairs into a new store."""
    clock, key_bytes = Stopwatch(), 0
    with merkledb.open(folder / "store") as database:
        for keys, some_values in workload.batches():
            changes = dict(zip(keys, some_values, strict=True))
            clock.lap("commit", partial(database.commit, changes, keep_history=False))
            key_bytes += sum(map(len, keys))
    seconds = sum(clock.seconds["commit"])
    # Mapped pages of the store are among it.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT_BYTES
    return {
        Quantity.KEY_BYTES: key_bytes / workload.keys,
        Quantity.LOAD_KEYS: workload.keys / seconds,
        Quantity.LOAD_MEGABYTES: (key_bytes + workload.keys * workload.value_bytes) / seconds / 1e6,
        Quantity.LOAD_MEMORY: peak_bytes / 1e6,
    }


def read(folder: Path, workload: Workload) -> Measured:
    """Read and prove what the store has, and verify and apply that."""
    sample = workload.sample()
    single_proofs = min(_SINGLE_PROOFS, max(1, _SINGLE_PROOFS_BYTES // workload.value_bytes))
    with merkledb.open(folder / "store", readonly=True) as database:
        with merkledb.open(folder / "replica") as replica:
            measured = measure_range_proofs(database, replica, sample.starts)
        measured |= measure_gets(database, sample.present)
        return measured | measure_single_proofs(database, sample.present[:single_proofs])


def commit(folder: Path, workload: Workload) -> Measured:
    """Commit new pairs, and new values of others, scattered over the store, with history."""
    sample, clock = workload.sample(), Stopwatch()
    with merkledb.open(folder / "store") as database:
        for step, keys in ((Quantity.COMMIT_NEW, sample.new), (Quantity.COMMIT_CHANGED, sample.present)):
            for number in range(ROUNDS):
                some = keys[number::ROUNDS]
                new_values = values(f"{step} {number}", len(some), workload.value_bytes)
                clock.lap(step, partial(database.commit, dict(zip(some, new_values, strict=True))))
    return {Quantity(step): clock.median(step) * 1e3 for step in clock.seconds}


def _take(step: Callable[[Path, Workload], Measured], folder: str, *workload: object) -> dict[str, float]:
    return {str(name): figure for name, figure in step(Path(folder), Workload._make(workload)).items()}


if __name__ == "__main__":
    run_role({step.__name__: partial(_take, step) for step in (append, load, read, commit)})
