"""The neighbours of a key, and the map of ranges, held against a dense model of a tiny key space."""

from collections.abc import Sequence
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.keyspace.keyspace import key_after, key_before, key_within
from manager.keyspace.range_map import RangeMap

# At most two bytes a key, the whole key space can be listed.
MAX_KEY_BYTES = 2


def all_keys(alphabet: Sequence[int]) -> list[bytes]:
    """All keys of bytes of the alphabet, ascending."""
    lengths = range(MAX_KEY_BYTES + 1)
    return sorted(bytes(key) for length in lengths for key in product(alphabet, repeat=length))


ALL_KEYS = all_keys(range(256))
# Every key whose neighbour differs in kind, and those right beside them.
PROBES = all_keys((0x00, 0x01, 0x02, 0xFD, 0xFE, 0xFF))


def test_every_key_of_a_small_key_space_has_the_next_one_directly_after_it() -> None:
    assert [key_after(key, MAX_KEY_BYTES) for key in ALL_KEYS] == [*ALL_KEYS[1:], None]


def test_every_key_of_a_small_key_space_has_the_previous_one_directly_before_it() -> None:
    assert [key_before(key, MAX_KEY_BYTES) for key in ALL_KEYS[1:]] == ALL_KEYS[:-1]


def test_nothing_lies_before_the_empty_key() -> None:
    with pytest.raises(ValueError, match="no key lies before the empty key"):
        key_before(b"", MAX_KEY_BYTES)


@given(st.binary(min_size=1, max_size=40))
def test_before_and_after_undo_each_other(key: bytes) -> None:
    before = key_before(key, 40)
    assert before < key
    assert key_after(before, 40) == key


@pytest.mark.parametrize(
    ("start", "end", "part", "key"),
    [
        (b"", None, 0.5, b"\x80"),
        (b"\x40", b"\x4f" + b"\xff" * 31, 0.25, b"\x44"),
        (b"\x12\x30", b"\x12\x3f" + b"\xff" * 30, 0.5, b"\x12\x38"),
        (b"abc", b"abd", 0.5, b"abc\x80"),
        (b"", None, 0.001, None),
        (b"abc", b"abc", 0.5, None),
    ],
)
def test_a_range_is_cut_by_its_width_where_slots_begin(
    start: bytes, end: bytes | None, part: float, key: bytes | None
) -> None:
    assert key_within(start, end, part, 32) == key


@given(st.binary(max_size=4), st.none() | st.binary(max_size=4), st.floats(0, 1), st.integers(4, 6))
def test_a_cut_lies_within_its_range(start: bytes, end: bytes | None, part: float, longest: int) -> None:
    if end is not None and end < start:
        start, end = end, start
    key = key_within(start, end, part, longest)
    if key is not None:
        assert start < key
        assert end is None or key <= end
        assert len(key) <= longest


ROOTS = st.sampled_from([None, b"a" * 32, b"b" * 32, b"c" * 32])
SMPROBES = st.lists(st.sampled_from([0x00, 0x01, 0xFE, 0xFF]), max_size=MAX_KEY_BYTES).map(bytes)


Claim = tuple[bytes, bytes | None, bytes | None]


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    """One call of ``set``: a range in order, and a root."""
    start, end = draw(SMPROBES), draw(st.none() | SMPROBES)
    if end is not None and end < start:
        start, end = end, start
    return start, end, draw(ROOTS)


@given(st.lists(claims(), max_size=12))
def test_a_range_map_says_what_was_claimed_last_of_each_key(calls: list[Claim]) -> None:
    ranges = RangeMap(MAX_KEY_BYTES)
    model: dict[bytes, bytes | None] = dict.fromkeys(PROBES)
    for start, end, root in calls:
        ranges.set(start, end, root)
        for key in PROBES:
            if start <= key and (end is None or key <= end):
                model[key] = root
    assert {key: ranges.root_at(key) for key in PROBES} == model
    assert_well_formed(ranges)


def assert_well_formed(ranges: RangeMap) -> None:
    rows = list(ranges)
    assert rows[0].start == b""
    assert rows[-1].end is None
    for left, right in pairwise(rows):
        assert left.end is not None
        assert key_after(left.end, ranges.max_key_bytes) == right.start
        assert left.root != right.root


def test_neighbours_with_the_same_root_become_one_range() -> None:
    ranges = RangeMap(255)
    ranges.set(b"a", b"m", b"r" * 32)
    ranges.set(b"m\x00", b"z", b"r" * 32)
    assert [(row.start, row.root) for row in ranges] == [(b"", None), (b"a", b"r" * 32), (b"z\x00", None)]


def test_a_map_is_at_a_root_only_when_all_of_it_is() -> None:
    ranges = RangeMap(255)
    ranges.set(b"", b"m", b"r" * 32)
    assert not ranges.is_at(b"r" * 32)
    assert [row for row in ranges if row.root != b"r" * 32] == [(b"m\x00", None, None)]
    ranges.set(b"m\x00", None, b"r" * 32)
    assert ranges.is_at(b"r" * 32)
    assert [row.root for row in ranges] == [b"r" * 32]


def test_a_copy_changes_on_its_own() -> None:
    ranges = RangeMap(255)
    copied = ranges.copy()
    copied.set(b"a", b"b", b"r" * 32)
    assert ranges != copied
    assert len(ranges) == 1


def test_a_range_whose_end_lies_before_its_start_is_refused() -> None:
    with pytest.raises(ValueError, match="after its end"):
        RangeMap(255).set(b"b", b"a", None)


def test_a_map_that_is_trimmed_forgets_its_right_part_only() -> None:
    ranges = RangeMap(255)
    for byte in range(0, 200, 2):
        ranges.set(bytes([byte]), bytes([byte]), b"r" * 32)
    before = list(ranges)
    ranges.trim(9)
    assert len(ranges) <= 9
    assert list(ranges)[:7] == before[:7]
    assert list(ranges)[-1].root is None
    assert list(ranges)[-1].end is None
