"""An authenticated key-value store: a Merkle trie on LMDB that proves ranges and applies verified ones.

It knows no network.  Start reading with ``fold``, the one function that everything else feeds a stream to;
then ``verifier``, ``trie``, ``prover``, ``changes``, ``writer``; ``database`` is what users hold.
"""

from merkledb.database import MAX_PROGRESS_BYTES, Batch, Database, open  # noqa: A004 - used as merkledb.open
from merkledb.errors import (
    CallerError,
    CorruptDatabase,
    DatabaseClosed,
    DatabaseFull,
    DatabaseInUse,
    FormatTooNew,
    InvalidProof,
    InvalidRange,
    KeyTooLong,
    LimitTooSmall,
    MerkleDBError,
    NotADatabase,
    OpenError,
    ReadonlyDatabase,
    Reason,
    SchemeMismatch,
    TooManyReaders,
    ValueTooLong,
)
from merkledb.mapping import root_of
from merkledb.proof import MAX_PROOF_KEYS, Branch, RangeProof
from merkledb.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS
from merkledb.scheme import EMPTY_ROOT, MAX_VALUE_BYTES, Scheme
from merkledb.snapshot import Snapshot
from merkledb.verifier import VerifiedRange, verify_range

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_KEYS",
    "EMPTY_ROOT",
    "MAX_PROGRESS_BYTES",
    "MAX_PROOF_KEYS",
    "MAX_VALUE_BYTES",
    "Batch",
    "Branch",
    "CallerError",
    "CorruptDatabase",
    "Database",
    "DatabaseClosed",
    "DatabaseFull",
    "DatabaseInUse",
    "FormatTooNew",
    "InvalidProof",
    "InvalidRange",
    "KeyTooLong",
    "LimitTooSmall",
    "MerkleDBError",
    "NotADatabase",
    "OpenError",
    "RangeProof",
    "ReadonlyDatabase",
    "Reason",
    "Scheme",
    "SchemeMismatch",
    "Snapshot",
    "TooManyReaders",
    "ValueTooLong",
    "VerifiedRange",
    "open",
    "root_of",
    "verify_range",
]
