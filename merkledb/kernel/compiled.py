"""The compiled kernel: each method of ``Kernel`` as one call into the package ``merklekernel``, made in Rust.

It is several times faster than the pure kernel, and releases the interpreter lock while it works.  Where it
refuses something and the caller needs the reason, the pure kernel is asked: it says which record, or which
field of a proof, is invalid, and why.
"""

# ruff: noqa: D102 - each method does what the method of that name does in Kernel, whose docstring it has.

from types import ModuleType

from merkledb.errors import InvalidProof, Reason
from merkledb.formats.branch_delta import DeltaRows
from merkledb.formats.branch_record import weights_of
from merkledb.formats.proof import MAX_BOUNDARY_BRANCHES, Branch, RangeProof
from merkledb.formats.scheme import EMPTY_ROOT, MAX_PATH_TOKENS, MAX_VALUE_BYTES, Scheme
from merkledb.kernel.interface import Kernel
from merkledb.kernel.pure_fold import Branches, Items
from merkledb.kernel.pure_walk import Sorted, Step, Walk


class CompiledFold:
    """A fold as ``pure_fold.Fold`` is."""

    def __init__(self, compiled: ModuleType, scheme: Scheme) -> None:
        self._fold = compiled.Fold(scheme.hasher, scheme.branch_factor)

    def feed(self, items: Items) -> Branches:
        """Take the next stretch of the stream; return the branches that closed."""
        return Branches(*self._fold.feed(*items))

    def finish(self) -> tuple[bytes, Branches]:
        """End the stream; return the root and the branches that were still open."""
        root, closed = self._fold.finish()
        return root or EMPTY_ROOT, Branches(*closed)


class CompiledWalk:
    """A walk as ``pure_walk.Walk`` is."""

    def __init__(self, compiled: ModuleType, scheme: Scheme, keys: list[bytes]) -> None:
        self._walk = compiled.Walk(scheme.branch_factor, keys)
        self._scheme = scheme
        self._keys = keys

    def step(
        self, paths: list[bytes], records: list[bytes | None], lows: list[int], highs: list[int]
    ) -> Step:
        """Open branches as far as changes lie at or below them."""
        try:
            return Step(*self._walk.step(paths, records, lows, highs))
        except ValueError:
            return Walk(self._scheme, self._keys).step(paths, records, lows, highs)


class CompiledKernel(Kernel):
    """The compiled kernel.

    Args:
        compiled: The package ``merklekernel``.
    """

    name = "compiled"

    def __init__(self, compiled: ModuleType) -> None:
        self._compiled = compiled

    def fold(self, scheme: Scheme) -> CompiledFold:
        return CompiledFold(self._compiled, scheme)

    def walk(self, scheme: Scheme, keys: list[bytes]) -> CompiledWalk:
        return CompiledWalk(self._compiled, scheme, keys)

    def leaves(self, scheme: Scheme, keys: list[bytes], values: list[bytes]) -> Items:
        digests, ids = self._compiled.hash_leaves(scheme.hasher, keys, values)
        return Items(scheme.codec.paths(keys), ids, digests, bytearray(weights_of(values)), {})

    def fold_all(
        self, scheme: Scheme, items: Items, keys: list[bytes], values: list[bytes]
    ) -> tuple[bytes, Branches]:
        root, closed = self._compiled.fold_all(scheme.hasher, scheme.branch_factor, *items, keys, values)
        return root or EMPTY_ROOT, Branches(*closed)

    def in_order(self, items: Items) -> Items:
        paths, ids, digests, weights = self._compiled.in_order(*items[:4])
        return Items(paths, ids, digests, weights, items.records)

    def bucket_branches(self, scheme: Scheme, keys: list[bytes], values: list[bytes]) -> dict[bytes, bytes]:
        branches: dict[bytes, bytes] = self._compiled.bucket_branches(
            scheme.hasher, scheme.branch_factor, keys, values
        )
        return branches

    def sort_changes(self, new: dict[bytes, bytes | None]) -> Sorted:
        columns: Sorted = self._compiled.sort_changes(new)
        return columns

    def child_weight(self, data: bytes, token: int) -> int | None:
        weight: int | None = self._compiled.child_weight(data, token)
        return weight

    def trimmed(
        self,
        paths: list[bytes],
        records: list[bytes | None],
        digests: list[bytes | None],
        start: bytes | None,
        end: bytes | None,
    ) -> tuple[Branch, ...]:
        try:
            boundary: tuple[Branch, ...] = self._compiled.trimmed(Branch, paths, records, digests, start, end)
        except ValueError:
            return Kernel.trimmed(paths, records, digests, start, end)
        return boundary

    def delta_rows(self, *arguments: object) -> DeltaRows:
        rows: DeltaRows = self._compiled.delta_rows(*arguments)
        return rows

    def verify_range(
        self,
        proof: RangeProof,
        root: bytes,
        start: bytes | None,
        end: bytes | None,
        scheme: Scheme,
        max_keys: int | None,
        max_bytes: int | None,
    ) -> tuple[dict[bytes, bytes], Items]:
        limits = (MAX_PATH_TOKENS, MAX_VALUE_BYTES, MAX_BOUNDARY_BRANCHES, max_keys, max_bytes)
        try:
            verdict = self._compiled.verify_range(
                (scheme.hasher, scheme.branch_factor), proof, Branch, root, start, end, limits
            )
        except (TypeError, OverflowError):
            # The proof has not the form of one, or a limit is no possible number.
            return Kernel.verify_range(proof, root, start, end, scheme, max_keys, max_bytes)
        if type(verdict[0]) is str:
            raise InvalidProof(Reason[verdict[0]], verdict[1])
        branches, top_nodes = verdict
        paths, ids, digests, weights = top_nodes
        return branches, Items(paths, ids, digests, weights, {})
