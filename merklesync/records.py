"""Pairs as lines of text: JSON Lines and CSV, read and written.

JSON Lines, one object a line, in UTF-8::

    {"key": "user/1", "value": "Ada"}
    {"key": {"hex": "00ff"}, "value": {"base64": "iVBORw=="}}

A string stands for its UTF-8 bytes, exactly as it is.  Bytes that are no UTF-8 are given as ``{"hex": ...}``
or ``{"base64": ...}``; both are read for keys and values, and written as hex for keys and base64 for values.
``--json`` shows keys and values in the same forms.

CSV has two columns, the key and the value, in the text forms of ``keys`` (text, or ``0x`` and hex digits).  A
first row that reads ``key,value`` is a header; one is written.

Blank lines are skipped.  A line that is wrong raises ``BadRecord`` with its number and the reason.
Invariant: what is written reads back as the same pairs, whatever bytes they hold.  Limits of a store's keys
and values are the caller's, given as arguments.
"""

import base64
import binascii
import csv
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

from merkledb import PicklableError
from merklesync.keys import HEX_PREFIX, parse_bytes, shorten
from merklesync.sorting import Pair

CSV_HEADER: Final = ("key", "value")
# The hex form of the largest value takes two characters a byte; the rest is for the key and the punctuation.
LINE_BYTES_A_VALUE_BYTE: Final = 2
LINE_OVERHEAD_BYTES: Final = 64 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class BadRecord(PicklableError):
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
        raise ValueError(f"{shorten(digits, 40)} is not valid {form}") from error


def read_json_lines(file: IO[bytes], *, max_key_bytes: int, max_value_bytes: int) -> Iterator[Pair]:
    """Yield the pairs of a file of JSON Lines, in its order.

    Args:
        file: Opened for reading bytes.
        max_key_bytes: A longer key is an error.
        max_value_bytes: A longer value is an error; it also bounds the length of a line.

    Raises:
        BadRecord: A line is wrong.
    """
    for number, line in _bounded_lines(file, max_value_bytes):
        if not line.strip():
            continue
        try:
            key, value = _parse_object(line)
            _require_lengths(key, value, max_key_bytes, max_value_bytes)
        except ValueError as error:
            raise BadRecord(number, str(error)) from error
        yield key, value


def _parse_object(line: bytes) -> Pair:
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_fields)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply to be a pair") from error
    except ValueError as error:
        # Python's own advice, which follows a semicolon, is not for whoever wrote the file.
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


def read_csv(file: IO[bytes], *, max_key_bytes: int, max_value_bytes: int) -> Iterator[Pair]:
    """Yield the pairs of a CSV file of two columns, in its order.

    Arguments and errors are those of ``read_json_lines``.
    """
    csv.field_size_limit(LINE_BYTES_A_VALUE_BYTE * max_value_bytes + LINE_OVERHEAD_BYTES)
    # Bytes that are no UTF-8 become lone surrogates here, so that the row they stand in is the
    # one that is named.
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _bounded_lines(file, max_value_bytes))
    rows = csv.reader(lines, strict=True)
    for index, row in enumerate(_rows(rows)):
        if not row or (index == 0 and tuple(row) == CSV_HEADER):
            continue
        try:
            key, value = _parse_row(row)
            _require_lengths(key, value, max_key_bytes, max_value_bytes)
        except ValueError as error:
            raise BadRecord(rows.line_num, str(error)) from error
        yield key, value


def _rows(rows: Any) -> Iterator[list[str]]:
    """Yield the rows of a ``csv.reader``, whose own type has no name, and name the line where it stumbles."""
    try:
        yield from rows
    except csv.Error as error:
        # Python's own advice, which follows a dash, is not for whoever wrote the file.
        raise BadRecord(rows.line_num, f"is not CSV: {str(error).split(' - ')[0]}") from error


def _parse_row(row: list[str]) -> Pair:
    if len(row) != len(CSV_HEADER):
        raise ValueError(f"has {len(row)} columns: a row is a key and a value")
    try:
        for field in row:
            field.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("is not UTF-8: give bytes as 0x and hex digits") from error
    return parse_bytes(row[0]), parse_bytes(row[1])


def _bounded_lines(file: IO[bytes], max_value_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line, never reading more of one than a pair can need."""
    max_line_bytes = LINE_BYTES_A_VALUE_BYTE * max_value_bytes + LINE_OVERHEAD_BYTES
    number = 0
    while line := file.readline(max_line_bytes + 1):
        number += 1
        if len(line) > max_line_bytes:
            raise BadRecord(
                number, f"is longer than {max_line_bytes} bytes, which is more than any pair needs"
            )
        yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _require_lengths(key: bytes, value: bytes, max_key_bytes: int, max_value_bytes: int) -> None:
    if len(key) > max_key_bytes:
        raise ValueError(f"the key has {len(key)} bytes, the store's limit is {max_key_bytes}")
    if len(value) > max_value_bytes:
        raise ValueError(f"the value has {len(value)} bytes, the limit is {max_value_bytes}")


def write_json_lines(file: IO[bytes], pairs: Iterable[Pair]) -> None:
    """Write ``pairs`` to a file opened for writing bytes, one JSON object a line."""
    for key, value in pairs:
        file.write(json.dumps(pair_to_json(key, value), ensure_ascii=False).encode("utf-8") + b"\n")


def write_csv(file: IO[bytes], pairs: Iterable[Pair]) -> None:
    """Write ``pairs`` to a file opened for writing bytes, as CSV with a header."""
    file.write(_csv_line(*CSV_HEADER))
    for key, value in pairs:
        file.write(_csv_line(_csv_text(key), _csv_text(value)))


def _csv_text(data: bytes) -> str:
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
