"""Reading history: what the tables held at a retained revision, or what changed since.

Cost: a lookup for each revision since, of a key or a branch; of a stretch of keys, a short scan of each.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from merkledb.errors import CorruptDatabase
from merkledb.past_branch import PastBranch, parse_past_branch
from merkledb.record import TOKENS, encode_record
from merkledb.revisions import SEQUENCE_BYTES, Place
from merkledb.store import MAX_ROW_KEY_BYTES, Cursor, Store, Transaction, seek_row
from merkledb.trie import Node, PastChildren, StoredTrie

# A branch near the top is settled by one row, so few are looked up at first, and then many at a time.
_FIRST_LOOKUPS: Final = 2
_LOOKUPS: Final = 32
# How many rows of a revision are read at a time, where no value is large.
_FIRST_CHUNK_ROWS: Final = 4


class Past:
    """Reads what the tables held at one sequence number, or what changed since.

    Args:
        store: Whose history it is.
        transaction: What is read in.
        sequence: The state's sequence number.
        last: The sequence number up to which history has rows: the tip's.
    """

    def __init__(self, store: Store, transaction: Transaction, sequence: int, last: int) -> None:
        self._store = store
        self._transaction = transaction
        self._prefixes = [number.to_bytes(SEQUENCE_BYTES) for number in range(sequence + 1, last + 1)]

    def value_row(self, key: bytes) -> bytes | None:
        """Return the first row of a key; None when it has not changed since."""
        get, table = self._transaction.get, self._store.value_history
        for prefix in self._prefixes:
            row = get(prefix + key, db=table)
            if row is not None:
                return row
        return None

    def node(self, stored: StoredTrie, path: bytes, prefixes: Sequence[bytes] | None = None) -> Node:
        """Return the branch that stood at ``path``.

        Args:
            stored: The trie of the tables.
            path: Of a branch that there was.
            prefixes: Of the revisions that may have changed it, as its parent knows; None for any.
        """
        first: PastBranch | None = None
        ids: dict[int, bytes] = {}
        rests: dict[int, Place] = {}
        changes: dict[int, list[bytes]] = {}
        prefixes = self._prefixes if prefixes is None else prefixes
        behind: Sequence[bytes] = []
        for prefix, row in self._branch_rows(path, prefixes):
            past = self._parse(path, row)
            if first is None:
                first, ids, rests = past, past.ids, past.rests
            else:
                rests.update((token, past.rests[token]) for token in past.rests.keys() - ids.keys())
                ids = past.ids | ids
            for token in past.ids:
                changes.setdefault(token, []).append(prefix)
            if len(ids) >= len(first.tokens) and all(map(ids.__contains__, first.tokens)):
                behind = self._prefixes[bisect_right(self._prefixes, prefix) :]
                break
        if first is None:
            # It has only moved: something came between it and what was above it.
            return Node(path, stored.record(path))
        return self._assemble(stored, path, first, PastChildren(ids, rests, changes, behind))

    def _branch_rows(self, path: bytes, prefixes: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a branch, each with its revision's prefix, the first revision's first."""
        cursor = self._transaction.cursor(db=self._store.branch_history)
        at, count = 0, _FIRST_LOOKUPS
        while at < len(prefixes):
            wanted = [prefix + path for prefix in prefixes[at : at + count]]
            for row_key, row in cursor.getmulti(wanted):
                yield row_key[:SEQUENCE_BYTES], row
            at, count = at + count, _LOOKUPS

    def _parse(self, path: bytes, row: bytes) -> PastBranch:
        try:
            return parse_past_branch(row)
        except ValueError as error:
            difference = f"the history of the branch at path {path.hex()} is unreadable: {error}"
            raise CorruptDatabase(str(self._store.path), difference) from error

    @staticmethod
    def _assemble(stored: StoredTrie, path: bytes, first: PastBranch, past: PastChildren) -> Node:
        """Return the branch with the children that changed since, and the others as the tables have them."""
        children = past.ids
        if not all(map(children.__contains__, first.tokens)):
            record = stored.record(path)
            held = {} if record is None else dict(stored.parse(Node(path, record)).pairs())
            children = held | children
        try:
            rows = [TOKENS[token] + children[token] for token in first.tokens]
        except KeyError as error:
            raise stored.corrupt(f"history lacks a child of the branch at path {path.hex()}") from error
        return Node(path, encode_record(b"".join(rows), first.digest), past)

    def _has_large_values(self) -> bool:
        """Return whether any row of the history of values takes pages of its own."""
        return bool(self._transaction.stat(self._store.value_history)["overflow_pages"])

    def overlay(
        self, low: bytes, high: bytes | None, max_rows: int, max_bytes: int
    ) -> tuple[dict[bytes, bytes], bytes | None]:
        """Return the first rows of the keys in [low, high] that changed since.

        Args:
            low: The smallest key.
            high: The largest; None for no bound.
            max_rows: About how many may come, at least 1; where there are more, they end earlier.
            max_bytes: The same for their bytes.

        Returns:
            The rows by key, and up to which key, inclusive, they are all that there are; None for all.
        """
        found: dict[bytes, bytes] = {}
        size, chunk = 0, _FIRST_CHUNK_ROWS
        large, is_long = self._has_large_values(), len(low) > MAX_ROW_KEY_BYTES - SEQUENCE_BYTES
        cursor = self._transaction.cursor(db=self._store.value_history)
        # The first row of a key counts, so it comes last.
        for prefix in reversed(self._prefixes):
            # Where the key is not too long for any row, this is all that ``seek_row`` does.
            if not (seek_row(cursor, prefix + low) if is_long else cursor.set_range(prefix + low)):
                continue
            rows, whole = _read(cursor, _behind(prefix, high), 2 * max_rows, max_bytes, 1 if large else chunk)
            found.update({row_key[SEQUENCE_BYTES:]: row for row_key, row in rows})
            # The next revision has about as many.
            chunk = len(rows) + len(rows) // 8 + _FIRST_CHUNK_ROWS
            size += sum([len(row) for _, row in rows]) if large else 0
            if whole and len(found) <= 2 * max_rows and size <= 2 * max_bytes:
                continue
            high = high if whole else rows[-1][0][SEQUENCE_BYTES:]
            high = _horizon(found, high, max_rows, max_bytes)
            if high is not None:
                found = {key: row for key, row in found.items() if key <= high}
            size = sum(map(len, found.values()))
        return found, high


def _read(
    cursor: Cursor, behind: bytes, max_rows: int, max_bytes: int, chunk: int
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Return the rows from the cursor on and before the row key ``behind``, and whether these are all.

    They may end at ``max_rows``, or behind ``max_bytes``, which is looked at once in ``chunk`` rows.
    """
    ahead = iter(cursor)
    rows = list(islice(ahead, chunk))
    size = 0
    while rows[-1][0] < behind:
        if chunk == 1:
            size += len(rows[-1][1])
        if len(rows) >= max_rows or size > max_bytes:
            return rows, False
        more = list(islice(ahead, chunk))
        if not more:
            return rows, True
        rows += more
    del rows[bisect_left(rows, (behind,)) :]
    return rows, True


def _behind(prefix: bytes, high: bytes | None) -> bytes:
    """Return the first possible row key behind the key ``high`` of a revision, or behind all of its keys."""
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
