"""The kernel: the part that hashes and folds, pure or compiled, behind the same columns.

The pure one is the specification: ``fold``, ``verifier``, and ``pure_past_rows`` in ``past_branch``.  Its
compiled twin, the package ``merklekernel``, does the same several times faster, with the interpreter lock
released; it is used where it is installed.  Both give the same roots, records, frontiers, and reasons for a
rejection, and tests hold them against each other on random and on hostile streams.

``MERKLESYNC_KERNEL=pure`` or ``=compiled`` in the environment forces either.
"""

import logging
import os
from functools import cache
from types import ModuleType
from typing import Final, Protocol

from merkledb.errors import KernelMissing
from merkledb.fold import Branches, Fold, Items
from merkledb.scheme import EMPTY_ROOT, Scheme

VARIABLE: Final = "MERKLESYNC_KERNEL"
# What the compiled kernel must say of itself: its arguments and results are those that are used here.
_INTERFACE: Final = 1

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


def hash_leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the digest of each value, and the id of each leaf."""
    compiled = twin()
    if compiled is not None:
        digests, ids = compiled.hash_leaves(scheme.hasher, keys, values)
        return digests, ids
    digests = scheme.digests(values)
    return digests, scheme.leaf_ids(keys, digests)


def leaves(scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
    """Return pairs, ascending by key, as the fold's items."""
    digests, ids = hash_leaves(scheme, keys, values)
    return Items(scheme.codec.paths(keys), list(ids), list(digests), {})
