"""The kernel: all that hashes, folds and parses over whole columns, so that it can run compiled.

``Kernel`` is the interface.  Its methods, as they stand here, are the pure kernel, which is the
specification: ``pure_fold``, ``pure_walk``, ``pure_delta``, ``pure_verify`` and ``boundary`` hold the longer
ones.  The compiled kernel, ``compiled.CompiledKernel``, overrides them all.  Both give the same roots,
records, top nodes, and reasons for a rejection; tests hold them against each other on random and on hostile
streams.

``choice.kernel`` returns the one that runs.  No other module asks which one that is.
"""

from typing import Protocol, TypeAlias

from merkledb.formats.branch_record import pure_child_weight
from merkledb.formats.scheme import Scheme
from merkledb.kernel.boundary import pure_trimmed
from merkledb.kernel.pure_delta import pure_delta_rows
from merkledb.kernel.pure_fold import Branches, Fold, Items, joined, pure_leaves
from merkledb.kernel.pure_verify import pure_verify_range
from merkledb.kernel.pure_walk import Step, Walk

# All keys, those that get a value, their values, the others; the lengths of the longest key and value.
Sorted: TypeAlias = tuple[list[bytes], list[bytes], list[bytes], list[bytes], int, int]


class AnyFold(Protocol):
    """A fold, see ``pure_fold.Fold``."""

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed."""

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""


class AnyWalk(Protocol):
    """A walk, see ``pure_walk.Walk``."""

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them."""


class Kernel:
    """The pure kernel, and the interface of both.  It has no state: any thread may use it.

    Attributes:
        name: "pure" or "compiled".
        leaves: Makes items of pairs, see ``pure_fold``.
        child_weight: Finds the weight of a record's child at a token, see ``branch_record``.
        trimmed: Finds what of nodes lies strictly outside a range, see ``boundary``.
        delta_rows: Makes the rows that history keeps of branches, see ``pure_delta``.
        verify_range: Verifies a range proof, see ``pure_verify``.
    """

    name = "pure"
    leaves = staticmethod(pure_leaves)
    child_weight = staticmethod(pure_child_weight)
    trimmed = staticmethod(pure_trimmed)
    delta_rows = staticmethod(pure_delta_rows)
    verify_range = staticmethod(pure_verify_range)

    def fold(self, scheme: Scheme) -> AnyFold:
        """Return a new fold."""
        return Fold(scheme)

    def walk(self, scheme: Scheme, keys: list[bytes]) -> AnyWalk:
        """Return a new walk to where changes lie; ``keys`` are those that change, ascending."""
        return Walk(scheme.codec, keys)

    def fold_all(
        self, scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]
    ) -> tuple[bytes, Branches]:
        """Fold items and pairs, in any order; return the root and the branches.

        Raises:
            ValueError: Two of them have the same path.
        """
        fold = Fold(scheme)
        closed = fold.feed(self.in_order(joined(self.leaves(scheme, keys, values), items)))
        root, last = fold.finish()
        return root, Branches(closed.paths + last.paths, closed.records + last.records, closed.ids + last.ids)

    def in_order(self, items: Items) -> Items:
        """Return items, in any order, ascending by path; the records are the same object."""
        order = sorted(range(len(items.paths)), key=items.paths.__getitem__)
        return Items(
            list(map(items.paths.__getitem__, order)),
            list(map(items.ids.__getitem__, order)),
            list(map(items.digests.__getitem__, order)),
            bytearray(map(items.weights.__getitem__, order)),
            items.records,
        )

    def bucket_branches(self, scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
        """Return the records of all branches that the pairs of a bucket make, by path."""
        fold = Fold(scheme, buckets=True)
        closed = fold.feed(self.leaves(scheme, keys, values))
        _, last = fold.finish()
        return dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))

    def sort_changes(self, new: dict[bytes, bytes | None]) -> Sorted:
        """Return all keys, those that get a value, their values, and the others, each ascending by key.

        And the lengths of the longest key and of the longest value.

        Raises:
            TypeError: A key is not bytes, or a value neither bytes nor None.
        """
        value_types = set(map(type, new.values()))
        if not {bytes}.issuperset(map(type, new)) or not {bytes, type(None)}.issuperset(value_types):
            raise TypeError("changes map bytes to bytes, or to None to delete")
        keys = sorted(new)
        deleted = [key for key in keys if new[key] is None] if type(None) in value_types else []
        put_keys = [key for key in keys if new[key] is not None] if deleted else keys
        put_values = [value for value in map(new.__getitem__, put_keys) if value is not None]
        longest_key, longest_value = max(map(len, keys), default=0), max(map(len, put_values), default=0)
        return keys, put_keys, put_values, deleted, longest_key, longest_value
