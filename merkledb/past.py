"""The trie as it was at a retained revision.

The way down begins at the revision's topmost node.  As long as it leads through nodes that have changed
since, each is put together from history; from the first child on that has not changed, the tables are read.
"""

from merkledb.history import Past
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
        return None if self._top is None else self._node(self._top)

    def child(self, node: Node, token: int) -> Node:
        """Return a child of a branch, in a slot that its record says is taken."""
        place = None if node.places is None else node.places.get(token)
        return self._stored.child(node, token) if place is None else self._node(place)

    def _node(self, place: Place) -> Node:
        if place.is_leaf:
            return Node(place.path, None)
        node = self._nodes.get(place.path)
        if node is None:
            node = self._nodes[place.path] = self._past.node(self._stored, place.path)
        return node

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there was none."""
        return self._rows.value(key)
