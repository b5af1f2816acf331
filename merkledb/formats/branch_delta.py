"""A row of the history of branches: what a branch was before a revision, as far as that changed it.

    count of children ‖ tokens        all that the branch had, one a byte
    value part                        as in a record
    count ‖ (token ‖ id) for each     of the children that changed, as in a record
    for each of these that is no branch right at its slot:
        token ‖ part                  for each part of its location

A location says where a node of the past is: a branch by its path, a bucket by its keys.  A leaf is a bucket
of one key here, whatever it weighs.  Both are told from a slot above the node on: of a path, the tokens after
the slot; of a key, its bytes from the one on that the slot ends in or before.

    one part for a branch, one for each key of a bucket
        is key (1 bit) ‖ length (15)      2 bytes
        the rest of the path, or of the key

What comes from the disk is parsed here, and rejected with ``ValueError`` when it is no such row.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from merkledb.formats.branch_record import (
    CHILD_BYTES,
    COUNTS,
    MAX_WEIGHT,
    NO_RECORD,
    TOKENS,
    are_ordered,
    iter_children,
    parse_value_part,
    split_records,
    value_part,
    value_part_length,
)

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


def parse_location(row: bytes) -> NodeLocation | None:
    """Return the location that all parts of a row tell, without tokens; None of an empty row.

    Raises:
        ValueError: It tells none.
    """
    return parse_locations(row, 0, token_bytes=0).get(0)


def parse_locations(row: bytes, at: int, *, token_bytes: int = 1) -> dict[int, NodeLocation]:
    """Return the locations that the parts of a row from ``at`` on tell, by token.

    Args:
        row: The row.
        at: Where the first part begins.
        token_bytes: Whether a token stands before each part, 1 or 0; without one, all belong to 0.

    Raises:
        ValueError: A part is cut off, or no location has it after its others.
    """
    locations: dict[int, NodeLocation] = {}
    while at < len(row):
        token = row[at] if token_bytes else 0
        at += token_bytes + LENGTH_BYTES
        length = int.from_bytes(row[at - LENGTH_BYTES : at])
        is_key, end = length >= _KEY, at + (length & _KEY - 1)
        if end > len(row):
            raise ValueError("a row ends inside a place")
        rest, at = row[at:end], end
        before = locations.get(token)
        if before is None:
            locations[token] = NodeLocation(keys=(rest,)) if is_key else NodeLocation(rest)
        elif is_key and before.keys and rest > before.keys[-1] and len(before.keys) < MAX_WEIGHT:
            locations[token] = NodeLocation(keys=(*before.keys, rest))
        else:
            raise ValueError("a place is one path, or the ascending keys of a bucket")
    return locations


def shared_bytes(slot: bytes, token_bits: int) -> int:
    """Return how many whole bytes of a key a slot tells, whose tokens have so many bits."""
    return len(slot) * token_bits // 8


class BranchDelta(NamedTuple):
    """A row of the history of branches.

    Attributes:
        tokens: Of all children that the branch had.
        digest: Of its own value, or None.
        ids: Of the children that changed, by token.
        locations: Where those are that are no branch right at their slot, by token.
    """

    tokens: bytes
    digest: bytes | None
    ids: dict[int, bytes]
    locations: dict[int, NodeLocation]

    def encode(self) -> bytes:
        """Return the row."""
        rows = [COUNTS[len(self.tokens)], self.tokens, value_part(self.digest), COUNTS[len(self.ids)]]
        rows += [TOKENS[token] + self.ids[token] for token in sorted(self.ids)]
        rows += [self.locations[token].encode(TOKENS[token]) for token in sorted(self.locations)]
        return b"".join(rows)


def parse_branch_delta(row: bytes) -> BranchDelta:
    """Return the parts of a row.

    Raises:
        ValueError: It is no such row.
    """
    count, at = _parse_count(row, 0)
    tokens, at = row[at : at + count], at + count
    value_end = at + value_part_length(row, at)
    digest = parse_value_part(row[at:value_end])
    changed, at = _parse_count(row, value_end)
    end = at + CHILD_BYTES * changed
    if end > len(row):
        raise ValueError("a row ends inside its children")
    changed_tokens = row[at:end:CHILD_BYTES]
    if not are_ordered(tokens) or not are_ordered(changed_tokens) or changed_tokens.strip(tokens):
        raise ValueError("a row's tokens are out of order")
    ids = {row[child]: row[child + 1 : child + CHILD_BYTES] for child in range(at, end, CHILD_BYTES)}
    return BranchDelta(tokens, digest, ids, parse_locations(row, end) if end < len(row) else {})


def changed_children(row: bytes) -> tuple[int, int]:
    """Return where in a row the children that changed begin and end: token ‖ id for each, ascending.

    Behind them is what ``parse_locations`` reads.  This is for the many rows of which little else is wanted.

    Raises:
        ValueError: It is no such row.
    """
    count, at = _parse_count(row, 0)
    at += count
    at += value_part_length(row, at)
    count, at = _parse_count(row, at)
    end = at + CHILD_BYTES * count
    if end > len(row):
        raise ValueError("a row ends inside its children")
    return at, end


def _parse_count(row: bytes, at: int) -> tuple[int, int]:
    """Return the uvarint of at most two bytes at ``at``, and where it ends."""
    if at >= len(row):
        raise ValueError("a row ends before a count")
    if row[at] < 128:
        return row[at], at + 1
    return row[at] - 128 + 128 * int.from_bytes(row[at + 1 : at + 2]), at + 2


# The rows; of the locations that are to be added, the number of the row, and the slot.
DeltaRows: TypeAlias = tuple[list[bytes], list[int], list[bytes]]


def pure_delta_rows(
    paths: list[bytes],
    records: list[bytes],
    new_records: list[bytes | None],
    opened: Mapping[bytes, object],
    visited: Mapping[bytes, object],
    token_bits: int,
) -> DeltaRows:
    """Return the rows of branches, with those locations that are known, and which are to be added.

    This is a part of the kernel.  Locations that only the trie knows are left out; the caller adds them.

    Args:
        paths: The branches'.
        records: What they are before the change.
        new_records: What they are afterwards; None for one that goes.
        opened: By path, branches that are known to be right at their slot.
        visited: What is known to hang under slots.
        token_bits: Bits of a token.

    Returns:
        The rows; and of the locations, in the order in which they are to be added, the number of the row, and
        the slot.
    """
    rows: list[bytes] = []
    indexes: list[int] = []
    slots: list[bytes] = []
    olds = split_records(records)
    news = split_records([record or NO_RECORD for record in new_records])
    for index, (path, old, new) in enumerate(zip(paths, olds, news, strict=True)):
        tokens, children, part, _ = old
        # A child is its token and its id, so one that is not among the new ones has changed, or is gone.
        kept = set(iter_children(new[1]))
        changed = [child[0] for child in iter_children(children) if child not in kept]
        rows.append(b"".join([COUNTS[len(tokens)], tokens, part, COUNTS[len(changed)], *changed]))
        for child in changed:
            slot = path + child[:1]
            if slot in opened:
                continue
            found = visited.get(slot)
            if isinstance(found, list):
                cut = shared_bytes(slot, token_bits)
                rows[index] += NodeLocation(keys=tuple([key[cut:] for key, _ in found])).encode(child[:1])
            else:
                indexes.append(index)
                slots.append(slot)
    return rows, indexes, slots
