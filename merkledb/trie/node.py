"""The nodes of a trie, whichever it is, and the buckets at its ends."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from merkledb.formats.branch_delta import NodeLocation
from merkledb.formats.scheme import Scheme
from merkledb.kernel.choice import kernel


class ChildDeltas(NamedTuple):
    """Which children of a branch of the past have changed since, and where they were.

    Attributes:
        ids: Their ids, by token.
        locations: Where those were that were no branch right at their slot, by token.
        changes: The revisions that changed them, by token, as prefixes of row keys of history.
        later: The revisions after those that were looked at.
    """

    ids: dict[int, bytes]
    locations: dict[int, NodeLocation]
    changes: dict[int, list[bytes]]
    later: Sequence[bytes]


class Node(NamedTuple):
    """A node as the trie has it that it came from.

    Attributes:
        path: Its full path.
        record: Its record; None for a leaf.
        deltas: Of a branch of the past, the children that have changed since; None where the node is as the
            tables have it, with all that lies below it.
        bucket: The bucket that it is part of; None outside of buckets.
    """

    path: bytes
    record: bytes | None
    deltas: ChildDeltas | None = None
    bucket: "Bucket | None" = None


Pairs: TypeAlias = list[tuple[bytes, bytes]]
# What hangs under a slot: the pairs of a bucket, or a node.
Found: TypeAlias = Pairs | Node


class Bucket:
    """The pairs of a bucket, and the nodes that follow from them.

    Args:
        scheme: The trie's.
        pairs: Ascending, at least one.

    Attributes:
        pairs: The pairs.
        keys: Their keys.
        values: Their values.
        paths: The keys' paths.
    """

    __slots__ = ("_branches", "_scheme", "keys", "pairs", "paths", "values")

    def __init__(self, scheme: Scheme, pairs: Pairs) -> None:
        self._scheme = scheme
        self.pairs = pairs
        self.keys = [key for key, _ in pairs]
        self.values = [value for _, value in pairs]
        self.paths = scheme.codec.paths(self.keys)
        self._branches: dict[bytes, bytes] | None = None

    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``; None when there is none."""
        if self._branches is None:
            one = len(self.keys) == 1
            self._branches = {} if one else kernel().bucket_branches(self._scheme, self.keys, self.values)
        for path in sorted(self._branches.keys() | set(self.paths)):
            if path.startswith(slot):
                return Node(path, self._branches.get(path), bucket=self)
        return None
