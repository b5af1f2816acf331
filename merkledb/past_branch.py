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
from types import MappingProxyType
from typing import Final, NamedTuple

from merkledb.kernel import twin
from merkledb.record import CHILD_BYTES, COUNTS, parse_value_part, split_record, value_part
from merkledb.revisions import Place
from merkledb.scheme import NO_VALUE
from merkledb.trie import Node, OpenTrie

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


def past_branch_rows(
    trie: OpenTrie,
    paths: list[bytes],
    before: Mapping[bytes, bytes],
    after: Mapping[bytes, bytes],
    met: Mapping[bytes, Node] = MappingProxyType({}),
) -> list[bytes]:
    """Return the rows of branches that change, or go.

    Args:
        trie: As it is before the change.
        paths: The branches'.
        before: What these branches are before the change, by path, and others that are there.
        after: What those of them that stay are afterwards, by path.
        met: What is known to hang under slots before the change, so that the trie need not be asked.
    """
    records, new_records = [before[path] for path in paths], [after.get(path) for path in paths]
    compiled = twin()
    rows, indexes, slots = (pure_past_rows if compiled is None else compiled.past_rows)(
        paths, records, new_records, list(before)
    )
    for index, slot in zip(indexes, slots, strict=True):
        rows[index] += _rest_of(trie, slot, met)
    return rows


def pure_past_rows(
    paths: list[bytes], records: list[bytes], new_records: list[bytes | None], opened: list[bytes]
) -> tuple[list[bytes], list[int], list[bytes]]:
    """Return the rows of branches without the places of their children, and what places are to be added.

    Args:
        paths: The branches'.
        records: What they are before the change.
        new_records: What they are afterwards; None for one that goes.
        opened: The paths of branches that are known to be right at their slot.

    Returns:
        The rows; and of the places, in the order in which they are to be added, the number of the row, and
        the slot.
    """
    rows, indexes, slots, known = [], [], [], set(opened)
    for index, (path, record, new_record) in enumerate(zip(paths, records, new_records, strict=True)):
        row, changed = _past_row(record, new_record)
        rows.append(row)
        for child in changed:
            slot = path + child[:1]
            if slot not in known:
                indexes.append(index)
                slots.append(slot)
    return rows, indexes, slots


def _past_row(record: bytes, new_record: bytes | None) -> tuple[bytes, list[bytes]]:
    """Return the row of one branch without places, and those of its children that changed."""
    tokens, children, part = split_record(record)
    new_tokens, new_children, _ = (b"", b"", b"") if new_record is None else split_record(new_record)
    if tokens == new_tokens:
        # The usual case, for which no set is needed.
        changed = [
            children[at : at + CHILD_BYTES]
            for at in _starts(children)
            if children[at : at + CHILD_BYTES] != new_children[at : at + CHILD_BYTES]
        ]
    else:
        kept = {new_children[at : at + CHILD_BYTES] for at in _starts(new_children)}
        olds = [children[at : at + CHILD_BYTES] for at in _starts(children)]
        changed = [child for child in olds if child not in kept]
    return b"".join([COUNTS[len(tokens)], tokens, part, COUNTS[len(changed)], *changed]), changed


def _starts(children: bytes) -> range:
    """Return where each child of a record begins."""
    return range(0, len(children), CHILD_BYTES)


def _rest_of(trie: OpenTrie, slot: bytes, met: Mapping[bytes, Node]) -> bytes:
    """Return what a row says of where the child in a slot is; nothing of a branch right there."""
    node = met.get(slot) or trie.node_under(slot)
    if node is None:
        raise trie.corrupt(f"nothing lies under the slot {slot.hex()}")
    rest = node.path[len(slot) :]
    if not rest and node.record is not None:
        return b""
    return _encode_rest(slot[-1:], Place(rest, node.record is None))
