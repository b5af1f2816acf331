"""A scheme: which hash function and which branch factor give a trie its ids.

Two databases have the same root for the same content only when they have the same scheme.  This module also
holds the two hashes that are taken for every key, in the batch form that the hot paths use.

The id of a node is the hash of

    uvarint(number of children)
    for each child, ascending:   uvarint(token) ‖ child id (32 bytes)
    0x00                         no value, or
    0x01 ‖ uvarint(length of the digest) ‖ digest
    uvarint(path length in bits) ‖ path packed into bytes, zero padded at the end

where the digest of a value is the value itself when shorter than 32 bytes, else its hash.  With sha256
these are the ids of avalanchego's merkledb (``x/merkledb/hashing.go``) and of Firewood.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, Protocol

from blake3 import blake3

from merkledb.errors import InvalidRange, KeyTooLong, ValueTooLong
from merkledb.formats.paths import PathCodec, path_codec

if TYPE_CHECKING:
    from typing_extensions import Buffer

ID_BYTES: Final = 32
EMPTY_ROOT: Final = bytes(ID_BYTES)
# One value must fit into one proof, one frame and one LMDB row; every peer allocates this much for it.
MAX_VALUE_BYTES: Final = 64 * 1024 * 1024

HasherName = Literal["blake3", "sha256"]


class _Hash(Protocol):
    def digest(self) -> bytes: ...


HashFunction = Callable[["Buffer"], _Hash]
_HASH_FUNCTIONS: Final[dict[str, HashFunction]] = {"blake3": blake3, "sha256": sha256}
# What stands before a digest in a node's hash preimage, by the digest's length.
VALUE_HEADERS: Final = [b"\x01" + bytes([length]) for length in range(ID_BYTES + 1)]
NO_VALUE: Final = b"\x00"
_LEAF_HEADERS: Final = [b"\x00" + header for header in VALUE_HEADERS]


@dataclass(frozen=True, slots=True)
class Scheme:
    """The hasher and the branch factor of a trie.

    Args:
        hasher: "blake3" (the default) or "sha256" (avalanchego's and Firewood's ids).
        branch_factor: 2, 4, 16 or 256 children a branch.

    Attributes:
        codec: What turns this scheme's keys into paths.
        hash_function: The constructor of a hash object that has ``digest()``.
        max_key_bytes: The longest key: 63, 126, 252 or 504 bytes at branch factor 2, 4, 16 or 256.

    Raises:
        ValueError: Another hasher or branch factor.
    """

    hasher: HasherName = "blake3"
    branch_factor: int = 16
    # These follow from the two above; looked up once, because every fold and every lookup asks for them.
    codec: PathCodec = field(init=False, repr=False, compare=False)
    hash_function: HashFunction = field(init=False, repr=False, compare=False)
    max_key_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.hasher not in _HASH_FUNCTIONS:
            raise ValueError(f"unknown hasher {self.hasher!r}: use 'blake3' or 'sha256'")
        if self.branch_factor not in (2, 4, 16, 256) or isinstance(self.branch_factor, bool):
            raise ValueError(f"branch factor {self.branch_factor!r} is not possible: use 2, 4, 16 or 256")
        # A frozen dataclass sets its own fields in this way.
        object.__setattr__(self, "codec", path_codec(self.branch_factor))
        object.__setattr__(self, "hash_function", _HASH_FUNCTIONS[self.hasher])
        object.__setattr__(self, "max_key_bytes", self.codec.max_key_bytes)

    def __reduce__(self) -> tuple[type["Scheme"], tuple[str, int]]:
        """Return how a scheme is made again: what follows from its two names is not carried along."""
        return Scheme, (self.hasher, self.branch_factor)

    def __str__(self) -> str:
        return f"{self.hasher} with branch factor {self.branch_factor}"

    def digest(self, value: bytes) -> bytes:
        """Return the digest of one value."""
        return value if len(value) < ID_BYTES else self.hash_function(value).digest()

    def digests(self, values: Sequence[bytes]) -> list[bytes]:
        """Return the digests of many values."""
        hash_function = self.hash_function
        if min(map(len, values), default=0) >= ID_BYTES:
            return [hash_function(value).digest() for value in values]
        return [value if len(value) < ID_BYTES else hash_function(value).digest() for value in values]

    def leaf_ids(self, keys: Sequence[bytes], digests: Sequence[bytes]) -> list[bytes]:
        """Return the id of the leaf of each key with its digest."""
        hash_function = self.hash_function
        lengths = self.codec.key_bit_lengths
        if len(set(map(len, keys))) == 1 and {ID_BYTES}.issuperset(map(len, digests)):
            header, length = _LEAF_HEADERS[ID_BYTES], lengths[len(keys[0])]
            return [
                hash_function(header + digest + length + key).digest()
                for key, digest in zip(keys, digests, strict=True)
            ]
        return [
            hash_function(_LEAF_HEADERS[len(digest)] + digest + lengths[len(key)] + key).digest()
            for key, digest in zip(keys, digests, strict=True)
        ]

    def leaf_id(self, path: bytes, digest: bytes) -> bytes:
        """Return the id of the leaf at the path of a key."""
        return self.leaf_ids([self.codec.pack(path)], [digest])[0]

    def require_key_length(self, longest: int) -> None:
        """Raise KeyTooLong when no database of this scheme can hold a key of so many bytes."""
        if longest > self.max_key_bytes:
            raise KeyTooLong(longest, self.max_key_bytes, self.branch_factor)


def require_value_length(longest: int) -> None:
    """Raise ValueTooLong when no database can hold a value of so many bytes."""
    if longest > MAX_VALUE_BYTES:
        raise ValueTooLong(longest, MAX_VALUE_BYTES)


def require_bytes(name: str, value: object) -> None:
    """Raise TypeError unless ``value``, which ``name`` names, is bytes: not text, nor what may change."""
    if type(value) is not bytes:
        raise TypeError(f"{name} is bytes, not {type(value).__name__}: encode text, and copy what may change")


def require_range(start: bytes | None, end: bytes | None) -> None:
    """Raise InvalidRange when ``start`` lies after ``end``, and TypeError where a bound is no bytes."""
    if start is not None:
        require_bytes("a start", start)
    if end is not None:
        require_bytes("an end", end)
    if start is not None and end is not None and start > end:
        raise InvalidRange(start, end)
