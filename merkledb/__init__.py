"""An authenticated key-value store: a Merkle trie on LMDB that proves ranges and changes, and keeps history.

It knows no network.  Start reading with ``pure_fold``, the one function that everything else feeds a stream
to; then ``pure_verify``, ``trie``, ``prover``, ``merge_stream``, ``applier``; ``revisions``, ``log``,
``reader`` and ``change_verifier``; ``database`` is what users hold.
"""

from merkledb.check import root_of
from merkledb.database import Database
from merkledb.differences import Difference
from merkledb.errors import (
    BoundTooLong,
    CallerError,
    CorruptDatabase,
    DatabaseClosed,
    DatabaseFull,
    DatabaseInUse,
    DatabaseOutgrown,
    DatabaseReplaced,
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
from merkledb.formats.proof import MAX_PROOF_KEYS, Branch, ChangeProof, RangeProof
from merkledb.formats.scheme import EMPTY_ROOT, MAX_VALUE_BYTES, Scheme
from merkledb.history.revisions import (
    DEFAULT_HISTORY,
    MAX_FOREIGN_REVISION,
    MAX_HISTORY,
    MAX_NAMED_REVISION,
    MAX_REVISION,
    MAX_TIME,
    Revision,
)
from merkledb.kernel.choice import kernel_name
from merkledb.opening import open  # noqa: A004 - used as merkledb.open
from merkledb.proofs.change_verifier import VerifiedChanges
from merkledb.proofs.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS
from merkledb.proofs.range_verifier import VerifiedRange, verify_range
from merkledb.snapshot import Snapshot
from merkledb.view import View
from merkledb.writing.transaction import MAX_PROGRESS_BYTES, Batch

__all__ = [
    "DEFAULT_HISTORY",
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_KEYS",
    "EMPTY_ROOT",
    "MAX_FOREIGN_REVISION",
    "MAX_HISTORY",
    "MAX_NAMED_REVISION",
    "MAX_PROGRESS_BYTES",
    "MAX_PROOF_KEYS",
    "MAX_REVISION",
    "MAX_TIME",
    "MAX_VALUE_BYTES",
    "Batch",
    "BoundTooLong",
    "Branch",
    "CallerError",
    "ChangeProof",
    "CorruptDatabase",
    "Database",
    "DatabaseClosed",
    "DatabaseFull",
    "DatabaseInUse",
    "DatabaseOutgrown",
    "DatabaseReplaced",
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
