"""What gets and proofs cost at the head of a store: each step from the server's rows to the client's.

What waits for the disk is timed by the clock on the wall, everything else by the processor's time.  What is
read was read before, so that it is in memory.
"""

import statistics
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import merkledb
from bench.data import PROOF_KEYS
from bench.figures import Stopwatch
from bench.results import Measured, Quantity

# A proof of heavy values is cut here.
_PROOF_BYTES: Final = 1 << 23


def measure_gets(database: merkledb.Database, keys: Sequence[bytes]) -> Measured:
    """Return how long it takes to get a value."""

    def get_all() -> None:
        for key in keys:
            database.get(key)

    get_all()
    clock = Stopwatch(time.process_time)
    clock.lap("get", get_all)
    return {Quantity.GET: clock.median("get") / len(keys) * 1e6}


def measure_range_proofs(
    database: merkledb.Database, replica: merkledb.Database, starts: Iterable[bytes]
) -> Measured:
    """Bring ``replica`` a proof of 2,048 pairs from each start, ascending; return the medians."""
    working, writing, root = Stopwatch(time.process_time), Stopwatch(), database.root
    pairs: list[float] = []
    sizes: list[float] = []
    for start in starts:
        prove = partial(database.prove_range, start, max_keys=PROOF_KEYS, max_bytes=_PROOF_BYTES)
        prove()
        proof = working.lap(Quantity.PROVE, prove)
        encoded = working.lap(Quantity.ENCODE, proof.encode)
        decoded = working.lap(Quantity.DECODE, partial(merkledb.RangeProof.decode, encoded))
        verified = working.lap(Quantity.VERIFY, partial(merkledb.verify_range, decoded, root, start))
        writing.lap(Quantity.APPLY, partial(replica.apply, verified))
        pairs.append(len(proof.keys))
        sizes.append(len(encoded) / max(1, len(proof.keys)))
    steps = {
        Quantity(step): clock.median(step) * 1e3 for clock in (working, writing) for step in clock.seconds
    }
    steps[Quantity.PROOF_PAIRS] = statistics.median(pairs)
    steps[Quantity.PROOF_BYTES] = statistics.median(sizes)
    return steps


def measure_single_proofs(database: merkledb.Database, keys: Sequence[bytes]) -> Measured:
    """Prove keys one by one, and verify the proofs; return the means."""
    root, clock = database.root, Stopwatch(time.process_time)

    def verify_all() -> None:
        for key, proof in zip(keys, proofs, strict=True):
            merkledb.verify_range(proof, root, key, key)

    proofs = clock.lap("prove", lambda: [database.prove(key) for key in keys])
    clock.lap("verify", verify_all)
    return {
        Quantity.PROVE_ONE: clock.median("prove") / len(keys) * 1e6,
        Quantity.VERIFY_ONE: clock.median("verify") / len(keys) * 1e6,
        Quantity.BYTES_OF_ONE: statistics.mean(len(proof.encode()) for proof in proofs),
    }
