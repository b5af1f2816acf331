"""A row of the history of branches: what a branch was before a revision, as far as that changed it.

    count of children ‖ tokens        all that the branch had, one a byte
    value part                        as in a record
    count ‖ (token ‖ id) for each     of the children that changed, as in a record
    for each of these that is no branch right at its slot:
        token
        is leaf (1 bit) ‖ length (15) 2 bytes
        rest of the child's path      behind its slot, one token a byte

What comes from the disk is parsed here, and rejected with ``ValueError`` when it is no such row.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from merkledb.record import CHILD_BYTES, COUNTS, parse_value_part, split_record, value_part
from merkledb.revisions import Place
from merkledb.scheme import NO_VALUE
from merkledb.trie import OpenTrie

_LEAF: Final = 1 << 15
_LENGTH_BYTES: Final = 2


class PastBranch(NamedTuple):
    """A row of the history of branches.

    Attributes:
        tokens: Of all children that the branch had.
        digest: Of its own value, or None.
        ids: Of the children that changed, by token.
        rests: Where those are that are no branch right at their slot, by token: the path behind the slot.
    """

    tokens: bytes
    digest: bytes | None
    ids: dict[int, bytes]
    rests: dict[int, Place]

    def encode(self) -> bytes:
        """Return the row."""
        rows = [COUNTS[len(self.tokens)], self.tokens, value_part(self.digest), COUNTS[len(self.ids)]]
        rows += [bytes([token]) + self.ids[token] for token in sorted(self.ids)]
        rows += [_encode_rest(bytes([token]), self.rests[token]) for token in sorted(self.rests)]
        return b"".join(rows)


def _encode_rest(token: bytes, rest: Place) -> bytes:
    return token + (len(rest.path) | _LEAF * rest.is_leaf).to_bytes(_LENGTH_BYTES) + rest.path


def parse_past_branch(row: bytes) -> PastBranch:
    """Return the parts of a row.

    Raises:
        ValueError: It is no such row.
    """
    count, at = _parse_count(row, 0)
    tokens, at = row[at : at + count], at + count
    value_end = at + (1 if row[at : at + 1] == NO_VALUE else 2 + int.from_bytes(row[at + 1 : at + 2]))
    digest = parse_value_part(row[at:value_end])
    changed, at = _parse_count(row, value_end)
    end = at + CHILD_BYTES * changed
    if end > len(row):
        raise ValueError("a row ends inside its children")
    ids = {row[child]: row[child + 1 : child + CHILD_BYTES] for child in range(at, end, CHILD_BYTES)}
    return PastBranch(tokens, digest, ids, parse_rests(row, end) if end < len(row) else {})


def changed_children(row: bytes) -> tuple[int, int]:
    """Return where in a row the children that changed begin and end: token ‖ id for each, ascending.

    Behind them is what ``parse_rests`` reads.  This is for the many rows of which little else is of interest.

    Raises:
        ValueError: It is no such row.
    """
    count, at = _parse_count(row, 0)
    at += count
    at += 1 if row[at : at + 1] == NO_VALUE else 2 + int.from_bytes(row[at + 1 : at + 2])
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


def parse_rests(row: bytes, at: int) -> dict[int, Place]:
    """Return where the children are that are no branch right at their slot, by token, from ``at`` on."""
    rests: dict[int, Place] = {}
    while at < len(row):
        rest_at = at + 1 + _LENGTH_BYTES
        length = int.from_bytes(row[at + 1 : rest_at])
        end = rest_at + (length & _LEAF - 1)
        if end > len(row):
            raise ValueError("a row ends inside a path")
        rests[row[at]] = Place(row[rest_at:end], length >= _LEAF)
        at = end
    return rests


def past_branch_row(
    trie: OpenTrie, path: bytes, record: bytes, new_record: bytes | None, opened: Mapping[bytes, bytes]
) -> bytes:
    """Return the row of a branch that changes, or goes.

    Args:
        trie: As it is before the change.
        path: The branch's.
        record: What the branch is before the change.
        new_record: What it is afterwards; None when it goes.
        opened: Branches that are there before the change, by path: a look there is cheaper than one into the
            trie.
    """
    tokens, children, part = split_record(record)
    new_tokens, new_children, _ = (b"", b"", b"") if new_record is None else split_record(new_record)
    changed, rests, is_same_shape = [], [], tokens == new_tokens
    kept = set() if is_same_shape else {new_children[at : at + CHILD_BYTES] for at in _starts(new_children)}
    for at in _starts(children):
        child = children[at : at + CHILD_BYTES]
        if child == new_children[at : at + CHILD_BYTES] if is_same_shape else child in kept:
            continue
        changed.append(child)
        slot = path + child[:1]
        if slot not in opened:
            rests.append(_rest_of(trie, slot))
    return b"".join([COUNTS[len(tokens)], tokens, part, COUNTS[len(changed)], *changed, *rests])


def _starts(children: bytes) -> range:
    """Return where each child of a record begins."""
    return range(0, len(children), CHILD_BYTES)


def _rest_of(trie: OpenTrie, slot: bytes) -> bytes:
    """Return what a row says of where the child in a slot is; nothing of a branch right there."""
    node = trie.node_under(slot)
    if node is None:
        raise trie.corrupt(f"nothing lies under the slot {slot.hex()}")
    rest = node.path[len(slot) :]
    if not rest and node.record is not None:
        return b""
    return _encode_rest(slot[-1:], Place(rest, node.record is None))
