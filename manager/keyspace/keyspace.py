"""The key space as a line: what lies directly before and after a key, and ranges on it.

Ranges are ``[start, end]``, both inclusive, ``end`` None up to the last key there can be.  Because no key
is longer than the scheme allows, every key has a direct neighbour on both sides, and ranges can be cut
anywhere without a gap or an overlap.  This module knows nothing of roots (see ``range_map``) nor of who
works on a range (see ``backlog``).

    before 0x61       0x60 ff ff ... ff    padded to the longest key
    after  0x61       0x61 00
    after  0x61 ff    0x62                 where a key has at most 2 bytes
"""

from typing import Final

# A range is cut by its width in so many equal steps.  They are a power of every branch factor, so that the
# steps of a slot are slots too, and a cut makes the boundary of a proof no deeper than it has to be.
_STEPS: Final = 256


def key_after(key: bytes, max_key_bytes: int) -> bytes | None:
    """Return the smallest key above ``key``; None when ``key`` is the last one there can be.

    Args:
        key: At most ``max_key_bytes`` long.
        max_key_bytes: The longest key of the scheme.
    """
    if len(key) < max_key_bytes:
        return key + b"\x00"
    trimmed = key.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def key_before(key: bytes, max_key_bytes: int) -> bytes:
    """Return the largest key below ``key``.

    Args:
        key: At most ``max_key_bytes`` long and not empty: nothing lies below the empty key.
        max_key_bytes: The longest key of the scheme.

    Raises:
        ValueError: ``key`` is empty.
    """
    if not key:
        raise ValueError("no key lies before the empty key")
    head, last = key[:-1], key[-1]
    if last == 0:
        return head
    return (head + bytes([last - 1])).ljust(max_key_bytes, b"\xff")


def key_within(start: bytes, end: bytes | None, part: float, max_key_bytes: int) -> bytes | None:
    """Return a key with about so much of the *width* of a range before it.

    Args:
        start: The first key of the range.
        end: The last one; None up to the last key there can be.
        part: 0 to 1.
        max_key_bytes: The longest key of the scheme.

    Returns:
        A short key above ``start`` and up to ``end``; None where range or part are too small.
    """
    last = b"\xff" * max_key_bytes if end is None else end
    # Two bytes after those that all keys of the range share are more than the steps need.
    length = _shared_bytes(start, last) + 2
    low = int.from_bytes(start[:length].ljust(length, b"\x00"))
    high = int.from_bytes(last[:length].ljust(length, b"\x00"))
    cut = low + (high - low + 1) * round(part * _STEPS) // _STEPS
    key = cut.to_bytes(length + 1)[1:].rstrip(b"\x00")
    return key if start < key <= last and len(key) <= max_key_bytes else None


def _shared_bytes(first: bytes, second: bytes) -> int:
    """Return how many leading bytes two keys share."""
    limit = min(len(first), len(second))
    difference = int.from_bytes(first[:limit]) ^ int.from_bytes(second[:limit])
    return limit - (difference.bit_length() + 7) // 8
