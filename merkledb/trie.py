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

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from merkledb.errors import CorruptDatabase
from merkledb.proof import Branch
from merkledb.record import Record, parse_record
from merkledb.scheme import Scheme
from merkledb.store import Store, Transaction, key_of_row, row_key


class Node(NamedTuple):
    """A node as the store has it.

    Attributes:
        path: Its full path.
        record: Its record; None for a leaf.
    """

    path: bytes
    record: bytes | None


def is_slot_outside(slot: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether no path at or below ``slot`` can lie in [start, end] (paths; None is unbounded)."""
    if start is not None and slot < start and not start.startswith(slot):
        return True
    return end is not None and slot > end


def is_path_outside(path: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether ``path`` itself lies outside [start, end]."""
    return (start is not None and path < start) or (end is not None and path > end)


class Trie:
    """The trie in one transaction.

    Args:
        store: Whose tables are read.
        transaction: What they are read in; it outlives this object.
        scheme: The store's.
    """

    def __init__(self, store: Store, transaction: Transaction, scheme: Scheme) -> None:
        self._store = store
        self._scheme = scheme
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
        return CorruptDatabase(str(self._store.path), difference)

    def leaf_digest(self, path: bytes) -> bytes:
        """Return the digest of the value at ``path``, the path of a key that exists."""
        key = self._codec.pack(path)
        if not self._values.set_key(row_key(key)):
            raise self.corrupt(f"key 0x{key.hex()} has no value")
        return self._scheme.digest(self._values.value())

    def child_under(self, slot: bytes) -> Node:
        """Return the node in a slot that a record says is taken."""
        node = self.node_under(slot)
        if node is None:
            raise self.corrupt(f"nothing lies under the slot {slot.hex()}")
        return node

    def spine(self, path: bytes) -> Iterator[Node]:
        """Yield the nodes on ``path`` from the top down.

        These are the branches whose paths are prefixes of it, and then, where it leaves the trie inside an
        edge or ends at a leaf, the node at the end of that edge.
        """
        node = self.node_under(b"")
        while node is not None:
            yield node
            if node.record is None or len(node.path) >= len(path) or not path.startswith(node.path):
                return
            token = path[len(node.path)]
            if token not in self.parse(node).tokens:
                return
            node = self.child_under(node.path + bytes([token]))

    def spines(self, start: bytes | None, end: bytes | None) -> list[Node]:
        """Return the nodes on the paths of both bounds, ascending, each once."""
        nodes = {node.path: node for bound in (start, end) if bound is not None for node in self.spine(bound)}
        return [nodes[path] for path in sorted(nodes)]

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        trimmed = (self._trimmed(node, start, end) for node in self.spines(start, end))
        return tuple(branch for branch in trimmed if branch.children or branch.digest is not None)

    def _trimmed(self, node: Node, start: bytes | None, end: bytes | None) -> Branch:
        path_outside = is_path_outside(node.path, start, end)
        if node.record is None:
            return Branch(node.path, self.leaf_digest(node.path) if path_outside else None, ())
        record = self.parse(node)
        children = tuple(
            (token, node_id)
            for token, node_id in record.pairs()
            if is_slot_outside(node.path + bytes([token]), start, end)
        )
        return Branch(node.path, record.digest if path_outside else None, children)


def stubs_of(branches: Iterable[Branch]) -> list[tuple[bytes, bytes]]:
    """Return (path, id) of every child slot in a boundary."""
    return [
        (branch.path + bytes([token]), node_id) for branch in branches for token, node_id in branch.children
    ]
