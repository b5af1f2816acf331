"""The command ``load``: a folder tree, a file of JSON Lines, or a CSV file into a store.

A folder is read file by file in the order of the keys.  A file of pairs is read to its end, and sorted,
before anything is committed: so a line that is wrong is found while the store is still as it was.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final, NamedTuple

import click

from merkledb import MAX_VALUE_BYTES, Database
from merklesync.failures import ExitCode, Failure
from merklesync.formats import STANDARD_STREAM, Format, format_option, source_format
from merklesync.keys import name_bytes
from merklesync.loading import Loaded, load_pairs
from merklesync.options import (
    PATH,
    Retention,
    SchemeChoice,
    json_option,
    retention_options,
    scheme_options,
    store_argument,
)
from merklesync.output import (
    WatchedPairs,
    bars_are_wanted,
    print_facts,
    print_json,
    progress_bar,
    show_keys,
    show_seconds,
    show_size,
)
from merklesync.records import BadRecord, bytes_to_json, read_csv, read_json_lines
from merklesync.sorting import Pair, SortedPairs
from merklesync.stores import describe_store, is_store, open_for_writing
from merklesync.trees import Skipped, TreeReader

_READERS: Final[dict[Format, Callable[..., Iterator[Pair]]]] = {
    Format.JSON_LINES: read_json_lines,
    Format.CSV: read_csv,
}


@click.command()
@store_argument
@click.argument("source", type=PATH)
@format_option
@click.option("--replace", is_flag=True, help="Also remove every key that SOURCE does not have.")
@scheme_options("of a new store")
@retention_options
@json_option
def load(
    store: Path,
    source: Path,
    *,
    form: Format | None,
    replace: bool,
    scheme: SchemeChoice,
    retention: Retention,
    as_json: bool,
) -> None:
    """Load SOURCE into STORE, which is created when it is missing.

    SOURCE is a folder (the path of each file below it becomes a key, its contents the value), a file of JSON
    Lines (.jsonl: {"key": ..., "value": ...}; bytes that are no UTF-8 as {"hex": ...} or {"base64": ...}), or
    a CSV file (.csv: key and value, text or 0x and hex digits). - is standard input.

    Keys of SOURCE are added or replaced, all others stay; with --replace they are removed. Links, sockets,
    devices and files that are too large, unreadable, or changed meanwhile are skipped and counted. One bad
    line in a file of pairs, and nothing of it is loaded. Of a key that comes twice the last value counts.

    An interrupted load leaves a whole store; the same command again finishes it. A large load is committed
    in parts, each of which is a revision; but where STORE never held anything, only the last one is retained.

    JSON: root, revision, keys, hasher, branch_factor; added, changed, unchanged, removed, repeated (keys);
    bytes, seconds;
    skipped: for each reason the count and the first names.
    """
    began = monotonic()
    form = source_format(source, form)
    target = _Target(store, scheme, retention)
    visible = bars_are_wanted(as_json=as_json)
    try:
        if form is Format.FOLDER:
            report = _load_folder(target, source, replace=replace, visible=visible)
        else:
            report = _load_records(target, source, form, replace=replace, visible=visible)
    except KeyboardInterrupt as interrupt:
        raise Failure("interrupted: nothing was loaded", ExitCode.INTERRUPTED) from interrupt
    if as_json:
        print_json(report.document(monotonic() - began))
    else:
        print_facts(report.facts(monotonic() - began))


class _Target(NamedTuple):
    """The store that a load goes to, as the command line names it."""

    path: Path
    scheme: SchemeChoice
    retention: Retention

    def open(self) -> Database:
        return open_for_writing(*self)


@dataclass(frozen=True)
class _Report:
    described: dict[str, Any]
    loaded: Loaded
    skipped: Skipped
    repeated: int = 0

    def counts(self) -> dict[str, int]:
        loaded = self.loaded
        counts = {name: getattr(loaded, name) for name in ("added", "changed", "unchanged", "removed")}
        return {**counts, "repeated": self.repeated}

    def document(self, seconds: float) -> dict[str, Any]:
        skipped = {
            str(reason): {
                "count": count,
                "names": [bytes_to_json(name, form="hex") for name in self.skipped.names[reason]],
            }
            for reason, count in self.skipped.counts.items()
        }
        return {
            **self.described,
            **self.counts(),
            "bytes": self.loaded.size_bytes,
            "seconds": seconds,
            "skipped": skipped,
        }

    def facts(self, seconds: float) -> dict[str, str]:
        loaded = self.loaded
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts().items() if count)
        amount = f"{show_keys(loaded.keys)}, {show_size(loaded.size_bytes)}"
        return {
            "loaded": f"{amount} in {show_seconds(seconds)} ({counts or 'none'})",
            **skipped_facts(self.skipped),
            "keys": f"{self.described['keys']:,}",
            "root": self.described["root"],
        }


def skipped_facts(skipped: Skipped) -> dict[str, str]:
    """Return what a walk left out as facts: how many by reason, with the first names."""
    return {
        f"skipped, {reason}": f"{count:,}: {', '.join(map(name_bytes, skipped.names[reason]))}"
        + (", ..." if count > len(skipped.names[reason]) else "")
        for reason, count in skipped.counts.items()
    }


def _load_folder(target: _Target, source: Path, *, replace: bool, visible: bool) -> _Report:
    store = target.path
    if store.exists() and store.samefile(source):
        raise Failure(f"{store} cannot be loaded into itself: name another folder", ExitCode.USAGE)
    # Before a store is made for it: can the folder be read at all?
    os.scandir(source).close()
    with target.open() as database, finished_by_repeating(database):
        loaded, skipped = load_folder(database, source, replace=replace, excluded=(store,), visible=visible)
        return _Report(_describe(database), loaded, skipped)


def load_folder(
    database: Database, folder: Path, *, replace: bool, excluded: tuple[Path, ...], visible: bool
) -> tuple[Loaded, Skipped]:
    """Load a folder tree into an open store.

    Args:
        database: Opened for writing.
        folder: The folder.
        replace: Remove every key that the folder does not have.
        excluded: Paths below the folder that are left out.
        visible: Whether somebody watches.

    Returns:
        What was loaded, and what was skipped.

    Raises:
        OSError: The folder cannot be read.
        DatabaseFull: What was committed until then stays.
    """
    reader = TreeReader(folder, database.scheme.max_key_bytes, MAX_VALUE_BYTES, excluded)
    skipped = Skipped()
    # Only somebody who watches wants to know beforehand how much there is.
    with progress_bar("counting", visible=visible) as bar:
        files, size_bytes = reader.measure() if bar.visible else (0, 0)
    with progress_bar("loading", visible=visible) as bar:
        pairs = WatchedPairs(reader.pairs(skipped), bar, total_keys=files, total_bytes=size_bytes)
        return load_pairs(database, pairs, replace=replace), skipped


def _load_records(target: _Target, source: Path, form: Format, *, replace: bool, visible: bool) -> _Report:
    with ExitStack() as cleanup:
        # A store that is there is opened first: whether it can be written is known at once then.
        database = cleanup.enter_context(target.open()) if is_store(target.path) else None
        scheme = target.scheme.complete() if database is None else database.scheme
        pairs = cleanup.enter_context(SortedPairs())
        lines, size_bytes = _collect(source, form, pairs, scheme.max_key_bytes, visible=visible)
        if database is None:
            database = cleanup.enter_context(target.open())
        cleanup.enter_context(finished_by_repeating(database))
        bar = cleanup.enter_context(progress_bar("loading", visible=visible))
        watched = WatchedPairs(pairs, bar, total_keys=lines, total_bytes=size_bytes)
        loaded = load_pairs(database, watched, replace=replace)
        return _Report(_describe(database), loaded, Skipped(), lines - loaded.keys)


def _collect(
    source: Path, form: Format, pairs: SortedPairs, max_key_bytes: int, *, visible: bool
) -> tuple[int, int]:
    """Read all of a file of pairs; return how many pairs it has, and their bytes."""
    read = _READERS[form]
    lines = size_bytes = 0
    with _opened(source) as file, progress_bar("reading", visible=visible) as bar:
        # A pipe has no size, and its share is unknown.
        file_bytes = os.fstat(file.fileno()).st_size if bar.visible else 0
        try:
            for key, value in read(file, max_key_bytes=max_key_bytes, max_value_bytes=MAX_VALUE_BYTES):
                pairs.add(key, value)
                lines += 1
                size_bytes += len(key) + len(value)
                bar.show(lines, size_bytes, file.tell() / file_bytes if file_bytes else None)
        except BadRecord as error:
            name = "standard input" if source == STANDARD_STREAM else source
            raise Failure(f"{name}, {error}; nothing was loaded: mend the line and load again") from error
    return lines, size_bytes


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    if source == STANDARD_STREAM:
        yield sys.stdin.buffer
        return
    with source.open("rb") as file:
        yield file


@contextmanager
def finished_by_repeating(database: Database) -> Iterator[None]:
    """Say what an interrupted load leaves."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Failure(
            f"interrupted: {database.path} is whole and holds {show_keys(len(database))} "
            f"(root {database.root.hex()}); run the same command again to finish",
            ExitCode.INTERRUPTED,
        ) from interrupt


def _describe(database: Database) -> dict[str, Any]:
    with database.snapshot() as snapshot:
        return describe_store(snapshot)
