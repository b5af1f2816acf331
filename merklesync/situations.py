"""How a replica stands to its peers, in a sentence: what ``follow`` notes and ``status`` shows.

The words are ``manager.Situation``'s.  Each sentence says what becomes of what is here, for that is what a
person wants to know first when the other side is not what it was.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from manager import Facts, PeerFacts, Situation, situation_of
from merkledb import EMPTY_ROOT, Revision, Scheme
from merklesync.peers import MetPeer, Silence

SENTENCES: Final[Mapping[Situation, str]] = {
    Situation.IN_SYNC: "nothing newer is known",
    Situation.PEERS_BEHIND: "no peer shows anything newer: each is behind, or has lost what it had; "
    "what is here stays, and is brought forward once a peer is ahead",
    Situation.FIRST_COPY: "all is copied for the first time; nothing can be read here until it is complete",
    Situation.COPYING: "changes alone do not lead to the target, so content is copied in full; "
    "until that is done, the last complete root is shown",
    Situation.CATCHING_UP: "changes lead to the target; until they are here, the last complete root is shown",
    Situation.NO_PEER_KNOWS_TARGET: "the peers that answer have pruned the target, or never had it; "
    "what is here stays, and peers are asked again, or for a newer target",
    Situation.NO_PEER_REACHABLE: "no peer answers; what is here stays, and peers are tried again",
    Situation.NO_TARGET: "no peer shows a root to follow, and nobody has named one",
}


# How to a newer root, by whether the peer has the root that is shown here; None where it did not say.
_WAYS: Final = {True: ", changes lead there", False: ", and has not our root, so all is copied", None: ""}


def sentence(situation: Situation) -> str:
    """Return a situation as a person reads it."""
    return f"{situation}: {SENTENCES[situation]}"


class Replica(NamedTuple):
    """What a store says of itself.

    Attributes:
        scheme: Its scheme.
        head: What it shows; None while a first sync is unfinished.
        is_local: Whether its content was written here, so that its revision means nothing elsewhere.
        target: What an unfinished sync is on the way to; None where there is none, or it is not known.
    """

    scheme: Scheme
    head: Revision | None
    is_local: bool
    target: bytes | None

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


def replica_situation(replica: Replica, peers: Sequence[MetPeer | Silence]) -> Situation:
    """Return how a store stands to peers that it would follow, as what they say of themselves tells."""
    met = [peer for peer in peers if isinstance(peer, MetPeer) and peer.scheme == replica.scheme]
    target = _target(replica, met)
    return situation_of(
        Facts(
            head=None if replica.head is None else replica.head.root,
            revision=replica.followed_revision,
            is_first=replica.is_first,
            has_target=target is not None,
            is_at_target=replica.target is None and target is not None and _shows(replica, target),
            copies_in_full=not any(_leads_there(replica, peer) for peer in met),
            peers=[_facts(replica, peer, target) for peer in peers],
        )
    )


def _shows(replica: Replica, root: bytes) -> bool:
    return replica.head is not None and replica.head.root == root


def _target(replica: Replica, met: Sequence[MetPeer]) -> bytes | None:
    """Return where the store would go: to what is newer, or on to what it was on the way to, or nowhere."""
    newer = [
        peer.hello
        for peer in met
        if peer.hello.root and peer.hello.revision > replica.followed_revision and not peer.is_implausible
    ]
    if newer:
        return max(newer, key=lambda hello: hello.revision).root
    if replica.target is not None:
        return replica.target
    return None if replica.is_first or replica.head is None else replica.head.root


def _leads_there(replica: Replica, peer: MetPeer) -> bool:
    """Return whether a peer can send changes from what the store shows."""
    return replica.head is not None and bool(peer.retains.get(replica.head.root))


def _facts(replica: Replica, peer: MetPeer | Silence, target: bytes | None) -> PeerFacts:
    if isinstance(peer, Silence) or peer.scheme != replica.scheme:
        return PeerFacts(
            is_connected=False, has_failed=True, lacks_target=False, is_followed=False, root=None, revision=0
        )
    root = peer.hello.root
    return PeerFacts(
        is_connected=True,
        has_failed=False,
        lacks_target=target is not None and root != target and peer.retains.get(target) is False,
        # It was asked this very moment.
        is_followed=True,
        root=root,
        revision=peer.hello.revision,
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
        return "shows the same root"
    if peer.is_implausible:
        return f"announces a revision that no honest store reaches: {_shown(hello.revision, hello.root)}"
    if hello.revision < replica.followed_revision:
        return f"is behind, or has lost what it had: {_shown(hello.revision, hello.root)}"
    if hello.revision == replica.followed_revision:
        return f"is not ahead, and shows another content: {_shown(hello.revision, hello.root)}"
    if replica.is_first or replica.head is None or replica.head.root == EMPTY_ROOT:
        return f"can be copied: {_shown(hello.revision, hello.root)}"
    way = _WAYS[peer.retains.get(replica.head.root)]
    return f"is ahead{way}: {_shown(hello.revision, hello.root)}"


def _shown(revision: int, root: bytes) -> str:
    return f"revision {revision:,}, root {root.hex()}"
