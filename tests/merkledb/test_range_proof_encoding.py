"""The bytes of a range proof: fixed, canonical, and harmless to decode whatever they are."""

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledb import Branch, ChangeProof, InvalidProof, RangeProof, Reason, verify_range
from tests.support import oracle
from tests.support.merkledb_strategies import values
from tests.support.range_proof_tamperings import END, SCHEME, START, STORE, honest
from tests.support.thoroughness import amount

# Decoding may take a few times the bytes that it is given, and this much that does not depend on them.
MAX_DECODING_BYTES = 256 * 1024

ID = bytes(range(32))
EXAMPLE = RangeProof(
    keys=(b"a", b"b"),
    values=(b"", b"xyz"),
    end=b"b",
    boundary=(Branch(b"", b"root", ((7, ID),)), Branch(b"\x06", None, ((1, ID), (15, ID)))),
)
GOLDEN = (
    b"\x94"  # An array of four:
    b"\x92\xc4\x01a\xc4\x01b"  # two keys, each a bin with its length,
    b"\x92\xc4\x00\xc4\x03xyz"  # as many values, of which one is empty,
    b"\xc4\x01b"  # the end,
    b"\x92"  # and a boundary of two branches.
    b"\x95\x00\xc4\x00"  # Nothing before this path to share with, and no other token: the empty path;
    b"\xc4\x04root"  # its digest;
    b"\xc4\x01\x07\xc4\x20" + ID +  # one token, one id.
    b"\x95\x00\xc4\x01\x06"  # Again nothing shared, and one token: the path 6;
    b"\xc0"  # no digest;
    b"\xc4\x02\x01\x0f\xc4\x40" + ID + ID  # two tokens, two ids.
)  # fmt: skip


def reason_of(data: bytes) -> Reason:
    with pytest.raises(InvalidProof) as caught:
        RangeProof.decode(data)
    return caught.value.reason


def repacked(**fields: Any) -> bytes:
    """Encode the example with some of its four fields, or one of its branch's five, replaced."""
    names = ("keys", "values", "end", "boundary", "shared", "rest", "digest", "tokens", "ids")
    assert set(fields) <= set(names)
    branch = [0, b"", b"root", b"\x07", ID]
    branch = [fields.get(name, old) for name, old in zip(names[4:], branch, strict=True)]
    proof = [list(EXAMPLE.keys), list(EXAMPLE.values), EXAMPLE.end, [branch]]
    packed: bytes = msgpack.packb([fields.get(name, old) for name, old in zip(names[:4], proof, strict=True)])
    return packed


def test_a_branch_with_more_children_than_tokens_is_refused_before_they_are_built() -> None:
    branch = [0, b"", None, bytes(257), bytes(257 * 32)]
    with pytest.raises(InvalidProof, match="children") as caught:
        RangeProof.decode(msgpack.packb([[], [], None, [branch]]))
    assert caught.value.reason is Reason.MALFORMED


def test_the_example_encodes_to_these_bytes() -> None:
    assert EXAMPLE.encode() == GOLDEN
    assert RangeProof.decode(GOLDEN) == EXAMPLE


def test_the_empty_proof_encodes_to_five_bytes() -> None:
    empty = RangeProof((), (), None, ())
    assert empty.encode() == b"\x94\x90\x90\xc0\x90"
    assert RangeProof.decode(b"\x94\x90\x90\xc0\x90") == empty


def test_a_path_is_told_by_what_it_shares_with_the_one_before() -> None:
    boundary = (Branch(b"\x01\x02\x03", None, ()), Branch(b"\x01\x02\x04\x05", None, ()))
    encoded = RangeProof((), (), None, boundary).encode()
    assert encoded.endswith(b"\x95\x02\xc4\x02\x04\x05\xc0\xc4\x00\xc4\x00")
    assert RangeProof.decode(encoded).boundary == boundary


WRONG: tuple[Any, ...] = (
    None,
    1,
    -1,
    1.5,
    True,
    "text",
    "",
    [],
    [b"bytes"],
    {},
    {b"key": b"value"},
    msgpack.ExtType(1, b"x"),
)
NOT_CANONICAL = {
    "nothing": b"",
    "a wider header for the array": b"\xdc\x00\x04" + GOLDEN[1:],
    "a wider header for the keys": GOLDEN.replace(b"\x94\x92", b"\x94\xdc\x00\x02"),
    "a wider header for a key": GOLDEN.replace(b"\xc4\x01a", b"\xc5\x00\x01a"),
    "the widest header for the end": GOLDEN.replace(b"\xc4\x01b\x92\x95", b"\xc6\x00\x00\x00\x01b\x92\x95"),
    "a wider number": GOLDEN.replace(b"\x92\x95\x00", b"\x92\x95\xcc\x00"),
    "text for a key": GOLDEN.replace(b"\xc4\x01a", b"\xa1a"),
    "two proofs": GOLDEN * 2,
    "a proof in an array": b"\x91" + GOLDEN,
    "a byte behind": GOLDEN + b"\x00",
    "a nil behind": GOLDEN + b"\xc0",
    "three fields": b"\x93" + GOLDEN[1:],
    "five fields": b"\x95" + GOLDEN[1:] + b"\xc0",
    "a map": b"\x84" + GOLDEN[1:],
    "not as much shared as there is": RangeProof(
        (), (), None, (Branch(b"\x01\x02", None, ()), Branch(b"\x01\x03", None, ()))
    )
    .encode()
    .replace(b"\x95\x01\xc4\x01\x03", b"\x95\x00\xc4\x02\x01\x03"),
    "more shared than there is": repacked(shared=1),
    "less than nothing shared": repacked(shared=-1),
    "as good as infinitely much shared": repacked(shared=2**64 - 1),
    "four fields of a branch": repacked(boundary=[[0, b"", None, b""]]),
    "six fields of a branch": repacked(boundary=[[0, b"", None, b"", b"", b""]]),
    "a branch that is bytes": repacked(boundary=[b"\x00\x00\x00\x00\x00"]),
    "more tokens than ids": repacked(tokens=b"\x07\x08"),
    "more ids than tokens": repacked(ids=ID * 2),
    "half an id": repacked(ids=ID[:16]),
    "a path that no key can have": repacked(rest=bytes(505)),
    "more keys than values": repacked(keys=[b"a", b"b", b"c"]),
    "more values than keys": repacked(values=[b"a", b"b", b"c"]),
    "more branches than two paths have": repacked(boundary=[[0, b"", None, b"", b""]] * 2000),
    **{
        f"{field} number {number} of the wrong things": repacked(**{field: thing})
        for field in ("keys", "values", "end", "boundary", "shared", "rest", "digest", "tokens", "ids")
        for number, thing in enumerate(WRONG)
        if not (field in ("end", "digest") and thing is None)
        and not (field == "boundary" and thing == [])
        and not (field == "shared" and type(thing) is int)
    },
    **{f"a key is number {n} of the wrong things": repacked(keys=[b"", x]) for n, x in enumerate(WRONG)},
    **{f"a value is number {n} of the wrong things": repacked(values=[x, b""]) for n, x in enumerate(WRONG)},
}


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_bytes_that_are_no_canonical_encoding_are_malformed(name: str) -> None:
    assert reason_of(NOT_CANONICAL[name]) is Reason.MALFORMED


def test_every_proof_cut_short_is_malformed_and_says_that_it_ends_too_early() -> None:
    encoded = honest().proof.encode()
    for length in range(len(encoded)):
        with pytest.raises(InvalidProof, match=r"it ends (too early|inside an array)") as caught:
            RangeProof.decode(encoded[:length])
        assert caught.value.reason is Reason.MALFORMED


# Each promises more than it holds: elements, bytes, or depth.
LYING = {
    "an array of four billion": b"\x94\xdd\xff\xff\xff\xff",
    "an array of sixty thousand": b"\x94\xdc\xff\xff",
    "a boundary of four billion": b"\x94\x90\x90\xc0\xdd\xff\xff\xff\xff",
    "a branch of four billion": b"\x94\x90\x90\xc0\x91\xdd\xff\xff\xff\xff",
    "a key of four billion bytes": b"\x94\x91\xc6\xff\xff\xff\xff",
    "an end of four billion bytes": b"\x94\x90\x90\xc6\xff\xff\xff\xff",
    "an extension of four billion bytes": b"\x94\x91\xc9\xff\xff\xff\xff\x01",
    "a text of four billion bytes": b"\x94\x91\xdb\xff\xff\xff\xff",
    "a map of four billion": b"\x94\x91\xdf\xff\xff\xff\xff",
    "arrays in arrays": b"\x91" * 100_000,
    "maps in maps": b"\x81" * 100_000,
    "large arrays in large arrays": b"\xdd\x00\x01\x00\x00" * 1000,
    "large arrays in the keys": b"\x94" + b"\xdd\x00\x01\x00\x00" * 1000,
    "large arrays in the boundary": b"\x94\x90\x90\xc0\x91\x95" + b"\xdd\x00\x01\x00\x00" * 1000,
}


@pytest.mark.parametrize("name", LYING)
def test_lengths_are_not_believed(name: str) -> None:
    tracemalloc.start()
    try:
        assert reason_of(LYING[name]) is Reason.MALFORMED
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MAX_DECODING_BYTES + 4 * len(LYING[name])


def branches() -> st.SearchStrategy[Branch]:
    tokens = st.lists(st.integers(0, 255), unique=True, max_size=4)
    children = tokens.map(lambda found: tuple((token, ID) for token in found))
    return st.builds(Branch, st.binary(max_size=6), st.none() | values(), children)


@given(
    pairs=st.lists(st.tuples(st.binary(max_size=300), values()), max_size=20),
    end=st.none() | st.binary(max_size=300),
    boundary=st.lists(branches(), max_size=5),
)
@settings(max_examples=amount(60, soak=4_000))
def test_whatever_encodes_decodes_to_itself(
    pairs: list[tuple[bytes, bytes]], end: bytes | None, boundary: list[Branch]
) -> None:
    keys, column = tuple(key for key, _ in pairs), tuple(value for _, value in pairs)
    proof = RangeProof(keys, column, end, tuple(boundary))
    assert RangeProof.decode(proof.encode()) == proof


@given(data=st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: GOLDEN[:20] + tail))
@settings(max_examples=amount(160, soak=10_000))
def test_whatever_decodes_encodes_to_itself(data: bytes) -> None:
    try:
        proof = RangeProof.decode(data)
    except InvalidProof:
        assert reason_of(data) is Reason.MALFORMED
    else:
        assert proof.encode() == data


def assert_harmless(data: bytes, start: bytes | None, end: bytes | None) -> None:
    """Fail when altered bytes of a proof are accepted with pairs that are not the truth."""
    try:
        proof = RangeProof.decode(data)
        assert proof.encode() == data
        verified = verify_range(proof, oracle.root_of(STORE, SCHEME), start, end, scheme=SCHEME)
    except InvalidProof:
        return
    pairs = dict(zip(verified.keys, verified.values, strict=True))
    assert pairs == oracle.pairs_in(STORE, start, verified.end)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_flipped_bit_makes_a_lie_acceptable(part: int) -> None:
    encoded = honest().proof.encode()
    for at in range(part, len(encoded), 4):
        for bit in range(8):
            assert_harmless(encoded[:at] + bytes([encoded[at] ^ 1 << bit]) + encoded[at + 1 :], START, END)


@given(data=st.data())
@settings(max_examples=amount(160, soak=10_000))
def test_no_edit_of_the_bytes_makes_a_lie_acceptable(data: st.DataObject) -> None:
    start, end, max_keys = data.draw(st.sampled_from([(START, END, None), (None, END, 3), (START, None, 2)]))
    encoded = honest(start, end, max_keys).proof.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded)))
        dropped = data.draw(st.integers(0, 35))
        added = data.draw(st.binary(max_size=3) | st.sampled_from([encoded[at:], encoded[at : at + 33]]))
        encoded = encoded[:at] + added + encoded[at + dropped :]
    assert_harmless(encoded, start, end)


@pytest.mark.parametrize("kind", [RangeProof, ChangeProof])
@pytest.mark.parametrize("data", [None, 5, "text", [b"proof"]])
def test_what_is_not_made_of_bytes_is_the_mistake_of_the_caller_and_of_no_peer(
    kind: type[RangeProof | ChangeProof], data: object
) -> None:
    with pytest.raises(TypeError, match="an encoded proof is bytes, not "):
        kind.decode(data)  # type: ignore[arg-type]  # that it takes nothing else is tested
