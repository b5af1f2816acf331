"""What commands print: facts for people, one JSON document for machines, and progress for those who wait.

Facts and JSON go to standard output, progress and notes to standard error.  Invariants: a command prints
exactly one JSON document with ``--json`` and no bar; there is no bar either when standard error is no
terminal; nothing that comes from a store, a file or a peer is printed without being made printable first.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from manager.status.estimate import Rate, seconds_left
from merklesync.failures import output_failure
from merklesync.keys import shorten
from merklesync.sorting import Pair

# A person cannot read faster; a terminal need not work harder.
REFRESH_SECONDS: Final = 0.1
MAX_FACT_CHARACTERS: Final = 1_000
# A pair takes about as long as this many bytes of contents, however small it is.
PAIR_COST_BYTES: Final = 4_096


def echo(message: str | bytes, *, nl: bool = True) -> None:
    """Print to standard output what a command was asked for.

    Raises:
        BrokenPipeError: Whoever read it went away, which ends a command quietly.
        Failure: It cannot be written.
    """
    try:
        click.echo(message, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_failure(error) from error


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line."""
    echo(json.dumps(document))


def print_json_list(about: Mapping[str, Any], name: str, items: Iterable[Any]) -> None:
    """Print one JSON document that ends with a list, item by item, for a store need not fit into memory.

    Args:
        about: What else is in the document, at least one field.
        name: Of the list.
        items: What is in it.
    """
    shown = map(json.dumps, items)
    # What is wrong with a list shows where it begins, and is to be said alone then.
    first = next(shown, "")
    echo(f"{json.dumps(about)[:-1]}, {json.dumps(name)}: [{first}", nl=False)
    for item in shown:
        echo(f",\n{item}", nl=False)
    echo("]}")


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and what they are, one a line, aligned."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        echo(f"{name:<{width}}  {shorten(text, MAX_FACT_CHARACTERS)}")


def note(sentence: str) -> None:
    """Tell a person something that is no error, on standard error."""
    # A note that cannot be written ends nothing.
    with suppress(OSError):
        click.echo(f"Note: {shorten(sentence, MAX_FACT_CHARACTERS)}", err=True)


class NoteHandler(logging.Handler):
    """Shows what the packages below log as notes, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        note(record.getMessage())


def show_size(size_bytes: float) -> str:
    """Return a number of bytes as people read it: "1.5 MB"."""
    return decimal(int(size_bytes))


def show_keys(keys: int) -> str:
    """Return a number of keys as people read it: "1 key", "2,000 keys"."""
    return f"{keys:,} key{'' if keys == 1 else 's'}"


def show_seconds(seconds: float) -> str:
    """Return a duration as people read it: "0.42 s", "12 s", "3:05", "1:00:07"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def bars_are_wanted(*, as_json: bool) -> bool:
    """Return whether somebody watches: standard error is a terminal, and the output is not for a machine."""
    return not as_json and sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """One line of progress: how much of what, how fast, how long still.

    Args:
        progress: What draws it; None when nobody watches, and every call is then for nothing and cheap.
        title: What is being done.
    """

    def __init__(self, progress: Progress | None, title: str) -> None:
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
    def visible(self) -> bool:
        """Whether somebody watches, so that counting the work beforehand is worth it."""
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
            size_bytes: How many bytes of keys and values are done; None when nobody counts them.
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
            return f"in {show_seconds(now - self._began)}"
        return "" if left_seconds is None else f"{show_seconds(left_seconds)} left"


def _details(
    keys: int, expected_keys: int | None, size_bytes: int | None, keys_a_second: float | None
) -> str:
    amount = show_keys(keys) if expected_keys in (None, keys) else f"{keys:,} of {show_keys(expected_keys)}"
    size = "" if size_bytes is None else f"  {show_size(size_bytes)}"
    rate = f"  {keys_a_second:,.0f} keys/s" if keys_a_second else ""
    return f"{amount}{size}{rate}"


class WatchedPairs:
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

    def __init__(self, pairs: Iterable[Pair], bar: Bar, *, total_keys: int = 0, total_bytes: int = 0) -> None:
        self._pairs = pairs
        self._bar = bar
        self._total_cost_bytes = total_keys * PAIR_COST_BYTES + total_bytes
        self._byte_cost = 1 if total_bytes else 0
        self.keys = 0
        self.size_bytes = 0

    def __iter__(self) -> Iterator[Pair]:
        for key, value in self._pairs:
            self.keys += 1
            self.size_bytes += len(key) + len(value)
            yield key, value
            self._bar.show(self.keys, self.size_bytes, self._share())

    def _share(self) -> float | None:
        if not self._total_cost_bytes:
            return None
        cost_bytes = self.keys * PAIR_COST_BYTES + self.size_bytes * self._byte_cost
        return min(1.0, cost_bytes / self._total_cost_bytes)


@contextmanager
def progress_bar(title: str, *, visible: bool) -> Iterator[Bar]:
    """Give a bar that is drawn on standard error until the end of the block, or one that draws nothing.

    Args:
        title: What is being done, in a word or two.
        visible: Whether to draw it; see ``bars_are_wanted``.
    """
    if not visible:
        yield Bar(None, title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[details]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=1 / REFRESH_SECONDS) as progress:
        yield Bar(progress, title)
