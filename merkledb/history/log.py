"""History: what each revision changed, as it was before; enough to read and prove any retained root.

    value_history     sequence ‖ key  →  0x00 where the key was absent, else 0x01 ‖ its value
    branch_history    sequence ‖ path →  the branch before, as far as it changed (see ``branch_delta``)

Rows are sorted by sequence number first, so a commit appends its history in full pages and pruning takes it
away in one stretch; a table sorted by key would touch as many pages again as the commit itself.  The price is
paid by who reads an old state: a lookup for each revision between, at most as many as are retained.

How a state is read: of a key, or of one child of a branch, *the first row after the state's own sequence
number counts*; where there is none, what the tables hold counts.  A child that no row speaks of is as the
tables have it, with all that lies below it, so the way down leaves history there.  A branch that was taken
away has a row that speaks of all its children.  So nothing is searched for in the past: each child that is
not where it was is named with its location.

A first row counts for the unfinished revision of a sync too: it may write a place many times, and what stood
there at the head is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from merkledb.formats.branch_delta import NodeLocation, parse_branch_delta, shared_bytes
from merkledb.formats.branch_record import split_records
from merkledb.formats.scheme import PathCodec
from merkledb.history.revisions import SEQUENCE_BYTES
from merkledb.kernel.choice import kernel
from merkledb.storage.store import DamagedRow, StoreTransaction, Table, put_rows, seek_row
from merkledb.trie.node import Found
from merkledb.trie.trie import OpenTrie

# What stands in place of the value of a key that was absent.
ABSENT: Final = b"\x00"
PRESENT: Final = b"\x01"
# Pruning takes so many rows away at each commit, and twice as many as the commit adds if that is more.
_PRUNED_ROWS: Final = 4096


class HistoryWriter:
    """Writes the history of one revision, within the transaction that makes it.

    Args:
        transaction: What is written in.
        sequence: The revision's sequence number.
        unfinished: Whether several transactions make this revision, so that rows may be there already.

    Attributes:
        rows: How many rows were written.
    """

    def __init__(self, transaction: StoreTransaction, sequence: int, *, unfinished: bool) -> None:
        self._transaction = transaction
        self._store, self._lmdb = transaction.store, transaction.lmdb
        self._prefix = sequence.to_bytes(SEQUENCE_BYTES)
        self._unfinished = unfinished
        self.rows = 0

    def put_values(self, keys: Sequence[bytes], values: Iterable[bytes | None]) -> None:
        """Keep the values that ``keys``, ascending, had before; None for none."""
        if keys:
            rows = [ABSENT if value is None else PRESENT + value for value in values]
            self._put(self._store.value_history, keys, rows)

    def put_branches(self, paths: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Keep the branches that stood at ``paths``, ascending, as ``branch_delta_rows`` made them."""
        if self._unfinished and self._has_rows():
            rows = [self._merged(path, row) for path, row in zip(paths, rows, strict=True)]
        self._put(self._store.branch_history, paths, rows, overwrite=True)

    def _put(
        self, table: Table, keys: Sequence[bytes], rows: Sequence[bytes], *, overwrite: bool = False
    ) -> None:
        if not keys:
            return
        self.rows += len(keys)
        row_keys = [self._prefix + key for key in keys]
        if not self._unfinished or overwrite:
            put_rows(self._lmdb, table, row_keys, rows)
        else:
            cursor = self._lmdb.cursor(db=table)
            cursor.putmulti(zip(row_keys, rows, strict=True), overwrite=False)

    def _has_rows(self) -> bool:
        """Return whether an earlier step, or a sync that was given up, left rows of branches."""
        cursor = self._lmdb.cursor(db=self._store.branch_history)
        return cursor.set_range(self._prefix) and cursor.key().startswith(self._prefix)

    def _merged(self, path: bytes, row: bytes) -> bytes:
        """Return the row for a branch that may have one already, which then says what came first."""
        kept = self._lmdb.get(self._prefix + path, db=self._store.branch_history)
        if kept is None:
            return row
        try:
            first, second = parse_branch_delta(kept), parse_branch_delta(row)
        except ValueError as error:
            raise self._transaction.corrupt(f"a row of history is unreadable: {error}") from error
        added = {token for token in second.ids if token in first.tokens and token not in first.ids}
        if not added:
            return kept
        ids = first.ids | {token: second.ids[token] for token in added}
        locations = first.locations | {
            token: location for token, location in second.locations.items() if token in added
        }
        return first._replace(ids=ids, locations=locations).encode()


def branch_delta_rows(
    trie: OpenTrie,
    paths: list[bytes],
    before: Mapping[bytes, bytes],
    after: Mapping[bytes, bytes],
    visited: Mapping[bytes, Found] = MappingProxyType({}),
) -> list[bytes]:
    """Return the rows of branches that change, or go.

    Args:
        trie: As it is before the change.
        paths: The branches'.
        before: What these branches are before the change, by path, and others that are there.
        after: What those of them that stay are afterwards, by path.
        visited: What is known to hang under slots before the change, so that the trie need not be asked.
    """
    records, new_records = [before[path] for path in paths], [after.get(path) for path in paths]
    codec = trie.scheme.codec
    rows, indexes, slots = kernel().delta_rows(paths, records, new_records, before, visited, codec.token_bits)
    locations = []
    for index, slot in zip(indexes, slots, strict=True):
        found = visited.get(slot)
        if found is None:
            tokens, _, _, weights = split_records([records[index]])[0]
            found = trie.under(slot, weights[tokens.index(slot[-1])])
        locations.append(location_of(found, slot, codec))
    for index, slot, location in zip(indexes, slots, locations, strict=True):
        if location is not None:
            rows[index] += location.encode(slot[-1:])
    return rows


def location_of(found: Found, slot: bytes, codec: PathCodec) -> NodeLocation | None:
    """Return where what hangs under a slot is, as told from there; None of a branch right there."""
    if not isinstance(found, list) and found.record is not None:
        return NodeLocation(found.path[len(slot) :]) if len(found.path) > len(slot) else None
    keys = [key for key, _ in found] if isinstance(found, list) else [codec.pack(found.path)]
    cut = shared_bytes(slot, codec.token_bits)
    return NodeLocation(keys=tuple([key[cut:] for key in keys]))


def prune_history(transaction: StoreTransaction, oldest: int, written_rows: int) -> None:
    """Take away rows that no retained revision needs: those up to the sequence number ``oldest``.

    Bounded: what is left over is taken away by later commits.
    """
    last = oldest.to_bytes(SEQUENCE_BYTES)
    budget = max(_PRUNED_ROWS, 2 * written_rows)
    for table in (transaction.store.value_history, transaction.store.branch_history):
        cursor = transaction.lmdb.cursor(db=table)
        found = cursor.first()
        while found and budget and cursor.key()[:SEQUENCE_BYTES] <= last:
            cursor.delete()
            found = bool(cursor.key())
            budget -= 1


def value_rows(
    transaction: StoreTransaction, sequence: int, low: bytes, max_rows: int, max_bytes: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """Return what a revision overwrote, from a key on.

    Args:
        transaction: What is read in.
        sequence: The revision's sequence number.
        low: The first key.
        max_rows: The most rows.
        max_bytes: About how many bytes at most.

    Returns:
        The value that each key had before, None for none; and the key to go on from, None at the end.
    """
    prefix = sequence.to_bytes(SEQUENCE_BYTES)
    rows: dict[bytes, bytes | None] = {}
    size = 0
    cursor = transaction.lmdb.cursor(db=transaction.store.value_history)
    for row_key, row in cursor if seek_row(cursor, prefix + low) else ():
        key = row_key[SEQUENCE_BYTES:]
        if not row_key.startswith(prefix):
            break
        if len(rows) == max_rows or size > max_bytes:
            return rows, key
        rows[key] = value_of_row(row)
        size += len(row)
    return rows, None


def value_of_row(row: bytes) -> bytes | None:
    """Return the value that a row of the history of values says; None where the key was absent.

    Raises:
        DamagedRow: The row says neither.
    """
    if row[:1] == PRESENT:
        return row[1:]
    require_value_row(row)
    return None


def require_value_row(row: bytes) -> None:
    """Raise DamagedRow when a row is none of the history of values."""
    if row != ABSENT and row[:1] != PRESENT:
        raise DamagedRow(f"a row of the history of values begins with 0x{row[:1].hex()}")
