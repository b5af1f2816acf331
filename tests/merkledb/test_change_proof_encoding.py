"""The bytes of a change proof: those of a range proof, with nil for a deletion."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledb import Branch, ChangeProof, InvalidProof, RangeProof, Reason
from tests.merkledb.test_range_proof_encoding import (
    EXAMPLE,
    GOLDEN,
    ID,
    LYING,
    MAX_DECODING_BYTES,
    NOT_CANONICAL,
    branches,
)
from tests.support.merkledb_strategies import values
from tests.support.thoroughness import amount

CHANGES = ChangeProof(
    keys=(b"a", b"b", b"c"),
    values=(b"", None, b"xyz"),
    end=None,
    boundary=(Branch(b"\x06", None, ((1, ID),)),),
)
GOLDEN_CHANGES = (
    b"\x94"  # An array of four:
    b"\x93\xc4\x01a\xc4\x01b\xc4\x01c"  # three keys, each a bin with its length,
    b"\x93\xc4\x00\xc0\xc4\x03xyz"  # as many values, one empty and one deleted,
    b"\xc0"  # no end,
    b"\x91"  # and a boundary of one branch:
    b"\x95\x00\xc4\x01\x06\xc0\xc4\x01\x01\xc4\x20" + ID  # its path, no digest, a token and an id.
)
# Where a value is missing in a range proof, a change proof has a deletion.
ALLOWED_HERE = {"a value is number 0 of the wrong things"}


def reason_of(data: bytes) -> Reason:
    with pytest.raises(InvalidProof) as caught:
        ChangeProof.decode(data)
    return caught.value.reason


def test_the_example_encodes_to_these_bytes() -> None:
    assert CHANGES.encode() == GOLDEN_CHANGES
    assert ChangeProof.decode(GOLDEN_CHANGES) == CHANGES
    assert type(ChangeProof.decode(GOLDEN_CHANGES)) is ChangeProof


def test_a_proof_without_deletions_has_the_bytes_of_a_range_proof() -> None:
    assert ChangeProof(*EXAMPLE).encode() == GOLDEN
    assert ChangeProof.decode(GOLDEN) == ChangeProof(*EXAMPLE)


def test_a_deletion_makes_no_range_proof() -> None:
    with pytest.raises(InvalidProof) as caught:
        RangeProof.decode(GOLDEN_CHANGES)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("name", [name for name in NOT_CANONICAL if name not in ALLOWED_HERE])
def test_bytes_that_are_no_canonical_encoding_are_malformed(name: str) -> None:
    assert reason_of(NOT_CANONICAL[name]) is Reason.MALFORMED


def test_every_proof_cut_short_or_with_a_byte_behind_is_malformed() -> None:
    lengths = range(len(GOLDEN_CHANGES))
    assert {reason_of(GOLDEN_CHANGES[:length]) for length in lengths} == {Reason.MALFORMED}
    assert reason_of(GOLDEN_CHANGES + b"\xc0") is Reason.MALFORMED


def test_a_key_cannot_be_deleted_from_the_proof_itself() -> None:
    assert reason_of(GOLDEN_CHANGES.replace(b"\xc4\x01b", b"\xc0")) is Reason.MALFORMED


@pytest.mark.parametrize("name", LYING)
def test_lengths_are_not_believed(name: str) -> None:
    tracemalloc.start()
    try:
        assert reason_of(LYING[name]) is Reason.MALFORMED
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MAX_DECODING_BYTES + 4 * len(LYING[name])


@given(
    changes=st.lists(st.tuples(st.binary(max_size=300), st.none() | values()), max_size=20),
    end=st.none() | st.binary(max_size=300),
    boundary=st.lists(branches(), max_size=5),
)
@settings(max_examples=amount(30, soak=2_000))
def test_whatever_encodes_decodes_to_itself(
    changes: list[tuple[bytes, bytes | None]], end: bytes | None, boundary: list[Branch]
) -> None:
    keys, column = tuple(key for key, _ in changes), tuple(value for _, value in changes)
    proof = ChangeProof(keys, column, end, tuple(boundary))
    assert ChangeProof.decode(proof.encode()) == proof


@given(data=st.binary(max_size=40).map(lambda tail: GOLDEN_CHANGES[:20] + tail))
@settings(max_examples=amount(60, soak=4_000))
def test_whatever_decodes_encodes_to_itself(data: bytes) -> None:
    try:
        proof = ChangeProof.decode(data)
    except InvalidProof:
        assert reason_of(data) is Reason.MALFORMED
    else:
        assert proof.encode() == data
