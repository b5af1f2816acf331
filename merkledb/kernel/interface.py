"""The kernel: all that hashes, folds and parses over whole columns, so that it can run compiled.

``Kernel`` is the interface.  Its methods, as they stand here, are the pure kernel, which is the
specification: functions of ``pure_fold``, ``pure_walk``, ``pure_verify``, ``boundary`` and the formats.
The compiled kernel, ``compiled.CompiledKernel``, overrides them all.  Both give the same roots, records, top
nodes, and reasons for a rejection; tests hold them against each other on random and on hostile streams.

``choice.kernel`` returns the one that runs.  No other module asks which one that is.
"""

from typing import Protocol

from merkledb.formats.branch_delta import pure_delta_rows
from merkledb.formats.branch_record import pure_child_weight
from merkledb.formats.scheme import Scheme
from merkledb.kernel.boundary import pure_trimmed
from merkledb.kernel.pure_fold import (
    Branches,
    Fold,
    Items,
    pure_bucket_branches,
    pure_fold_all,
    pure_in_order,
    pure_leaves,
)
from merkledb.kernel.pure_verify import pure_verify_range
from merkledb.kernel.pure_walk import Step, Walk, pure_sort_changes


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
        in_order: Sorts items, see ``pure_fold``.
        fold_all: Folds items and pairs at once, see ``pure_fold``.
        bucket_branches: Makes the branches of a bucket, see ``pure_fold``.
        sort_changes: Makes columns of changes, see ``pure_walk``.
        child_weight: Finds the weight of a record's child at a token, see ``branch_record``.
        trimmed: Finds what of nodes lies strictly outside a range, see ``boundary``.
        delta_rows: Makes the rows that history keeps of branches, see ``branch_delta``.
        verify_range: Verifies a range proof, see ``pure_verify``.
    """

    name = "pure"
    leaves = staticmethod(pure_leaves)
    in_order = staticmethod(pure_in_order)
    fold_all = staticmethod(pure_fold_all)
    bucket_branches = staticmethod(pure_bucket_branches)
    sort_changes = staticmethod(pure_sort_changes)
    child_weight = staticmethod(pure_child_weight)
    trimmed = staticmethod(pure_trimmed)
    delta_rows = staticmethod(pure_delta_rows)
    verify_range = staticmethod(pure_verify_range)

    def fold(self, scheme: Scheme) -> AnyFold:
        """Return a new fold."""
        return Fold(scheme)

    def walk(self, scheme: Scheme, keys: list[bytes]) -> AnyWalk:
        """Return a new walk to where changes lie; ``keys`` are those that change, ascending."""
        return Walk(scheme, keys)
