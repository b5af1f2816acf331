"""The pairs of 32 + 32 bytes that most programs use, their changes, and the stores that hold them."""

import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import merkledb
from bench.figures import Stopwatch
from bench.raw import append_raw, open_raw

# Few enough that a commit's columns stay in the processor's cache, many enough that its fsync hardly counts.
LOAD_BATCH_PAIRS: Final = 16_384
# The pairs of one range proof, or the changes of one change proof.
PROOF_KEYS: Final = 2_048

# Keys and their values.
Columns = tuple[list[bytes], list[bytes]]


def key_of(index: int) -> bytes:
    """Return the key number ``index``: the sha256 of the index as 8 big-endian bytes."""
    return sha256(index.to_bytes(8, "big")).digest()


def pairs_of(indexes: range) -> dict[bytes, bytes]:
    """Return the pairs of these numbers; their keys are in no order."""
    return {key_of(index): sha256(b"v" + index.to_bytes(8, "big")).digest() for index in indexes}


def sorted_pairs(count: int) -> Columns:
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


def batches(keys: list[bytes], values: list[bytes]) -> Iterator[Columns]:
    """Yield both columns in the stretches of which a load makes a transaction each."""
    for at in range(0, len(keys), LOAD_BATCH_PAIRS):
        yield keys[at : at + LOAD_BATCH_PAIRS], values[at : at + LOAD_BATCH_PAIRS]


class Loaded(NamedTuple):
    """What a load made: the root, the seconds that its commits took, and the bytes of all keys."""

    root: bytes
    seconds: float
    key_bytes: int


def load(path: Path, pairs: Iterable[Columns]) -> Loaded:
    """Load batches of pairs into a new store, as a bulk load does."""
    clock, key_bytes = Stopwatch(), 0
    with merkledb.open(path) as database:
        for keys, values in pairs:
            changes = dict(zip(keys, values, strict=True))
            clock.lap("commit", partial(database.commit, changes, keep_history=False))
            key_bytes += sum(map(len, keys))
        return Loaded(database.root, sum(clock.seconds["commit"]), key_bytes)


def append(path: Path, pairs: Iterable[Columns], write: Callable[..., None] = append_raw) -> float:
    """Append the pairs to an empty LMDB table, in the transactions of a load; return their seconds."""
    clock = Stopwatch()
    with open_raw(path) as environment:
        for keys, values in pairs:
            clock.lap("append", partial(write, environment, keys, values))
    return sum(clock.seconds["append"])


def copy_store(source: Path, target: Path) -> None:
    """Copy a store that is not written to; durably, or the copy's first commit would wait for all of it."""
    target.mkdir()
    shutil.copy(source / "data.mdb", target)
    with (target / "data.mdb").open("rb+") as file:
        os.fsync(file.fileno())


def store_bytes(path: Path) -> int:
    """Return what a store takes on disk."""
    return (path / "data.mdb").stat().st_blocks * 512


def table_bytes(path: Path, name: str) -> int:
    """Return what the pages of a table of a store take; this process must not have it open."""
    with open_raw(path, readonly=True) as environment:
        table = environment.open_db(name.encode(), create=False)
        with environment.begin() as transaction:
            stat = transaction.stat(table)
    return int(stat["psize"] * (stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]))
