"""Keys, values and roots as a person types and reads them.

A store holds bytes; a command line and a terminal hold text.  Two forms connect them, for keys and values
alike:

- text stands for its UTF-8 bytes, and a byte of an argument that is not UTF-8 stands for itself;
- ``0x`` and an even number of hex digits stand for the bytes that they spell.  ``0x`` alone is the empty key,
  and so is the empty text.  Text that itself begins with ``0x`` is given in hex, or with ``--text``, which
  lets every argument be text.

Bytes are shown as text when every character of it can be printed, else in hex.  Invariant: what is shown,
parses back to the same bytes, and never holds a line break or anything else that a terminal would obey rather
than show.  JSON and CSV have forms of their own, in ``files.text_pairs``.
"""

import re
from typing import Final

from merkledb import EMPTY_ROOT

HEX_PREFIX: Final = "0x"
# What a line of a message shows of one name; enough to find it, too little to flood a terminal.
MAX_SHOWN_CHARACTERS: Final = 100


def parse_bytes(text: str) -> bytes:
    """Return the bytes that ``text`` stands for.

    Args:
        text: Text, or ``0x`` and hex digits; surrogate escapes stand for the bytes that they escape.

    Raises:
        ValueError: What follows ``0x`` is not an even number of hex digits, or it cannot be encoded.
    """
    return _parse_hex(text) if text.startswith(HEX_PREFIX) else parse_text(text)


def parse_text(text: str) -> bytes:
    """Return the bytes of a text, also of one that begins with ``0x``; as ``parse_bytes``."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(
            "holds half of a surrogate pair, which has no bytes: give it as 0x and hex digits"
        ) from error


def _parse_hex(text: str) -> bytes:
    digits = text.removeprefix(HEX_PREFIX)
    if len(digits) % 2 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        spelled = HEX_PREFIX + text.encode("utf-8", "replace")[:MAX_SHOWN_CHARACTERS].hex()
        raise ValueError(
            f"{truncate(text)} is not 0x and an even number of hex digits; "
            f"text that begins with 0x is given as {spelled}"
        )
    return bytes.fromhex(digits)


def parse_root(text: str) -> bytes:
    """Return the root that 64 hex digits stand for, with or without 0x before them.

    Raises:
        ValueError: It is something else.
    """
    digits = text.removeprefix(HEX_PREFIX)
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * len(EMPTY_ROOT)}}}", digits):
        raise ValueError(f"{text!r} is not a root: a root has {2 * len(EMPTY_ROOT)} hex digits")
    return bytes.fromhex(digits)


def format_bytes(data: bytes) -> str:
    """Return ``data`` as text where all of it can be printed, else as ``0x`` and hex digits."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return HEX_PREFIX + data.hex()
    if not text or text.startswith(HEX_PREFIX) or not text.isprintable():
        return HEX_PREFIX + data.hex()
    return text


def truncate(text: str, max_characters: int = MAX_SHOWN_CHARACTERS) -> str:
    """Return ``text`` safe to print in one line of a message: escaped, and cut with an ellipsis."""
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text[: max_characters + 1]
    )
    return escaped if len(escaped) <= max_characters else escaped[: max_characters - 1] + "…"


def quote_bytes(data: bytes) -> str:
    """Return a key as it is named in a message: shown, and cut to one short line."""
    return truncate(format_bytes(data))
