"""The pairs that all benchmarks use, and how they get into a store."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import merkledb

# Few enough that a commit's columns stay in the processor's cache, many enough that its fsync hardly counts.
LOAD_BATCH_PAIRS: Final = 16_384


def key_of(index: int) -> bytes:
    """Return the key number ``index``: the sha256 of the index as 8 big-endian bytes."""
    return sha256(index.to_bytes(8, "big")).digest()


def value_of(index: int) -> bytes:
    """Return the value number ``index``."""
    return sha256(b"v" + index.to_bytes(8, "big")).digest()


def sorted_pairs(count: int) -> tuple[list[bytes], list[bytes]]:
    """Return ``count`` keys, ascending, and their values."""
    pairs = sorted((key_of(index), value_of(index)) for index in range(count))
    return [key for key, _ in pairs], [value for _, value in pairs]


def batches(keys: list[bytes], values: list[bytes], size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield both columns in stretches of ``size``."""
    for at in range(0, len(keys), size):
        yield keys[at : at + size], values[at : at + size]


def load(path: Path, keys: list[bytes], values: list[bytes]) -> bytes:
    """Load pairs into a new store; return its root."""
    with merkledb.open(path) as database:
        for some_keys, some_values in batches(keys, values, LOAD_BATCH_PAIRS):
            database.commit(dict(zip(some_keys, some_values, strict=True)))
        return database.root


def store_bytes(path: Path) -> int:
    """Return what a store takes on disk."""
    return (path / "data.mdb").stat().st_blocks * 512
