"""The books of a sync: what is left to fetch, what is being fetched, and what is on disk.

Workers take work here and bring back verified ranges; the writer settles what it has applied.  Every key of
the key space is at any time in exactly one place:

    queue      nobody works on it                  take()   ->  out
    out        peers fetch and verify it           accept() ->  verified, and the rest back to the queue
                                                   give_back() by the last of them -> queue
    verified   it waits for the writer             settle() ->  on disk, at the target in the range map

What is out is with one peer, and with more once it is overdue and they have nothing else to do.  The first
verified answer is accepted and the others are called off: what has left ``out`` is never accepted again.

State is touched only between checkpoints, by tasks of one trio run; nothing here blocks or does I/O.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from manager.estimate import Density, Expectation, Rate, seconds_left
from manager.limits import Limits, memory_bytes
from manager.ranges import RangeMap
from manager.saved import MAX_SAVED_RANGES, Saved, encode_saved, shares_of
from manager.split import split_rest
from manager.work import Work, WorkQueue
from merkledb import VerifiedRange

# A proof is planned to be this full, so that the natural variation of keys seldom cuts it off.
_PLANNED_FILLING: Final = 0.85
# The share done that is shown at most as long as something is left, however little seems to be left.
_ALMOST_ALL: Final = 0.999


@dataclass(frozen=True, slots=True)
class Piece:
    """A verified range on its way to the disk.

    Attributes:
        verified: What to apply.
        start: The first key of the range.
        share: The part of all the work that it is.
        proof_bytes: The size of the proof that it came in.
    """

    verified: VerifiedRange
    start: bytes
    share: float
    proof_bytes: int

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes."""
        return memory_bytes(self.proof_bytes, len(self.verified))


@dataclass(slots=True)
class _Out:
    """Work that is out.

    Attributes:
        work: What was taken.
        taken: When somebody took it last, in trio's seconds.
        peers: Who works on it, each with the scope that calls it off.
    """

    work: Work
    taken: float
    peers: dict[Hashable, trio.CancelScope] = field(default_factory=dict)


class Ledger:
    """The books of one sync to one target.

    Args:
        saved: Where the sync begins.
        limits: What it may use.
        now: The time, in trio's seconds.

    Attributes:
        target: The root that the sync is on the way to.
        ranges: What is on disk.
        keys: Pairs on disk, by this sync.
        bytes: Bytes of the proofs that they came in.
        share: The part of all the work that is on disk, as far as it can be known; it never falls.
        expectation: What peers say that there is in all.
    """

    def __init__(self, saved: Saved, limits: Limits, now: float) -> None:
        self.target = saved.target
        self.ranges = saved.ranges
        self.keys = saved.keys
        self.bytes = saved.bytes
        self._limits = limits
        self._queue = WorkQueue(saved.ranges.max_key_bytes)
        self._queue.put(initial_work(saved))
        # The share of everything that left the queue and is not on disk yet, by the start of its range.
        self._open: dict[bytes, float] = {}
        # What is out, by its start: what is out does not overlap.
        self._out: dict[bytes, _Out] = {}
        self._tree_share = 1.0 - sum(piece.share for piece in self._queue.pieces())
        self.expectation = Expectation(saved.expected_keys)
        self.share = self._share_now()
        self._changed = trio.lowlevel.ParkingLot()
        self._density = Density()
        self._began = now
        self._keys_rate, self._bytes_rate = Rate(now), Rate(now)

    @property
    def is_fetched(self) -> bool:
        """Whether nothing is left to ask a peer for."""
        return not self._queue and not self._out

    @property
    def is_done(self) -> bool:
        """Whether everything is on disk."""
        return self.ranges.is_at(self.target)

    # For workers.

    async def take(
        self, peer: Hashable, wanted: Callable[[], bool], leaving: Callable[[], bool]
    ) -> Work | None:
        """Wait for work, and return it; None when there will be none, or the worker leaves.

        Args:
            peer: Who is to be asked.
            wanted: Whether the worker may take work now; asked again after each ``wake``.
            leaving: Whether it will never take work again.
        """
        while not self.is_fetched and not leaving():
            overdue = float("inf")
            if wanted():
                if self._queue:
                    return self._take(peer)
                oldest = self._oldest_without(peer)
                overdue = oldest.taken + self._limits.overdue_seconds if oldest else overdue
                if oldest is not None and overdue <= trio.current_time():
                    return self._hand_out(oldest, peer)
            with trio.move_on_at(overdue):
                await self._changed.park()
        return None

    def _take(self, peer: Hashable) -> Work:
        work = self._queue.take(self._density.share_of(_PLANNED_FILLING))
        self._open[work.start] = work.share
        self._out[work.start] = out = _Out(work, 0.0)
        return self._hand_out(out, peer)

    def _oldest_without(self, peer: Hashable) -> _Out | None:
        """Return what has been out for longest of all that ``peer`` does not work on."""
        others = (out for out in self._out.values() if peer not in out.peers)
        return min(others, key=lambda out: out.taken, default=None)

    def _hand_out(self, out: _Out, peer: Hashable) -> Work:
        out.taken = trio.current_time()
        out.peers[peer] = trio.CancelScope()
        return out.work

    def scope_of(self, peer: Hashable, work: Work) -> trio.CancelScope:
        """Return the scope in which ``peer`` does what it just took; cancelled when another was faster."""
        return self._out[work.start].peers[peer]

    def give_back(self, peer: Hashable, work: Work) -> None:
        """Put work back that was taken and not done, unless another peer works on it or has done it."""
        out = self._out.get(work.start)
        if out is None:
            return
        del out.peers[peer]
        if not out.peers:
            del self._open[work.start]
            del self._out[work.start]
            self._queue.put([work])
            self.wake()

    def accept(
        self, work: Work, verified: VerifiedRange, rest: Sequence[Work], proof_bytes: int
    ) -> Piece | None:
        """Note that a part of ``work`` was fetched and verified, and queue the rest.

        Everybody who works on it is called off; the caller has to leave its scope before its next checkpoint.

        Args:
            work: What was taken.
            verified: What came, from the start of ``work`` on.
            rest: What ``rest_of`` says is left.
            proof_bytes: The size of the proof.

        Returns:
            What to apply; None when another peer was faster, and nothing has changed.
        """
        out = self._out.pop(work.start, None)
        if out is None:
            return None
        share = max(work.share - sum(piece.share for piece in rest), 0.0)
        filling = max(len(verified) / self._limits.max_keys, proof_bytes / self._limits.max_bytes)
        self._density.add(filling, share)
        self._open[work.start] = share
        self._queue.put(rest)
        for scope in out.peers.values():
            scope.cancel()
        self.wake()
        return Piece(verified, work.start, share, proof_bytes)

    def wake(self) -> None:
        """Let every waiting worker look again."""
        self._changed.unpark_all()

    # For the writer.

    def plan(self, pieces: Sequence[Piece]) -> tuple[RangeMap, bytes | None]:
        """Return the map as it will be when ``pieces`` are on disk, and how it is saved.

        Returns:
            The map, and the bytes to save with it; None in place of them when all is done.
        """
        ranges = self.ranges.copy()
        for piece in pieces:
            ranges.set(piece.start, piece.verified.end, self.target)
        if ranges.is_at(self.target):
            return ranges, None
        settled = {piece.start for piece in pieces}
        shares = {start: share for start, share in self._open.items() if start not in settled}
        shares.update((work.start, work.share) for work in self._queue.pieces())
        kept = ranges.copy()
        kept.trim(MAX_SAVED_RANGES)
        keys = self.keys + sum(len(piece.verified) for piece in pieces)
        byte_count = self.bytes + sum(piece.proof_bytes for piece in pieces)
        saved = Saved(
            self.target,
            keys,
            byte_count,
            self.expectation.keys(keys),
            kept,
            shares_of(kept, sorted(shares.items())),
        )
        return ranges, encode_saved(saved)

    def settle(self, pieces: Sequence[Piece], ranges: RangeMap, now: float) -> None:
        """Note that ``pieces`` are on disk, and that the map is ``ranges`` there."""
        keys = sum(len(piece.verified) for piece in pieces)
        byte_count = sum(piece.proof_bytes for piece in pieces)
        self._tree_share += sum(self._open.pop(piece.start) for piece in pieces)
        self.ranges = ranges
        self.keys += keys
        self.bytes += byte_count
        self.share = max(self.share, self._share_now())
        self._keys_rate.add(keys, now)
        self._bytes_rate.add(byte_count, now)

    # For people.

    @property
    def expected_keys(self) -> int | None:
        """How many pairs there are in all; None while nobody says anything."""
        return self.keys if self.is_done else self.expectation.keys(self.keys)

    def _share_now(self) -> float:
        """Return the share of the pairs, and as long as their number is unknown the share of the tree."""
        if self.is_done:
            return 1.0
        expected = self.expected_keys
        return min(self.keys / expected if expected else self._tree_share, _ALMOST_ALL)

    def rates(self, now: float) -> tuple[float | None, float | None]:
        """Return keys and bytes a second; None while nothing is known."""
        return self._keys_rate.at(now), self._bytes_rate.at(now)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes at the current rate; None while nobody can know.

        That is so while no peer says how many pairs there are, and when there turn out to be more.
        """
        if self.is_done:
            return 0.0
        left = (self.expected_keys or 0) - self.keys
        return seconds_left(left, self._keys_rate.at(now)) if left > 0 else None

    def elapsed_seconds(self, now: float) -> float:
        """Return for how long this run has been going."""
        return now - self._began


def initial_work(saved: Saved) -> list[Work]:
    """Return the work that a saved state leaves, ascending; shares that were not saved are divided evenly."""
    rows = zip(saved.ranges, saved.shares, strict=True)
    left = [(key_range, share) for key_range, share in rows if key_range.root != saved.target]
    even = 0.0 if any(share for _, share in left) else 1.0 / max(len(left), 1)
    return [Work(key_range.start, key_range.end, share or even) for key_range, share in left]


def rest_of(work: Work, verified: VerifiedRange) -> list[Work]:
    """Return what a verified range leaves of the work that it was asked for; pure, so any thread may."""
    if verified.complete:
        return []
    scheme = verified.scheme
    return split_rest(
        work,
        verified.keys,
        verified.next_keys,
        branch_factor=scheme.branch_factor,
        max_key_bytes=scheme.max_key_bytes,
    )
