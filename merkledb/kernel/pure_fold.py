"""The fold: the one function that turns a sorted stream of items into a trie.

An item is one of

    leaf        a path, its leaf id and its digest
    stub        a path and the id of a whole subtree that need not be opened
    record      the path of an opened branch: it stands for its value, and for every child slot that no other
                item touches
    deletion    a path that touches its place and adds nothing

Items come in strictly ascending order of their paths, as columns: hundreds to thousands a call.  Since the
stream is sorted, the shape of the trie follows from one number an item: how many tokens it shares with the
item after it.  Where that number rises a branch opens, where it falls the branches above it close, children
before parents:

    item        shared with the next    what happens at branch factor 16
    6 1                   2             the next lies below it: a branch opens at 6 1, with its value
    6 1 6 2               1             6 1 takes the leaf and closes; a branch opens at 6 and takes it
    6 2                   0             6 takes the leaf and closes; a branch opens at the top and takes it
    7 0                   -             the top takes the leaf and closes: its id is the root

The id of a node depends only on what lies below it and on its full path, so a branch that closes is final.
A branch left with one child and no value is no branch: its child takes its place, with the same id.  A branch
that is part of a bucket (see ``branch_record``) is not stored, and so not yielded unless that is asked for.

This module is the kernel.  It is pure, knows neither LMDB nor proofs, and trusts its items: who feeds it
what a peer sent checks the stubs first (see ``pure_verify``).  The compiled kernel takes and gives the same
columns (see ``interface``).

Cost: about 2 µs a leaf in pure Python, of which hashing is a third; memory for the open branches only.
"""

from bisect import bisect_left
from itertools import islice, repeat
from operator import eq, itemgetter, lt, xor
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from merkledb.formats.branch_record import (
    CHILD_BYTES,
    COUNTS,
    HEAVY,
    MAX_WEIGHT,
    NO_RECORD,
    TOKENS,
    split_records,
    weights_of,
    widened,
)
from merkledb.formats.scheme import EMPTY_ROOT, ID_BYTES, NO_VALUE, VALUE_HEADERS, Scheme

DELETED: Final = b""
# A call is cut into pieces of this many items, so that the numbers derived from their paths
# stay in the processor's cache.
_PIECE_ITEMS: Final = 4096


class Items(NamedTuple):
    """A stretch of the sorted stream, as columns of equal length.

    Attributes:
        paths: Strictly ascending, also across calls.
        ids: The id of a leaf or stub; DELETED for a deletion; None for a record.
        digests: The digest of a leaf, or of a record's own value; None otherwise.
        weights: The weight of a leaf or stub, or of a record's own value, one a byte; anything otherwise.
        records: The opened branches' records by path, for those items whose id is None.
    """

    paths: list[bytes]
    ids: list[bytes | None]
    digests: list[bytes | None]
    weights: bytearray
    records: dict[bytes, bytes]


# What is no record: path, id, digest, weight.
ItemRow: TypeAlias = tuple[bytes, bytes, bytes | None, int]


def no_items() -> Items:
    """Return an empty stretch, to be filled."""
    return Items([], [], [], bytearray(), {})


def sealed(items: Items) -> Items:
    """Return the same stretch in columns that nobody can change; they are read as lists are."""
    columns = (tuple(items.paths), tuple(items.ids), tuple(items.digests), bytes(items.weights))
    return Items(*columns, MappingProxyType(items.records))  # type: ignore[arg-type]  # as the docstring says


def joined(*parts: Items) -> Items:
    """Return stretches of the stream as one."""
    items = no_items()
    for part in parts:
        extend(items, part, 0, len(part.paths))
        items.records.update(part.records)
    return items


def extend(items: Items, more: Items, low: int, high: int) -> None:
    """Append a stretch of ``more`` to ``items``."""
    items.paths.extend(more.paths[low:high])
    items.ids.extend(more.ids[low:high])
    items.digests.extend(more.digests[low:high])
    items.weights.extend(more.weights[low:high])


def pure_leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
    """Return pairs as items, in the same order."""
    digests = scheme.digests(values)
    ids, weights = scheme.leaf_ids(keys, digests), bytearray(weights_of(values))
    return Items(scheme.codec.paths(keys), list(ids), list(digests), weights, {})


def items_of(rows: list[ItemRow]) -> Items:
    """Return rows, in any order, as a stretch."""
    items = no_items()
    for path, item_id, digest, weight in sorted(rows, key=itemgetter(0)):
        items.paths.append(path)
        items.ids.append(item_id)
        items.digests.append(digest)
        items.weights.append(weight)
    return items


def item_rows(items: Items) -> list[ItemRow]:
    """Return what of a stretch is neither a record nor a deletion, as rows."""
    columns = zip(items.paths, items.ids, items.digests, items.weights, strict=True)
    return [(path, item_id, digest, weight) for path, item_id, digest, weight in columns if item_id]


def pure_in_order(items: Items) -> Items:
    """Return items, in any order, ascending by path; the records are the same object."""
    order = sorted(range(len(items.paths)), key=items.paths.__getitem__)
    return Items(
        list(map(items.paths.__getitem__, order)),
        list(map(items.ids.__getitem__, order)),
        list(map(items.digests.__getitem__, order)),
        bytearray(map(items.weights.__getitem__, order)),
        items.records,
    )


class Branches(NamedTuple):
    """Closed branches as columns, children before parents."""

    paths: list[bytes]
    records: list[bytes]
    ids: list[bytes]


class _Own(NamedTuple):
    """What a branch that opens at the path of an item has of its own.

    Attributes:
        part: The value part of its record.
        weight: The weight of its value, as one byte; nothing without a value.
        tokens: The tokens of the children that its record has; nothing without a record.
        children: These children.
        weights: Their weights, and anything after those.
    """

    part: bytes
    weight: bytes
    tokens: bytes
    children: bytes
    weights: bytes


_NOTHING: Final = _Own(NO_VALUE, b"", b"", b"", b"")


class Fold:
    """One left-to-right fold over a stream of items that arrives in stretches.

    Args:
        scheme: Gives the hash function and the packing of paths.
        buckets: Whether the branches of buckets are yielded too.
    """

    def __init__(self, scheme: Scheme, *, buckets: bool = False) -> None:
        self._hash = scheme.hash_function
        self._pack, self._bit_lengths = scheme.codec.pack, scheme.codec.bit_lengths
        self._wide_tokens = scheme.branch_factor > 128
        self._least_weight = 0 if buckets else HEAVY
        # The innermost open branch, and those around it: depth, children so far as token ‖ id, and their
        # weights.  A child that was deleted is its token alone.  At depth -1 stands the place of the root,
        # which has no token.
        self._depth = -1
        self._children: list[bytes] = []
        self._weights = bytearray()
        self._outer: list[tuple[int, list[bytes], bytearray]] = []
        # What open branches have of their own, by depth.
        self._opened: dict[int, _Own] = {}
        # Whether any branch may lose children, so that closing one has to look.
        self._shrinks = False
        # The last item waits for the next call, which shows how many tokens it shares with its successor.
        self._last: Items = no_items()

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed.

        Raises:
            ValueError: The stream is not in strictly ascending order; the fold is of no use afterwards.
        """
        self._shrinks = self._shrinks or DELETED in items.ids
        closed = Branches([], [], [])
        for at in range(0, len(items.paths), _PIECE_ITEMS):
            end = at + _PIECE_ITEMS
            paths, ids, digests, weights, records = items
            piece = Items(paths[at:end], ids[at:end], digests[at:end], weights[at:end], records)
            self._feed_piece(piece, closed)
        return closed

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""
        closed = Branches([], [], [])
        if self._last.paths == [b""] and self._last.ids != [None]:
            # The one item of the whole stream, at the empty path, which has no token.
            return self._last.ids[0] or EMPTY_ROOT, closed
        if self._last.paths:
            self._run(self._last, [-1], closed)
        top = self._children[-1][-ID_BYTES:] if self._children else DELETED
        return top if len(top) == ID_BYTES else EMPTY_ROOT, closed

    def _feed_piece(self, piece: Items, closed: Branches) -> None:
        """Fold all of a piece but its last item, and what waited before it."""
        last = self._last
        items = Items(
            last.paths + piece.paths,
            last.ids + piece.ids,
            last.digests + piece.digests,
            last.weights + piece.weights,
            {**last.records, **piece.records} if last.records else piece.records,
        )
        depths = shared_depths(items.paths)
        # What the last item shares with its successor only the next piece shows.
        paths, ids, digests, weights, records = items
        self._last = Items([paths.pop()], [ids.pop()], [digests.pop()], bytearray([weights.pop()]), records)
        self._run(items, depths, closed)

    def _run(self, items: Items, depths: list[int], closed: Branches) -> None:
        """Fold ``items``, of which each shares as many tokens with its successor as ``depths`` says."""
        hash_function, pack, bit_lengths = self._hash, self._pack, self._bit_lengths
        shrinks, opened, tokens, least_weight = self._shrinks, self._opened, TOKENS, self._least_weight
        depth, children, weights, outer = self._depth, self._children, self._weights, self._outer
        ids, own = _branch_openings(items, depths)
        for path, item_id, weight, shared in zip(items.paths, ids, items.weights, depths, strict=True):
            if item_id is None:
                # A branch opens at the item's own path: what the item brings is not a child but the branch's
                # value, or its old record, which wait in ``opened`` until the branch closes.
                outer.append((depth, children, weights))
                depth, children, weights = len(path), [], bytearray()
                opened[depth] = own[path]
            else:
                if shared > depth:
                    # The next item parts from this one below the open branch: another opens there.
                    outer.append((depth, children, weights))
                    depth, children, weights = shared, [], bytearray()
                # Either way the innermost open branch is now the one directly above the item.
                children.append(tokens[path[depth]] + item_id)
                weights.append(weight)
            # The next item lies outside the open branch, so nothing more can come below it: it closes, and so
            # do those around it, up to the one that holds the next item too.
            while shared < depth:
                if shrinks or depth in opened:
                    # Only here may the branch have a value, old children, or too few children left.
                    record, node_id = _settle(children, weights, opened.pop(depth, _NOTHING))
                else:
                    record, node_id = COUNTS[len(children)] + b"".join(children) + NO_VALUE, b""
                total = sum(weights)
                total = total if total <= MAX_WEIGHT else HEAVY
                # Without a record the branch is gone: it handed up its only child's id, or nothing.
                if record:
                    hashed = widened(record) if self._wide_tokens else record
                    node_id = hash_function(hashed + bit_lengths[depth] + pack(path[:depth])).digest()
                    # Without children it is a leaf, whose value stands elsewhere.
                    if record[0] and total >= least_weight:
                        closed.paths.append(path[:depth])
                        closed.records.append(record + weights)
                        closed.ids.append(node_id)
                depth, children, weights = outer.pop()
                if shared > depth:
                    # Between the closed branch and the one around it the next item parts: a branch opens
                    # there, and the closed one is its first child.
                    outer.append((depth, children, weights))
                    depth, children, weights = shared, [], bytearray()
                # At depth -1, the place of the root, the slice is empty.
                children.append(path[depth : depth + 1] + node_id)
                weights.append(total)
        self._depth, self._children, self._weights = depth, children, weights


def shared_depths(paths: list[bytes]) -> list[int]:
    """Return, for each path but the last, how many tokens it shares with its successor.

    Paths are compared as big numbers: where two first differ is the highest bit of their exclusive or.

    Raises:
        ValueError: The paths are not strictly ascending, as they may be when they come from a damaged store.
    """
    if not all(map(lt, paths, islice(paths, 1, None))):
        raise ValueError("the stream is not in strictly ascending order")
    lengths = list(map(len, paths))
    width = max(lengths)
    if min(lengths) == width:
        numbers = list(map(int.from_bytes, paths))
    else:
        numbers = [int.from_bytes(path.ljust(width, b"\0")) for path in paths]
    differences = map(int.bit_length, map(xor, numbers, islice(numbers, 1, None)))
    depths = [width - (bits + 7 >> 3) for bits in differences]
    # Padding makes a path and its extension by zeros alike, so a path shares at most its own length.
    return depths if min(lengths) == width else list(map(min, depths, lengths))


def _branch_openings(items: Items, depths: list[int]) -> tuple[list[bytes | None], dict[bytes, _Own]]:
    """Return the ids, None for each item that opens a branch at its own path, and what these branches have.

    An item does so when it is a record, or when the next item lies below it: then its value is one on a
    branch.
    """
    ids = items.ids
    below = list(map(eq, depths, map(len, items.paths)))
    if True not in below and None not in ids:
        return ids, {}
    opening = [at for at, is_above_next in enumerate(below) if is_above_next or ids[at] is None]
    paths = list(map(items.paths.__getitem__, opening))
    # All old records are split at once.
    split = split_records(map(items.records.get, paths, repeat(NO_RECORD)))
    ids, own = list(ids), {}
    for at, path, (tokens, children, _, weights) in zip(opening, paths, split, strict=True):
        digest = items.digests[at]
        if digest is None:
            own[path] = _Own(NO_VALUE, b"", tokens, children, weights)
        else:
            part, weight = VALUE_HEADERS[len(digest)] + digest, TOKENS[items.weights[at]]
            own[path] = _Own(part, weight, tokens, children, weights)
        ids[at] = None
    return ids, own


def _settle(children: list[bytes], weights: bytearray, own: _Own) -> tuple[bytes, bytes]:
    """Return (record without weights, id) of a branch that closes and may have lost children.

    One of both is empty.  A record without children stands for a leaf.  Where no node is left at all, both
    are empty; where only a single child is left, its id takes the branch's place.

    Args:
        children: The children that items touched.
        weights: Their weights, which become those of the whole branch.
        own: What it has of its own.
    """
    kept, kept_weights, at = [], bytearray(), 0
    tokens, stored, stored_weights = own.tokens, own.children, own.weights
    for child, weight in zip(children, weights, strict=True):
        # Both are sorted by token: what the record has before this child was not touched, and stays.
        place = bisect_left(tokens, child[0], at)
        kept.append(stored[CHILD_BYTES * at : CHILD_BYTES * place])
        kept_weights += stored_weights[at:place]
        if len(child) == CHILD_BYTES:
            kept.append(child)
            kept_weights.append(weight)
        # The record's own child at this token, if it has one, is replaced or deleted: it is passed over.
        at = place + (tokens[place : place + 1] == child[:1])
    kept.append(stored[CHILD_BYTES * at :])
    weights[:] = kept_weights + stored_weights[at : len(tokens)] + own.weight
    merged = b"".join(kept)
    if own.part == NO_VALUE and len(merged) <= CHILD_BYTES:
        return b"", merged[1:]
    return COUNTS[len(merged) // CHILD_BYTES] + merged + own.part, b""


def pure_fold_all(
    scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]
) -> tuple[bytes, Branches]:
    """Fold items and pairs, in any order; return the root and the branches.

    Raises:
        ValueError: Two of them have the same path.
    """
    fold = Fold(scheme)
    closed = fold.feed(pure_in_order(joined(pure_leaves(scheme, keys, values), items)))
    root, last = fold.finish()
    return root, Branches(closed.paths + last.paths, closed.records + last.records, closed.ids + last.ids)


def pure_bucket_branches(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
    """Return the records of all branches that the pairs of a bucket make, by path."""
    fold = Fold(scheme, buckets=True)
    closed = fold.feed(pure_leaves(scheme, keys, values))
    _, last = fold.finish()
    return dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))
