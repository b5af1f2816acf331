"""The command ``load``: a folder tree, a file of JSON Lines, or a CSV file into a store.

A folder is read file by file in the order of the keys.  A file of pairs is read to its end, and sorted,
before anything is committed: so a line that is wrong is found while the store is still as it was.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import click

from merkledb import MAX_VALUE_BYTES, Database
from merklesync.commands.options import (
    PATH,
    NotationsOption,
    RetentionOption,
    SchemeOption,
    format_option,
    json_option,
    notation_options,
    retention_options,
    scheme_options,
    store_argument,
)
from merklesync.commands.stores import is_store, note_end_of_copy, open_for_writing, snapshot_as_json
from merklesync.console.bar import CountedPairs, progress_bar, wants_bar
from merklesync.console.output import (
    format_key_count,
    format_seconds,
    format_size,
    print_facts,
    print_json,
    print_note,
)
from merklesync.errors import CommandError, ExitCode
from merklesync.files.bulk_load import LoadCounts, load_pairs
from merklesync.files.format import Format, format_of_source
from merklesync.files.paths import STANDARD_STREAM, is_there, open_source
from merklesync.files.sorted_pairs import Pair, SortedPairs
from merklesync.files.text_pairs import InvalidLine, bytes_to_json, read_csv, read_json_lines
from merklesync.files.tree_reader import FAILED_READS, SkippedFiles, TreeReader, Unread
from merklesync.files.tree_writer import name_error
from merklesync.text import quote_bytes

_Reader = Callable[..., Iterator[Pair]]


@click.command()
@store_argument
@click.argument("source", type=PATH)
@format_option
@notation_options("else what its header says, or text")
@click.option("--replace", is_flag=True, help="Also remove every key that SOURCE does not have.")
@scheme_options("of a new store")
@retention_options
@json_option
def load(
    store: Path,
    source: Path,
    *,
    form: Format | None,
    notations: NotationsOption,
    replace: bool,
    scheme_option: SchemeOption,
    retention: RetentionOption,
    as_json: bool,
) -> None:
    """Load SOURCE into STORE, which is created when it is missing.

    SOURCE is a folder (the path of each file below it becomes a key, its contents the value), a file of JSON
    Lines (.jsonl: {"key": ..., "value": ...}; bytes that are no UTF-8 as {"hex": ...} or {"base64": ...}), or
    a CSV file (.csv: key and value, text as it is, unless --keys, --values or a header such as key_hex,value
    says otherwise). A first line key,value is a header too, and no pair; another one, such as name,value, is
    a pair, which is noted. - is standard input.

    Keys of SOURCE are added or replaced, all others stay; with --replace they are removed. Links, sockets,
    devices and files that are too large, unreadable, or changed meanwhile are skipped and counted, and what
    STORE holds at or below a name that was skipped stays, also with --replace. The exit code is 1 when
    something could not be read, or --replace could not remove all. Names that lead elsewhere on another
    system, such as C:/a with a backslash, are loaded, and noted, for export refuses to write them as files.
    One bad line in a file of pairs, and nothing of it is loaded. Of a key that comes twice the last value
    counts.

    An interrupted load leaves a whole store; the same command again finishes it. A large load is committed
    in parts, each of which is a revision; but where STORE never held anything, only the last one is retained.

    JSON: root, revision, keys, hasher, branch_factor; added, changed, unchanged, removed, kept (not
    removed, for what SOURCE has there was skipped), repeated (keys); bytes, seconds;
    skipped: for each reason the count and the first names; error and exit_code when not all was loaded.
    """
    began = monotonic()
    form = format_of_source(source, form)
    notations.require_csv(form)
    store_options = _StoreOptions(store, scheme_option, retention)
    shows_progress = wants_bar(as_json=as_json)
    try:
        if form is Format.FOLDER:
            report = _load_folder(store_options, source, replace=replace, shows_progress=shows_progress)
        else:
            report = _load_lines(
                store_options,
                source,
                _reader(form, notations),
                replace=replace,
                shows_progress=shows_progress,
            )
    except KeyboardInterrupt as interrupt:
        raise CommandError("interrupted: nothing was loaded", ExitCode.INTERRUPTED) from interrupt
    seconds = monotonic() - began
    if not as_json:
        print_facts(report.facts(seconds))
    if (shortfall := report.shortfall()) is not None:
        raise CommandError(shortfall, document=report.document(seconds))
    if as_json:
        print_json(report.document(seconds))


class _StoreOptions(NamedTuple):
    """The store that a load goes to, as the command line names it."""

    path: Path
    scheme_option: SchemeOption
    retention: RetentionOption

    def open(self) -> Database:
        return open_for_writing(*self)


@dataclass(frozen=True)
class _LoadReport:
    described: dict[str, Any]
    loaded: LoadCounts
    skipped: SkippedFiles
    repeated: int = 0

    def counts(self) -> dict[str, int]:
        loaded = self.loaded
        counts = {
            name: getattr(loaded, name) for name in ("added", "changed", "unchanged", "removed", "kept")
        }
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

    def shortfall(self) -> str | None:
        """Return why this is less than what was asked for, and what to do; None when all was done."""
        failed, kept = self.skipped.failed_reads, self.loaded.kept
        if not failed and not kept:
            return None
        first = next((name for reason in FAILED_READS for name in self.skipped.names[reason]), None)
        named = "" if first is None else f", such as {quote_bytes(first or b'.')}"
        could = f"{failed:,} name{'' if failed == 1 else 's'} could not be read{named}" if failed else ""
        stay = f"{format_key_count(kept)} stayed where names were skipped" if kept else ""
        return f"not all was loaded: {'; '.join(filter(None, (could, stay)))}; mend that and load again"

    def facts(self, seconds: float) -> dict[str, str]:
        loaded = self.loaded
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts().items() if count)
        amount = f"{format_key_count(loaded.keys)}, {format_size(loaded.size_bytes)}"
        return {
            "loaded": f"{amount} in {format_seconds(seconds)} ({counts or 'none'})",
            **skipped_facts(self.skipped),
            "keys": f"{self.described['keys']:,}",
            "root": self.described["root"],
        }


def skipped_facts(skipped: SkippedFiles) -> dict[str, str]:
    """Return what a walk left out as facts: how many by reason, with the first names."""
    return {
        f"skipped, {reason}": f"{count:,}: {', '.join(map(quote_bytes, skipped.names[reason]))}"
        + (", ..." if count > len(skipped.names[reason]) else "")
        for reason, count in skipped.counts.items()
    }


def _load_folder(
    store_options: _StoreOptions, source: Path, *, replace: bool, shows_progress: bool
) -> _LoadReport:
    store = store_options.path
    if is_there(store) and store.samefile(source):
        raise CommandError(f"{store} cannot be loaded into itself: name another folder", ExitCode.USAGE)
    # Before a store is made for it: can the folder be read at all?
    os.scandir(source).close()
    with store_options.open() as database, interrupted_load_hint(database), note_end_of_copy(database):
        loaded, skipped = load_folder(
            database, source, replace=replace, excluded=(store,), shows_progress=shows_progress
        )
        return _LoadReport(_describe_loaded_store(database), loaded, skipped)


def load_folder(
    database: Database, folder: Path, *, replace: bool, excluded: tuple[Path, ...], shows_progress: bool
) -> tuple[LoadCounts, SkippedFiles]:
    """Load a folder tree into an open store.

    Args:
        database: Opened for writing.
        folder: The folder.
        replace: Remove every key that the folder does not have.
        excluded: Paths below the folder that are left out.
        shows_progress: Whether to draw progress bars.

    Returns:
        What was loaded, and what was skipped.

    Raises:
        OSError: The folder cannot be read.
        DatabaseFull: What was committed until then stays.
    """
    reader = TreeReader(folder, database.scheme.max_key_bytes, MAX_VALUE_BYTES, excluded)
    skipped = SkippedFiles(unread=Unread())
    # Counting walks the whole tree once more, so it is done only where a bar shows the share.
    with progress_bar("counting", shows_progress=shows_progress) as bar:
        files, size_bytes = reader.measure() if bar.is_drawn else (0, 0)
    with progress_bar("loading", shows_progress=shows_progress) as bar:
        names = _NotPortable()
        pairs = CountedPairs(
            names.watch(reader.pairs(skipped)), bar, total_keys=files, total_bytes=size_bytes
        )
        loaded = load_pairs(database, pairs, replace=replace, unread=skipped.unread)
    names.note()
    return loaded, skipped


class _NotPortable:
    """The names of a folder that ``export`` refuses, because they lead elsewhere on another system.

    They are loaded all the same: a store takes any key, and so do exports to files of pairs.
    """

    def __init__(self) -> None:
        self._first: tuple[bytes, str] | None = None
        self._count = 0

    def watch(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Yield the pairs, and keep the names that are not portable."""
        for key, value in pairs:
            if (reason := name_error(key)) is not None:
                self._first = self._first or (key, reason)
                self._count += 1
            yield key, value

    def note(self) -> None:
        """Say which there were, if any."""
        if self._first is None:
            return
        key, reason = self._first
        more = f", and {self._count - 1:,} more like it" if self._count > 1 else ""
        print_note(
            f"{quote_bytes(key)} {reason} where a backslash or a colon separates names{more}: "
            "export refuses to write it as a file, and writes it to JSON Lines and CSV"
        )


def _reader(form: Format, notations: NotationsOption) -> _Reader:
    if form is Format.CSV:
        return partial(read_csv, **notations._asdict(), on_note=print_note)
    return read_json_lines


def _load_lines(
    store_options: _StoreOptions, source: Path, read: _Reader, *, replace: bool, shows_progress: bool
) -> _LoadReport:
    with ExitStack() as cleanup:
        # A store that is there is opened first: whether it can be written is known at once then.
        database = cleanup.enter_context(store_options.open()) if is_store(store_options.path) else None
        scheme = database.scheme if database is not None else store_options.scheme_option.with_defaults()
        pairs = cleanup.enter_context(SortedPairs())
        lines, size_bytes = _read_into(
            source, read, pairs, scheme.max_key_bytes, shows_progress=shows_progress
        )
        if database is None:
            database = cleanup.enter_context(store_options.open())
        cleanup.enter_context(interrupted_load_hint(database))
        cleanup.enter_context(note_end_of_copy(database))
        bar = cleanup.enter_context(progress_bar("loading", shows_progress=shows_progress))
        watched = CountedPairs(pairs, bar, total_keys=lines, total_bytes=size_bytes)
        loaded = load_pairs(database, watched, replace=replace)
        return _LoadReport(_describe_loaded_store(database), loaded, SkippedFiles(), lines - loaded.keys)


def _read_into(
    source: Path, read: _Reader, pairs: SortedPairs, max_key_bytes: int, *, shows_progress: bool
) -> tuple[int, int]:
    """Read all of a file of pairs; return how many pairs it has, and their bytes."""
    lines = size_bytes = 0
    with open_source(source) as file, progress_bar("reading", shows_progress=shows_progress) as bar:
        # A pipe has no size, and its share is unknown.
        file_bytes = os.fstat(file.fileno()).st_size if bar.is_drawn else 0
        try:
            for key, value in read(file, max_key_bytes=max_key_bytes, max_value_bytes=MAX_VALUE_BYTES):
                pairs.add(key, value)
                lines += 1
                size_bytes += len(key) + len(value)
                bar.show(lines, size_bytes, file.tell() / file_bytes if file_bytes else None)
        except InvalidLine as error:
            name = "standard input" if source == STANDARD_STREAM else source
            raise CommandError(
                f"{name}, {error}; nothing was loaded: mend the line and load again"
            ) from error
    return lines, size_bytes


@contextmanager
def interrupted_load_hint(database: Database) -> Iterator[None]:
    """Say what an interrupted load leaves."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise CommandError(
            f"interrupted: {database.path} is whole and holds {format_key_count(len(database))} "
            f"(root {database.root.hex()}); run the same command again to finish",
            ExitCode.INTERRUPTED,
        ) from interrupt


def _describe_loaded_store(database: Database) -> dict[str, Any]:
    with database.snapshot() as snapshot:
        return snapshot_as_json(snapshot)
