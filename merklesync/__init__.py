"""merklesync: key-value stores that prove what they hold, and verified copies of them.

This is the face: the names that most users need, from the packages that do the work.  A program imports them
from here, or from ``merkledb`` where it needs no network: ``server`` and ``manager`` are names that it may
want for modules of its own.

- ``merkledb``: the store, its roots and its proofs;
- ``syncproto``: the protocol, without I/O;
- ``server``: serves a store to all that connect;
- ``manager``: copies a store from servers that need not be trusted, and keeps the copy current.

The command line is in ``cli``.
"""

import sys
from pathlib import Path

from merklesync.packages import (
    HiddenPackage,
    is_command,
    leave_when_interrupted,
    raise_when_interrupted,
    require_own_packages,
)

try:
    leave_when_interrupted()
    require_own_packages(Path(__file__).parent.parent)
except HiddenPackage as error:
    # The command shows one line; a program that imports this package gets the exception.
    if is_command():
        sys.exit(f"Error: {error}")
    raise

from manager import Limits, Manager, Peer, PeerState, Progress, Reached, SyncError, SyncStatus
from merkledb import (
    EMPTY_ROOT,
    ChangeProof,
    Database,
    Difference,
    InvalidProof,
    MerkleDBError,
    RangeProof,
    Revision,
    Scheme,
    Snapshot,
    VerifiedChanges,
    VerifiedRange,
    View,
    open,  # noqa: A004 - the verb of merkledb, used as merklesync.open
    root_of,
    verify_range,
)
from server import Server, ServerError, ServerLimits, addresses_of, open_listeners, serve

raise_when_interrupted()

__all__ = [
    "EMPTY_ROOT",
    "ChangeProof",
    "Database",
    "Difference",
    "HiddenPackage",
    "InvalidProof",
    "Limits",
    "Manager",
    "MerkleDBError",
    "Peer",
    "PeerState",
    "Progress",
    "RangeProof",
    "Reached",
    "Revision",
    "Scheme",
    "Server",
    "ServerError",
    "ServerLimits",
    "Snapshot",
    "SyncError",
    "SyncStatus",
    "VerifiedChanges",
    "VerifiedRange",
    "View",
    "addresses_of",
    "open",
    "open_listeners",
    "root_of",
    "serve",
    "verify_range",
]
