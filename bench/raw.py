"""What this machine and these libraries reach without a trie: the measure of what a trie costs.

Two things are raw.  ``append_raw`` and ``put_raw`` write the pairs of a load or a commit into one LMDB table,
in the same transactions.  The raw copy, ``RawServer`` and ``RawClient``, is a sync without proofs and hashes:
the server reads the rows of a store's values and sends them as the ``proof`` of ordinary ``range`` frames;
the client asks through the manager's own client and writes in transactions of the manager's size.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb
import msgpack
import trio

import merkledb
from manager import Limits, SerialExecutor
from manager.limits import PAIR_OVERHEAD_BYTES
from manager.peers.client import PeerClient
from merkledb.storage.store import LMDB_VERSION, key_of_row, put_sorted, seek
from syncproto import MAX_FRAME_BYTES, Connection, GetRange, Hello, Range, Role, encode

# Address space, not disk: more than any benchmark writes.
MAP_BYTES: Final = 1 << 36
# As many as a store of merkledb has, and more.
_MAX_TABLES: Final = 16
_RECEIVE_BYTES: Final = 1 << 16
# More than the manager has in flight to one peer.
_MAX_REQUESTS: Final = 16
_LIMITS: Final = Limits()
# What each side says first; a client serves nothing.
_CLIENT_HELLO: Final = Hello(
    hasher="blake3", branch_factor=16, root=merkledb.EMPTY_ROOT, revision=0, max_frame_bytes=MAX_FRAME_BYTES
)
_SERVER_HELLO: Final = replace(
    _CLIENT_HELLO, max_keys=_LIMITS.max_keys, max_bytes=MAX_FRAME_BYTES // 2, max_requests=_MAX_REQUESTS
)

Columns = tuple[tuple[bytes, ...], tuple[bytes, ...]]


def open_raw(path: Path, *, readonly: bool = False) -> lmdb.Environment:
    """Open an LMDB environment, in the file format of a store; it is to be closed."""
    return lmdb.open(
        str(path), map_size=MAP_BYTES, max_dbs=_MAX_TABLES, readonly=readonly, lib_version=LMDB_VERSION
    )


def append_raw(environment: lmdb.Environment, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
    """Append pairs, sorted and after all that are there, in one durable transaction."""
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(zip(keys, values, strict=True), append=True)


def append_row_by_row(environment: lmdb.Environment, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
    """Do the same as ``append_raw`` with a call from Python for each pair."""
    with environment.begin(write=True) as transaction:
        for key, value in zip(keys, values, strict=True):
            transaction.put(key, value, append=True)


def put_raw(environment: lmdb.Environment, pairs: Mapping[bytes, bytes]) -> None:
    """Put pairs, sorted before, in one durable transaction."""
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(sorted(pairs.items()))


class RawServer:
    """Sends rows of the store at ``path`` without proving anything; ``bytes_sent`` counts frames of rows."""

    def __init__(self, path: Path) -> None:
        self._environment = open_raw(path, readonly=True)
        self._values = self._environment.open_db(b"values", create=False)
        self.bytes_sent = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        connection = Connection(Role.SERVER, _SERVER_HELLO)
        await stream.send_all(connection.send(connection.hello))
        while data := await stream.receive_some(_RECEIVE_BYTES):
            for message in connection.receive_data(data):
                if isinstance(message, GetRange):
                    frame = await trio.to_thread.run_sync(self._answer, message)
                    sent = connection.send_frame(frame)
                    self.bytes_sent += len(sent)
                    await stream.send_all(sent)

    def _answer(self, request: GetRange) -> Any:
        with self._environment.begin() as transaction:
            cursor = transaction.cursor(db=self._values)
            rows = list(islice(cursor, request.max_keys)) if seek(cursor, request.start) else []
        keys = [row for row, _ in rows]
        if keys and keys[0][0] == 0:
            keys = list(map(key_of_row, keys))
        if request.end is not None:
            del keys[bisect_right(keys, request.end) :]
        packed = msgpack.packb((keys, [value for _, value in rows[: len(keys)]]))
        return encode(Range(request.request_id, packed))


class RawClient:
    """Copies rows from a raw server into a new store at ``path``; ``keys`` counts what it has written."""

    def __init__(self, path: Path) -> None:
        self._environment = open_raw(path)
        self._values = self._environment.open_db(b"values")
        self._waiting: list[Columns] = []
        self._waiting_bytes = 0
        # As in the manager: one thread at a time, for LMDB gives the interpreter away at every row.
        self._thread = SerialExecutor()
        self.keys = 0

    async def copy(self, stream: trio.abc.Stream) -> None:
        """Copy everything, and end."""
        client = PeerClient(stream, _CLIENT_HELLO, merkledb.Scheme(), _LIMITS)
        async with trio.open_nursery() as connected:
            connected.start_soon(client.run)
            await client.greeted()
            async with trio.open_nursery() as asking:
                # As many requests in flight as the manager has on one connection.
                for part in range(_LIMITS.requests_per_peer):
                    asking.start_soon(self._copy_part, client, part)
            await self._write()
            connected.cancel_scope.cancel()
        self._environment.close()

    async def _copy_part(self, client: PeerClient, part: int) -> None:
        """Copy one part of the key space, batch by batch."""
        start = bytes([256 * part // _LIMITS.requests_per_peer])
        end = bytes([256 * (part + 1) // _LIMITS.requests_per_peer - 1]) + b"\xff" * 32
        root, max_keys, max_bytes = merkledb.EMPTY_ROOT, _LIMITS.max_keys, MAX_FRAME_BYTES // 2
        while True:
            packed = (await client.ask(root, start, end, max_keys=max_keys, max_bytes=max_bytes)).proof
            keys, values = await self._thread.run(partial(msgpack.unpackb, packed, use_list=False))
            if not keys:
                return
            self._waiting.append((keys, values))
            self._waiting_bytes += len(packed) + PAIR_OVERHEAD_BYTES * len(keys)
            if self._waiting_bytes >= _LIMITS.transaction_bytes:
                await self._write()
            start = keys[-1] + b"\0"

    async def _write(self) -> None:
        waiting, self._waiting, self._waiting_bytes = sorted(self._waiting), [], 0
        await self._thread.run(partial(self._put, waiting))
        self.keys += sum(len(keys) for keys, _ in waiting)

    def _put(self, waiting: list[Columns]) -> None:
        with self._environment.begin(write=True) as transaction:
            for keys, values in waiting:
                put_sorted(transaction, self._values, keys, values)
