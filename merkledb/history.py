"""History: what each revision changed, as it was before; enough to read and prove any retained root.

    value_history     sequence ‖ key  →  0x00 where the key was absent, else 0x01 ‖ its value
    branch_history    sequence ‖ path →  the branch before this revision, as far as this revision changed it:

        count of children ‖ tokens        all that the branch had, one a byte
        value part                        as in a record
        count ‖ (token ‖ id) for each     of the children that changed, as in a record
        for each of these that is no branch right at its slot:
            token
            is leaf (1 bit) ‖ length (15) 2 bytes
            rest of the child's path      behind its slot, one token a byte

Rows are sorted by sequence number first, so a commit appends its history in full pages and pruning takes it
away in one stretch; a table sorted by key would touch as many pages again as the commit itself.  The price is
paid by who reads an old state: a lookup for each revision between, at most as many as are retained.

How a state is read: of a key, or of one child of a branch, *the first row behind the state's own sequence
number counts*; where there is none, what the tables hold counts.  A child that no row speaks of is as the
tables have it, with all that lies below it, so the way down leaves history there.  A branch that was taken
away has a row that speaks of all its children.  So nothing is searched for in the past: each child that is
not where it was is named with its place.

A first row counts for the unfinished revision of a sync too: it may write a place many times, and what stood
there at the head is kept.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.record import (
    CHILD_BYTES,
    COUNTS,
    TOKENS,
    encode_record,
    parse_value_part,
    split_record,
    value_part,
)
from merkledb.revisions import SEQUENCE_BYTES, Place
from merkledb.scheme import NO_VALUE
from merkledb.store import MAX_ROW_KEY_BYTES, Cursor, Store, Table, Transaction, put_rows, seek_row
from merkledb.trie import Node, OpenTrie, PastChildren, StoredTrie

# What stands in place of the value of a key that was absent.
ABSENT: Final = b"\x00"
_PRESENT: Final = b"\x01"
_LEAF: Final = 1 << 15
_LENGTH_BYTES: Final = 2
# A branch near the top is settled by one row, so few are looked up at first, and then many at a time.
_FIRST_LOOKUPS: Final = 2
_LOOKUPS: Final = 32
# How many rows of a revision are read at a time, where no value is large.
_FIRST_CHUNK_ROWS: Final = 4
# Pruning takes so many rows away at each commit, and twice as many as the commit adds if that is more.
_PRUNED_ROWS: Final = 4096


class PastBranch(NamedTuple):
    """A row of the history of branches.

    Attributes:
        tokens: Of all children that the branch had.
        digest: Of its own value, or None.
        ids: Of the children that changed, by token.
        rests: Where those are that are no branch right at their slot, by token: the path behind the slot.
    """

    tokens: bytes
    digest: bytes | None
    ids: dict[int, bytes]
    rests: dict[int, Place]

    def encode(self) -> bytes:
        """Return the row."""
        rows = [COUNTS[len(self.tokens)], self.tokens, value_part(self.digest), COUNTS[len(self.ids)]]
        rows += [bytes([token]) + self.ids[token] for token in sorted(self.ids)]
        rows += [_encode_rest(bytes([token]), self.rests[token]) for token in sorted(self.rests)]
        return b"".join(rows)


def _encode_rest(token: bytes, rest: Place) -> bytes:
    return token + (len(rest.path) | _LEAF * rest.is_leaf).to_bytes(_LENGTH_BYTES) + rest.path


def parse_past_branch(row: bytes) -> PastBranch:
    """Return the parts of a row.

    Raises:
        ValueError: It is no such row.
    """
    count, at = _parse_count(row, 0)
    tokens, at = row[at : at + count], at + count
    value_end = at + (1 if row[at : at + 1] == NO_VALUE else 2 + int.from_bytes(row[at + 1 : at + 2]))
    digest = parse_value_part(row[at:value_end])
    changed, at = _parse_count(row, value_end)
    end = at + CHILD_BYTES * changed
    if end > len(row):
        raise ValueError("a row ends inside its children")
    ids = {row[child]: row[child + 1 : child + CHILD_BYTES] for child in range(at, end, CHILD_BYTES)}
    return PastBranch(tokens, digest, ids, _parse_rests(row, end) if end < len(row) else {})


def _parse_count(row: bytes, at: int) -> tuple[int, int]:
    """Return the uvarint of at most two bytes at ``at``, and where it ends."""
    if at >= len(row):
        raise ValueError("a row ends before a count")
    if row[at] < 128:
        return row[at], at + 1
    return row[at] - 128 + 128 * int.from_bytes(row[at + 1 : at + 2]), at + 2


def _parse_rests(row: bytes, at: int) -> dict[int, Place]:
    rests: dict[int, Place] = {}
    while at < len(row):
        rest_at = at + 1 + _LENGTH_BYTES
        length = int.from_bytes(row[at + 1 : rest_at])
        end = rest_at + (length & _LEAF - 1)
        if end > len(row):
            raise ValueError("a row ends inside a path")
        rests[row[at]] = Place(row[rest_at:end], length >= _LEAF)
        at = end
    return rests


def past_branch_row(
    trie: OpenTrie, path: bytes, record: bytes, new_record: bytes | None, opened: Mapping[bytes, bytes]
) -> bytes:
    """Return the row of a branch that changes, or goes.

    Args:
        trie: As it is before the change.
        path: The branch's.
        record: What the branch is before the change.
        new_record: What it is afterwards; None when it goes.
        opened: Branches that are there before the change, by path: a look there is cheaper than one into the
            trie.
    """
    tokens, children, part = split_record(record)
    new_tokens, new_children, _ = (b"", b"", b"") if new_record is None else split_record(new_record)
    changed, rests, is_same_shape = [], [], tokens == new_tokens
    kept = set() if is_same_shape else {new_children[at : at + CHILD_BYTES] for at in _starts(new_children)}
    for at in _starts(children):
        child = children[at : at + CHILD_BYTES]
        if child == new_children[at : at + CHILD_BYTES] if is_same_shape else child in kept:
            continue
        changed.append(child)
        slot = path + child[:1]
        if slot not in opened:
            rests.append(_rest_of(trie, slot))
    return b"".join([COUNTS[len(tokens)], tokens, part, COUNTS[len(changed)], *changed, *rests])


def _starts(children: bytes) -> range:
    """Return where each child of a record begins."""
    return range(0, len(children), CHILD_BYTES)


def _rest_of(trie: OpenTrie, slot: bytes) -> bytes:
    """Return what a row says of where the child in a slot is; nothing of a branch right there."""
    node = trie.node_under(slot)
    if node is None:
        raise trie.corrupt(f"nothing lies under the slot {slot.hex()}")
    rest = node.path[len(slot) :]
    if not rest and node.record is not None:
        return b""
    return _encode_rest(slot[-1:], Place(rest, node.record is None))


class HistoryWriter:
    """Writes the history of one revision, within the transaction that makes it.

    Args:
        store: Whose history it is.
        transaction: The write transaction.
        sequence: The revision's sequence number.
        unfinished: Whether several transactions make this revision, so that rows may be there already.

    Attributes:
        rows: How many rows were written.
    """

    def __init__(self, store: Store, transaction: Transaction, sequence: int, *, unfinished: bool) -> None:
        self._store = store
        self._transaction = transaction
        self._prefix = sequence.to_bytes(SEQUENCE_BYTES)
        self._unfinished = unfinished
        self.rows = 0

    def put_values(self, keys: Sequence[bytes], values: Iterable[bytes | None]) -> None:
        """Keep the values that ``keys``, ascending, had before; None for none."""
        rows = [ABSENT if value is None else _PRESENT + value for value in values]
        self._put(self._store.value_history, keys, rows)

    def put_branches(self, paths: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Keep the branches that stood at ``paths``, ascending, as ``past_branch_row`` made them."""
        if self._unfinished:
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
            put_rows(self._transaction, table, row_keys, rows)
        else:
            cursor = self._transaction.cursor(db=table)
            cursor.putmulti(zip(row_keys, rows, strict=True), overwrite=False)

    def _merged(self, path: bytes, row: bytes) -> bytes:
        """Return the row for a branch that may have one already, which then says what came first."""
        held = self._transaction.get(self._prefix + path, db=self._store.branch_history)
        if held is None:
            return row
        try:
            first, second = parse_past_branch(held), parse_past_branch(row)
        except ValueError as error:
            raise CorruptDatabase(
                str(self._store.path), f"a row of history is unreadable: {error}"
            ) from error
        added = {token for token in second.ids if token in first.tokens and token not in first.ids}
        if not added:
            return held
        ids = first.ids | {token: second.ids[token] for token in added}
        rests = first.rests | {token: rest for token, rest in second.rests.items() if token in added}
        return first._replace(ids=ids, rests=rests).encode()


def prune_history(store: Store, transaction: Transaction, oldest: int, written_rows: int) -> None:
    """Take away rows that no retained revision needs: those up to the sequence number ``oldest``.

    Bounded: what is left over is taken away by later commits.
    """
    last = oldest.to_bytes(SEQUENCE_BYTES)
    budget = max(_PRUNED_ROWS, 2 * written_rows)
    for table in (store.value_history, store.branch_history):
        cursor = transaction.cursor(db=table)
        found = cursor.first()
        while found and budget and cursor.key()[:SEQUENCE_BYTES] <= last:
            cursor.delete()
            found = bool(cursor.key())
            budget -= 1


def value_rows(
    store: Store, transaction: Transaction, sequence: int, low: bytes, max_rows: int, max_bytes: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """Return what a revision overwrote, from a key on.

    Args:
        store: Whose history it is.
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
    cursor = transaction.cursor(db=store.value_history)
    for row_key, row in cursor if seek_row(cursor, prefix + low) else ():
        key = row_key[SEQUENCE_BYTES:]
        if not row_key.startswith(prefix):
            break
        if len(rows) == max_rows or size > max_bytes:
            return rows, key
        rows[key] = value_of_row(row)
        size += len(row)
    return rows, None


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


def value_of_row(row: bytes) -> bytes | None:
    """Return the value that a row of the history of values says; None where the key was absent."""
    return None if row == ABSENT else row[1:]
