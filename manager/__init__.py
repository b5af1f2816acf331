"""The manager of syncs: makes a database the verified copy of a root, from peers that it does not trust.

Start reading with ``manager``, which ties the parts together; then ``goals``, ``ledger``, ``session``,
``fetch`` and ``writer``.
"""

from manager.errors import (
    ClaimNotKept,
    ConnectionLost,
    GaveWay,
    HeadImplausible,
    InvalidProgress,
    LocalContent,
    NoPeersLeft,
    NothingToShow,
    PairRefused,
    PairTooLarge,
    PeerError,
    PeerFailure,
    PeerMisbehaved,
    PeerRefused,
    PeerUnreachable,
    ProofDoubted,
    ProofRejected,
    RequestTimeout,
    RootLacking,
    SchemeDiffers,
    SyncError,
    TargetGone,
    VerificationFailed,
    WrongRoot,
)
from manager.limits import Limits
from manager.manager import Manager
from manager.peer import Peer, PeerAddress
from manager.processor import OneThread, Processor
from manager.progress import PeerProgress, PeerState, Progress, ProgressStream, Reached, ReachedStream
from manager.situation import Facts, PeerFacts, Situation, situation_of

__all__ = [
    "ClaimNotKept",
    "ConnectionLost",
    "Facts",
    "GaveWay",
    "HeadImplausible",
    "InvalidProgress",
    "Limits",
    "LocalContent",
    "Manager",
    "NoPeersLeft",
    "NothingToShow",
    "OneThread",
    "PairRefused",
    "PairTooLarge",
    "Peer",
    "PeerAddress",
    "PeerError",
    "PeerFacts",
    "PeerFailure",
    "PeerMisbehaved",
    "PeerProgress",
    "PeerRefused",
    "PeerState",
    "PeerUnreachable",
    "Processor",
    "Progress",
    "ProgressStream",
    "ProofDoubted",
    "ProofRejected",
    "Reached",
    "ReachedStream",
    "RequestTimeout",
    "RootLacking",
    "SchemeDiffers",
    "Situation",
    "SyncError",
    "TargetGone",
    "VerificationFailed",
    "WrongRoot",
    "situation_of",
]
