"""The stream of a commit: local content, untouched subtrees left closed, with sorted changes merged in.

A change proof's verification takes the same stream, for the content of one range.

The walk goes down from the top only where a change lies.  A branch with a change below it is opened and
becomes a record; every other node stays one stub; a stretch of changes between two local nodes is taken as
a whole.
"""

from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

from merkledb.fold import DELETED, Items
from merkledb.kernel import hash_leaves
from merkledb.paths import prefix_end
from merkledb.record import Record
from merkledb.scheme import Scheme, require_values
from merkledb.trie import Inside, Node, OpenTrie

_NONE: Final = type(None)
# Changes [low, high), alone where the slot is None, else to be merged with the subtree (id) under that slot.
_Stretch = tuple[bytes | None, bytes, int, int]


class Changes(NamedTuple):
    """Changes as columns, ascending by key: once as items of the fold, once as rows of the store.

    Attributes:
        paths: The paths of all changed keys.
        ids: The leaf's id; DELETED for a deletion.
        digests: The value's digest; None for a deletion.
        put_keys: The keys that get a value.
        put_values: Their values.
        deleted_keys: The other keys.
    """

    paths: list[bytes]
    ids: list[bytes]
    digests: list[bytes | None]
    put_keys: list[bytes]
    put_values: list[bytes]
    deleted_keys: list[bytes]


def sorted_changes(changes: Mapping[bytes, bytes | None], scheme: Scheme) -> Changes:
    """Return ``changes`` in columns, with everything computed that does not depend on the store.

    Raises:
        TypeError: A key is not bytes, or a value neither bytes nor None.
        KeyTooLong, ValueTooLong: No database of this scheme can hold one of them.
    """
    value_types = set(map(type, changes.values()))
    if not {bytes}.issuperset(map(type, changes)) or not {bytes, _NONE}.issuperset(value_types):
        raise TypeError("changes map bytes to bytes, or to None to delete")
    scheme.require_keys(changes)
    require_values(changes.values())
    keys = sorted(changes)
    paths = scheme.codec.paths(keys)
    deleted = [key for key in keys if changes[key] is None] if _NONE in value_types else []
    put_keys = [key for key in keys if changes[key] is not None] if deleted else keys
    put_values = cast("list[bytes]", list(map(changes.__getitem__, put_keys)))
    digests, ids = hash_leaves(scheme, put_keys, put_values)
    if not deleted:
        return Changes(paths, ids, list(digests), put_keys, put_values, [])
    next_id, next_digest = iter(ids), iter(digests)
    all_ids = [DELETED if changes[key] is None else next(next_id) for key in keys]
    all_digests = [None if changes[key] is None else next(next_digest) for key in keys]
    return Changes(paths, all_ids, all_digests, put_keys, put_values, deleted)


class ChangeStream:
    """Prepares the items of one commit, or of the inside of one range.

    Args:
        trie: The trie that is to change.
        changes: What is to change.

    Attributes:
        items: The stream, filled by ``prepare``.
        met: What was found under the slots on the way, by slot.
    """

    def __init__(self, trie: OpenTrie, changes: Changes) -> None:
        self._trie = trie
        self._changes = changes
        self.items = Items([], [], [], {})
        self.met: dict[bytes, Node] = {}
        # What is still to be emitted, the next on top.
        self._todo: list[_Stretch] = []

    def prepare(self, root: bytes) -> Items:
        """Return the items of the whole stream; ``root`` is the trie's."""
        self._todo.append((b"", root, 0, len(self._changes.paths)))
        self._drain()
        return self.items

    def prepare_inside(self, parts: Sequence[Inside], end: bytes | None) -> Items:
        """Return the items of a range.

        Args:
            parts: The range's content.
            end: The path of the range's end, which no change lies behind; None for no bound.
        """
        paths, at = self._changes.paths, 0
        for part in parts:
            if part.node is None:
                at = self._merge_value(part, at)
                continue
            behind = prefix_end(part.path)
            high = len(paths) if behind is None else bisect_left(paths, behind, at)
            if part.node.record is None:
                # What lies behind the range may lie below this leaf, and then its value is one on a branch.
                is_above_end = end is not None and end.startswith(part.path)
                self._merge_leaf(part.node, part.node_id, at, high, with_digest=is_above_end)
            else:
                self._merge_branch(part.node, part.node_id, at, high)
                self._drain()
            at = high
        self._emit(at, len(paths))
        return self.items

    def _merge_value(self, part: Inside, low: int) -> int:
        """Emit changes from ``low`` on up to a branch's value, and the value; return where the next begin."""
        paths = self._changes.paths
        at = bisect_left(paths, part.path, low)
        self._emit(low, at)
        if paths[at : at + 1] == [part.path]:
            self._emit_item(part.path, self._changes.ids[at], self._changes.digests[at])
            return at + 1
        self._emit_item(part.path, part.node_id, part.digest)
        return at

    @property
    def changed_paths(self) -> list[bytes]:
        """The paths of all changes, deletions included."""
        return self._changes.paths

    def survivors(self, closed: Container[bytes]) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """Yield (path, id, digest) of what is left of branches that were opened and did not close again.

        That is one node at most of each: a leaf with the branch's own value, or the one untouched child that
        has taken its branch's place, at the path of its slot and without a digest.

        Args:
            closed: The paths of the branches that closed.
        """
        scheme, items = self._trie.scheme, self.items
        for path, record in items.records.items():
            if path in closed:
                continue
            digest = items.digests[bisect_left(items.paths, path)]
            if digest is not None:
                yield path, scheme.leaf_ids([scheme.codec.pack(path)], [digest])[0], digest
                continue
            for token, node_id in self._trie.parse(Node(path, record)).pairs():
                slot = path + bytes([token])
                if not self._is_touched(slot):
                    yield slot, node_id, None

    def _is_touched(self, slot: bytes) -> bool:
        paths = self._changes.paths
        at = bisect_left(paths, slot)
        return at < len(paths) and paths[at].startswith(slot)

    def _drain(self) -> None:
        """Emit what is still to be done."""
        while self._todo:
            slot, node_id, low, high = self._todo.pop()
            node = None if slot is None else self._trie.node_under(slot)
            if slot is None or node is None:
                self._emit(low, high)
                continue
            self.met[slot] = node
            if node.record is None:
                self._merge_leaf(node, node_id, low, high)
            else:
                self._merge_branch(node, node_id, low, high)

    def _emit(self, low: int, high: int) -> None:
        """Emit changes that meet nothing local; deletions among them have nothing to delete."""
        if low == high:
            return
        changes = self._changes
        if changes.deleted_keys:
            kept = [index for index in range(low, high) if changes.ids[index] != DELETED]
            self.items.paths.extend([changes.paths[index] for index in kept])
            self.items.ids.extend([changes.ids[index] for index in kept])
            self.items.digests.extend([changes.digests[index] for index in kept])
            return
        self.items.paths.extend(changes.paths[low:high])
        self.items.ids.extend(changes.ids[low:high])
        self.items.digests.extend(changes.digests[low:high])

    def _emit_item(self, path: bytes, item_id: bytes | None, digest: bytes | None) -> None:
        self.items.paths.append(path)
        self.items.ids.append(item_id)
        self.items.digests.append(digest)

    def _merge_leaf(
        self, node: Node, node_id: bytes, low: int, high: int, *, with_digest: bool = False
    ) -> None:
        """Emit changes [low, high) around the leaf ``node``."""
        paths = self._changes.paths
        at = bisect_left(paths, node.path, low, high)
        self._emit(low, at)
        if at < high and paths[at] == node.path:
            self._emit_item(node.path, self._changes.ids[at], self._changes.digests[at])
            at += 1
        else:
            # The digest matters only when the leaf's value ends up on a branch.
            is_prefix = at < high and paths[at].startswith(node.path)
            digest = self._trie.leaf_digest(node.path) if is_prefix or with_digest else None
            self._emit_item(node.path, node_id, digest)
        self._emit(at, high)

    def _merge_branch(self, node: Node, node_id: bytes, low: int, high: int) -> None:
        """Emit changes [low, high) around the branch ``node``, opening it when any of them lies below it."""
        paths = self._changes.paths
        if low < high and paths[low].startswith(node.path) and paths[high - 1].startswith(node.path):
            # The usual case: all changes lie below it.
            self._open(node, low, high)
            return
        first = bisect_left(paths, node.path, low, high)
        behind = prefix_end(node.path)
        last = high if behind is None else bisect_left(paths, behind, first, high)
        self._emit(low, first)
        # What lies behind the branch waits below its children on the list of what is to be done.
        self._todo.append((None, b"", last, high))
        if first == last:
            self._emit_item(node.path, node_id, None)
        else:
            self._open(node, first, last)

    def _open(self, node: Node, first: int, last: int) -> None:
        """Emit the record of a branch with changes [first, last) at or below it."""
        assert node.record is not None
        record = self._trie.parse(node)
        digest = record.digest
        if self._changes.paths[first] == node.path:
            digest = self._changes.digests[first]
            first += 1
        self._emit_item(node.path, None, digest)
        self.items.records[node.path] = node.record
        self._todo.extend(reversed(self._groups(node.path, record, first, last)))

    def _groups(self, path: bytes, record: Record, low: int, high: int) -> list[_Stretch]:
        """Return changes [low, high), all below ``path``, cut at the bounds of the taken slots."""
        paths, depth = self._changes.paths, len(path)
        if high - low == 1:
            # The usual case near the leaves.
            index = record.tokens.find(paths[low][depth])
            if index < 0:
                return [(None, b"", low, high)]
            return [(paths[low][: depth + 1], record.child_at(index), low, high)]
        groups: list[_Stretch] = []
        while low < high:
            token = paths[low][depth]
            slot = path + bytes([token])
            index = bisect_left(record.tokens, token)
            if index < len(record.tokens) and record.tokens[index] == token:
                behind = prefix_end(slot)
                end = high if behind is None else bisect_left(paths, behind, low, high)
                groups.append((slot, record.child_at(index), low, end))
            else:
                taken = record.tokens[index : index + 1]
                end = bisect_left(paths, path + taken, low, high) if taken else high
                groups.append((None, b"", low, end))
            low = end
        return groups
