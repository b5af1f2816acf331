"""The kernel: the part that hashes and folds, pure or compiled, behind the same columns.

The pure one is the specification: ``fold``, ``walk``, ``verifier``, and the functions that are called pure
here, in ``boundary``, ``record`` and ``past_branch``.  Its compiled twin, the package ``merklekernel``, does
the same several times faster, with the interpreter lock released; it is used where it is installed.  Both
give the same roots, records, frontiers, and reasons for a rejection, and tests hold them against each other
on random and on hostile streams.

``MERKLESYNC_KERNEL=pure`` or ``=compiled`` in the environment forces either.
"""

import logging
import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Final, Protocol, TypeAlias

from merkledb.boundary import pure_trimmed
from merkledb.errors import KernelMissing
from merkledb.fold import Branches, Fold, Items, joined
from merkledb.paths import PathCodec
from merkledb.proof import Branch
from merkledb.record import pure_child_weight
from merkledb.scheme import EMPTY_ROOT, Scheme
from merkledb.walk import Step, Walk
from merkledb.weights import weights_of

VARIABLE: Final = "MERKLESYNC_KERNEL"
# What the compiled kernel must say of itself: its arguments and results are those that are used here.
_INTERFACE: Final = 2

_NONE: Final = type(None)

_log = logging.getLogger(__name__)


@cache
def twin() -> ModuleType | None:
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
    return "pure" if twin() is None else "compiled"


class AnyFold(Protocol):
    """A fold, see ``fold.Fold``."""

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed."""

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""


class CompiledFold:
    """The twin of ``fold.Fold``.

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
    compiled = twin()
    return Fold(scheme) if compiled is None else CompiledFold(compiled, scheme)


class AnyWalk(Protocol):
    """A walk, see ``walk.Walk``."""

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them."""


class CompiledWalk:
    """The twin of ``walk.Walk``.

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
    compiled, codec = twin(), scheme.codec
    return Walk(codec, keys) if compiled is None else CompiledWalk(compiled, codec, keys)


Sorted: TypeAlias = tuple[list[bytes], list[bytes], list[bytes], list[bytes], int, int]


def sort_changes(new: dict[bytes, bytes | None]) -> Sorted:
    """Return all keys, those that get a value, their values, and the others, each ascending by key.

    And the lengths of the longest key and of the longest value.

    Raises:
        TypeError: A key is not bytes, or a value neither bytes nor None.
    """
    compiled = twin()
    if compiled is None:
        return pure_sort_changes(new)
    columns: Sorted = compiled.sort_changes(new)
    return columns


def pure_sort_changes(new: dict[bytes, bytes | None]) -> Sorted:
    """Do the same by the pure kernel."""
    value_types = set(map(type, new.values()))
    if not {bytes}.issuperset(map(type, new)) or not {bytes, _NONE}.issuperset(value_types):
        raise TypeError("changes map bytes to bytes, or to None to delete")
    keys = sorted(new)
    deleted = [key for key in keys if new[key] is None] if _NONE in value_types else []
    put_keys = [key for key in keys if new[key] is not None] if deleted else keys
    put_values = [value for value in map(new.__getitem__, put_keys) if value is not None]
    longest_key, longest_value = max(map(len, keys), default=0), max(map(len, put_values), default=0)
    return keys, put_keys, put_values, deleted, longest_key, longest_value


def hash_leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the digest of each value, and the id of each leaf."""
    compiled = twin()
    if compiled is not None:
        digests, ids = compiled.hash_leaves(scheme.hasher, keys, values)
        return digests, ids
    digests = scheme.digests(values)
    return digests, scheme.leaf_ids(keys, digests)


def fold_all(scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]) -> tuple[bytes, Branches]:
    """Fold items and pairs, in any order; return the root and the branches.

    Raises:
        ValueError: Two of them have the same path.
    """
    compiled = twin()
    if compiled is None:
        return pure_fold_all(scheme, items, keys, values)
    root, closed = compiled.fold_all(scheme.hasher, scheme.branch_factor, *items, keys, values)
    return root or EMPTY_ROOT, Branches(*closed)


def pure_fold_all(
    scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]
) -> tuple[bytes, Branches]:
    """Do the same by the pure kernel."""
    digests = scheme.digests(values)
    ids, weights = scheme.leaf_ids(keys, digests), bytearray(weights_of(values))
    pairs = Items(scheme.codec.paths(keys), list(ids), list(digests), weights, {})
    fold = Fold(scheme)
    closed = fold.feed(pure_in_order(joined(pairs, items)))
    root, last = fold.finish()
    return root, Branches(closed.paths + last.paths, closed.records + last.records, closed.ids + last.ids)


def in_order(items: Items) -> Items:
    """Return items, in any order, ascending by path; the records are the same object."""
    compiled = twin()
    if compiled is None:
        return pure_in_order(items)
    paths, ids, digests, weights = compiled.in_order(*items[:4])
    return Items(paths, ids, digests, weights, items.records)


def pure_in_order(items: Items) -> Items:
    """Do the same by the pure kernel."""
    order = sorted(range(len(items.paths)), key=items.paths.__getitem__)
    return Items(
        list(map(items.paths.__getitem__, order)),
        list(map(items.ids.__getitem__, order)),
        list(map(items.digests.__getitem__, order)),
        bytearray(map(items.weights.__getitem__, order)),
        items.records,
    )


def bucket_branches(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
    """Return the records of all branches that the pairs of a bucket make, by path."""
    compiled = twin()
    if compiled is None:
        return pure_bucket_branches(scheme, keys, values)
    branches: dict[bytes, bytes] = compiled.bucket_branches(scheme.hasher, scheme.branch_factor, keys, values)
    return branches


def pure_bucket_branches(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
    """Do the same by the pure kernel."""
    fold = Fold(scheme, buckets=True)
    closed = fold.feed(leaves(scheme, keys, values))
    _, last = fold.finish()
    return dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))


def child_weight() -> Callable[[bytes, int], int | None]:
    """Return what finds the weight of a record's child at a token, see ``record.pure_child_weight``.

    It raises ValueError, of which the pure twin says why.
    """
    compiled = twin()
    return pure_child_weight if compiled is None else compiled.child_weight


def trimmed(
    paths: list[bytes],
    records: list[bytes | None],
    digests: list[bytes | None],
    start: bytes | None,
    end: bytes | None,
) -> tuple[Branch, ...]:
    """Return what of nodes lies strictly outside a range; see ``boundary.pure_trimmed``."""
    compiled = twin()
    if compiled is not None:
        try:
            boundary: tuple[Branch, ...] = compiled.trimmed(Branch, paths, records, digests, start, end)
        except ValueError:
            # The pure twin says which record is none, and why.
            return pure_trimmed(paths, records, digests, start, end)
        return boundary
    return pure_trimmed(paths, records, digests, start, end)


def leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
    """Return pairs, ascending by key, as the fold's items."""
    digests, ids = hash_leaves(scheme, keys, values)
    weights = bytearray(weights_of(values))
    return Items(scheme.codec.paths(keys), list(ids), list(digests), weights, {})
