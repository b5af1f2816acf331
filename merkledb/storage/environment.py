"""The LMDB environment itself: opened, opened anew where it must be, and left alone after a fork.

What can happen to an open environment from outside:

- Another process makes the store larger than the map that this one reserved.  A transaction cannot begin
  then; so, once all transactions of this process have ended, the environment is closed and opened anew.
- Readers were killed, and their places are taken for ever.  Their places are taken back now and then, and
  when there is none left.
- The folder is removed, or replaced by another.  Whoever begins a read, or is about to commit, looks whether
  the file is still the same.
- This process forks.  The child has copies of all objects, but their places among the readers, the lock and
  the mutex belong to the parent: the child must touch none of them, not even to close them.
"""

import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import lmdb

from merkledb.errors import (
    DatabaseClosed,
    DatabaseOutgrown,
    DatabaseReplaced,
    ForkedDatabase,
    MerkleDBError,
    ReadonlyDatabase,
)
from merkledb.storage.folder import allocate_lock_file, sync_folder
from merkledb.storage.lmdb_errors import MAX_READERS, opening_error, translated_error

# LMDB's major version and with it the file format: 0 is the 0.9 series.
LMDB_VERSION: Final = 0
_MAX_TABLES: Final = 16
# Where a process may not reserve the whole map, this is the least that is tried.
_MIN_MAP_BYTES: Final = 64 << 20
# LMDB's lock file: a head with two mutexes, and a cache line for each reader.
_LOCK_FILE_BYTES: Final = 128 + 64 * MAX_READERS
# A look at the places of readers costs a few microseconds; so seldom, it costs a read nothing.
_BEGINS_BETWEEN_READER_CHECKS: Final = 1024
# How long single reads may go on from a folder that is gone: a look takes longer than such a read.
_SECONDS_BETWEEN_LOOKS: Final = 0.1
# How often a transaction is tried again after what stood in its way was put right: a store that grows
# meanwhile may stand in its way once more.
_MAX_TRIES: Final = 8
# How long others in this process may take to end their transactions before the map is given up: 1 second,
# which is long for a read, and not for whoever waits.
_PAUSES: Final = 100
_PAUSE_SECONDS: Final = 0.01

if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]
    Cursor = lmdb.Cursor[bytes]
else:  # LMDB's types are generic for a type checker only.
    Transaction = lmdb.Transaction
    Cursor = lmdb.Cursor


class Environment:
    """An open LMDB environment, and who uses it.

    Args:
        path: The folder.
        readonly: Whether it is opened for reading.
        map_bytes: The most that it may ever grow to.
        lock_file: The descriptor that holds the writer's lock; closed with the environment.

    Attributes:
        folder: The folder, by a path that holds wherever the process is.
        lmdb: The environment as LMDB has it now; another after it was opened anew.
        renewed: Called when it was opened anew, for tables belong to the environment that opened them.
        is_forked: Whether this is a copy in a process that was forked off.
    """

    def __init__(self, path: Path, *, readonly: bool, map_bytes: int, lock_file: int | None) -> None:
        self.path = path
        # The process may go to another folder.  A link may be replaced, so it is followed at each look.
        self.folder = Path(os.path.abspath(path))  # noqa: PTH100 - ``resolve`` follows links now.
        self.readonly = readonly
        self.renewed: Callable[[], None] = _do_nothing
        self._map_bytes, self._lock_file = map_bytes, lock_file
        self.is_closed = self.is_forked = False
        # One for each transaction that has begun or is about to.  Appending and popping are atomic.
        self._held: list[None] = []
        # Whether ``begin`` has to look what is the matter before it goes on.
        self._is_barred = False
        self._opening = threading.Lock()
        # How often ``begin`` was called, and when it looks again whether the folder is still there.
        self._begins, self._looks_at = count(1), 0.0
        if any(each.is_forked and each.folder.resolve() == path.resolve() for each in list(_ALL)):
            raise ForkedDatabase(str(path))
        # Where this process has it open, closing any descriptor of the file would give up LMDB's locks.
        if not any(each.is_open_at(path) for each in list(_ALL)):
            allocate_lock_file(path, _LOCK_FILE_BYTES)
        try:
            self.lmdb = _open_in_any_room(path, readonly=readonly, map_bytes=map_bytes)
        except lmdb.Error as error:
            raise opening_error(error, str(path)) from error
        self._data_file = os.fsencode(self.folder / "data.mdb")
        self._identity = _identity(self._data_file)
        _ALL.add(self)

    def translate(self, error: lmdb.Error) -> MerkleDBError:
        """Return this package's error for one of LMDB's."""
        return translated_error(error, str(self.path), is_closed=self.is_closed)

    def require_usable(self) -> None:
        """Raise unless this process may use the environment.

        Raises:
            DatabaseClosed, ForkedDatabase
        """
        if self.is_forked:
            raise ForkedDatabase(str(self.path))
        if self.is_closed:
            raise DatabaseClosed(str(self.path))

    def require_present(self) -> None:
        """Raise unless what is open here is still what is in the folder.

        Cost: a look at the file, one to three microseconds.  Where it cannot be looked at, nothing is known,
        and so nothing is raised.

        Raises:
            DatabaseReplaced, DatabaseClosed, ForkedDatabase
        """
        if self.is_closed or self.is_forked:
            self.require_usable()
        if _identity(self._data_file) not in (self._identity, None):
            raise DatabaseReplaced(str(self.path))

    def begin(self, *, write: bool = False) -> Transaction:
        """Begin a transaction, to be given to ``end``; ``require_present`` is called only now and then.

        Raises:
            ReadonlyDatabase, DatabaseClosed, DatabaseFull, DatabaseOutgrown, TooManyReaders, ForkedDatabase
        """
        if self.is_closed or self.is_forked:
            self.require_usable()
        if write and self.readonly:
            raise ReadonlyDatabase(str(self.path))
        if time.monotonic() >= self._looks_at:
            self.require_present()
            self._looks_at = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        if not next(self._begins) % _BEGINS_BETWEEN_READER_CHECKS:
            self.require_present()
            self._look_for_dead_readers()
        self._held.append(None)
        if self._is_barred:
            self._held.pop()
            return self._begin_again(None, self.lmdb, write=write)
        present = self.lmdb
        try:
            return present.begin(write=write)
        except lmdb.Error as error:
            self._held.pop()
            return self._begin_again(error, present, write=write)

    def begin_views(self, transaction: Transaction) -> Transaction | None:
        """Begin a second read transaction of the same moment, which copies no value; give it to ``end``.

        Returns:
            None where there is no place for it, or where a commit came between: then values are copied.
        """
        if self.is_forked:
            return None
        self._held.append(None)
        try:
            views = None if self._is_barred else self.lmdb.begin(buffers=True)
        except lmdb.Error:
            views = None
        if views is None:
            self._held.pop()
            return None
        if views.id() != transaction.id():
            self.end(cast("Transaction", views))
            return None
        return cast("Transaction", views)

    def end(self, transaction: Transaction) -> None:
        """End a transaction, which was committed before, or is aborted."""
        if self.is_forked:
            return  # The place among the readers is the parent's, which goes on reading there.
        try:
            transaction.abort()
        finally:
            if self._held:
                self._held.pop()

    def _begin_again(
        self, error: lmdb.Error | None, present: "lmdb.Environment", *, write: bool
    ) -> Transaction:
        """Put right what stood in the way of a transaction, and begin it after all.

        Args:
            error: What stood in the way; None was the bar.
            present: The environment in which it did.
            write: Whether the transaction is to write.
        """
        for tries in range(_MAX_TRIES):
            if isinstance(error, lmdb.ReadersFullError):
                # Another thread may just have taken them back, so only a second failure counts.
                if not self._retake_places() and tries:
                    raise self.translate(error) from error
            elif error is None or isinstance(error, lmdb.MapResizedError):
                self._renew(present)
            else:
                raise self.translate(error) from error
            self._held.append(None)
            error = None
            if not self._is_barred:
                present = self.lmdb
                try:
                    return present.begin(write=write)
                except lmdb.Error as again:
                    error = again
            self._held.pop()
        raise DatabaseOutgrown(str(self.path), "it grows faster than this process can open it: try again")

    def _look_for_dead_readers(self) -> None:
        """Take back the places of dead readers, unless the environment is being opened anew."""
        if self._opening.acquire(blocking=False):
            try:
                with contextlib.suppress(lmdb.Error):
                    self.forget_dead_readers()
            finally:
                self._opening.release()

    def _retake_places(self) -> int:
        """Take the places of dead readers back; return how many those were."""
        with self._opening:
            return self.forget_dead_readers()

    def forget_dead_readers(self) -> int:
        """Free the places of readers that were killed; return how many those were.

        They also keep old pages from being used again.
        """
        return int(self.lmdb.reader_check())

    # Opened anew.

    def _renew(self, outgrown: "lmdb.Environment") -> None:
        """Open the environment anew, with room for what the store has become.

        Args:
            outgrown: The one that has no room; where another thread was faster, it is not the present one any
                more, and nothing is to be done unless that thread failed.

        Raises:
            DatabaseOutgrown: Transactions of this process do not end, or it may not reserve the room.
        """
        with self._opening:
            self.require_usable()
            if outgrown is not self.lmdb and not self._is_barred:
                return
            # From here on no transaction begins.  A thread that appended to ``_held`` before it could see the
            # bar is counted, and waited for.
            self._is_barred = True
            for _ in range(_PAUSES):
                if not self._held:
                    break
                time.sleep(_PAUSE_SECONDS)
            else:
                self._is_barred = False
                raise DatabaseOutgrown(str(self.path), "close its snapshots, iterators and views first")
            self._reopen()

    def _reopen(self) -> None:
        """Close the environment and open it again; where that fails, the bar stays, and the next tries."""
        self.require_present()
        self.lmdb.close()
        try:
            self.lmdb = _open_in_any_room(self.folder, readonly=self.readonly, map_bytes=self._map_bytes)
        except lmdb.Error as error:
            if getattr(error, "code", 0) == errno.ENOMEM:
                advice = "let this process reserve more address space (ulimit -v)"
                raise DatabaseOutgrown(str(self.path), advice) from error
            raise opening_error(error, str(self.path)) from error
        try:
            self.renewed()
        except lmdb.Error as error:
            raise self.translate(error) from error
        self._is_barred = False

    def close(self) -> None:
        """Close the environment; every transaction must have ended."""
        if not self.is_closed:
            self.is_closed = True
            if not self.is_forked:
                with self._opening:
                    self.lmdb.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def disown(self) -> None:
        """Leave all to the parent process, in one that was forked off from it."""
        self.is_forked = True
        # The lock is held as long as any process has the descriptor open.
        self._unlock()

    def is_open_at(self, path: Path) -> bool:
        """Return whether this is an open environment in the folder ``path``."""
        return not self.is_closed and not self.is_forked and self.folder.resolve() == path.resolve()


def _identity(file: bytes) -> tuple[int, int] | None:
    """Return what tells a file from any other, (0, 0) where none is; None where that cannot be seen."""
    try:
        status = os.stat(file)  # noqa: PTH116 - without a Path, which would cost as much again.
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _do_nothing() -> None:
    """Stand for what is called when an environment was opened anew, until somebody wants to know."""


# Those of the parent of this process: LMDB would close an environment that nobody refers to any more.
_DISOWNED: Final[list[Environment]] = []
# Those of this process, for the moment when it forks.
_ALL: Final[weakref.WeakSet[Environment]] = weakref.WeakSet()


def _disown_all() -> None:
    """Note in a process that was forked off that all environments are its parent's."""
    for environment in list(_ALL):
        environment.disown()
        _DISOWNED.append(environment)


os.register_at_fork(after_in_child=_disown_all)


def _open_in_any_room(path: Path, *, readonly: bool, map_bytes: int) -> lmdb.Environment:
    """Open the environment with as much of ``map_bytes`` as this process may reserve.

    A reader reserves a quarter of that, for it needs the rest to work with, and can reserve more later.
    """
    wanted = map_bytes
    while True:
        try:
            opened = _open_environment(path, readonly=readonly, map_bytes=map_bytes)
        except lmdb.Error as error:
            if getattr(error, "code", 0) != errno.ENOMEM or map_bytes <= _MIN_MAP_BYTES:
                raise
            map_bytes = max(map_bytes // 4, _MIN_MAP_BYTES)
            continue
        if not readonly or map_bytes in (wanted, _MIN_MAP_BYTES):
            return opened
        opened.close()
        return _open_environment(path, readonly=readonly, map_bytes=max(map_bytes // 4, _MIN_MAP_BYTES))


def _open_environment(path: Path, *, readonly: bool, map_bytes: int) -> lmdb.Environment:
    new = not (path / "data.mdb").exists()
    environment = lmdb.open(
        # As bytes, for a path need not be UTF-8.
        os.fsencode(path),
        map_size=map_bytes,
        readonly=readonly,
        create=not readonly,
        max_dbs=_MAX_TABLES,
        max_readers=MAX_READERS,
        lib_version=LMDB_VERSION,
    )
    if new:
        sync_folder(path)
    return environment
