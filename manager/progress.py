"""How far a sync is: an immutable snapshot, and a stream of them that never queues.

The numbers are honest as far as the peers are: keys and bytes count when they are verified and on disk, the
share done never falls, and what nobody can know yet is None.  How many pairs there are in all is what peers
say, which nothing proves; a lie about it spoils what is shown here, and nothing else.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

import trio


class PeerState(StrEnum):
    """What a peer is doing, as the manager sees it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"  # after a failure, before the next attempt
    DROPPED = "dropped"  # for the rest of this sync


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """One peer's part in a sync.

    Attributes:
        name: As the caller gave it.
        state: What it is doing.
        score: 0 (only failed lately) to 1.
        keys: Verified pairs that came from it.
        requests: Requests in flight.
        reason: Why it failed last; empty while it does not fail.
    """

    name: str
    state: PeerState
    score: float
    keys: int
    requests: int
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync is.

    Attributes:
        target: The root that it is on the way to.
        keys: Pairs applied, those of earlier runs of the same sync included.
        bytes: Bytes of the proofs that they came in.
        expected_keys: Pairs in all, as a peer says whose head is the target, or else as an earlier run of
            the sync heard; None while nobody has said it.  Where peers disagree, the one counts that has
            delivered most verified pairs: it must do the work to be believed, while the largest number would
            belong to whoever lies most.  Never below ``keys``, and equal to it when all is applied.
        share: The part of all the work that is applied, 0 to 1: of the expected keys, or while these are
            unknown of the tree, which runs ahead where most content sits in one corner.  It never falls, and
            is 1 exactly when all is applied.
        keys_per_second: Smoothed; None while nothing is known.
        bytes_per_second: Smoothed; None while nothing is known.
        elapsed_seconds: Since this run began.
        seconds_left: For the keys that are expected beyond those applied, at the smoothed rate; None while
            either is unknown.
        peers: All peers, dropped ones included, in the caller's order.
    """

    target: bytes
    keys: int
    bytes: int
    expected_keys: int | None
    share: float
    keys_per_second: float | None
    bytes_per_second: float | None
    elapsed_seconds: float
    seconds_left: float | None
    peers: tuple[PeerProgress, ...]


class ProgressStream(AsyncIterator[Progress]):
    """The progress of a sync as it changes, for one consumer: the newest only, however slow the consumer is.

    It ends when the sync does, after the last progress was handed out.
    """

    def __init__(self) -> None:
        self._newest: Progress | None = None
        self._ended = False
        self._changed = trio.Event()

    def put(self, progress: Progress) -> None:
        """Replace what the consumer sees next."""
        self._newest = progress
        self._changed.set()

    def end(self) -> None:
        """Let the consumer's loop end after the newest progress."""
        self._ended = True
        self._changed.set()

    async def __anext__(self) -> Progress:
        await self._changed.wait()
        if self._newest is None:
            raise StopAsyncIteration
        progress, self._newest = self._newest, None
        if not self._ended:
            self._changed = trio.Event()
        return progress
