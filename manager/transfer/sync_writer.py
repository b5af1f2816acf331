"""The one writer of a sync: collects verified ranges, and applies many of them in one transaction.

The range map goes to disk in the same transaction as the content that it describes, so a crash at any moment
leaves both before or both after.  Ranges are applied in the order of their keys: the store fills its pages
best so.  A transaction holds ranges of one root only: then it is clear which root the content has reached
with it, and under which revision.

A transaction begins when enough is collected, when the oldest range has waited long enough, when somebody
needs the memory that the ranges hold, or when nothing more will come.  Its thread is never abandoned:
cancelled, the writer lets the transaction finish.

Where the machine has no room for a write, a sync that follows keeps what waits, and tries again after a pause
that grows: a full disk is emptied some day, and until then what is here can be read and served.

Nobody else is to write meanwhile.  Before each transaction the root is compared with what the last one left;
where it differs, nothing is applied, and the sync begins again from what is there.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import getLogger
from random import Random
from typing import Final

import trio

from manager.errors import ConcurrentWrite, LocalContent, MachineExhausted, WrongRoot
from manager.executor import SerialExecutor
from manager.limits import Limits
from manager.memory import ByteBudget, LargeValueLane
from manager.peers.health import Backoff
from manager.scheduling.assignment import PlannedTransaction, Verified
from manager.scheduling.resume import (
    LocalState,
    ResumePoint,
    load_resume_point,
    local_state_of,
    require_replaceable,
)
from manager.scheduling.scheduler import Scheduler, WriterStep
from merkledb import Database, DatabaseFull, Revision, StaleChanges, TooManyReaders

# What the machine lacks today and may have tomorrow: disk, quota or map; a reader's place; memory; threads.
NO_ROOM: Final = (DatabaseFull, TooManyReaders, MachineExhausted)

_logger = getLogger(__name__)


class SyncWriter:
    """Applies verified ranges to a database.

    Args:
        database: Written by nobody else meanwhile.
        scheduler: Of the sync.
        limits: How much goes into a transaction.
        executor: Where transactions run.
        replace: Whether content that was written locally may be replaced.
        applied: Called after every transaction, with the head if it is new.
        no_room: Called with why the machine has no room for a write, which is then tried again, and with an
            empty sentence when it was done; None where that ends the sync.
        random: Where the jitter of these pauses comes from.

    Attributes:
        budget: The memory for all that is fetched and not on disk yet, but for large pairs.
        large_values: Who fetches a large pair, and the memory for it until it is on disk.
        tip_root: The root that the last transaction left; read and written where transactions run.
    """

    def __init__(
        self,
        database: Database,
        scheduler: Scheduler,
        limits: Limits,
        executor: SerialExecutor,
        *,
        replace: bool,
        applied: Callable[[Revision | None], None],
        no_room: Callable[[str], None] | None,
        random: Random,
    ) -> None:
        self._database = database
        self._scheduler = scheduler
        self._limits = limits
        self.budget = ByteBudget(limits.buffered_bytes, scheduler.wake)
        self.large_values = LargeValueLane(limits.request_timeout_seconds, scheduler.wake)
        self.tip_root = scheduler.local.tip_root
        self._executor = executor
        self._replace = replace
        self._applied = applied
        self._no_room = no_room
        self._pauses = Backoff(limits.backoff_seconds, limits.max_backoff_seconds, random)
        self._is_written_elsewhere = False
        self._has_gone_stale = False
        self._began_anew = False

    @property
    def requested_bytes(self) -> int:
        """The part of ``budget`` that is reserved for answers, which are in flight or being verified."""
        return self.budget.reserved_bytes - self._scheduler.work.held_bytes(self.budget)

    def tip_root_now(self) -> bytes:
        """Return the root that the last transaction left, where transactions run."""
        return self.tip_root

    def note_concurrent_write(self) -> None:
        """Look again at what the database holds, for somebody else has written to it."""
        self._is_written_elsewhere = True
        self._scheduler.wake()

    async def run(self) -> None:
        """Apply what comes until the scheduler is closed.

        Cancelled, it lets the transaction under way finish; what waits is given up.

        Raises:
            LocalContent: Somebody has written to the database, which may not be replaced.
            WrongRoot: All was applied, twice, and the root is not the pivot.
            MerkleDBError: The database cannot be written; nothing of the failed transaction is in it.
        """
        while not self._scheduler.is_closed:
            try:
                await self._do_next_step()
            except NO_ROOM as error:
                if self._no_room is None:
                    raise
                self._no_room(str(error))
                await trio.sleep(self._pauses.failed())

    async def _do_next_step(self) -> None:
        """Write what is to be written now; where there is nothing, wait until something changes."""
        step, due_at = self._scheduler.next_step(), self._due_at()
        # Where the scheduler is wrong about the database, every other step would build on that.
        if self._is_written_elsewhere:
            await self._look_again()
        elif self._has_gone_stale or step is WriterStep.BEGIN_ANEW:
            await self._begin_anew()
        elif step is WriterStep.ROLL_BACK:
            await self._roll_back()
        elif step is WriterStep.RENUMBER:
            await self._renumber()
        elif due_at <= trio.current_time():
            await self._apply()
        else:
            await self._scheduler.wait_until(due_at)
            return
        if self._pauses.failures and self._no_room is not None:
            self._no_room("")
        self._pauses.succeeded()

    # When.

    def _due_at(self) -> float:
        """Return when what is collected is to be applied, in trio's seconds, as far as can be foreseen."""
        work = self._scheduler.work
        if not work.verified:
            return float("inf")
        if (
            # The cheapest question comes first.
            work.is_fetched
            or sum(piece.memory_bytes for piece in work.verified) >= self._limits.transaction_bytes
            or self._is_withholding(self.budget)
            or self._is_withholding(self.large_values.budget)
        ):
            return 0.0
        return min(piece.since for piece in work.verified) + self._limits.transaction_seconds

    def _is_withholding(self, budget: ByteBudget) -> bool:
        """Whether somebody waits for memory of which a good part is held here.

        What requests in flight hold, no transaction can free; they end, and then all of it is here.
        """
        return budget.is_starving and self._scheduler.work.held_bytes(budget) * 4 >= budget.reserved_bytes

    # What.

    async def _apply(self) -> None:
        """Apply what is verified for one root."""
        before, planned = self._scheduler.local, self._scheduler.plan()
        try:
            local = await self._executor.run(partial(self._transaction, planned))
        except ConcurrentWrite as error:
            _logger.warning("%s: %s", self._database.path, error)
            self._is_written_elsewhere = True
        except StaleChanges as error:
            _logger.warning("%s: %s", self._database.path, error)
            self._has_gone_stale = True
        except NO_ROOM:
            # The transaction was undone, so the pieces wait as before, and so does their memory.
            self._scheduler.postpone()
            raise
        else:
            self._scheduler.settle(planned, local, trio.current_time())
            self._note(before, local)

    def _note(self, before: LocalState, after: LocalState) -> None:
        """Tell what has become of the head."""
        if after.is_at_rest:
            self._began_anew = False
        self._applied(after.head if after.is_at_rest and after.head != before.head else None)

    async def _roll_back(self) -> None:
        """Return to the head, which is the pivot again."""
        local = await self._executor.run(self._roll_back_now)
        self._scheduler.reach(local, trio.current_time())
        self._applied(None)

    async def _renumber(self) -> None:
        """Let the head have the number under which its root is the pivot."""
        pivot, before = self._scheduler.pivots.pivot, self._scheduler.local
        assert pivot is not None
        assert pivot.revision is not None
        try:
            local = await self._executor.run(partial(self._renumber_now, pivot.revision))
        except ConcurrentWrite as error:
            _logger.warning("%s: %s", self._database.path, error)
            self._is_written_elsewhere = True
        else:
            self._scheduler.reach(local, trio.current_time())
            self._note(before, local)

    async def _look_again(self) -> None:
        """Begin again with what the database holds, for it is not what we left there."""
        start = await self._executor.run(self._resume_point)
        self._is_written_elsewhere = self._has_gone_stale = False
        self._scheduler.begin_again(start)
        self._applied(None)

    async def _begin_anew(self) -> None:
        """Roll back and begin again, for what was believed of the content is not true."""
        pivot = self._scheduler.pivots.pivot
        assert pivot is not None
        error = WrongRoot(pivot.root, self.tip_root)
        if self._began_anew:
            # A second time, no further attempt is going to help.
            raise error
        _logger.warning("%s: %s", self._database.path, error)
        start = await self._executor.run(self._resume_point_anew)
        self._began_anew, self._has_gone_stale = True, False
        self._scheduler.begin_again(start)

    # In a thread, for it touches the database.

    def _transaction(self, planned: PlannedTransaction) -> LocalState:
        if self._database.tip_root != self.tip_root:
            raise ConcurrentWrite
        if self._database.written_locally and not self._replace:
            # A target that was named, or announced, after the sync had begun has not been asked this yet.
            raise LocalContent(self.tip_root)
        verified = [piece.take() for piece in planned.pieces]
        try:
            self.tip_root = self._database.apply(
                verified, progress=planned.progress, revision=planned.revision
            )
        except StaleChanges:
            if self._database.tip_root != self.tip_root:
                raise ConcurrentWrite from None
            raise
        except (*NO_ROOM, MemoryError):
            for piece, each in zip(planned.pieces, verified, strict=True):
                piece.put_back(each)
            raise
        finally:
            _free(verified)
        try:
            local = local_state_of(self._database)
            if local.is_at_rest and planned.progress is not None:
                # What was applied stands.  At rest nobody reads the progress, and the next write replaces it.
                with suppress(DatabaseFull):
                    self._database.set_progress(None)
        except (*NO_ROOM, MemoryError) as error:
            # What was applied is on disk and must not be applied again, so the next step looks what is there.
            raise ConcurrentWrite from error
        return local

    def _renumber_now(self, revision: int) -> LocalState:
        if self._database.tip_root != self.tip_root:
            raise ConcurrentWrite
        if not self._database.written_locally:
            self._database.renumber(revision)
        return local_state_of(self._database)

    def _roll_back_now(self) -> LocalState:
        self._database.roll_back()
        self.tip_root = self._database.tip_root
        return local_state_of(self._database)

    def _resume_point_anew(self) -> ResumePoint:
        self._database.roll_back()
        return self._resume_point()

    def _resume_point(self) -> ResumePoint:
        target = self._scheduler.pivots.target
        if target is not None:
            require_replaceable(self._database, target, replace=self._replace)
        self.tip_root = self._database.tip_root
        return load_resume_point(self._database)


def _free(verified: list[Verified]) -> None:
    """Free what was applied, piece by piece, and let the event loop have the interpreter in between."""
    while verified:
        verified.pop()
        time.sleep(0)
