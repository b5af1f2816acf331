"""Files that commands read, and new ones that they write: never over something, never left half-written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from merklesync.failures import Failure, describe, output_failure
from merklesync.formats import STANDARD_STREAM


@contextmanager
def opened(source: Path) -> Iterator[IO[bytes]]:
    """Give a file to read from; or standard input.

    Raises:
        Failure: Standard input is closed.
        OSError: The file cannot be opened.
    """
    if source == STANDARD_STREAM:
        if sys.stdin is None:
            raise Failure("standard input is closed: open it, or name a file")
        yield sys.stdin.buffer
        return
    with source.open("rb") as file:
        yield file


@contextmanager
def created(target: Path) -> Iterator[IO[bytes]]:
    """Give a new file, which is removed again when it cannot be finished; or standard output.

    Raises:
        Failure: The file exists already, or could not be written.
    """
    if target == STANDARD_STREAM:
        try:
            yield sys.stdout.buffer
            # What cannot be written is to be known before the command says that it is done.
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_failure(error) from error
        return
    try:
        file = target.open("xb")
    except FileExistsError as error:
        raise Failure(f"{target} exists already: name a new file, or remove it") from error
    try:
        with file:
            yield file
    except OSError as error:
        target.unlink(missing_ok=True)
        raise Failure(f"writing {target} failed: {describe(error)}; it was removed again") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
