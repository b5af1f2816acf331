"""Reading the trie of a store: the nodes on a path, and the boundary of a range.

Leaves are not stored, and a branch's row is found by order alone: under a slot, the shallowest branch is
the first row at or after the slot's path, because a prefix sorts first.  Where there is none, the slot
holds one leaf: the first key at or after it.

    boundary of [start, end]: the two paths go down, x is strictly outside, . is inside

                      root
              x    x   |   .   |   x
                   start       end
              x  x |  .  .   . | x  x
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.proof import Branch
from merkledb.record import Record, parse_record
from merkledb.revisions import Place
from merkledb.scheme import Scheme
from merkledb.store import Store, Transaction, key_of_row, row_key

# Above every token.
ALL_TOKENS: Final = 256


class PastChildren(NamedTuple):
    """Which children of a branch of the past have changed since, and where they were.

    Attributes:
        ids: Their ids, by token.
        rests: Where those are that are no branch right at their slot, by token: the path behind the slot.
        changes: The revisions that changed them, by token, as prefixes of row keys of history.
        behind: The revisions behind those that were looked at.
    """

    ids: dict[int, bytes]
    rests: dict[int, Place]
    changes: dict[int, list[bytes]]
    behind: Sequence[bytes]


class Node(NamedTuple):
    """A node as the trie has it that it came from.

    Attributes:
        path: Its full path.
        record: Its record; None for a leaf.
        past: Of a branch of the past, the children that have changed since; None where the node is as the
            tables have it, with all that lies below it.
    """

    path: bytes
    record: bytes | None
    past: PastChildren | None = None


def is_slot_outside(slot: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether no path at or below ``slot`` can lie in [start, end] (paths; None is unbounded)."""
    if start is not None and slot < start and not start.startswith(slot):
        return True
    return end is not None and slot > end


def outside_slots(path: bytes, start: bytes | None, end: bytes | None) -> tuple[int, int]:
    """Return two tokens: the slots of ``path`` below the first and above the second lie outside [start, end].

    Where ``path`` is on the way to a bound, the token is the one that leads on.
    """
    low, high, depth = -1, ALL_TOKENS, len(path)
    if start is not None and path < start:
        low = start[depth] if start.startswith(path) else ALL_TOKENS
    if end is not None and end.startswith(path):
        high = end[depth] if len(end) > depth else -1
    elif end is not None and path > end:
        high = -1
    return low, high


def is_path_outside(path: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether ``path`` itself lies outside [start, end]."""
    return (start is not None and path < start) or (end is not None and path > end)


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
        node: The node; None for a value.
    """

    path: bytes
    node_id: bytes
    digest: bytes | None
    node: Node | None


class Trie(ABC):
    """A trie to go down in: the one of the tables, one of the past, or one that is only proposed.

    Args:
        store: Whose tables are read.
        scheme: The store's.
    """

    def __init__(self, store: Store, scheme: Scheme) -> None:
        self.store = store
        self.scheme = scheme

    @abstractmethod
    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""

    @abstractmethod
    def child(self, node: Node, token: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""

    @abstractmethod
    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""

    def parse(self, node: Node) -> Record:
        """Return the parts of a branch's record.

        Raises:
            CorruptDatabase: The row is not a record.
        """
        try:
            return parse_record(node.record or b"")
        except ValueError as error:
            raise self.corrupt(f"the branch at path {node.path.hex()} is unreadable: {error}") from error

    def corrupt(self, difference: str) -> CorruptDatabase:
        """Return the error that says how this store contradicts itself."""
        return CorruptDatabase(str(self.store.path), difference)

    def leaf_digest(self, path: bytes) -> bytes:
        """Return the digest of the value at ``path``, the path of a key that exists."""
        key = self.scheme.codec.pack(path)
        value = self.value(key)
        if value is None:
            raise self.corrupt(f"key 0x{key.hex()} has no value")
        return self.scheme.digest(value)

    def first_path(self, low: bytes) -> bytes | None:
        """Return the first path of a key at or behind ``low``; None when there is none."""
        top = self.top()
        todo = [] if top is None else [top]
        while todo:
            node = todo.pop()
            if node.record is None:
                if node.path >= low:
                    return node.path
                continue
            record = self.parse(node)
            is_above = node.path < low
            if not is_above and record.digest is not None:
                return node.path
            if is_above and not low.startswith(node.path):
                continue
            first = low[len(node.path)] if is_above else 0
            # The leftmost child that may hold it, and behind it one that surely does.
            tokens = [token for token in record.tokens if token >= first][:2]
            todo += [self.child(node, token) for token in reversed(tokens)]
        return None

    def spines(self, start: bytes | None, end: bytes | None) -> list[Node]:
        """Return the nodes on the paths of both bounds, ascending, each once.

        These are the branches whose paths are prefixes of a bound, and then, where the bound leaves the trie
        inside an edge or ends at a leaf, the node at the end of that edge.
        """
        bounds = [bound for bound in (start, end) if bound is not None]
        found: list[Node] = []
        top = self.top() if bounds else None
        todo = [] if top is None else [top]
        while todo:
            node = todo.pop()
            found.append(node)
            if node.record is None:
                continue
            depth = len(node.path)
            ways = {bound[depth] for bound in bounds if len(bound) > depth and bound.startswith(node.path)}
            if ways:
                taken = ways.intersection(self.parse(node).tokens)
                todo += [self.child(node, token) for token in sorted(taken, reverse=True)]
        return found

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        trimmed = (self._trimmed(node, start, end) for node in self.spines(start, end))
        return tuple(branch for branch in trimmed if branch.children or branch.digest is not None)

    def inside(self, root: bytes, start: bytes | None, end: bytes | None) -> list[Inside]:
        """Return the content of [start, end] as the topmost nodes that lie wholly inside it, ascending.

        What they are follows from the content of the range alone, and their ids commit to all of it.

        Args:
            root: The trie's.
            start: The path of the smallest key; None for no bound.
            end: The path of the largest key; None for no bound.
        """
        found: list[Inside] = []
        top = self.top()
        todo = [] if top is None else [(top, root)]
        while todo:
            node, node_id = todo.pop()
            if is_inside(node, start, end):
                found.append(Inside(node.path, node_id, None, node))
            elif node.record is not None:
                record = self.parse(node)
                if record.digest is not None and not is_path_outside(node.path, start, end):
                    leaf_id = self.scheme.leaf_ids([self.scheme.codec.pack(node.path)], [record.digest])[0]
                    found.append(Inside(node.path, leaf_id, record.digest, None))
                for token, child_id in reversed(record.pairs()):
                    if not is_slot_outside(node.path + bytes([token]), start, end):
                        todo.append((self.child(node, token), child_id))
        return found

    def _trimmed(self, node: Node, start: bytes | None, end: bytes | None) -> Branch:
        path_outside = is_path_outside(node.path, start, end)
        if node.record is None:
            return Branch(node.path, self.leaf_digest(node.path) if path_outside else None, ())
        record = self.parse(node)
        low, high = outside_slots(node.path, start, end)
        children = tuple(pair for pair in record.pairs() if pair[0] < low or pair[0] > high)
        return Branch(node.path, record.digest if path_outside else None, children)


class OpenTrie(Trie):
    """A trie that can be entered anywhere: one whose nodes are found by order."""

    @abstractmethod
    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``; None when there is none."""

    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""
        return self.node_under(b"")

    def child(self, node: Node, token: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""
        slot = node.path + bytes([token])
        child = self.node_under(slot)
        if child is None:
            raise self.corrupt(f"nothing lies under the slot {slot.hex()}")
        return child


class StoredTrie(OpenTrie):
    """The trie of the tables in one transaction: the tip.

    Args:
        store: Whose tables are read.
        transaction: What they are read in; it outlives this object.
        scheme: The store's.
    """

    def __init__(self, store: Store, transaction: Transaction, scheme: Scheme) -> None:
        super().__init__(store, scheme)
        self._codec = scheme.codec
        self._branches = transaction.cursor(db=store.branches)
        self._values = transaction.cursor(db=store.values)

    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``; None when there is none."""
        if self._branches.set_range(row_key(slot)):
            path = key_of_row(self._branches.key())
            if path.startswith(slot):
                return Node(path, self._branches.value())
        if not self._values.set_range(row_key(self._codec.pack(slot))):
            return None
        path = self._codec.path(key_of_row(self._values.key()))
        return Node(path, None) if path.startswith(slot) else None

    def record(self, path: bytes) -> bytes | None:
        """Return the record of the branch at ``path``; None when there is none."""
        return self._branches.value() if self._branches.set_key(row_key(path)) else None

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""
        return self._values.value() if self._values.set_key(row_key(key)) else None


def stubs_of(branches: Iterable[Branch]) -> list[tuple[bytes, bytes]]:
    """Return (path, id) of every child slot in a boundary."""
    return [
        (branch.path + bytes([token]), node_id) for branch in branches for token, node_id in branch.children
    ]
