"""The manager of syncs: makes a database the verified copy of a root, from peers that it does not trust.

Start reading with ``manager``, which ties the parts together; then ``ledger``, ``session``, ``fetch`` and
``writer``.
"""

from manager.errors import (
    ClaimNotKept,
    ConnectionLost,
    GaveWay,
    InvalidProgress,
    LocalContent,
    NoPeersLeft,
    PairRefused,
    PairTooLarge,
    PeerError,
    PeerFailure,
    PeerMisbehaved,
    PeerRefused,
    PeerUnreachable,
    ProofRejected,
    RequestTimeout,
    SchemeDiffers,
    SyncError,
    TargetUnknown,
    VerificationFailed,
    WrongRoot,
)
from manager.limits import Limits
from manager.manager import Manager
from manager.peer import Peer, PeerAddress
from manager.processor import OneThread, Processor
from manager.progress import PeerProgress, PeerState, Progress, ProgressStream

__all__ = [
    "ClaimNotKept",
    "ConnectionLost",
    "GaveWay",
    "InvalidProgress",
    "Limits",
    "LocalContent",
    "Manager",
    "NoPeersLeft",
    "OneThread",
    "PairRefused",
    "PairTooLarge",
    "Peer",
    "PeerAddress",
    "PeerError",
    "PeerFailure",
    "PeerMisbehaved",
    "PeerProgress",
    "PeerRefused",
    "PeerState",
    "PeerUnreachable",
    "Processor",
    "Progress",
    "ProgressStream",
    "ProofRejected",
    "RequestTimeout",
    "SchemeDiffers",
    "SyncError",
    "TargetUnknown",
    "VerificationFailed",
    "WrongRoot",
]
