"""The books of a sync: what is left to fetch, what is being fetched, and what is on disk.

Workers take work here and bring back verified ranges; the writer settles what it has applied.  Every key of
the key space is at any time in exactly one place:

    shelves    nobody works on it, or nothing has to be done     take()   ->  out
    out        peers fetch and verify it                         accept() ->  verified; the rest goes back
                                                                 give_back() by the last  ->  shelves
    verified   it waits for the writer                           plan()   ->  being applied
    applying   a transaction puts it on disk                     settle() ->  shelves, at its new root

What is out is with one peer, and with more once it is overdue and they have nothing else to do.  The first
verified answer is accepted and the others are called off: what has left ``out`` is never accepted again.

Work knows the root that its content is at.  When the goal changes, nothing that is known is lost: what is
neither out nor verified is sorted again, and what is out or verified for an older goal is brought to it, for
it is only one step further to the new one.  Called off is only what would lead away from the new goal.

State is touched only between checkpoints, by tasks of one trio run; nothing here blocks or does I/O.
"""

from collections.abc import Callable, Hashable, Sequence

import trio

from manager.errands import Errand, Out
from manager.goals import Goals, Target
from manager.limits import Limits
from manager.link import Link
from manager.pieces import Findings, Piece, count
from manager.ranges import RangeMap
from manager.saved import MAX_SAVED_RANGES, Saved, encode_saved, shares_of
from manager.shelves import Shelves
from manager.standing import Standing, Start, work_of
from manager.tally import Tally
from manager.work import Doubt, Work, start_of


class Ledger:
    """The books of one sync.

    Args:
        start: Where the sync begins.
        target: Where it goes; None while nobody has said it.
        limits: What it may use.
        now: The time, in trio's seconds.

    Attributes:
        goals: The target, and the root that is fetched.
        standing: What the database shows.
        ranges: What is on disk.
        tally: What was done.
        is_closed: Whether nobody is to take work any more.
    """

    def __init__(self, start: Start, target: Target | None, limits: Limits, now: float) -> None:
        saved = start.saved
        self.goals = Goals(limits.goal_seconds)
        self.standing = start.standing
        self.ranges = saved.ranges
        self.tally = Tally(saved.keys, saved.changes, saved.bytes, saved.expected_keys, now)
        self.is_closed = False
        self._limits = limits
        self._shelves = Shelves(saved.ranges.max_key_bytes, limits.overdue_seconds)
        self._out: list[Out] = []
        self._verified: list[Piece] = []
        self._applying: list[Piece] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._shelves.begin(work_of(saved))
        if target is not None:
            self.aim(target, now)
        self._look()

    @property
    def is_fetched(self) -> bool:
        """Whether nothing is left to ask a peer for, on the way to the present goal."""
        return not self._shelves and not self._out

    @property
    def is_done(self) -> bool:
        """Whether the database shows the newest target, its number too, and nothing leads elsewhere."""
        target, standing = self.goals.target, self.standing
        if target is None or self._applying or not standing.is_at_rest:
            return False
        return standing.shows(target.root) and not standing.lacks_number(target)

    @property
    def wants_number(self) -> bool:
        """Whether the head is the goal, but for the number of its revision."""
        goal = self.goals.goal
        return goal is not None and not self._applying and self.standing.lacks_number(goal)

    @property
    def wants_roll_back(self) -> bool:
        """Whether the shortest way to the goal is to give up what was applied since the head."""
        goal, standing = self.goals.goal, self.standing
        return goal is not None and not standing.is_at_rest and standing.shows(goal.root)

    @property
    def is_untrue(self) -> bool:
        """Whether all is said to be at the goal, and yet the database does not show it."""
        goal = self.goals.goal
        return goal is not None and self.ranges.is_at(goal.root) and not self.standing.shows(goal.root)

    @property
    def copies_in_full(self) -> bool:
        """Whether there is content of which nothing is known."""
        return any(work.root is None for work in self._everything())

    # The goal.

    def aim(self, target: Target, now: float) -> None:
        """Note the newest target; it becomes the goal at once when nothing else is under way."""
        self.goals.aim(target)
        if self.goals.is_newest:
            # The goal may have come back under another number.
            self.wake()
            return
        if self.standing.is_at_rest and self.standing.shows(target.root):
            self._advance(now)
            self.reach(self.standing, now)
        elif self._is_at_goal():
            self._advance(now)
        self.wake()

    def _is_at_goal(self) -> bool:
        goal = self.goals.goal
        return goal is None or (self.standing.is_at_rest and self.standing.shows(goal.root))

    def give_up_goal(self, now: float) -> None:
        """Make the newest target the goal, for nobody has the present one."""
        self._advance(now)
        self.wake()

    def abandon_goal(self, now: float) -> None:
        """Make the newest target the goal, and call off what is asked for at the present one.

        Whoever announced it may never answer, and nobody else is to wait for that.
        """
        for out in list(self._out):
            self._call_off(out)
            self._shelves.put([out.work])
        self.give_up_goal(now)

    def follow_time(self, now: float) -> None:
        """Let the goal give way when it is time to."""
        if self.goals.gives_way_at <= now:
            self._advance(now, is_last_step=not any(map(self._shelves.is_base, self._everything())))

    def _advance(self, now: float, *, is_last_step: bool = False) -> None:
        if self._is_at_goal():
            self.tally.begin()
            self.goals.excuse(now)
        self.goals.advance(now, more_patience=is_last_step)
        self._call_off_what_leads_away()
        assert self.goals.goal is not None
        self._shelves.set_goal(self.goals.goal.root)
        self._look()
        self.wake()

    def _call_off_what_leads_away(self) -> None:
        goal = self.goals.goal
        root = goal.root if goal is not None else None
        for out in [out for out in self._out if out.work.root == root or self.wants_roll_back]:
            self._call_off(out)
            self._shelves.put([out.work])
        dropped = [piece for piece in self._verified if piece.before.root == root or self.wants_roll_back]
        self._verified = [piece for piece in self._verified if piece not in dropped]
        self._shelves.put(piece.before for piece in dropped)

    def _call_off(self, out: Out) -> None:
        """Let all stop who work on something; each has to leave its scope before its next checkpoint."""
        self._out.remove(out)
        errands, out.errands = out.errands, []
        for errand in errands:
            errand.scope.cancel()

    # For workers.

    async def take(
        self,
        peer: Hashable,
        ready_at: Callable[[], float],
        leaving: Callable[[], bool],
        link: Link,
    ) -> Errand | None:
        """Wait for work, and return it; None when there will be none, or the worker leaves.

        Args:
            peer: Who is to be asked.
            ready_at: When the worker may take work, in trio's seconds; asked again after each ``wake``.
            leaving: Whether it will never take work again.
            link: The way to the peer, which says how much it will be asked for.
        """
        while not self.is_closed and not leaving():
            now = trio.current_time()
            self.follow_time(now)
            wake_at = ready_at()
            if wake_at <= now:
                errand = self._send(peer, now, link.max_bytes)
                if errand is not None:
                    return errand
                wake_at = self._next_chance(peer, now)
            await self.wait_until(min(wake_at, self.goals.gives_way_at))
        return None

    def _send(self, peer: Hashable, now: float, max_bytes: int) -> Errand | None:
        """Return what ``peer`` shall do now; None when there is nothing for it."""
        if self.goals.goal is None or self.wants_roll_back:
            return None
        work = self._shelves.take(peer, now, max_bytes)
        if work is not None:
            self._out.append(Out(work))
            return self._hand_out(self._out[-1], peer, now)
        oldest = self._oldest_without(peer)
        if oldest is not None and oldest.taken + self._limits.overdue_seconds <= now:
            return self._hand_out(oldest, peer, now)
        return None

    def _next_chance(self, peer: Hashable, now: float) -> float:
        """Return when there may be something to do for ``peer`` though nothing else happens."""
        oldest = self._oldest_without(peer)
        overdue = oldest.taken + self._limits.overdue_seconds if oldest is not None else float("inf")
        return min(overdue, self._shelves.next_doubt_end(now))

    def _oldest_without(self, peer: Hashable) -> Out | None:
        """Return what has been out for longest of all that ``peer`` does not work on."""
        others = (out for out in self._out if all(errand.peer != peer for errand in out.errands))
        return min(others, key=lambda out: out.taken, default=None)

    def _hand_out(self, out: Out, peer: Hashable, now: float) -> Errand:
        out.taken = now
        out.errands.append(Errand(peer, out))
        return out.errands[-1]

    def give_back(self, errand: Errand, doubt: Doubt | None = None) -> None:
        """Put work back that was taken and not done, unless another peer works on it or has done it."""
        out = errand.out
        if errand not in out.errands:
            return
        out.errands.remove(errand)
        if doubt is not None:
            out.work = out.work._replace(doubt=doubt)
        if not out.errands:
            self._out.remove(out)
            self._shelves.put([out.work])
            self.wake()

    def dispel_doubt(self, errand: Errand) -> None:
        """Note that the content of some work is at its root indeed."""
        errand.out.work = errand.work._replace(doubt=None)

    def accept(self, errand: Errand, findings: Findings, proof_bytes: int, filling: float) -> Piece | None:
        """Note that a part of the work was fetched and verified, and put the rest back.

        Everybody who works on it is called off; the caller has to leave its scope before its next checkpoint.

        Args:
            errand: What was taken.
            findings: What came, from the start of the work on, and what is left.
            proof_bytes: The size of the proof.
            filling: How much of the number that was asked for the proof holds, 0 to 1.

        Returns:
            What to apply; None when another peer was faster, and nothing has changed.
        """
        if errand not in errand.out.errands:
            return None
        work, (verified, rest, memory_bytes) = errand.work, findings
        for other in errand.out.errands:
            other.is_outrun = True
        self._call_off(errand.out)
        share = max(work.share - sum(piece.share for piece in rest), 0.0)
        # A proof of one large pair says that no other fits into it, not how large the others are.
        self._shelves.learn(work.root, filling, min(proof_bytes, self._limits.max_bytes), share)
        self._shelves.put(rest)
        before = Work(work.start, verified.end, share, work.root)
        piece = Piece(verified, before, proof_bytes, memory_bytes)
        self._verified.append(piece)
        self.goals.count_answer()
        if self.goals.goal is not None and piece.root == self.goals.goal.root:
            self.goals.note_proven(trio.current_time())
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
            The map, and the bytes to save with it; None in place of them when all will be at the goal.
        """
        self._verified = [piece for piece in self._verified if piece not in pieces]
        self._applying = list(pieces)
        ranges = self.ranges.copy()
        for piece in pieces:
            ranges.set(piece.after.start, piece.after.end, piece.after.root)
        goal, target = self.goals.goal, self.goals.target
        assert goal is not None
        assert target is not None
        if ranges.is_at(goal.root):
            return ranges, None
        kept = ranges.copy()
        kept.trim(MAX_SAVED_RANGES)
        keys, changes, byte_count = count(pieces)
        saved = Saved(
            target,
            self.tally.keys + keys,
            self.tally.changes + changes,
            self.tally.bytes + byte_count,
            self.tally.expectation.keys(self.tally.keys + keys),
            kept,
            shares_of(kept, [(work.start, work.share) for work in self._everything()]),
        )
        return ranges, encode_saved(saved)

    def postpone(self) -> None:
        """Note that what was to be applied is not on disk, and waits for the writer again."""
        self._verified = self._applying + self._verified
        self._applying = []
        self._call_off_what_leads_away()

    def settle(self, ranges: RangeMap, standing: Standing, now: float) -> None:
        """Note that what was to be applied is on disk.

        Args:
            ranges: What ``plan`` returned.
            standing: What the database shows now.
            now: The time, in trio's seconds.
        """
        pieces, self._applying = self._applying, []
        self._shelves.put(piece.after for piece in pieces)
        self.ranges = ranges
        self.standing = standing
        self.tally.add(*count(pieces), now)
        if standing.is_at_rest:
            self.reach(standing, now)
        self._look()
        self.wake()

    def reach(self, standing: Standing, now: float) -> None:
        """Note that the content is at rest at the head: all of it is at one root."""
        assert standing.head is not None
        root = standing.head.root
        self.standing = standing
        self.ranges = RangeMap(self.ranges.max_key_bytes, root)
        if self._is_at_goal():
            self._call_off_all()
        self._shelves.begin(work._replace(root=root, doubt=None) for work in self._shelves.pieces())
        if self._is_at_goal():
            self.tally.finish()
            if not self.goals.is_newest:
                self._advance(now)
        self._look()
        self.wake()

    def begin_again(self, start: Start) -> None:
        """Begin where the database stands, for the books do not say the truth of it."""
        self._call_off_all()
        self._applying = []
        self.standing = start.standing
        self.ranges = start.saved.ranges
        self._shelves.begin(work_of(start.saved))
        self._look()
        self.wake()

    def _call_off_all(self) -> None:
        for out in list(self._out):
            self._call_off(out)
            self._shelves.put([out.work])
        self._shelves.put(piece.before for piece in self._verified)
        self._verified = []

    def _everything(self) -> list[Work]:
        """Return all pieces of the key space as they are on disk, ascending."""
        elsewhere = [out.work for out in self._out]
        elsewhere += [piece.before for piece in self._verified + self._applying]
        return sorted(self._shelves.pieces() + elsewhere, key=start_of)

    def _look(self) -> None:
        """Count what is left."""
        everything = self._everything()
        root = self.goals.goal.root if self.goals.goal is not None else None
        unknown = sum(work.share for work in everything if work.root is None)
        done = sum(work.share for work in everything if work.root == root and root is not None)
        self.tally.look(unknown_share=unknown, done_share=done)
