"""Where a node of the past is, as history keeps it: a branch by its path, a bucket by its keys.

    one part for a branch, one for each key of a bucket
        is key (1 bit) ‖ length (15)      2 bytes
        the rest of the path, or of the key

Both are told from a slot above the node on: of a path, the tokens after the slot; of a key, its bytes from
the one on that the slot ends in or before.  A leaf is a bucket of one key here, whatever it weighs.
"""

from typing import Final, NamedTuple

from merkledb.formats.weights import MAX_WEIGHT

_KEY: Final = 1 << 15
LENGTH_BYTES: Final = 2


class NodeLocation(NamedTuple):
    """Where a node is, seen from a slot.

    Attributes:
        path: Of a branch, one token a byte.
        keys: Of a bucket, ascending; empty for a branch.
    """

    path: bytes = b""
    keys: tuple[bytes, ...] = ()

    def encode(self, token: bytes = b"") -> bytes:
        """Return all parts, end to end.

        Args:
            token: Of the child that is there, where a row has several: each part begins with it.
        """
        if not self.keys:
            return token + len(self.path).to_bytes(LENGTH_BYTES) + self.path
        row = b""
        for key in self.keys:
            row += token + (len(key) | _KEY).to_bytes(LENGTH_BYTES) + key
        return row


def with_part(location: NodeLocation | None, rest: bytes, *, is_key: bool) -> NodeLocation:
    """Return a location with one more part; None is one that has no part yet.

    Raises:
        ValueError: No location has this part after the others.
    """
    if location is None:
        return NodeLocation(keys=(rest,)) if is_key else NodeLocation(rest)
    if not is_key or not location.keys or rest <= location.keys[-1] or len(location.keys) == MAX_WEIGHT:
        raise ValueError("a place is one path, or the ascending keys of a bucket")
    return NodeLocation(keys=(*location.keys, rest))


def parse_part(row: bytes, at: int) -> tuple[bool, bytes, int]:
    """Return whether the part at ``at`` is a key, the rest of it or of a path, and where the part ends.

    Raises:
        ValueError: It is cut off.
    """
    length = int.from_bytes(row[at : at + LENGTH_BYTES])
    at += LENGTH_BYTES
    end = at + (length & _KEY - 1)
    if end > len(row):
        raise ValueError("a row ends inside a place")
    return length >= _KEY, row[at:end], end


def parse_location(row: bytes) -> NodeLocation | None:
    """Return the location that all parts of a row tell; None of an empty row."""
    location: NodeLocation | None = None
    at = 0
    while at < len(row):
        is_key, rest, at = parse_part(row, at)
        location = with_part(location, rest, is_key=is_key)
    return location


def shared_bytes(slot: bytes, token_bits: int) -> int:
    """Return how many whole bytes of a key a slot tells, whose tokens have so many bits."""
    return len(slot) * token_bits // 8
