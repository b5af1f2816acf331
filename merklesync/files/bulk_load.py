"""Putting sorted pairs into a store in bounded commits: the engine of ``load``.

Pairs come in ascending order of their keys, from ``tree_reader`` or ``sorted_pairs``.  Each batch is one
commit, so an interrupted load leaves a whole store at some root, and the same load again finishes it: pairs
that the store holds already are not written again.  Memory holds one batch.

In a store that never held anything, the batches before the last are not retained as revisions: they would
cost a row of history for every key.  Any other store retains what it held before, as with every commit.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from merkledb import Database
from merklesync.files.sorted_pairs import Pair
from merklesync.files.tree_reader import Unread

# One commit is one flush to disk, which takes as long as writing some ten thousand pairs: fewer would
# wait for the disk most of the time, more would only take memory.
MAX_BATCH_KEYS: Final = 50_000
MAX_BATCH_BYTES: Final = 32 * 1024 * 1024


@dataclass
class LoadCounts:
    """What a load has done so far, in keys.

    Attributes:
        added: Keys that were new.
        changed: Keys that held another value.
        unchanged: Keys that held this value already.
        removed: Keys that the source does not have.
        kept: Keys that were not removed, because what the source has there could not be read.
        size_bytes: Bytes of all keys and values that came from the source.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    kept: int = 0
    size_bytes: int = 0

    @property
    def keys(self) -> int:
        """How many keys came from the source."""
        return self.added + self.changed + self.unchanged


def load_pairs(
    database: Database, pairs: Iterable[Pair], *, replace: bool, unread: Unread | None = None
) -> LoadCounts:
    """Put ``pairs`` into ``database``.

    Args:
        database: Opened for writing.
        pairs: In strictly ascending order of their keys.
        replace: Remove every key that is not among them.
        unread: Names of which it is unknown what the source has there: no key at or below one is removed.
            It may grow as the pairs come, and has to hold every name that lies before a pair by then.

    Returns:
        What was done.

    Raises:
        DatabaseFull: What was committed until then stays.
    """
    loaded = LoadCounts()
    unread = Unread() if unread is None else unread
    was_empty = len(database) == 0
    keep_history = len(database.revisions()) > 1 or not was_empty
    start: bytes | None = None
    for batch in cut_batches(pairs):
        end = next(reversed(batch))
        changes = _new_or_changed(database, batch, loaded, was_empty=was_empty)
        if replace and not was_empty:
            changes.update(_remove_missing(database, batch, start, end, loaded, unread))
        _commit(database, changes, keep_history=keep_history)
        loaded.size_bytes += sum(map(len, batch)) + sum(map(len, batch.values()))
        unread.forget_up_to(end)
        start = end + b"\0"
    if replace and not was_empty:
        _commit(database, _remove_missing(database, {}, start, None, loaded, unread), keep_history=True)
    return loaded


def cut_batches(pairs: Iterable[Pair]) -> Iterator[dict[bytes, bytes]]:
    """Cut a stream of pairs into batches bounded in keys and, but for the last pair of each, in bytes."""
    batch: dict[bytes, bytes] = {}
    size_bytes = 0
    for key, value in pairs:
        batch[key] = value
        size_bytes += len(key) + len(value)
        if len(batch) >= MAX_BATCH_KEYS or size_bytes >= MAX_BATCH_BYTES:
            yield batch
            batch = {}
            size_bytes = 0
    if batch:
        yield batch


def _new_or_changed(
    database: Database, batch: Mapping[bytes, bytes], loaded: LoadCounts, *, was_empty: bool
) -> dict[bytes, bytes | None]:
    """Return the pairs of ``batch`` that the store does not hold already, and count all of them."""
    if was_empty:
        loaded.added += len(batch)
        return dict(batch)
    changes: dict[bytes, bytes | None] = {}
    with database.snapshot() as snapshot:
        for key, value in batch.items():
            held = snapshot.get(key)
            if held == value:
                loaded.unchanged += 1
                continue
            changes[key] = value
            if held is None:
                loaded.added += 1
            else:
                loaded.changed += 1
    return changes


def _remove_missing(
    database: Database,
    batch: Mapping[bytes, bytes],
    start: bytes | None,
    end: bytes | None,
    loaded: LoadCounts,
    unread: Unread,
) -> dict[bytes, None]:
    """Remove the keys of [start, end] that the source has not, but for a last batch, which is returned."""

    def is_gone(key: bytes) -> bool:
        if key in batch:
            return False
        covered = unread.covers(key)
        loaded.kept += covered
        return not covered

    while True:
        with database.snapshot() as snapshot:
            keys = (key for key, _ in snapshot.items(start, end) if is_gone(key))
            others = list(islice(keys, MAX_BATCH_KEYS))
        loaded.removed += len(others)
        if len(others) < MAX_BATCH_KEYS:
            return dict.fromkeys(others)
        _commit(database, dict.fromkeys(others), keep_history=True)
        start = others[-1] + b"\0"


def _commit(database: Database, changes: Mapping[bytes, bytes | None], *, keep_history: bool) -> None:
    if changes:
        database.commit(changes, keep_history=keep_history)
