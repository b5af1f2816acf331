"""The progress bar of a command, on standard error: how much is done, how fast, and how long it still takes.

Invariant: there is no bar with ``--json``, nor when standard error is no terminal; every call then returns at
once.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

from manager.status.estimate import Rate, seconds_left
from merklesync.console.output import format_key_count, format_seconds, format_size

# A person cannot read faster; a terminal need not work harder.
REFRESH_SECONDS: Final = 0.1
# A pair takes about as long as this many bytes of contents, however small it is.
PAIR_WORK_BYTES: Final = 4_096


def wants_bar(*, as_json: bool) -> bool:
    """Return whether to draw a bar: standard error is a terminal, and the output is not JSON."""
    return not as_json and sys.stderr is not None and sys.stderr.isatty()


class ProgressBar:
    """One line of progress: how much of what, how fast, how long still.

    Args:
        progress: What draws it; None where no bar is wanted, and every call then returns at once.
        title: What is being done.
    """

    def __init__(self, progress: RichProgress | None, title: str) -> None:
        now = time.monotonic()
        self._progress = progress
        self._task = (
            TaskID(0) if progress is None else progress.add_task(title, total=None, details="", left="")
        )
        self._began = self._next_refresh = now
        self._keys_rate = Rate(now)
        self._share_rate = Rate(now)
        self._keys = 0
        self._share = 0.0

    @property
    def is_drawn(self) -> bool:
        """Whether the bar is seen, so that counting the work beforehand is worth it."""
        return self._progress is not None

    def show(
        self,
        keys: int,
        size_bytes: int | None,
        share: float | None,
        *,
        title: str | None = None,
        expected_keys: int | None = None,
        keys_a_second: float | None = None,
        left_seconds: float | None = None,
    ) -> None:
        """Show how far the work is; most calls return at once, so call it as often as is convenient.

        Args:
            keys: How many keys are done.
            size_bytes: How many bytes of keys and values are done; None where they are not counted.
            share: The part of all the work that is done, 0 to 1; None when unknown.
            title: What is being done now, where that changes.
            expected_keys: How many keys there are in all, where that is known.
            keys_a_second: The rate, where the caller knows better than this bar; 0 when it is unknown.
            left_seconds: The time left, from a caller that gives the rate; None when it is unknown.
        """
        now = time.monotonic()
        if self._progress is None or (now < self._next_refresh and share != 1.0):
            return
        self._next_refresh = now + REFRESH_SECONDS
        self._keys_rate.add(keys - self._keys, now)
        self._share_rate.add((share or 0.0) - self._share, now)
        self._keys, self._share = keys, share or 0.0
        rate = self._keys_rate.at(now) if keys_a_second is None else keys_a_second
        if keys_a_second is None and share is not None:
            left_seconds = seconds_left(1.0 - share, self._share_rate.at(now))
        self._progress.update(
            self._task,
            description=title,
            total=None if share is None else 1.0,
            completed=share or 0.0,
            details=_details(keys, expected_keys, size_bytes, rate),
            left=self._left(now, share, left_seconds),
        )

    def _left(self, now: float, share: float | None, left_seconds: float | None) -> str:
        if share == 1.0:
            return f"in {format_seconds(now - self._began)}"
        return "" if left_seconds is None else f"{format_seconds(left_seconds)} left"


def _details(
    keys: int, expected_keys: int | None, size_bytes: int | None, keys_a_second: float | None
) -> str:
    amount = (
        format_key_count(keys)
        if expected_keys in (None, keys)
        else f"{keys:,} of {format_key_count(expected_keys)}"
    )
    size = "" if size_bytes is None else f"  {format_size(size_bytes)}"
    rate = f"  {keys_a_second:,.0f} keys/s" if keys_a_second else ""
    return f"{amount}{size}{rate}"


class CountedPairs:
    """Pairs on their way somewhere, counted, with a bar that shows how far they are.

    Args:
        pairs: What to iterate over, once.
        bar: Where to show it.
        total_keys: How many there are; 0 when unknown.
        total_bytes: How many bytes they have; 0 when unknown.

    Attributes:
        keys: How many pairs have passed.
        size_bytes: Bytes of their keys and values.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[bytes, bytes]],
        bar: ProgressBar,
        *,
        total_keys: int = 0,
        total_bytes: int = 0,
    ) -> None:
        self._pairs = pairs
        self._bar = bar
        self._total_cost_bytes = total_keys * PAIR_WORK_BYTES + total_bytes
        self._byte_cost = 1 if total_bytes else 0
        self.keys = 0
        self.size_bytes = 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._pairs:
            self.keys += 1
            self.size_bytes += len(key) + len(value)
            yield key, value
            self._bar.show(self.keys, self.size_bytes, self._share())

    def _share(self) -> float | None:
        if not self._total_cost_bytes:
            return None
        cost_bytes = self.keys * PAIR_WORK_BYTES + self.size_bytes * self._byte_cost
        return min(1.0, cost_bytes / self._total_cost_bytes)


@contextmanager
def progress_bar(title: str, *, shows_progress: bool) -> Iterator[ProgressBar]:
    """Give a bar that is drawn on standard error until the end of the block, or one that draws nothing.

    Args:
        title: What is being done, in a word or two.
        shows_progress: Whether to draw it; see ``wants_bar``.
    """
    if not shows_progress:
        yield ProgressBar(None, title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[details]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with RichProgress(
        *columns, console=Console(stderr=True), refresh_per_second=1 / REFRESH_SECONDS
    ) as progress:
        yield ProgressBar(progress, title)
