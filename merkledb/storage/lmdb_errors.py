"""LMDB's errors, each translated on purpose into one of this package's.

Damage is only what LMDB can find nowhere but in damaged pages.  What nobody expects here is a failure of
LMDB, about which nothing else is claimed.
"""

import errno
import os
from typing import Final

import lmdb

from merkledb.errors import (
    CorruptDatabase,
    DatabaseClosed,
    DatabaseFull,
    DatabaseInUse,
    DatabaseOutgrown,
    MerkleDBError,
    NotADatabase,
    StoreFailed,
    TooManyReaders,
)

# What pages say that contradict each other: a page of the wrong kind, beyond the file, without room for what
# is in it, or in a loop; a table of another kind than it was made as; a key that no key can be.
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.BadChecksumError,
)
# Every worker thread of a server and every iterator in flight takes a reader's slot.
MAX_READERS: Final = 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT})


def translated_error(error: lmdb.Error, path: str, *, is_closed: bool) -> MerkleDBError:
    """Return this package's error for one of LMDB's, in an environment that is or was open."""
    code = getattr(error, "code", 0)
    if is_closed or "closed/deleted/dropped" in str(error):
        return DatabaseClosed(path)
    if isinstance(error, _DAMAGE):
        return CorruptDatabase(path, str(error))
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError):
        return NotADatabase(path, "holds a file that is no LMDB 0.9 database")
    if isinstance(error, lmdb.MapResizedError):
        return DatabaseOutgrown(path, "open it again, or let this process reserve more address space")
    if isinstance(error, lmdb.ReadersFullError):
        return TooManyReaders(path, MAX_READERS)
    return _of_room(error, code, path) or StoreFailed(path, str(error))


def _of_room(error: lmdb.Error, code: int, path: str) -> MerkleDBError | None:
    """Return the error for a map, a disk or a transaction without room; None for any other."""
    if isinstance(error, lmdb.MapFullError):
        return DatabaseFull(path, "the map is used up: open it with a larger map_bytes")
    if isinstance(error, lmdb.TxnFullError):
        return DatabaseFull(path, "the change touches more pages than one transaction may: divide it")
    if isinstance(error, lmdb.DiskError) or code in _FULL:
        return DatabaseFull(path, str(error))
    if code == errno.EIO:
        # LMDB's word for a write that the system carried out in part, as it does on a disk that fills up.
        return DatabaseFull(path, "the disk did not take all that was written: it is full, or failing")
    return None


def opening_error(error: lmdb.Error, path: str) -> MerkleDBError:
    """Return this package's error for one of LMDB's that kept an environment from being opened."""
    code = getattr(error, "code", 0)
    if code == errno.ENOMEM:
        return NotADatabase(path, "cannot be opened: this process may not reserve address space for it")
    if code in _REFUSED:
        return NotADatabase(path, f"cannot be opened ({os.strerror(code)}): get access to its files")
    if "already open in this process" in str(error):
        return DatabaseInUse(path, same_process=True)
    return translated_error(error, path, is_closed=False)
