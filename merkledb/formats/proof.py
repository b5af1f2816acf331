"""Range proofs, change proofs, and their encoding.

A range proof for a root holds the pairs in ``[start, end]`` and the *boundary*: of the branches on the
paths of start and of end, the digests and child ids strictly outside the range.  With both, anybody can
fold the whole trie again and compare its root.  What a proof claims: at this root, the pairs of ``[start,
end]`` are these, all of them, and no others.  What it does not claim: that the root is the one you want, or
that it is recent.

A change proof from one root to another holds the changed keys of ``[start, end]`` and the boundary at the new
root.  What it claims: whoever has the pairs of the old root there, and makes these changes, has those of the
new root.  Who wants to check it needs these pairs.

A proof is encoded as one msgpack array:

    [keys, values, end, boundary]
    keys, values    arrays of bin, of equal length, keys ascending;
                    in a change proof the value of a deleted key is nil
    end             bin, or nil for "up to the last key"
    boundary        array of [shared, rest, digest, tokens, ids], ascending by path
        shared      how many leading tokens the path shares with the path before it (0 for the first)
        rest        bin: the other tokens of the path, one a byte
        digest      bin, or nil where the branch has no value or it is not needed
        tokens      bin: the tokens of the children, one a byte
        ids         bin: the children's ids, 32 bytes each, end to end

The encoding is canonical: what decodes, encodes to the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgpack

from merkledb.arguments import require_whole
from merkledb.errors import BoundTooLong, InvalidProof, Reason
from merkledb.formats.scheme import ID_BYTES, MAX_PATH_TOKENS, require_range, require_root, shared_depth

# More pairs than this in one proof gain nothing, and a decoder allocates a list before it sees the pairs.
MAX_PROOF_KEYS: Final = 65_536
# A boundary is two paths from the top, each with at most a branch for every token, and the node it ends at.
MAX_BOUNDARY_BRANCHES: Final = 2 * (MAX_PATH_TOKENS + 2)

# A bound may be longer than any key; what is longer than this is no bound on the wire either.
MAX_BOUND_BYTES: Final = 1024
MAX_BRANCH_CHILDREN: Final = 256
_BYTES_OR_NONE: Final = frozenset((bytes, type(None)))


class Branch(NamedTuple):
    """A node of the boundary, as far as it lies outside the range.

    Attributes:
        path: Its full path, one token a byte.
        digest: The digest of its value; None when it has none, or none outside the range.
        children: (token, id) of the child slots outside the range, ascending.
    """

    path: bytes
    digest: bytes | None
    children: tuple[tuple[int, bytes], ...]


class RangeProof(NamedTuple):
    """The pairs of a range, and what proves that these are all of them.

    Attributes:
        keys: Strictly ascending.
        values: As many as keys.
        end: How far the proof reaches: the requested end, or the last key carried when it was cut off;
            None for no bound.
        boundary: Ascending by path.
    """

    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    end: bytes | None
    boundary: tuple[Branch, ...]

    def encode(self) -> bytes:
        """Return the proof as bytes for the wire or a file."""
        return _encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the proof that ``encode`` made ``data`` from.

        Only the form is checked here; ``verify_range`` checks what the proof says.

        Raises:
            InvalidProof: With Reason.MALFORMED; the bytes are not the canonical encoding of any proof.
            TypeError: ``data`` is not made of bytes, which is the caller's mistake and no peer's.
        """
        return _decode(cls, data)


class ChangeProof(NamedTuple):
    """The changes of a range from one root to another, and what proves that these are all of them.

    Attributes:
        keys: Strictly ascending.
        values: As many as keys: the new value, or None for a deletion.
        end: How far the proof reaches: the requested end; or any key before it, at or after the last one
            carried, where the prover ended it; None for no bound.
        boundary: At the new root; ascending by path.
    """

    keys: tuple[bytes, ...]
    values: tuple[bytes | None, ...]
    end: bytes | None
    boundary: tuple[Branch, ...]

    def encode(self) -> bytes:
        """Return the proof as bytes for the wire or a file."""
        return _encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the proof that ``encode`` made ``data`` from.

        Only the form is checked here; ``Database.verify_changes`` checks what the proof says.

        Raises:
            InvalidProof: With Reason.MALFORMED; the bytes are not the canonical encoding of any proof.
            TypeError: ``data`` is not bytes, which is the caller's mistake and no peer's.
        """
        return _decode(cls, data)


AnyProof = RangeProof | ChangeProof
_Proof = TypeVar("_Proof", bound=AnyProof)


def _encode(proof: AnyProof) -> bytes:
    encoded: bytes = msgpack.packb((proof.keys, proof.values, proof.end, _pack_boundary(proof.boundary)))
    return encoded


def _decode(kind: type[_Proof], data: bytes) -> _Proof:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"an encoded proof is bytes, not {type(data).__name__}")
    try:
        proof = kind(*_unpack(data))
    except msgpack.OutOfData as error:
        raise InvalidProof(Reason.MALFORMED, "it ends too early") from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidProof(Reason.MALFORMED, str(error) or "it is not an encoded proof") from error
    require_form(proof)
    if proof.encode() != data:
        raise InvalidProof(Reason.MALFORMED, "the encoding is not canonical")
    return proof


def encoded_bin_bytes(length: int) -> int:
    """Return how many bytes msgpack takes for a bin of ``length`` bytes."""
    return length + (2 if length < 1 << 8 else 3 if length < 1 << 16 else 5)


def encoded_value_bytes(value: bytes | None) -> int:
    """Return how many bytes a key or a value takes in an encoded proof; None is a deletion."""
    return 1 if value is None else encoded_bin_bytes(len(value))


def encoded_column_bytes(keys: Sequence[bytes], values: Sequence[bytes | None]) -> int:
    """Return how many bytes keys and values take in an encoded proof, without the headers of the arrays."""
    lengths = list(map(len, keys))
    lengths += [len(value) for value in values if value is not None]
    deleted = len(keys) + len(values) - len(lengths)
    if max(lengths, default=0) < 1 << 8:
        return deleted + sum(lengths) + 2 * len(lengths)
    return deleted + sum(map(encoded_bin_bytes, lengths))


def encoded_proof_bytes(
    pair_count: int, pair_bytes: int, end: bytes | None, boundary: Iterable[Branch]
) -> int:
    """Return how many bytes ``encode`` will make, without making them.

    Args:
        pair_count: How many pairs the proof carries.
        pair_bytes: What keys and values take together, see ``encoded_column_bytes``.
        end: The proof's end.
        boundary: The proof's boundary.
    """
    end_bytes = 1 if end is None else encoded_bin_bytes(len(end))
    return 1 + 2 * _array_header_bytes(pair_count) + pair_bytes + end_bytes + encoded_boundary_bytes(boundary)


def encoded_boundary_bytes(boundary: Iterable[Branch]) -> int:
    """Return how many bytes a boundary takes in an encoded proof."""
    branches = list(boundary)
    size, before = _array_header_bytes(len(branches)), b""
    for path, digest, children in branches:
        shared = shared_depth(before, path)
        size += 1 + _uint_bytes(shared) + encoded_bin_bytes(len(path) - shared) + encoded_value_bytes(digest)
        size += encoded_bin_bytes(len(children)) + encoded_bin_bytes(ID_BYTES * len(children))
        before = path
    return size


def _uint_bytes(number: int) -> int:
    return 1 if number < 1 << 7 else 2 if number < 1 << 8 else 3


def _array_header_bytes(length: int) -> int:
    return 1 if length < 16 else 3 if length < 1 << 16 else 5


def _pack_boundary(boundary: Iterable[Branch]) -> list[Any]:
    packed, before = [], b""
    for path, digest, children in boundary:
        shared = shared_depth(before, path)
        tokens = bytes([token for token, _ in children])
        packed.append((shared, path[shared:], digest, tokens, b"".join([node_id for _, node_id in children])))
        before = path
    return packed


def _unpack(data: bytes) -> tuple[tuple[Any, ...], tuple[Any, ...], Any, tuple[Branch, ...]]:
    """Return the fields of an encoded proof, of whatever types they are.

    The known arrays are walked header by header, and any other array is refused: a decoder that follows
    nested headers allocates for each of them before it has seen a single element.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(data), max_array_len=0, max_map_len=0, max_ext_len=0, max_str_len=0
    )
    unpacker.feed(data)
    if unpacker.read_array_header() != 4:
        raise ValueError("a proof is an array of keys, values, end and boundary")
    keys = _unpack_column(unpacker, MAX_PROOF_KEYS)
    values = _unpack_column(unpacker, MAX_PROOF_KEYS)
    end = unpacker.unpack()
    return keys, values, end, tuple(_unpack_boundary(unpacker))


def _unpack_column(unpacker: msgpack.Unpacker, most: int) -> tuple[Any, ...]:
    count = unpacker.read_array_header()
    if count > most:
        raise ValueError(f"an array of {count} is over the limit of {most}")
    column = tuple(islice(unpacker, count))
    if len(column) != count:
        raise ValueError("it ends inside an array")
    return column


def _unpack_boundary(unpacker: msgpack.Unpacker) -> Iterator[Branch]:
    count = unpacker.read_array_header()
    if count > MAX_BOUNDARY_BRANCHES:
        raise ValueError(f"a boundary has at most {MAX_BOUNDARY_BRANCHES} branches")
    before = b""
    for _ in range(count):
        shared, rest, digest, tokens, ids = _unpack_column(unpacker, 5)
        if type(shared) is not int or not 0 <= shared <= len(before):
            raise ValueError("a boundary path shares more than there is")
        if type(rest) is not bytes or type(tokens) is not bytes or type(ids) is not bytes:
            raise ValueError("a branch is made of bytes")
        if shared + len(rest) > MAX_PATH_TOKENS:
            raise ValueError(f"a path has at most {MAX_PATH_TOKENS} tokens")
        if len(tokens) > MAX_BRANCH_CHILDREN:
            raise ValueError(f"a branch has at most {MAX_BRANCH_CHILDREN} children")
        if len(ids) != ID_BYTES * len(tokens):
            raise ValueError("a branch has an id of 32 bytes for each token")
        before = before[:shared] + rest
        children = tuple((token, ids[ID_BYTES * at : ID_BYTES * (at + 1)]) for at, token in enumerate(tokens))
        yield Branch(before, digest, children)


def require_form(proof: AnyProof) -> None:
    """Raise unless every field of ``proof`` has the type that it is annotated with, down to the last token.

    Raises:
        InvalidProof: With Reason.MALFORMED.
    """
    value_types = _BYTES_OR_NONE if isinstance(proof, ChangeProof) else {bytes}
    for column, types in ((proof.keys, {bytes}), (proof.values, value_types)):
        if type(column) is not tuple or not types.issuperset(map(type, column)):
            raise InvalidProof(Reason.MALFORMED, "keys and values are tuples of bytes")
    if len(proof.keys) != len(proof.values):
        raise InvalidProof(Reason.MALFORMED, f"{len(proof.keys)} keys but {len(proof.values)} values")
    if type(proof.end) not in _BYTES_OR_NONE:
        raise InvalidProof(Reason.MALFORMED, "an end is bytes or None")
    if type(proof.boundary) is not tuple or len(proof.boundary) > MAX_BOUNDARY_BRANCHES:
        raise InvalidProof(
            Reason.MALFORMED, f"a boundary is a tuple of at most {MAX_BOUNDARY_BRANCHES} branches"
        )
    if not all(map(_is_branch, proof.boundary)):
        raise InvalidProof(Reason.MALFORMED, "a branch is a path, a digest or None, and children")


def _is_branch(branch: object) -> bool:
    return (
        type(branch) is Branch
        and type(branch.path) is bytes
        and type(branch.digest) in _BYTES_OR_NONE
        and type(branch.children) is tuple
        and all(map(_is_child, branch.children))
    )


def _is_child(child: object) -> bool:
    return type(child) is tuple and len(child) == 2 and type(child[0]) is int and type(child[1]) is bytes


def require_limits(max_keys: object, max_bytes: object) -> None:
    """Raise where no proof can be made within limits.

    Raises:
        TypeError: One of them is not an int.
        ValueError: ``max_keys`` is below 1, or ``max_bytes`` negative.
    """
    _require_limit("max_keys", max_keys, 1, "a proof that makes progress carries at least one pair")
    _require_limit("max_bytes", max_bytes, 0, "a proof has no fewer bytes than none")


def require_claim(
    root: object, start: bytes | None, end: bytes | None, max_keys: object, max_bytes: object
) -> None:
    """Raise where what a proof is held against is the caller's mistake, so that it is blamed on no peer.

    Args:
        root: The trusted root.
        start: The start that was asked for; None for no bound.
        end: The end that was asked for; None for no bound.
        max_keys: The limit that was asked for; None for none.
        max_bytes: The same of bytes.

    Raises:
        TypeError, ValueError, InvalidRange, BoundTooLong
    """
    require_root(root)
    require_bounds(start, end)
    for name, limit in (("max_keys", max_keys), ("max_bytes", max_bytes)):
        if limit is not None:
            _require_limit(name, limit, 0, "a limit is at least 0, or None")


def require_bounds(start: bytes | None, end: bytes | None) -> None:
    """Raise unless a proof can be about [start, end].

    Raises:
        TypeError, InvalidRange: As ``require_range``.
        BoundTooLong: One of them has more than MAX_BOUND_BYTES.
    """
    require_range(start, end)
    for name, bound in (("a start", start), ("an end", end)):
        if bound is not None and len(bound) > MAX_BOUND_BYTES:
            raise BoundTooLong(name, len(bound), MAX_BOUND_BYTES)


def _require_limit(name: str, limit: object, least: int, why: str) -> None:
    if require_whole(name, limit) < least:
        raise ValueError(f"{name} is {limit}: {why}")
