"""Keys as paths: a key cut into tokens of log2(branch factor) bits, one token a byte.

Paths sort exactly as the keys they come from, a prefix before what extends it.  The rest of the package
works on paths, so that no other module knows how many bits a token has.

    key      0x61 0x62                 "ab"
    path     6 1 6 2                   branch factor 16: four tokens
    packed   of the path 6 1 6: 0x61 0x60, three tokens zero padded to whole bytes
"""

from binascii import hexlify, unhexlify
from collections.abc import Sequence
from functools import cache
from typing import Final

# LMDB 0.9 allows 511 bytes a row key.  A row key of the history of branches has seven bytes of a sequence
# number and one byte a token.
MAX_PATH_TOKENS: Final = 504

_HEX = b"0123456789abcdef"
_TOKEN_OF_HEX = bytes.maketrans(_HEX, bytes(range(16)))
_HEX_OF_TOKEN = bytes.maketrans(bytes(range(16)), _HEX)


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
        """Return the paths of many keys: one call for keys of one length, instead of one for each."""
        if self.branch_factor == 256:
            return list(keys)
        lengths = set(map(len, keys))
        if len(lengths) != 1 or lengths == {0}:
            return list(map(self.path, keys))
        joined = self.path(b"".join(keys))
        step = lengths.pop() * self.tokens_per_byte
        return [joined[at : at + step] for at in range(0, len(joined), step)]

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
