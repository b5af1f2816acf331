"""Keys as text: what is shown parses back, and never commands the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merklesync.text import format_bytes, parse_bytes, quote_bytes, truncate


@given(st.binary(max_size=64) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_shown_bytes_parse_back_and_are_printable(data: bytes) -> None:
    shown = format_bytes(data)
    assert parse_bytes(shown) == data
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", b""),
        ("0x", b""),
        ("0xFf00", b"\xff\x00"),
        ("naïve", "naïve".encode()),
        ("0Xff", b"0Xff"),
        ("\udcff/a", b"\xff/a"),
        (" spaced ", b" spaced "),
    ],
)
def test_text_stands_for_its_bytes(text: str, expected: bytes) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["0x1", "0xzz", "0x 1", "0x\u0661\u0662", "0x1_0"])
def test_bad_hex_is_refused_with_the_hex_of_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="text that begins with 0x is given as 0x3078"):
        parse_bytes(text)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        parse_bytes("\ud800")


@pytest.mark.parametrize("data", [b"\x1b[2J", b"a\nb", b"0xff", b"\xe2\x80\xaeabc", b"\xff"])
def test_what_a_terminal_would_obey_is_shown_in_hex(data: bytes) -> None:
    assert format_bytes(data) == "0x" + data.hex()


def test_a_long_name_is_cut_and_a_control_character_escaped() -> None:
    assert quote_bytes(b"a" * 500) == "a" * 99 + "…"
    assert truncate("bell\x07\n") == "bell\\x07\\n"
