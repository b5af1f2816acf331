"""A folder tree read as pairs: relative path -> contents.

The key of a file is its path below the folder, its names as the file system's bytes with ``/`` between them;
the value is its contents.  Names need not be UTF-8.  Empty folders, permissions and times have no pair.
``tree_writer`` writes pairs back.

Only regular files are read.  What is left out is counted by reason in ``SkippedFiles``, with the first few
names. Nothing outside the folder is ever read: every name is opened relative to its open folder and links are
not followed, so that a name that becomes a link meanwhile is skipped too.

Nothing is known of the keys at and below a name that was left out, for whatever reason: such keys are
``Unread``, and are neither new nor gone.

Invariants: pairs come in ascending order of their keys, and a name that is left out is told before the first
pair after it.  A folder sorts as its name with a ``/`` after it, which makes the order of a walk the order
of the whole paths.  Memory holds one file and the names of the folders on the way to it.
"""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Generator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Final

from merklesync.files.sorted_pairs import Pair

# Enough names to see what kind of file is skipped; the counts tell the rest.
MAX_NAMES_A_REASON: Final = 5
# Not following links and not waiting for the other end of a pipe that has taken a file's name.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

FileId = tuple[int, int]
"""What tells one file from all others: the number of its device and of its inode."""


class SkipReason(StrEnum):
    """Why a name in a folder gave no pair."""

    LINK = "symbolic link"
    SPECIAL = "socket, pipe or device"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too large"
    KEY_TOO_LONG = "path too long for a key"
    CHANGED = "changed while it was read"
    EXCLUDED = "left out"


# What was to be read and could not be, so that the same walk may find more another time.
FAILED_READS: Final = frozenset({SkipReason.UNREADABLE, SkipReason.CHANGED})


class Unread:
    """The names that a walk left out, so that it cannot tell which keys there are at and below them."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: bytes) -> None:
        """Add a name, as a key; a folder's ends in ``/``, and the empty name stands for all keys."""
        self._names.add(name)

    def covers(self, key: bytes) -> bool:
        """Return whether ``key`` is one of the names, or below one; costs a lookup for each of its names."""
        if key in self._names or b"" in self._names:
            return True
        slash = key.find(b"/")
        while slash >= 0:
            if key[:slash] in self._names or key[: slash + 1] in self._names:
                return True
            slash = key.find(b"/", slash + 1)
        return False

    def forget_up_to(self, key: bytes) -> None:
        """Forget the names that cover no key after ``key``, so that a long walk does not fill the memory."""
        # What is below a name begins with the name and a slash; in ASCII, the character after the slash is 0.
        self._names = {name for name in self._names if not name or name.removesuffix(b"/") + b"0" > key}


@dataclass
class SkippedFiles:
    """What a walk left out.

    Attributes:
        counts: How many names were left out, by reason.
        names: The first few of them, as keys; a folder's ends in ``/``.
        unread: All of them, until the caller forgets them; None where the caller needs none.
    """

    counts: Counter[SkipReason] = field(default_factory=Counter)
    names: dict[SkipReason, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    unread: Unread | None = None

    def add(self, reason: SkipReason, name: bytes) -> None:
        """Count one name."""
        self.counts[reason] += 1
        if len(self.names[reason]) < MAX_NAMES_A_REASON:
            self.names[reason].append(name)
        if self.unread is not None:
            self.unread.add(name)

    @property
    def failed_reads(self) -> int:
        """How many names could not be read, or not as one whole."""
        return sum(self.counts[reason] for reason in FAILED_READS)


@dataclass(frozen=True)
class TreeReader:
    """Reads a folder tree.

    Args:
        folder: Its path; a link to a folder is followed, here only.
        max_key_bytes: A file or folder with a longer path is skipped.
        max_value_bytes: A larger file is skipped.
        excluded: Paths to leave out, such as the store itself; a path that does not exist excludes nothing.
    """

    folder: Path
    max_key_bytes: int
    max_value_bytes: int
    excluded: Collection[Path] = ()

    def pairs(self, skipped: SkippedFiles) -> Generator[Pair]:
        """Yield path and contents of every file, by ascending path; what is left out is added to ``skipped``.

        Raises:
            OSError: The folder itself cannot be read.
        """
        for key, folder_descriptor, name in self._files(skipped):
            contents = _read_file(folder_descriptor, name, self.max_value_bytes)
            if isinstance(contents, SkipReason):
                skipped.add(contents, key)
            else:
                yield key, contents

    def measure(self) -> tuple[int, int]:
        """Return how many files ``pairs`` would yield now, and their bytes, by their sizes only."""
        files = size_bytes = 0
        for _, folder_descriptor, name in self._files(SkippedFiles()):
            try:
                stat_result = os.stat(name, dir_fd=folder_descriptor, follow_symlinks=False)
            except OSError:
                continue
            if stat_result.st_size <= self.max_value_bytes:
                files += 1
                size_bytes += stat_result.st_size
        return files, size_bytes

    def _files(self, skipped: SkippedFiles) -> Generator[tuple[bytes, int, str]]:
        """Yield key, open folder and name of each regular file."""
        excluded = {identity for path in self.excluded if (identity := _file_id(path))}
        # The one place where a link is followed: the folder that the user named.
        descriptor = os.open(self.folder, _OPEN_FOLDER & ~os.O_NOFOLLOW)
        walk = _TreeWalk(self.max_key_bytes, excluded, skipped)
        with closing(walk.files(descriptor, b"")) as files:
            yield from files


def _file_id(path: Path) -> FileId | None:
    try:
        stat_result = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat_result.st_dev, stat_result.st_ino


@dataclass(frozen=True)
class _TreeWalk:
    max_key_bytes: int
    excluded: set[FileId]
    skipped: SkippedFiles

    def files(self, descriptor: int, prefix: bytes) -> Generator[tuple[bytes, int, str]]:
        """Yield the files below an open folder and close it at the end; a key's length bounds the depth."""
        try:
            for key, entry in self._sorted_entries(descriptor, prefix):
                if not key.endswith(b"/"):
                    yield key, descriptor, entry.name
                elif (below := self._open_folder(descriptor, key, entry.name)) is not None:
                    yield from self.files(below, key)
        finally:
            os.close(descriptor)

    def _sorted_entries(self, descriptor: int, prefix: bytes) -> list[tuple[bytes, os.DirEntry[str]]]:
        try:
            before = _size_and_mtime(os.fstat(descriptor))
            with os.scandir(descriptor) as entries:
                named = sorted(entries, key=attrgetter("name"))
                found = [pair for entry in named if (pair := self._key_of(entry, prefix))]
            # A name that is moved while its folder is listed can be missed under both names.
            if _size_and_mtime(os.fstat(descriptor)) != before:
                self.skipped.add(SkipReason.CHANGED, prefix)
        except OSError:
            if not prefix:
                raise
            self.skipped.add(SkipReason.UNREADABLE, prefix)
            return []
        found.sort(key=lambda pair: pair[0])
        return found

    def _key_of(self, entry: os.DirEntry[str], prefix: bytes) -> tuple[bytes, os.DirEntry[str]] | None:
        key = prefix + os.fsencode(entry.name)
        reason, suffix = self._classify(entry, key)
        if reason is None:
            return key + suffix, entry
        self.skipped.add(reason, key + suffix)
        return None

    def _classify(self, entry: os.DirEntry[str], key: bytes) -> tuple[SkipReason | None, bytes]:
        """Return why an entry is skipped, if it is, and what its key ends in: ``/`` for a folder."""
        try:
            kind = _skip_reason_or_suffix(entry)
            excluded = bool(self.excluded) and self._is_excluded(entry)
        except OSError:
            return SkipReason.UNREADABLE, b""
        if isinstance(kind, SkipReason):
            return kind, b""
        if excluded:
            return SkipReason.EXCLUDED, kind
        # A folder's path is followed by at least one more byte.
        return (SkipReason.KEY_TOO_LONG if len(key + kind) + len(kind) > self.max_key_bytes else None), kind

    def _is_excluded(self, entry: os.DirEntry[str]) -> bool:
        if not any(entry.inode() == inode for _, inode in self.excluded):
            return False
        stat_result = entry.stat(follow_symlinks=False)
        return (stat_result.st_dev, stat_result.st_ino) in self.excluded

    def _open_folder(self, descriptor: int, key: bytes, name: str) -> int | None:
        try:
            return os.open(name, _OPEN_FOLDER, dir_fd=descriptor)
        except OSError:
            self.skipped.add(SkipReason.UNREADABLE, key)
            return None


def _skip_reason_or_suffix(entry: os.DirEntry[str]) -> SkipReason | bytes:
    """Return ``/`` for a folder, nothing for a regular file, or why an entry that is neither is skipped."""
    if entry.is_symlink():
        return SkipReason.LINK
    if entry.is_dir(follow_symlinks=False):
        return b"/"
    return b"" if entry.is_file(follow_symlinks=False) else SkipReason.SPECIAL


def _read_file(folder_descriptor: int, name: str, max_bytes: int) -> bytes | SkipReason:
    try:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=folder_descriptor)
    except OSError:
        return SkipReason.UNREADABLE
    try:
        return _read_open_file(descriptor, max_bytes)
    except OSError:
        return SkipReason.UNREADABLE
    finally:
        os.close(descriptor)


def _read_open_file(descriptor: int, max_bytes: int) -> bytes | SkipReason:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        return SkipReason.SPECIAL
    if before.st_size > max_bytes:
        return SkipReason.TOO_LARGE
    contents = _read_bytes(descriptor, before.st_size)
    changed = len(contents) != before.st_size or _size_and_mtime(os.fstat(descriptor)) != _size_and_mtime(
        before
    )
    return SkipReason.CHANGED if changed else contents


def _read_bytes(descriptor: int, size_bytes: int) -> bytes:
    """Read up to one byte more than a file should hold, so that one that has grown is noticed."""
    chunk = os.read(descriptor, size_bytes + 1)
    if len(chunk) == size_bytes:
        return chunk
    chunks = [chunk]
    left = size_bytes + 1 - len(chunk)
    while left and chunk:
        chunk = os.read(descriptor, left)
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _size_and_mtime(stat_result: os.stat_result) -> tuple[int, int]:
    return stat_result.st_size, stat_result.st_mtime_ns
