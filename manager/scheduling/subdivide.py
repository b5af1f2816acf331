"""Splitting what a cut-off proof left over, where its boundary shows data, and weighing the parts.

The branches on the path of a proof's last key say which of their child slots are populated.  Those to the
right of the key are the work that is left (``VerifiedRange.next_keys``); those to its left were just fetched.
Each branch divides its own share evenly among its populated slots:

    share 1.0, the path of the last key is 3 5 ...        slots 0 1 2 [3] 5 9 of the root: 1/6 each
                                                          slots 2 [5] 8 c below 3: 1/4 of 1/6 each
    done:   3/6 + 1/24          left:   2/24 below 3, then 1/6, 1/6

That is exact on average for keys that are hashes.  For file paths it says how much of the *tree* is done,
which is the honest answer while nobody says how many keys there are (see ``Expectation``): shares never grow,
they only are handed on, so the share done never falls.

Pure: works on what a verification returned.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from manager.keyspace.keyspace import key_after, key_before
from manager.scheduling.backlog import Work


def subdivide(
    work: Work, keys: Sequence[bytes], next_keys: Sequence[bytes], *, branch_factor: int, max_key_bytes: int
) -> list[Work]:
    """Return the pieces of ``work`` that a cut-off proof left over, ascending, with their shares.

    Args:
        work: What was asked for.
        keys: The verified keys, not empty, ascending; the last one is where the proof was cut off, whether it
            exists or not.
        next_keys: The first possible key of each populated slot to the right, ascending, within ``work``.
        branch_factor: Of the scheme; a power of two up to 256.
        max_key_bytes: The longest key of the scheme.

    Returns:
        Pieces that cover everything after the last verified key up to the end of ``work``.  Where no slot is
        left this is one piece with no share: its emptiness is known but not applied yet.  An empty list when
        the proof reached the end.
    """
    token_bits = branch_factor.bit_length() - 1
    last = keys[-1]
    start = key_after(last, max_key_bytes)
    if start is None or (work.end is not None and start > work.end):
        return []
    depths = [shared_bits(last, key) // token_bits for key in next_keys]
    slot_shares = _slot_shares(work.share, passed_slots(keys, token_bits), depths)
    borders = [start, *next_keys[1:]]
    ends = [*(key_before(border, max_key_bytes) for border in borders[1:]), work.end]
    columns = zip(borders, ends, slot_shares or [0.0], strict=True)
    return [Work(border, end, share) for border, end, share in columns]


def _slot_shares(share: float, passed: dict[int, int], depths: Sequence[int]) -> list[float]:
    """Return the share of each slot to the right, from how many slots of each depth lie on both sides.

    Args:
        share: What the whole range stands for.
        passed: By depth of a branch, how many of its populated slots are done.
        depths: For each slot to the right, the depth of its branch; never rising.
    """
    left = Counter(depths)
    at_depth: dict[int, float] = {}
    for depth in sorted({*passed, *left}):
        share /= passed.get(depth, 0) + 1 + left[depth]
        at_depth[depth] = share
    return [at_depth[depth] for depth in depths]


def passed_slots(keys: Sequence[bytes], token_bits: int) -> dict[int, int]:
    """Return by depth in tokens how many populated slots lie left of the path of the last key.

    Args:
        keys: Ascending, not empty.
        token_bits: Bits of a token, 1 to 8.

    Returns:
        Only depths at which there is such a slot.  Cost: a bisection a slot, nothing a key.
    """
    last = keys[-1]
    passed: dict[int, int] = {}
    at = 0
    while at < len(keys) - 1:
        depth = shared_bits(keys[at], last) // token_bits
        following = _slot_end(keys[at], (depth + 1) * token_bits)
        if following is None:  # The key itself is the branch: a value, not a slot.
            at += 1
            continue
        passed[depth] = passed.get(depth, 0) + 1
        at = bisect_left(keys, following, at + 1)
    return passed


def _slot_end(key: bytes, bits: int) -> bytes | None:
    """Return the first key after the slot that ``bits`` bits of ``key`` name; None when it is shorter.

    The slot is not the last one of its branch: a key to its right exists, so counting up never overflows.
    """
    if len(key) * 8 < bits:
        return None
    length = (bits + 7) // 8
    spare = length * 8 - bits
    return (((int.from_bytes(key[:length]) >> spare) + 1) << spare).to_bytes(length)


def shared_bits(first: bytes, second: bytes) -> int:
    """Return how many leading bits two keys share, at most the length of the shorter one."""
    limit = min(len(first), len(second))
    difference = int.from_bytes(first[:limit]) ^ int.from_bytes(second[:limit])
    return limit * 8 - difference.bit_length()
