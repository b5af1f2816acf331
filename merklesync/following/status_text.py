"""Sentences about a replica and its peers: what ``follow`` notes and ``status`` shows.

The words are those of ``manager.SyncStatus``.  Each sentence says what happens to the content of the store,
for that is the first question of a person whose peer is not what it was.
"""

from collections.abc import Mapping
from typing import Final

from manager import SyncStatus
from manager.peers.probe import ProbeFailure, ProbeResult
from merkledb import EMPTY_ROOT
from merklesync.following.store_status import StoreStatus

STATUS_SENTENCES: Final[Mapping[SyncStatus, str]] = {
    SyncStatus.IN_SYNC: "the newest root that is followed is here",
    SyncStatus.PEERS_BEHIND: "no peer shows anything newer: each is behind, or has lost what it had; "
    "what is here stays, and is brought forward once a peer is ahead",
    SyncStatus.DIVERGED: "no peer shows what is here, and at least one shows another content under a "
    "revision that is or was here: it lost what it had and began again, or somebody else writes too; "
    "what is here stays, and is replaced if such a peer is followed and gets ahead",
    SyncStatus.FIRST_COPY: "all is copied for the first time; nothing can be read here until it is complete",
    SyncStatus.COPYING: "changes alone do not lead to the target, so content is copied in full; "
    "until that is done, the last complete root is shown",
    SyncStatus.CATCHING_UP: "changes lead to the target; "
    "until they are here, the last complete root is shown",
    SyncStatus.NO_PEER_KNOWS_TARGET: "the peers that answer have pruned the newest root, or never had it; "
    "what is here stays, and peers are asked again, or for a newer target",
    SyncStatus.PEERS_OVERLOADED: "every peer that answers is overloaded; what is here stays, "
    "and peers are tried again when they say",
    SyncStatus.NO_PEER_REACHABLE: "no peer answers; what is here stays, and peers are tried again",
    SyncStatus.NO_TARGET: "no peer shows a root to follow, and nobody has named one",
    SyncStatus.NO_ROOM: "nothing can be written here: free some room, and the replica goes on by itself; "
    "until then its last complete root is shown and served",
}


# How to a newer root, by whether the peer has the root that is shown here; None where it did not say.
_HOW_TO_CATCH_UP: Final = {
    True: ", changes lead there",
    False: ", and has not our root, so all is copied",
    None: "",
}


def status_sentence(status: SyncStatus) -> str:
    """Return a status as a person reads it: its word, and what it means for the store."""
    return f"{status}: {STATUS_SENTENCES[status]}"


def describe_peer_relation(store: StoreStatus, peer: ProbeResult | ProbeFailure) -> str:
    """Return how a peer stands to a store, in a few words."""
    if isinstance(peer, ProbeFailure):
        return peer.reason
    hello = peer.hello
    if peer.scheme != store.scheme:
        return f"serves {hello.hasher} with branch factor {hello.branch_factor}: not the scheme of this store"
    if hello.root is None:
        return "has no complete root to show"
    if store.shows(hello.root):
        if hello.revision > store.followed_revision and not store.is_local:
            return f"shows the same root under a higher revision, {hello.revision:,}"
        return "shows the same root"
    return f"{_describe_other(store, peer, hello.root)}: {_shown(hello.revision, hello.root)}"


def _describe_other(store: StoreStatus, peer: ProbeResult, root: bytes) -> str:
    """Return how a peer stands to a store that does not show its root."""
    revision = peer.hello.revision
    if store.known.get(revision, root) != root:
        return "has diverged: this revision has or had another content here"
    if peer.is_implausible:
        return "announces a revision that no honest store reaches"
    if revision < store.followed_revision:
        return "is behind, or has lost what it had"
    if revision == store.followed_revision:
        return "is not ahead, and shows another content"
    if store.is_first or store.head is None or store.head.root == EMPTY_ROOT:
        return "can be copied"
    return f"is ahead{_HOW_TO_CATCH_UP[peer.retains.get(store.head.root)]}"


def _shown(revision: int, root: bytes) -> str:
    return f"revision {revision:,}, root {root.hex()}"
