"""A second, plain implementation of tries and range proofs, to judge the product by.

It shares no code with the packages it judges and no idea of how they work: the trie is built recursively from
the whole mapping, with every leaf in memory, and a range proof is collected from the definition alone. It is
slow and has no limits. `tests/test_oracle.py` checks it against what another project's implementation made.

Invariants: a node is never changed once built; a node has a value or at least two children, the empty trie
being `None`; paths are held as `bytes`, one token a byte, as in a proof.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import blake3

EMPTY_ROOT = bytes(32)
LONGEST_VERBATIM_VALUE_BYTES = 31

Contents = Mapping[bytes, bytes]


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
