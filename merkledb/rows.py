"""Rows of values in order: as the tables have them, or as they were.

Provers and iterators read pairs as rows of the values table, whichever state they belong to: row key and
value, ascending or descending, from a bound on.  ``take`` cuts them off where a proof is full.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from merkledb.history import Past, value_of_row
from merkledb.proof import encoded_bin_bytes
from merkledb.store import MAX_ROW_KEY_BYTES, Cursor, Store, Transaction, key_of_row, row_key, seek

# A window of the tables that is compared with history: as many rows as a proof has, or so many bytes.
_WINDOW_ROWS: Final = 4096
_WINDOW_BYTES: Final = 1 << 20

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

    def cursor(self) -> Cursor:
        """Return a new cursor of the values."""
        return self._transaction.cursor(db=self._store.values)


class PastRows(Rows):
    """The rows as they were: windows of the tables, each put back by what history says of it.

    Args:
        stored: The rows of the tables.
        past: The state.
    """

    def __init__(self, stored: StoredRows, past: Past) -> None:
        self._stored = stored
        self._past = past

    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there was none."""
        if len(row_key(key)) > MAX_ROW_KEY_BYTES:
            return None
        row = self._past.value_row(key)
        return self._stored.value(key) if row is None else value_of_row(row)

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Row]:
        """Yield the rows from ``start`` up to ``end``."""
        low: bytes | None = start or b""
        limit = min(expected + 1, _WINDOW_ROWS)
        while low is not None:
            window, high = self._window(low, end, limit)
            changed, horizon = self._past.overlay(low, high, limit, _WINDOW_BYTES)
            yield from _put_back(window, changed, horizon)
            low = None if horizon is None or horizon == end else horizon + b"\0"
            limit = _WINDOW_ROWS

    def _window(self, low: bytes, end: bytes | None, limit: int) -> tuple[dict[bytes, bytes], bytes | None]:
        """Return rows of the tables in [low, end], and up to which key they are all that there are."""
        window: dict[bytes, bytes] = {}
        size = 0
        for row, value in self._stored.ascending(low, end, limit):
            key = key_of_row(row)
            if end is not None and key > end:
                break
            window[key] = value
            size += len(value)
            if len(window) == limit or size > _WINDOW_BYTES:
                return window, key
        return window, end

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


def _put_back(
    window: dict[bytes, bytes], changed: dict[bytes, bytes], horizon: bytes | None
) -> Iterator[Row]:
    """Return the rows up to ``horizon``, ascending, as they were before they changed."""
    pairs: dict[bytes, bytes | None] = dict(window)
    pairs.update((key, value_of_row(row)) for key, row in changed.items())
    for key in sorted(pairs):
        value = pairs[key]
        if horizon is not None and key > horizon:
            return
        if value is not None:
            yield row_key(key), value
