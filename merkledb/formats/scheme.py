"""A scheme: the branch factor that makes keys paths, and the hash function that makes nodes ids.

Two databases have the same root for the same content only when they have the same scheme.  No other module
knows how many bits a token has, or how a node is hashed.

A path is a key cut into tokens of log2(branch factor) bits, held as bytes with one token a byte.  Paths sort
exactly as the keys they come from, a prefix before what extends it.

    key      0x61 0x62                 "ab"
    path     6 1 6 2                   branch factor 16: four tokens
    packed   of the path 6 1 6: 0x61 0x60, three tokens zero padded to whole bytes

The id of a node is the hash of

    uvarint(number of children)
    for each child, ascending:   uvarint(token) ‖ child id (32 bytes)
    0x00                         no value, or
    0x01 ‖ uvarint(length of the digest) ‖ digest
    uvarint(path length in bits) ‖ path packed into bytes, zero padded at the end

where the digest of a value is the value itself when shorter than 32 bytes, else its hash.  With sha256
these are the ids of avalanchego's merkledb (``x/merkledb/hashing.go``) and of Firewood.
"""

from binascii import hexlify, unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal, Protocol

from blake3 import blake3

from merkledb.arguments import require_bytes
from merkledb.errors import InvalidRange, KeyTooLong, ValueTooLong

if TYPE_CHECKING:
    from typing_extensions import Buffer

ID_BYTES: Final = 32
EMPTY_ROOT: Final = bytes(ID_BYTES)
# One value must fit into one proof, one frame and one LMDB row; every peer allocates this much for it.
MAX_VALUE_BYTES: Final = 64 * 1024 * 1024
# LMDB 0.9 allows 511 bytes a row key.  A row key of the history of branches has seven bytes of a sequence
# number and one byte a token.
MAX_PATH_TOKENS: Final = 504

_HEX = b"0123456789abcdef"
_TOKEN_OF_HEX = bytes.maketrans(_HEX, bytes(range(16)))
_HEX_OF_TOKEN = bytes.maketrans(bytes(range(16)), _HEX)

HasherName = Literal["blake3", "sha256"]


class _Hash(Protocol):
    def digest(self) -> bytes: ...


HashFunction = Callable[["Buffer"], _Hash]
_HASH_FUNCTIONS: Final[dict[str, HashFunction]] = {"blake3": blake3, "sha256": sha256}
# What stands before a digest in a node's hash preimage, by the digest's length.
VALUE_HEADERS: Final = [b"\x01" + bytes([length]) for length in range(ID_BYTES + 1)]
NO_VALUE: Final = b"\x00"
_LEAF_HEADERS: Final = [b"\x00" + header for header in VALUE_HEADERS]


def uvarint(number: int) -> bytes:
    """Return ``number`` (at least 0) in the little-endian base-128 form that node ids are hashed over."""
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def prefix_end(path: bytes) -> bytes | None:
    """Return the smallest bytes after everything that starts with ``path``.

    None when nothing lies after.
    """
    trimmed = path.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def shared_depth(first: bytes, second: bytes) -> int:
    """Return how many leading tokens two paths share."""
    limit = min(len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    difference = int.from_bytes(first[:limit]) ^ int.from_bytes(second[:limit])
    return limit - (difference.bit_length() + 7) // 8


class _BitLengths(dict[int, bytes]):
    """The uvarint of a length in bits, by the length in tokens or bytes; made when first asked for."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._bits = bits

    def __missing__(self, length: int) -> bytes:
        encoded = self[length] = uvarint(self._bits * length)
        return encoded


class PathCodec:
    """Turns keys into paths and paths into packed bytes, for one branch factor.

    Attributes:
        branch_factor: 2, 4, 16 or 256.
        token_bits: Bits of a token: 1, 2, 4 or 8.
        max_key_bytes: The longest key whose path fits into MAX_PATH_TOKENS.
        bit_lengths: The uvarint of a path's length in bits, by its length in tokens.
        key_bit_lengths: The same by a key's length in bytes.
    """

    def __init__(self, branch_factor: int) -> None:
        self.branch_factor = branch_factor
        self.token_bits = branch_factor.bit_length() - 1
        self.tokens_per_byte = 8 // self.token_bits
        self.max_key_bytes = MAX_PATH_TOKENS // self.tokens_per_byte
        self.bit_lengths = _BitLengths(self.token_bits)
        self.key_bit_lengths = _BitLengths(8)
        self._tokens_of_byte = [self._split(byte) for byte in range(256)]

    def _split(self, byte: int) -> bytes:
        """Return the tokens of one byte, the most significant first."""
        shifts = range(8 - self.token_bits, -1, -self.token_bits)
        return bytes(byte >> shift & self.branch_factor - 1 for shift in shifts)

    def path(self, key: bytes) -> bytes:
        """Return the path of ``key``."""
        if self.branch_factor == 16:
            return hexlify(key).translate(_TOKEN_OF_HEX)
        if self.branch_factor == 256:
            return key
        return b"".join(map(self._tokens_of_byte.__getitem__, key))

    def paths(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the paths of many keys: all are cut into tokens at once."""
        if self.branch_factor == 256:
            return list(keys)
        tokens = BytesIO(self.path(b"".join(keys)))
        return list(map(tokens.read, map(self.tokens_per_byte.__mul__, map(len, keys))))

    def pack(self, path: bytes) -> bytes:
        """Return ``path`` packed into bytes, zero padded at the end; for the path of a key, that key."""
        if self.branch_factor == 16:
            return unhexlify((path + b"\0" if len(path) & 1 else path).translate(_HEX_OF_TOKEN))
        if self.branch_factor == 256:
            return path
        padding = -len(path) % self.tokens_per_byte
        digits = (path + bytes(padding)).translate(_HEX_OF_TOKEN)
        if not digits:
            return b""
        return int(digits, self.branch_factor).to_bytes(len(digits) // self.tokens_per_byte)

    def is_key(self, path: bytes) -> bool:
        """Return whether ``path`` has a whole number of bytes, so that a key can have it."""
        return len(path) % self.tokens_per_byte == 0


@cache
def path_codec(branch_factor: int) -> PathCodec:
    """Return the one codec of a branch factor."""
    return PathCodec(branch_factor)


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
        TypeError: The hasher is no text, or the branch factor no whole number.
    """

    hasher: HasherName = "blake3"
    branch_factor: int = 16
    # These follow from the two above; looked up once, because every fold and every lookup asks for them.
    codec: PathCodec = field(init=False, repr=False, compare=False)
    hash_function: HashFunction = field(init=False, repr=False, compare=False)
    max_key_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Whatever stands in the annotation, a caller may pass anything.
        hasher: object = self.hasher
        if not isinstance(hasher, str):
            raise TypeError(f"a hasher is 'blake3' or 'sha256', not {type(hasher).__name__}")
        if self.hasher not in _HASH_FUNCTIONS:
            raise ValueError(f"unknown hasher {self.hasher!r}: use 'blake3' or 'sha256'")
        if type(self.branch_factor) is not int:
            raise TypeError(f"a branch factor is 2, 4, 16 or 256, not {type(self.branch_factor).__name__}")
        if self.branch_factor not in (2, 4, 16, 256):
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

    def require_lengths(self, longest_key: int, longest_value: int) -> None:
        """Raise KeyTooLong or ValueTooLong when no database of this scheme can hold so many bytes."""
        if longest_key > self.max_key_bytes:
            raise KeyTooLong(longest_key, self.max_key_bytes, self.branch_factor)
        if longest_value > MAX_VALUE_BYTES:
            raise ValueTooLong(longest_value, MAX_VALUE_BYTES)


def require_range(start: bytes | None, end: bytes | None) -> None:
    """Raise InvalidRange when ``start`` lies after ``end``, and TypeError where a bound is no bytes."""
    if start is not None:
        require_bytes("a start", start)
    if end is not None:
        require_bytes("an end", end)
    if start is not None and end is not None and start > end:
        raise InvalidRange(start, end)


def require_root(root: object) -> None:
    """Raise unless ``root`` has the form of one.

    Raises:
        TypeError: It is not bytes.
        ValueError: It has another length.
    """
    require_bytes("a root", root)
    assert isinstance(root, bytes)
    if len(root) != ID_BYTES:
        raise ValueError(
            f"a root has {ID_BYTES} bytes, not {len(root)}: pass the root itself, not its hex digits"
        )
