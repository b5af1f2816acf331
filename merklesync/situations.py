"""How a replica stands to its peers, in a sentence: what ``follow`` notes and ``status`` shows.

The words are ``manager.SyncStatus``'s.  Each sentence says what becomes of what is here, for that is what a
person wants to know first when the other side is not what it was.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from manager import PeerStatusFacts, StatusFacts, SyncStatus, status_of
from manager.scheduling.pivot import Target
from merkledb import EMPTY_ROOT, Revision, Scheme
from merklesync.peers import MetPeer, Silence

SENTENCES: Final[Mapping[SyncStatus, str]] = {
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
    SyncStatus.NO_ROOM: "nothing can be written here; what is here stays, and writing is tried again once "
    "there is room: free some",
}


# How to a newer root, by whether the peer has the root that is shown here; None where it did not say.
_WAYS: Final = {True: ", changes lead there", False: ", and has not our root, so all is copied", None: ""}


def sentence(status: SyncStatus) -> str:
    """Return a situation as a person reads it."""
    return f"{status}: {SENTENCES[status]}"


class Replica(NamedTuple):
    """What a store says of itself.

    Attributes:
        scheme: Its scheme.
        head: What it shows; None while a first sync is unfinished.
        is_local: Whether its content was written here, so that its revision means nothing elsewhere.
        target: What an unfinished sync is on the way to; None where there is none, or it is not known.
        known: The roots of the revisions that it retains, by their numbers; none where it gave these itself.
    """

    scheme: Scheme
    head: Revision | None
    is_local: bool
    target: bytes | None
    known: Mapping[int, bytes] = MappingProxyType({})

    @property
    def followed_revision(self) -> int:
        """Above which revision a peer has something newer."""
        return 0 if self.head is None or self.is_local else self.head.number

    @property
    def is_first(self) -> bool:
        """Whether it never had a content."""
        return self.head is None or self.head.number == 0

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of which it matters whether a peer has them."""
        shown = () if self.is_first or self.head is None else (self.head.root,)
        return shown if self.target is None else (*shown, self.target)


def replica_situation(replica: Replica, peers: Sequence[MetPeer | Silence]) -> SyncStatus:
    """Return how a store stands to peers that it would follow, as what they say of themselves tells."""
    met = [peer for peer in peers if isinstance(peer, MetPeer) and peer.scheme == replica.scheme]
    target = _target(replica, met)
    return status_of(
        StatusFacts(
            head=None if replica.head is None else replica.head.root,
            revision=replica.followed_revision,
            is_first=replica.is_first,
            has_target=target is not None,
            follows_heads=True,
            known=replica.known,
            is_at_target=replica.target is None and target is not None and _is_at(replica, target),
            copies_in_full=not any(_leads_there(replica, peer) for peer in met),
            peers=[_facts(replica, peer, None if target is None else target.root) for peer in peers],
        )
    )


def _is_at(replica: Replica, target: Target) -> bool:
    """Return whether a store shows a root, under a number that is not lower; its own numbers say nothing."""
    has_number = replica.is_local or replica.followed_revision >= (target.revision or 0)
    return has_number and _shows(replica, target.root)


def _shows(replica: Replica, root: bytes) -> bool:
    return replica.head is not None and replica.head.root == root


def _target(replica: Replica, met: Sequence[MetPeer]) -> Target | None:
    """Return where the store would go: to what is newer, or on to what it was on the way to, or nowhere."""
    newer = [
        Target(peer.hello.root, peer.hello.revision)
        for peer in met
        if peer.hello.root and peer.hello.revision > replica.followed_revision and not peer.is_implausible
    ]
    if newer:
        return max(newer, key=lambda target: target.revision or 0)
    if replica.target is not None:
        return Target(replica.target)
    return None if replica.is_first or replica.head is None else Target(replica.head.root)


def _leads_there(replica: Replica, peer: MetPeer) -> bool:
    """Return whether a peer can send changes from what the store shows."""
    if replica.head is None:
        return False
    return peer.hello.root == replica.head.root or bool(peer.retains.get(replica.head.root))


def _facts(replica: Replica, peer: MetPeer | Silence, target: bytes | None) -> PeerStatusFacts:
    if isinstance(peer, Silence) or peer.scheme != replica.scheme:
        return PeerStatusFacts(
            is_connected=False,
            has_failed=True,
            lacks_target=False,
            is_followed=False,
            root=None,
            revision=0,
            is_overloaded=isinstance(peer, Silence) and peer.is_overload,
        )
    root = peer.hello.root
    return PeerStatusFacts(
        is_connected=True,
        has_failed=False,
        lacks_target=target is not None and root != target and peer.retains.get(target) is False,
        # It was asked this very moment; a head that no honest store has is taken for none.
        is_followed=not peer.is_implausible,
        root=None if peer.is_implausible else root,
        revision=0 if peer.is_implausible else peer.hello.revision,
    )


def describe_standing(replica: Replica, peer: MetPeer | Silence) -> str:
    """Return how a peer stands to a store, in a few words."""
    if isinstance(peer, Silence):
        return peer.reason
    hello = peer.hello
    if peer.scheme != replica.scheme:
        return f"serves {hello.hasher} with branch factor {hello.branch_factor}: not the scheme of this store"
    if hello.root is None:
        return "has no complete root to show"
    if _shows(replica, hello.root):
        if hello.revision > replica.followed_revision and not replica.is_local:
            return f"shows the same root under a higher revision, {hello.revision:,}"
        return "shows the same root"
    return f"{_describe_other(replica, peer, hello.root)}: {_shown(hello.revision, hello.root)}"


def _describe_other(replica: Replica, peer: MetPeer, root: bytes) -> str:
    """Return how a peer stands to a store that does not show its root."""
    revision = peer.hello.revision
    if replica.known.get(revision, root) != root:
        return "has diverged: this revision has or had another content here"
    if peer.is_implausible:
        return "announces a revision that no honest store reaches"
    if revision < replica.followed_revision:
        return "is behind, or has lost what it had"
    if revision == replica.followed_revision:
        return "is not ahead, and shows another content"
    if replica.is_first or replica.head is None or replica.head.root == EMPTY_ROOT:
        return "can be copied"
    return f"is ahead{_WAYS[peer.retains.get(replica.head.root)]}"


def _shown(revision: int, root: bytes) -> str:
    return f"revision {revision:,}, root {root.hex()}"
