"""How a database stands to its peers: the one word that a person wants to read first.

Pure: facts in, a ``Situation`` out.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Situation(StrEnum):
    """How a database stands to its target, and to its peers.

    The database shows the newest target, so nothing is left to do:

    - IN_SYNC: and a peer shows the same, or at least nothing newer is known.
    - PEERS_BEHIND: but every peer that is connected shows an older head, or none: it is behind, or has lost
      what it had.  Nothing here is touched by that; once a peer is ahead of us again, we follow it.

    The client is behind, and a peer helps it:

    - FIRST_COPY: it has never had a complete content, so there is nothing to read here yet.
    - COPYING: some of its content has to be copied in full; until that is done, it shows its last head.
    - CATCHING_UP: changes bring it forward; until that is done, it shows its last head.

    Nobody helps it.  What it has is kept, and peers are tried again:

    - NO_PEER_KNOWS_TARGET: the peers that are connected have pruned the target, or never had it.
    - PEERS_OVERLOADED: no peer is connected, and at least one has said that it has no place for us now.
    - NO_PEER_REACHABLE: no peer is connected, and all that were tried have failed.

    - NO_TARGET: no target has been named, and no peer has shown one.
    """

    IN_SYNC = "in sync"
    PEERS_BEHIND = "peers behind"
    FIRST_COPY = "first copy"
    COPYING = "copying"
    CATCHING_UP = "catching up"
    NO_PEER_KNOWS_TARGET = "no peer knows the target"
    PEERS_OVERLOADED = "peers overloaded"
    NO_PEER_REACHABLE = "no peer reachable"
    NO_TARGET = "no target"


class PeerFacts(NamedTuple):
    """What there is to know of one peer.

    Attributes:
        is_connected: Whether it is connected.
        has_failed: Whether it is not connected because it failed, not because it was not tried yet.
        lacks_target: Whether it has said that it does not have the target.
        is_followed: Whether it announces its heads to us, so that what follows is true now.
        root: The root of its head; None when it has none, or is not connected.
        revision: The number of its head.
        is_overloaded: Whether it failed because it has no place for us now.
    """

    is_connected: bool
    has_failed: bool
    lacks_target: bool
    is_followed: bool
    root: bytes | None
    revision: int
    is_overloaded: bool = False


class Facts(NamedTuple):
    """What there is to know.

    Attributes:
        head: The root that the database shows; None while a first copy is unfinished.
        revision: Its number.
        is_first: Whether the database never was at a target, nor was written here.
        has_target: Whether a target is known.
        is_at_target: Whether the database shows it.
        copies_in_full: Whether some content has to be copied in full.
        peers: All peers.
    """

    head: bytes | None
    revision: int
    is_first: bool
    has_target: bool
    is_at_target: bool
    copies_in_full: bool
    peers: Sequence[PeerFacts]


def situation_of(facts: Facts) -> Situation:
    """Return how the database stands."""
    connected = [peer for peer in facts.peers if peer.is_connected]
    if not connected and facts.peers and all(peer.has_failed for peer in facts.peers):
        is_overload = any(peer.is_overloaded for peer in facts.peers)
        return Situation.PEERS_OVERLOADED if is_overload else Situation.NO_PEER_REACHABLE
    if facts.is_at_target or not facts.has_target:
        return _without_work(facts, connected)
    if connected and all(peer.lacks_target for peer in connected):
        return Situation.NO_PEER_KNOWS_TARGET
    if facts.is_first:
        return Situation.FIRST_COPY
    return Situation.COPYING if facts.copies_in_full else Situation.CATCHING_UP


def _without_work(facts: Facts, connected: Sequence[PeerFacts]) -> Situation:
    """Return how a database stands that has nothing to do."""
    if not facts.is_first and connected and all(_is_behind(peer, facts) for peer in connected):
        return Situation.PEERS_BEHIND
    return Situation.IN_SYNC if facts.is_at_target else Situation.NO_TARGET


def _is_behind(peer: PeerFacts, facts: Facts) -> bool:
    if not peer.is_followed:
        return False
    return peer.root is None or (peer.root != facts.head and peer.revision < facts.revision)
