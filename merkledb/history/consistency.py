"""The check that history says of each retained revision what that revision held, wholly.

All rows are read once, those of all revisions merged by path, so everything that history ever said of a
branch or a key comes together and in the trie's order.  From the tables, which the caller has checked, each
is followed back, row by row:

    a branch   is put together as it was before each revision that has a row of it, and hashed
    a bucket   is folded from its keys' values as they were
    a value    that a revision changed has to lie where that revision changed the trie

What a node has to be, the row of the branch above it says; what the topmost has to be, the root.  So what is
found to be right is committed to by a root, whichever rows were damaged together.  Only that a key was absent
before it came is shown by nothing but its own row; where such a row is missing, the revision has more pairs
than it says, which ``merkledb.check`` counts.

Cost: some 30 µs a row, with the pure kernel 50, whatever the size of the store.  Memory: a cursor a revision,
and what the rows of the branches above one key say; 5 MB at 256 revisions of 1,000 changes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush, merge
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias, TypeVar

from merkledb.errors import CorruptDatabase
from merkledb.formats.branch_delta import BranchDelta, NodeLocation, parse_branch_delta, shared_bytes
from merkledb.formats.branch_record import TOKENS, branch_id, encode_record, parse_record
from merkledb.formats.scheme import MAX_PATH_TOKENS
from merkledb.history.log import value_of_row
from merkledb.history.revisions import SEQUENCE_BYTES, Tip, read_revision
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import Items
from merkledb.storage.store import Cursor, StoreTransaction, Table, row_key

# What each row of a key says, with the sequence number of its revision, ascending: the digest of the value;
# None where the key was absent.
_ValueRows: TypeAlias = list[tuple[int, bytes | None]]
Content = TypeVar("Content")


class _Bucket(NamedTuple):
    """A bucket as it has to be before a revision."""

    sequence: int
    keys: tuple[bytes, ...]
    node_id: bytes


class _KeyItems(NamedTuple):
    """What a key was before each revision that has a row of it, and at the tip.

    Attributes:
        path: The key's.
        sequences: Of the revisions, ascending, and after them all the tip's.
        leaves: The id of its leaf and the digest of its value, as many; None where it was absent.
    """

    path: bytes
    sequences: list[int]
    leaves: list[tuple[bytes, bytes] | None]

    def before(self, sequence: int) -> tuple[bytes, bytes] | None:
        """Return what it was before a revision: the first row from there on counts."""
        return self.leaves[bisect_left(self.sequences, sequence)]


class _Frame:
    """A branch above what is looked at, as it was before each revision that may have changed what lies below.

    The outermost frame is the place of the topmost node, which lies under no token.

    Args:
        slot_tokens: How many tokens of a path name a slot of it: one more than its own path has.

    Attributes:
        path: The branch's.
        tokens: By sequence number, the children that it had.
        changed: By sequence number, where those of them were that the revision changed, by slot.
        own: By sequence number, the digest of its own value; None for none.
        buckets: What is to be folded when all keys below it are known.
        values: What history says of the keys of these buckets, and of its own; the tables come last.
    """

    __slots__ = ("buckets", "changed", "own", "path", "slot_tokens", "tokens", "values")

    def __init__(self, path: bytes, slot_tokens: int) -> None:
        self.path = path
        self.slot_tokens = slot_tokens
        self.tokens: dict[int, bytes] = {}
        self.changed: dict[int, dict[bytes, NodeLocation]] = {}
        self.own: dict[int, bytes | None] = {}
        self.buckets: list[_Bucket] = []
        self.values: dict[bytes, _ValueRows] = {}


def check_history(transaction: StoreTransaction, tip: Tip) -> None:
    """Compare what history says of each retained revision with that revision's root.

    Args:
        transaction: What is checked, in one snapshot.  Its tables are what the tip's root says, and each row
            of history can be read.
        tip: The tip, which has a head.

    Raises:
        CorruptDatabase: It names the first difference, and a revision that it damages.
    """
    _HistoryCheck(transaction, tip).run()


class _HistoryCheck:
    """One check, in one transaction.

    In what follows, "before s" is the state that the revision with sequence number s changed.
    """

    def __init__(self, transaction: StoreTransaction, tip: Tip) -> None:
        self._transaction = transaction
        self._store, self._lmdb, self._scheme = transaction.store, transaction.lmdb, transaction.scheme
        self._codec = self._scheme.codec
        # What a sync that was given up left after the newest revision speaks of the head.
        self._sequences = range(tip.oldest + 1, tip.newest + 2)
        self._frames = [_Frame(b"", 0)]
        # Branches that have to be, by path: by sequence number, their ids; and a heap of these paths.
        self._expected: dict[bytes, dict[int, bytes]] = {}
        self._expected_paths: list[bytes] = []

    def run(self) -> None:
        """Go through all rows in the order of their paths."""
        self._expect_tops()
        branches = _by_place(self._rows(self._store.branch_history, lambda cursor: cursor.value()))
        values = _by_place(self._rows(self._store.value_history, self._digest_at_cursor))
        branch, value = next(branches, None), next(values, None)
        while branch or value or self._expected_paths:
            value_path = None if value is None else self._codec.path(value[0])
            heads = [branch[0] if branch else None, value_path, *self._expected_paths[:1]]
            path = min(head for head in heads if head is not None)
            self._leave(path)
            if branch is not None and branch[0] == path:
                self._check_branch(path, branch[1])
                branch = next(branches, None)
            elif self._expected_paths[:1] == [path]:
                self._check_branch(path, [])
            if value is not None and value_path == path:
                self._check_value(path, *value)
                value = next(values, None)
        self._leave(None)

    # The rows.

    def _rows(
        self, table: Table, content: Callable[[Cursor], Content]
    ) -> list[Iterator[tuple[bytes, int, Content]]]:
        return [self._rows_of(sequence, table, content) for sequence in self._sequences]

    def _rows_of(
        self, sequence: int, table: Table, content: Callable[[Cursor], Content]
    ) -> Iterator[tuple[bytes, int, Content]]:
        """Yield the path or key of each row of a revision, ascending, its number, and its content."""
        prefix = sequence.to_bytes(SEQUENCE_BYTES)
        cursor = self._lmdb.cursor(db=table)
        found = cursor.set_range(prefix)
        while found and (row := cursor.key()).startswith(prefix):
            yield row[SEQUENCE_BYTES:], sequence, content(cursor)
            found = cursor.next()

    def _digest_at_cursor(self, cursor: Cursor) -> bytes | None:
        # Of each revision one row waits to be merged, so what waits must not be a value, which may be large.
        value = value_of_row(cursor.value())
        return None if value is None else self._scheme.digest(value)

    def _stored_digest(self, key: bytes) -> bytes | None:
        value = self._lmdb.get(row_key(key), db=self._store.values)
        return None if value is None else self._scheme.digest(value)

    # Branches.

    def _expect_tops(self) -> None:
        """Expect the topmost node of each state, whose id is the root."""
        outermost = self._frames[0]
        for sequence in self._sequences:
            revision, top = read_revision(self._transaction, sequence - 1)
            outermost.tokens[sequence] = b""
            outermost.changed[sequence] = {} if top is None else {b"": top}
            if top is not None:
                self._expect(outermost, b"", sequence, top, revision.root)

    def _expect(
        self, frame: _Frame, slot: bytes, sequence: int, location: NodeLocation, node_id: bytes
    ) -> None:
        """Expect a node below a slot of a frame, as it was before ``sequence``."""
        if not location.keys:
            path = slot + location.path
            if len(path) > MAX_PATH_TOKENS or max(location.path, default=0) >= self._scheme.branch_factor:
                raise self._corrupt(
                    sequence, f"history names a branch at path [{path.hex(' ')}], where none can be"
                )
            if path not in self._expected:
                heappush(self._expected_paths, path)
                self._expected[path] = {}
            self._expected[path][sequence] = node_id
            return
        before = self._codec.pack(slot)[: shared_bytes(slot, self._codec.token_bits)]
        keys = tuple(before + rest for rest in location.keys)
        paths = self._codec.paths(list(keys))
        if len(max(keys, key=len)) > self._codec.max_key_bytes or not all(
            path.startswith(slot) for path in paths
        ):
            raise self._corrupt(sequence, f"history puts other keys under the slot [{slot.hex(' ')}]")
        frame.buckets.append(_Bucket(sequence, keys, node_id))
        frame.values.update({key: [] for key in keys})

    def _check_branch(self, path: bytes, rows: list[tuple[int, bytes]]) -> None:
        """Put a branch together as it was, from the newest state back, and go down where it changed."""
        expected = self._expected.pop(path, {})
        if self._expected_paths[:1] == [path]:
            heappop(self._expected_paths)
        deltas = {sequence: parse_branch_delta(row) for sequence, row in rows}
        frame = _Frame(path, len(path) + 1)
        children, digest = self._stored_branch(path)
        node_id: bytes | None = None
        for sequence in sorted(deltas.keys() | expected.keys(), reverse=True):
            delta = deltas.get(sequence)
            if delta is not None:
                # Children of which the row does not speak were the same after that revision as before it.
                children = {token: delta.ids.get(token) or children.get(token, b"") for token in delta.tokens}
                digest, node_id = delta.digest, None
            if sequence not in expected:
                # What came and changed within one sync has a row, and was never there.
                continue
            if node_id is None:
                node_id = self._branch_id(path, children, digest)
            if node_id != expected[sequence]:
                raise self._wrong_node(sequence, path, node_id, expected[sequence])
            self._enter(frame, sequence, bytes(children), digest, delta)
        if expected:
            self._frames.append(frame)

    def _enter(
        self, frame: _Frame, sequence: int, tokens: bytes, digest: bytes | None, delta: BranchDelta | None
    ) -> None:
        """Take on what a branch was before ``sequence``, and expect what hung under it and changed."""
        frame.tokens[sequence], frame.own[sequence] = tokens, digest
        changed = frame.changed[sequence] = {}
        if digest is not None:
            frame.values[self._codec.pack(frame.path)] = []
        if delta is None:
            return
        for token, node_id in delta.ids.items():
            slot = frame.path + TOKENS[token]
            changed[slot] = delta.locations.get(token, NodeLocation())
            self._expect(frame, slot, sequence, changed[slot], node_id)

    def _stored_branch(self, path: bytes) -> tuple[dict[int, bytes], bytes | None]:
        """Return the children of a branch of the tables, by token, and the digest of its own value."""
        row = self._lmdb.get(row_key(path), db=self._store.branches)
        if row is None:
            return {}, None
        record = parse_record(row)
        return dict(record.pairs()), record.digest

    def _branch_id(self, path: bytes, children: Mapping[int, bytes], digest: bytes | None) -> bytes:
        """Return the id of a branch; nothing where it has no children, or one whose id is not known."""
        if not children or b"" in children.values():
            return b""
        joined = b"".join([TOKENS[token] + node_id for token, node_id in children.items()])
        return branch_id(self._scheme, path, encode_record(joined, digest, b""))

    # Values.

    def _check_value(self, path: bytes, key: bytes, rows: _ValueRows) -> None:
        """Follow a value back, and see whether what changed it changed the trie there."""
        after = self._stored_digest(key)
        for frame in self._frames:
            if key in frame.values:
                frame.values[key] = [*rows, (self._sequences.stop, after)]
        for sequence, digest in reversed(rows):
            if digest != after and not self._can_be(path, key, sequence, digest):
                what = "absent" if digest is None else "there, or with another value"
                raise self._corrupt(sequence, f"history says that key 0x{key.hex()} was {what}")
            after = digest

    def _can_be(self, path: bytes, key: bytes, sequence: int, digest: bytes | None) -> bool:
        """Return whether the trie allows that a key was other before ``sequence`` than after it.

        Of a bucket only that is told here whether it held the key; what it was is told when it is folded.
        """
        # The innermost of the branches above the key that changed: the outermost place is always among them.
        frame = next(frame for frame in reversed(self._frames) if sequence in frame.changed)
        if frame.slot_tokens > len(path):
            return digest == frame.own[sequence]
        slot = path[: frame.slot_tokens]
        location = frame.changed[sequence].get(slot)
        if location is not None and location.keys:
            rest = key[shared_bytes(slot, self._codec.token_bits) :]
            return (rest in location.keys) == (digest is not None)
        is_unchanged = location is None and slot[-1:] != b"" and slot[-1] in frame.tokens[sequence]
        # Nothing hung under the slot, or a branch further down, which the key does not lie below.
        return digest is None and not is_unchanged

    def _leave(self, path: bytes | None) -> None:
        """Leave the branches that ``path`` does not lie below, None for all: what they wait for is known."""
        while self._frames and (path is None or not path.startswith(self._frames[-1].path)):
            frame = self._frames.pop()
            items = {key: self._key_items(key, rows) for key, rows in frame.values.items()}
            self._check_own(frame, items)
            for bucket in frame.buckets:
                self._check_bucket(bucket, [items[key] for key in bucket.keys])

    def _key_items(self, key: bytes, rows: _ValueRows) -> _KeyItems:
        rows = rows or [(self._sequences.stop, self._stored_digest(key))]
        digests = [digest for _, digest in rows if digest is not None]
        ids = iter(self._scheme.leaf_ids([key] * len(digests), digests))
        leaves = [None if digest is None else (next(ids), digest) for _, digest in rows]
        return _KeyItems(self._codec.path(key), [sequence for sequence, _ in rows], leaves)

    def _check_own(self, frame: _Frame, items: Mapping[bytes, _KeyItems]) -> None:
        for sequence, digest in frame.own.items():
            if digest is not None:
                key = self._codec.pack(frame.path)
                leaf = items[key].before(sequence)
                if leaf is None or leaf[1] != digest:
                    what = f"history says another value of key 0x{key.hex()} than its branch"
                    raise self._corrupt(sequence, what)

    def _check_bucket(self, bucket: _Bucket, items: list[_KeyItems]) -> None:
        """Fold the pairs of a bucket, as they were."""
        leaves = []
        for key, item in zip(bucket.keys, items, strict=True):
            leaf = item.before(bucket.sequence)
            if leaf is None:
                raise self._corrupt(bucket.sequence, f"history lacks the value of key 0x{key.hex()}")
            leaves.append(leaf)
        ids, digests = map(list, zip(*leaves, strict=True))
        node_id = ids[0]
        if len(ids) > 1:
            # What they weigh is of no use: nothing is going to be stored.
            paths = [item.path for item in items]
            stream = Items(paths, ids, digests, bytearray(b"\1" * len(ids)), {})
            node_id, _ = kernel().fold_all(self._scheme, stream, [], [])
        if node_id != bucket.node_id:
            raise self._wrong_node(bucket.sequence, items[0].path, node_id, bucket.node_id)

    def _wrong_node(self, sequence: int, path: bytes, found: bytes, expected: bytes) -> CorruptDatabase:
        return self._corrupt(sequence, f"node [{path.hex(' ')}] is {found.hex()}, not {expected.hex()}")

    def _corrupt(self, sequence: int, difference: str) -> CorruptDatabase:
        """Return the error that says what is wrong with the state before ``sequence``."""
        revision, _ = read_revision(self._transaction, sequence - 1)
        return self._transaction.corrupt(
            f"at revision {revision.number}, {revision.root.hex()}, {difference}"
        )


def _by_place(
    rows: list[Iterator[tuple[bytes, int, Content]]],
) -> Iterator[tuple[bytes, list[tuple[int, Content]]]]:
    """Yield paths or keys, ascending, each with all of its rows, the earliest revision's first."""
    for place, group in groupby(merge(*rows, key=itemgetter(0, 1)), key=itemgetter(0)):
        yield place, [(sequence, content) for _, sequence, content in group]
