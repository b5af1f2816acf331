"""The heap of work, and how the rest of a cut-off proof is split and weighed."""

import random
from heapq import heapify
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import merkledb
from manager.keyspace.keyspace import key_after, key_before
from manager.scheduling.backlog import MAX_PIECES, Work, join, shorten, take_leftmost
from manager.scheduling.subdivide import passed_slots, shared_bits, subdivide
from manager.transfer.verification import content_of, rest_of
from merkledb import Scheme, verify_range
from tests.support.databases import new_database
from tests.support.merkledb_strategies import contents, schemes

MAX_KEY_BYTES = 255


def heap_of(*pieces: Work) -> list[Work]:
    heap = list(pieces)
    heapify(heap)
    return heap


def taken(heap: list[Work], max_share: float) -> Work:
    return take_leftmost(heap, max_share, MAX_KEY_BYTES)


def test_the_leftmost_piece_is_taken_first() -> None:
    heap = heap_of(Work(b"m", b"n", 0.5), Work(b"a", b"b", 0.2), Work(b"x", None, 0.3))
    assert [taken(heap, 0.0).start for _ in range(3)] == [b"a", b"m", b"x"]


def test_neighbours_are_joined_up_to_a_share() -> None:
    heap = heap_of(Work(b"a", b"b", 0.1), Work(b"b\x00", b"c", 0.1), Work(b"c\x00", None, 0.1))
    assert taken(heap, 0.2) == Work(b"a", b"c", 0.2)
    assert taken(heap, 0.2) == Work(b"c\x00", None, 0.1)


def test_a_piece_that_does_not_fit_whole_is_taken_in_part() -> None:
    heap = heap_of(Work(b"\x10", b"\x1f" + b"\xff" * 254, 0.1), Work(b"\x20", None, 0.4))
    first, second = taken(heap, 0.3), taken(heap, 0.3)
    assert (first.start, first.end) == (b"\x10", b"\x8f" + b"\xff" * 254)
    assert (second.start, second.end) == (b"\x90", None)
    assert (first.share, second.share) == pytest.approx((0.3, 0.2))


def test_little_room_is_left_empty() -> None:
    heap = heap_of(Work(b"\x10", b"\x1f" + b"\xff" * 254, 0.1), Work(b"\x20", None, 0.4))
    assert taken(heap, 0.11).share == 0.1


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=20), st.lists(st.floats(0.0, 1.0), max_size=60))
def test_whatever_is_taken_together_nothing_is_lost(shares: list[float], wanted: list[float]) -> None:
    starts = [b"", *(bytes([10 * at]) for at in range(1, len(shares)))]
    ends = [*(key_before(start, MAX_KEY_BYTES) for start in starts[1:]), None]
    heap = heap_of(*map(Work, starts, ends, shares))
    whole = taken(heap, 0.0)
    for max_share in wanted:
        if heap:
            joined = join(whole, taken(heap, max_share), MAX_KEY_BYTES)
            assert joined is not None, "it goes on directly behind what was taken before"
            whole = joined
    for piece in sorted(heap):
        joined = join(whole, piece, MAX_KEY_BYTES)
        assert joined is not None
        whole = joined
    assert (whole.start, whole.end) == (b"", None)
    assert whole.share == pytest.approx(sum(shares))


def test_pieces_with_a_gap_between_are_not_joined() -> None:
    heap = heap_of(Work(b"a", b"b", 0.1), Work(b"c", None, 0.1))
    assert taken(heap, 1.0) == Work(b"a", b"b", 0.1)


def test_the_leftmost_piece_is_taken_whatever_its_share() -> None:
    assert taken(heap_of(Work(b"", None, 1.0)), 0.0) == Work(b"", None, 1.0)


def test_an_empty_heap_has_nothing_to_take() -> None:
    with pytest.raises(IndexError):
        taken(heap_of(), 1.0)


def test_a_heap_over_its_limit_joins_neighbours_and_loses_nothing() -> None:
    starts = [number.to_bytes(2) for number in range(MAX_PIECES + 1)]
    ends = [*(key_before(start, 2) for start in starts[1:]), None]
    heap = [Work(start, end, 1 / 4096) for start, end in zip(starts, ends, strict=True)]
    shorten(heap, 2)
    assert len(heap) < MAX_PIECES
    left = sorted(heap)
    assert left[0].start == starts[0]
    assert left[-1].end is None
    for first, second in pairwise(left):
        assert end_of(first, 2) == second.start
    assert sum(piece.share for piece in left) == pytest.approx((MAX_PIECES + 1) / 4096)


# The example of the module's docstring: what is left and right of the path 3 5.
def test_each_branch_divides_its_share_among_its_populated_slots() -> None:
    keys = [b"\x00", b"\x10", b"\x20", b"\x32", b"\x35"]
    next_keys = [b"\x38", b"\x3c", b"\x50", b"\x90"]
    rest = subdivide(Work(b"", None, 1.0), keys, next_keys, branch_factor=16, max_key_bytes=MAX_KEY_BYTES)
    assert [piece.start for piece in rest] == [b"\x35\x00", b"\x3c", b"\x50", b"\x90"]
    assert [piece.share for piece in rest] == pytest.approx([1 / 24, 1 / 24, 1 / 6, 1 / 6])
    assert [piece.end and piece.end[:1] for piece in rest] == [b"\x3b", b"\x4f", b"\x8f", None]


def test_a_rest_without_populated_slots_is_one_piece_without_a_share() -> None:
    rest = subdivide(Work(b"", b"z", 0.5), [b"a"], [], branch_factor=16, max_key_bytes=MAX_KEY_BYTES)
    assert rest == [Work(b"a\x00", b"z", 0.0)]


def test_nothing_is_left_behind_the_end() -> None:
    assert subdivide(Work(b"", b"a", 0.5), [b"a"], [], branch_factor=16, max_key_bytes=1) == []


def test_a_value_on_a_branch_is_no_slot() -> None:
    # 61 is a value on the branch at 6 1, which has the slots 1 and 2; only slot 1 was passed.
    assert passed_slots([b"\x61", b"\x61\x10", b"\x61\x20"], 4) == {2: 1}


def test_shared_bits_count_from_the_first() -> None:
    assert shared_bits(b"\xf0\x00", b"\xf0\x80") == 8
    assert shared_bits(b"\xf0", b"\xf0\x80") == 8
    assert shared_bits(b"", b"\xf0") == 0
    assert shared_bits(b"\x00", b"\x01") == 7


@given(contents(min_size=2), schemes(), st.data())
def test_the_pieces_of_a_real_proof_cover_the_rest_and_keep_the_share(
    pairs: dict[bytes, bytes], scheme: Scheme, data: st.DataObject
) -> None:
    max_keys = data.draw(st.integers(1, len(pairs) - 1))
    with new_database(pairs, scheme) as database:
        proof = database.prove_range(None, None, max_keys=max_keys)
        verified = verify_range(proof, database.root, scheme=scheme)
    rest = rest_of(Work(b"", None, 1.0), verified)
    assert rest[0].start == key_after(verified.keys[-1], scheme.max_key_bytes)
    assert rest[-1].end is None
    for left, right in pairwise(rest):
        assert end_of(left, scheme.max_key_bytes) == right.start
    assert 0.0 <= sum(piece.share for piece in rest) < 1.0
    occupied = sum(any(is_inside(piece, key) for key in pairs) for piece in rest)
    assert occupied == len(rest) == len({*verified.next_keys})


def end_of(piece: Work, max_key_bytes: int) -> bytes | None:
    """Return the first key behind a piece."""
    assert piece.end is not None
    return key_after(piece.end, max_key_bytes)


def is_inside(piece: Work, key: bytes) -> bool:
    return piece.start <= key and (piece.end is None or key <= piece.end)


@pytest.mark.parametrize("branch_factor", [2, 4, 16, 256])
def test_the_share_done_of_uniform_keys_is_about_the_share_of_keys(branch_factor: int) -> None:
    source = random.Random(7)
    pairs = {source.randbytes(32): b"" for _ in range(20_000)}
    scheme = Scheme(branch_factor=branch_factor)
    with new_database(pairs, scheme) as database:
        share_of_keys = []
        for max_keys in (500, 5000, 12_345):
            proof = database.prove_range(max_keys=max_keys, max_bytes=1 << 30)
            verified = verify_range(proof, database.root, scheme=scheme)
            rest = rest_of(Work(b"", None, 1.0), verified)
            share_of_keys.append((1.0 - sum(piece.share for piece in rest), max_keys / len(pairs)))
    for estimated, true in share_of_keys:
        assert estimated == pytest.approx(true, rel=0.15, abs=0.005)


def test_the_pieces_of_file_paths_end_where_folders_do() -> None:
    pairs = {
        f"{folder}/{number:03}".encode(): b"x" for folder in ("bin", "etc", "usr") for number in range(50)
    }
    with new_database(pairs) as database:
        verified = verify_range(database.prove_range(max_keys=25), database.root)
    rest = rest_of(Work(b"", None, 1.0), verified)
    starts = [piece.start for piece in rest]
    assert b"e" in starts
    assert merkledb.root_of(pairs) == verified.root
    assert 0.1 < 1.0 - sum(piece.share for piece in rest) < 0.3


@pytest.mark.parametrize("max_keys", [1, 10, 50, 1000])
def test_what_a_proof_holds_for_each_pair_is_the_same_however_few_pairs_there_are(max_keys: int) -> None:
    source = random.Random(7)
    with new_database({source.randbytes(32): bytes(40) for _ in range(4000)}) as database:
        proof = database.prove_range(max_keys=max_keys)
        verified = verify_range(proof, database.root, scheme=database.scheme)
    count, content_bytes = content_of(verified, len(proof.encode()), 4000)
    assert count == max_keys
    assert content_bytes / count == pytest.approx(76, rel=0.05)
