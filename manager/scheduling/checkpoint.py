"""What a sync leaves in the database so that it can go on after a crash: bounded, and parsed as hostile.

The writer stores these bytes in the same transaction as the content that they describe, so they never say
more than what is on disk.  The disk is not trusted to have kept them: whatever does not parse exactly is an
``InvalidProgress``, and the sync starts anew, which costs time and nothing else.

    [version, target, revision or None, keys, changes, bytes, expected keys or None,
     [start, ...], [root or None, ...], [share, ...]]

The three lists are columns, one row a range of the map; ``share`` is the part of all the work that the range
stands for (see ``subdivide``), done or not.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgpack

from manager.errors import InvalidProgress
from manager.keyspace.range_map import RangeMap
from manager.scheduling.assignment import Piece, count
from manager.scheduling.backlog import Work
from manager.scheduling.pivot import Target
from manager.scheduling.stats import SyncStats
from merkledb import MAX_FOREIGN_REVISION
from syncproto import MAX_PAIRS

VERSION: Final = 2
ROOT_BYTES: Final = 32
# Work goes from left to right with a few ranges at once, and what was fetched at older targets is brought
# forward now and then, so a map has some tens of ranges; a longer one is trimmed, which only means that some
# content is fetched again.  At 504 bytes a key, this bounds what each transaction writes to 0.6 MB.
MAX_CHECKPOINT_RANGES: Final = 1024
# No database holds more keys or bytes than this; a larger count is damage.
_MAX_COUNT: Final = 1 << 62
# The shares are a partition of 1, up to rounding.
_MAX_TOTAL_SHARE: Final = 1.001
_FIELDS: Final = 10


class Checkpoint(NamedTuple):
    """The state of a sync.

    Attributes:
        target: What the sync was on the way to.
        keys: Pairs applied so far.
        changes: Changes applied so far.
        bytes: Bytes of the proofs that they came in.
        expected_keys: How many pairs there are in all, as peers say; None when none did.
        ranges: The root that each range is at, at most MAX_CHECKPOINT_RANGES ranges.
        shares: For each range of ``range_map`` the part of all the work that it stands for.
    """

    target: Target
    keys: int
    changes: int
    bytes: int
    expected_keys: int | None
    ranges: RangeMap
    shares: tuple[float, ...]


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return ``checkpoint`` as bytes that ``decode_checkpoint`` reads.

    Raises:
        ValueError: There are more ranges than MAX_CHECKPOINT_RANGES.
    """
    if len(checkpoint.ranges) > MAX_CHECKPOINT_RANGES:
        count = len(checkpoint.ranges)
        raise ValueError(f"{count} ranges are over the limit of {MAX_CHECKPOINT_RANGES}: trim the map first")
    counts = [checkpoint.keys, checkpoint.changes, checkpoint.bytes, checkpoint.expected_keys]
    starts = [key_range.start for key_range in checkpoint.ranges]
    roots = [key_range.root for key_range in checkpoint.ranges]
    return msgpack.packb([VERSION, *checkpoint.target, *counts, starts, roots, list(checkpoint.shares)])


def decode_checkpoint(data: bytes, max_key_bytes: int) -> Checkpoint:
    """Return what ``encode_checkpoint`` was given.

    Args:
        data: What the database held.
        max_key_bytes: The longest key of the database's scheme.

    Raises:
        InvalidProgress: The bytes are anything else.
    """
    fields = _unpack(data)
    _require(fields[0] == VERSION, f"version {fields[0]!r} is not {VERSION}")
    _require(len(fields) == _FIELDS, f"it has not {_FIELDS} fields")
    _, root, revision, keys, changes, byte_count, expected_keys, starts, roots, shares = fields
    _require(_is_root(root), "the target is not a root")
    _require(revision is None or _is_revision(revision), "the revision is out of range")
    _require(all(map(_is_count, (keys, changes, byte_count))), "a count is out of range")
    _require(expected_keys is None or _is_expectation(expected_keys), "the expected keys are out of range")
    ranges = _parse_ranges(starts, roots, max_key_bytes)
    parsed_shares = _parse_shares(shares, rows=len(ranges))
    target = Target(root, revision)
    return Checkpoint(target, keys, changes, byte_count, expected_keys, ranges, parsed_shares)


def _unpack(data: bytes) -> list[Any]:
    """Return the outer list, with nothing known about its fields yet."""
    try:
        fields = msgpack.unpackb(
            data, max_str_len=0, max_map_len=0, max_ext_len=0, max_array_len=MAX_CHECKPOINT_RANGES
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidProgress("it is not msgpack of the known shape") from error
    _require(type(fields) is list and bool(fields), "it is not a list")
    return fields  # type: ignore[no-any-return]  # Required one line above.


def _parse_ranges(starts: Any, roots: Any, max_key_bytes: int) -> RangeMap:
    """Return the map that the two columns describe."""
    _require(type(starts) is list and type(roots) is list, "a column is not a list")
    _require(len(starts) == len(roots) and len(starts) > 0, "the columns differ in length")
    _require(
        all(type(start) is bytes and len(start) <= max_key_bytes for start in starts), "a start is not a key"
    )
    _require(starts[0] == b"", "the first range does not start at the empty key")
    _require(all(lower < upper for lower, upper in pairwise(starts)), "the starts do not ascend")
    _require(all(root is None or _is_root(root) for root in roots), "a root is not a root")
    _require(all(left != right for left, right in pairwise(roots)), "neighbours have the same root")
    return RangeMap.from_columns(starts, roots, max_key_bytes)


def _parse_shares(shares: Any, rows: int) -> tuple[float, ...]:
    """Return the column of shares."""
    _require(type(shares) is list and len(shares) == rows, "the column of shares has another length")
    _require(
        all(type(share) is float and 0.0 <= share <= 1.0 for share in shares),
        "a share is not between 0 and 1",
    )
    _require(sum(shares) <= _MAX_TOTAL_SHARE, "the shares are more than the whole")
    return tuple(shares)


def shares_of(ranges: RangeMap, work: Sequence[tuple[bytes, float]]) -> tuple[float, ...]:
    """Return for each range the part of all the work that starts inside it.

    Args:
        ranges: The map; its ranges begin where a piece of work begins, or earlier.
        work: The start and the share of every piece, ascending by start.
    """
    starts = [key_range.start for key_range in ranges]
    shares = [0.0] * len(starts)
    row = 0
    for start, share in work:
        while row + 1 < len(starts) and starts[row + 1] <= start:
            row += 1
        shares[row] += share
    return tuple(min(share, 1.0) for share in shares)


def _is_root(value: Any) -> bool:
    return type(value) is bytes and len(value) == ROOT_BYTES


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _is_revision(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FOREIGN_REVISION


def _is_expectation(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_PAIRS


def _require(holds: bool, detail: str) -> None:  # noqa: FBT001 - reads as an assertion, which the disk must not be able to trip.
    """Raise InvalidProgress with ``detail`` unless the condition holds."""
    if not holds:
        raise InvalidProgress(detail)


def progress_after(
    pieces: Sequence[Piece], ranges: RangeMap, target: Target, stats: SyncStats, everything: Sequence[Work]
) -> bytes:
    """Return what is saved together with pieces, for the next run to go on from."""
    kept = ranges.copy()
    # A longer map only costs that what is forgotten is fetched again; a transaction stays bounded.
    kept.trim(MAX_CHECKPOINT_RANGES)
    keys, changes, byte_count = count(pieces)
    keys += stats.keys
    checkpoint = Checkpoint(
        target,
        keys,
        stats.changes + changes,
        stats.bytes + byte_count,
        stats.expectation.keys(keys),
        kept,
        shares_of(kept, [(work.start, work.share) for work in everything]),
    )
    return encode_checkpoint(checkpoint)
