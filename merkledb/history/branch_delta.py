"""A row of the history of branches: what a branch was before a revision, as far as that changed it.

    count of children ‖ tokens        all that the branch had, one a byte
    value part                        as in a record
    count ‖ (token ‖ id) for each     of the children that changed, as in a record
    for each of these that is no branch right at its slot:
        token ‖ part                  for each part of its location, see ``location``

What comes from the disk is parsed here, and rejected with ``ValueError`` when it is no such row.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from merkledb.formats.branch_record import (
    CHILD_BYTES,
    COUNTS,
    TOKENS,
    are_ordered,
    parse_value_part,
    split_record,
    value_part,
    value_part_length,
)
from merkledb.formats.location import NodeLocation, parse_part, shared_bytes, with_part
from merkledb.formats.paths import PathCodec
from merkledb.kernel.choice import kernel
from merkledb.trie.node import Found
from merkledb.trie.trie import OpenTrie


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


def parse_locations(row: bytes, at: int) -> dict[int, NodeLocation]:
    """Return where the children are that are no branch right at their slot, by token, from ``at`` on."""
    locations: dict[int, NodeLocation] = {}
    while at < len(row):
        token = row[at]
        is_key, rest, at = parse_part(row, at + 1)
        locations[token] = with_part(locations.get(token), rest, is_key=is_key)
    return locations


def branch_delta_rows(
    trie: OpenTrie,
    paths: list[bytes],
    before: Mapping[bytes, bytes],
    after: Mapping[bytes, bytes],
    visited: Mapping[bytes, Found] = MappingProxyType({}),
) -> list[bytes]:
    """Return the rows of branches that change, or go.

    Args:
        trie: As it is before the change.
        paths: The branches'.
        before: What these branches are before the change, by path, and others that are there.
        after: What those of them that stay are afterwards, by path.
        visited: What is known to hang under slots before the change, so that the trie need not be asked.
    """
    records, new_records = [before[path] for path in paths], [after.get(path) for path in paths]
    codec = trie.scheme.codec
    rows, indexes, slots = kernel().delta_rows(paths, records, new_records, before, visited, codec.token_bits)
    for index, slot in zip(indexes, slots, strict=True):
        found = visited.get(slot)
        if found is None:
            tokens, _, _, weights = split_record(records[index])
            found = trie.under(slot, weights[tokens.index(slot[-1])])
        location = location_of(found, slot, codec)
        if location is not None:
            rows[index] += location.encode(slot[-1:])
    return rows


def location_of(found: Found, slot: bytes, codec: PathCodec) -> NodeLocation | None:
    """Return where what hangs under a slot is, as told from there; None of a branch right there."""
    cut = shared_bytes(slot, codec.token_bits)
    if isinstance(found, list):
        return NodeLocation(keys=tuple([key[cut:] for key, _ in found]))
    if found.record is None:
        return NodeLocation(keys=(codec.pack(found.path)[cut:],))
    return NodeLocation(found.path[len(slot) :]) if len(found.path) > len(slot) else None
