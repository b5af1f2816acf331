"""The trie as it was at a retained revision.

The way down begins at the revision's topmost node.  As long as it leads through nodes that have changed
since, each is put together from history; from the first child on that has not changed, the tables are read.
"""

from merkledb.past import Past
from merkledb.revisions import Place
from merkledb.rows import Rows
from merkledb.trie import Node, StoredTrie, Trie


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
        # What was put together already: both bounds of a range share the upper part of their paths.
        self._nodes: dict[bytes, Node] = {}

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
        node = self._nodes.get(path)
        if node is None:
            node = self._nodes[path] = self._past.node(self._stored, path, prefixes)
        return node

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there was none."""
        return self._rows.value(key)
