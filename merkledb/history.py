"""History: what each revision changed, as it was before; enough to read and prove any retained root.

    value_history     sequence ‖ key  →  0x00 where the key was absent, else 0x01 ‖ its value
    branch_history    sequence ‖ path →  the branch before this revision, as far as this revision changed it:

        count of children ‖ tokens        all that the branch had, one a byte
        value part                        as in a record
        for each child that changed:
            token ‖ id                    33 bytes, as in a record
            is leaf (1 bit) ‖ length (15) 2 bytes
            rest of the child's path      behind its slot, one token a byte; mostly none

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

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.record import CHILD_BYTES, COUNTS, encode_record, parse_record, parse_value_part, value_part
from merkledb.revisions import SEQUENCE_BYTES, Place
from merkledb.store import Store, Table, Transaction, put_rows, seek_row
from merkledb.trie import Node, OpenTrie, StoredTrie

_ABSENT: Final = b"\x00"
_PRESENT: Final = b"\x01"
_LEAF: Final = 1 << 15
_AT_SLOT: Final = b"\x00\x00"
_PLACE_BYTES: Final = 2
# Pruning takes so many rows away at each commit, and twice as many as the commit adds if that is more.
_PRUNED_ROWS: Final = 4096


class PastChild(NamedTuple):
    """A child as it was.

    Attributes:
        node_id: Its id.
        rest: Its path behind its slot.
        is_leaf: Whether it was a leaf.
    """

    node_id: bytes
    rest: bytes
    is_leaf: bool

    def encode(self, token: int) -> bytes:
        """Return its part of the row."""
        length = (len(self.rest) | _LEAF * self.is_leaf).to_bytes(_PLACE_BYTES)
        return bytes([token]) + self.node_id + length + self.rest


class PastBranch(NamedTuple):
    """A row of the history of branches.

    Attributes:
        tokens: Of all children that the branch had.
        digest: Of its own value, or None.
        children: Those that changed, by token.
    """

    tokens: bytes
    digest: bytes | None
    children: dict[int, PastChild]

    def encode(self) -> bytes:
        """Return the row."""
        head = COUNTS[len(self.tokens)] + self.tokens + value_part(self.digest)
        return head + b"".join(self.children[token].encode(token) for token in sorted(self.children))


def parse_past_branch(row: bytes) -> PastBranch:
    """Return the parts of a row.

    Raises:
        ValueError: It is no such row.
    """
    if not row:
        raise ValueError("a row is never empty")
    at, count = (1, row[0]) if row[0] < 128 else (2, row[0] - 128 + 128 * int.from_bytes(row[1:2]))
    tokens, at = row[at : at + count], at + count
    value_end = at + (1 if row[at : at + 1] == b"\x00" else 2 + int.from_bytes(row[at + 1 : at + 2]))
    digest, at = parse_value_part(row[at:value_end]), value_end
    children: dict[int, PastChild] = {}
    while at < len(row):
        rest_at = at + CHILD_BYTES + _PLACE_BYTES
        length = int.from_bytes(row[at + CHILD_BYTES : rest_at])
        end = rest_at + (length & _LEAF - 1)
        if end > len(row):
            raise ValueError("a row ends inside a child")
        children[row[at]] = PastChild(row[at + 1 : at + CHILD_BYTES], row[rest_at:end], length >= _LEAF)
        at = end
    return PastBranch(tokens, digest, children)


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
    before = parse_record(record)
    after = _ids(new_record)
    slots = path.__add__
    rows = [COUNTS[len(before.tokens)], before.tokens, value_part(before.digest)]
    children, at = before.children, 0
    for token in before.tokens:
        end = at + CHILD_BYTES
        if after.get(token) != children[at + 1 : end]:
            slot = slots(children[at : at + 1])
            rows.append(children[at:end])
            rows.append(_AT_SLOT if slot in opened else _place_part(trie, slot))
        at = end
    return b"".join(rows)


def _ids(record: bytes | None) -> dict[int, bytes]:
    """Return the ids of a record's children by token."""
    return {} if record is None else dict(parse_record(record).pairs())


def _place_part(trie: OpenTrie, slot: bytes) -> bytes:
    """Return where the child in a slot is, as a row says it."""
    node = trie.node_under(slot)
    if node is None:
        raise trie.corrupt(f"nothing lies under the slot {slot.hex()}")
    rest = node.path[len(slot) :]
    return (len(rest) | _LEAF * (node.record is None)).to_bytes(_PLACE_BYTES) + rest


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
        rows = [_ABSENT if value is None else _PRESENT + value for value in values]
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
        added = {
            token: child
            for token, child in second.children.items()
            if token in first.tokens and token not in first.children
        }
        return first._replace(children=first.children | added).encode() if added else held


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


def take_value_rows(
    store: Store, transaction: Transaction, sequence: int, max_rows: int, max_bytes: int
) -> dict[bytes, bytes | None]:
    """Take the first rows of a revision out of the history of values.

    Args:
        store: Whose history it is.
        transaction: The write transaction.
        sequence: The revision's sequence number.
        max_rows: The most rows.
        max_bytes: About how many bytes at most.

    Returns:
        The value that each key had before; None for none.
    """
    prefix = sequence.to_bytes(SEQUENCE_BYTES)
    taken: dict[bytes, bytes | None] = {}
    size = 0
    cursor = transaction.cursor(db=store.value_history)
    found = cursor.set_range(prefix)
    while found and cursor.key().startswith(prefix) and len(taken) < max_rows and size < max_bytes:
        row = cursor.value()
        taken[cursor.key()[SEQUENCE_BYTES:]] = value_of_row(row)
        size += len(row)
        # The cursor goes on to the row behind; behind the last one it has none.
        cursor.delete()
        found = bool(cursor.key())
    return taken


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

    def node(self, stored: StoredTrie, path: bytes) -> Node:
        """Return the branch that stood at ``path``.

        Args:
            stored: The trie of the tables.
            path: Of a branch that there was.
        """
        get, table = self._transaction.get, self._store.branch_history
        first: PastBranch | None = None
        children: dict[int, PastChild] = {}
        for prefix in self._prefixes:
            row = get(prefix + path, db=table)
            if row is None:
                continue
            past = self._parse(path, row)
            first = first or past
            children = past.children | children
            if len(children) >= len(first.tokens) and all(map(children.__contains__, first.tokens)):
                break
        if first is None:
            # It has only moved: something came between it and what was above it.
            return Node(path, stored.record(path))
        return self._assemble(stored, path, first, children)

    def _parse(self, path: bytes, row: bytes) -> PastBranch:
        try:
            return parse_past_branch(row)
        except ValueError as error:
            difference = f"the history of the branch at path {path.hex()} is unreadable: {error}"
            raise CorruptDatabase(str(self._store.path), difference) from error

    @staticmethod
    def _assemble(
        stored: StoredTrie, path: bytes, first: PastBranch, children: Mapping[int, PastChild]
    ) -> Node:
        """Return the branch with the children that changed since, and the others as the tables have them."""
        record = stored.record(path)
        held = {} if record is None else dict(stored.parse(Node(path, record)).pairs())
        rows, places = [], {}
        for token in first.tokens:
            child = children.get(token)
            if child is not None:
                slot = path + bytes([token])
                places[token] = Place(slot + child.rest, child.is_leaf)
            elif token not in held:
                raise stored.corrupt(f"history lacks a child of the branch at path {path.hex()}")
            rows.append(bytes([token]) + (held[token] if child is None else child.node_id))
        return Node(path, encode_record(b"".join(rows), first.digest), places)

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
        cursor = self._transaction.cursor(db=self._store.value_history)
        size = 0
        for prefix in self._prefixes:
            if not seek_row(cursor, prefix + low):
                break
            behind = _behind(prefix, high)
            for row_key, row in cursor:
                if row_key >= behind:
                    break
                key = row_key[SEQUENCE_BYTES:]
                if key not in found:
                    found[key] = row
                    size += len(row)
                    if (len(found) > 2 * max_rows or size > 2 * max_bytes) and len(found) > 1:
                        high = _horizon(found, max_rows, max_bytes)
                        behind = _behind(prefix, high)
                        found = {kept: found[kept] for kept in found if kept <= high}
                        size = sum(map(len, found.values()))
        return found, high


def _behind(prefix: bytes, high: bytes | None) -> bytes:
    """Return the first possible row key behind the key ``high`` of a revision, or behind all of its keys."""
    if high is None:
        return (int.from_bytes(prefix) + 1).to_bytes(SEQUENCE_BYTES)
    return prefix + high + b"\0"


def _horizon(found: Mapping[bytes, bytes], max_rows: int, max_bytes: int) -> bytes:
    """Return the key up to which no more rows and bytes lie than allowed, but one row at least."""
    keys = sorted(found)
    size = 0
    for index, key in enumerate(keys[:max_rows]):
        size += len(found[key])
        if size > max_bytes and index:
            return keys[index - 1]
    return keys[: max(max_rows, 1)][-1]


def value_of_row(row: bytes) -> bytes | None:
    """Return the value that a row of the history of values says; None where the key was absent."""
    return row[1:] if row[:1] == _PRESENT else None
