"""The stream of a commit: local content, untouched subtrees left closed, with sorted changes merged in.

A change proof's verification takes the same stream, for the content of one range.

The walk goes down from the top only where a change lies.  A branch with a change below it is opened and
becomes a record; a bucket with a change in it becomes its leaves; every other node stays one stub; a stretch
of changes between two local nodes is taken as a whole.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from merkledb.arguments import require_instance
from merkledb.formats.branch_record import HEAVY, TOKENS, InvalidRecord, weight_of
from merkledb.formats.scheme import Scheme
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import DELETED, ItemRow, Items, joined
from merkledb.kernel.pure_walk import Step
from merkledb.trie.node import Found, Node
from merkledb.trie.trie import Inside, OpenTrie


class ChangeColumns(NamedTuple):
    """Changes, by key and as columns, ascending.

    Attributes:
        new: The new values by key; None for a deletion.
        keys: All changed keys.
        put_keys: The keys that get a value.
        put_values: Their values.
        deleted_keys: The other keys.
    """

    new: dict[bytes, bytes | None]
    keys: list[bytes]
    put_keys: list[bytes]
    put_values: list[bytes]
    deleted_keys: list[bytes]

    def sealed(self) -> "ChangeColumns":
        """Return the same changes in columns that nobody can change; they are read as lists are."""
        columns = tuple(map(tuple, self[1:]))
        return ChangeColumns(MappingProxyType(self.new), *columns)  # type: ignore[arg-type]  # as the docstring says


def sorted_changes(changes: Mapping[bytes, bytes | None], scheme: Scheme) -> ChangeColumns:
    """Return a copy of ``changes``, and its columns.

    Raises:
        TypeError: These are no mapping, a key is not bytes, or a value neither bytes nor None.
        KeyTooLong, ValueTooLong: No database of this scheme can hold one of them.
    """
    require_instance("changes", changes, Mapping)
    new = dict(changes)
    keys, put_keys, put_values, deleted_keys, longest_key, longest_value = kernel().sort_changes(new)
    scheme.require_lengths(longest_key, longest_value)
    return ChangeColumns(new, keys, put_keys, put_values, deleted_keys)


def _below(key: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
    """Yield those of ascending ``keys`` that extend ``key``."""
    for other in islice(keys, bisect_right(keys, key), None):
        if not other.startswith(key):
            return
        yield other


class ChangeStream:
    """Prepares the stream of one commit, or of the inside of one range.

    The walk collects what the changes meet: branches that open, the pairs of buckets, heavy leaves, and nodes
    that stay closed.  All that, in any order, is the stream.

    Args:
        trie: The trie that is to change.
        changes: What is to change.

    Attributes:
        scheme: The trie's.
        records: The records of the branches that open, by path.
        visited: What was found under slots on the way, where it was no branch right there.
        bucket_pairs: The pairs of the buckets on the way.
        unread: The paths of changed keys that were met, and whose values the walk has not read, each with the
            id of its leaf; a key that is neither here nor in ``bucket_pairs`` was absent.
    """

    def __init__(self, trie: OpenTrie, changes: ChangeColumns) -> None:
        self._trie = trie
        self._changes = changes
        self.scheme = trie.scheme
        self._walk = kernel().walk(trie.scheme, changes.keys)
        self.records: dict[bytes, bytes] = {}
        self.visited: dict[bytes, Found] = {}
        self.bucket_pairs: dict[bytes, bytes] = {}
        self.unread: dict[bytes, bytes] = {}
        # What stays as it is, and the branches that open: their paths, digests and weights.
        self._kept: list[ItemRow] = []
        self._open_paths: list[bytes] = []
        self._open_digests: list[bytes | None] = []
        self._open_weights: list[int] = []
        # The changed keys at the paths of branches that open: they are part of these.
        self._branch_keys: set[bytes] = set()
        # Deletions of keys below leaves, where nothing is.
        self._void: set[bytes] = set()

    def walk(self) -> None:
        """Go down from the top to where changes lie."""
        top = self._trie.top()
        if top is not None:
            self._descend([top], [self._trie.root])

    def walk_inside(self, parts: Sequence[Inside], following: bytes | None) -> None:
        """Go down to where changes lie in a range.

        Args:
            parts: The range's content.
            following: The path of the first item after the range; None where there is none.
        """
        nodes = [(part.node, part.node_id) for part in parts if part.node is not None]
        self._descend([node for node, _ in nodes], [node_id for _, node_id in nodes])
        for part in parts:
            if part.node is None:
                self._keep(part.path, part.node_id, part.digest, part.weight)
        for number, (path, node_id, digest, weight) in enumerate(self._kept):
            # What lies after the range may lie below a heavy leaf, and then its value is one on a branch.
            if following is not None and digest is None and following.startswith(path):
                self._kept[number] = path, node_id, self._trie.leaf_digest(path, node_id), weight

    def reattached_children(self, closed: Container[bytes]) -> Iterator[ItemRow]:
        """Yield as items what is left of branches that were opened and are not stored any more.

        That is a leaf with the branch's own value, and the untouched children, each at the path of its slot.

        Args:
            closed: The paths of the branches that closed.
        """
        opened = zip(self._open_paths, self._open_digests, self._open_weights, strict=True)
        for path, digest, weight in opened:
            if path in closed:
                continue
            if digest is not None:
                yield path, self.scheme.leaf_id(path, digest), digest, weight
            record = self._trie.parse(Node(path, self.records[path]))
            for token, node_id, child_weight in record.slots():
                slot = path + TOKENS[token]
                if not self._is_touched(slot):
                    yield slot, node_id, None, child_weight

    def _is_touched(self, slot: bytes) -> bool:
        keys, codec = self._changes.keys, self.scheme.codec
        at = bisect_left(keys, codec.pack(slot))
        return at < len(keys) and codec.path(keys[at]).startswith(slot)

    # The walk.

    def _descend(self, nodes: Sequence[Node], ids: Sequence[bytes]) -> None:
        """Go down from nodes to where changes lie, level by level."""
        paths: list[bytes] = []
        records: list[bytes | None] = []
        level_ids: list[bytes] = []
        for node, node_id in zip(nodes, ids, strict=True):
            if node.bucket is None:
                paths.append(node.path)
                records.append(node.record)
                level_ids.append(node_id)
            else:
                pairs = zip(node.bucket.paths, node.bucket.pairs, strict=True)
                self.bucket_pairs.update(pair for path, pair in pairs if path.startswith(node.path))
        lows, highs = [0] * len(paths), [len(self._changes.keys)] * len(paths)
        while paths:
            # One level at a time: the branches with a change below them open, the other nodes stay stubs.
            try:
                step = self._walk.step(paths, records, lows, highs)
            except InvalidRecord as error:
                raise self._trie.invalid_record(paths[error.number], error) from error
            self._open(step, paths, records)
            for number in set(range(len(paths))).difference(step.opened):
                self._stay(paths[number], records[number], level_ids[number])
            if step.bucket_slots:
                for slot, found in self._trie.pairs(step.bucket_slots, step.bucket_weights).items():
                    self.visited[slot] = found
                    self.bucket_pairs.update(found)
            # What hangs under the slots that have changes is the next level.  A node that is no branch right
            # at its slot is kept in ``visited``, for history has to say where it was.
            paths, records = self._trie.nodes_at(step.slots) if step.slots else ([], [])
            for slot, path, record in zip(step.slots, paths, records, strict=True):
                if path != slot or record is None:
                    self.visited[slot] = Node(path, record)
            level_ids, lows, highs = step.ids, step.lows, step.highs

    def _open(self, step: Step, paths: list[bytes], records: list[bytes | None]) -> None:
        """Take on the branches that open."""
        digests, weights = step.digests, step.weights
        opened = list(map(paths.__getitem__, step.opened))
        # None of them is a leaf, so all have a record.
        found = [records[number] or b"" for number in step.opened]
        self.records.update(zip(opened, found, strict=True))
        self._open_paths += opened
        for at, own in enumerate(step.own):
            if own is not None:
                path = opened[at]
                # The branch's own value changes: its old digest gives the id that tells whether it really
                # does.
                key = self._changes.keys[own]
                self._branch_keys.add(key)
                digest = digests[at]
                if digest is not None:
                    self.unread[path] = self.scheme.leaf_id(path, digest)
                value = self._changes.new[key]
                digests[at] = None if value is None else self.scheme.digest(value)
                weights[at] = HEAVY if value is None else weight_of(value)
        self._open_digests += digests
        self._open_weights += weights

    def _stay(self, path: bytes, record: bytes | None, node_id: bytes) -> None:
        """Take on a node that no change lies below, or a heavy leaf."""
        digest = None
        if record is None:
            key = self.scheme.codec.pack(path)
            # Nothing is there to be deleted below a leaf, so its value, which may be large, need not be read.
            self._void.update(_below(key, self._changes.deleted_keys))
            # What is put below a leaf puts its value on a branch.
            if any(True for _ in _below(key, self._changes.put_keys)):
                digest = self._trie.leaf_digest(path, node_id)
        self._keep(path, node_id, digest, HEAVY)

    def _keep(self, path: bytes, node_id: bytes, digest: bytes | None, weight: int) -> None:
        """Keep a node, or a value, unless it is changed itself."""
        codec = self.scheme.codec
        if codec.is_key(path) and codec.pack(path) in self._changes.new:
            self.unread[path] = node_id
        else:
            self._kept.append((path, node_id, digest, weight))

    # The stream.

    def items(self) -> Items:
        """Return the whole stream, in order."""
        leaves = kernel().leaves(self.scheme, *self.pairs())
        return kernel().in_order(joined(leaves, self.other_items()))

    def effective(self, items: Items) -> int:
        """Return how many changes leave their key other than it was.

        Args:
            items: What ``items`` returned.
        """
        new, path_of = self._changes.new, self.scheme.codec.path
        unread = self._unread_now(items)
        count = 0
        for key, value in new.items():
            if key in self.bucket_pairs:
                count += self.bucket_pairs[key] != value
            elif unread and (path := path_of(key)) in unread:
                count += unread[path] != self.unread[path]
            else:
                count += value is not None
        return count

    def _unread_now(self, items: Items) -> dict[bytes, bytes | None]:
        """Return the ids that the leaves of ``unread`` get; None for those that are deleted."""
        found: dict[bytes, bytes | None] = {}
        for path in self.unread:
            at = bisect_left(items.paths, path)
            is_there = at < len(items.paths) and items.paths[at] == path
            digest = items.digests[at] if is_there else None
            found[path] = None if digest is None else self.scheme.leaf_id(path, digest)
        return found

    def pairs(self) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of the stream's leaves: what is put, and what else is in its buckets."""
        new, put_keys, put_values = self._changes.new, self._changes.put_keys, self._changes.put_values
        leaves = {key: value for key, value in self.bucket_pairs.items() if key not in new}
        if self._branch_keys:
            put = zip(put_keys, put_values, strict=True)
            leaves.update(pair for pair in put if pair[0] not in self._branch_keys)
            put_keys, put_values = [], []
        return [*leaves, *put_keys], [*leaves.values(), *put_values]

    def other_items(self) -> Items:
        """Return all other items: what stays, what opens, and deletions."""
        deleted = self._changes.deleted_keys
        if deleted:
            left_out = self._branch_keys | self._void
            deleted = [key for key in deleted if key not in left_out]
        items = Items(
            self._open_paths + self.scheme.codec.paths(deleted),
            [*[None] * len(self._open_paths), *[DELETED] * len(deleted)],
            self._open_digests + [None] * len(deleted),
            bytearray(self._open_weights + [HEAVY] * len(deleted)),
            self.records,
        )
        for path, node_id, digest, weight in self._kept:
            items.paths.append(path)
            items.ids.append(node_id)
            items.digests.append(digest)
            items.weights.append(weight)
        return items
