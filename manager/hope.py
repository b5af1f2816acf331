"""What is still to be expected of the peers together: a newer root, or the error that says why nothing is.

Pure.
"""

from collections.abc import Sequence

from manager.errors import (
    ConnectionLost,
    NoPeersLeft,
    PairTooLarge,
    PeerFailure,
    PeerRefused,
    PeersOverloaded,
    PeerUnreachable,
    ProofRejected,
    RequestTimeout,
    RootUnavailable,
    TargetGone,
    ValueTooLargeForPeer,
    VerificationFailed,
)
from manager.scheduling.pivot import Target
from manager.status.progress import SeenHead


def newest_announced(heads: Sequence[SeenHead], above: int) -> Target | None:
    """Return the head with the highest revision; None when none is complete with a revision ``above``."""
    complete = [
        (head.revision, head.root) for head in heads if head.root is not None and head.revision > above
    ]
    if not complete:
        return None
    revision, root = max(complete)
    return Target(root, revision)


def no_peers_left(failures: tuple[PeerFailure, ...]) -> NoPeersLeft:
    """Return the error for a sync in which nothing is expected of any peer: the kind that says most."""
    for name, error in failures:
        if isinstance(error, ProofRejected):
            return VerificationFailed(failures, name, error.reason)
    for _, error in failures:
        if isinstance(error, ValueTooLargeForPeer):
            return PairTooLarge(failures, error.needed_bytes, error.max_bytes)
    if any(isinstance(error, RootUnavailable) for _, error in failures):
        return TargetGone(failures)
    lost = [isinstance(error, ConnectionLost | RequestTimeout) for _, error in failures]
    if all(lost):
        return PeerUnreachable(failures)
    overloaded = [isinstance(error, PeerRefused) and error.is_overload for _, error in failures]
    if all(map(any, zip(lost, overloaded, strict=True))):
        return PeersOverloaded(failures)
    return NoPeersLeft(failures)
