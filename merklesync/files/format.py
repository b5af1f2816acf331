"""The form of pairs outside a store: a folder tree, JSON Lines or CSV; --format or the name says which.

A folder is a folder tree.  ``.jsonl`` and ``.ndjson`` are JSON Lines, ``.csv`` is CSV.  ``-`` is standard
input or output and needs --format.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

from merklesync.errors import CommandError, ExitCode
from merklesync.files.paths import STANDARD_STREAM, is_there


class Format(StrEnum):
    """A form that pairs have outside a store."""

    FOLDER = "folder"
    JSON_LINES = "jsonl"
    CSV = "csv"


_SUFFIXES: Final = {".jsonl": Format.JSON_LINES, ".ndjson": Format.JSON_LINES, ".csv": Format.CSV}


def format_of_source(source: Path, form: Format | None) -> Format:
    """Return the form of what is to be read.

    Raises:
        CommandError: It is not there, cannot be told, or is not of the form that was given.
    """
    if source == STANDARD_STREAM:
        return _format_of_stream(form)
    if not is_there(source):
        raise CommandError(f"{source} does not exist: name a folder, a .jsonl file or a .csv file")
    if source.is_dir():
        if form not in (None, Format.FOLDER):
            raise CommandError(
                f"{source} is a folder, not a file of {form}: leave --format out", ExitCode.USAGE
            )
        return Format.FOLDER
    if form is Format.FOLDER:
        raise CommandError(f"{source} is a file, not a folder: leave --format out", ExitCode.USAGE)
    return form or _format_of_suffix(source)


def format_of_target(target: Path, form: Format | None) -> Format:
    """Return the form of what is to be written: a folder unless --format or the suffix says otherwise.

    Raises:
        CommandError: It cannot be told.
    """
    if target == STANDARD_STREAM:
        return _format_of_stream(form)
    return form or _SUFFIXES.get(target.suffix.lower(), Format.FOLDER)


def _format_of_stream(form: Format | None) -> Format:
    if form in (None, Format.FOLDER):
        raise CommandError("- is a stream: add --format jsonl or --format csv", ExitCode.USAGE)
    return form


def _format_of_suffix(source: Path) -> Format:
    form = _SUFFIXES.get(source.suffix.lower())
    if form is None:
        raise CommandError(
            f"the name of {source} does not tell what it holds: add --format jsonl or --format csv",
            ExitCode.USAGE,
        )
    return form
