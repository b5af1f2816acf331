"""Opening a database: its store, its scheme, and how much history it retains."""

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from merkledb.arguments import (
    require_callable,
    require_instance,
    require_int,
    require_number,
    require_whole,
)
from merkledb.database import Database
from merkledb.errors import CorruptDatabase, SchemeMismatch
from merkledb.formats.scheme import Scheme
from merkledb.history.revisions import (
    MAX_HISTORY,
    MAX_TIME,
    Retention,
    first_rows,
    put_retention,
    read_retention,
    require_time,
)
from merkledb.kernel.choice import kernel_name
from merkledb.storage.store import DEFAULT_MAP_BYTES, FORMAT, LMDB_VERSION, Store, StoreTransaction


def open(  # noqa: A001 - the package's verb, used as merkledb.open
    path: str | os.PathLike[str],
    *,
    scheme: Scheme | None = Scheme(),  # noqa: B008 - immutable
    history: int | None = None,
    history_seconds: float | None = None,
    readonly: bool = False,
    create: bool = True,
    map_bytes: int = DEFAULT_MAP_BYTES,
    clock: Callable[[], float] = time.time,
) -> Database:
    """Open the database in the folder ``path``; make it when there is none.

    Args:
        path: The folder.  One process may have it open for writing, any number for reading.
        scheme: The scheme it must have; None accepts the one it has, and makes a new one with Scheme().
        history: How many revisions are retained, the head included, at least 1; the store remembers it.  None
            leaves it as it is; a new store retains 256.
        history_seconds: Up to which age revisions are retained; the store remembers it.  The newest 8 stay
            whatever their age, as far as ``history`` allows, and what is too old goes when two commits in a
            row find it so: the clock may be wrong.  None leaves it as it is; a new store retains revisions
            whatever their age.
        readonly: Open for reading only.
        create: Make the database when there is none; otherwise that is an error.
        map_bytes: The most that the file may ever grow to.  Address space, not disk: the file grows with
            its content.
        clock: Tells the time of new revisions, in seconds since 1970.

    Raises:
        TypeError: An argument is of another type than these.
        ValueError: The path is empty or holds a NUL character, or a number is out of its bounds.
        ImplausibleTime: The clock tells a time that no calendar has.
        NotADatabase: Nothing is there and it may not be made, or something else is there.
        SchemeMismatch: It has another scheme.
        FormatTooNew, FormatTooOld: Another release made it.
        DatabaseInUse: It is open for writing elsewhere.
        DatabaseFull: There is no room for its first pages.
        KernelMissing: The environment wants a kernel that cannot be had.
    """
    if scheme is not None:
        require_instance("scheme", scheme, Scheme)
    _require_retention(history, history_seconds)
    require_int("map_bytes", map_bytes, 1, sys.maxsize)
    require_callable("clock", clock)
    folder = _folder_at(path)
    kernel_name()
    rows = first_rows(Retention(), require_time(clock()))
    rows[b"meta"] |= _first_meta(scheme or Scheme())
    store = Store(folder, rows, readonly=readonly, create=create, map_bytes=map_bytes)
    try:
        found = _read_scheme(store)
        if scheme is not None and found != scheme:
            raise SchemeMismatch(str(store.path), scheme, found)
        if not readonly:
            _retain(store, found, history, history_seconds)
    except BaseException:
        store.close()
        raise
    return Database(store, found, clock)


def _folder_at(path: object) -> Path:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        raise TypeError(f"a path is a str or a Path, not {type(path).__name__}")
    if not name or "\0" in name:
        raise ValueError(f"a path is not empty and holds no NUL character, as {name!r:.100} does")
    return Path(name)


def _require_retention(history: object, history_seconds: object) -> None:
    if history is not None and not 1 <= require_whole("history", history) <= MAX_HISTORY:
        raise ValueError(f"a history holds 1 to {MAX_HISTORY} revisions, not {history}")
    if history_seconds is not None:
        seconds = require_number("history_seconds", history_seconds)
        if not 0 <= seconds <= MAX_TIME and seconds != math.inf:
            raise ValueError(f"a history holds 0 to {MAX_TIME} seconds, or infinity, not {seconds}")


def _retain(store: Store, scheme: Scheme, history: int | None, history_seconds: float | None) -> None:
    """Store what is to be retained, where that is not what the store knows."""
    with store.read() as transaction:
        known = read_retention(StoreTransaction(store, transaction, scheme))
    wanted = Retention(
        known.revisions if history is None else history,
        known.seconds if history_seconds is None else history_seconds,
    )
    if wanted != known:
        with store.write() as transaction:
            put_retention(StoreTransaction(store, transaction, scheme), wanted)


def _first_meta(scheme: Scheme) -> dict[bytes, bytes]:
    """Return what else is in the meta table of a new store."""
    return {
        b"format": bytes([FORMAT]),
        b"scheme": f"{scheme.hasher}/{scheme.branch_factor}".encode(),
        b"lmdb": str(LMDB_VERSION).encode(),
    }


def _read_scheme(store: Store) -> Scheme:
    with store.read() as transaction:
        row = transaction.get(b"scheme", b"", db=store.meta)
    try:
        hasher, branch_factor = row.decode().split("/")
        return Scheme(hasher, int(branch_factor))  # type: ignore[arg-type] # Scheme checks the name itself.
    except ValueError as error:
        raise CorruptDatabase(str(store.path), f"the scheme {row!r} is unknown") from error
