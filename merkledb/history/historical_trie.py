"""The trie as it was at a retained revision.

The way down begins at the revision's topmost node.  As long as it leads through nodes that have changed
since, each is put together from history; from the first child on that has not changed, the tables are read.
"""

from typing import TypeAlias

from merkledb.formats.branch_delta import NodeLocation, shared_bytes
from merkledb.formats.branch_record import TOKENS
from merkledb.formats.proof import Branch
from merkledb.formats.scheme import MAX_PATH_TOKENS
from merkledb.history.reader import ALL_SLOTS, HistoryReader
from merkledb.history.rows import HistoricalRows
from merkledb.kernel.boundary import outside_slots
from merkledb.trie.node import Bucket, Node, Pairs
from merkledb.trie.trie import StoredTrie, Trie

Bounds: TypeAlias = tuple[bytes | None, bytes | None]
# By path, and by which slots are wanted.
_Nodes: TypeAlias = dict[tuple[bytes, tuple[int, int]], Node]


class HistoricalTrie(Trie):
    """The trie of one retained revision.

    Args:
        stored: The trie of the tables.
        history: Reads what stands between the revision and the tables.
        rows: The revision's rows.
        root: The revision's root.
        top: The location of its topmost node; None when it was empty.
        bounds: The paths of a range's bounds, where its boundary is all that is wanted: then branches may
            lack what lies inside the range.
        nodes: What was put together already, for other bounds.
    """

    def __init__(
        self,
        stored: StoredTrie,
        history: HistoryReader,
        rows: HistoricalRows,
        root: bytes,
        top: NodeLocation | None,
        bounds: Bounds | None = None,
        nodes: _Nodes | None = None,
    ) -> None:
        super().__init__(stored.transaction, root)
        self._stored = stored
        self._history = history
        self._rows = rows
        self._top = top
        self._bounds = bounds
        # The next boundary often begins at the same bound.
        self._nodes: _Nodes = {} if nodes is None else nodes

    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""
        if self._top is None:
            return None
        return self._bucket(b"", self._top, None) if self._top.keys else self._branch(self._top.path)

    def child(self, node: Node, token: int, weight: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""
        deltas = node.deltas
        if deltas is None or token not in deltas.ids:
            return self._stored.child(node, token, weight)
        slot, location = node.path + TOKENS[token], deltas.locations.get(token, NodeLocation())
        # What changes a child changes its parent, so only where that changed need be looked.
        prefixes = [*deltas.changes[token], *deltas.later]
        return (
            self._bucket(slot, location, prefixes)
            if location.keys
            else self._branch(slot + location.path, prefixes)
        )

    def _bucket(self, slot: bytes, location: NodeLocation, prefixes: list[bytes] | None) -> Node:
        """Return the topmost node of a bucket of the past, or a leaf, whose value nobody may want."""
        codec = self.scheme.codec
        before = codec.pack(slot)[: shared_bytes(slot, codec.token_bits)]
        keys = [before + rest for rest in location.keys]
        paths = codec.paths(keys)
        if len(max(keys, key=len)) > codec.max_key_bytes or not all(path.startswith(slot) for path in paths):
            raise self.corrupt(f"history puts other keys under the slot {slot.hex()}")
        if len(keys) == 1:
            return Node(paths[0], None)
        pairs: Pairs = []
        for key in keys:
            value = self._rows.value(key, prefixes)
            if value is None:
                raise self.corrupt(f"history lacks the value of key 0x{key.hex()}")
            pairs.append((key, value))
        node = Bucket(self.scheme, pairs).node_under(slot)
        if node is None:
            raise self.corrupt(f"history puts other keys under the slot {slot.hex()}")
        return node

    def _branch(self, path: bytes, prefixes: list[bytes] | None = None) -> Node:
        if len(path) > MAX_PATH_TOKENS or (path and max(path) >= self.scheme.branch_factor):
            raise self.corrupt(f"history names a branch at path {path.hex()}, where none can be")
        slots = ALL_SLOTS if self._bounds is None else outside_slots(path, *self._bounds)
        node = self._nodes.get((path, slots))
        if node is None:
            node = self._nodes[path, slots] = self._history.node(self._stored, path, prefixes, slots)
        return node

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        outside = HistoricalTrie(
            self._stored, self._history, self._rows, self.root, self._top, (start, end), self._nodes
        )
        return Trie.boundary(outside, start, end)

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there was none."""
        return self._rows.value(key)
