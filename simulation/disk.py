"""The disks of the nodes: stores in temporary folders, watched writes, and copies that stand for crashes.

A copy of ``data.mdb`` that is taken between two transactions, or inside of one before its commit, is what a
machine finds that lost its power at that moment.  The folder is in memory where the system allows it, so that
nothing waits for a real disk.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

import trio

import merkledb
from merkledb import Database, DatabaseFull, Scheme

_MEMORY = Path("/dev/shm")  # noqa: S108 - it is used only where it exists.
# What must be free there: containers often have 64 MB, which a few stores of a test would fill.
_MEMORY_BYTES = 1 << 30


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for all stores of a simulation, in memory where there is room for them."""
    is_roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    where = _MEMORY if is_roomy else None
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=where) as folder:
        yield Path(folder)


class Moment(Enum):
    """When a store crashes, or finds no room."""

    BEFORE = auto()  # before the transaction begins
    INSIDE = auto()  # all is written, nothing is committed
    AFTER = auto()  # it is committed, and nobody knows
    FULL = auto()  # it cannot be committed, for the disk is full


class Disk:
    """The disk of one node.

    Args:
        folder: For everything on it.
        written: Called after each write.
        applied: Called with each piece that is about to be applied.
        crashed: Called when a trap has sprung; the node has to stop, and nothing that it still writes counts.

    Attributes:
        full_until: Until when no write finds room, in trio's seconds.
    """

    def __init__(
        self,
        folder: Path,
        written: Callable[[Database], None],
        applied: Callable[[object], None],
        crashed: Callable[[Moment], None],
    ) -> None:
        self._folder = folder
        self._written = written
        self._applied = applied
        self._crashed = crashed
        self._generation = 0
        # How many writes still pass, and when in the write after them something goes wrong.
        self._trap: tuple[int, Moment] | None = None
        self.full_until = 0.0

    @property
    def _store(self) -> Path:
        return self._folder / str(self._generation)

    def open(
        self, scheme: Scheme, history: int, history_seconds: float | None, clock: Callable[[], float]
    ) -> Database:
        """Open the store, and make it when there is none."""
        database = merkledb.open(
            self._store,
            scheme=scheme,
            history=history,
            history_seconds=history_seconds,
            clock=clock,
            map_bytes=64 << 20,
        )
        self._watch(database)
        return database

    def wipe(self) -> None:
        """Lose everything: the next store is an empty one."""
        shutil.rmtree(self._store, ignore_errors=True)
        self._generation += 1

    def freeze(self) -> None:
        """Let the next store begin with what is on the disk now, whatever is still written."""
        before = self._store
        self._generation += 1
        self._store.mkdir(parents=True)
        if (before / "data.mdb").exists():
            shutil.copyfile(before / "data.mdb", self._store / "data.mdb")

    def forget_old(self) -> None:
        """Remove what earlier lives have left."""
        for folder in self._folder.iterdir():
            if folder != self._store:
                shutil.rmtree(folder)

    def _watch(self, database: Database) -> None:
        store: Any = database._store
        write = store.write
        generation = self._generation

        @contextlib.contextmanager
        def watched() -> Iterator[Any]:
            trap = self._next_trap() if generation == self._generation else None
            if trap is Moment.BEFORE:
                self._crash(trap)
            with write() as transaction:
                yield transaction
                if trap is Moment.FULL or trio.current_time() < self.full_until:
                    raise DatabaseFull(str(self._store), "the simulated disk is full")
                if trap is Moment.INSIDE:
                    self._crash(trap)
            if trap is Moment.AFTER:
                self._crash(trap)
            self._written(database)

        apply = database.apply

        def noted(verified: Any, **others: Any) -> bytes:
            for each in verified if isinstance(verified, Sequence) else [verified]:
                self._applied(each)
            return apply(verified, **others)

        store.write = watched
        setattr(database, "apply", noted)  # noqa: B010 - a method is replaced on purpose.

    def set_trap(self, writes: int, moment: Moment | None) -> None:
        """Let something go wrong at a write.

        Args:
            writes: How many writes are let pass before.
            moment: What goes wrong, and when; None: nothing does.
        """
        self._trap = None if moment is None else (writes, moment)

    def _next_trap(self) -> Moment | None:
        """Count a write; return what goes wrong with it."""
        if self._trap is None:
            return None
        writes, moment = self._trap
        self._trap = (writes - 1, moment) if writes else None
        return None if writes else moment

    def _crash(self, moment: Moment) -> None:
        self.freeze()
        self._crashed(moment)
