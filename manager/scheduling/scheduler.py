"""The books of a sync: what is left to fetch, what is being fetched, and what is on disk.

Workers take work here and bring back verified ranges; the writer settles what it has applied.  Every key of
the key space is at any time in exactly one place:

    backlog    nobody works on it, or nothing has to be done     take()   ->  out
    out        peers fetch and verify it                         accept() ->  verified; the rest goes back
                                                                 give_back() by the last  ->  backlog
    verified   it waits for the writer                           plan()   ->  being applied
    applying   a transaction puts it on disk                     settle() ->  backlog, at its new root

What is out is with one peer, and with more once it is overdue, for others that have nothing else to do: each
of them waits for twice as long as its own work takes, see ``throughput``.  The first
verified answer is accepted and the others are called off: what has left ``out`` is never accepted again.

Work knows the root that its content is at.  When the pivot changes, nothing that is known is lost: what is
neither out nor verified is sorted again, and what is out or verified for an older pivot is brought to it, for
it is only one step further to the new one.  Called off is only what would lead away from the new pivot.

State is touched only between checkpoints, by tasks of one trio run; nothing here blocks or does I/O.
"""

from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter

import trio

from manager.keyspace.range_map import RangeMap
from manager.limits import Limits
from manager.peers.throughput import ThroughputEstimator
from manager.scheduling.assignment import Assignment, InFlight, Piece, VerificationResult, count
from manager.scheduling.backlog import Backlog
from manager.scheduling.checkpoint import MAX_CHECKPOINT_RANGES, Checkpoint, encode_checkpoint, shares_of
from manager.scheduling.pivot import PivotTracker, Target
from manager.scheduling.resume import LocalState, ResumePoint, work_of
from manager.scheduling.work import Suspicion, Work, start_of
from manager.status.stats import SyncStats


class Scheduler:
    """The books of one sync.

    Args:
        start: Where the sync begins.
        target: Where it goes; None while nobody has said it.
        limits: What it may use.
        now: The time, in trio's seconds.

    Attributes:
        pivots: The target, and the root that is fetched.
        local: What the database shows.
        ranges: What is on disk.
        stats: What was done.
        is_closed: Whether nobody is to take work any more.
    """

    def __init__(self, start: ResumePoint, target: Target | None, limits: Limits, now: float) -> None:
        checkpoint = start.checkpoint
        self.pivots = PivotTracker(limits.pivot_seconds)
        self.local = start.local
        self.ranges = checkpoint.ranges
        self.stats = SyncStats(
            checkpoint.keys, checkpoint.changes, checkpoint.bytes, checkpoint.expected_keys, now
        )
        self.is_closed = False
        self._limits = limits
        self._backlog = Backlog(checkpoint.ranges.max_key_bytes, limits.overdue_seconds)
        self._out: list[InFlight] = []
        self._verified: list[Piece] = []
        self._applying: list[Piece] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._backlog.begin(work_of(checkpoint))
        if target is not None:
            self.aim(target, now)

    @property
    def is_fetched(self) -> bool:
        """Whether nothing is left to ask a peer for, on the way to the present pivot."""
        return not self._backlog and not self._out

    @property
    def is_done(self) -> bool:
        """Whether the database shows the newest target, its number too, and nothing leads elsewhere."""
        target, local = self.pivots.target, self.local
        if target is None or self._applying or not local.is_at_rest:
            return False
        return local.root == target.root and not local.lacks_number(target)

    @property
    def wants_number(self) -> bool:
        """Whether the head is the pivot, but for the number of its revision."""
        pivot = self.pivots.pivot
        return pivot is not None and not self._applying and self.local.lacks_number(pivot)

    @property
    def wants_roll_back(self) -> bool:
        """Whether the shortest way to the pivot is to give up what was applied since the head."""
        pivot, local = self.pivots.pivot, self.local
        return pivot is not None and not local.is_at_rest and local.root == pivot.root

    @property
    def is_untrue(self) -> bool:
        """Whether all is said to be at the pivot, and yet the database does not show it."""
        pivot = self.pivots.pivot
        return pivot is not None and self.ranges.is_at(pivot.root) and self.local.root != pivot.root

    @property
    def copies_in_full(self) -> bool:
        """Whether there is content of which nothing is known."""
        return any(work.root is None for work in self._everything())

    # The pivot.

    def aim(self, target: Target, now: float) -> None:
        """Note the newest target; it becomes the pivot at once when nothing else is under way."""
        self.pivots.aim(target)
        if self.pivots.is_newest:
            # The pivot may have come back under another number.
            self.wake()
            return
        if self.local.is_at_rest and self.local.root == target.root:
            self._advance(now)
            self.reach(self.local, now)
        elif self._is_at_pivot():
            self._advance(now)
        self.wake()

    def _is_at_pivot(self) -> bool:
        pivot = self.pivots.pivot
        return pivot is None or (self.local.is_at_rest and self.local.root == pivot.root)

    def give_up_pivot(self, now: float) -> None:
        """Make the newest target the pivot, for nobody has the present one."""
        self._advance(now)
        self.wake()

    def abandon_pivot(self, now: float) -> None:
        """Make the newest target the pivot, and call off what is asked for at the present one.

        Whoever announced it may never answer, and nobody else is to wait for that.
        """
        for out in list(self._out):
            self._call_off(out)
            self._backlog.put([out.work])
        self.give_up_pivot(now)

    def follow_time(self, now: float) -> None:
        """Let the pivot give way when it is time to."""
        if self.pivots.gives_way_at <= now:
            self._advance(now, is_last_step=not any(map(self._backlog.is_unsynced, self._everything())))

    def _advance(self, now: float, *, is_last_step: bool = False) -> None:
        if self._is_at_pivot():
            self.stats.begin()
            self.pivots.excuse(now)
        self.pivots.advance(now, more_patience=is_last_step)
        self._call_off_what_leads_away()
        assert self.pivots.pivot is not None
        self._backlog.set_pivot(self.pivots.pivot.root)
        self.wake()

    def _call_off_what_leads_away(self) -> None:
        pivot = self.pivots.pivot
        root = pivot.root if pivot is not None else None
        for out in [out for out in self._out if out.work.root == root or self.wants_roll_back]:
            self._call_off(out)
            self._backlog.put([out.work])
        dropped = [piece for piece in self._verified if piece.before.root == root or self.wants_roll_back]
        self._verified = [piece for piece in self._verified if piece not in dropped]
        self._backlog.put(piece.before for piece in dropped)

    def _call_off(self, out: InFlight) -> None:
        """Cancel all assignments to some work; each ends at its next checkpoint, and is accepted no more."""
        self._out.remove(out)
        assignments, out.assignments = out.assignments, []
        for assignment in assignments:
            assignment.scope.cancel()

    # For workers.

    async def take(
        self,
        peer: Hashable,
        ready_at: Callable[[], float],
        leaving: Callable[[], bool],
        throughput: ThroughputEstimator,
    ) -> Assignment | None:
        """Wait for work, and return it; None when there will be none, or the worker leaves.

        Args:
            peer: Who is to be asked.
            ready_at: When the worker may take work, in trio's seconds; asked again after each ``wake``.
            leaving: Whether it will never take work again.
            throughput: The way to the peer, which says how much it will be asked for, and when it is given
                what others have.
        """
        while not self.is_closed and not leaving():
            now = trio.current_time()
            self.follow_time(now)
            wake_at = ready_at()
            if wake_at <= now:
                chance = self._send(peer, now, throughput)
                if isinstance(chance, Assignment):
                    return chance
                wake_at = chance
            await self.wait_until(min(wake_at, self.pivots.gives_way_at))
        return None

    def _send(self, peer: Hashable, now: float, throughput: ThroughputEstimator) -> Assignment | float:
        """Return what ``peer`` shall do now, or when there may be something though nothing else happens."""
        if self.pivots.pivot is None or self.wants_roll_back:
            # Both end with a call that wakes everybody.
            return float("inf")
        work = self._backlog.take(peer, now, throughput.max_bytes)
        if work is not None:
            self._out.append(InFlight(work))
            return self._hand_out(self._out[-1], peer, now)
        # What others have had for longer than this peer takes, it is given as well, the oldest first.
        others = [out for out in self._out if all(assignment.peer != peer for assignment in out.assignments)]
        overdue_at = float("inf")
        if others:
            oldest = min(others, key=attrgetter("taken"))
            # Where several have it and none brings it, it is more likely that none will.
            overdue_at = oldest.taken + throughput.hedge_seconds / len(oldest.assignments)
            if overdue_at <= now:
                return self._hand_out(oldest, peer, now)
        return min(overdue_at, self._backlog.next_suspicion_end(now))

    def _hand_out(self, out: InFlight, peer: Hashable, now: float) -> Assignment:
        out.taken = now
        out.assignments.append(Assignment(peer, out))
        return out.assignments[-1]

    def give_back(self, assignment: Assignment, suspicion: Suspicion | None = None) -> None:
        """Put work back that was taken and not done, unless another peer works on it or has done it."""
        out = assignment.out
        if assignment not in out.assignments:
            return
        out.assignments.remove(assignment)
        if suspicion is not None:
            out.work = out.work._replace(suspicion=suspicion)
        if not out.assignments:
            self._out.remove(out)
            self._backlog.put([out.work])
            self.wake()

    def clear_suspicion(self, assignment: Assignment) -> None:
        """Note that the content of some work is at its root indeed."""
        assignment.out.work = assignment.work._replace(suspicion=None)

    def accept(
        self, assignment: Assignment, result: VerificationResult, proof_bytes: int, filling: float
    ) -> Piece | None:
        """Note that a part of the work was fetched and verified, and put the rest back.

        The other peers that work on it are called off; the scope of the caller is left alone.

        Args:
            assignment: What was taken.
            result: What came, from the start of the work on, and what is left.
            proof_bytes: The size of the proof.
            filling: How much of the number that was asked for the proof holds, 0 to 1.

        Returns:
            What to apply; None when another peer was faster, and nothing has changed.
        """
        if assignment not in assignment.out.assignments:
            return None
        work, (verified, rest, memory_bytes) = assignment.work, result
        # Taken off the list first, the caller is not cancelled, and may go on as it likes.
        assignment.out.assignments.remove(assignment)
        for other in assignment.out.assignments:
            other.is_outrun = True
        self._call_off(assignment.out)
        share = max(work.share - sum(piece.share for piece in rest), 0.0)
        # A proof of one large pair says that no other fits into it, not how large the others are.
        self._backlog.learn(work.root, filling, min(proof_bytes, self._limits.max_bytes), share)
        self._backlog.put(rest)
        before = Work(work.start, verified.end, share, work.root)
        piece = Piece(verified, before, proof_bytes, memory_bytes)
        self._verified.append(piece)
        self.pivots.count_answer()
        if self.pivots.pivot is not None and piece.root == self.pivots.pivot.root:
            self.pivots.note_proven(trio.current_time())
        self.wake()
        return piece

    def close(self) -> None:
        """Let every worker end."""
        self.is_closed = True
        self.wake()

    def open(self) -> None:
        """Let workers take work again."""
        self.is_closed = False

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._changed.unpark_all()

    async def wait_until(self, deadline: float) -> None:
        """Wait until something changes, at most until ``deadline``, in trio's seconds."""
        with trio.move_on_at(deadline):
            await self._changed.park()

    # For the writer.

    def is_wanted(self, piece: Piece) -> bool:
        """Whether a piece is still to be applied."""
        return piece in self._verified

    def plan(self, pieces: Sequence[Piece]) -> tuple[RangeMap, bytes | None]:
        """Begin to apply pieces; return the map as it will be when they are on disk, and how it is saved.

        Returns:
            The map, and the bytes to save with it; None in place of them when all will be at the pivot.
        """
        self._verified = [piece for piece in self._verified if piece not in pieces]
        self._applying = list(pieces)
        ranges = self.ranges.copy()
        for piece in pieces:
            ranges.set(piece.after.start, piece.after.end, piece.after.root)
        pivot, target = self.pivots.pivot, self.pivots.target
        assert pivot is not None
        assert target is not None
        if ranges.is_at(pivot.root):
            return ranges, None
        kept = ranges.copy()
        kept.trim(MAX_CHECKPOINT_RANGES)
        keys, changes, byte_count = count(pieces)
        checkpoint = Checkpoint(
            target,
            self.stats.keys + keys,
            self.stats.changes + changes,
            self.stats.bytes + byte_count,
            self.stats.expectation.keys(self.stats.keys + keys),
            kept,
            shares_of(kept, [(work.start, work.share) for work in self._everything()]),
        )
        return ranges, encode_checkpoint(checkpoint)

    def postpone(self) -> None:
        """Note that what was to be applied is not on disk, and waits for the writer again."""
        self._verified = self._applying + self._verified
        self._applying = []
        self._call_off_what_leads_away()

    def settle(self, ranges: RangeMap, local: LocalState, now: float) -> None:
        """Note that what was to be applied is on disk.

        Args:
            ranges: What ``plan`` returned.
            local: What the database shows now.
            now: The time, in trio's seconds.
        """
        pieces, self._applying = self._applying, []
        self._backlog.put(piece.after for piece in pieces)
        self.ranges = ranges
        self.local = local
        self.stats.add(*count(pieces), now)
        if local.is_at_rest:
            self.reach(local, now)
        self.wake()

    def reach(self, local: LocalState, now: float) -> None:
        """Note that the content is at rest at the head: all of it is at one root."""
        assert local.head is not None
        root = local.head.root
        self.local = local
        self.ranges = RangeMap(self.ranges.max_key_bytes, root)
        if self._is_at_pivot():
            self._call_off_all()
        self._backlog.begin(work._replace(root=root, suspicion=None) for work in self._backlog.pieces())
        if self._is_at_pivot():
            self.stats.finish()
            if not self.pivots.is_newest:
                self._advance(now)
        self.wake()

    def begin_again(self, start: ResumePoint) -> None:
        """Begin where the database stands, for the books do not say the truth of it."""
        self._call_off_all()
        self._applying = []
        self.local = start.local
        self.ranges = start.checkpoint.ranges
        self._backlog.begin(work_of(start.checkpoint))
        self.wake()

    def _call_off_all(self) -> None:
        for out in list(self._out):
            self._call_off(out)
            self._backlog.put([out.work])
        self._backlog.put(piece.before for piece in self._verified)
        self._verified = []

    def _everything(self) -> list[Work]:
        """Return all pieces of the key space as they are on disk, ascending."""
        elsewhere = [out.work for out in self._out]
        elsewhere += [piece.before for piece in self._verified + self._applying]
        return sorted(self._backlog.pieces() + elsewhere, key=start_of)

    def measure(self) -> None:
        """Bring the share of ``stats`` up to date; costs a look at every piece, so only who shows it asks."""
        everything = self._everything()
        root = self.pivots.pivot.root if self.pivots.pivot is not None else None
        unknown = sum(work.share for work in everything if work.root is None)
        done = sum(work.share for work in everything if work.root == root and root is not None)
        self.stats.look(unknown_share=unknown, done_share=done)
