"""What a commit's history keeps of branches: their rows, made for all branches of the commit at once.

The layout of a row is described in ``history.branch_delta``.  Places that only the trie knows are left out
here; the caller adds them.
"""

from collections.abc import Mapping
from typing import TypeAlias

from merkledb.formats.branch_record import CHILD_BYTES, COUNTS, split_record
from merkledb.formats.location import NodeLocation, shared_bytes

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
    for index, (path, record, new_record) in enumerate(zip(paths, records, new_records, strict=True)):
        row, changed = _delta_row(record, new_record)
        rows.append(row)
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


def _delta_row(record: bytes, new_record: bytes | None) -> tuple[bytes, list[bytes]]:
    """Return the row of one branch without locations, and those of its children that changed."""
    tokens, children, part, _ = split_record(record)
    new_tokens, new_children, _, _ = (b"",) * 4 if new_record is None else split_record(new_record)
    starts = range(0, len(children), CHILD_BYTES)
    olds = [children[at : at + CHILD_BYTES] for at in starts]
    if tokens == new_tokens:
        # The usual case, for which no set is needed: each child is held against the one in its place.
        pairs = zip(olds, starts, strict=True)
        changed = [child for child, at in pairs if child != new_children[at : at + CHILD_BYTES]]
    else:
        new_starts = range(0, len(new_children), CHILD_BYTES)
        kept = {new_children[at : at + CHILD_BYTES] for at in new_starts}
        changed = [child for child in olds if child not in kept]
    return b"".join([COUNTS[len(tokens)], tokens, part, COUNTS[len(changed)], *changed]), changed
