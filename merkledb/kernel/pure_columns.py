"""The pure kernel's functions over whole columns, each of which has a compiled kernel; see ``interface``."""

from typing import Final, TypeAlias

from merkledb.formats.scheme import Scheme
from merkledb.formats.weights import weights_of
from merkledb.kernel.pure_fold import Branches, Fold, Items, joined

_NONE: Final = type(None)
# All keys, those that get a value, their values, the others; the lengths of the longest key and value.
Sorted: TypeAlias = tuple[list[bytes], list[bytes], list[bytes], list[bytes], int, int]


def pure_leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
    """Return pairs as the fold's items, in the same order."""
    digests = scheme.digests(values)
    ids, weights = scheme.leaf_ids(keys, digests), bytearray(weights_of(values))
    return Items(scheme.codec.paths(keys), list(ids), list(digests), weights, {})


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


def pure_bucket_branches(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
    """Return the records of all branches that the pairs of a bucket make, by path."""
    fold = Fold(scheme, buckets=True)
    closed = fold.feed(pure_leaves(scheme, keys, values))
    _, last = fold.finish()
    return dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))


def pure_sort_changes(new: dict[bytes, bytes | None]) -> Sorted:
    """Return all keys, those that get a value, their values, and the others, each ascending by key.

    And the lengths of the longest key and of the longest value.

    Raises:
        TypeError: A key is not bytes, or a value neither bytes nor None.
    """
    value_types = set(map(type, new.values()))
    if not {bytes}.issuperset(map(type, new)) or not {bytes, _NONE}.issuperset(value_types):
        raise TypeError("changes map bytes to bytes, or to None to delete")
    keys = sorted(new)
    deleted = [key for key in keys if new[key] is None] if _NONE in value_types else []
    put_keys = [key for key in keys if new[key] is not None] if deleted else keys
    put_values = [value for value in map(new.__getitem__, put_keys) if value is not None]
    longest_key, longest_value = max(map(len, keys), default=0), max(map(len, put_values), default=0)
    return keys, put_keys, put_values, deleted, longest_key, longest_value
