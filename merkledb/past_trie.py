"""The trie as it was at a retained revision.

The way down begins at the revision's topmost node.  As long as it leads through nodes that have changed
since, each is put together from history; from the first child on that has not changed, the tables are read.
"""

from typing import TypeAlias

from merkledb.past import ALL_EDGES, Past
from merkledb.proof import Branch
from merkledb.revisions import Place
from merkledb.rows import Rows
from merkledb.trie import Node, StoredTrie, Trie, outside_slots

# By path and by which children are wanted.
_Nodes: TypeAlias = dict[tuple[bytes, tuple[int, int]], Node]


class PastTrie(Trie):
    """The trie of one retained revision.

    Args:
        stored: The trie of the tables.
        past: The revision's state.
        rows: The revision's rows.
        top: The place of its topmost node; None when it was empty.
    """

    def __init__(self, stored: StoredTrie, past: Past, rows: Rows, top: Place | None) -> None:
        super().__init__(stored.store, stored.scheme)
        self._stored = stored
        self._past = past
        self._rows = rows
        self._top = top
        # What was put together already: the next boundary often begins at the same bound.
        self._nodes: _Nodes = {}

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
        edges = self._edges(path)
        node = self._nodes.get((path, edges))
        if node is None:
            node = self._nodes[path, edges] = self._past.node(self._stored, path, prefixes, edges)
        return node

    def _edges(self, path: bytes) -> tuple[int, int]:
        """Return which children of the branch at ``path`` are wanted, as ``Past.node`` takes it."""
        del path
        return ALL_EDGES

    def boundary(self, start: bytes | None, end: bytes | None) -> tuple[Branch, ...]:
        """Return what of the nodes on the paths of both bounds lies strictly outside [start, end]."""
        edge = _Edge(self._stored, self._past, self._rows, self._top, (start, end), self._nodes)
        return Trie.boundary(edge, start, end)

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there was none."""
        return self._rows.value(key)


class _Edge(PastTrie):
    """What the boundary of a range is made of: branches without those children that lie inside it.

    Each child that has never changed, and need not be looked for, saves a lookup for every revision since.

    Args:
        stored: As for the whole trie, like ``past``, ``rows`` and ``top``.
        past: See above.
        rows: See above.
        top: See above.
        bounds: The paths of both, None for no bound.
        nodes: What was put together already.
    """

    def __init__(
        self,
        stored: StoredTrie,
        past: Past,
        rows: Rows,
        top: Place | None,
        bounds: tuple[bytes | None, bytes | None],
        nodes: _Nodes,
    ) -> None:
        super().__init__(stored, past, rows, top)
        self._bounds = bounds
        self._nodes = nodes

    def _edges(self, path: bytes) -> tuple[int, int]:
        return outside_slots(path, *self._bounds)
