"""Rows of values in order: as the tables have them, or as they were.

Provers and iterators read pairs as rows of the values table, whichever state they belong to: row key and
value, ascending or descending, from a bound on.  ``take`` cuts them off where a proof is full.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from merkledb.formats.proof import encoded_bin_bytes
from merkledb.history.log import ABSENT, PRESENT, require_value_row, value_of_row
from merkledb.history.reader import HistoryReader
from merkledb.storage.store import MAX_ROW_KEY_BYTES, Cursor, StoreTransaction, key_of_row, row_key, seek

# A window of the tables that is compared with history: as many rows as a proof has, or so many bytes.
_WINDOW_ROWS: Final = 4096
_WINDOW_BYTES: Final = 1 << 20
# Of a window, one row in so many is worth going on in the same way; else the windows become smaller.
_SPARSENESS: Final = 8
_LEAST_WINDOW_ROWS: Final = 16
# So many rows are looked at before the end of a range is thought to be far away.
_SMALL_WINDOW_ROWS: Final = 64
# Who iterates may want one pair or all, so the first window is small, and the next ones grow.
FIRST_ROWS: Final = 64
WINDOW_GROWTH: Final = 4

# What is no view of the map, and so needs no copy.
_OWNED_TYPES: Final = frozenset((bytes, type(None)))

Row = tuple[bytes, bytes]


class Window(NamedTuple):
    """Pairs that follow each other, as columns: so many tuples would keep the garbage collector busy.

    Attributes:
        keys: Ascending.
        values: As many.
    """

    keys: list[bytes]
    values: list[bytes]

    def until(self, key: bytes | None) -> "Window":
        """Return what lies up to ``key``, inclusive; None is no bound."""
        if key is None or not self.keys or self.keys[-1] <= key:
            return self
        count = bisect_right(self.keys, key)
        return Window(self.keys[:count], self.values[:count])


class ProofPairs(NamedTuple):
    """Pairs for a proof.

    Attributes:
        keys: Ascending.
        values: As many; None for a deletion, in a change proof.
        encoded_bytes: What they take in an encoded proof.
        more: Whether the range holds others after them.
        is_too_large: Whether this is one pair, which is larger than was asked for; then its value stands here
            as nothing, for nobody is going to send it.
    """

    keys: list[bytes]
    values: list[bytes | None]
    encoded_bytes: int
    more: bool
    is_too_large: bool = False


def pairs_of(
    keys: list[bytes], values: Sequence[bytes | None], encoded_bytes: int, max_bytes: int, *, more: bool
) -> ProofPairs:
    """Return pairs that were read, or looked at, as pairs for a proof: only now are their values copied."""
    if len(keys) == 1 and encoded_bytes > max_bytes:
        return ProofPairs(keys, [None if values[0] is None else b""], encoded_bytes, more, is_too_large=True)
    owned = list(values)
    if not _OWNED_TYPES.issuperset(map(type, owned)):
        # A look at the types costs a tenth of a call for each value, and most values are owned already.
        owned = [None if value is None else bytes(value) for value in values]
    return ProofPairs(keys, owned, encoded_bytes, more)


def take(rows: Iterable[Row], end: bytes | None, max_keys: int, max_bytes: int) -> ProofPairs:
    """Return the pairs of ascending rows up to the key ``end`` or a limit, but at least one."""
    keys: list[bytes] = []
    values: list[bytes] = []
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
            return pairs_of(keys, values, encoded_bytes, max_bytes, more=True)
        encoded_bytes += pair_bytes
        keys.append(key)
        values.append(value)
    return pairs_of(keys, values, encoded_bytes, max_bytes, more=False)


def take_windows(windows: Iterable[Window], max_keys: int, max_bytes: int) -> ProofPairs:
    """Return the pairs of ascending windows up to a limit, but at least one; many at a time, if they fit."""
    keys: list[bytes] = []
    values: list[bytes] = []
    encoded_bytes = 0
    for window in windows:
        room = max_keys - len(keys)
        new_keys, new_values = window.keys[:room], window.values[:room]
        new_bytes = _encoded_bytes(new_keys) + _encoded_bytes(new_values)
        if encoded_bytes + new_bytes > max_bytes:
            new_keys, new_values, new_bytes = _fitting(
                new_keys, new_values, max_bytes - encoded_bytes, at_least=0 if keys else 1
            )
        keys += new_keys
        values += new_values
        encoded_bytes += new_bytes
        if len(new_keys) < len(window.keys):
            return pairs_of(keys, values, encoded_bytes, max_bytes, more=True)
    return pairs_of(keys, values, encoded_bytes, max_bytes, more=False)


def _fitting(
    keys: list[bytes], values: list[bytes], max_bytes: int, at_least: int
) -> tuple[list[bytes], list[bytes], int]:
    """Return as many of the pairs as fit, and the bytes that they take."""
    size = 0
    for index, (key, value) in enumerate(zip(keys, values, strict=True)):
        pair_bytes = encoded_bin_bytes(len(key)) + encoded_bin_bytes(len(value))
        if size + pair_bytes > max_bytes and index >= at_least:
            return keys[:index], values[:index], size
        size += pair_bytes
    return keys, values, size


def _encoded_bytes(column: list[bytes]) -> int:
    """Return how many bytes keys or values take in an encoded proof."""
    if max(set(map(len, column)), default=0) < 1 << 8:
        return len(b"".join(column)) + 2 * len(column)
    return sum(map(encoded_bin_bytes, map(len, column)))


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

    def pairs(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> ProofPairs:
        """Return the pairs of [start, end], up to a limit, but at least one."""
        return take(self.ascending(start, end, max_keys), end, max_keys, max_bytes)


class StoredRows(Rows):
    """The rows of the tables: the tip.

    Args:
        transaction: What they are read in; without copies, where it has views.
    """

    def __init__(self, transaction: StoreTransaction) -> None:
        self._lmdb, self._views = transaction.lmdb, transaction.views
        self._values = transaction.store.values

    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""
        row = row_key(key)
        read = self._views or self._lmdb
        return read.get(row, db=self._values) if len(row) <= MAX_ROW_KEY_BYTES else None

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterable[Row]:
        """Return the rows from ``start`` on, to the last."""
        del end, expected  # It costs nothing to have more than will be read.
        if self._views is not None:
            cursor = self._views.cursor(db=self._values)
            return ((bytes(row), value) for row, value in cursor) if seek(cursor, start) else ()
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

    def window(self, low: bytes, end: bytes | None, max_rows: int) -> tuple[Window, bool]:
        """Return pairs of [low, end], and whether there may be more of them after."""
        cursor = self.cursor() if self._views is None else self._views.cursor(db=self._values)
        if not seek(cursor, low):
            return Window([], []), False
        if self._views is not None or self._lmdb.stat(self._values)["overflow_pages"]:
            row_keys, values, more = _read_bytes(cursor, max_rows)
        else:
            ahead = cursor.iternext(keys=True, values=False)
            row_keys = list(islice(ahead, min(max_rows, _SMALL_WINDOW_ROWS)))
            if end is None or row_keys[-1] < row_key(end):
                row_keys += islice(ahead, max_rows - len(row_keys))
            seek(cursor, low)
            values = list(islice(cursor.iternext(keys=False, values=True), len(row_keys)))
            more = len(values) >= max_rows
        has_zeros = row_keys[0][:1] == b"\0"
        window = Window(list(map(key_of_row, row_keys)) if has_zeros else row_keys, values)
        last = window.keys[-1]
        return window.until(end), more and (end is None or last < end)

    def cursor(self) -> Cursor:
        """Return a new cursor of the values."""
        return self._lmdb.cursor(db=self._values)


def _read_bytes(cursor: Cursor, max_rows: int) -> tuple[list[bytes], list[bytes], bool]:
    """Return row keys and values from the cursor on, and whether there may be more after them.

    They end once they are large together.
    """
    row_keys: list[bytes] = []
    values: list[bytes] = []
    size = 0
    for row, value in islice(cursor, max_rows):
        row_keys.append(bytes(row))
        values.append(value)
        size += len(value)
        if size > _WINDOW_BYTES:
            return row_keys, values, True
    return row_keys, values, len(values) == max_rows


class HistoricalRows(Rows):
    """The rows as they were: windows of the tables, each put back by what history says of it.

    Where most of what the tables hold came later, windows become small, and what holds nothing is leapt over.

    Args:
        stored: The rows of the tables.
        history: Reads what stands between the state and the tables.
        first_key: Finds the first key of the state at or after another.
        last_key: Finds the last key of the state before another, or of all; None where nobody goes backwards.
    """

    def __init__(
        self,
        stored: StoredRows,
        history: HistoryReader,
        first_key: Callable[[bytes], bytes | None],
        last_key: Callable[[bytes | None], bytes | None] | None = None,
    ) -> None:
        self._stored = stored
        self._history = history
        self._first_key = first_key
        self._last_key = last_key

    def value(self, key: bytes, prefixes: Sequence[bytes] | None = None) -> bytes | None:
        """Return the value of ``key``; None when there was none.

        Args:
            key: The key.
            prefixes: Of the revisions that may have changed it since; None for any.
        """
        if len(row_key(key)) > MAX_ROW_KEY_BYTES:
            return None
        row = self._history.value_row(key, prefixes)
        return self._stored.value(key) if row is None else value_of_row(row)

    def pairs(self, start: bytes | None, end: bytes | None, max_keys: int, max_bytes: int) -> ProofPairs:
        """Return the pairs of [start, end], up to a limit, but at least one."""
        return take_windows(self._windows(start, end, max_keys), max_keys, max_bytes)

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Row]:
        """Yield the rows from ``start`` up to ``end``."""
        for window in self._windows(start, end, expected):
            yield from zip(map(row_key, window.keys), window.values, strict=True)

    def _windows(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Window]:
        """Yield what was in [start, end] in windows, some of which may be empty."""
        low: bytes | None = start or b""
        limit = min(expected + 1, _WINDOW_ROWS)
        while low is not None:
            window, more = self._stored.window(low, end, limit)
            high = window.keys[-1] if more else end
            changed, horizon, _ = self._history.overlay(low, high, limit, _WINDOW_BYTES)
            before = _put_back(window.until(horizon), changed)
            yield before
            if horizon is None or horizon == end:
                return
            low = horizon + b"\0"
            if not before.keys:
                low = self._first_key(low)
            limit = _next_limit(len(before.keys), len(window.keys), limit)

    def descending(self, start: bytes | None, end: bytes | None) -> Iterator[Row]:
        """Yield the rows from ``end`` down to ``start``."""
        high, limit, shared_bits = end, _SMALL_WINDOW_ROWS, 0
        below = None if end is None else end + b"\0"
        while True:
            low = self._window_start(start, high, limit)
            # After a window that was cut the next one will be, so that need not be tried first.
            rows = None if shared_bits else self._few_rows(low, high, 2 * limit)
            if rows is None:
                # There were many more rows than the tables hold now, so the window is cut where they were.
                low, rows, shared_bits = self._cut_window(low, below, 2 * limit, shared_bits)
            yield from (row for row in reversed(rows) if below is None or key_of_row(row[0]) < below)
            if low == start or not low:
                return
            high = below = low
            # What holds nothing is leapt over, as on the way up.
            limit = _next_limit(len(rows), limit, limit)
            if len(rows) <= 1 and self._last_key is not None:
                high = self._last_key(below)
                if high is None or (start is not None and high < start):
                    return

    def _window_start(self, start: bytes | None, end: bytes | None, max_rows: int) -> bytes | None:
        """Return where a window of so many rows of the tables begins that ends at ``end``."""
        rows = size = 0
        for row, value in self._stored.descending(start, end):
            key = key_of_row(row)
            if start is not None and key < start:
                break
            rows, size = rows + 1, size + len(value)
            if rows > 1 and (rows >= max_rows or size > _WINDOW_BYTES):
                return key
        return start

    def _few_rows(self, start: bytes | None, end: bytes | None, max_rows: int) -> list[Row] | None:
        """Return the rows of [start, end]; None where they are more, or larger, than a window."""
        rows: list[Row] = []
        size = 0
        for row in self.ascending(start, end, max_rows):
            if len(rows) == max_rows or size > _WINDOW_BYTES:
                return None
            rows.append(row)
            size += len(row[1])
        return rows

    def _cut_window(
        self, start: bytes | None, below: bytes | None, max_rows: int, shared_bits: int
    ) -> tuple[bytes | None, list[Row], int]:
        """Return where a window begins that holds the last rows before ``below``, these rows, and a guess.

        The window begins with the last key's first bits: the fewest, or nearly so, with which it is none too
        large.  So each try reads no more than a window.

        Args:
            start: The first key; None for no bound.
            below: What is after the last key; None for no bound.
            max_rows: The most rows.
            shared_bits: How many bits to try first: the guess for the window after this one.
        """
        last = None if self._last_key is None else self._last_key(below)
        if last is None or (start is not None and last < start):
            return start, list(self.ascending(start, below, max_rows)), 0
        least, most = 0, 8 * len(last)
        bits = first = min(shared_bits, most)
        while least <= most:
            low = max(_first_bits(last, bits), start or b"")
            rows = self._few_rows(low, last, max_rows)
            if rows is None:
                least = bits + 1
            elif bits in (least, first) or 4 * len(rows) >= max_rows:
                return low, rows, bits - (bits > 0 and 4 * len(rows) < max_rows)
            else:
                most = bits
            bits = (least + most) // 2
        # With all its bits the window holds the last key alone.  Only a damaged store comes here, and what it
        # holds is for the caller to judge.
        return start, list(self.ascending(start, below, max_rows)), 0


def _next_limit(found: int, read: int, limit: int) -> int:
    """Return how many rows the next window has: more than ``limit``, or fewer where most came later.

    Args:
        found: How many rows of the state the window held.
        read: How many rows of the tables were read for them.
        limit: How many the window had at most.
    """
    if found * _SPARSENESS < read:
        return max(found * _SPARSENESS, _LEAST_WINDOW_ROWS)
    return min(WINDOW_GROWTH * limit, _WINDOW_ROWS)


def _first_bits(key: bytes, bits: int) -> bytes:
    """Return the first key that begins with the first so many bits of another, or is their whole bytes."""
    whole, rest = divmod(bits, 8)
    return key[:whole] + (bytes([key[whole] >> 8 - rest << 8 - rest]) if rest else b"")


def _put_back(window: Window, changed: Mapping[bytes, bytes]) -> Window:
    """Return the pairs as they were before they changed.

    Args:
        window: What the tables hold.
        changed: The first rows of history of all keys in the window's range that changed since.
    """
    if not changed:
        return window
    for row in changed.values():
        if row[:1] != PRESENT:
            require_value_row(row)
    rows = list(map(changed.get, window.keys))
    if len(rows) - rows.count(None) == len(changed) and ABSENT not in changed.values():
        # The usual case: no key has come or gone.
        both = zip(rows, window.values, strict=True)
        return Window(window.keys, [value if row is None else row[1:] for row, value in both])
    pairs = dict(zip(window.keys, window.values, strict=True))
    pairs.update({key: row[1:] for key, row in changed.items() if row != ABSENT})
    absent = {key for key, row in changed.items() if row == ABSENT}
    keys = sorted(pairs.keys() - absent)
    return Window(keys, list(map(pairs.__getitem__, keys)))
