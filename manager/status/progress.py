"""How far a sync is, and what it has reached, as immutable snapshots.

The numbers are honest as far as the peers are: keys and bytes count when they are verified and on disk, the
share done never falls, and what nobody can know yet is None.  How many pairs there are in all is what peers
say, which nothing proves; a lie about it spoils what is shown here, and nothing else.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import trio

from manager.status.status import PeerStatusFacts, SyncStatus

Latest = TypeVar("Latest")


class PeerState(StrEnum):
    """What a peer is doing, as the manager sees it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LACKING = "lacking"  # connected, and without the root that is fetched
    WAITING = "waiting"  # after a failure, before the next attempt
    OVERLOADED = "overloaded"  # it has no place for a connection, and is tried again when it says
    BANNED = "dropped"  # for the rest of this sync, or while following for a long time


class SeenHead(NamedTuple):
    """What a connected peer says that its head is.

    Attributes:
        root: The root; None when it has no complete one.
        revision: Its number.
        keys: How many pairs it has, which nothing proves.
        is_followed: Whether it announces each new one, so that this is the present one.
    """

    root: bytes | None
    revision: int
    keys: int
    is_followed: bool


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """One peer's part in a sync.

    Attributes:
        name: As the caller gave it.
        state: What it is doing.
        score: 0 (only failed lately) to 1.
        keys: Verified pairs and changes that came from it.
        requests: Requests in flight.
        reason: Why it failed last; empty while it does not fail.
        root: The root of its head, as it says; None when it has none, or is not connected.
        revision: The number of its head, as it says.
        is_followed: Whether it announces new heads, so that root and revision are those of the present one.
        lacks_head: Whether nobody could show anything of the last of its heads that was asked for.
    """

    name: str
    state: PeerState
    score: float
    keys: int
    requests: int
    reason: str
    root: bytes | None = None
    revision: int = 0
    is_followed: bool = False
    lacks_head: bool = False

    @property
    def facts(self) -> PeerStatusFacts:
        """What a situation is judged by."""
        is_connected = self.state in (PeerState.CONNECTED, PeerState.LACKING)
        return PeerStatusFacts(
            is_connected=is_connected,
            has_failed=not is_connected and bool(self.reason),
            is_overloaded=self.state is PeerState.OVERLOADED,
            lacks_target=self.state is PeerState.LACKING,
            is_followed=self.is_followed,
            root=self.root,
            revision=self.revision,
            lacks_head=self.lacks_head,
        )


class Reached(NamedTuple):
    """A root that a sync has reached: the database shows it, with all its content verified.

    Attributes:
        root: The root.
        revision: The number of the revision: that of the source, as far as it is known.
        keys: How many pairs it has.
    """

    root: bytes
    revision: int
    keys: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync is.

    Attributes:
        status: How the database stands to its target and its peers, in a word.
        target: The newest target; None while there is none.
        root: The root that the database shows; None while a first copy is unfinished.
        revision: Its number; 0 while there is none.
        keys: Pairs applied, those of earlier runs of the same sync included.
        changes: Changes applied, those of earlier runs of the same sync included.
        bytes: Bytes of the proofs that they came in.
        expected_keys: Pairs to copy in full, as a peer says whose head is fetched, or else as an earlier run
            of the sync heard; None while nobody has said it.  Where peers disagree, the one counts that has
            delivered most verified pairs: it must do the work to be believed, while the largest number would
            belong to whoever lies most.  Never below ``keys``, and equal to it when nothing is left to copy.
        share: The part of all the work that is applied, 0 to 1: of the expected keys, or while these are
            unknown of the tree, which runs ahead where most content sits in one corner; and where changes are
            fetched, of the tree.  It never falls on the way to a target, is 1 exactly when the database is at
            one, and begins at 0 again with the next.
        keys_per_second: Smoothed; None while nothing is known.
        bytes_per_second: Smoothed; None while nothing is known.
        elapsed_seconds: Since this run began.
        seconds_left: For the keys that are expected beyond those applied, at the smoothed rate; None while
            either is unknown, and while changes are fetched, for nobody says how many these are.
        peers: All peers, dropped ones included, in the caller's order.
        reason: Why the last write failed, in the situation NO_ROOM; else empty.
    """

    status: SyncStatus
    target: bytes | None
    root: bytes | None
    revision: int
    keys: int
    changes: int
    bytes: int
    expected_keys: int | None
    share: float
    keys_per_second: float | None
    bytes_per_second: float | None
    elapsed_seconds: float
    seconds_left: float | None
    peers: tuple[PeerProgress, ...]
    reason: str = ""


class LatestValue(AsyncIterator[Latest], Generic[Latest]):
    """An async iterator of the newest value, for one consumer; what it has no time for is left out.

    It ends when it is told to, after the last value was handed out.
    """

    def __init__(self) -> None:
        self._newest: list[Latest] = []
        self._ended = False
        self._changed = trio.Event()

    def put(self, value: Latest) -> None:
        """Replace what the consumer sees next."""
        self._newest = [value]
        self._changed.set()

    def end(self) -> None:
        """Let the consumer's loop end after the newest value."""
        self._ended = True
        self._changed.set()

    async def __anext__(self) -> Latest:
        await self._changed.wait()
        if not self._newest:
            raise StopAsyncIteration
        value = self._newest.pop()
        if not self._ended:
            self._changed = trio.Event()
        return value


ProgressStream: TypeAlias = LatestValue[Progress]
ReachedStream: TypeAlias = LatestValue[Reached]
