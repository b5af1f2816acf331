"""The bytes of every message, what may not be sent, and what is not accepted."""

from collections.abc import Iterable
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncproto import (
    Cancel,
    Changes,
    Error,
    ErrorCode,
    GetChanges,
    GetHead,
    GetRange,
    Goodbye,
    Head,
    InvalidField,
    InvalidMessage,
    MalformedFrame,
    Message,
    Ping,
    Pong,
    Range,
    RemoteProtocolError,
    Subscribe,
    UnknownKind,
    VersionMismatch,
    decode,
    encode,
)
from syncproto.codec import LAYOUTS
from syncproto.messages import MAX_CONTROL_BYTES, MAX_HELLO_BYTES, RANGE_OVERHEAD_BYTES, Hello
from tests.support import syncproto_strategies as strategies
from tests.support.syncproto_strategies import CLIENT_HELLO, ROOT


def bytes_of(*lines: str) -> bytes:
    """Return the bytes of lines of hexadecimal digits, each followed by a comment."""
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in lines)


GOLDEN: list[tuple[Message, bytes]] = [
    (
        Hello(
            hasher="sha256",
            branch_factor=256,
            root=ROOT,
            revision=2**32,
            keys=2**63 - 1,
            max_frame_bytes=2**20 + 12,
            max_keys=4096,
            max_bytes=2**20,
            max_requests=16,
            user_agent="abc/1",
        ),
        bytes_of(
            "00 00 00 56  # 86 bytes follow",
            "9d  # an array of 13",
            "00  # kind: hello",
            "00  # no request id",
            "01  # protocol version 1",
            "a6 73 68 61 32 35 36  # a text of 6: sha256",
            "cd 01 00  # branch factor 256 in two bytes",
            "c4 20  # a binary of 32: the root",
            "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
            "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f",
            "cf 00 00 00 01 00 00 00 00  # revision 2**32 in eight bytes",
            "cf 7f ff ff ff ff ff ff ff  # 2**63 - 1 keys",
            "ce 00 10 00 0c  # frames of at most 1 MiB and 12 bytes",
            "cd 10 00  # at most 4,096 keys",
            "ce 00 10 00 00  # proofs of at most 1 MiB",
            "10  # at most 16 requests in flight",
            "a5 61 62 63 2f 31  # a text of 5: abc/1",
        ),
    ),
    (
        Goodbye(),
        bytes_of("00 00 00 03  # 3 bytes follow", "92  # an array of 2", "01  # goodbye", "00  # no id"),
    ),
    (Ping(5), bytes_of("00 00 00 03", "92  # an array of 2", "02  # ping", "05  # its id")),
    (Pong(5), bytes_of("00 00 00 03", "92  # an array of 2", "03  # pong", "05  # the ping's id")),
    (
        Error(300, ErrorCode.LIMIT_TOO_SMALL, "no", 70_000),
        bytes_of(
            "00 00 00 0e  # 14 bytes follow",
            "95  # an array of 5",
            "04  # kind: error",
            "cd 01 2c  # of request 300",
            "03  # code: limit too small",
            "a2 6e 6f  # a text of 2: no",
            "ce 00 01 11 70  # 70,000 bytes would do",
        ),
    ),
    (
        Error(0, ErrorCode.SHUTTING_DOWN, ""),
        bytes_of(
            "00 00 00 06  # 6 bytes follow",
            "95  # an array of 5",
            "04  # kind: error",
            "00  # of the whole connection",
            "07  # code: shutting down",
            "a0  # an empty text",
            "c0  # nil: no detail",
        ),
    ),
    (Cancel(128), bytes_of("00 00 00 04", "92  # an array of 2", "05  # cancel", "cc 80  # request 128")),
    (GetHead(1), bytes_of("00 00 00 03", "92  # an array of 2", "10  # get_head", "01  # request 1")),
    (
        Head(1, bytes(32), 9, 500),
        bytes_of(
            "00 00 00 29  # 41 bytes follow",
            "95  # an array of 5",
            "11  # kind: head",
            "01  # of request 1",
            "c4 20" + " 00" * 32 + "  # the empty root",
            "09  # revision 9",
            "cd 01 f4  # 500 keys",
        ),
    ),
    (
        GetRange(2**32 - 1, ROOT, None, b"z", 2048, 65_536),
        bytes_of(
            "00 00 00 35  # 53 bytes follow",
            "97  # an array of 7",
            "12  # kind: get_range",
            "ce ff ff ff ff  # the largest request id",
            "c4 20  # a binary of 32: the root",
            "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
            "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f",
            "c0  # nil: from the first key",
            "c4 01 7a  # a binary of 1: up to the key z",
            "cd 08 00  # at most 2,048 keys",
            "ce 00 01 00 00  # at most 65,536 bytes",
        ),
    ),
    (
        Range(7, b"proof"),
        bytes_of(
            "00 00 00 0a  # 10 bytes follow",
            "93  # an array of 3",
            "13  # kind: range",
            "07  # of request 7",
            "c4 05 70 72 6f 6f 66  # a binary of 5: the proof",
        ),
    ),
    (
        Head(1, None, 0, 0),
        bytes_of(
            "00 00 00 06  # 6 bytes follow",
            "95  # an array of 5",
            "11  # kind: head",
            "01  # of request 1",
            "c0  # nil: no complete root",
            "00  # hence no revision",
            "00  # and no keys",
        ),
    ),
    (
        GetChanges(6, ROOT, bytes(32), b"", None, 1, 255),
        bytes_of(
            "00 00 00 4d  # 77 bytes follow",
            "98  # an array of 8",
            "14  # kind: get_changes",
            "06  # request 6",
            "c4 20  # a binary of 32: the old root",
            "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
            "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f",
            "c4 20" + " 00" * 32 + "  # the new root, of no keys",
            "c4 00  # a binary of 0: from the empty key",
            "c0  # nil: up to the last key",
            "01  # one key",
            "cc ff  # at most 255 bytes",
        ),
    ),
    (
        Changes(6, b"proof"),
        bytes_of(
            "00 00 00 0a  # 10 bytes follow",
            "93  # an array of 3",
            "15  # kind: changes",
            "06  # of request 6",
            "c4 05 70 72 6f 6f 66  # a binary of 5: the proof",
        ),
    ),
    (Subscribe(9), bytes_of("00 00 00 03", "92  # an array of 2", "16  # subscribe", "09  # its id")),
]


@pytest.mark.parametrize(("message", "data"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes(message: Message, data: bytes) -> None:
    assert encode(message).data == data
    assert decode(memoryview(data)[4:]) == message


def test_there_are_golden_bytes_of_every_kind() -> None:
    assert {type(message) for message, _ in GOLDEN} == {layout.message for layout in LAYOUTS}


@given(strategies.messages)
def test_what_was_encoded_decodes_to_the_same_message(message: Message) -> None:
    frame = encode(message)
    decoded = decode(memoryview(frame.data)[4:])
    assert decoded == message
    assert type(decoded) is type(message)
    assert int.from_bytes(frame.data[:4], "big") == len(frame.data) - 4


@given(strategies.messages)
def test_frames_are_the_messagepack_that_the_msgpack_package_writes_and_reads(message: Message) -> None:
    payload = encode(message).data[4:]
    assert msgpack.packb(msgpack.unpackb(payload)) == payload


@given(strategies.hellos)
def test_every_hello_fits_into_its_limit(hello: Hello) -> None:
    assert len(encode(hello).data) - 4 <= MAX_HELLO_BYTES


def test_the_longest_messages_fit_into_their_limits() -> None:
    refusal = Error(0, ErrorCode.OVERLOADED, "é" * 256, 3_600_000)
    assert len(encode(refusal).data) - 4 <= MAX_HELLO_BYTES
    longest = GetRange(2**32 - 1, ROOT, bytes(1024), bytes(1024), 2**32 - 1, 2**32 - 100)
    assert len(encode(longest).data) - 4 <= MAX_CONTROL_BYTES
    longer = GetChanges(2**32 - 1, ROOT, ROOT, bytes(1024), bytes(1024), 2**32 - 1, 2**32 - 100)
    assert len(encode(longer).data) - 4 <= MAX_CONTROL_BYTES
    proof = bytes(70_000)
    for message in (Range(2**32 - 1, proof), Changes(2**32 - 1, proof)):
        assert len(encode(message).data) - 4 == len(proof) + RANGE_OVERHEAD_BYTES


UNSENDABLE: list[tuple[Message, str]] = [
    (replace(CLIENT_HELLO, hasher=""), "hasher"),
    (replace(CLIENT_HELLO, hasher="x" * 17), "hasher"),
    (replace(CLIENT_HELLO, branch_factor=1), "branch_factor"),
    (replace(CLIENT_HELLO, branch_factor=65_537), "branch_factor"),
    (replace(CLIENT_HELLO, root=bytes(31)), "root"),
    (replace(CLIENT_HELLO, root=None, revision=1), "root"),
    (replace(CLIENT_HELLO, root=None, keys=1), "root"),
    (replace(CLIENT_HELLO, revision=-1), "revision"),
    (replace(CLIENT_HELLO, revision=2**63), "revision"),
    (replace(CLIENT_HELLO, keys=-1), "keys"),
    (replace(CLIENT_HELLO, keys=2**63), "keys"),
    (replace(CLIENT_HELLO, keys=True), "keys"),
    (replace(CLIENT_HELLO, max_frame_bytes=4095), "max_frame_bytes"),
    (replace(CLIENT_HELLO, max_requests=65_536), "max_requests"),
    (replace(CLIENT_HELLO, user_agent="x" * 129), "user_agent"),
    (replace(CLIENT_HELLO, user_agent="\x1b[31m"), "user_agent"),
    (Ping(0), "request_id"),
    (Ping(2**32), "request_id"),
    (Ping(True), "request_id"),
    (Error(1, 99, ""), "code"),  # type: ignore[arg-type]  # the wrong type is the point
    (Error(1, ErrorCode.INTERNAL, "a\nb"), "message"),
    (Error(1, ErrorCode.INTERNAL, "\ud800"), "message"),
    (Error(1, ErrorCode.INTERNAL, "é" * 257), "message"),
    (Error(1, ErrorCode.INTERNAL, "", 1), "detail"),
    (Error(1, ErrorCode.OVERLOADED, ""), "detail"),
    (Error(1, ErrorCode.OVERLOADED, "", 3_600_001), "detail"),
    (Error(1, ErrorCode.LIMIT_TOO_SMALL, "", 0), "detail"),
    (GetRange(1, "r" * 32, None, None, 1, 1), "root"),  # type: ignore[arg-type]  # the wrong type is the point
    (GetRange(1, ROOT, bytes(1025), None, 1, 1), "start"),
    (GetRange(1, ROOT, None, "end", 1, 1), "end"),  # type: ignore[arg-type]  # the wrong type is the point
    (GetRange(1, ROOT, None, None, 0, 1), "max_keys"),
    (GetRange(1, ROOT, None, None, 1, 0), "max_bytes"),
    (GetRange(1, ROOT, None, None, 1, 2**32), "max_bytes"),
    (Head(1, ROOT, 0, -1), "keys"),
    (Head(1, ROOT, 0, 2**63), "keys"),
    (Head(1, None, 1, 0), "root"),
    (Head(1, None, 0, 1), "root"),
    (Range(1, b""), "proof"),
    (Changes(1, b""), "proof"),
    (Subscribe(0), "request_id"),
    (GetChanges(1, ROOT[1:], ROOT, None, None, 1, 1), "old_root"),
    (GetChanges(1, None, ROOT, None, None, 1, 1), "old_root"),  # type: ignore[arg-type]  # the point
    (GetChanges(1, ROOT, ROOT[1:], None, None, 1, 1), "new_root"),
    (GetChanges(1, ROOT, ROOT, bytes(1025), None, 1, 1), "start"),
    (GetChanges(1, ROOT, ROOT, None, bytes(1025), 1, 1), "end"),
    (GetChanges(1, ROOT, ROOT, None, None, 0, 1), "max_keys"),
    (GetChanges(1, ROOT, ROOT, None, None, 1, 0), "max_bytes"),
    (Range(1, None), "proof"),  # type: ignore[arg-type]  # the wrong type is the point
]


@pytest.mark.parametrize(("message", "field"), UNSENDABLE, ids=str)
def test_a_field_out_of_its_bounds_is_our_own_mistake(message: Message, field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        encode(message)
    assert (caught.value.message, caught.value.field) == (type(message).__name__, field)


def packed(*elements: object) -> bytes:
    """Return the frame of an array, without its length, as another implementation would write it."""
    return msgpack.packb(elements)


HELLO = [0, 0, 1, "blake3", 16, ROOT, 7, 30, 4096, 0, 0, 0, "peer"]
GET_RANGE = [18, 1, ROOT, None, None, 1, 1]
GET_CHANGES = [20, 1, ROOT, ROOT, None, None, 1, 1]


def changed(elements: list[object], index: int, value: object) -> bytes:
    """Return the frame of a message with one element replaced."""
    return packed(*elements[:index], value, *elements[index + 1 :])


MALFORMED = {
    "nothing": b"",
    "an integer instead of an array": b"\x01",
    "a map instead of an array": b"\x80",
    "an array of 16": packed(*[0] * 16),
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "an empty array": b"\x90",
    "a kind of text": packed("hello", 0),
    "a kind of nil": packed(None, 0),
    "a kind cut off": b"\x92\xcd\x01",
    "a negative kind": packed(-1, 0),
    "too few elements": packed(16),
    "too many elements": packed(16, 1, 1),
    "changes without a proof": packed(21, 1),
    "a subscription with a field": packed(22, 1, None),
    "changes of one root": packed(20, 1, ROOT, None, None, 1, 1),
    "elements missing": b"\x93\x13\x01",
    "a byte after the array": packed(16, 1) + b"\x00",
    "nested arrays": b"\x92" * 100_000,
    "an array for an id": packed(16, []),
    "a map for an id": packed(16, {}),
    "a bool for an id": packed(16, True),
    "a float for an id": packed(16, 1.0),
    "a signed integer for an id": b"\x92\x10\xd0\x01",
    "a negative integer for an id": packed(16, -1),
    "a timestamp for an id": packed(16, msgpack.Timestamp(0)),
    "a huge extension for an id": b"\x92\x10\xc9\xff\xff\xff\xff\x01",
    "an unused type byte": b"\x92\x10\xc1",
    "a proof of 4 GiB": b"\x93\x13\x01\xc6\xff\xff\xff\xff",
    "a proof cut off": b"\x93\x13\x01\xc4\x05proo",
    "a proof whose length is cut off": b"\x93\x13\x01\xc6\xff\xff",
    "a text of 4 GiB": b"\x95\x04\x01\x08\xdb\xff\xff\xff\xff",
    "a text that is not UTF-8": b"\x95\x04\x01\x08\xa1\xff\xc0",
    "a text of half a surrogate pair": b"\x95\x04\x01\x08\xa3\xed\xa0\x80\xc0",
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_array_of_known_values_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(memoryview(payload))


INVALID: list[tuple[bytes, str, str]] = [
    (changed(HELLO, 1, 1), "Hello", "request_id"),
    (changed(HELLO, 2, "1"), "Hello", "version"),
    (changed(HELLO, 3, b"blake3"), "Hello", "hasher"),
    (changed(HELLO, 4, None), "Hello", "branch_factor"),
    (changed(HELLO, 5, ROOT[1:]), "Hello", "root"),
    (changed(HELLO, 5, "r" * 32), "Hello", "root"),
    (changed(HELLO, 5, None), "Hello", "root"),
    (changed(HELLO, 6, b"7"), "Hello", "revision"),
    (changed(HELLO, 7, 2**63), "Hello", "keys"),
    (changed(HELLO, 7, None), "Hello", "keys"),
    (changed(HELLO, 8, 0), "Hello", "max_frame_bytes"),
    (changed(HELLO, 10, 2**32 - 1), "Hello", "max_bytes"),
    (changed(HELLO, 12, "\x07"), "Hello", "user_agent"),
    (changed(GET_RANGE, 1, 0), "GetRange", "request_id"),
    (changed(GET_RANGE, 1, 2**32), "GetRange", "request_id"),
    (changed(GET_RANGE, 1, None), "GetRange", "request_id"),
    (changed(GET_RANGE, 2, None), "GetRange", "root"),
    (changed(GET_RANGE, 3, 0), "GetRange", "start"),
    (changed(GET_RANGE, 4, bytes(1025)), "GetRange", "end"),
    (changed(GET_RANGE, 5, 0), "GetRange", "max_keys"),
    (changed(GET_RANGE, 6, 2**64 - 1), "GetRange", "max_bytes"),
    (packed(17, 1, ROOT, 0, 2**63), "Head", "keys"),
    (packed(17, 1, ROOT, 0, "1"), "Head", "keys"),
    (packed(17, 1, None, 1, 0), "Head", "root"),
    (packed(17, 1, None, 0, 1), "Head", "root"),
    (packed(17, 1, b"", 0, 0), "Head", "root"),
    (changed(GET_CHANGES, 1, 0), "GetChanges", "request_id"),
    (changed(GET_CHANGES, 2, None), "GetChanges", "old_root"),
    (changed(GET_CHANGES, 2, ROOT[1:]), "GetChanges", "old_root"),
    (changed(GET_CHANGES, 3, None), "GetChanges", "new_root"),
    (changed(GET_CHANGES, 4, 0), "GetChanges", "start"),
    (changed(GET_CHANGES, 5, bytes(1025)), "GetChanges", "end"),
    (changed(GET_CHANGES, 6, 0), "GetChanges", "max_keys"),
    (changed(GET_CHANGES, 7, 2**32 - 12), "GetChanges", "max_bytes"),
    (packed(21, 1, b""), "Changes", "proof"),
    (packed(21, 1, None), "Changes", "proof"),
    (packed(22, 0), "Subscribe", "request_id"),
    (packed(22, None), "Subscribe", "request_id"),
    (packed(19, 1, b""), "Range", "proof"),
    (packed(19, 1, "text"), "Range", "proof"),
    (packed(4, 1, 0, "", None), "Error", "code"),
    (packed(4, 1, 10, "", None), "Error", "code"),
    (packed(4, 1, "8", "", None), "Error", "code"),
    (packed(4, 1, 8, "\x1b[2J", None), "Error", "message"),
    (packed(4, 1, 8, "x" * 513, None), "Error", "message"),
    (packed(4, 1, 8, "", 1), "Error", "detail"),
    (packed(4, 1, 6, "", None), "Error", "detail"),
    (packed(4, 1, 3, "", b"1"), "Error", "detail"),
]


@pytest.mark.parametrize(("payload", "message", "field"), INVALID)
def test_a_field_of_the_peer_out_of_its_bounds_is_named(payload: bytes, message: str, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        decode(memoryview(payload))
    assert (caught.value.message, caught.value.field) == (message, field)


@pytest.mark.parametrize("kind", [6, 15, 23, 24, 127, 255, 2**64 - 1])
def test_a_kind_that_this_version_does_not_have_is_unknown(kind: int) -> None:
    with pytest.raises(UnknownKind) as caught:
        decode(memoryview(packed(kind, 1)))
    assert caught.value.kind == kind


@pytest.mark.parametrize("rest", [HELLO[3:], [], [{"a": [1.5]}], [*HELLO[3:], "more"]])
@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_a_hello_of_another_version_names_both_versions_whatever_follows_it(
    version: int, rest: Iterable[object]
) -> None:
    with pytest.raises(VersionMismatch) as caught:
        decode(memoryview(packed(0, 0, version, *rest)))
    assert (caught.value.ours, caught.value.theirs) == (1, version)


def test_a_longer_form_than_needed_is_accepted() -> None:
    assert decode(memoryview(b"\x92\xcc\x10\xcf\0\0\0\0\0\0\0\x01")) == GetHead(1)
    assert decode(memoryview(b"\x93\x15\x01\xc6\0\0\0\x01p")) == Changes(1, b"p")
    assert decode(memoryview(b"\x93\x13\x01\xc6\0\0\0\x01p")) == Range(1, b"p")


@given(st.binary(max_size=200))
def test_random_bytes_give_a_message_or_a_typed_error(payload: bytes) -> None:
    try:
        message = decode(memoryview(payload))
    except RemoteProtocolError:
        return
    assert decode(memoryview(encode(message).data)[4:]) == message


@given(strategies.messages, st.data())
def test_a_mutated_frame_gives_a_message_or_a_typed_error(message: Message, data: st.DataObject) -> None:
    payload = bytearray(encode(message).data[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload)))
        payload[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        mutated = decode(memoryview(payload))
    except RemoteProtocolError:
        return
    assert decode(memoryview(encode(mutated).data)[4:]) == mutated


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@pytest.mark.slow
@given(st.lists(trees, max_size=15), st.sampled_from([layout.kind for layout in LAYOUTS]), st.integers(0, 3))
def test_elements_of_any_type_give_a_message_or_a_typed_error(
    elements: list[object], kind: int, request_id: int
) -> None:
    try:
        message = decode(memoryview(packed(int(kind), request_id, *elements[:13])))
    except RemoteProtocolError:
        return
    assert decode(memoryview(encode(message).data)[4:]) == message


@given(strategies.messages, st.data())
def test_a_truncated_frame_is_a_typed_error(message: Message, data: st.DataObject) -> None:
    payload = encode(message).data[4:]
    stop = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(MalformedFrame):
        decode(memoryview(payload)[:stop])
