"""The saved state of a sync: what is written reads back, and nothing else does."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import InvalidProgress
from manager.keyspace.range_map import RangeMap
from manager.scheduling.checkpoint import (
    MAX_CHECKPOINT_RANGES,
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
    shares_of,
)
from manager.scheduling.pivot import Target

MAX_KEY_BYTES = 255
TARGET, OLD = b"t" * 32, b"o" * 32


def saved_state() -> Checkpoint:
    ranges = RangeMap(MAX_KEY_BYTES, OLD)
    ranges.set(b"", b"m", TARGET)
    ranges.set(b"p", b"q", TARGET)
    ranges.set(b"x", None, None)
    return Checkpoint(Target(TARGET, 5), 12, 34, 3456, 48, ranges, (0.0, 0.25, 0.0, 0.125, 0.5))


def fields_of(checkpoint: Checkpoint) -> list[Any]:
    fields: list[Any] = msgpack.unpackb(encode_checkpoint(checkpoint))
    return fields


def test_a_saved_state_reads_back() -> None:
    assert decode_checkpoint(encode_checkpoint(saved_state()), MAX_KEY_BYTES) == saved_state()


def test_the_bytes_of_a_saved_state_are_these() -> None:
    ranges = RangeMap(MAX_KEY_BYTES)
    ranges.set(b"", b"m", TARGET)
    encoded = encode_checkpoint(Checkpoint(Target(TARGET, 7), 3, 2, 400, 2**63 - 1, ranges, (0.5, 0.5)))
    golden = [
        "9a",  # an array of ten
        "02",  # the version
        "c420" + "74" * 32,  # the target
        "07",  # its revision
        "03",  # keys
        "02",  # changes
        "cd0190",  # bytes
        "cf7fffffffffffffff",  # expected keys
        "92" + "c400" + "c4026d00",  # the starts: the empty key, and the one after "m"
        "92" + "c420" + "74" * 32 + "c0",  # the roots: the target, and unknown
        "92" + "cb3fe0000000000000" + "cb3fe0000000000000",  # the shares: 0.5 and 0.5
    ]
    assert encoded.hex() == "".join(golden)


@pytest.mark.parametrize(
    ("index", "value", "detail"),
    [
        (0, 1, "version 1 is not 2"),
        (0, "1", "it is not msgpack"),
        (1, b"short", "the target is not a root"),
        (1, None, "the target is not a root"),
        (2, -1, "the revision is out of range"),
        (2, True, "the revision is out of range"),
        (2, 1.5, "the revision is out of range"),
        (2, (1 << 62) + 1, "the revision is out of range"),
        (3, -1, "a count is out of range"),
        (3, True, "a count is out of range"),
        (4, None, "a count is out of range"),
        (5, 1 << 63, "a count is out of range"),
        (5, 1.5, "a count is out of range"),
        (6, 0, "the expected keys are out of range"),
        (6, 1 << 63, "the expected keys are out of range"),
        (6, True, "the expected keys are out of range"),
        (7, None, "a column is not a list"),
        (7, [], "the columns differ in length"),
        (7, [b"", b"n", b"m", b"x", b"z"], "the starts do not ascend"),
        (7, [b"", b"m", b"m", b"x", b"z"], "the starts do not ascend"),
        (7, [b"a", b"m", b"p", b"q", b"x"], "does not start at the empty key"),
        (7, [b"", b"m", b"p", b"q", b"x" * 256], "a start is not a key"),
        (7, [b"", b"m", b"p", b"q", 7], "a start is not a key"),
        (7, [b""] * (MAX_CHECKPOINT_RANGES + 1), "it is not msgpack"),
        (8, [TARGET, OLD, TARGET, OLD], "the columns differ in length"),
        (8, [TARGET, TARGET, OLD, TARGET, None], "neighbours have the same root"),
        (8, [TARGET, b"short", TARGET, OLD, None], "a root is not a root"),
        (9, [0.0], "the column of shares has another length"),
        (9, [0.0, -0.1, 0.0, 0.0, 0.0], "a share is not between 0 and 1"),
        (9, [0.0, float("nan"), 0.0, 0.0, 0.0], "a share is not between 0 and 1"),
        (9, [0, 0.5, 0.0, 0.0, 0.0], "a share is not between 0 and 1"),
        (9, [0.9, 0.9, 0.0, 0.0, 0.0], "the shares are more than the whole"),
    ],
)
def test_a_damaged_field_is_refused(index: int, value: Any, detail: str) -> None:
    fields = fields_of(saved_state())
    fields[index] = value
    with pytest.raises(InvalidProgress, match=detail):
        decode_checkpoint(msgpack.packb(fields), MAX_KEY_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\xc0",
        b"\x91\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xc7\x01\x05\x00",
        b"\x81\x01\x01",
    ],
)
def test_bytes_of_another_shape_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidProgress):
        decode_checkpoint(data, MAX_KEY_BYTES)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(InvalidProgress, match="it has not 10 fields"):
        decode_checkpoint(msgpack.packb(fields_of(saved_state())[:-1]), MAX_KEY_BYTES)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidProgress):
        decode_checkpoint(data, MAX_KEY_BYTES)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_saved_state_with_one_other_byte_parses_to_a_valid_state_or_is_refused(
    place: int, byte: int
) -> None:
    data = bytearray(encode_checkpoint(saved_state()))
    data[place % len(data)] = byte
    try:
        checkpoint = decode_checkpoint(bytes(data), MAX_KEY_BYTES)
    except InvalidProgress:
        return
    assert decode_checkpoint(encode_checkpoint(checkpoint), MAX_KEY_BYTES) == checkpoint


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(InvalidProgress):
        decode_checkpoint(encode_checkpoint(saved_state()) + b"\x00", MAX_KEY_BYTES)


def test_a_map_over_the_limit_is_not_saved() -> None:
    ranges = RangeMap(MAX_KEY_BYTES)
    for number in range(MAX_CHECKPOINT_RANGES):
        key = number.to_bytes(2)
        ranges.set(key + b"a", key + b"b", TARGET)
    with pytest.raises(ValueError, match="trim the map first"):
        encode_checkpoint(Checkpoint(Target(TARGET), 0, 0, 0, None, ranges, (0.0,) * len(ranges)))
    ranges.trim(MAX_CHECKPOINT_RANGES)
    checkpoint = Checkpoint(Target(TARGET), 0, 0, 0, None, ranges, (0.0,) * len(ranges))
    assert decode_checkpoint(encode_checkpoint(checkpoint), MAX_KEY_BYTES) == checkpoint


def test_shares_are_summed_up_by_the_range_that_they_lie_in() -> None:
    ranges = saved_state().ranges
    work = [(b"m\x00", 0.25), (b"n", 0.125), (b"q\x00", 0.0625), (b"x", 0.25), (b"y", 0.25)]
    assert shares_of(ranges, work) == (0.0, 0.375, 0.0, 0.0625, 0.5)
