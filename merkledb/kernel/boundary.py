"""The boundary of a range: which slots and paths lie outside it, and what of a branch does.

The two paths of the bounds go down; x is strictly outside, . is inside:

                      root
              x    x   |   .   |   x
                   start       end
              x  x |  .  .   . | x  x
"""

from typing import Final

from merkledb.formats.branch_record import InvalidRecord, Record, iter_children, parse_record
from merkledb.formats.proof import Branch

# Above every token.
ALL_TOKENS: Final = 256


def is_slot_outside(slot: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether no path at or below ``slot`` can lie in [start, end] (paths; None is unbounded)."""
    if start is not None and slot < start and not start.startswith(slot):
        return True
    return end is not None and slot > end


def outside_slots(path: bytes, start: bytes | None, end: bytes | None) -> tuple[int, int]:
    """Return two tokens: the slots of ``path`` below the first and above the second lie outside [start, end].

    Where ``path`` is on the way to a bound, the token is the one that leads on.
    """
    low, high, depth = -1, ALL_TOKENS, len(path)
    if start is not None and path < start:
        low = start[depth] if start.startswith(path) else ALL_TOKENS
    if end is not None and end.startswith(path):
        high = end[depth] if len(end) > depth else -1
    elif end is not None and path > end:
        high = -1
    return low, high


def is_path_outside(path: bytes, start: bytes | None, end: bytes | None) -> bool:
    """Return whether ``path`` itself lies outside [start, end]."""
    return (start is not None and path < start) or (end is not None and path > end)


def pure_trimmed(
    paths: list[bytes],
    records: list[bytes | None],
    digests: list[bytes | None],
    start: bytes | None,
    end: bytes | None,
) -> tuple[Branch, ...]:
    """Return what of nodes lies strictly outside [start, end], where anything does.

    Args:
        paths: The nodes'.
        records: Theirs; None for a leaf.
        digests: Of the leaves whose paths lie outside.
        start: The path of the smallest key; None for no bound.
        end: The path of the largest key; None for no bound.

    Raises:
        InvalidRecord: A record is none.
    """
    parsed: list[Record | None] = []
    for number, row in enumerate(records):
        try:
            parsed.append(None if row is None else parse_record(row))
        except ValueError as error:
            raise InvalidRecord(number, str(error)) from error
    boundary: list[Branch] = []
    for path, record, leaf_digest in zip(paths, parsed, digests, strict=True):
        digest = leaf_digest
        children: tuple[tuple[int, bytes], ...] = ()
        if record is not None:
            low, high = outside_slots(path, start, end)
            digest = record.digest if is_path_outside(path, start, end) else None
            pairs = iter_children(record.children)
            children = tuple([(c[0], c[1:]) for (c,) in pairs if c[0] < low or c[0] > high])
        if children or digest is not None:
            boundary.append(Branch(path, digest, children))
    return tuple(boundary)
