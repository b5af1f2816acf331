"""How a store stands to peers that were asked just now: a ``SyncStatus`` without a running manager.

A store says what it shows and what an unfinished sync goes to; peers say what they show.
``manager.status_of`` decides, so that ``status`` and a running ``follow`` never disagree about the same
facts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from manager import InvalidProgress, PeerStatusFacts, StatusFacts, SyncStatus, status_of
from manager.peers.probe import ProbeFailure, ProbeResult
from manager.scheduling.checkpoint import Checkpoint, decode_checkpoint
from manager.scheduling.pivot import Target
from merkledb import Database, Revision, Scheme


class StoreStatus(NamedTuple):
    """What a store says of itself, read at one moment.

    Attributes:
        scheme: Its scheme.
        head: What readers see; None while a first sync is unfinished.
        is_local: Whether its content was written here, so that its revision means nothing elsewhere.
        catching_up: Whether a sync is unfinished.
        checkpoint: How far that sync is; None where there is none, or where it cannot be read.
        revisions: What it retains, newest first.
    """

    scheme: Scheme
    head: Revision | None
    is_local: bool
    catching_up: bool = False
    checkpoint: Checkpoint | None = None
    revisions: Sequence[Revision] = ()

    @classmethod
    def read(cls, database: Database) -> "StoreStatus":
        """Return the state of an open store."""
        return cls(
            database.scheme,
            database.head,
            database.written_locally,
            database.catching_up,
            _checkpoint_of(database),
            database.revisions(),
        )

    @property
    def target(self) -> bytes | None:
        """The root that an unfinished sync goes to; None where there is none, or it is not known."""
        return None if self.checkpoint is None else self.checkpoint.target.root

    @property
    def known(self) -> dict[int, bytes]:
        """The retained roots by revision; none where the store gave the numbers itself."""
        if self.is_local:
            return {}
        return {revision.number: revision.root for revision in reversed(self.revisions)}

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


def _checkpoint_of(database: Database) -> Checkpoint | None:
    """Return how far an unfinished sync is; None where there is none, or it cannot be read."""
    progress = database.progress if database.catching_up else None
    if progress is None:
        return None
    try:
        return decode_checkpoint(progress, database.scheme.max_key_bytes)
    except InvalidProgress:
        # Another version of merklesync wrote it.  The next sync begins with what is there all the same.
        return None


def sync_status_of(store: StoreStatus, peers: Sequence[ProbeResult | ProbeFailure]) -> SyncStatus:
    """Return how a store stands to peers that it would follow, as what they say of themselves tells."""
    met = [peer for peer in peers if isinstance(peer, ProbeResult) and peer.scheme == store.scheme]
    target = _next_target(store, met)
    return status_of(
        StatusFacts(
            head=None if store.head is None else store.head.root,
            revision=store.followed_revision,
            is_first=store.is_first,
            has_target=target is not None,
            follows_heads=True,
            known=store.known,
            # Where they show it under a higher number, nothing has to be fetched; who follows takes it over.
            is_at_target=store.target is None and target is not None and store.shows(target.root),
            copies_in_full=not any(_has_changes_from(store, peer) for peer in met),
            peers=[_peer_facts(store, peer, None if target is None else target.root) for peer in peers],
        )
    )


def _next_target(store: StoreStatus, met: Sequence[ProbeResult]) -> Target | None:
    """Return where the store would go: to what is newer, or on to what it was on the way to, or nowhere."""
    newer = [
        Target(peer.hello.root, peer.hello.revision)
        for peer in met
        if peer.hello.root and peer.hello.revision > store.followed_revision and not peer.is_implausible
    ]
    if newer:
        return max(newer, key=lambda target: target.revision or 0)
    if store.target is not None:
        return Target(store.target)
    return None if store.is_first or store.head is None else Target(store.head.root)


def _has_changes_from(store: StoreStatus, peer: ProbeResult) -> bool:
    """Return whether a peer can send changes from what the store shows."""
    if store.head is None:
        return False
    return peer.hello.root == store.head.root or bool(peer.retains.get(store.head.root))


def _peer_facts(
    store: StoreStatus, peer: ProbeResult | ProbeFailure, target: bytes | None
) -> PeerStatusFacts:
    if isinstance(peer, ProbeFailure) or peer.scheme != store.scheme:
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
