"""What tests of history share: how a state is compared with its model, and databases in a hurry.

A *state* is whatever has a root and is read: a database at its head, a snapshot, a view.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import merkledb.differences
import merkledb.history.log
import merkledb.history.reader
import merkledb.history.rows
import merkledb.proofs.verified_reads
import merkledb.writing.applier
from merkledb import Database, LimitTooSmall, Scheme, Snapshot, View
from tests.support import oracle
from tests.support.oracle import Contents
from tests.support.proof_verdicts import Bound, proof_of

Reader = Database | Snapshot | View


class Request(NamedTuple):
    """What a range proof is asked for with."""

    start: Bound = None
    end: Bound = None
    max_keys: int = 4096
    max_bytes: int = 1 << 20

    def answer(self, reader: Reader) -> bytes:
        """The bytes of the proof, or how many bytes it would need."""
        try:
            proof = reader.prove_range(self.start, self.end, max_keys=self.max_keys, max_bytes=self.max_bytes)
        except LimitTooSmall as error:
            return b"needs %d bytes" % error.needed_bytes
        return proof.encode()


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


# What is cut into pieces of so many rows, and of so many bytes.
ROWS = {
    merkledb.history.rows: ("_WINDOW_ROWS", "_LEAST_WINDOW_ROWS", "_SMALL_WINDOW_ROWS"),
    merkledb.differences: ("_WINDOW_ROWS",),
    merkledb.writing.applier: ("_STRETCH_ROWS",),
    merkledb.proofs.verified_reads: ("_STRETCH_PAIRS", "FIRST_ROWS"),
}
BYTES = {
    merkledb.history.rows: ("_WINDOW_BYTES",),
    merkledb.differences: ("_WINDOW_BYTES",),
    merkledb.writing.applier: ("_STRETCH_BYTES",),
}


@contextlib.contextmanager
def small_windows(
    rows: int, size: int = 1 << 20, pruned_rows: int = 4096, retained: int = 8
) -> Iterator[None]:
    """Make a small store need what a large one needs: many windows to read through, many steps to prune."""
    with pytest.MonkeyPatch.context() as patch:
        for names_of, limit in ((ROWS, rows), (BYTES, size)):
            for module, names in names_of.items():
                for name in names:
                    patch.setattr(module, name, limit)
        patch.setattr(merkledb.history.log, "_PRUNED_ROWS", pruned_rows)
        patch.setattr(merkledb.history.revisions, "MIN_RETAINED_REVISIONS", retained)
        yield


def assert_reads_as(reader: Reader, model: Contents, scheme: Scheme) -> None:
    """Fail unless a state has this content: its root, its pairs in order and in reverse, each by its key."""
    assert reader.root == oracle.root_of(model, scheme)
    assert len(reader) == len(model)
    pairs = sorted(model.items())
    assert list(reader.items()) == pairs
    assert list(reader.items(reverse=True)) == pairs[::-1]
    assert all(reader.get(key) == value and reader[key] == value and key in reader for key, value in pairs)
    if not isinstance(reader, Database):
        assert list(reader.folded_items()) == pairs
        assert list(reader.verified_items()) == pairs
        assert all(reader.verified_get(key) == value for key, value in pairs)


def assert_reads_range_as(reader: Reader, model: Contents, start: Bound, end: Bound) -> None:
    expected = list(oracle.pairs_in(model, start, end).items())
    assert list(reader.items(start, end)) == expected
    assert list(reader.items(start, end, reverse=True)) == expected[::-1]
    if not isinstance(reader, Database):
        assert list(reader.verified_items(start, end)) == expected
        assert list(reader.verified_items(start, end, reverse=True)) == expected[::-1]
        for key in (start, end):
            assert key is None or reader.verified_get(key) == model.get(key)


def assert_proves_as(reader: Reader, model: Contents, scheme: Scheme, start: Bound, end: Bound) -> None:
    """Fail unless the proofs of a range and of its bounds are, byte by byte, those of the model."""
    assert reader.prove_range(start, end).encode() == proof_of(model, scheme, start, end).encode()
    assert reader.prove_range(start, end, max_keys=1) == proof_of(model, scheme, start, end, 1)
    for key in (start, end):
        if key is not None:
            assert reader.prove(key).encode() == proof_of(model, scheme, key, key).encode()
