"""Rows of values in order: as the tables have them, or as they were.

Provers and iterators read pairs as rows of the values table, whichever state they belong to: row key and
value, ascending or descending, from a bound on.  ``take`` cuts them off where a proof is full.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import itemgetter
from typing import Final, NamedTuple, cast

from merkledb.history import Past, value_of_row
from merkledb.proof import encoded_bin_bytes, encoded_column_bytes
from merkledb.store import MAX_ROW_KEY_BYTES, Cursor, Store, Transaction, key_of_row, row_key, seek

# A window of the tables that is compared with history: as many rows as a proof has, or so many bytes.
_WINDOW_ROWS: Final = 4096
_WINDOW_BYTES: Final = 1 << 20
# Of a window, one row in so many is worth going on in the same way; else the windows become smaller.
_SPARSENESS: Final = 8
_LEAST_WINDOW_ROWS: Final = 16

Row = tuple[bytes, bytes]


class Pairs(NamedTuple):
    """Pairs for a proof.

    Attributes:
        keys: Ascending.
        values: As many; None for a deletion, in a change proof.
        encoded_bytes: What they take in an encoded proof.
        more: Whether the range holds others behind them.
    """

    keys: list[bytes]
    values: list[bytes | None]
    encoded_bytes: int
    more: bool


def take(rows: Iterable[Row], end: bytes | None, max_keys: int, max_bytes: int) -> Pairs:
    """Return the pairs of ascending rows up to the key ``end`` or a limit, but at least one."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    encoded_bytes = 0
    for row, value in rows:
        key = row if row[0] else key_of_row(row)
        if end is not None and key > end:
            break
        key_length, value_length = len(key), len(value)
        if key_length < 256 > value_length:
            pair_bytes = key_length + value_length + 4
        else:
            pair_bytes = encoded_bin_bytes(key_length) + encoded_bin_bytes(value_length)
        if len(keys) == max_keys or (keys and encoded_bytes + pair_bytes > max_bytes):
            return Pairs(keys, values, encoded_bytes, more=True)
        encoded_bytes += pair_bytes
        keys.append(key)
        values.append(value)
    return Pairs(keys, values, encoded_bytes, more=False)


def take_stretches(stretches: Iterable[list[Row]], max_keys: int, max_bytes: int) -> Pairs:
    """Return the pairs of ascending rows up to a limit, but at least one; many at a time, where they fit."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    encoded_bytes = 0
    for rows in stretches:
        if not rows:
            continue
        fitting = rows[: max_keys - len(keys)]
        new_keys, new_values = _columns(fitting)
        new_bytes = encoded_column_bytes(new_keys, new_values)
        if encoded_bytes + new_bytes > max_bytes:
            rest = take(fitting, None, max_keys, max_bytes - encoded_bytes)
            if keys and encoded_bytes + rest.encoded_bytes > max_bytes:
                return Pairs(keys, values, encoded_bytes, more=True)
            encoded_bytes += rest.encoded_bytes
            return Pairs(keys + rest.keys, values + rest.values, encoded_bytes, rest.more or len(rows) > 1)
        keys += new_keys
        values += new_values
        encoded_bytes += new_bytes
        if len(fitting) < len(rows):
            return Pairs(keys, values, encoded_bytes, more=True)
    return Pairs(keys, values, encoded_bytes, more=False)


def _columns(rows: list[Row]) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and the values of ascending rows."""
    if not rows:
        return [], []
    row_keys, values = zip(*rows, strict=True)
    return list(row_keys if rows[0][0][0] else map(key_of_row, row_keys)), list(values)


class Rows(ABC):
    """The rows of one state."""

    @abstractmethod
    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""

    @abstractmethod
    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterable[Row]:
        """Return the rows from ``start`` on, at least up to ``end``.

        Args:
            start: The first key; None for no bound.
            end: The last key that is of interest; None for no bound.
            expected: About how many rows will be read.
        """

    @abstractmethod
    def descending(self, start: bytes | None, end: bytes | None) -> Iterable[Row]:
        """Return the rows from ``end`` down, at least as far as ``start``."""

    def pairs(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> Pairs:
        """Return the pairs of [start, end], up to a limit, but at least one."""
        return take(self.ascending(start, end, max_keys), end, max_keys, max_bytes)


class StoredRows(Rows):
    """The rows of the tables: the tip.

    Args:
        store: Whose tables are read.
        transaction: What they are read in.
    """

    def __init__(self, store: Store, transaction: Transaction) -> None:
        self._store = store
        self._transaction = transaction

    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""
        row = row_key(key)
        return self._transaction.get(row, db=self._store.values) if len(row) <= MAX_ROW_KEY_BYTES else None

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterable[Row]:
        """Return the rows from ``start`` on, to the last."""
        del end, expected  # It costs nothing to have more than will be read.
        cursor = self.cursor()
        return cursor if seek(cursor, start) else ()

    def descending(self, start: bytes | None, end: bytes | None) -> Iterable[Row]:
        """Return the rows from ``end`` down, to the first."""
        del start
        cursor = self.cursor()
        if end is None or not seek(cursor, end):
            found = cursor.last()
        else:
            found = key_of_row(cursor.key()) == end or cursor.prev()
        return cursor.iterprev() if found else ()

    def window(self, low: bytes, max_rows: int) -> tuple[list[Row], bool]:
        """Return rows from the key ``low`` on, and whether there may be more behind them."""
        rows = islice(self.ascending(low, None, max_rows), max_rows)
        with_large_values = self._transaction.stat(self._store.values)["overflow_pages"]
        if not with_large_values:
            window = list(rows)
            return window, len(window) == max_rows
        window, size = [], 0
        for row in rows:
            window.append(row)
            size += len(row[1])
            if size > _WINDOW_BYTES:
                return window, True
        return window, len(window) == max_rows

    def cursor(self) -> Cursor:
        """Return a new cursor of the values."""
        return self._transaction.cursor(db=self._store.values)


class PastRows(Rows):
    """The rows as they were: windows of the tables, each put back by what history says of it.

    Where most of what the tables hold came later, windows become small, and what holds nothing is leapt over.

    Args:
        stored: The rows of the tables.
        past: The state.
        first_key: Finds the first key of the state at or behind another.
    """

    def __init__(self, stored: StoredRows, past: Past, first_key: Callable[[bytes], bytes | None]) -> None:
        self._stored = stored
        self._past = past
        self._first_key = first_key

    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there was none."""
        if len(row_key(key)) > MAX_ROW_KEY_BYTES:
            return None
        row = self._past.value_row(key)
        return self._stored.value(key) if row is None else value_of_row(row)

    def pairs(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> Pairs:
        """Return the pairs of [start, end], up to a limit, but at least one."""
        return take_stretches(self._windows(start, end, max_keys), max_keys, max_bytes)

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Row]:
        """Return the rows from ``start`` up to ``end``."""
        return chain.from_iterable(self._windows(start, end, expected))

    def _windows(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[list[Row]]:
        """Yield the rows from ``start`` up to ``end`` in windows, some of which may be empty."""
        low: bytes | None = start or b""
        limit = min(expected + 1, _WINDOW_ROWS)
        while low is not None:
            window, high = self._window(low, end, limit)
            changed, horizon = self._past.overlay(low, high, limit, _WINDOW_BYTES)
            rows = _put_back(window, changed, horizon)
            yield rows
            if horizon is None or horizon == end:
                return
            low = horizon + b"\0"
            if not rows:
                low = self._first_key(low)
            is_sparse = len(rows) * _SPARSENESS < len(window)
            limit = max(len(rows) * _SPARSENESS, _LEAST_WINDOW_ROWS) if is_sparse else _WINDOW_ROWS

    def _window(self, low: bytes, end: bytes | None, limit: int) -> tuple[list[Row], bytes | None]:
        """Return rows of the tables in [low, end], and up to which key they are all that there are."""
        window, more = self._stored.window(low, limit)
        if end is not None and window and window[-1][0] > row_key(end):
            window, more = window[: bisect_right(window, row_key(end), key=itemgetter(0))], False
        return window, key_of_row(window[-1][0]) if more else end

    def descending(self, start: bytes | None, end: bytes | None) -> Iterator[Row]:
        """Yield the rows from ``end`` down to ``start``."""
        high, below = end, None
        while True:
            low = self._window_start(start, high)
            for first, last in reversed(self._stretches(low, high)):
                rows = list(self.ascending(first, last, _WINDOW_ROWS))
                yield from (row for row in reversed(rows) if below is None or key_of_row(row[0]) < below)
            if low == start or not low:
                return
            high = below = low

    def _window_start(self, start: bytes | None, end: bytes | None) -> bytes | None:
        """Return where a window of the tables begins that ends at ``end``."""
        rows = size = 0
        for row, value in self._stored.descending(start, end):
            key = key_of_row(row)
            if start is not None and key < start:
                break
            rows, size = rows + 1, size + len(value)
            if rows > 1 and (rows == _WINDOW_ROWS or size > _WINDOW_BYTES):
                return key
        return start

    def _stretches(self, start: bytes | None, end: bytes | None) -> list[tuple[bytes | None, bytes | None]]:
        """Return [start, end] cut so that each holds a window's rows: there may have been many more."""
        stretches: list[tuple[bytes | None, bytes | None]] = []
        low, rows, size = start, 0, 0
        for row, value in self.ascending(start, end, _WINDOW_ROWS):
            rows, size = rows + 1, size + len(value)
            if rows == _WINDOW_ROWS or size > _WINDOW_BYTES:
                high = key_of_row(row)
                stretches.append((low, high))
                low, rows, size = high + b"\0", 0, 0
        if end is None or low is None or low <= end:
            stretches.append((low, end))
        return stretches


def _put_back(window: list[Row], changed: Mapping[bytes, bytes], horizon: bytes | None) -> list[Row]:
    """Return the rows up to ``horizon``, ascending, as they were before they changed."""
    last = None if horizon is None else row_key(horizon)
    if last is not None and window and window[-1][0] > last:
        window = window[: bisect_right(window, last, key=itemgetter(0))]
    if not changed:
        return window
    rows: dict[bytes, bytes | None] = dict(window)
    count = len(rows)
    gone = False
    for key, row in changed.items():
        value = value_of_row(row)
        rows[row_key(key)] = value
        gone = gone or value is None
    ordered = rows.items() if len(rows) == count else sorted(rows.items())
    if gone:
        return [(row, value) for row, value in ordered if value is not None]
    return cast("list[Row]", list(ordered))
