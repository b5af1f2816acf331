"""Keys of several kinds, made in ascending order and in little memory, however many they are.

Ten million pairs as Python objects take more memory than what is measured, so no benchmark of large stores
may hold them: it walks these generators instead, as often as it needs the keys.  All of them are
deterministic: the same count gives the same keys in every process and on every machine.

Invariants: each generator yields exactly as many keys as it is asked for, strictly ascending.
"""

from collections.abc import Iterator
from hashlib import shake_128
from typing import Final

_CELL_KEYS: Final = 1024
_COUNTER_BYTES: Final = 8
_UNIFORM_BYTES: Final = 32
_ADDRESS_BYTES: Final = 20
_PREFIX_BYTES: Final = 64
_PREFIXES: Final = 4


def uniform_keys(count: int, key_bytes: int = _UNIFORM_BYTES) -> Iterator[bytes]:
    """Yield keys as a hash would make them.

    The key space is cut into cells of about a thousand keys, and within its cell a key may be anywhere, so
    that only a cell needs to be sorted and the trie has the shape that hashed keys give it.

    Args:
        count: How many.
        key_bytes: The length of each, at least 16.
    """
    cells = -(-count // _CELL_KEYS)
    for cell in range(cells):
        in_cell = count * (cell + 1) // cells - count * cell // cells
        low, high = (cell << 64) // cells, ((cell + 1) << 64) // cells
        block = shake_128(b"cell" + cell.to_bytes(8, "big")).digest(in_cell * key_bytes)
        yield from sorted(
            _between(low, high, block[at : at + key_bytes]) for at in range(0, len(block), key_bytes)
        )


def _between(low: int, high: int, random_bytes: bytes) -> bytes:
    """Return random bytes with their first eight brought into [low, high), evenly."""
    first = low + (int.from_bytes(random_bytes[:8], "big") * (high - low) >> 64)
    return first.to_bytes(8, "big") + random_bytes[8:]


def addresses(count: int) -> Iterator[bytes]:
    """Yield the addresses of accounts: 20 bytes, the end of a hash."""
    return uniform_keys(count, _ADDRESS_BYTES)


def counters(count: int) -> Iterator[bytes]:
    """Yield 0, 1, 2, ... as 8 big-endian bytes: rows with a serial number."""
    return (number.to_bytes(_COUNTER_BYTES, "big") for number in range(count))


def prefixed_counters(count: int) -> Iterator[bytes]:
    """Yield counters behind one of four prefixes of 64 bytes: the tables of one database in one store."""
    prefixes = sorted(shake_128(b"prefix%d" % number).digest(_PREFIX_BYTES) for number in range(_PREFIXES))
    for number, prefix in enumerate(prefixes):
        share = count * (number + 1) // _PREFIXES - count * number // _PREFIXES
        yield from (prefix + counter for counter in counters(share))
