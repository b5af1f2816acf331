"""Reading the trie of a store: the nodes on a path, and the boundary of a range.

Leaves are not stored, nor are the branches of buckets (see ``branch_record``): a bucket is read as the pairs
from its slot on, until they weigh what its parent says, and folded where a node of it is wanted.  Any other
branch's row is found by order alone: under a slot, the shallowest branch is the first row at or after the
slot's path, because a prefix sorts first.  Where there is none, the slot holds one heavy leaf: the first key
at or after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.formats.branch_record import (
    HEAVY,
    MAX_WEIGHT,
    TOKENS,
    InvalidRecord,
    Record,
    parse_record,
    weight_of,
    weights_of,
)
from merkledb.formats.proof import Branch
from merkledb.formats.scheme import MAX_PATH_TOKENS
from merkledb.kernel.boundary import ALL_TOKENS, is_path_outside, is_slot_outside, outside_slots
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import ItemRow, Items, items_of
from merkledb.storage.store import REMEMBERED_BYTES, StoreTransaction, key_of_row, row_key
from merkledb.trie.node import Bucket, Found, Node, Pairs


def is_inside(node: Node, start: bytes | None, end: bytes | None) -> bool:
    """Return whether every possible path at or below a node lies in [start, end] (paths)."""
    if is_path_outside(node.path, start, end):
        return False
    return node.record is None or end is None or not end.startswith(node.path)


class Inside(NamedTuple):
    """A part of a range's content: a node wholly inside it, or the value of a branch that is not.

    Attributes:
        path: The node's path.
        node_id: Its id; that of a leaf, for a value.
        digest: The value's digest; None for a node.
        weight: The value's weight; anything for a node.
        node: The node; None for a value.
    """

    path: bytes
    node_id: bytes
    digest: bytes | None
    weight: int
    node: Node | None


class Trie(ABC):
    """A trie to go down in: the one of the tables, one of the past, or one that is only proposed.

    Args:
        transaction: What is read in; it outlives this object.
        root: The id of its topmost node.
    """

    def __init__(self, transaction: StoreTransaction, root: bytes) -> None:
        self.transaction = transaction
        self.root = root
        self.scheme = transaction.scheme

    @abstractmethod
    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""

    @abstractmethod
    def child(self, node: Node, token: int, weight: int) -> Node:
        """Return a child of a branch.

        Args:
            node: The branch.
            token: Of a slot that its record says is taken.
            weight: What that slot weighs, as the record says.
        """

    @abstractmethod
    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""

    def parse(self, node: Node) -> Record:
        """Return the parts of a branch's record.

        Raises:
            CorruptDatabase: The row is not a record.
        """
        try:
            record = parse_record(node.record or b"", self.scheme.branch_factor)
        except ValueError as error:
            raise self.invalid_record(node.path, error) from error
        if record.digest is not None and not self.scheme.codec.is_key(node.path):
            raise self.corrupt(f"the branch at path {node.path.hex()} has a value, and no key has this path")
        return record

    def invalid_record(self, path: bytes, why: ValueError) -> CorruptDatabase:
        """Return the error that says that the row of a branch is no record."""
        return self.corrupt(f"the branch at path {path.hex()} is unreadable: {why}")

    def corrupt(self, difference: str) -> CorruptDatabase:
        """Return the error that says how this store contradicts itself."""
        return self.transaction.corrupt(difference)

    def leaf_digest(self, path: bytes, node_id: bytes | None = None) -> bytes:
        """Return the digest of the value at ``path``, the path of a key that exists.

        Args:
            path: The leaf's.
            node_id: The leaf's id, where the caller knows it.  It commits to the digest, so what was read and
                hashed under an id once need not be again, whichever state it belongs to.
        """
        digest = self.transaction.store.digests.get(node_id)
        if digest is not None:
            return digest
        key = self.scheme.codec.pack(path)
        value = self.value(key)
        if value is None:
            raise self.corrupt(f"key 0x{key.hex()} has no value")
        digest = self.scheme.digest(value)
        if len(value) >= REMEMBERED_BYTES:
            self.transaction.store.digests.put(self.scheme.leaf_id(path, digest), digest)
        return digest

    def boundary_digests(self, nodes: Sequence[Node]) -> list[bytes | None]:
        """Return the digests of those nodes that are leaves, of the paths of bounds, ascending."""
        digests: list[bytes | None] = []
        above: list[Node] = []
        for node in nodes:
            while above and not node.path.startswith(above[-1].path):
                above.pop()
            is_leaf = node.record is None
            digests.append(self.leaf_digest(node.path, self._id_below(above, node)) if is_leaf else None)
            if not is_leaf:
                above.append(node)
        return digests

    def _id_below(self, above: Sequence[Node], node: Node) -> bytes | None:
        """Return the id of a node as the record of its parent says it, or the root; None for a bucket's."""
        if not above:
            return self.root
        record = self.parse(above[-1])
        at = record.tokens.find(node.path[len(above[-1].path)])
        return None if at < 0 else record.child_at(at)

    def boundary_nodes(self, start: bytes | None, end: bytes | None) -> list[Node]:
        """Return the nodes on the paths of both bounds, ascending, each once.

        These are the branches whose paths are prefixes of a bound, and then, where the bound leaves the trie
        inside an edge or ends at a leaf, the node at the end of that edge.
        """
        found: list[Node] = []
        bounds = [start] if start == end else [start, end]
        for bound in bounds:
            if bound is None:
                continue
            if not found:
                top = self.top()
                if top is None:
                    return []
                found.append(top)
            # The paths part at the last node that is above both bounds.
            last = len(found) - 1
            while last > 0 and not bound.startswith(found[last].path):
                last -= 1
            below = self._way_down(found[last], bound)
            # Both paths may leave the trie inside the same edge.
            is_known = below and last + 1 < len(found) and below[0].path == found[last + 1].path
            found += [] if is_known else below
        return found

    def _way_down(self, node: Node, bound: bytes) -> list[Node]:
        """Return the nodes on the path of a bound below a node."""
        found: list[Node] = []
        path, record, weight_at = node.path, node.record, kernel().child_weight
        try:
            while record is not None and bound.startswith(path) and len(bound) > len(path):
                token = bound[len(path)]
                weight = weight_at(record, token)
                if weight is None:
                    break
                node = self.child(node, token, weight)
                path, record = node.path, node.record
                found.append(node)
        except ValueError:
            self.parse(node)
            raise
        return found

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        # What is a leaf inside the range is sent as a pair, and leaves above no other node.
        nodes = [
            node
            for node in self.boundary_nodes(start, end)
            if node.record is not None or is_path_outside(node.path, start, end)
        ]
        digests = self.boundary_digests(nodes)
        paths, records = [node.path for node in nodes], [node.record for node in nodes]
        try:
            branches = kernel().trimmed(paths, records, digests, start, end)
        except InvalidRecord as error:
            raise self.invalid_record(paths[error.number], error) from error
        for branch in branches:
            if branch.children and branch.children[-1][0] >= self.scheme.branch_factor:
                raise self.corrupt(f"the branch at path {branch.path.hex()} has a token that is none")
        return branches

    def outside(self, start: bytes | None, end: bytes | None) -> Items:
        """Return the items of what lies strictly outside [start, end] (paths): the boundary, with weights."""
        rows: list[ItemRow] = []
        leaves: dict[bytes, tuple[bytes, int]] = {}
        boundary_nodes = self.boundary_nodes(start, end)
        stored = [
            node
            for node in boundary_nodes
            if node.bucket is None and (node.record is not None or is_path_outside(node.path, start, end))
        ]
        digests = dict(zip([node.path for node in stored], self.boundary_digests(stored), strict=True))
        for node in boundary_nodes:
            if node.bucket is not None:
                pairs = zip(node.bucket.paths, node.bucket.values, strict=True)
                leaves.update((path, (self.scheme.digest(value), weight_of(value))) for path, value in pairs)
            elif node.record is None:
                digest = digests.get(node.path)
                if digest is not None:
                    leaves[node.path] = digest, HEAVY
            else:
                record = self.parse(node)
                if record.digest is not None:
                    leaves[node.path] = record.digest, record.weights[-1]
                low, high = outside_slots(node.path, start, end)
                for token, node_id, weight in record.slots():
                    if token < low or token > high:
                        rows.append((node.path + TOKENS[token], node_id, None, weight))
        for path, (value_digest, weight) in leaves.items():
            if is_path_outside(path, start, end):
                rows.append((path, self.scheme.leaf_id(path, value_digest), value_digest, weight))
        return items_of(rows)

    def inside(self, start: bytes | None, end: bytes | None) -> list[Inside]:
        """Return the content of [start, end] as the topmost nodes that lie wholly inside it, ascending.

        What they are follows from the content of the range alone, and their ids commit to all of it.

        Args:
            start: The path of the smallest key; None for no bound.
            end: The path of the largest key; None for no bound.
        """
        found: list[Inside] = []
        top = self.top()
        todo = [] if top is None else [(top, self.root)]
        while todo:
            node, node_id = todo.pop()
            if is_inside(node, start, end):
                found.append(Inside(node.path, node_id, None, HEAVY, node))
            elif node.record is not None:
                record = self.parse(node)
                if record.digest is not None and not is_path_outside(node.path, start, end):
                    leaf_id = self.scheme.leaf_id(node.path, record.digest)
                    found.append(Inside(node.path, leaf_id, record.digest, record.weights[-1], None))
                for token, child_id, weight in reversed(record.slots()):
                    if not is_slot_outside(node.path + TOKENS[token], start, end):
                        todo.append((self.child(node, token, weight), child_id))
        return found


def first_path(trie: Trie, low: bytes) -> bytes | None:
    """Return the first path of a key at or after ``low``; None when there is none."""
    top = trie.top()
    todo = [] if top is None else [top]
    while todo:
        node = todo.pop()
        if node.record is None:
            if node.path >= low:
                return node.path
            continue
        record = trie.parse(node)
        is_above = node.path < low
        if not is_above and record.digest is not None:
            return node.path
        if is_above and not low.startswith(node.path):
            continue
        first = low[len(node.path)] if is_above else 0
        # The leftmost child that may hold it, and after it one that surely does.
        taken = [(token, weight) for token, _, weight in record.slots() if token >= first][:2]
        todo += [trie.child(node, token, weight) for token, weight in reversed(taken)]
    return None


def last_path(trie: Trie, high: bytes | None) -> bytes | None:
    """Return the last path of a key before ``high``, None for no bound; None when there is none."""
    top = trie.top()
    # A path instead of a node is that of a branch's own value, which comes before what lies below it.
    todo: list[Node | bytes] = [] if top is None else [top]
    while todo:
        node = todo.pop()
        if isinstance(node, bytes):
            return node
        if high is not None and node.path >= high:
            continue
        if node.record is None:
            return node.path
        record = trie.parse(node)
        if record.digest is not None:
            todo.append(node.path)
        is_above = high is not None and high.startswith(node.path)
        last = high[len(node.path)] if high is not None and is_above else ALL_TOKENS
        # The rightmost child that may hold it, and before it one that surely does.
        taken = [(token, weight) for token, _, weight in record.slots() if token <= last][-2:]
        todo += [trie.child(node, token, weight) for token, weight in taken]
    return None


class OpenTrie(Trie):
    """A trie that can be entered anywhere: one whose nodes are found by order."""

    @abstractmethod
    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``, which holds no bucket; None when none is."""

    @abstractmethod
    def rows(self, low: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Return row keys and values from the key ``low`` on."""

    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""
        node = self.node_under(b"")
        if node is not None and (node.record is not None or self._is_one_large_value()):
            return node
        pairs = [(key_of_row(row), value) for row, value in islice(self.rows(b""), MAX_WEIGHT + 1)]
        if sum(weights_of([value for _, value in pairs])) <= MAX_WEIGHT:
            return Bucket(self.scheme, pairs).node_under(b"")
        if len(pairs) > 1:
            raise self.corrupt("it has pairs, and no branch at all")
        return node

    def _is_one_large_value(self) -> bool:
        """Return whether a trie without a branch is known to be one heavy leaf, without reading the value."""
        # Only large values have a digest that is remembered.
        return self.transaction.store.digests.get(self.root) is not None

    def pairs(self, slots: Sequence[bytes], weights: Sequence[int]) -> dict[bytes, Pairs]:
        """Return the pairs of the buckets under slots, which weigh ``weights``, by slot.

        Raises:
            CorruptDatabase: There is no such bucket.
        """
        codec, max_key_bytes = self.scheme.codec, self.scheme.max_key_bytes
        found: dict[bytes, Pairs] = {}
        try:
            lows = list(map(codec.pack, slots))
        except ValueError as error:
            raise self.corrupt("the path of a branch has a token that is none") from error
        for slot, low, weight in zip(slots, lows, weights, strict=True):
            pairs: Pairs = []
            left = weight
            for row in self.rows(low):
                pair = row if row[0][0] else (key_of_row(row[0]), row[1])
                pairs.append(pair)
                left -= weight_of(row[1])
                if left <= 0 or len(pair[0]) > max_key_bytes:
                    break
            last = pairs[-1][0] if pairs else b""
            # Keys ascend, so where the last one lies below the slot, all do.
            if left or len(last) > max_key_bytes or not codec.path(last).startswith(slot):
                raise self.corrupt(f"under the slot {slot.hex()} are other values than its branch says")
            found[slot] = pairs
        return found

    def bucket(self, slot: bytes, weight: int) -> Bucket:
        """Return the bucket under ``slot``, which weighs ``weight``."""
        return Bucket(self.scheme, self.pairs([slot], [weight])[slot])

    def child(self, node: Node, token: int, weight: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""
        slot = node.path + TOKENS[token]
        if node.bucket is None and weight == HEAVY:
            child = self.node_under(slot)
        else:
            child = (node.bucket or self.bucket(slot, weight)).node_under(slot)
        if child is None:
            raise self.corrupt(f"nothing lies under the slot {slot.hex()}")
        return child

    def node_at(self, slot: bytes) -> Node:
        """Return the topmost node at or below a slot that is taken, and holds no bucket."""
        node = self.node_under(slot)
        if node is None:
            raise self.corrupt(f"nothing lies under the slot {slot.hex()}")
        return node

    def nodes_at(self, slots: Sequence[bytes]) -> tuple[list[bytes], list[bytes | None]]:
        """Return the paths and the records of the topmost nodes at or below slots that hold no buckets."""
        nodes = list(map(self.node_at, slots))
        return [node.path for node in nodes], [node.record for node in nodes]

    def under(self, slot: bytes, weight: int) -> Found:
        """Return what hangs under a slot that is taken, and weighs ``weight``."""
        return self.node_at(slot) if weight == HEAVY else self.pairs([slot], [weight])[slot]


class StoredTrie(OpenTrie):
    """The trie of the tables in one transaction: the tip."""

    def __init__(self, transaction: StoreTransaction, root: bytes) -> None:
        super().__init__(transaction, root)
        self._codec = transaction.scheme.codec
        self._branches = transaction.lmdb.cursor(db=transaction.store.branches)
        self._values = transaction.lmdb.cursor(db=transaction.store.values)

    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``, which holds no bucket; None when none is."""
        if self._branches.set_range(slot if slot[:1] > b"\0" else b"\0" + slot):
            row, record = self._branches.item()
            path = row if row[0] else key_of_row(row)
            if path.startswith(slot):
                if path != slot:
                    self._require_path(path)
                return Node(path, record)
        if not self._values.set_range(row_key(self._codec.pack(slot))):
            return None
        path = self._codec.path(key_of_row(self._values.key()))
        if not path.startswith(slot):
            return None
        self._require_path(path)
        return Node(path, None)

    def _is_one_large_value(self) -> bool:
        """Return whether the tables hold one value alone, with pages of its own, as no light one has."""
        values = self.transaction.lmdb.stat(self.transaction.store.values)
        return bool(values["entries"] == 1 and values["overflow_pages"])

    def _require_path(self, path: bytes) -> None:
        """Raise CorruptDatabase when no node can be at the path that a row has."""
        if len(path) > MAX_PATH_TOKENS or max(path, default=0) >= self._codec.branch_factor:
            raise self.corrupt(f"no node can be at path {path.hex()}")

    def nodes_at(self, slots: Sequence[bytes]) -> tuple[list[bytes], list[bytes | None]]:
        """Return the paths and the records of the topmost nodes at or below slots that hold no buckets."""
        seek = self._branches.set_range
        item: Callable[[], tuple[bytes, bytes | None]] = self._branches.item
        paths: list[bytes] = []
        records: list[bytes | None] = []
        for slot in slots:
            # The usual case, a branch right at its slot, without a call.
            path, record = item() if slot[0] and seek(slot) else (b"", None)
            if path != slot and path.startswith(slot):
                self._require_path(path)
            elif path != slot:
                path, record, _, _ = self.node_at(slot)
            paths.append(path)
            records.append(record)
        return paths, records

    def rows(self, low: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Return row keys and values from the key ``low`` on."""
        return self._values if self._values.set_range(low if low[:1] > b"\0" else row_key(low)) else ()

    def record(self, path: bytes) -> bytes | None:
        """Return the record of the branch at ``path``; None when there is none."""
        return self._branches.value() if self._branches.set_key(row_key(path)) else None

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""
        return self._values.value() if self._values.set_key(row_key(key)) else None
