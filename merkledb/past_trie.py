"""The trie as it was at a retained revision.

The way down begins at the revision's topmost node.  As long as it leads through nodes that have changed
since, each is put together from history; from the first child on that has not changed, the tables are read.
"""

from typing import TypeAlias

from merkledb.past import ALL_SLOTS, Past
from merkledb.proof import Branch
from merkledb.revisions import Place
from merkledb.rows import Rows
from merkledb.trie import Node, StoredTrie, Trie, outside_slots

Bounds: TypeAlias = tuple[bytes | None, bytes | None]
# By path, and by which slots are wanted.
_Nodes: TypeAlias = dict[tuple[bytes, tuple[int, int]], Node]


class PastTrie(Trie):
    """The trie of one retained revision.

    Args:
        stored: The trie of the tables.
        past: The revision's state.
        rows: The revision's rows.
        top: The place of its topmost node; None when it was empty.
        bounds: The paths of a range's bounds, where its boundary is all that is wanted: then branches may
            lack what lies inside the range.
        nodes: What was put together already, for other bounds.
    """

    def __init__(
        self,
        stored: StoredTrie,
        past: Past,
        rows: Rows,
        top: Place | None,
        bounds: Bounds | None = None,
        nodes: _Nodes | None = None,
    ) -> None:
        super().__init__(stored.store, stored.scheme)
        self._stored = stored
        self._past = past
        self._rows = rows
        self._top = top
        self._bounds = bounds
        # The next boundary often begins at the same bound.
        self._nodes: _Nodes = {} if nodes is None else nodes

    def top(self) -> Node | None:
        """Return the topmost node; None of an empty trie."""
        if self._top is None:
            return None
        return Node(self._top.path, None) if self._top.is_leaf else self._branch(self._top.path)

    def child(self, node: Node, token: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""
        past = node.past
        if past is None or token not in past.ids:
            return self._stored.child(node, token)
        path, rest = node.path + bytes([token]), past.rests.get(token)
        if rest is not None:
            path += rest.path
            if rest.is_leaf:
                return Node(path, None)
        # What changes a child changes its parent, so only where that changed need be looked.
        return self._branch(path, [*past.changes[token], *past.behind])

    def _branch(self, path: bytes, prefixes: list[bytes] | None = None) -> Node:
        slots = ALL_SLOTS if self._bounds is None else outside_slots(path, *self._bounds)
        node = self._nodes.get((path, slots))
        if node is None:
            node = self._nodes[path, slots] = self._past.node(self._stored, path, prefixes, slots)
        return node

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        outside = PastTrie(self._stored, self._past, self._rows, self._top, (start, end), self._nodes)
        return Trie.boundary(outside, start, end)

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there was none."""
        return self._rows.value(key)
