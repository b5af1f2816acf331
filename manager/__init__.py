"""The manager of syncs: makes a database the verified copy of a root, from peers that it does not trust.

Start reading with ``manager``, which ties the parts together; then ``targets``, ``pivot``, ``scheduler``,
``peer_session``, ``fetcher`` and ``sync_writer``.
"""

from manager.errors import (
    ConnectionLost,
    HeadImplausible,
    InvalidProgress,
    LocalContent,
    MachineExhausted,
    NoPeersLeft,
    PairTooLarge,
    PeerError,
    PeerFailure,
    PeerMisbehaved,
    PeerNotReady,
    PeerRefused,
    PeersOverloaded,
    PeerUnreachable,
    Preempted,
    ProofRejected,
    ProofSuspected,
    RequestTimeout,
    RootUnavailable,
    SchemeDiffers,
    SizeClaimBroken,
    SyncError,
    TargetGone,
    ValueTooLargeForPeer,
    VerificationFailed,
    WrongRoot,
)
from manager.executor import SerialExecutor
from manager.limits import Limits
from manager.manager import Manager
from manager.peers.address import Peer, PeerAddress
from manager.status.progress import PeerProgress, PeerState, Progress, ProgressStream, Reached, ReachedStream
from manager.status.status import PeerStatusFacts, StatusFacts, SyncStatus, status_of

__all__ = [
    "ConnectionLost",
    "HeadImplausible",
    "InvalidProgress",
    "Limits",
    "LocalContent",
    "MachineExhausted",
    "Manager",
    "NoPeersLeft",
    "PairTooLarge",
    "Peer",
    "PeerAddress",
    "PeerError",
    "PeerFailure",
    "PeerMisbehaved",
    "PeerNotReady",
    "PeerProgress",
    "PeerRefused",
    "PeerState",
    "PeerStatusFacts",
    "PeerUnreachable",
    "PeersOverloaded",
    "Preempted",
    "Progress",
    "ProgressStream",
    "ProofRejected",
    "ProofSuspected",
    "Reached",
    "ReachedStream",
    "RequestTimeout",
    "RootUnavailable",
    "SchemeDiffers",
    "SerialExecutor",
    "SizeClaimBroken",
    "StatusFacts",
    "SyncError",
    "SyncStatus",
    "TargetGone",
    "ValueTooLargeForPeer",
    "VerificationFailed",
    "WrongRoot",
    "status_of",
]
