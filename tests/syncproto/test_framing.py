"""Bytes fed whole, one by one, with trailing data, and with lengths that lie."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncproto import MalformedFrame, Message, OversizedFrame, Ping, Range, encode
from syncproto.framing import FrameBuffer
from tests.support import syncproto_strategies as strategies

LIMIT_BYTES = 1 << 20


def take_all(buffer: FrameBuffer) -> list[Message]:
    """Return all messages that are complete."""
    taken = []
    while (message := buffer.next_message(LIMIT_BYTES)) is not None:
        taken.append(message)
    return taken


def fed(pieces: list[bytes]) -> list[Message]:
    """Return the messages of bytes that come in pieces."""
    buffer = FrameBuffer()
    taken = []
    for piece in pieces:
        buffer.feed(piece)
        taken.extend(take_all(buffer))
    assert len(buffer) == 0
    return taken


@given(st.lists(strategies.messages, max_size=4))
def test_messages_fed_whole(messages: list[Message]) -> None:
    assert fed([b"".join(encode(message).data for message in messages)]) == messages


@given(st.lists(strategies.messages, max_size=3))
def test_messages_fed_one_byte_at_a_time(messages: list[Message]) -> None:
    data = b"".join(encode(message).data for message in messages)[:3000]
    whole, single = FrameBuffer(), FrameBuffer()
    whole.feed(data)
    expected, taken = take_all(whole), []
    for byte in data:
        single.feed(bytes([byte]))
        taken.extend(take_all(single))
    assert taken == expected
    assert len(single) == len(whole)


@given(st.lists(strategies.messages, min_size=1, max_size=4), st.data())
def test_messages_cut_anywhere(messages: list[Message], data: st.DataObject) -> None:
    rest = b"".join(encode(message).data for message in messages)
    pieces = []
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert fed(pieces) == messages


@given(strategies.messages, strategies.messages, st.data())
def test_trailing_data_waits_for_its_rest(first: Message, second: Message, data: st.DataObject) -> None:
    tail = encode(second).data
    cut = data.draw(st.integers(0, len(tail) - 1))
    buffer = FrameBuffer()
    buffer.feed(encode(first).data + tail[:cut])
    assert take_all(buffer) == [first]
    assert len(buffer) == cut
    buffer.feed(tail[cut:])
    assert take_all(buffer) == [second]


@pytest.mark.parametrize("length", [LIMIT_BYTES + 1, 2**31, 2**32 - 1])
def test_a_length_above_the_limit_is_refused_before_anything_follows_it(length: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(length.to_bytes(4, "big"))
    with pytest.raises(OversizedFrame) as caught:
        buffer.next_message(LIMIT_BYTES)
    assert (caught.value.length, caught.value.limit) == (length, LIMIT_BYTES)


def test_an_empty_frame_is_malformed() -> None:
    buffer = FrameBuffer()
    buffer.feed(bytes(4))
    with pytest.raises(MalformedFrame):
        buffer.next_message(LIMIT_BYTES)


HOSTILE = {
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "arrays in arrays": b"\x9f" * 500_000,
    "many small arrays": b"\x9f" + b"\x91\x00" * 200_000,
    "a binary of 4 GiB": b"\x93\x13\x01\xc6\xff\xff\xff\xff",
    "a text of 4 GiB": b"\x95\x04\x01\x08\xdb\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\x93\x13\x01\xc9\xff\xff\xff\xff\x01",
    "a map of four billion": b"\x93\x13\x01\xdf\xff\xff\xff\xff",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_frame_that_announces_more_than_it_holds_costs_no_memory(payload: bytes) -> None:
    buffer = FrameBuffer()
    buffer.feed(len(payload).to_bytes(4, "big") + payload)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            buffer.next_message(LIMIT_BYTES)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_taking_small_frames_off_a_large_buffer_moves_nothing() -> None:
    """Sixty-four thousand frames in one piece would take minutes if each moved the rest of the buffer."""
    buffer = FrameBuffer()
    buffer.feed(encode(Ping(1)).data * 65_536)
    assert len(take_all(buffer)) == 65_536


def test_a_large_proof_in_small_pieces_arrives_whole() -> None:
    proof = bytes(range(256)) * 4000
    data = encode(Range(1, proof)).data
    assert fed([data[cut : cut + 1000] for cut in range(0, len(data), 1000)]) == [Range(1, proof)]


@given(st.lists(strategies.messages, min_size=1), st.integers(1, 5000))
def test_what_is_left_in_the_buffer_is_never_more_than_one_unfinished_frame(
    messages: list[Message], piece_bytes: int
) -> None:
    frames = [encode(message).data for message in messages]
    data, longest = b"".join(frames), max(map(len, frames))
    buffer = FrameBuffer()
    for at in range(0, len(data), piece_bytes):
        buffer.feed(data[at : at + piece_bytes])
        take_all(buffer)
        assert len(buffer) < longest
    assert len(buffer) == 0
