"""The folder of a store: made, checked, and locked by the one process that writes.

LMDB makes the data file and its own lock file in it.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from merkledb.errors import DatabaseFull, DatabaseInUse, NotADatabase

CUT_SHORT: Final = "is a store whose creation was cut short: create it again"
# What the system counts the blocks of a file in.
_BLOCK_BYTES: Final = 512
# What a store whose creation was cut short may have left in its folder.
_LOCK_FILES: Final = frozenset({"lock.mdb", "writer.lock"})


def prepare_folder(path: Path, *, readonly: bool, create: bool) -> int | None:
    """Make or check the folder; return the descriptor that holds the writer's lock, or None for a reader."""
    data = path / "data.mdb"
    name = str(path)
    try:
        if path.exists() and not path.is_dir():
            raise NotADatabase(name, "is a file, not the folder of a store: name another path")
        if readonly and data.exists() and not data.stat().st_size:
            raise NotADatabase(name, CUT_SHORT)
        if not data.exists():
            if readonly or not create:
                raise NotADatabase(
                    name, "is no store: create one with a command that writes, or name another path"
                )
            if path.is_dir() and not _LOCK_FILES.issuperset(entry.name for entry in path.iterdir()):
                raise NotADatabase(name, "is a folder that holds other things: name an empty or a new one")
        if readonly:
            return None
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        if new:
            sync_folder(path.parent)
        return _lock(path)
    except OSError as error:
        raise NotADatabase(name, f"cannot be opened: {error.strerror}") from error


def _lock(path: Path) -> int:
    descriptor = os.open(path / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DatabaseInUse(str(path)) from error
    return descriptor


def sync_folder(path: Path) -> None:
    """Make a folder's own entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate_lock_file(path: Path, size: int) -> None:
    """Let LMDB's lock file have its blocks before LMDB writes to it through a map.

    On a full disk, a write through a map to a block that the file does not have yet ends the process.

    Args:
        path: The folder.
        size: How long the file becomes at least.

    Raises:
        DatabaseFull: The disk has no room for it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        descriptor = os.open(path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return  # LMDB knows which readers can do without it, and says what is wrong where none can.
    try:
        status = os.fstat(descriptor)
        if max(status.st_size, size) > status.st_blocks * _BLOCK_BYTES:
            os.posix_fallocate(descriptor, 0, max(status.st_size, size))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DatabaseFull(str(path), "there is no room for its lock file") from error
        # Any other file system does without, and its own errors come up when LMDB opens the file.
    finally:
        os.close(descriptor)
