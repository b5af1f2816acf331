"""Pairs as lines of text: JSON Lines and CSV, read and written.

JSON Lines, one object a line, in UTF-8::

    {"key": "user/1", "value": "Ada"}
    {"key": {"hex": "00ff"}, "value": {"base64": "iVBORw=="}}

A string stands for its UTF-8 bytes, exactly as it is.  Bytes that are no UTF-8 are given as ``{"hex": ...}``
or ``{"base64": ...}``; both are read for keys and values, and written as hex for keys and base64 for values.
``--json`` shows keys and values in the same forms.

CSV has two columns, the key and the value.  How the bytes of a column are written is its ``Notation``, which
the caller gives or the header says::

    key,value               text: the field is the bytes, in UTF-8, whatever it looks like
    key_hex,value_hex       hex: two digits a byte, with or without 0x before them
    key_auto,value_auto     auto: text, or 0x and hex digits; text that begins with 0x is given in hex

Where neither says it, a column is text, so that what a file holds is what a store gets.  A first row that is
not blank and holds two of these names, a key's and a value's, is a header; one is written.  A first row that
is almost one, such as ``name,value`` or ``Key,Value``, is a pair all the same, and the caller is told.

Blank lines are skipped.  A line that is wrong raises ``InvalidLine`` with its number and the reason.
Invariant: what is written reads back as the same pairs, whatever bytes they hold.  Limits of a store's keys
and values are the caller's, given as arguments.
"""

import base64
import binascii
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import IO, Any, Final

from merklesync.errors import FileError
from merklesync.files.sorted_pairs import Pair
from merklesync.text import HEX_PREFIX, parse_bytes, parse_text, quote_bytes, truncate

# JSON writes a control character as six characters, \\u0001, which is the most that a byte of a value takes.
JSON_BYTES_A_VALUE_BYTE: Final = 6
# Hex takes two characters a byte, and so does a quote between quotes.
CSV_BYTES_A_VALUE_BYTE: Final = 2
# For the key, in whichever form, and the punctuation.
LINE_OVERHEAD_BYTES: Final = 64 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class Notation(StrEnum):
    """How a column of a CSV file writes bytes."""

    TEXT = "text"
    HEX = "hex"
    AUTO = "auto"

    def parse(self, field: str) -> bytes:
        """Return the bytes that a field stands for.

        Raises:
            ValueError: It is not of this notation.
        """
        match self:
            case Notation.TEXT:
                return parse_text(field)
            case Notation.HEX:
                return _decode_digits(field.removeprefix(HEX_PREFIX), "hex")
            case Notation.AUTO:
                return parse_bytes(field)

    def write(self, data: bytes) -> str:
        """Return the field that stands for ``data``.

        Raises:
            UnicodeDecodeError: It is no UTF-8, which no text stands for.
        """
        if self is Notation.TEXT:
            return data.decode("utf-8")
        return _auto_text(data) if self is Notation.AUTO else data.hex()

    def named(self, column: str) -> str:
        """Return the name of a column that is written so."""
        return column if self is Notation.TEXT else f"{column}_{self}"


_HEADERS: Final[dict[tuple[str, ...], tuple[Notation, Notation]]] = {
    (keys.named("key"), values.named("value")): (keys, values) for keys in Notation for values in Notation
}
# What other programs call the first column, above one that is called "value".
_OTHER_KEY_COLUMNS: Final = frozenset({"id", "key", "keys", "name"})
# All names that a column may have.
_COLUMNS: Final = frozenset(name for header in _HEADERS for name in header)


class InvalidLine(FileError):
    """A line of a file of pairs is not what it must be.

    Attributes:
        line: The number of the line in its file, from 1.
        reason: What is wrong with it.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def bytes_to_json(data: bytes, *, form: str) -> str | dict[str, str]:
    """Return ``data`` as a JSON string where it is UTF-8, else in the ``form`` "hex" or "base64"."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {form: data.hex() if form == "hex" else base64.b64encode(data).decode("ascii")}


def pair_to_json(key: bytes, value: bytes) -> dict[str, str | dict[str, str]]:
    """Return a pair as the object that stands for it in JSON Lines."""
    return {"key": bytes_to_json(key, form="hex"), "value": bytes_to_json(value, form="base64")}


def bytes_from_json(data: Any) -> bytes:
    """Return the bytes that a JSON string, ``{"hex": ...}`` or ``{"base64": ...}`` stands for.

    Raises:
        ValueError: It is something else, or its digits are wrong.
    """
    match data:
        case str():
            return _encode(data)
        case {"hex": str(digits)} if len(data) == 1:
            return _decode_digits(digits, "hex")
        case {"base64": str(digits)} if len(data) == 1:
            return _decode_digits(digits, "base64")
    raise ValueError('must be a string, {"hex": "..."} or {"base64": "..."}')


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError('holds bytes or half characters that are no UTF-8: use {"hex": "..."}') from error


def _decode_digits(digits: str, form: str) -> bytes:
    try:
        if form == "hex":
            return binascii.unhexlify(digits.encode("ascii"))
        return base64.b64decode(digits.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        form = "hex: an even number of digits" if form == "hex" else form
        raise ValueError(f"{truncate(digits, 40)} is not valid {form}") from error


def read_json_lines(file: IO[bytes], *, max_key_bytes: int, max_value_bytes: int) -> Iterator[Pair]:
    """Yield the pairs of a file of JSON Lines, in its order.

    Args:
        file: Opened for reading bytes.
        max_key_bytes: A longer key is an error.
        max_value_bytes: A longer value is an error; it also bounds the length of a line.

    Raises:
        InvalidLine: A line is wrong.
    """
    for number, line in _bounded_lines(file, JSON_BYTES_A_VALUE_BYTE * max_value_bytes):
        if not line.strip():
            continue
        try:
            key, value = _parse_object(line)
            _require_lengths(key, value, max_key_bytes, max_value_bytes)
        except ValueError as error:
            raise InvalidLine(number, str(error)) from error
        yield key, value


def _parse_object(line: bytes) -> Pair:
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_fields)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply to be a pair") from error
    except ValueError as error:
        # Python's own advice, which follows a semicolon, does not help the person who wrote the file.
        raise ValueError(f"is not JSON: {str(error).split(';')[0]}") from error
    if not isinstance(record, dict) or record.keys() != {"key", "value"}:
        raise ValueError('must be an object with "key" and "value" and nothing else')
    return _parse_field(record, "key"), _parse_field(record, "value")


def _fields(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) != len(fields):
        raise ValueError("a field is named twice")
    return found


def _parse_field(record: dict[str, Any], name: str) -> bytes:
    try:
        return bytes_from_json(record[name])
    except ValueError as error:
        raise ValueError(f'"{name}" {error}') from error


def read_csv(
    file: IO[bytes],
    *,
    max_key_bytes: int,
    max_value_bytes: int,
    keys: Notation | None = None,
    values: Notation | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Iterator[Pair]:
    """Yield the pairs of a CSV file of two columns, in its order.

    Args:
        file: Opened for reading bytes.
        max_key_bytes: A longer key is an error.
        max_value_bytes: A longer value is an error; it also bounds the length of a line.
        keys: How keys are written; None for what the header says, and text without one.
        values: The same for values.
        on_note: Called with a sentence where the first row looks like a header and is taken as a pair.

    Raises:
        InvalidLine: A line is wrong.
    """
    max_line_bytes = CSV_BYTES_A_VALUE_BYTE * max_value_bytes
    csv.field_size_limit(max_line_bytes + LINE_OVERHEAD_BYTES)
    # Bytes that are no UTF-8 become lone surrogates here, so that the row they stand in is the
    # one that is named.
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _bounded_lines(file, max_line_bytes))
    rows = csv.reader(lines, strict=True)
    is_first = True
    key_notation, value_notation = keys or Notation.TEXT, values or Notation.TEXT
    for row in _rows(rows):
        if not row or (len(row) == 1 and row[0].isspace()):
            continue
        if is_first:
            is_first = False
            if (said := _HEADERS.get(tuple(row))) is not None:
                key_notation, value_notation = keys or said[0], values or said[1]
                continue
            if len(row) > 1 and _COLUMNS.issuperset(row):
                # Taken as a pair, it would turn all keys into values, and no error would tell.
                raise InvalidLine(rows.line_num, "names the columns in another order: the key comes first")
            if _looks_like_header(row):
                on_note(
                    f"line {rows.line_num}, {truncate(','.join(row))}, looks like a header and is taken as a "
                    "pair: if it is a header, write key,value in its place, and delete that key"
                )
        try:
            key, value = _parse_row(row, key_notation, value_notation)
            _require_lengths(key, value, max_key_bytes, max_value_bytes)
        except ValueError as error:
            raise InvalidLine(rows.line_num, str(error)) from error
        yield key, value


def _looks_like_header(row: list[str]) -> bool:
    """Return whether a row that is no header was likely meant as one: its names in another spelling."""
    names = [name.strip().casefold() for name in row]
    if len(names) != 2:
        return False
    return tuple(names) in _HEADERS or (names[0] in _OTHER_KEY_COLUMNS and names[1] in {"value", "values"})


def _rows(rows: Any) -> Iterator[list[str]]:
    """Yield the rows of a ``csv.reader``, whose own type has no name, and name the line where it stumbles."""
    try:
        yield from rows
    except csv.Error as error:
        # Python's own advice, which follows a dash, does not help the person who wrote the file.
        raise InvalidLine(rows.line_num, f"is not CSV: {str(error).split(' - ')[0]}") from error


def _parse_row(row: list[str], keys: Notation, values: Notation) -> Pair:
    if len(row) != 2:
        raise ValueError(f"has {len(row)} columns: a row is a key and a value")
    try:
        for field in row:
            field.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            "is not UTF-8: give bytes as hex, and say so with a header key_hex or value_hex"
        ) from error
    return _parse_column(keys, row[0], "key"), _parse_column(values, row[1], "value")


def _parse_column(notation: Notation, field: str, name: str) -> bytes:
    try:
        return notation.parse(field)
    except ValueError as error:
        raise ValueError(f"the {name} {error}") from error


def _bounded_lines(file: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line, never reading more of one than a pair can need.

    Args:
        file: Opened for reading bytes.
        max_bytes: What the largest value can need.
    """
    max_line_bytes = max_bytes + LINE_OVERHEAD_BYTES
    number = 0
    while line := file.readline(max_line_bytes + 1):
        number += 1
        if number == 1 and _is_utf_16(line):
            # Without a mark it would be read as text with a NUL after each character.
            raise InvalidLine(number, "is UTF-16, as spreadsheets write it: save the file as UTF-8")
        if len(line) > max_line_bytes:
            raise InvalidLine(
                number, f"is longer than {max_line_bytes} bytes, which is more than any pair needs"
            )
        yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _is_utf_16(line: bytes) -> bool:
    """Return whether a first line is UTF-16: by its mark, or as every second byte is zero."""
    if line.startswith(_UTF_16_MARKS):
        return True
    return len(line) >= 4 and any(line[::2]) != any(line[1::2])


def _require_lengths(key: bytes, value: bytes, max_key_bytes: int, max_value_bytes: int) -> None:
    if len(key) > max_key_bytes:
        raise ValueError(f"the key has {len(key)} bytes, the store's limit is {max_key_bytes}")
    if len(value) > max_value_bytes:
        raise ValueError(f"the value has {len(value)} bytes, the limit is {max_value_bytes}")


def write_json_lines(file: IO[bytes], pairs: Iterable[Pair]) -> None:
    """Write ``pairs`` to a file opened for writing bytes, one JSON object a line."""
    for key, value in pairs:
        file.write(json.dumps(pair_to_json(key, value), ensure_ascii=False).encode("utf-8") + b"\n")


def best_notations(pairs: Iterable[Pair]) -> tuple[Notation, Notation]:
    """Return how keys and how values are best written: as text where all of them are text."""
    keys = values = Notation.TEXT
    for key, value in pairs:
        if keys is Notation.TEXT and not _is_text(key):
            keys = Notation.AUTO
        if values is Notation.TEXT and not _is_text(value):
            values = Notation.AUTO
        if keys is values is Notation.AUTO:
            break
    return keys, values


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def write_csv(
    file: IO[bytes],
    pairs: Iterable[Pair],
    *,
    keys: Notation = Notation.AUTO,
    values: Notation = Notation.AUTO,
) -> None:
    """Write ``pairs`` to a file opened for writing bytes, as CSV with a header that says how.

    Raises:
        InvalidLine: A key or a value that is to be written as text is not UTF-8; its line is named.
    """
    file.write(_csv_line(keys.named("key"), values.named("value")))
    number = 2
    for key, value in pairs:
        try:
            line = _csv_line(keys.write(key), values.write(value))
        except UnicodeDecodeError as error:
            raise InvalidLine(
                number, f"the pair of key {quote_bytes(key)} is no text: write it as hex or auto"
            ) from error
        file.write(line)
        number += line.count(b"\n")


def _auto_text(data: bytes) -> str:
    """Return bytes as text where they are UTF-8 and cannot be taken for hex, else as 0x and hex digits."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return HEX_PREFIX + data.hex()
    return HEX_PREFIX + data.hex() if text.startswith(HEX_PREFIX) else text


def _csv_line(key: str, value: str) -> bytes:
    """Return one row; every field is quoted, so that blanks, quotes and commas need no rule of their own."""
    fields = ('"' + field.replace('"', '""') + '"' for field in (key, value))
    return (",".join(fields) + "\n").encode("utf-8")
