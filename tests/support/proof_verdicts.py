"""The oracle's proofs in the product's types, and the product's verdict on any proof.

Also *tellings*: ways to tell a trie with some of its nodes opened and others left closed, as stubs in their
slots or moved below them. A telling holds only true ids and reaches the true root: there is no better lie.
"""

from collections.abc import Mapping
from typing import NamedTuple

from merkledb import (
    Branch,
    ChangeProof,
    Database,
    InvalidProof,
    RangeProof,
    Reason,
    Scheme,
    VerifiedChanges,
    VerifiedRange,
    verify_range,
)
from tests.support import oracle
from tests.support.oracle import Bounds, Contents, Node

Bound = bytes | None


def boundary_of(root: Node | None, start: Bound, end: Bound, scheme: Scheme) -> tuple[Branch, ...]:
    return tuple(Branch(*branch) for branch in oracle.boundary_of(root, start, end, scheme))


def proof_of(
    store: Contents, scheme: Scheme, start: Bound = None, end: Bound = None, max_keys: int | None = None
) -> RangeProof:
    """The honest proof of a range of a store, by definition."""
    keys, values, proven_end, boundary = oracle.prove_range(store, scheme, start, end, max_keys)
    return RangeProof(keys, values, proven_end, tuple(Branch(*branch) for branch in boundary))


def rejection(proof: RangeProof, root: bytes, start: Bound, end: Bound, scheme: Scheme) -> Reason | None:
    """Why the product rejects a proof; `None` when it accepts it, whole and unchanged."""
    try:
        verified = verify_range(proof, root, start, end, scheme=scheme)
    except InvalidProof as error:
        return error.reason
    assert (verified.keys, verified.values, verified.end) == proof[:3]
    return None


def change_proof_of(
    old: Contents,
    new: Contents,
    scheme: Scheme,
    start: Bound = None,
    end: Bound = None,
    max_keys: int | None = None,
) -> ChangeProof:
    """The honest proof of what leads from one store to another in a range, by definition."""
    keys, values, proven_end, boundary = oracle.prove_changes(old, new, scheme, start, end, max_keys)
    return ChangeProof(keys, values, proven_end, tuple(Branch(*branch) for branch in boundary))


def change_rejection(
    local: Database, proof: ChangeProof, root: bytes, start: Bound, end: Bound
) -> Reason | None:
    """Why the product rejects a change proof beside a local content; `None` when it accepts it, unchanged."""
    try:
        verified = local.verify_changes(proof, root, start, end)
    except InvalidProof as error:
        return error.reason
    assert (verified.keys, verified.values, verified.end) == proof[:3]
    return None


def overlaid(local: Contents, verified: VerifiedRange | VerifiedChanges) -> dict[bytes, bytes]:
    """What a store holds after the content of a range was replaced, or changed, as was verified."""
    told = dict(zip(verified.keys, verified.values, strict=True))
    if isinstance(verified, VerifiedChanges):
        return oracle.changed(local, told)
    kept = {key: local[key] for key in local if not oracle.in_range(key, verified.start, verified.end)}
    return oracle.changed(kept, told)


class Telling(NamedTuple):
    """A way to tell a trie, or a part of it.

    Attributes:
        shown: Paths of the values that are told.
        stubs: Path and id of the nodes that are left closed.
        in_slots: Whether every stub has the path of its own slot.
    """

    shown: tuple[bytes, ...] = ()
    stubs: tuple[tuple[bytes, bytes], ...] = ()
    in_slots: bool = True

    def and_also(self, other: "Telling") -> "Telling":
        return Telling(self.shown + other.shown, self.stubs + other.stubs, self.in_slots and other.in_slots)

    def is_sound(self, bounds: Bounds) -> bool:
        """Whether a verifier of this range may accept it: it cannot hide a key of the range."""
        return self.in_slots and all(bounds.excludes_slot(path) for path, _ in self.stubs)

    def proof(self, store: Contents, start: Bound, end: Bound, scheme: Scheme) -> RangeProof:
        """Put it into the form of a range proof: values inside the range as pairs, all else as boundary."""
        pairs, boundary = self._parts(store, start, end, scheme)
        return RangeProof(tuple(pairs), tuple(pairs.values()), end, boundary)

    def change_proof(
        self, old: Contents, store: Contents, start: Bound, end: Bound, scheme: Scheme
    ) -> ChangeProof:
        """Put it into the form of a change proof from an old content: what it does not tell is deleted."""
        pairs, boundary = self._parts(store, start, end, scheme)
        changes = oracle.changes_between(oracle.pairs_in(old, start, end), pairs)
        return ChangeProof(tuple(changes), tuple(changes.values()), end, boundary)

    def _parts(
        self, store: Contents, start: Bound, end: Bound, scheme: Scheme
    ) -> tuple[dict[bytes, bytes], tuple[Branch, ...]]:
        values = {oracle.path_of(key, scheme): (key, value) for key, value in store.items()}
        told = dict(values[path] for path in self.shown)
        pairs = oracle.pairs_in(told, start, end)
        digests = {
            path: oracle.digest_of(value, scheme)
            for path, (key, value) in values.items()
            if key in told and key not in pairs
        }
        return pairs, self._boundary(digests)

    def _boundary(self, digests: Mapping[bytes, bytes]) -> tuple[Branch, ...]:
        children: dict[bytes, list[tuple[int, bytes]]] = {}
        for path, node_id in sorted(self.stubs):
            children.setdefault(path[:-1], []).append((path[-1], node_id))
        paths = sorted(digests.keys() | children.keys())
        return tuple(Branch(path, digests.get(path), tuple(children.get(path, ()))) for path in paths)
