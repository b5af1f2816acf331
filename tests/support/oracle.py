"""A second, plain implementation of tries, range proofs and change proofs, to judge the product by.

It shares no code with the packages it judges and no idea of how they work: the trie is built recursively
from the whole mapping, with every leaf in memory, and a proof is collected from the definition alone.  It
is slow and has no limits. `tests/support/test_oracle.py` checks it against what another project's
implementation made.

Invariants: a node is never changed once built; a node has a value or at least two children, the empty trie
being `None`; paths are held as `bytes`, one token a byte, as in a proof.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import blake3

EMPTY_ROOT = bytes(32)
LONGEST_VERBATIM_VALUE_BYTES = 31

Contents = Mapping[bytes, bytes]
# The new value of each changed key; `None` where it was deleted.
Changes = Mapping[bytes, bytes | None]


class SchemeLike(Protocol):
    """What the oracle needs to know of a scheme; `merkledb.Scheme` has it too."""

    @property
    def hasher(self) -> str: ...

    @property
    def branch_factor(self) -> int: ...


class PlainScheme(NamedTuple):
    """A scheme for tests that do without the product."""

    hasher: str = "sha256"
    branch_factor: int = 16


class PlainBranch(NamedTuple):
    """One node of a proof; equal, as a tuple, to a `merkledb.Branch`."""

    path: bytes
    digest: bytes | None
    children: tuple[tuple[int, bytes], ...]


class PlainProof(NamedTuple):
    """A range proof; equal, as a tuple, to a `merkledb.RangeProof`."""

    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    end: bytes | None
    boundary: tuple[PlainBranch, ...]


class PlainChangeProof(NamedTuple):
    """A change proof; equal, as a tuple, to a `merkledb.ChangeProof`."""

    keys: tuple[bytes, ...]
    values: tuple[bytes | None, ...]
    end: bytes | None
    boundary: tuple[PlainBranch, ...]


class ChangeClaim(Protocol):
    """What the judge looks at of a change proof, whoever made it."""

    @property
    def keys(self) -> Sequence[bytes]: ...

    @property
    def values(self) -> Sequence[bytes | None]: ...

    @property
    def end(self) -> bytes | None: ...

    @property
    def boundary(self) -> Sequence[tuple[bytes, bytes | None, Sequence[tuple[int, bytes]]]]: ...


@dataclass(frozen=True)
class Node:
    """A node of the trie, leaf or branch, with everything below it."""

    path: bytes
    digest: bytes | None
    children: Mapping[int, "Node"]
    id: bytes

    def opened(self) -> PlainBranch:
        """This node with all of its children named by their ids."""
        return PlainBranch(self.path, self.digest, tuple((t, c.id) for t, c in sorted(self.children.items())))


# ------------------------------------------------------------------------------------ paths and hashes


def bits_per_token(scheme: SchemeLike) -> int:
    return {2: 1, 4: 2, 16: 4, 256: 8}[scheme.branch_factor]


def path_of(key: bytes, scheme: SchemeLike) -> bytes:
    """Cut a key into tokens by way of its binary digits."""
    width = bits_per_token(scheme)
    digits = "".join(f"{byte:08b}" for byte in key)
    return bytes(int(digits[at : at + width], 2) for at in range(0, len(digits), width))


def pack(path: bytes, scheme: SchemeLike) -> bytes:
    """Join a path's tokens into bytes, padded with zero bits: also the first key that lies at or below it."""
    digits = "".join(f"{token:0{bits_per_token(scheme)}b}" for token in path)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))


def uvarint(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    return bytes([128 + number % 128]) + uvarint(number // 128)


def hash_of(data: bytes, scheme: SchemeLike) -> bytes:
    if scheme.hasher == "sha256":
        return hashlib.sha256(data).digest()
    return blake3.blake3(data).digest()


def digest_of(value: bytes, scheme: SchemeLike) -> bytes:
    return value if len(value) <= LONGEST_VERBATIM_VALUE_BYTES else hash_of(value, scheme)


def id_of(branch: PlainBranch, scheme: SchemeLike) -> bytes:
    """The id of a node with the given content."""
    content = uvarint(len(branch.children))
    for token, child_id in branch.children:
        content += uvarint(token) + child_id
    if branch.digest is None:
        content += b"\x00"
    else:
        content += b"\x01" + uvarint(len(branch.digest)) + branch.digest
    content += uvarint(len(branch.path) * bits_per_token(scheme)) + pack(branch.path, scheme)
    return hash_of(content, scheme)


# ------------------------------------------------------------------------------------------------ trie


def build(contents: Contents, scheme: SchemeLike) -> Node | None:
    """Build the whole trie of a mapping; `None` when the mapping is empty."""
    pairs = [(path_of(key, scheme), digest_of(contents[key], scheme)) for key in sorted(contents)]
    return _build(pairs, scheme) if pairs else None


def _build(pairs: list[tuple[bytes, bytes]], scheme: SchemeLike) -> Node:
    """Build the node that holds all of the sorted, not empty, list of paths and digests."""
    first, last = pairs[0][0], pairs[-1][0]
    shared = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    digest = None
    if len(first) == shared:
        digest, pairs = pairs[0][1], pairs[1:]
    children = {
        token: _build(list(below), scheme)
        for token, below in itertools.groupby(pairs, key=lambda pair: pair[0][shared])
    }
    named = tuple((token, child.id) for token, child in children.items())
    path = first[:shared]
    return Node(path, digest, children, id_of(PlainBranch(path, digest, named), scheme))


def root_of(contents: Contents, scheme: SchemeLike) -> bytes:
    root = build(contents, scheme)
    return EMPTY_ROOT if root is None else root.id


def nodes_of(node: Node | None) -> Iterator[Node]:
    """All nodes, leaves included, a node before what lies below it, in ascending order of their paths."""
    if node is not None:
        yield node
        for token in sorted(node.children):
            yield from nodes_of(node.children[token])


def nodes_towards(node: Node | None, path: bytes) -> list[Node]:
    """The nodes on a path from the root down, and the one below the edge where the path leaves the trie."""
    if node is None:
        return []
    if not path.startswith(node.path) or path == node.path:
        return [node]
    return [node, *nodes_towards(node.children.get(path[len(node.path)]), path)]


# ---------------------------------------------------------------------------------------------- proofs


@dataclass(frozen=True)
class Bounds:
    """A range of paths, both ends inclusive, `None` meaning unbounded."""

    start: bytes | None
    end: bytes | None

    @classmethod
    def of_keys(cls, start: bytes | None, end: bytes | None, scheme: SchemeLike) -> "Bounds":
        return cls(*(None if key is None else path_of(key, scheme) for key in (start, end)))

    def excludes_value(self, path: bytes) -> bool:
        """Whether the value at a path lies strictly outside."""
        return (self.start is not None and path < self.start) or (self.end is not None and path > self.end)

    def excludes_slot(self, path: bytes) -> bool:
        """Whether everything that can lie below a child slot lies strictly outside."""
        is_left = self.start is not None and path < self.start and not self.start.startswith(path)
        return is_left or (self.end is not None and path > self.end)

    def clip(self, branch: PlainBranch) -> PlainBranch:
        """What is left of a node when only its value and slots strictly outside are kept."""
        digest = branch.digest if self.excludes_value(branch.path) else None
        kept = tuple((t, i) for t, i in branch.children if self.excludes_slot(branch.path + bytes([t])))
        return PlainBranch(branch.path, digest, kept)

    def clip_all(self, branches: Iterable[PlainBranch]) -> tuple[PlainBranch, ...]:
        """Clip nodes into a boundary: ascending, each once, without those of which nothing is left."""
        clipped = (self.clip(branch) for branch in sorted(set(branches), key=lambda branch: branch.path))
        return tuple(branch for branch in clipped if branch.digest is not None or branch.children)


def in_range(key: bytes, start: bytes | None, end: bytes | None) -> bool:
    return (start is None or key >= start) and (end is None or key <= end)


def pairs_in(contents: Contents, start: bytes | None, end: bytes | None) -> dict[bytes, bytes]:
    """The pairs of a range, in ascending order of their keys."""
    return {key: contents[key] for key in sorted(contents) if in_range(key, start, end)}


def boundary_of(
    root: Node | None, start: bytes | None, end: bytes | None, scheme: SchemeLike
) -> tuple[PlainBranch, ...]:
    """The boundary of a range of a trie, by its definition."""
    bounds = Bounds.of_keys(start, end, scheme)
    towards = [path for path in (bounds.start, bounds.end) if path is not None]
    return bounds.clip_all(node.opened() for path in towards for node in nodes_towards(root, path))


def prove_range(
    contents: Contents,
    scheme: SchemeLike,
    start: bytes | None,
    end: bytes | None,
    max_keys: int | None = None,
) -> PlainProof:
    """Prove a range, cut off after `max_keys` pairs (at least 1) where it holds more."""
    pairs = list(pairs_in(contents, start, end).items())
    if max_keys is not None and len(pairs) > max_keys:
        pairs = pairs[:max_keys]
        end = pairs[-1][0]
    boundary = boundary_of(build(contents, scheme), start, end, scheme)
    return PlainProof(tuple(key for key, _ in pairs), tuple(value for _, value in pairs), end, boundary)


# ------------------------------------------------------------------------------------------- changes


def changed(contents: Contents, changes: Changes) -> dict[bytes, bytes]:
    """What a mapping holds after changes were made to it."""
    return {key: value for key, value in {**contents, **changes}.items() if value is not None}


def changes_between(
    old: Contents, new: Contents, start: bytes | None = None, end: bytes | None = None
) -> dict[bytes, bytes | None]:
    """The changes in a range that lead from one mapping to another, in ascending order of their keys."""
    return {
        key: new.get(key)
        for key in sorted({*old, *new})
        if in_range(key, start, end) and old.get(key) != new.get(key)
    }


def prove_changes(
    old: Contents,
    new: Contents,
    scheme: SchemeLike,
    start: bytes | None,
    end: bytes | None,
    max_keys: int | None = None,
) -> PlainChangeProof:
    """Prove the changes of a range, cut off after `max_keys` of them (at least 1) where there are more."""
    changes = list(changes_between(old, new, start, end).items())
    if max_keys is not None and len(changes) > max_keys:
        changes = changes[:max_keys]
        end = changes[-1][0]
    boundary = boundary_of(build(new, scheme), start, end, scheme)
    keys, values = (key for key, _ in changes), (value for _, value in changes)
    return PlainChangeProof(tuple(keys), tuple(values), end, boundary)


def untruth_of(
    proof: ChangeClaim,
    old: Contents,
    new: Contents,
    scheme: SchemeLike,
    start: bytes | None,
    end: bytes | None,
) -> str | None:
    """Say what is untrue of a change proof, from first principles; `None` when all of it is true.

    It is true when it reaches an end that it may have, when its changes turn the old content of the range up
    to there into the new, and when every digest and child that it tells of lies outside and stands so in the
    trie of the new content.
    """
    if proof.end != end and (proof.end is None or not in_range(proof.end, start, end)):
        return "it ends where it may not"
    if list(proof.keys) != sorted({key for key in proof.keys if in_range(key, start, proof.end)}):
        return "its keys are not those of a range, each once and ascending"
    merged = changed(pairs_in(old, start, proof.end), dict(zip(proof.keys, proof.values, strict=True)))
    if merged != pairs_in(new, start, proof.end):
        return "its changes do not lead to the new content"
    nodes = {node.path: node.opened() for node in nodes_of(build(new, scheme))}
    bounds = Bounds.of_keys(start, proof.end, scheme)
    for path, digest, children in proof.boundary:
        if digest is None and not children:
            continue
        node = nodes.get(path)
        if node is None:
            return f"there is no node at {path!r}"
        if digest is not None and (digest != node.digest or not bounds.excludes_value(path)):
            return f"the value at {path!r} is another, or inside"
        for token, child_id in children:
            if (token, child_id) not in node.children or not bounds.excludes_slot(path + bytes([token])):
                return f"the child {token} of {path!r} is another, or inside"
    return None


# ---------------------------------------------------------------------------------------- small worlds


def worlds_over(keys: Iterable[bytes], values: Iterable[bytes]) -> Iterator[dict[bytes, bytes]]:
    """Every mapping from some of the keys to one of the values."""
    choices = (None, *values)
    universe = sorted(keys)
    for chosen in itertools.product(choices, repeat=len(universe)):
        yield {key: value for key, value in zip(universe, chosen, strict=True) if value is not None}


class BruteForceVerifier:
    """Judges claims about a root by looking for it among every trie of a small world.

    Args:
        worlds: every mapping that the root could stand for.
        scheme: how their roots are computed.
    """

    def __init__(self, worlds: Iterable[Contents], scheme: SchemeLike) -> None:
        self._world_of = {root_of(world, scheme): world for world in worlds}

    @property
    def worlds(self) -> Mapping[bytes, Contents]:
        return self._world_of

    def is_true(self, pairs: Contents, root: bytes, start: bytes | None, end: bytes | None) -> bool:
        """Whether the trie with this root holds exactly these pairs in the range."""
        return pairs_in(self._world_of[root], start, end) == dict(pairs)
