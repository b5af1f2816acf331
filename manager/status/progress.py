"""How far a sync is, how it stands to its peers, and what it has reached, as immutable snapshots.

The numbers are honest as far as the peers are: keys and bytes count when they are verified and on disk, the
share done never falls, and what nobody can know yet is None.  How many pairs there are in all is what peers
say, which nothing proves; a lie about it spoils what is shown here, and nothing else.

The one word that a person wants to read first is a ``SyncStatus``: ``status_of`` finds it from facts, which a
running sync has, and who only asks the peers has too.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import trio

Latest = TypeVar("Latest")

_NOTHING_KNOWN: Final[Mapping[int, bytes]] = MappingProxyType({})


class SyncStatus(StrEnum):
    """How a database stands to its target, and to its peers.

    The database shows the newest target, so nothing is left to do:

    - IN_SYNC: and a peer shows the same, or at least no peer that is followed shows anything newer.  (A newer
      head that was announced and could not be had counts for nothing beside a peer that shows the same.)
    - PEERS_BEHIND: but every peer that is connected shows an older head, or none: it is behind, or has lost
      what it had.  Nothing here is touched by that; once a peer is ahead of us again, we follow it.
    - DIVERGED: but no peer shows the same, and at least one shows another content under a number that our
      content has or had: it lost what it had and began again, or two writers number their revisions alike.
      Nothing here is touched by that, as long as its number is not above ours.

    The client is behind, and a peer helps it:

    - FIRST_COPY: it has never had a complete content, so there is nothing to read here yet.
    - COPYING: some of its content has to be copied in full; until that is done, it shows its last head.
    - CATCHING_UP: changes bring it forward; until that is done, it shows its last head.

    Nobody helps it.  What it has is kept, and peers are tried again:

    - NO_PEER_KNOWS_TARGET: the peers that are connected have pruned the target, or never had it; or they
      announce newer heads, and do not have them when they are asked.
    - PEERS_OVERLOADED: no peer is connected, and at least one has said that it has no place for us now.
    - NO_PEER_REACHABLE: no peer is connected, and all that were tried have failed.

    - NO_TARGET: no target has been named, and no peer has shown one.

    - NO_ROOM: this machine has no disk, memory or other means left for what comes.  What is here stays as it
      is, and writing is tried again.
    """

    IN_SYNC = "in sync"
    PEERS_BEHIND = "peers behind"
    DIVERGED = "diverged"
    FIRST_COPY = "first copy"
    COPYING = "copying"
    CATCHING_UP = "catching up"
    NO_PEER_KNOWS_TARGET = "no peer knows the target"
    PEERS_OVERLOADED = "peers overloaded"
    NO_PEER_REACHABLE = "no peer reachable"
    NO_TARGET = "no target"
    NO_ROOM = "no room"


class PeerStatusFacts(NamedTuple):
    """What there is to know of one peer.

    Attributes:
        is_connected: Whether it is connected.
        has_failed: Whether it is not connected because it failed, not because it was not tried yet.
        lacks_target: Whether it has said that it does not have the target.
        is_followed: Whether it announces its heads to us, so that what follows is true now.
        root: The root of its head; None when it has none, or is not connected.
        revision: The number of its head.
        lacks_head: Whether nobody could show anything of the last of its heads that was asked for.
        is_overloaded: Whether it failed because it has no place for us now.
    """

    is_connected: bool
    has_failed: bool
    lacks_target: bool
    is_followed: bool
    root: bytes | None
    revision: int
    lacks_head: bool = False
    is_overloaded: bool = False


class StatusFacts(NamedTuple):
    """What there is to know.

    Attributes:
        head: The root that the database shows; None while a first copy is unfinished.
        revision: Its number.
        is_first: Whether the database never was at a target, nor was written here.
        has_target: Whether a target is known.
        is_at_target: Whether the database shows it.
        copies_in_full: Whether some content has to be copied in full.
        peers: All peers.
        follows_heads: Whether what peers announce is followed, so that a newer head is a target.
        known: The roots that the database has or had under the numbers of its source, as far as it knows.
        has_no_room: Whether the last write failed, for the machine has no room for it.
    """

    head: bytes | None
    revision: int
    is_first: bool
    has_target: bool
    is_at_target: bool
    copies_in_full: bool
    peers: Sequence[PeerStatusFacts]
    follows_heads: bool = False
    known: Mapping[int, bytes] = _NOTHING_KNOWN
    has_no_room: bool = False


class PeerState(StrEnum):
    """What a peer is doing, as the manager sees it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LACKING = "lacking"  # connected, and without the root that is fetched
    WAITING = "waiting"  # after a failure, before the next attempt
    OVERLOADED = "overloaded"  # it has no place for a connection, and is tried again when it says
    BANNED = "dropped"  # for the rest of this sync, or while following for a long time


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
        """What the sync status is judged by."""
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
        reason: Why the last write failed, with the status NO_ROOM; else empty.
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


# How a database stands.


def status_of(facts: StatusFacts) -> SyncStatus:
    """Return how the database stands."""
    if facts.has_no_room:
        return SyncStatus.NO_ROOM
    connected = [peer for peer in facts.peers if peer.is_connected]
    if not connected and facts.peers and all(peer.has_failed for peer in facts.peers):
        is_overload = any(peer.is_overloaded for peer in facts.peers)
        return SyncStatus.PEERS_OVERLOADED if is_overload else SyncStatus.NO_PEER_REACHABLE
    if facts.is_at_target or not facts.has_target:
        return _without_work(facts, connected)
    if connected and all(peer.lacks_target for peer in connected):
        return SyncStatus.NO_PEER_KNOWS_TARGET
    return _on_the_way(facts)


def _on_the_way(facts: StatusFacts) -> SyncStatus:
    """Return how a database stands that peers bring forward."""
    if facts.is_first:
        return SyncStatus.FIRST_COPY
    return SyncStatus.COPYING if facts.copies_in_full else SyncStatus.CATCHING_UP


def _without_work(facts: StatusFacts, connected: Sequence[PeerStatusFacts]) -> SyncStatus:
    """Return how a database stands that has nothing to do."""
    positions = [_position(peer, facts) for peer in connected]
    if _Position.AHEAD in positions:
        return _on_the_way(facts)
    if _Position.AHEAD_IN_VAIN in positions and not any(peer.root == facts.head for peer in connected):
        # What they announce cannot be had, and nobody says that what is here is the newest that can.
        return SyncStatus.NO_PEER_KNOWS_TARGET
    if not facts.is_first and connected:
        if all(position is _Position.BEHIND for position in positions):
            return SyncStatus.PEERS_BEHIND
        if all(position in (_Position.BEHIND, _Position.DIVERGED) for position in positions):
            return SyncStatus.DIVERGED
    return SyncStatus.IN_SYNC if facts.is_at_target else SyncStatus.NO_TARGET


class _Position(Enum):
    """Where a peer's head stands to ours."""

    AHEAD = auto()
    AHEAD_IN_VAIN = auto()  # nobody could show anything of it
    BEHIND = auto()
    DIVERGED = auto()  # another content under a number than was here under it
    SAME = auto()  # or it is not known to be anything else


def _position(peer: PeerStatusFacts, facts: StatusFacts) -> _Position:
    """Return where a connected peer's head stands to ours."""
    is_other = peer.root is not None and peer.root != facts.head
    if is_other and peer.revision > facts.revision:
        if not facts.follows_heads:
            return _Position.SAME
        return _Position.AHEAD_IN_VAIN if peer.lacks_head else _Position.AHEAD
    # Where it does not announce its heads, this one may be an old one of its own.
    if not peer.is_followed:
        return _Position.SAME
    if not is_other:
        return _Position.BEHIND if peer.root is None else _Position.SAME
    if facts.known.get(peer.revision, peer.root) != peer.root:
        return _Position.DIVERGED
    return _Position.BEHIND if peer.revision < facts.revision else _Position.SAME
