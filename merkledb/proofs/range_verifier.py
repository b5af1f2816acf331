"""Verifying range proofs: a pure function of its arguments, without a database, a network or a clock.

What makes a proof sound, rule by rule, is in ``kernel.pure_verify``, which runs compiled where it can.  Here
stands what a caller gets.

Only ``verify_range`` makes a VerifiedRange, and only a VerifiedRange can be applied to a database.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import Final, NoReturn

from merkledb.arguments import require_instance
from merkledb.errors import InvalidProof, Reason
from merkledb.formats.proof import RangeProof, require_claim
from merkledb.formats.scheme import Scheme
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import Items, sealed
from merkledb.kernel.pure_verify import RequestedRange, next_keys

# What a sealed class is made with; its only users are the verifiers.
SEAL: Final = object()
_DEFAULT_SCHEME: Final = Scheme()
# A pair in memory takes about so much beside its bytes: objects, and its part of the branches above it.
_PAIR_OVERHEAD_BYTES: Final = 256


@dataclass(frozen=True, eq=False, repr=False)
class VerifiedRange:
    """What a range proof has shown to be true at a root.  Made by ``verify_range`` alone, and never changed.

    Attributes:
        scheme: The scheme of the trie.
        root: The root that the pairs belong to.
        start: The start of the range; None for no bound.
        end: The end that was proved: the requested one, or the last key carried; None for no bound.
        complete: Whether ``end`` is the end that was requested.
        keys: The keys in [start, end], ascending: all that there are.
        values: Their values.
        next_keys: The first possible key of each populated slot after ``end`` and within what was requested,
            ascending: where the rest of the range can be split.
        branches: The records of the stored branches wholly inside the range, by path.
        top_nodes: What the range is, as items of the fold: the topmost of these branches, and the leaves that
            lie under none of them.
    """

    seal: InitVar[object]
    scheme: Scheme
    root: bytes
    start: bytes | None
    end: bytes | None
    complete: bool
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    next_keys: tuple[bytes, ...]
    branches: Mapping[bytes, bytes]
    top_nodes: Items

    def __post_init__(self, seal: object) -> None:
        if seal is not SEAL:
            raise TypeError("a VerifiedRange comes from verify_range, never from a constructor")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a VerifiedRange cannot be pickled: send the proof, and verify it again")

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"VerifiedRange({len(self)} pairs, {self.start!r} to {self.end!r}, root {self.root.hex()})"

    @property
    def value_bytes(self) -> int:
        """What the values take together."""
        return sum(map(len, self.values))

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes."""
        return self.value_bytes + sum(map(len, self.keys)) + _PAIR_OVERHEAD_BYTES * len(self)


def verify_range(
    proof: RangeProof,
    root: bytes,
    start: bytes | None = None,
    end: bytes | None = None,
    *,
    scheme: Scheme | None = None,
    max_keys: int | None = None,
    max_bytes: int | None = None,
) -> VerifiedRange:
    """Return what ``proof`` shows about the range [start, end] of the trie with ``root``.

    Args:
        proof: What a peer sent, decoded; nothing of it is trusted.
        root: A root that comes from someone you trust, 32 bytes.
        start: The start that was asked for, inclusive; None for no bound.
        end: The end that was asked for, inclusive; None for no bound.
        scheme: The scheme of the trie; Scheme() when not given.
        max_keys: The limit of pairs that was asked for, if any.
        max_bytes: The limit of encoded bytes that was asked for, if any.

    Raises:
        InvalidProof: The proof does not show that; its ``reason`` says why.
        InvalidRange: ``start`` lies after ``end``, which is the caller's mistake, as are all that follow.
        BoundTooLong: One of them has more than 1,024 bytes.
        TypeError: The proof is none, the root or a bound is not bytes, a limit is not an int, or the scheme
            is no Scheme.
        ValueError: The root has not 32 bytes, or a limit is negative.

    Cost: about 3 µs a pair with the pure kernel, 0.4 with the compiled one, and no more memory than a few
    times the proof.
    """
    if not isinstance(proof, tuple):
        raise TypeError(f"a proof is what RangeProof.decode returns, not {type(proof).__name__}")
    if type(proof) is not RangeProof:
        raise InvalidProof(Reason.MALFORMED, "it is no range proof")
    require_claim(root, start, end, max_keys, max_bytes)
    scheme = _DEFAULT_SCHEME if scheme is None else scheme
    require_instance("scheme", scheme, Scheme)
    branches, top_nodes = kernel().verify_range(proof, root, start, end, scheme, max_keys, max_bytes)
    complete = proof.end == end
    request = None if complete else RequestedRange(scheme, root, start, end, proof.end)
    return VerifiedRange(
        seal=SEAL,
        scheme=scheme,
        root=root,
        start=start,
        end=proof.end,
        complete=complete,
        keys=proof.keys,
        values=proof.values,
        next_keys=() if request is None else tuple(next_keys(proof, request)),
        branches=MappingProxyType(branches),
        top_nodes=sealed(top_nodes),
    )
