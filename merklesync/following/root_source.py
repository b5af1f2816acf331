"""Roots to follow, as another program writes them: lines of a file, of a pipe, or of standard input.

A line is a root in hex and, where it is known, the number of its revision: what ``follow`` itself prints.
The newest line counts.  A line of another form is reported and left out, and the follower goes on; of many
in a row only the first few are reported.  Lines are UTF-8, also after a byte order mark, and end with LF,
CR LF or CR alone; UTF-16 is reported as such.

    standard input    read until it ends
    a FIFO            read for ever, from one writer after the other
    a file            read for ever, as it grows; from its start again when it was cut off, replaced, or
                      written anew in place, whatever its length is then
    another kind      in the place of a file or a FIFO is read as what it is; when the path leads to nothing,
                      that is reported and waited for

Memory holds one line, of a bounded length, and the end of what was read of a file.
"""

import errno
import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import trio

from manager.scheduling.pivot import Target
from merkledb import MAX_NAMED_REVISION
from merklesync.errors import CommandError
from merklesync.files.paths import STANDARD_STREAM
from merklesync.text import parse_root, truncate

# A root, 0x before it, a number of 20 digits, and a few blanks.
MAX_LINE_BYTES: Final = 128
# A stream with so much of a line, and no end of it, is something else than roots, such as /dev/zero.
MAX_UNENDED_BYTES: Final = 1 << 20
# So many lines in a row that name no root are reported.  A program that writes something else to a pipe, or a
# file such as /proc/uptime, has new ones for ever.
MAX_REPORTED_LINES: Final = 3
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
# How long a line of a file may wait to be seen: people who append to one by hand do not wait longer.
FILE_INTERVAL_SECONDS: Final = 0.25
# This many of the bytes read last are compared at each look: dozens of lines, in one read.
TAIL_BYTES: Final = 4096
# A program that replaces a file may remove it for a moment; after so many looks it is reported missing.
_MISSING_LOOKS: Final = 8
UNREADABLE: Final = "the roots cannot be read: {}; the last one is followed until they can be"
_READ_BYTES: Final = 65_536

TargetCallback = Callable[[Target], None]
ErrorCallback = Callable[[str], None]


def parse_target(line: str) -> Target:
    """Return the target that a line names.

    Raises:
        ValueError: It is neither a root nor a root and a number.
    """
    digits, *rest = line.split()
    root = parse_root(digits)
    if not rest:
        return Target(root)
    number = rest[0] if len(rest) == 1 else ""
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"{truncate(line)!r} is not a root and the number of its revision")
    if int(number) > MAX_NAMED_REVISION:
        raise ValueError(f"revision {truncate(number)} is above {MAX_NAMED_REVISION}: no honest store has it")
    return Target(root, int(number))


class TargetParser:
    """Lines cut out of bytes as they come.

    Args:
        on_error: Called with a sentence for the first few lines in a row that name no target.

    Attributes:
        unended_bytes: How much has come of the last line, though not all of it is kept.
    """

    def __init__(self, on_error: ErrorCallback) -> None:
        self._on_error = on_error
        # How many lines were left out since the last one that named a target.
        self._left_out = 0
        # Whether the last byte was a CR, which ends a line, and a LF after it ends no other.
        self._ended_with_return = False
        self.reset()

    def feed(self, data: bytes) -> Target | None:
        """Return the newest target that ``data`` completes the line of, if any."""
        newest: Target | None = None
        if self._ended_with_return and data.startswith(b"\n"):
            # The second half of a line end of which the first has ended the line already.
            data, self._ended_with_return = data[1:], False
        if data:
            self._ended_with_return = data.endswith(b"\r")
        *ended, rest = _LINE_END.split(data)
        for part in ended:
            newest = self._end_line(part) or newest
            self.unended_bytes = 0
        self._add(rest)
        self.unended_bytes += len(rest)
        return newest

    def unended(self) -> Target | None:
        """Return the target that the last line names, though its end was not written yet, if it names one."""
        try:
            return None if self._is_too_long else parse_target(self._text())
        except ValueError:
            return None

    def end(self) -> Target | None:
        """Return the target of a last line without an end."""
        return self._end_line(b"") if self._line or self._is_too_long else None

    def reset(self) -> None:
        """Begin with the first line of something else."""
        self._line, self._is_too_long, self._is_utf_16, self._number = b"", False, False, 0
        self._ended_with_return = False
        self.unended_bytes = 0

    def _add(self, part: bytes) -> None:
        self._line += part[: MAX_LINE_BYTES + 1]
        is_first = self._number == 0 and not self._is_too_long
        # Digits of UTF-16 have a NUL beside each, and no line of UTF-8 has one.
        self._is_utf_16 |= b"\0" in part or (is_first and self._line.startswith(_UTF_16_MARKS))
        self._is_too_long |= len(self._line) > MAX_LINE_BYTES
        if self._is_too_long:
            self._line = b""

    def _text(self) -> str:
        """Return what is kept of the line, without the byte order mark of a first one."""
        line = self._line if self._number else self._line.removeprefix(_BYTE_ORDER_MARK)
        return line.decode("utf-8", "replace").strip()

    def _end_line(self, part: bytes) -> Target | None:
        self._add(part)
        line, is_too_long, is_utf_16 = self._text(), self._is_too_long, self._is_utf_16
        self._line, self._is_too_long, self._is_utf_16 = b"", False, False
        self._number += 1
        try:
            if is_utf_16:
                raise ValueError("it holds NUL bytes or a mark of UTF-16: write the roots as UTF-8")
            if is_too_long:
                raise ValueError(f"it has more than {MAX_LINE_BYTES} bytes")
            target = parse_target(line) if line else None
        except ValueError as error:
            self._leave_out(str(error), is_last=is_utf_16)
            return None
        if target is not None:
            self._left_out = 0
        return target

    def _leave_out(self, reason: str, *, is_last: bool) -> None:
        """Report a line that names no target, but not each of many in a row.

        Args:
            reason: What is wrong with it.
            is_last: Whether the same is wrong with all that follow, so that this says enough.
        """
        self._left_out += 1
        if self._left_out <= MAX_REPORTED_LINES:
            self._on_error(f"line {self._number} of the roots is left out: {reason}")
            if is_last:
                self._left_out = MAX_REPORTED_LINES + 1
        elif self._left_out == MAX_REPORTED_LINES + 1:
            self._on_error(
                "the next lines of the roots name no root either; they are left out without a note "
                "until one names a root"
            )


async def read_targets(source: Path, on_target: TargetCallback, on_error: ErrorCallback) -> None:
    """Call ``on_target`` with each target that is the newest of ``source``; return when a stream has ended.

    All of it runs in the event loop.  Cancelled, it leaves nothing open.

    Args:
        source: A file, a FIFO, or - for standard input.
        on_target: Called in the event loop.
        on_error: Called with a sentence for lines that name no target, the first few in a row.

    Raises:
        OSError: The source cannot be read.
        CommandError: Standard input is closed; or a line of it, or of a device, does not end.
    """
    parser = TargetParser(on_error)
    if source == STANDARD_STREAM:
        if sys.stdin is None:
            raise CommandError("standard input is closed: name a file of roots")
        await _read_stream(0, parser, on_target)
        return
    # Whatever is missing or cannot be read at the start is the caller's mistake.
    goes_on = await _read_named(source, parser, on_target, on_error)
    failure = ""
    while goes_on:
        parser.reset()
        await _wait_for(source, on_error)
        try:
            goes_on = await _read_named(source, parser, on_target, on_error)
        except OSError as error:
            if failure != str(error):
                on_error(UNREADABLE.format(error))
            failure = str(error)
            await trio.sleep(FILE_INTERVAL_SECONDS)


async def _read_named(
    source: Path, parser: TargetParser, on_target: TargetCallback, on_error: ErrorCallback
) -> bool:
    """Read what is at a path as long as it is there; return whether something else may come in its place.

    In the event loop.  It is closed at the end, also when cancelled.
    """
    mode = _mode_of(source)
    if stat.S_ISREG(mode):
        await _FileReader(source, parser, on_target, on_error).run()
        return True
    if stat.S_ISDIR(mode):
        # Reading it would fail as well, with an error that does not name it.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(source))
    is_fifo = stat.S_ISFIFO(mode)
    # A FIFO that is open for writing here as well does not end when its writers close it.
    access = os.O_RDWR | os.O_NONBLOCK if is_fifo else os.O_RDONLY
    descriptor = os.open(source, access | os.O_CLOEXEC)
    try:
        await _read_stream(descriptor, parser, on_target, source if is_fifo else None)
    finally:
        os.close(descriptor)
    return is_fifo


def _mode_of(source: Path) -> int:
    # Without a thread, as all reading of this file: there may be none to be had.
    return source.stat().st_mode


async def _wait_for(source: Path, on_error: ErrorCallback) -> None:
    """Wait until something is at a path again, and say so where that takes long.

    A look is one system call in the event loop; a cancellation leaves nothing behind.
    """
    looks = 0
    while True:
        with suppress(OSError):
            _mode_of(source)
            return
        looks += 1
        if looks == _MISSING_LOOKS:
            on_error(f"{source} is missing: the last root that it named is followed until it is there again")
        await trio.sleep(FILE_INTERVAL_SECONDS)


async def _read_stream(
    descriptor: int, parser: TargetParser, on_target: TargetCallback, path: Path | None = None
) -> None:
    """Read a stream to its end, or until something else is at its place, where it has one.

    64 KiB a step, in the event loop.  A cancellation takes nothing that was not handed on.
    """
    interval = float("inf") if path is None else FILE_INTERVAL_SECONDS
    while True:
        with trio.move_on_after(interval) as patience:
            await _wait_readable(descriptor)
        if patience.cancelled_caught:
            if path is not None and not _is_at(path, descriptor):
                return
            continue
        data = os.read(descriptor, _READ_BYTES)
        target = parser.feed(data) if data else parser.end()
        if target is not None:
            on_target(target)
        if path is None and parser.unended_bytes > MAX_UNENDED_BYTES:
            raise CommandError(
                f"the roots have a line of more than {MAX_UNENDED_BYTES:,} bytes: name a file of roots, "
                "one in hex on each line"
            )
        if not data:
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether what is open is still what is at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


async def _wait_readable(descriptor: int) -> None:
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except OSError as error:
        # A file, or /dev/null: reading it never waits.
        if error.errno != errno.EPERM:
            raise
        await trio.lowlevel.checkpoint()


class _FileState(NamedTuple):
    """What a look at a file shows of it, to be compared with the next.

    Attributes:
        device: Where it is.
        inode: Which one it is.
        size: How long it is.
        changed: When it was changed last, in nanoseconds, as far as the system tells them apart.
    """

    device: int
    inode: int
    size: int
    changed: int


class _FileReader:
    """Reads a file as it grows, and anew whenever it is another than what was read.

    The end of what was read is compared at each look, because the time of the last change is not exact
    enough: a file that is written anew within the same tick of the system's clock has the same time, and may
    have the same length.

    Args:
        source: The file.
        parser: Where its bytes go.
        on_target: Called in the event loop.
        on_error: Called with a sentence where it cannot be read for a while.
    """

    def __init__(
        self, source: Path, parser: TargetParser, on_target: TargetCallback, on_error: ErrorCallback
    ) -> None:
        self._source = source
        self._parser = parser
        self._on_target = on_target
        self._on_error = on_error
        self._position = 0
        self._tail = b""
        self._last: _FileState | None = None
        # What the last line named, which had no end yet.
        self._unended: Target | None = None
        self._failure = ""

    async def run(self) -> None:
        """Read until the path leads to nothing, or to something that is not a file.

        Each look reads in the event loop, 64 KiB a step: a thread for each look would cost more, and the
        system may refuse it.  Cancelled, it closes the file.

        Raises:
            OSError: It could not be read at the first look.
        """
        while True:
            try:
                with _open_without_waiting(self._source) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        return
                    await self._read(file)
            except FileNotFoundError:
                return
            except OSError as error:
                self._note_failure(error)
            else:
                self._failure = ""
            await trio.sleep(FILE_INTERVAL_SECONDS)

    def _note_failure(self, error: OSError) -> None:
        """Say once that the file cannot be read any more."""
        if self._last is None:
            raise error
        if self._failure != str(error):
            self._on_error(UNREADABLE.format(error))
        self._failure = str(error)

    async def _read(self, file: BinaryIO) -> None:
        """Read what is new, 64 KiB a step, in the event loop.

        A cancellation leaves the position after what was read; no target of it is handed on.
        """
        stat_result = os.fstat(file.fileno())
        seen = _FileState(
            stat_result.st_dev, stat_result.st_ino, stat_result.st_size, stat_result.st_mtime_ns
        )
        if not self._has_only_grown(file, seen):
            # It is another file, or another content: its lines count from the first.
            self._position, self._tail, self._unended = 0, b"", None
            self._parser.reset()
        is_same, self._last = seen == self._last, seen
        newest: Target | None = None
        file.seek(self._position)
        while data := file.read(_READ_BYTES):
            newest = self._parser.feed(data) or newest
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            self._position += len(data)
            await trio.lowlevel.checkpoint()
        if newest is not None:
            self._on_target(newest)
        elif is_same:
            # The writer has paused for a whole look, so what stands there may be a last line without an end.
            self._take_unended()

    def _has_only_grown(self, file: BinaryIO, seen: _FileState) -> bool:
        """Return whether what was read before is still there, so that it is enough to read on."""
        last = self._last
        if last is None or seen[:2] != last[:2] or seen.size < self._position:
            return False
        if seen.size == last.size and seen.changed != last.changed:
            # Changed, and not longer: it was written anew.  Its tail may be the same all the same.
            return False
        file.seek(self._position - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _take_unended(self) -> None:
        """Take a last line without an end, if it did not grow between two looks."""
        target = self._parser.unended()
        if target is not None and target != self._unended:
            self._on_target(target)
        self._unended = target


def _open_without_waiting(source: Path) -> BinaryIO:
    """Open what is at a path, which may be a FIFO by now, without waiting for a writer."""
    return os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
