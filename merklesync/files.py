"""New files that commands write: never over something, and never left half-written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from merklesync.failures import Failure, describe
from merklesync.formats import STANDARD_STREAM


@contextmanager
def created(target: Path) -> Iterator[IO[bytes]]:
    """Give a new file, which is removed again when it cannot be finished; or standard output.

    Raises:
        Failure: The file exists already, or could not be written.
    """
    if target == STANDARD_STREAM:
        yield sys.stdout.buffer
        return
    try:
        file = target.open("xb")
    except FileExistsError as error:
        raise Failure(f"{target} exists already: name a new file, or remove it") from error
    try:
        with file:
            yield file
    except OSError as error:
        target.unlink()
        raise Failure(f"writing {target} failed: {describe(error)}; it was removed again") from error
    except BaseException:
        target.unlink()
        raise
