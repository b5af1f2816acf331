"""Sorting pairs that do not fit into memory, so that a store is written in the order of its keys.

A trie is built from sorted keys several times faster than from scattered ones, and a file that is sorted
whole before the first commit is known to be sound whole before the first commit.  ``SortedPairs`` takes
pairs in any order, holds at most ``MAX_MEMORY_BYTES`` of them, and spills what is more as sorted runs into
nameless temporary files, which vanish when it is closed or when the process ends, however it ends.

Invariant: iterating yields each key once, ascending, with the value that was added last.
"""

import heapq
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from types import TracebackType
from typing import IO, Final, Self

Pair = tuple[bytes, bytes]

# What is collected before a run is spilled, with PAIR_OVERHEAD_BYTES for what Python adds to each pair.
MAX_MEMORY_BYTES: Final = 96 * 1024 * 1024
PAIR_OVERHEAD_BYTES: Final = 160
# Runs merged at a time: each is an open file and a buffered pair, and a pair can be 64 MiB.
MAX_RUNS_A_LEVEL: Final = 16
_LENGTHS: Final = struct.Struct(">II")
_KEY = itemgetter(0)


class SortedPairs:
    """Collects pairs and yields them by ascending key; a context manager that removes its temporary files.

    Args:
        max_memory_bytes: What to hold before spilling to disk, pairs with their overhead; MAX_MEMORY_BYTES
            when None.
    """

    def __init__(self, *, max_memory_bytes: int | None = None) -> None:
        self._max_memory_bytes = max_memory_bytes or MAX_MEMORY_BYTES
        self._pairs: dict[bytes, bytes] = {}
        self._memory_bytes = 0
        # Level n holds runs merged n times. The older of two runs is always on the higher level, or
        # before the other.
        self._levels: list[list[IO[bytes]]] = []
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
        self._pairs.clear()

    def add(self, key: bytes, value: bytes) -> None:
        """Add one pair; it replaces an earlier one of the same key.

        Raises:
            OSError: The folder for temporary files is full.
        """
        self._pairs[key] = value
        self._memory_bytes += len(key) + len(value) + PAIR_OVERHEAD_BYTES
        if self._memory_bytes >= self._max_memory_bytes:
            self._add_run(self._write_run(sorted(self._pairs.items())), level=0)
            self._pairs.clear()
            self._memory_bytes = 0

    def __iter__(self) -> Iterator[Pair]:
        newest = sorted(self._pairs.items())
        if not self._levels:
            return iter(newest)
        runs = [_read_run(run) for level in reversed(self._levels) for run in level]
        return _merge([*runs, newest])

    def _write_run(self, pairs: Iterable[Pair]) -> IO[bytes]:
        try:
            run = tempfile.TemporaryFile(prefix="merklesync-")  # noqa: SIM115 - it lives as long as this object
            self._files.enter_context(run)
            for key, value in pairs:
                run.write(_LENGTHS.pack(len(key), len(value)) + key)
                run.write(value)
            run.flush()
        except OSError as error:
            sentence = f"{error.strerror} for temporary files; TMPDIR can name another folder"
            raise OSError(error.errno, sentence, tempfile.gettempdir()) from error
        return run

    def _add_run(self, run: IO[bytes], *, level: int) -> None:
        if level == len(self._levels):
            self._levels.append([])
        runs = self._levels[level]
        runs.append(run)
        if len(runs) == MAX_RUNS_A_LEVEL:
            merged = self._write_run(_merge([_read_run(run) for run in runs]))
            for merged_run in runs:
                merged_run.close()
            runs.clear()
            self._add_run(merged, level=level + 1)


def _read_run(run: IO[bytes]) -> Iterator[Pair]:
    run.seek(0)
    while header := run.read(_LENGTHS.size):
        key_bytes, value_bytes = _LENGTHS.unpack(header)
        yield run.read(key_bytes), run.read(value_bytes)


def _merge(runs: list[Iterable[Pair]]) -> Iterator[Pair]:
    """Merge sorted runs, given oldest first; of pairs with one key the newest is yielded."""
    latest: Pair | None = None
    # heapq.merge keeps pairs of one key in the order of their runs, so the last of them is the newest.
    for pair in heapq.merge(*runs, key=_KEY):
        if latest is not None and pair[0] != latest[0]:
            yield latest
        latest = pair
    if latest is not None:
        yield latest
