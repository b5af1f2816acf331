"""The schedule of a sync: what is left to fetch, what is being fetched, and what is on disk.

Workers take work here and bring back verified ranges; the writer plans transactions with them, and settles
what it has applied.  ``WorkTracker`` knows where every key of the key space is, at any time in exactly one
place:

    backlog    nobody works on it, or nothing has to be done     take()   ->  out
    out        peers fetch and verify it                         accept() ->  verified; the rest goes back
                                                                 give_back() by the last  ->  backlog
    verified   it waits for the writer                           plan()   ->  being applied
    applying   a transaction puts it on disk                     settle() ->  backlog, at its new root

What is out is with one peer, and with more once it is overdue, for others that have nothing else to do: each
of them waits for twice as long as its own work takes, see ``throughput``.  The first
verified answer is accepted and the others are called off: what has left ``out`` is never accepted again.

``Scheduler`` knows where the database stands and where it goes.  Work knows the root that its content is at.
When the pivot changes, nothing that is known is lost: what is neither out nor verified is sorted again, and
what is out or verified for an older pivot is brought to it, for it is only one step further to the new one.
Called off is only what would lead away from the new pivot.

State is touched only between checkpoints, by tasks of one trio run; nothing here blocks or does I/O.
"""

from collections.abc import Callable, Collection, Hashable, Iterable
from enum import Enum, auto
from operator import attrgetter

import trio

from manager.keyspace.range_map import RangeMap
from manager.limits import Limits
from manager.memory import ByteBudget
from manager.peers.throughput import FULL_PROGRESS, ThroughputEstimator
from manager.scheduling.assignment import (
    Assignment,
    InFlight,
    Piece,
    PlannedTransaction,
    VerificationResult,
    count,
)
from manager.scheduling.backlog import Backlog, Suspicion, Work, start_of
from manager.scheduling.checkpoint import progress_after
from manager.scheduling.pivot import PivotTracker, Target
from manager.scheduling.resume import LocalState, ResumePoint, work_of
from manager.scheduling.stats import SyncStats


class WorkTracker:
    """Where every key of the key space is: in the backlog, out, verified, or being applied.

    Args:
        max_key_bytes: The longest key of the scheme.
        limits: When work is overdue, and how large a proof may be.
        pieces: All of the key space, as the sync finds it.

    Attributes:
        backlog: What nobody works on.
        verified: What waits for the writer, in the order in which it came.
        applying: What a transaction puts on disk.
        silent: Peers that others have waited for in vain, until their next full answer.
    """

    def __init__(self, max_key_bytes: int, limits: Limits, pieces: Iterable[Work]) -> None:
        self.backlog = Backlog(max_key_bytes, limits.overdue_seconds, pieces)
        self.verified: list[Piece] = []
        self.applying: list[Piece] = []
        self.silent = set[Hashable]()
        self._limits = limits
        self._out: list[InFlight] = []

    @property
    def is_fetched(self) -> bool:
        """Whether nothing is left to ask a peer for, on the way to the present pivot."""
        return not self._out and not self.backlog

    def everything(self) -> list[Work]:
        """Return all pieces of the key space as they are on disk, ascending."""
        waiting, moving = self.backlog.pieces(), self.verified + self.applying
        if not self._out and not moving:
            return waiting
        elsewhere = [*(out.work for out in self._out), *(piece.before for piece in moving)]
        return sorted(waiting + elsewhere, key=start_of)

    def begin(self, pieces: Iterable[Work]) -> None:
        """Forget everything, and begin with other pieces; who works is called off."""
        self.call_off()
        for piece in self.applying:
            piece.budget.release(piece.memory_bytes)
        self.applying = []
        self.backlog.begin(pieces)

    # What peers do.

    def take(self, peer: Hashable, now: float, throughput: ThroughputEstimator) -> Assignment | float:
        """Return what ``peer`` shall do now, or when there may be something though nothing else happens."""
        chance = self.backlog.take(peer, now, throughput.max_bytes)
        if isinstance(chance, Work):
            out = InFlight(chance)
            self._out.append(out)
        else:
            # What others have had for longer than this peer takes, it is given as well, the oldest first.
            others = [out for out in self._out if all(each.peer != peer for each in out.assignments)]
            if not others:
                return chance
            out = min(others, key=lambda out: (not self._is_stuck(out), out.taken))
            # Where several have it and none brings it, it is more likely that none will.
            overdue_at = out.taken + throughput.hedge_seconds / len(out.assignments)
            if overdue_at > now and not self._is_stuck(out):
                return min(overdue_at, chance)
        out.taken = now
        out.assignments.append(Assignment(peer, out, now))
        return out.assignments[-1]

    def _is_stuck(self, out: InFlight) -> bool:
        """Whether only peers have some work for which others have waited in vain before."""
        return all(each.peer in self.silent for each in out.assignments)

    def awaited_until(self, assignment: Assignment) -> float:
        """Return until when an answer waits for others that have the same work, and may bring more of it."""
        # Who waits for memory may do so until this answer gives some back.
        others = [each for each in assignment.out.assignments if each.is_asked and not each.held]
        taken = [each.taken for each in others if each.peer not in self.silent]
        return max(taken, default=float("-inf")) + assignment.patience_seconds

    def give_back(self, assignment: Assignment, suspicion: Suspicion | None) -> bool:
        """Take somebody off some work, which goes back if nobody is left; return whether it was at it."""
        out = assignment.out
        # Work that was accepted, or called off, has left this list: it is no more this peer's to give back.
        if assignment not in out.assignments:
            return False
        out.assignments.remove(assignment)
        if suspicion is not None:
            out.work = out.work._replace(suspicion=suspicion)
        if not out.assignments:
            self._put_back(out)
        return True

    def clear_suspicion(self, assignment: Assignment) -> None:
        """Note that the content of some work is at its root indeed."""
        assignment.out.work = assignment.out.work._replace(suspicion=None)

    def accept(
        self, assignment: Assignment, result: VerificationResult, budget: ByteBudget, now: float
    ) -> Piece | None:
        """Move what was verified on, and put the rest back; None when another peer was faster."""
        out = assignment.out
        if result.progress >= FULL_PROGRESS:
            self.silent.discard(assignment.peer)
        if assignment not in out.assignments:
            return None
        # Taken off the list first, the caller is not cancelled, and may go on as it likes.
        out.assignments.remove(assignment)
        for other in out.assignments:
            other.is_outrun = True
            # Waited for in vain once, it is not waited for again: a follower would lose that at each update.
            if assignment.held and not other.held and other.taken + assignment.patience_seconds <= now:
                self.silent.add(other.peer)
        self._out.remove(out)
        _cancel(out)
        work, share = out.work, out.work.share
        # Shares are handed on, never made: what the rest has not got was done, up to rounding.
        if result.rest:
            share = max(share - sum(piece.share for piece in result.rest), 0.0)
            self.backlog.put(result.rest)
        # A proof of one large pair says that no other fits into it, not how large the others are.
        content_bytes = min(result.content_bytes, self._limits.max_bytes)
        weight = max(result.filling, content_bytes / self._limits.max_bytes)
        self.backlog.learn(work.root, result.filling, content_bytes, share, weight)
        piece = Piece(result, Work(work.start, result.verified.end, share, work.root), budget, now)
        self.verified.append(piece)
        return piece

    def call_off(self, root: bytes | None = None) -> None:
        """Put back what is out, or verified, and at ``root``; None for all of it, whatever it is at.

        Whoever works on it ends at its next checkpoint, and is accepted no more; of what is verified, the
        memory is given back.  What is being applied goes on.
        """
        for out in list(self._out):
            if root is None or out.work.root == root:
                self._put_back(out)
        verified, self.verified = self.verified, []
        for piece in verified:
            if root is None or piece.before.root == root:
                self.backlog.put([piece.before])
                piece.budget.release(piece.memory_bytes)
            else:
                self.verified.append(piece)

    def call_off_peers(self) -> None:
        """Put back what is out, and nothing else."""
        for out in list(self._out):
            self._put_back(out)

    def _put_back(self, out: InFlight) -> None:
        self._out.remove(out)
        _cancel(out)
        self.backlog.put([out.work])

    # What the writer does.

    def held_bytes(self, budget: ByteBudget) -> int:
        """Return how much memory in a budget is that of what waits for the writer, or is being applied."""
        return sum(piece.memory_bytes for piece in self.verified + self.applying if piece.budget is budget)

    def begin_to_apply(self) -> list[Piece]:
        """Return what the next transaction holds: all of the root that came first, by key."""
        root = self.verified[0].root
        pieces = [piece for piece in self.verified if piece.root == root]
        self.applying = sorted(pieces, key=attrgetter("before.start"))
        self.verified = [piece for piece in self.verified if piece.root != root]
        return self.applying

    def postpone(self) -> None:
        """Note that what was to be applied is not on disk, and waits again, before what came after it."""
        self.verified, self.applying = self.applying + self.verified, []

    def settle(self) -> None:
        """Note that what was to be applied is on disk, and give its memory back."""
        pieces, self.applying = self.applying, []
        for piece in pieces:
            self.backlog.put([piece.before._replace(root=piece.root)])
            piece.budget.release(piece.memory_bytes)


def _cancel(out: InFlight) -> None:
    """Call everybody off some work."""
    assignments, out.assignments = out.assignments, []
    for assignment in assignments:
        assignment.scope.cancel()


class WriterStep(Enum):
    """What the writer is to do next."""

    COLLECT = auto()  # wait for more, or apply what is verified
    RENUMBER = auto()  # the head is the pivot, but for the number of its revision
    ROLL_BACK = auto()  # to give up what was applied since the head is the shortest way to the pivot
    BEGIN_ANEW = auto()  # all is said to be at the pivot, and yet the database does not show it


class Scheduler:
    """Where the database stands, where it goes, and who fetches what on the way.

    Args:
        start: Where the sync begins.
        target: Where it goes; None while nobody has said it.
        limits: What it may use.
        now: The time, in trio's seconds.

    Attributes:
        pivots: The target, and the root that is fetched.
        work: Where every key is.
        local: What the database shows.
        ranges: What is on disk.
        stats: What was done.
        is_closed: Whether workers are to end.
    """

    def __init__(self, start: ResumePoint, target: Target | None, limits: Limits, now: float) -> None:
        checkpoint = start.checkpoint
        self.pivots = PivotTracker(limits.pivot_seconds)
        self.work = WorkTracker(checkpoint.ranges.max_key_bytes, limits, work_of(checkpoint))
        self.local = start.local
        self.ranges = checkpoint.ranges
        counts = checkpoint.keys, checkpoint.changes, checkpoint.bytes
        self.stats = SyncStats(*counts, checkpoint.expected_keys, now)
        self.is_closed = False
        # Workers, and everybody else who waits for something to change.
        self._idle, self._waiting = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        if target is not None:
            self.aim(target, now)

    @property
    def is_done(self) -> bool:
        """Whether the database shows the newest target, its number too, and nothing leads elsewhere."""
        target, local = self.pivots.target, self.local
        # A transaction under way may be leading away from a head that has become the target meanwhile.
        if target is None or local.root != target.root or not local.is_at_rest or self.work.applying:
            return False
        return not local.lacks_number(target)

    @property
    def wants_roll_back(self) -> bool:
        """Whether the shortest way to the pivot is to give up what was applied since the head."""
        pivot, local = self.pivots.pivot, self.local
        return pivot is not None and not local.is_at_rest and local.root == pivot.root

    def measure(self, forgotten: Collection[bytes]) -> bool:
        """Bring the share of ``stats`` up to date; return whether there is content to be copied in full.

        It costs a look at every piece, so only who shows it asks; ``forgotten`` as in ``SyncStats.look``.
        """
        pivot = self.pivots.pivot
        return self.stats.look(self.work.everything(), None if pivot is None else pivot.root, forgotten)

    # The pivot.

    def aim(self, target: Target, now: float) -> None:
        """Note the newest target; it becomes the pivot at once when nothing else is under way."""
        self.pivots.aim(target)
        shows_target = self.local.is_at_rest and self.local.root == target.root
        if not self.pivots.is_newest and (shows_target or self._is_at_pivot()):
            self.advance(now)
            if shows_target:
                self.reach(self.local, now)
        else:
            # The pivot may have another number now, or another time at which it gives way.
            self.wake()

    def _is_at_pivot(self) -> bool:
        pivot = self.pivots.pivot
        return pivot is None or (self.local.is_at_rest and self.local.root == pivot.root)

    def abandon_pivot(self, now: float) -> None:
        """Make the newest target the pivot, and call off what is asked for at the present one.

        Whoever announced it may never answer, and nobody else is to wait for that.
        """
        self.work.call_off_peers()
        self.advance(now)

    def follow_time(self, now: float) -> None:
        """Let the pivot give way when it is time to, which is at ``pivots.gives_way_at``."""
        if self.pivots.gives_way_at <= now:
            # Where all was brought to a pivot once, only the changes since are left, and patience helps.
            is_last_step = not any(map(self.work.backlog.is_unsynced, self.work.everything()))
            self.advance(now, more_patience=is_last_step)

    def advance(self, now: float, *, more_patience: bool = False) -> None:
        """Make the newest target the pivot, for the present one is reached, or given up."""
        was_reached = self._is_at_pivot()
        if was_reached:
            self.stats.begin()
        self.pivots.advance(now, was_reached=was_reached, more_patience=more_patience)
        assert self.pivots.pivot is not None
        # What is called off goes back first, so that it is sorted for the new pivot with the rest.
        self._call_off_what_leads_away()
        self.work.backlog.set_pivot(self.pivots.pivot.root)
        self.wake()

    def _call_off_what_leads_away(self) -> None:
        """Call off what is at the pivot already, or all where the pivot is what the database shows."""
        if self.pivots.pivot is not None:
            self.work.call_off(None if self.wants_roll_back else self.pivots.pivot.root)

    # For workers.

    async def take(
        self,
        peer: Hashable,
        ready_at: Callable[[], float],
        leaving: Callable[[], bool],
        throughput: ThroughputEstimator,
    ) -> Assignment | None:
        """Wait for work, and return it; None when there will be none, or the worker leaves.

        Cancelled, it took nothing.

        Args:
            peer: Who is to be asked.
            ready_at: When the worker may take work, in trio's seconds; asked again when there may be work.
            leaving: Whether it will never take work again; asked again after ``wake_workers``.
            throughput: The way to the peer, which says how much it will be asked for, and when it is given
                what others have.
        """
        while not self.is_closed and not leaving():
            now = trio.current_time()
            wake_at = ready_at()
            if wake_at <= now:
                # Both end with a call that wakes everybody.
                is_pausing = self.pivots.pivot is None or self.wants_roll_back
                chance = float("inf") if is_pausing else self.work.take(peer, now, throughput)
                if isinstance(chance, Assignment):
                    return chance
                wake_at = chance
            with trio.move_on_at(wake_at):
                await self._idle.park()
        return None

    def give_back(self, assignment: Assignment, suspicion: Suspicion | None = None) -> None:
        """Put work back that was taken and not done, unless another peer works on it or has done it."""
        if self.work.give_back(assignment, suspicion):
            self.wake()

    def accept(self, assignment: Assignment, result: VerificationResult, budget: ByteBudget) -> Piece | None:
        """Put back the rest of some work, and return what is to be applied; None if another was faster.

        The other peers that work on it are called off; the scope of the caller is left alone.

        Args:
            assignment: What was taken.
            result: What came, from the start of the work on, and what is left.
            budget: Where its memory is reserved; it is given back once it is on disk, or called off.
        """
        now = trio.current_time()
        piece = self.work.accept(assignment, result, budget, now)
        if piece is not None:
            self.pivots.count_answer(piece.root, now)
            self.wake()
        return piece

    def close(self) -> None:
        """Let every worker end."""
        self.is_closed = True
        self.wake()

    def wake(self) -> None:
        """Let everybody look again; workers only where there is any work, or they are to end."""
        self._waiting.unpark_all()
        if self.is_closed or not self.work.is_fetched:
            self._idle.unpark_all()

    def wake_workers(self) -> None:
        """Let all workers look again, for some are to end."""
        self._idle.unpark_all()

    async def wait_until(self, deadline: float) -> None:
        """Wait until something changes, at most until ``deadline``, in trio's seconds."""
        with trio.move_on_at(deadline):
            await self._waiting.park()

    # For the writer.

    def next_step(self) -> WriterStep:
        """Return what the writer is to do next."""
        pivot, local = self.pivots.pivot, self.local
        if pivot is None:
            return WriterStep.COLLECT
        if local.root != pivot.root:
            # After damage, or where a transaction did less than it was told, the map may say too much.
            return WriterStep.BEGIN_ANEW if self.ranges.is_at(pivot.root) else WriterStep.COLLECT
        if not local.is_at_rest:
            return WriterStep.ROLL_BACK
        return WriterStep.RENUMBER if local.lacks_number(pivot) else WriterStep.COLLECT

    def plan(self) -> PlannedTransaction:
        """Begin to apply what is verified for one root; at least one piece is."""
        pieces = self.work.begin_to_apply()
        ranges = self.ranges.copy()
        for piece in pieces:
            ranges.set(piece.before.start, piece.before.end, piece.root)
        pivot, target, progress = self.pivots.pivot, self.pivots.target, None
        assert pivot is not None
        assert target is not None
        if not ranges.is_at(pivot.root):
            progress = progress_after(pieces, ranges, target, self.stats, self.work.everything())
        return PlannedTransaction(pieces, ranges, progress, self.pivots.revision_of(pieces[0].root))

    def postpone(self) -> None:
        """Note that what was to be applied is not on disk, and waits for the writer again."""
        self.work.postpone()
        # The pivot may have moved on meanwhile.
        self._call_off_what_leads_away()

    def settle(self, transaction: PlannedTransaction, local: LocalState, now: float) -> None:
        """Note that what ``plan`` returned is on disk, and what the database shows now."""
        self.work.settle()
        self.ranges = transaction.ranges
        self.stats.add(*count(transaction.pieces), now)
        self._look_at(local, now)

    def _look_at(self, local: LocalState, now: float) -> None:
        """Note what the database shows now."""
        self.local = local
        if local.is_at_rest and local.root is not None:
            self.reach(local, now)
        else:
            self.wake()

    def reach(self, local: LocalState, now: float) -> None:
        """Note that the content is at rest at the head: all of it is at one root."""
        assert local.root is not None
        self.local = local
        self.ranges = RangeMap(self.ranges.max_key_bytes, local.root)
        is_at_pivot = self._is_at_pivot()
        if is_at_pivot:
            self.stats.finish()
            self.work.call_off()
        # Where it is an older pivot, what is out and verified is used all the same.
        self.work.backlog.reach(local.root)
        if is_at_pivot and not self.pivots.is_newest:
            self.advance(now)
        else:
            self.wake()

    def begin_again(self, start: ResumePoint) -> None:
        """Begin where the database stands, for what the scheduler has of it is not true."""
        self.ranges = start.checkpoint.ranges
        self.work.begin(work_of(start.checkpoint))
        self._look_at(start.local, trio.current_time())
