"""The form of pairs outside a store: a folder tree, JSON Lines or CSV; --format or the name says which.

A folder is a folder tree.  ``.jsonl`` and ``.ndjson`` are JSON Lines, ``.csv`` is CSV.  ``-`` is standard
input or output and needs --format.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

import click

from merklesync.failures import ExitCode, Failure
from merklesync.paths import is_there

STANDARD_STREAM: Final = Path("-")


class Format(StrEnum):
    """A form that pairs have outside a store."""

    FOLDER = "folder"
    JSON_LINES = "jsonl"
    CSV = "csv"


_SUFFIXES: Final = {".jsonl": Format.JSON_LINES, ".ndjson": Format.JSON_LINES, ".csv": Format.CSV}

format_option = click.option(
    "--format",
    "form",
    type=click.Choice([str(form) for form in Format]),
    callback=lambda _context, _parameter, value: value and Format(value),
    help="Where the name does not tell: folder, jsonl or csv.",
)


def source_format(source: Path, form: Format | None) -> Format:
    """Return the form of what is to be read.

    Raises:
        Failure: It is not there, cannot be told, or is not of the form that was given.
    """
    if source == STANDARD_STREAM:
        return _of_stream(form)
    if not is_there(source):
        raise Failure(f"{source} does not exist: name a folder, a .jsonl file or a .csv file")
    if source.is_dir():
        if form not in (None, Format.FOLDER):
            raise Failure(f"{source} is a folder, not a file of {form}: leave --format out", ExitCode.USAGE)
        return Format.FOLDER
    if form is Format.FOLDER:
        raise Failure(f"{source} is a file, not a folder: leave --format out", ExitCode.USAGE)
    return form or _of_suffix(source)


def target_format(target: Path, form: Format | None) -> Format:
    """Return the form of what is to be written: a folder unless --format or the suffix says otherwise.

    Raises:
        Failure: It cannot be told.
    """
    if target == STANDARD_STREAM:
        return _of_stream(form)
    return form or _SUFFIXES.get(target.suffix.lower(), Format.FOLDER)


def _of_stream(form: Format | None) -> Format:
    if form in (None, Format.FOLDER):
        raise Failure("- is a stream: add --format jsonl or --format csv", ExitCode.USAGE)
    return form


def _of_suffix(source: Path) -> Format:
    form = _SUFFIXES.get(source.suffix.lower())
    if form is None:
        raise Failure(
            f"the name of {source} does not tell what it holds: add --format jsonl or --format csv",
            ExitCode.USAGE,
        )
    return form
