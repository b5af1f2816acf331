"""The options that all programs share, what they refuse, and how they print what they measured.

A program checks everything before it measures anything: that each number is within its bounds, that one goes
with the other, and that the machine has room for the stores.  What it refuses is one line on standard error.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from bench.figures import Asked, table
from merklesync.errors import usage_error_of

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Their raw copies take an eighth of the map that LMDB is given for them (see ``raw.MAP_BYTES``).
MAX_KEYS: Final = 100_000_000
# A thousand runs of a second each are a quarter of an hour; more tell nothing more.
MAX_RUNS: Final = 1_000
# What a pair of 32 + 32 bytes takes in a store, its branches included, with a quarter to spare.
PAIR_BYTES: Final = 128
# What a change takes in the history of a store; in a small store, whose commits share less, a little more.
CHANGE_BYTES: Final = 512
# What a pair takes in memory, as two ``bytes`` and in the lists and the set that hold them.
_PAIR_MEMORY_BYTES: Final = 256


class Benchmark(click.Command):
    """A command that refuses a wrong command line in one line; what its help indents is not wrapped."""

    def __init__(self, *, help: str, **more: Any) -> None:  # noqa: A002 - click's name
        super().__init__(help=help.replace("\n\n    ", "\n\n\b\n    "), **more)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Parse the command line."""
        with _refusal_in_one_line():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the program."""
        with _refusal_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _refusal_in_one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        raise usage_error_of(error) from error


class _Count(click.IntRange):
    """A whole number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value} is no whole number from {self.min:,} to {self.max:,}", param, ctx)


def number_option(
    name: str, default: int | tuple[int, ...], text: str, *, least: int = 1, most: int = MAX_KEYS
) -> Decorator:
    """Return the decorator of an option that is a whole number; several defaults make it several numbers."""
    several, bounds = isinstance(default, tuple), _Count(least, most)
    return click.option(name, type=bounds, default=default, multiple=several, show_default=True, help=text)


RUNS: Final = number_option("--runs", 3, "How often all is measured.", most=MAX_RUNS)
AS_JSON: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of a table."
)


def require_at_most(option: str, value: int, other: str, bound: int) -> None:
    """Raise click.UsageError where one option is more than another one allows."""
    if value > bound:
        raise click.UsageError(f"{option} is {value:,}: give at most the {bound:,} of {other}")


def require_room(disk_bytes: int, *, pairs_in_memory: int = 0) -> None:
    """Raise click.UsageError where the machine lacks the room on its disk, or the memory for the pairs."""
    folder, memory_bytes = tempfile.gettempdir(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    on_disk = f"free in {folder}: give smaller numbers, or set TMPDIR to a folder with more room"
    for needed_bytes, there_bytes, what in (
        (disk_bytes, shutil.disk_usage(folder).free, on_disk),
        (pairs_in_memory * _PAIR_MEMORY_BYTES, memory_bytes, "of memory: give smaller numbers"),
    ):
        if needed_bytes > there_bytes:
            needed, there = needed_bytes / 1e9, there_bytes / 1e9
            raise click.UsageError(f"this takes about {needed:,.1f} GB, and there are {there:,.1f} GB {what}")


@contextmanager
def work_folder(place: Path | None = None) -> Iterator[Path]:
    """Make a temporary folder for stores; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="merklesync-bench-", dir=place) as folder:
        yield Path(folder)


def report(
    title: str, sizes: Mapping[str, float], figures: Mapping[str, float], asked: Asked, *, as_json: bool
) -> None:
    """Print what was measured: a table for people, or one JSON document with the sizes and the figures."""
    print(json.dumps({**sizes, **figures}) if as_json else table(title, figures, asked))
