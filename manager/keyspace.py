"""The key space as a line: what lies directly before and after a key, and ranges on it.

Ranges are ``[start, end]``, both inclusive, ``end`` None up to the last key there can be.  Because no key is
longer than the scheme allows, every key has a direct neighbour on both sides, and ranges can be cut anywhere
without a gap or an overlap.  This module knows nothing of roots (see ``ranges``) nor of who works on a range
(see ``work``).

    before 0x61       0x60 ff ff ... ff    padded to the longest key
    after  0x61       0x61 00
    after  0x61 ff    0x62                 where a key has at most 2 bytes
"""


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
