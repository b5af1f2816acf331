"""Every honest range proof is what the definition says, is accepted, keeps its limits and makes progress."""

import hashlib
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import Database, LimitTooSmall, RangeProof, Scheme, VerifiedRange, verify_range
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import (
    HASHERS,
    SCHEMES,
    Limits,
    contents,
    keys,
    limits,
    near_keys,
    ranges,
    schemes,
)
from tests.support.proof_verdicts import proof_of
from tests.support.thoroughness import amount

KIB = 1024
# What a proof cut off by its bytes may leave unused, unless the next pair is larger.
MAX_UNUSED_BYTES = 8 * KIB
# What msgpack adds to a key and its value at most, and to the counts of both.
PAIR_OVERHEAD_BYTES = 14


def assert_limits_are_used_up(
    proof: RangeProof, store: Mapping[bytes, bytes], scheme: Scheme, start: bytes | None, limit: Limits
) -> None:
    """Fail when a cut-off proof could have carried more: a pair was left out with room to spare."""
    if len(proof.keys) == limit.max_keys:
        return
    longer = proof_of(store, scheme, start, None, len(proof.keys) + 1)
    if len(longer.keys) == len(proof.keys):
        return
    next_pair_bytes = len(longer.keys[-1]) + len(longer.values[-1]) + PAIR_OVERHEAD_BYTES
    unused = limit.max_bytes - len(proof.encode())
    assert unused < max(MAX_UNUSED_BYTES, next_pair_bytes) or len(longer.encode()) > limit.max_bytes


def assert_next_keys_name_what_is_left(
    verified: VerifiedRange, store: Mapping[bytes, bytes], requested_end: bytes | None
) -> None:
    """Fail unless the next keys cut the rest of the range into pieces that all hold something."""
    next_keys = list(verified.next_keys)
    if verified.complete:
        assert next_keys == []
        return
    assert verified.end is not None
    left = [key for key in oracle.pairs_in(store, verified.end, requested_end) if key > verified.end]
    assert all(verified.end < key and oracle.in_range(key, None, requested_end) for key in next_keys)
    assert all(before < after for before, after in pairwise(next_keys))
    assert not left or (next_keys and next_keys[0] <= left[0])
    for first, behind in pairwise([*next_keys, None]):
        assert first is not None
        assert any(first <= key and (behind is None or key < behind) for key in store)


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), store=contents(), limit=limits())
@settings(max_examples=amount(150, soak=12_000))
def test_every_honest_proof_is_by_definition_accepted_and_within_its_limits(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes], limit: Limits
) -> None:
    start, end = data.draw(ranges(sorted(store)))
    with new_database(store, scheme) as database:
        try:
            proof = database.prove_range(start, end, max_keys=limit.max_keys, max_bytes=limit.max_bytes)
        except LimitTooSmall as error:
            event("limit too small")
            assert_needed_bytes_suffice(database, error, start, end, limit)
            return
        root = database.root
    is_cut = proof.end != end
    event("cut off" if is_cut else "complete")
    assert proof.end == (proof.keys[-1] if is_cut else end)
    assert proof == proof_of(store, scheme, start, proof.end)
    assert RangeProof.decode(proof.encode()) == proof
    assert len(proof.encode()) <= limit.max_bytes
    assert len(proof.keys) <= limit.max_keys
    if is_cut:
        assert_limits_are_used_up(proof, store, scheme, start, limit)
    verified = verify_range(
        proof, root, start, end, scheme=scheme, max_keys=limit.max_keys, max_bytes=limit.max_bytes
    )
    assert (verified.root, verified.start, verified.end) == (root, start, proof.end)
    assert (tuple(verified.keys), tuple(verified.values)) == (proof.keys, proof.values)
    assert len(verified) == len(proof.keys)
    assert verified.value_bytes == sum(map(len, proof.values))
    assert verified.complete == (not is_cut)
    assert_next_keys_name_what_is_left(verified, store, end)


def assert_needed_bytes_suffice(
    database: Database, error: LimitTooSmall, start: bytes | None, end: bytes | None, limit: Limits
) -> None:
    assert error.needed_bytes > limit.max_bytes
    proof = database.prove_range(start, end, max_keys=limit.max_keys, max_bytes=error.needed_bytes)
    assert len(proof.encode()) <= error.needed_bytes
    assert proof.keys or proof.end == end
    verify_range(proof, database.root, start, end, scheme=database.scheme, max_bytes=error.needed_bytes)


@given(data=st.data(), scheme=schemes(), store=contents(max_size=12))
@settings(max_examples=amount(30, soak=2_000))
def test_needed_bytes_is_the_size_of_the_smallest_proof_that_makes_progress(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    start, end = data.draw(ranges(sorted(store)))
    with new_database(store, scheme) as database:
        smallest = len(database.prove_range(start, end, max_keys=1).encode())
        with pytest.raises(LimitTooSmall) as caught:
            database.prove_range(start, end, max_bytes=1)
        assert caught.value.needed_bytes <= smallest
        assert_needed_bytes_suffice(database, caught.value, start, end, Limits(2048, 1))


def test_needed_bytes_suffices_for_the_next_pair_alone() -> None:
    # The complete proof is the smaller one here, but no answer to a request for a single pair.
    for length in range(1000, 1100):
        with new_database({b"a": bytes(length), b"b": b"x"}) as database:
            try:
                database.prove_range(max_bytes=1048)
            except LimitTooSmall as error:
                assert_needed_bytes_suffice(database, error, None, None, Limits(1, 1048))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_needed_bytes_suffices_where_a_longer_proof_is_the_smaller_one(scheme: Scheme) -> None:
    # Cut off at 10, a proof carries a stub for each of 11 to 1f; cut off at 1f, it carries none of them.
    store = {bytes([byte]): b"" for byte in range(0x10, 0x60)}
    with new_database(store, scheme) as database:
        for max_bytes in range(1, 1200, 3):
            try:
                database.prove_range(max_bytes=max_bytes)
            except LimitTooSmall as error:
                assert_needed_bytes_suffice(database, error, None, None, Limits(2048, max_bytes))


@given(data=st.data(), scheme=schemes(), store=contents())
@settings(max_examples=amount(50, soak=3_000))
def test_a_proof_for_one_key_says_whether_it_is_present(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    key = data.draw(near_keys(sorted(store)))
    with new_database(store, scheme) as database:
        proof, root = database.prove(key), database.root
    assert proof == proof_of(store, scheme, key, key)
    verified = verify_range(proof, root, key, key, scheme=scheme)
    assert dict(zip(verified.keys, verified.values, strict=True)) == oracle.pairs_in(store, key, key)
    assert verified.complete


@given(scheme=schemes(), store=contents(min_size=1), other=contents())
@settings(max_examples=amount(30, soak=2_000))
def test_a_proof_holds_at_no_other_root(
    scheme: Scheme, store: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    assume(other != store)
    with new_database(store, scheme) as database:
        proof = database.prove_range()
    with pytest.raises(merkledb.InvalidProof) as caught:
        verify_range(proof, oracle.root_of(other, scheme), scheme=scheme)
    assert caught.value.reason is merkledb.Reason.WRONG_ROOT


@given(data=st.data(), scheme=schemes(), start=st.none() | keys())
@settings(max_examples=amount(30, soak=2_000))
def test_the_empty_store_proves_that_every_range_is_empty(
    data: st.DataObject, scheme: Scheme, start: bytes | None
) -> None:
    end = data.draw(st.none() | keys().filter(lambda key: start is None or key >= start))
    with new_database(scheme=scheme) as database:
        proof = database.prove_range(start, end)
    assert proof == RangeProof((), (), end, ())
    assert verify_range(proof, merkledb.EMPTY_ROOT, start, end, scheme=scheme).complete


def hashed_store(pairs: int, value_bytes: int) -> dict[bytes, bytes]:
    """Pairs of 32-byte keys that lie scattered, with values of which no two are alike."""
    hashed = (hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(pairs))
    return {key: (key * (1 + value_bytes // 32))[:value_bytes] for key in hashed}


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_large_proof_cut_off_by_bytes_leaves_less_than_8_kib_unused(scheme: Scheme) -> None:
    store = hashed_store(3000, 60)
    start = sorted(store)[40]
    with new_database(store, scheme) as database:
        for max_bytes in (20 * KIB, 64 * KIB, 100_001, 150_000):
            proof = database.prove_range(start, max_keys=2048, max_bytes=max_bytes)
            assert max_bytes - MAX_UNUSED_BYTES < len(proof.encode()) <= max_bytes
            assert (
                verify_range(proof, database.root, start, scheme=scheme, max_bytes=max_bytes).keys[0] == start
            )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_proof_of_any_size_in_bytes_is_cut_at_the_last_pair_that_fits(scheme: Scheme) -> None:
    # Limits beside each other show a cut that miscounts by a byte, also where a length needs a longer header.
    store = hashed_store(40, 250)
    limit = Limits(2048, 0)
    with new_database(store, scheme) as database:
        for max_bytes in range(6000, 6600, 7):
            limit = Limits(2048, max_bytes)
            proof = database.prove_range(max_bytes=max_bytes)
            assert len(proof.encode()) <= max_bytes
            assert_limits_are_used_up(proof, store, scheme, None, limit)


@pytest.mark.slow
def test_a_boundary_that_shrinks_with_the_end_leaves_no_room_unused() -> None:
    # Cut off at 01 00 a proof carries a stub for each of 255 neighbours, 8 KiB; cut off at 00 ff
    # it carries none.
    scheme = Scheme("blake3", 256)
    store = {bytes([high, low]): bytes(3000) for high in range(3) for low in range(256)}
    below = 256 * (3000 + 7)
    with new_database(store, scheme) as database:
        for max_bytes in range(below - 6 * KIB, below + 24 * KIB, 700):
            proof = database.prove_range(max_bytes=max_bytes)
            assert len(proof.encode()) <= max_bytes
            assert_limits_are_used_up(proof, store, scheme, None, Limits(4096, max_bytes))


@pytest.mark.parametrize("hasher", HASHERS)
def test_a_pair_larger_than_the_limit_is_served_with_the_size_that_the_error_names(hasher: str) -> None:
    store = hashed_store(20, 40)
    large = sorted(store)[10]
    store[large] = bytes(300 * KIB)
    scheme = next(scheme for scheme in SCHEMES if scheme.hasher == hasher and scheme.branch_factor == 16)
    with new_database(store, scheme) as database:
        before = database.prove_range(max_bytes=100 * KIB)
        assert before.end == sorted(store)[9]
        start = before.end + b"\x00"
        with pytest.raises(LimitTooSmall) as caught:
            database.prove_range(start, max_bytes=100 * KIB)
        assert 300 * KIB < caught.value.needed_bytes < 310 * KIB
        proof = database.prove_range(start, max_bytes=caught.value.needed_bytes)
        assert proof.keys[0] == large
        verify_range(proof, database.root, start, scheme=scheme, max_bytes=caught.value.needed_bytes)


def test_a_proof_that_could_not_be_decoded_again_is_never_made() -> None:
    # The decoder has a limit on pairs; a prover that is asked for more must cut there.
    store = {number.to_bytes(3, "big"): b"" for number in range(66_000)}
    with new_database(store) as database:
        proof = database.prove_range(max_keys=1 << 20, max_bytes=1 << 30)
        assert RangeProof.decode(proof.encode()) == proof
        verified = verify_range(proof, database.root)
    assert verified.complete == (len(proof.keys) == len(store))


def test_limits_that_allow_no_pair_are_refused() -> None:
    with new_database({b"key": b"value"}) as database:
        for unusable in (0, -1):
            with pytest.raises(ValueError, match="max_keys"):
                database.prove_range(max_keys=unusable)
        with pytest.raises(LimitTooSmall):
            database.prove_range(max_bytes=0)


def test_a_range_that_starts_behind_its_end_is_refused_by_prover_and_verifier() -> None:
    with new_database({b"key": b"value"}) as database:
        with pytest.raises(merkledb.InvalidRange):
            database.prove_range(b"b", b"a")
        proof = database.prove_range(b"a", b"b")
        with pytest.raises(merkledb.InvalidRange) as caught:
            verify_range(proof, database.root, b"b", b"a")
    assert (caught.value.start, caught.value.end) == (b"b", b"a")
