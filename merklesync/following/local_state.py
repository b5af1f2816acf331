"""How a store stands to peers that were asked just now: a ``SyncStatus`` without a running manager.

A store says what it shows and what an unfinished sync goes to; peers say what they show.
``manager.status_of`` decides, so that ``status`` and a running ``follow`` never disagree about the same
facts.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from manager import PeerStatusFacts, StatusFacts, SyncStatus, status_of
from manager.scheduling.pivot import Target
from merkledb import Revision, Scheme
from merklesync.following.peers import ProbeFailure, ProbeResult


class LocalState(NamedTuple):
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

    def shows(self, root: bytes) -> bool:
        """Return whether readers of the store see this root."""
        return self.head is not None and self.head.root == root


def sync_status_of(replica: LocalState, peers: Sequence[ProbeResult | ProbeFailure]) -> SyncStatus:
    """Return how a store stands to peers that it would follow, as what they say of themselves tells."""
    met = [peer for peer in peers if isinstance(peer, ProbeResult) and peer.scheme == replica.scheme]
    target = _next_target(replica, met)
    return status_of(
        StatusFacts(
            head=None if replica.head is None else replica.head.root,
            revision=replica.followed_revision,
            is_first=replica.is_first,
            has_target=target is not None,
            follows_heads=True,
            known=replica.known,
            is_at_target=replica.target is None and target is not None and _is_at(replica, target),
            copies_in_full=not any(_has_changes_from(replica, peer) for peer in met),
            peers=[_peer_facts(replica, peer, None if target is None else target.root) for peer in peers],
        )
    )


def _is_at(replica: LocalState, target: Target) -> bool:
    """Return whether a store shows a root, under a number that is not lower; its own numbers say nothing."""
    has_number = replica.is_local or replica.followed_revision >= (target.revision or 0)
    return has_number and replica.shows(target.root)


def _next_target(replica: LocalState, met: Sequence[ProbeResult]) -> Target | None:
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


def _has_changes_from(replica: LocalState, peer: ProbeResult) -> bool:
    """Return whether a peer can send changes from what the store shows."""
    if replica.head is None:
        return False
    return peer.hello.root == replica.head.root or bool(peer.retains.get(replica.head.root))


def _peer_facts(
    replica: LocalState, peer: ProbeResult | ProbeFailure, target: bytes | None
) -> PeerStatusFacts:
    if isinstance(peer, ProbeFailure) or peer.scheme != replica.scheme:
        return PeerStatusFacts(
            is_connected=False,
            has_failed=True,
            lacks_target=False,
            is_followed=False,
            root=None,
            revision=0,
            is_overloaded=isinstance(peer, ProbeFailure) and peer.is_overload,
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
