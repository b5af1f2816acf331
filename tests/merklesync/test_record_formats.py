"""JSON Lines, CSV and sorting: what is written reads back, and a bad line is named with its reason."""

import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merklesync.files.sorted_pairs import PAIR_OVERHEAD_BYTES, SortedPairs
from merklesync.files.text_pairs import (
    InvalidLine,
    Notation,
    best_notations,
    read_csv,
    read_json_lines,
    write_csv,
    write_json_lines,
)

LIMITS: Any = {"max_key_bytes": 8, "max_value_bytes": 16}
FORMATS = {"json lines": (read_json_lines, write_json_lines), "csv": (read_csv, write_csv)}

some_bytes = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
awkward_bytes = st.sampled_from(
    [b"", b"0x", b"0xzz", b'"', b",", b"\n", b"\r\n", b" a ", b"\xff", b"\0", b"key", b"value"]
)
pairs_lists = st.lists(st.tuples(some_bytes | awkward_bytes, some_bytes | awkward_bytes), max_size=8)


@pytest.mark.parametrize("name", FORMATS)
@given(pairs=pairs_lists)
def test_any_pairs_read_back_as_written(name: str, pairs: list[tuple[bytes, bytes]]) -> None:
    read, write = FORMATS[name]
    file = io.BytesIO()
    write(file, pairs)
    file.seek(0)
    assert list(read(file, max_key_bytes=100, max_value_bytes=100)) == pairs


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.binary(max_size=80))
def test_any_bytes_give_pairs_or_a_bad_record(name: str, data: bytes) -> None:
    sentence = ""
    try:
        list(FORMATS[name][0](io.BytesIO(data), **LIMITS))
    except InvalidLine as error:
        sentence = str(error)
    assert sentence.isprintable()


def test_json_forms_are_read_for_keys_and_values() -> None:
    lines = b'\xef\xbb\xbf{"key": {"base64": "/wA="}, "value": {"hex": "00FF"}}\n\n  \n'
    lines += b'{"value": "\xc3\xa9", "key": "0x61"}'
    assert list(read_json_lines(io.BytesIO(lines), **LIMITS)) == [
        (b"\xff\0", b"\0\xff"),
        (b"0x61", "é".encode()),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", 'must be an object with "key" and "value"'),
        (b"{}", 'must be an object with "key" and "value"'),
        (b'{"key": "a", "value": "b", "extra": 1}', "and nothing else"),
        (b'{"key": "a", "key": "b", "value": "c"}', "a field is named twice"),
        (b'{"key": "a", "value": 1}', '"value" must be a string'),
        (b'{"key": null, "value": "b"}', '"key" must be a string'),
        (b'{"key": {"hex": "0g"}, "value": "b"}', '"key" 0g is not valid hex'),
        (b'{"key": {"hex": "\xd9\xa1\xd9\xa1"}, "value": "b"}', "is not valid hex"),
        (b'{"key": "a", "value": {"base64": "a"}}', '"value" a is not valid base64'),
        (b'{"key": "a", "value": {"base64": "YQ==\\n"}}', "is not valid base64"),
        (b'{"key": {"hex": "00", "base64": ""}, "value": "b"}', '"key" must be a string'),
        (b'{"key": "\\ud800", "value": "b"}', '"key" holds bytes or half characters'),
        (b'{"key": "\xff", "value": "b"}', "is not UTF-8"),
        (b'{"key": "a"', "is not JSON"),
        (b"[" * 20_000, "is nested too deeply"),
        (b'{"key": "a", "value": ' + b"1" * 5_000 + b"}", "is not JSON"),
        (b'{"key": "123456789", "value": "b"}', "the key has 9 bytes, the store's limit is 8"),
        (b'{"key": "a", "value": "12345678901234567"}', "the value has 17 bytes, the limit is 16"),
        (b" " * 70_000, "is longer than 65632 bytes"),
    ],
)
def test_a_bad_json_line_is_named_with_its_reason(line: bytes, reason: str) -> None:
    good = b'{"key": "a", "value": "b"}\n'
    with pytest.raises(InvalidLine, match=r"^line 3: ") as caught:
        list(read_json_lines(io.BytesIO(good + good + line + b"\n" + good), **LIMITS))
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a", "has 1 columns"),
        (b"a,b,c", "has 3 columns"),
        (b"0x1,b", "the key 0x1 is not 0x and an even number"),
        (b"a,\xff", "is not UTF-8"),
        (b'a,"b"c', "is not CSV"),
        (b'a,"b', "is not CSV"),
        (b"123456789,b", "the key has 9 bytes"),
        (b'a,"' + b" " * 70_000 + b'"', "is longer than 65568 bytes"),
    ],
)
def test_a_bad_csv_line_is_named_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidLine, match=r"^line 3: ") as caught:
        list(read_csv(io.BytesIO(b"key_auto,value\r\n0x61,b\r\n" + line), **LIMITS))
    assert reason in caught.value.reason


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("read", [read_csv, read_json_lines])
def test_a_file_in_utf_16_is_refused_by_name(
    read: Callable[..., Iterator[tuple[bytes, bytes]]], encoding: str
) -> None:
    for text in ("key,value\na,b\n", "a,b", "\u043a,\u0437\n"):
        data = ("\ufeff" + text if "-16-" in encoding else text).encode(encoding)
        with pytest.raises(InvalidLine, match=r"line 1: is UTF-16.*save the file as UTF-8"):
            list(read(io.BytesIO(data), **LIMITS))
    without_a_mark = "key,value\n".encode("utf-16-le")
    with pytest.raises(InvalidLine, match="is UTF-16"):
        list(read(io.BytesIO(without_a_mark), **LIMITS))
    with pytest.raises(InvalidLine, match=r"line 1: (is longer|is not JSON)"):
        list(read(io.BytesIO(bytes(200_000)), **LIMITS))


@pytest.mark.parametrize("before", [b"", b"\n", b"\r\n  \r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_only_a_first_csv_row_is_a_header(before: bytes) -> None:
    file = io.BytesIO(before + b"key,value\nkey,value\n\na,0x00\n")
    assert list(read_csv(file, **LIMITS)) == [(b"key", b"value"), (b"a", b"0x00")]


@pytest.mark.parametrize(
    ("header", "notations", "expected"),
    [
        (b"", {}, (b"0xdead", b"0xBE")),
        (b"key,value\n", {}, (b"0xdead", b"0xBE")),
        (b"key_hex,value\n", {}, (b"\xde\xad", b"0xBE")),
        (b"key,value_auto\n", {}, (b"0xdead", b"\xbe")),
        (b'"key_auto","value_hex"\n', {}, (b"\xde\xad", b"\xbe")),
        (b"", {"keys": Notation.HEX}, (b"\xde\xad", b"0xBE")),
        (b"key,value\n", {"values": Notation.AUTO}, (b"0xdead", b"\xbe")),
        (b"key_hex,value_hex\n", {"keys": Notation.TEXT}, (b"0xdead", b"\xbe")),
    ],
)
def test_a_csv_field_is_text_unless_an_option_or_the_header_says_otherwise(
    header: bytes, notations: Any, expected: tuple[bytes, bytes]
) -> None:
    assert list(read_csv(io.BytesIO(header + b"0xdead,0xBE"), **LIMITS, **notations)) == [expected]


@given(pairs=pairs_lists, keys=st.sampled_from(Notation), values=st.sampled_from(Notation))
def test_any_pairs_read_back_from_csv_as_written_in_any_notation_or_are_refused(
    pairs: list[tuple[bytes, bytes]], keys: Notation, values: Notation
) -> None:
    file = io.BytesIO()
    best_keys, best_values = best_notations(pairs)
    is_writable = keys is not Notation.TEXT or best_keys is Notation.TEXT
    is_writable &= values is not Notation.TEXT or best_values is Notation.TEXT
    if is_writable:
        write_csv(file, pairs, keys=keys, values=values)
    else:
        with pytest.raises(InvalidLine, match="is no text: write it as hex or auto"):
            write_csv(file, pairs, keys=keys, values=values)
        file = io.BytesIO()
        write_csv(file, pairs, keys=best_keys, values=best_values)
    file.seek(0)
    assert list(read_csv(file, max_key_bytes=100, max_value_bytes=100)) == pairs


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("unit", [b"\x01", b'"', b"\\", b"\n", b"\x7f", b"\xff", b"a", "\u2028".encode()])
def test_what_is_written_of_the_largest_value_is_read(name: str, unit: bytes) -> None:
    read, write = FORMATS[name]
    # Far above what a line may have beside its value, so that each form of a byte comes to its limit.
    max_value_bytes = 600_000
    pairs = [(unit[:1] * 504, unit * (max_value_bytes // len(unit)))]
    file = io.BytesIO()
    write(file, pairs)
    file.seek(0)
    assert list(read(file, max_key_bytes=504, max_value_bytes=max_value_bytes)) == pairs


def test_a_json_line_may_escape_every_character() -> None:
    line = b'{"key": "a", "value": "%s"}' % (b"\\u0001" * 600_000)
    pairs = list(read_json_lines(io.BytesIO(line), max_key_bytes=8, max_value_bytes=600_000))
    assert pairs == [(b"a", b"\1" * 600_000)]


def test_no_room_for_temporary_files_says_where_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with (
        SortedPairs(max_memory_bytes=1) as collected,
        pytest.raises(OSError, match="TMPDIR can name") as caught,
    ):
        collected.add(b"key", b"value")
    assert caught.value.filename == tempfile.gettempdir()


@given(
    pairs=st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=3)), max_size=150),
    pairs_in_memory=st.integers(1, 40),
)
def test_sorted_pairs_yield_the_newest_of_each_key_in_order(
    pairs: list[tuple[bytes, bytes]], pairs_in_memory: int
) -> None:
    with SortedPairs(max_memory_bytes=pairs_in_memory * PAIR_OVERHEAD_BYTES) as collected:
        for key, value in pairs:
            collected.add(key, value)
        expected = sorted(dict(pairs).items())
        assert list(collected) == expected
        assert list(collected) == expected


@pytest.mark.parametrize(
    ("first", "is_noted"),
    [
        (b"name,value", True),
        (b"Name,Value", True),
        (b"Key,Value", True),
        (b"KEY_HEX,VALUE", True),
        (b"id,value", True),
        (b'"key ",value', True),
        (b"key,values", True),
        (b"name,Ada", False),
        (b"user,value", False),
        (b"value,x", False),
        (b"key,", False),
    ],
)
def test_a_first_csv_row_that_looks_like_a_header_is_a_pair_and_noted(first: bytes, is_noted: bool) -> None:
    notes: list[str] = []
    pairs = list(read_csv(io.BytesIO(b"\n" + first + b"\nname,value\n"), **LIMITS, on_note=notes.append))
    assert pairs[0] == tuple(first.replace(b'"', b"").split(b","))
    assert len(pairs) == 2
    shown = first.replace(b'"', b"").decode()
    note = f"line 2, {shown}, looks like a header and is taken as a pair: "
    advice = "if it is a header, write key,value in its place, and delete that key"
    assert notes == is_noted * [note + advice]


def test_a_header_is_not_noted() -> None:
    list(read_csv(io.BytesIO(b"key,value\nname,value\n"), **LIMITS, on_note=pytest.fail))


@pytest.mark.parametrize("header", [b"value,key", b"key,key", b"value_hex,key_auto", b"key,value,key"])
def test_a_csv_header_with_its_columns_in_another_order_is_no_pair(header: bytes) -> None:
    with pytest.raises(InvalidLine, match="the key comes first"):
        list(read_csv(io.BytesIO(header + b"\nv,k\n"), max_key_bytes=8, max_value_bytes=8))
