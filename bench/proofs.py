"""What proofs cost at the head of a store: each step from the server's rows to the client's.

What waits for the disk is timed by the clock on the wall, everything else by the processor's time.
"""

import statistics
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

import merkledb
from bench.figures import Stopwatch

# The pairs of one range proof: what the manager asks for at most.
PROOF_KEYS: Final = 2048
# A proof of heavy values is cut here.
_PROOF_BYTES: Final = 1 << 23


class RangeProofs(NamedTuple):
    """Medians of the range proofs of one store.

    Attributes:
        milliseconds: What the steps "prove", "encode", "decode", "verify" and "apply" took.
        pairs: Pairs in a proof.
        bytes_per_key: Encoded.
    """

    milliseconds: dict[str, float]
    pairs: float
    bytes_per_key: float


def measure_range_proofs(
    database: merkledb.Database, replica: merkledb.Database, starts: Iterable[bytes]
) -> RangeProofs:
    """Bring ``replica`` a proof of 2,048 pairs from each start, ascending; return what that took."""
    working, writing, root = Stopwatch(time.process_time), Stopwatch(), database.root
    pairs: list[int] = []
    sizes: list[float] = []
    for start in starts:
        prove = partial(database.prove_range, start, max_keys=PROOF_KEYS, max_bytes=_PROOF_BYTES)
        prove()  # The pages come into memory.
        proof = working.lap("prove", prove)
        encoded = working.lap("encode", proof.encode)
        decoded = working.lap("decode", partial(merkledb.RangeProof.decode, encoded))
        verified = working.lap("verify", partial(merkledb.verify_range, decoded, root, start))
        writing.lap("apply", partial(replica.apply, verified))
        pairs.append(len(proof.keys))
        sizes.append(len(encoded) / max(1, len(proof.keys)))
    seconds = {step: clock.median(step) for clock in (working, writing) for step in clock.seconds}
    milliseconds = {step: median * 1e3 for step, median in seconds.items()}
    return RangeProofs(milliseconds, statistics.median(pairs), statistics.median(sizes))


class SingleProofs(NamedTuple):
    """What a proof of one key takes, over the keys that were proved.

    Attributes:
        prove_microseconds: To make it.
        verify_microseconds: To verify it.
        size_bytes: Encoded.
    """

    prove_microseconds: float
    verify_microseconds: float
    size_bytes: float


def measure_single_proofs(database: merkledb.Database, keys: Sequence[bytes]) -> SingleProofs:
    """Prove keys one by one, and verify the proofs; return the means."""
    root, clock = database.root, Stopwatch(time.process_time)

    def verify_all() -> None:
        for key, proof in zip(keys, proofs, strict=True):
            merkledb.verify_range(proof, root, key, key)

    proofs = clock.lap("prove", lambda: [database.prove(key) for key in keys])
    clock.lap("verify", verify_all)
    return SingleProofs(
        clock.median("prove") / len(keys) * 1e6,
        clock.median("verify") / len(keys) * 1e6,
        statistics.mean(len(proof.encode()) for proof in proofs),
    )


def measure_gets(database: merkledb.Database, keys: Sequence[bytes]) -> float:
    """Return the microseconds that it takes to get a value, once its pages are in memory."""

    def get_all() -> None:
        for key in keys:
            database.get(key)

    get_all()  # The pages come into memory.
    clock = Stopwatch(time.process_time)
    clock.lap("get", get_all)
    return clock.median("get") / len(keys) * 1e6
