"""What loads, gets, proofs and commits of one store take, for ``bench.database`` and ``bench.scale``.

``bench.scale`` takes each step in a process of its own, whose memory is then its own, as ``bench.processes``
says: ``python -m bench.steps STEP [FOLDER, KIND, KEYS, VALUE_BYTES]``.  What waits for the disk is timed by
the clock on the wall, all else by the processor's time.  What is read was read before, so it is in memory.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import merkledb
from bench import data
from bench.figures import Figures, Stopwatch
from bench.processes import run_role
from bench.workload import ROUNDS, Workload, values

# A proof of heavy values is cut here.
_PROOF_BYTES: Final = 1 << 23
_SINGLE_PROOFS: Final = 1000
# So many bytes of single proofs are held at once, at most.
_SINGLE_PROOFS_BYTES: Final = 1 << 26
# Linux counts the peak memory in KiB, macOS in bytes.
_PEAK_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


def measure_reads(
    database: merkledb.Database,
    replica: merkledb.Database,
    starts: Iterable[bytes],
    keys: Sequence[bytes],
    single_keys: Sequence[bytes],
) -> Figures:
    """Return what gets, range proofs, and proofs of single keys take.

    ``replica`` gets a proof of 2,048 pairs from each of ``starts``, which ascend.
    """
    root, getting = database.root, Stopwatch(time.process_time)
    proving, applying = Stopwatch(time.process_time), Stopwatch()
    pairs, sizes = list[int](), list[float]()
    for start in starts:
        prove = partial(database.prove_range, start, max_keys=data.PROOF_KEYS, max_bytes=_PROOF_BYTES)
        prove()
        proof = proving.lap("range proof: prove, ms", prove)
        encoded = proving.lap("range proof: encode, ms", proof.encode)
        decoded = proving.lap("range proof: decode, ms", partial(merkledb.RangeProof.decode, encoded))
        verify = partial(merkledb.verify_range, decoded, root, start)
        verified = proving.lap("range proof: verify, ms", verify)
        applying.lap("range proof: apply durably, ms", partial(replica.apply, verified))
        pairs.append(len(proof.keys))
        sizes.append(len(encoded) / max(1, len(proof.keys)))

    def get_all() -> None:
        for key in keys:
            database.get(key)

    get_all()
    getting.lap("get, µs", get_all, times=len(keys))
    return {
        **getting.figures(),
        "range proof, pairs": statistics.median(pairs),
        **proving.figures(),
        **applying.figures(),
        "range proof, bytes a key": statistics.median(sizes),
        **measure_single_proofs(database, single_keys),
    }


def measure_single_proofs(database: merkledb.Database, keys: Sequence[bytes]) -> Figures:
    """Prove keys one by one, and verify the proofs; return the means."""
    root, clock = database.root, Stopwatch(time.process_time)

    def verify_all() -> None:
        for key, proof in zip(keys, proofs, strict=True):
            merkledb.verify_range(proof, root, key, key)

    proofs = clock.lap(
        "single proof: prove, µs", lambda: [database.prove(key) for key in keys], times=len(keys)
    )
    clock.lap("single proof: verify, µs", verify_all, times=len(keys))
    size = statistics.mean(len(proof.encode()) for proof in proofs)
    return {**clock.figures(), "single proof, bytes": size}


# The steps of one workload.


def append(folder: Path, workload: Workload) -> Figures:
    """Append the pairs to an empty LMDB table."""
    return {"seconds": data.append(folder / "raw", workload.batches())}


def load(folder: Path, workload: Workload) -> Figures:
    """Load the pairs into a new store; ``memory_bytes`` includes mapped pages of it."""
    _, seconds, key_bytes = data.load(folder / "store", workload.batches())
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT_BYTES
    return {"seconds": seconds, "key_bytes": key_bytes, "memory_bytes": memory_bytes}


def read(folder: Path, workload: Workload) -> Figures:
    """Tell what the store takes on disk; read and prove what it has, and verify and apply that."""
    store, keys, sample = folder / "store", workload.keys, workload.sample()
    single_proofs = min(_SINGLE_PROOFS, max(1, _SINGLE_PROOFS_BYTES // workload.value_bytes))
    single_keys = sample.present[:single_proofs]
    in_values, in_branches = (data.table_bytes(store, name) for name in ("values", "branches"))
    whole = data.store_bytes(store)
    with merkledb.open(store, readonly=True) as database, merkledb.open(folder / "replica") as replica:
        return {
            "store, bytes a key": whole / keys,
            "of these, values": in_values / keys,
            "of these, branches": in_branches / keys,
            "of these, all else": (whole - in_values - in_branches) / keys,
            **measure_reads(database, replica, sample.starts, sample.present, single_keys),
        }


def commit(folder: Path, workload: Workload) -> Figures:
    """Commit new pairs, and new values of others, scattered over the store, with history."""
    sample, clock = workload.sample(), Stopwatch()
    kinds = {"commit of scattered new pairs, ms": sample.new}
    kinds["commit of scattered changed values, ms"] = sample.present
    with merkledb.open(folder / "store") as database:
        for name, keys in kinds.items():
            for number in range(ROUNDS):
                some = keys[number::ROUNDS]
                new_values = values(f"{name} {number}", len(some), workload.value_bytes)
                clock.lap(name, partial(database.commit, dict(zip(some, new_values, strict=True))))
    return {"commit, pairs": workload.commit_pairs, **clock.figures()}


def _take(step: Callable[[Path, Workload], Figures], folder: str, *workload: object) -> Figures:
    return step(Path(folder), Workload._make(workload))


if __name__ == "__main__":
    run_role({step.__name__: partial(_take, step) for step in (append, load, read, commit)})
