"""The pairs of 32 + 32 bytes that most programs use, their changes, and the stores that hold them."""

import os
import random
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import merkledb
from bench.raw import open_raw

# Few enough that a commit's columns stay in the processor's cache, many enough that its fsync hardly counts.
LOAD_BATCH_PAIRS: Final = 16_384
# The pairs of one range proof, or the changes of one change proof.
PROOF_KEYS: Final = 2_048


def key_of(index: int) -> bytes:
    """Return the key number ``index``: the sha256 of the index as 8 big-endian bytes."""
    return sha256(index.to_bytes(8, "big")).digest()


def value_of(index: int) -> bytes:
    """Return the value number ``index``."""
    return sha256(b"v" + index.to_bytes(8, "big")).digest()


def pairs_of(indexes: range) -> dict[bytes, bytes]:
    """Return the pairs of these numbers; their keys are in no order."""
    return {key_of(index): value_of(index) for index in indexes}


def sorted_pairs(count: int) -> tuple[list[bytes], list[bytes]]:
    """Return ``count`` keys, ascending, and their values."""
    pairs = sorted(pairs_of(range(count)).items())
    return [key for key, _ in pairs], [value for _, value in pairs]


def scattered_changes(keys: int, number: int, count: int) -> dict[bytes, bytes]:
    """Return new values for ``count`` of the first ``keys`` keys, chosen at random.

    Another ``number`` gives others.
    """
    seed = number.to_bytes(8, "big")
    chosen = map(key_of, random.Random(number).sample(range(keys), count))
    return {key: sha256(seed + key).digest() for key in chosen}


def batches(keys: list[bytes], values: list[bytes]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield both columns in the stretches of which a load makes a transaction each."""
    for at in range(0, len(keys), LOAD_BATCH_PAIRS):
        yield keys[at : at + LOAD_BATCH_PAIRS], values[at : at + LOAD_BATCH_PAIRS]


def load(path: Path, keys: list[bytes], values: list[bytes]) -> bytes:
    """Load pairs into a new store, as a bulk load does; return its root."""
    with merkledb.open(path) as database:
        for some_keys, some_values in batches(keys, values):
            database.commit(dict(zip(some_keys, some_values, strict=True)), keep_history=False)
        return database.root


def copy_store(source: Path, target: Path) -> None:
    """Copy a store that is not written to; durably, or the copy's first commit would wait for all of it."""
    target.mkdir()
    shutil.copy(source / "data.mdb", target)
    with (target / "data.mdb").open("rb+") as file:
        os.fsync(file.fileno())


def store_bytes(path: Path) -> int:
    """Return what a store takes on disk."""
    return (path / "data.mdb").stat().st_blocks * 512


def table_bytes(path: Path, *names: bytes) -> int:
    """Return what the pages of some tables of a store take; this process must not have it open."""
    with open_raw(path, readonly=True) as environment:
        tables = [environment.open_db(name, create=False) for name in names]
        with environment.begin() as transaction:
            stats = [transaction.stat(table) for table in tables]
    return sum(
        stat["psize"] * (stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]) for stat in stats
    )
