"""How a database stands to its peers: the one word that a person wants to read first.

Pure: facts in, a ``SyncStatus`` out.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

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
    ahead = [peer for peer in connected if _is_ahead(peer, facts)]
    if not all(peer.lacks_head for peer in ahead):
        return _on_the_way(facts)
    if ahead and not any(peer.root == facts.head for peer in connected):
        # What they announce cannot be had, and nobody says that what is here is the newest that can.
        return SyncStatus.NO_PEER_KNOWS_TARGET
    if not facts.is_first and connected:
        if all(_is_behind(peer, facts) for peer in connected):
            return SyncStatus.PEERS_BEHIND
        if all(_is_behind(peer, facts) or _diverges(peer, facts) for peer in connected):
            return SyncStatus.DIVERGED
    return SyncStatus.IN_SYNC if facts.is_at_target else SyncStatus.NO_TARGET


def _is_ahead(peer: PeerStatusFacts, facts: StatusFacts) -> bool:
    return facts.follows_heads and peer.root not in (None, facts.head) and peer.revision > facts.revision


def _is_behind(peer: PeerStatusFacts, facts: StatusFacts) -> bool:
    if not peer.is_followed or _diverges(peer, facts):
        return False
    return peer.root is None or (peer.root != facts.head and peer.revision < facts.revision)


def _diverges(peer: PeerStatusFacts, facts: StatusFacts) -> bool:
    """Return whether a peer shows another content under a number than was here under it."""
    if not peer.is_followed or peer.root in (None, facts.head):
        return False
    return peer.revision <= facts.revision and facts.known.get(peer.revision, peer.root) != peer.root
