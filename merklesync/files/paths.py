"""Paths that a command is given: whether something is there, files to read, and new files to write.

``-`` stands for standard input or output.  Invariants: a new file never replaces one that exists, and is
removed when it cannot be finished; a failed look at a path is an error, not an absence.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from merklesync.errors import CommandError, describe_os_error, output_error_of

STANDARD_STREAM: Final = Path("-")


def is_there(path: Path) -> bool:
    """Return whether something is at ``path``; a link counts as what it leads to.

    Raises:
        OSError: That cannot be told, because a folder on the way cannot be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def open_source(source: Path) -> Iterator[IO[bytes]]:
    """Give a file to read from; or standard input.

    Raises:
        CommandError: Standard input is closed.
        OSError: The file cannot be opened.
    """
    if source == STANDARD_STREAM:
        if sys.stdin is None:
            raise CommandError("standard input is closed: open it, or name a file")
        yield sys.stdin.buffer
        return
    with source.open("rb") as file:
        yield file


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Give a new file, which is removed again when it cannot be finished; or standard output.

    Raises:
        CommandError: The file exists already, or could not be written.
    """
    if target == STANDARD_STREAM:
        try:
            yield sys.stdout.buffer
            # What cannot be written is to be known before the command says that it is done.
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error_of(error) from error
        return
    try:
        file = target.open("xb")
    except FileExistsError as error:
        raise CommandError(f"{target} exists already: name a new file, or remove it") from error
    try:
        with file:
            yield file
    except OSError as error:
        target.unlink(missing_ok=True)
        raise CommandError(
            f"writing {target} failed: {describe_os_error(error)}; it was removed again"
        ) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
