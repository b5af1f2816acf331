"""A process that serves a store and counts: ``python -m tests.support.serve_process STORE COUNTS``.

It prints the port it listens at, appends the number of pairs of each proof it makes to the file COUNTS, a
line each, and serves until it is killed.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import trio

import merkledb
from merkledb import ChangeProof, Database, RangeProof, Revision, Snapshot
from server import Server, addresses_of, open_listeners


class CountingDatabase(Database):
    """A database that writes down how many pairs each of its proofs holds."""

    def __init__(self, database: Database, counts: TextIO) -> None:
        self._database = database
        self._counts = counts
        self.scheme = database.scheme

    @property
    def head(self) -> Revision | None:
        return self._database.head

    @contextmanager
    def at(self, root: bytes) -> Iterator["CountingSnapshot"]:  # type: ignore[override]  # a wrapper
        with self._database.at(root) as snapshot:
            yield CountingSnapshot(snapshot, self._counts)

    def prove_changes(
        self,
        old: bytes,
        new: bytes,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = 1,
        max_bytes: int = 1,
    ) -> ChangeProof:
        proof = self._database.prove_changes(old, new, start, end, max_keys=max_keys, max_bytes=max_bytes)
        write_down(self._counts, proof)
        return proof


class CountingSnapshot:
    """A snapshot of a CountingDatabase."""

    def __init__(self, snapshot: Snapshot, counts: TextIO) -> None:
        self._snapshot = snapshot
        self._counts = counts
        self.is_tip = snapshot.is_tip

    def check_proof(self, proof: RangeProof, start: bytes | None = None, end: bytes | None = None) -> None:
        self._snapshot.check_proof(proof, start, end)

    def prove_range(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = 1,
        max_bytes: int = 1,
    ) -> RangeProof:
        proof = self._snapshot.prove_range(start, end, max_keys=max_keys, max_bytes=max_bytes)
        write_down(self._counts, proof)
        return proof


def write_down(counts: TextIO, proof: RangeProof | ChangeProof) -> None:
    counts.write(f"{len(proof.keys)}\n")
    counts.flush()


async def main(store: str, counts: TextIO) -> None:
    with merkledb.open(store, readonly=True) as database:
        listeners = await open_listeners("127.0.0.1", 0)
        print(addresses_of(listeners)[0][1], flush=True)  # noqa: T201 - the parent waits for it.
        await Server(CountingDatabase(database, counts)).serve(listeners)


if __name__ == "__main__":
    with open(sys.argv[2], "a") as counts:  # noqa: PTH123 - a path is all that the command line gives.
        trio.run(main, sys.argv[1], counts)
