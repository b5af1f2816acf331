"""Roots to follow that somebody writes down: lines of a file, of a pipe, or of standard input.

A line is a root in hex and, where it is known, the number of its revision: what ``follow`` itself prints.
The newest line counts.  A line that is none of this is named and left out, for whoever writes it may be in
the middle of something, and a follower is to go on.

    standard input    read until it ends
    a FIFO            read for ever, whoever opens it for writing, one after the other
    a file            read for ever, as it grows; from its start again when it was cut off or replaced

Memory holds one line, of a bounded length.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import trio

from manager.goals import Target
from merkledb import MAX_FOREIGN_REVISION
from merklesync.failures import Failure
from merklesync.formats import STANDARD_STREAM
from merklesync.keys import shorten
from merklesync.options import parse_root

# A root, 0x before it, a number of 20 digits, and a few blanks.
MAX_LINE_BYTES: Final = 128
# How long a line of a file may wait to be seen: people who append to one by hand do not wait longer.
FILE_INTERVAL_SECONDS: Final = 0.25
_READ_BYTES: Final = 65_536

Aim = Callable[[Target], None]
Complain = Callable[[str], None]


def parse_target(line: str) -> Target:
    """Return the target that a line names.

    Raises:
        ValueError: It is no root, or no root and a number.
    """
    digits, *rest = line.split()
    root = parse_root(digits)
    if not rest:
        return Target(root)
    number = rest[0] if len(rest) == 1 else ""
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"{shorten(line)!r} is not a root and the number of its revision")
    if int(number) > MAX_FOREIGN_REVISION:
        raise ValueError(
            f"revision {shorten(number)} is above {MAX_FOREIGN_REVISION}: no honest store has it"
        )
    return Target(root, int(number))


class TargetLines:
    """Lines cut out of bytes as they come.

    Args:
        complain: Called with a sentence for each line that names no target.
    """

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self._line = b""
        self._is_too_long = False
        self._number = 0

    def feed(self, data: bytes) -> Target | None:
        """Return the newest target that ``data`` completes the line of, if any."""
        newest: Target | None = None
        *ended, rest = data.split(b"\n")
        for part in ended:
            newest = self._end_line(part) or newest
        self._add(rest)
        return newest

    def end(self) -> Target | None:
        """Return the target of a last line without an end."""
        return self._end_line(b"") if self._line or self._is_too_long else None

    def forget(self) -> None:
        """Begin with the first line of something else."""
        self._line, self._is_too_long, self._number = b"", False, 0

    def _add(self, part: bytes) -> None:
        self._line += part[: MAX_LINE_BYTES + 1]
        self._is_too_long |= len(self._line) > MAX_LINE_BYTES
        if self._is_too_long:
            self._line = b""

    def _end_line(self, part: bytes) -> Target | None:
        self._add(part)
        line, is_too_long = self._line.decode("utf-8", "replace").strip(), self._is_too_long
        self._line, self._is_too_long = b"", False
        self._number += 1
        try:
            if is_too_long:
                raise ValueError(f"it has more than {MAX_LINE_BYTES} bytes")
            return parse_target(line) if line else None
        except ValueError as error:
            self._complain(f"line {self._number} of the roots is left out: {error}")
            return None


async def read_targets(source: Path, aim: Aim, complain: Complain) -> None:
    """Call ``aim`` with each target that is the newest of ``source``; return when a stream has ended.

    Args:
        source: A file, a FIFO, or - for standard input.
        aim: Called in the event loop.
        complain: Called with a sentence for each line that names no target.

    Raises:
        OSError: The source cannot be read.
        Failure: Standard input is closed.
    """
    lines = TargetLines(complain)
    if source == STANDARD_STREAM:
        if sys.stdin is None:
            raise Failure("standard input is closed: name a file of roots")
        await _read_stream(0, lines, aim)
        return
    mode = (await trio.Path(source).stat()).st_mode
    if stat.S_ISREG(mode):
        await _read_growing(source, lines, aim)
    # A FIFO that is open for writing here as well never ends, whoever else closes it.
    access = os.O_RDWR | os.O_NONBLOCK if stat.S_ISFIFO(mode) else os.O_RDONLY
    descriptor = os.open(source, access | os.O_CLOEXEC)
    try:
        await _read_stream(descriptor, lines, aim)
    finally:
        os.close(descriptor)


async def _read_stream(descriptor: int, lines: TargetLines, aim: Aim) -> None:
    while True:
        await _wait_readable(descriptor)
        data = os.read(descriptor, _READ_BYTES)
        target = lines.feed(data) if data else lines.end()
        if target is not None:
            aim(target)
        if not data:
            return


async def _wait_readable(descriptor: int) -> None:
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except OSError as error:
        # A file, or /dev/null: reading it never waits.
        if error.errno != errno.EPERM:
            raise
        await trio.lowlevel.checkpoint()


async def _read_growing(source: Path, lines: TargetLines, aim: Aim) -> None:
    """Read a file as it grows, for ever; one that is missing for a moment is being replaced."""
    place = _Place(0, 0, 0)
    while True:
        with suppress(FileNotFoundError):
            place = await _read_rest(source, place, lines, aim)
        await trio.sleep(FILE_INTERVAL_SECONDS)


class _Place(NamedTuple):
    """How far a file was read: which one it was, by its device and inode, and the bytes."""

    device: int
    inode: int
    position: int


async def _read_rest(source: Path, place: _Place, lines: TargetLines, aim: Aim) -> _Place:
    newest: Target | None = None
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        if place[:2] != (status.st_dev, status.st_ino) or status.st_size < place.position:
            place = _Place(status.st_dev, status.st_ino, 0)
            lines.forget()
        file.seek(place.position)
        while data := file.read(_READ_BYTES):
            newest = lines.feed(data) or newest
            await trio.lowlevel.checkpoint()
        place = place._replace(position=file.tell())
    if newest is not None:
        aim(newest)
    return place
