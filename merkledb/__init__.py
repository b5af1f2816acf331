"""An authenticated key-value store: a Merkle trie on LMDB that proves ranges and changes, and keeps history.

It knows no network.  Start reading with ``fold``, the one function that everything else feeds a stream to;
then ``verifier``, ``trie``, ``prover``, ``changes``, ``writer``; ``revisions``, ``history``, ``past`` and
``change_verifier``; ``database`` is what users hold.
"""

from merkledb.batch import Batch
from merkledb.change_prover import Difference
from merkledb.change_verifier import VerifiedChanges
from merkledb.database import MAX_PROGRESS_BYTES, Database
from merkledb.errors import (
    CallerError,
    CorruptDatabase,
    DatabaseClosed,
    DatabaseFull,
    DatabaseInUse,
    DatabaseOutgrown,
    ForkedDatabase,
    FormatTooNew,
    FormatTooOld,
    HistoryGone,
    ImplausibleTime,
    InvalidProof,
    InvalidRange,
    KernelMissing,
    KeyTooLong,
    LimitTooSmall,
    MerkleDBError,
    NoCompleteRoot,
    NotADatabase,
    OpenError,
    PicklableError,
    ReadonlyDatabase,
    Reason,
    RevisionTooHigh,
    SchemeMismatch,
    StaleChanges,
    StaleView,
    StoreFailed,
    SyncUnfinished,
    TooManyReaders,
    UnknownRoot,
    ValueTooLong,
)
from merkledb.kernel import kernel_name
from merkledb.mapping import root_of
from merkledb.opening import open  # noqa: A004 - used as merkledb.open
from merkledb.proof import MAX_PROOF_KEYS, Branch, ChangeProof, RangeProof
from merkledb.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS
from merkledb.revisions import DEFAULT_HISTORY, MAX_FOREIGN_REVISION, MAX_REVISION, Revision
from merkledb.scheme import EMPTY_ROOT, MAX_VALUE_BYTES, Scheme
from merkledb.snapshot import Snapshot
from merkledb.verifier import VerifiedRange, verify_range
from merkledb.view import View

__all__ = [
    "DEFAULT_HISTORY",
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_KEYS",
    "EMPTY_ROOT",
    "MAX_FOREIGN_REVISION",
    "MAX_PROGRESS_BYTES",
    "MAX_PROOF_KEYS",
    "MAX_REVISION",
    "MAX_VALUE_BYTES",
    "Batch",
    "Branch",
    "CallerError",
    "ChangeProof",
    "CorruptDatabase",
    "Database",
    "DatabaseClosed",
    "DatabaseFull",
    "DatabaseInUse",
    "DatabaseOutgrown",
    "Difference",
    "ForkedDatabase",
    "FormatTooNew",
    "FormatTooOld",
    "HistoryGone",
    "ImplausibleTime",
    "InvalidProof",
    "InvalidRange",
    "KernelMissing",
    "KeyTooLong",
    "LimitTooSmall",
    "MerkleDBError",
    "NoCompleteRoot",
    "NotADatabase",
    "OpenError",
    "PicklableError",
    "RangeProof",
    "ReadonlyDatabase",
    "Reason",
    "Revision",
    "RevisionTooHigh",
    "Scheme",
    "SchemeMismatch",
    "Snapshot",
    "StaleChanges",
    "StaleView",
    "StoreFailed",
    "SyncUnfinished",
    "TooManyReaders",
    "UnknownRoot",
    "ValueTooLong",
    "VerifiedChanges",
    "VerifiedRange",
    "View",
    "kernel_name",
    "open",
    "root_of",
    "verify_range",
]
