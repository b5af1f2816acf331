"""Reading history: what the tables held at a retained revision, or what changed since.

Cost: a lookup for each revision since, of a key or a branch; of a stretch of keys, a short scan of each.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from merkledb.formats.branch_delta import changed_children, parse_branch_delta, parse_locations
from merkledb.formats.branch_record import CHILD_BYTES, HEAVY, TOKENS, encode_record
from merkledb.history.revisions import SEQUENCE_BYTES
from merkledb.kernel.boundary import ALL_TOKENS
from merkledb.storage.store import MAX_ROW_KEY_BYTES, Cursor, StoreTransaction, seek_row
from merkledb.trie.node import ChildDeltas, Node
from merkledb.trie.trie import StoredTrie

# However many revisions share a budget of rows, each may spend so many: windows of a few keys would cost more
# look-ups than rows.
_LEAST_REVISION_ROWS: Final = 16
# All slots of a branch.
ALL_SLOTS: Final = (ALL_TOKENS, ALL_TOKENS)


class Overlay(NamedTuple):
    """What changed since a state, in a range of keys.

    Attributes:
        rows: The first rows of history of the keys that changed, by key.
        horizon: Up to which key, inclusive, they are all that there are; None for all that were asked for.
        reads: How many rows were read, and look-ups made, to find them.
    """

    rows: dict[bytes, bytes]
    horizon: bytes | None
    reads: int


class HistoryReader:
    """Reads what the tables held at one sequence number, or what changed since.

    Args:
        transaction: What is read in; overlays are read without copies, where it has views.
        sequence: The state's sequence number.
        last: The sequence number up to which history has rows: the tip's.
    """

    def __init__(self, transaction: StoreTransaction, sequence: int, last: int) -> None:
        self._transaction = transaction
        self._store, self._lmdb, self._views = transaction.store, transaction.lmdb, transaction.views
        self._prefixes = [number.to_bytes(SEQUENCE_BYTES) for number in range(sequence + 1, last + 1)]

    @property
    def revisions(self) -> int:
        """How many revisions stand between, each of which a look-up may have to visit."""
        return len(self._prefixes)

    def value_row(self, key: bytes, prefixes: Sequence[bytes] | None = None) -> bytes | None:
        """Return the first row of a key; None when it has not changed since.

        Args:
            key: The key.
            prefixes: Of the revisions that may have changed it; None for any.
        """
        get, table = self._lmdb.get, self._store.value_history
        for prefix in self._prefixes if prefixes is None else prefixes:
            row = get(prefix + key, db=table)
            if row is not None:
                return row
        return None

    def node(
        self,
        stored: StoredTrie,
        path: bytes,
        prefixes: Sequence[bytes] | None = None,
        slots: tuple[int, int] = ALL_SLOTS,
    ) -> Node:
        """Return the branch that stood at ``path``.

        Args:
            stored: The trie of the tables.
            path: Of a branch that there was.
            prefixes: Of the revisions that may have changed it, as its parent knows; None for any.
            slots: The children up to the first token, and from the second one on, are wanted.  The others are
                not looked for, which saves a lookup for each revision since where they have never changed;
                its record may lack them.
        """
        # The first row says all tokens and the value that the branch had, and the ids of the children which
        # that revision changed.  Ids of the other children stand in later rows, or in the tables.
        rows = self._branch_rows(path, self._prefixes if prefixes is None else prefixes)
        prefix, row = next(rows, (b"", b""))
        if not row:
            # It has only moved: something came between it and what was above it.
            record = stored.record(path)
            if record is None:
                raise stored.corrupt(f"neither history nor the tables have the branch at path {path.hex()}")
            return Node(path, record)
        try:
            first = parse_branch_delta(row)
            deltas = ChildDeltas(first.ids, first.locations, {token: [prefix] for token in first.ids}, [])
            low, high = slots
            wanted = bytes(token for token in first.tokens if token <= low or token >= high)
            missing = set(wanted) - first.ids.keys()
            # Of each child the earliest row counts, so the rows are read in order until no child is missing.
            while missing:
                prefix, row = next(rows, (b"", b""))
                if not row:
                    # Children of which no row speaks have not changed: the tables have them.
                    return self._assemble(stored, path, wanted, first.digest, deltas)
                self._add(deltas, missing, prefix, row)
        except ValueError as error:
            difference = f"the history of the branch at path {path.hex()} is unreadable: {error}"
            raise self._transaction.corrupt(difference) from error
        # Later rows were not read, so a child may have changed in any revision after this one.
        later = self._prefixes[bisect_right(self._prefixes, prefix) :]
        return self._assemble(stored, path, wanted, first.digest, deltas._replace(later=later))

    @staticmethod
    def _add(deltas: ChildDeltas, missing: set[int], prefix: bytes, row: bytes) -> None:
        """Add what a later row says of children that no earlier one speaks of.

        Args:
            deltas: What the rows until now say.
            missing: The tokens of the branch's other children.
            prefix: Of the later row's revision.
            row: The later row.
        """
        at, end = changed_children(row)
        tokens = row[at:end:CHILD_BYTES]
        for token in tokens:
            if token in deltas.changes:
                deltas.changes[token].append(prefix)
            else:
                deltas.changes[token] = [prefix]
        new = missing.intersection(tokens)
        if not new:
            return
        locations = parse_locations(row, end)
        for token in new:
            child = at + CHILD_BYTES * tokens.index(token)
            deltas.ids[token] = row[child + 1 : child + CHILD_BYTES]
            if token in locations:
                deltas.locations[token] = locations[token]
        missing -= new

    def _branch_rows(self, path: bytes, prefixes: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a branch, each with its revision's prefix, the first revision's first."""
        cursor = self._lmdb.cursor(db=self._store.branch_history)
        seek = cursor.set_key
        for prefix in prefixes:
            if seek(prefix + path):
                yield prefix, cursor.value()

    @staticmethod
    def _assemble(
        stored: StoredTrie, path: bytes, tokens: bytes, digest: bytes | None, deltas: ChildDeltas
    ) -> Node:
        """Return a branch with those children: as they were, or as the tables have them if none changed.

        What a changed child weighed is of no use: history says where it was.
        """
        children, weights = deltas.ids, dict.fromkeys(deltas.ids, HEAVY)
        if not all(map(children.__contains__, tokens)):
            row = stored.record(path)
            if row is not None:
                record = stored.parse(Node(path, row))
                children = dict(record.pairs()) | children
                weights = dict(zip(record.tokens, record.weights, strict=False)) | weights
        try:
            rows = [TOKENS[token] + children[token] for token in tokens]
        except KeyError as error:
            raise stored.corrupt(f"history lacks a child of the branch at path {path.hex()}") from error
        all_weights = [weights[token] for token in tokens] + [HEAVY] * (digest is not None)
        return Node(path, encode_record(b"".join(rows), digest, bytes(all_weights)), deltas)

    def _has_large_values(self) -> bool:
        """Return whether any row of the history of values takes pages of its own."""
        return bool(self._lmdb.stat(self._store.value_history)["overflow_pages"])

    def overlay(
        self, low: bytes, high: bytes | None, max_rows: int, max_bytes: int, max_reads: int | None = None
    ) -> Overlay:
        """Return the first rows of the keys in [low, high] that changed since.

        Args:
            low: The smallest key.
            high: The largest; None for no bound.
            max_rows: About how many may come, at least 1; where there are more, they end earlier.
            max_bytes: The same for their bytes.
            max_reads: About how many rows may be read in all revisions together, which may be many times
                ``max_rows``; each revision may spend its part of what is left, and a handful in any case.
                None for as many as it takes.
        """
        found: dict[bytes, bytes] = {}
        size = reads = 0
        large = self._views is not None or self._has_large_values()
        is_long = len(low) > MAX_ROW_KEY_BYTES - SEQUENCE_BYTES
        cursor = (self._views or self._lmdb).cursor(db=self._store.value_history)
        # The first row of a key counts, so it comes last.
        for left, prefix in zip(range(len(self._prefixes), 0, -1), reversed(self._prefixes), strict=True):
            most = 2 * max_rows
            if max_reads is not None:
                most = min(most, max((max_reads - reads) // left, _LEAST_REVISION_ROWS))
            reads += 1
            # Where the key is not too long for any row, this is all that ``seek_row`` does.
            if not (seek_row(cursor, prefix + low) if is_long else cursor.set_range(prefix + low)):
                continue
            end_row = _row_after(prefix, high)
            if large:
                last, read_rows, read_bytes = _read_large(cursor, end_row, found, most, max_bytes)
                size += read_bytes
            else:
                last, read_rows = _read(cursor, end_row, found, most)
            reads += read_rows
            # Where this revision was not read to its end, or too much was found, the window is cut: up to the
            # horizon the result is complete for the revisions read so far, and the earlier ones, which come
            # next, are read no further than that.  Revisions often change the same keys; then they all end
            # where the first one did, and nothing more is to be cut.
            if last in (None, high) and len(found) <= 2 * max_rows and size <= 2 * max_bytes:
                continue
            high = _horizon(found, high if last is None else last, max_rows, max_bytes)
            if high is not None:
                found = {key: row for key, row in found.items() if key <= high}
            size = sum(map(len, found.values()))
        return Overlay(found, high, reads)


def _read(
    cursor: Cursor, end_row: bytes, found: dict[bytes, bytes], max_rows: int
) -> tuple[bytes | None, int]:
    """Put the rows from the cursor on and before the row key ``end_row`` into ``found``, by key.

    Taken one by one, and each pair forgotten at once, they cost half of what a list of them costs.

    Returns:
        The last key, where ``max_rows`` ended it, and None when these are all; and how many were read.
    """
    row_key, count = b"", 0
    for count, (row_key, row) in enumerate(islice(cursor, max_rows), 1):
        if row_key >= end_row:
            return None, count
        found[row_key[SEQUENCE_BYTES:]] = row
    # At the table's end the cursor stands nowhere.
    return row_key[SEQUENCE_BYTES:] if cursor.key() else None, count


def _read_large(
    cursor: Cursor, end_row: bytes, found: dict[bytes, bytes], max_rows: int, max_bytes: int
) -> tuple[bytes | None, int, int]:
    """Do the same, up to ``max_bytes`` and one row; return also how many bytes were read."""
    size, row_key, count = 0, b"", 0
    for count, (found_key, row) in enumerate(islice(cursor, max_rows), 1):
        row_key = bytes(found_key)
        if row_key >= end_row:
            return None, count, size
        found[row_key[SEQUENCE_BYTES:]] = row
        size += len(row)
        if size > max_bytes:
            return row_key[SEQUENCE_BYTES:], count, size
    return row_key[SEQUENCE_BYTES:] if cursor.key() else None, count, size


def _row_after(prefix: bytes, high: bytes | None) -> bytes:
    """Return the first possible row key after the key ``high`` of a revision, or after all of its keys."""
    if high is None:
        return (int.from_bytes(prefix) + 1).to_bytes(SEQUENCE_BYTES)
    return prefix + high + b"\0"


def _horizon(found: Mapping[bytes, bytes], high: bytes | None, max_rows: int, max_bytes: int) -> bytes | None:
    """Return the key, at most ``high``, up to which no more rows and bytes lie than allowed, but one row."""
    keys = sorted(found)
    if high is not None:
        keys = keys[: bisect_right(keys, high)]
    size = 0
    for index, key in enumerate(keys):
        size += len(found[key])
        if index and (index == max_rows or size > max_bytes):
            return keys[index - 1]
    return high
