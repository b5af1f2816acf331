"""The kernel: the part that hashes and folds, pure or compiled, behind the same columns.

The pure one is the specification: ``pure_fold``, ``pure_walk``, ``range_verifier``, ``pure_columns``, and
the functions of that name in ``boundary``, ``branch_record`` and ``branch_delta``.  Its compiled kernel,
the package ``merklekernel``, does the same several times faster, with the interpreter lock released; it is
used where it is installed.  Both give the same roots, records, top nodes, and reasons for a rejection, and
tests hold them against each other on random and on hostile streams.

``MERKLESYNC_KERNEL=pure`` or ``=compiled`` in the environment forces either.
"""

import logging
import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Final, Protocol

from merkledb.errors import KernelMissing
from merkledb.formats.branch_record import pure_child_weight
from merkledb.formats.paths import PathCodec
from merkledb.formats.proof import Branch
from merkledb.formats.scheme import EMPTY_ROOT, Scheme
from merkledb.formats.weights import weights_of
from merkledb.kernel.boundary import pure_trimmed
from merkledb.kernel.pure_columns import (
    Sorted,
    pure_bucket_branches,
    pure_fold_all,
    pure_in_order,
    pure_leaves,
    pure_sort_changes,
)
from merkledb.kernel.pure_fold import Branches, Fold, Items
from merkledb.kernel.pure_walk import Step, Walk

VARIABLE: Final = "MERKLESYNC_KERNEL"
# What the compiled kernel must say of itself: its arguments and results are those that are used here.
_INTERFACE: Final = 2

_log = logging.getLogger(__name__)


@cache
def compiled_kernel() -> ModuleType | None:
    """Return the compiled kernel; None when the pure one runs.

    Raises:
        KernelMissing: The environment wants one that cannot be had.
    """
    return load(os.environ.get(VARIABLE, ""))


def load(wanted: str) -> ModuleType | None:
    """Return the compiled kernel, or None for the pure one.

    Args:
        wanted: "pure", "compiled", or nothing for the compiled one where it is there.

    Raises:
        KernelMissing: It is wanted and not there, or something else is wanted.
    """
    if wanted not in ("", "pure", "compiled"):
        raise KernelMissing(f"{VARIABLE} is {wanted!r}: set it to 'pure' or 'compiled', or unset it")
    if wanted == "pure":
        return None
    try:
        import merklekernel  # noqa: PLC0415 - may not be there.
    except ImportError as error:
        if wanted:
            raise KernelMissing(f"the compiled kernel cannot be loaded: {error}") from error
        _log.info("the compiled kernel is not installed: the pure one is used, which is slower")
        return None
    if merklekernel.INTERFACE != _INTERFACE:
        raise KernelMissing(
            f"the compiled kernel has interface {merklekernel.INTERFACE}, not {_INTERFACE}: "
            "install the one that belongs to this release, or uninstall it"
        )
    compiled: ModuleType = merklekernel
    return compiled


def kernel_name() -> str:
    """Return which kernel runs: "compiled" or "pure".

    Raises:
        KernelMissing: The environment wants one that cannot be had.
    """
    return "pure" if compiled_kernel() is None else "compiled"


class AnyFold(Protocol):
    """A fold, see ``pure_fold.Fold``."""

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed."""

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""


class CompiledFold:
    """The twin of ``pure_fold.Fold``.

    Args:
        compiled: The compiled kernel.
        scheme: Gives the hash function and the packing of paths.
    """

    def __init__(self, compiled: ModuleType, scheme: Scheme) -> None:
        self._fold = compiled.Fold(scheme.hasher, scheme.branch_factor)

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed."""
        return Branches(*self._fold.feed(*items))

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""
        root, closed = self._fold.finish()
        return root or EMPTY_ROOT, Branches(*closed)


def new_fold(scheme: Scheme) -> AnyFold:
    """Return a new fold of the kernel that runs."""
    compiled = compiled_kernel()
    return Fold(scheme) if compiled is None else CompiledFold(compiled, scheme)


class AnyWalk(Protocol):
    """A walk, see ``pure_walk.Walk``."""

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them."""


class CompiledWalk:
    """The twin of ``pure_walk.Walk``.

    Args:
        compiled: The compiled kernel.
        codec: Turns keys into paths.
        keys: Those that change, ascending.
    """

    def __init__(self, compiled: ModuleType, codec: PathCodec, keys: list[bytes]) -> None:
        self._walk = compiled.Walk(codec.branch_factor, keys)
        self._codec = codec
        self._keys = keys

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them."""
        try:
            return Step(*self._walk.step(paths, records, lows, highs))
        except ValueError:
            # A record is none: the pure twin says which, and why.
            return Walk(self._codec, self._keys).step(paths, records, lows, highs)


def new_walk(scheme: Scheme, keys: list[bytes]) -> AnyWalk:
    """Return a new walk of the kernel that runs, for changes of ascending keys."""
    compiled, codec = compiled_kernel(), scheme.codec
    return Walk(codec, keys) if compiled is None else CompiledWalk(compiled, codec, keys)


def sort_changes(new: dict[bytes, bytes | None]) -> Sorted:
    """Return changes as columns; see ``pure_columns.pure_sort_changes``."""
    compiled = compiled_kernel()
    if compiled is None:
        return pure_sort_changes(new)
    columns: Sorted = compiled.sort_changes(new)
    return columns


def fold_all(scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]) -> tuple[bytes, Branches]:
    """Fold items and pairs, in any order; see ``pure_columns.pure_fold_all``."""
    compiled = compiled_kernel()
    if compiled is None:
        return pure_fold_all(scheme, items, keys, values)
    root, closed = compiled.fold_all(scheme.hasher, scheme.branch_factor, *items, keys, values)
    return root or EMPTY_ROOT, Branches(*closed)


def in_order(items: Items) -> Items:
    """Return items, in any order, ascending by path; the records are the same object."""
    compiled = compiled_kernel()
    if compiled is None:
        return pure_in_order(items)
    paths, ids, digests, weights = compiled.in_order(*items[:4])
    return Items(paths, ids, digests, weights, items.records)


def bucket_branches(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
    """Return the records of all branches that the pairs of a bucket make, by path."""
    compiled = compiled_kernel()
    if compiled is None:
        return pure_bucket_branches(scheme, keys, values)
    branches: dict[bytes, bytes] = compiled.bucket_branches(scheme.hasher, scheme.branch_factor, keys, values)
    return branches


def child_weight() -> Callable[[bytes, int], int | None]:
    """Return what finds the weight of a record's child at a token, see ``branch_record.pure_child_weight``.

    It raises ValueError, of which the pure twin says why.
    """
    compiled = compiled_kernel()
    return pure_child_weight if compiled is None else compiled.child_weight


def trimmed(
    paths: list[bytes],
    records: list[bytes | None],
    digests: list[bytes | None],
    start: bytes | None,
    end: bytes | None,
) -> tuple[Branch, ...]:
    """Return what of nodes lies strictly outside a range; see ``boundary.pure_trimmed``."""
    compiled = compiled_kernel()
    if compiled is not None:
        try:
            boundary: tuple[Branch, ...] = compiled.trimmed(Branch, paths, records, digests, start, end)
        except ValueError:
            # The pure twin says which record is none, and why.
            return pure_trimmed(paths, records, digests, start, end)
        return boundary
    return pure_trimmed(paths, records, digests, start, end)


def leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
    """Return pairs as the fold's items, in the same order."""
    compiled = compiled_kernel()
    if compiled is None:
        return pure_leaves(scheme, keys, values)
    digests, ids = compiled.hash_leaves(scheme.hasher, keys, values)
    return Items(scheme.codec.paths(keys), ids, digests, bytearray(weights_of(values)), {})
