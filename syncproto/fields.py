"""The elements of a frame: four forms of MessagePack, read and written, and the bounds of a message's fields.

A frame holds an array of unsigned integers, texts, binaries and nils, and nothing that nests.  Which message
has which fields is ``codec``'s to say.

Invariant: nothing is allocated before its length is known to lie within the frame, so the limit of the frame
is the limit of the memory.

Why the msgpack package does not read them, though it writes them: ``msgpack.unpackb`` follows nested arrays,
so that a hostile frame makes it allocate 29 bytes for each byte received.  ``msgpack.Unpacker`` with
``read_array_header``, as ``merkledb.formats.proof`` uses it, is safe from that, but it copies the whole frame
before it reads the first element.  A proof of 1 MiB then takes 1.1 milliseconds of the event loop instead of
0.03, and one of 80 MiB takes its memory twice.  And it would need the same table of type bytes, because it
accepts forms that the protocol excludes, such as signed integers.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgpack

Value = int | str | bytes | None

_MAX_SHORT_INTEGER: Final = 0x7F
_NIL: Final = 0xC0
_SHORT_ARRAY: Final = 0x90
_SHORT_ARRAY_MAX: Final = 15
_SHORT_TEXT: Final = 0xA0
_SHORT_TEXT_MAX: Final = 31
# Type byte to the number of bytes of the integer, or of the length, that follows it.
_INTEGER_WIDTHS: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_TEXT_WIDTHS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARY_WIDTHS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_WIDTHS: Final = _INTEGER_WIDTHS | _TEXT_WIDTHS | _BINARY_WIDTHS


class FieldError(ValueError):
    """Bytes or a value are not what a field holds; ``codec`` says of which message and whose mistake."""


def read_array_header(view: memoryview) -> int:
    """Return the number of elements of the array that a frame is.

    Raises:
        FieldError: The frame is empty or starts with anything but an array of at most 15 elements.
    """
    if not view:
        raise FieldError("an empty frame")
    count = view[0] - _SHORT_ARRAY
    if not 0 <= count <= _SHORT_ARRAY_MAX:
        raise FieldError(
            f"type byte 0x{view[0]:02x} where an array of at most {_SHORT_ARRAY_MAX} elements starts"
        )
    return count


def read_value(view: memoryview, position: int) -> tuple[Value, int]:
    """Read one value.

    Args:
        view: A whole frame.
        position: Where the value starts.

    Returns:
        The value and the position after it.

    Raises:
        FieldError: The value goes beyond the frame, is not UTF-8, or is of a type that the protocol does not
            use.
    """
    if position >= len(view):
        raise FieldError("the frame ends where a value should start")
    tag, position = view[position], position + 1
    # The type byte is the value, or it holds the length, or a number follows it: the value or the length.
    if tag <= _MAX_SHORT_INTEGER:
        return tag, position
    if tag == _NIL:
        return None, position
    if 0 <= tag - _SHORT_TEXT <= _SHORT_TEXT_MAX:
        number = tag - _SHORT_TEXT
    elif tag in _WIDTHS:
        width = _WIDTHS[tag]
        number = int.from_bytes(_piece(view, position, width), "big")
        position += width
    else:
        raise FieldError(
            f"type byte 0x{tag:02x} is neither an unsigned integer, nor text, nor binary, nor nil"
        )
    if tag in _INTEGER_WIDTHS:
        return number, position
    piece, position = _piece(view, position, number), position + number
    if tag in _BINARY_WIDTHS:
        return bytes(piece), position
    try:
        return str(piece, "utf-8"), position
    except UnicodeDecodeError as error:
        raise FieldError("a text that is not UTF-8") from error


def _piece(view: memoryview, position: int, length: int) -> memoryview:
    """Return a part of the frame without copying it; a length that leads out of the frame is refused here."""
    if length > len(view) - position:
        raise FieldError(f"{length} bytes are announced where {len(view) - position} are left in the frame")
    return view[position : position + length]


def write_array_header(count: int) -> bytes:
    """Return the bytes that start an array of at most 15 elements."""
    return bytes([_SHORT_ARRAY + count])


def write_value(value: Value) -> tuple[bytes, ...]:
    """Return the bytes of a value in pieces, so that a proof of megabytes is copied once, into its frame."""
    if isinstance(value, bytes):
        return (_binary_header(len(value)), value)
    return (msgpack.packb(value),)


def _binary_header(length: int) -> bytes:
    for tag, width in _BINARY_WIDTHS.items():
        if length < 1 << 8 * width:
            return bytes([tag]) + length.to_bytes(width, "big")
    raise FieldError(f"{length} bytes are more than a frame can hold")


class Field(NamedTuple):
    """A named element of a message, and the check of its type and its bounds.

    ``check`` raises a ``FieldError`` that says what is wrong, in words that fit both directions.
    """

    name: str
    check: Callable[[Value], None]


def unsigned(name: str, *, low: int = 0, high: int) -> Field:
    """Return a field that is an integer, not a bool, in [low, high]."""

    def check(value: Value) -> None:
        # A bool is an int to Python, and not to the protocol.
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldError(f"an integer belongs here, not {_kind_of(value)}")
        if not low <= value <= high:
            raise FieldError(f"{value} is not within [{low}, {high}]")

    return Field(name, check)


def binary(name: str, *, low: int = 0, high: int, optional: bool = False) -> Field:
    """Return a field that is bytes with a length in [low, high], or nil where it is optional."""

    def check(value: Value) -> None:
        if value is None and optional:
            return
        if not isinstance(value, bytes):
            raise FieldError(f"bytes belong here, not {_kind_of(value)}")
        if not low <= len(value) <= high:
            raise FieldError(f"its {len(value)} bytes are not within [{low}, {high}]")

    return Field(name, check)


def text(name: str, *, low: int = 0, high: int) -> Field:
    """Return a field that is text of [low, high] bytes in UTF-8, free of control characters.

    A peer's text is shown on terminals, which obey control characters.
    """

    def check(value: Value) -> None:
        if not isinstance(value, str):
            raise FieldError(f"text belongs here, not {_kind_of(value)}")
        if not value.isprintable():
            raise FieldError("control characters are not allowed")
        length = len(value.encode("utf-8", "surrogatepass"))
        if not low <= length <= high:
            raise FieldError(f"its {length} bytes are not within [{low}, {high}]")

    return Field(name, check)


def _kind_of(value: Value) -> str:
    names = {bool: "a bool", int: "an integer", str: "text", bytes: "bytes", type(None): "nil"}
    return names.get(type(value), type(value).__name__)
