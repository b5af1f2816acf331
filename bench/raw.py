"""The raw copy: the same pairs, frames, batches and LMDB writes, but no proof, hash or trie.

It is what this machine, this language and these libraries could reach if nothing had to be verified, and so
the measure of what verification costs.  The server reads the rows of a store's values and sends them as the
``proof`` of ordinary ``range`` frames; the client writes them in transactions of the manager's size.
"""

from bisect import bisect_right
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb
import msgpack
import trio

import merkledb
from manager import Limits
from merkledb.store import LMDB_VERSION, key_of_row, put_sorted, seek
from syncproto import MAX_FRAME_BYTES, Connection, GetRange, Hello, Range, Role, encode

_RECEIVE_BYTES: Final = 1 << 16
_MAP_BYTES: Final = 1 << 34
_BATCH_KEYS: Final = Limits().max_keys
_TRANSACTION_BYTES: Final = Limits().transaction_bytes
# As many requests in flight as the manager has on one connection.
_REQUESTS: Final = Limits().requests_per_peer


def _hello(max_keys: int) -> Hello:
    return Hello(
        hasher="blake3",
        branch_factor=16,
        root=merkledb.EMPTY_ROOT,
        revision=0,
        max_frame_bytes=MAX_FRAME_BYTES,
        max_keys=max_keys,
        max_bytes=MAX_FRAME_BYTES // 2 if max_keys else 0,
        max_requests=16 if max_keys else 0,
    )


class RawServer:
    """Sends rows of a store without proving anything.

    Args:
        path: The folder of the store.
    """

    def __init__(self, path: Path) -> None:
        self._environment = lmdb.open(
            str(path), map_size=_MAP_BYTES, max_dbs=16, readonly=True, lib_version=LMDB_VERSION
        )
        self._values = self._environment.open_db(b"values", create=False)
        self.bytes_sent = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        connection = Connection(Role.SERVER, _hello(_BATCH_KEYS))
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
            rows: list[tuple[bytes, bytes]] = []
            if seek(cursor, request.start):
                rows = list(islice(cursor, request.max_keys))
        keys = [row for row, _ in rows]
        if keys and keys[0][0] == 0:
            keys = list(map(key_of_row, keys))
        if request.end is not None:
            del keys[bisect_right(keys, request.end) :]
        packed = msgpack.packb((keys, [value for _, value in rows[: len(keys)]]))
        return encode(Range(request.request_id, packed))


class RawClient:
    """Copies rows from a raw server.

    Args:
        path: The folder of the new store.
    """

    def __init__(self, path: Path) -> None:
        self._environment = lmdb.open(str(path), map_size=_MAP_BYTES, max_dbs=16, lib_version=LMDB_VERSION)
        self._values = self._environment.open_db(b"values")
        self._waiting: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = []
        self._waiting_bytes = 0
        self._answers: dict[int, trio.MemorySendChannel[bytes]] = {}
        # As in the manager: one thread at a time, for LMDB gives the interpreter away at every row.
        self._processor = trio.CapacityLimiter(1)
        self._sending = trio.Lock()
        self.keys = 0

    async def copy(self, stream: trio.abc.Stream) -> None:
        """Copy everything, and end."""
        connection = Connection(Role.CLIENT, _hello(0))
        await stream.send_all(connection.send(connection.hello))
        async with trio.open_nursery() as receiving:
            await receiving.start(self._receive, stream, connection)
            async with trio.open_nursery() as asking:
                for part in range(_REQUESTS):
                    asking.start_soon(self._ask, stream, connection, part)
            await self._write()
            receiving.cancel_scope.cancel()
        self._environment.close()

    async def _receive(
        self, stream: trio.abc.Stream, connection: Connection, *, task_status: trio.TaskStatus[None]
    ) -> None:
        while data := await stream.receive_some(_RECEIVE_BYTES):
            for message in connection.receive_data(data):
                if isinstance(message, Hello):
                    task_status.started()
                elif isinstance(message, Range):
                    await self._answers.pop(message.request_id).send(message.proof)

    async def _ask(self, stream: trio.abc.Stream, connection: Connection, part: int) -> None:
        """Copy one part of the key space, batch by batch."""
        start = bytes([256 * part // _REQUESTS])
        end = bytes([256 * (part + 1) // _REQUESTS - 1]) + b"\xff" * 32
        while True:
            send, receive = trio.open_memory_channel[bytes](1)
            request_id = connection.next_request_id()
            self._answers[request_id] = send
            request = GetRange(request_id, merkledb.EMPTY_ROOT, start, end, _BATCH_KEYS, MAX_FRAME_BYTES // 2)
            async with self._sending:
                await stream.send_all(connection.send(request))
            packed = await receive.receive()
            keys, values = await trio.to_thread.run_sync(_unpack, packed, limiter=self._processor)
            if not keys:
                return
            self._waiting.append((keys, values))
            self._waiting_bytes += len(packed) + 256 * len(keys)
            if self._waiting_bytes >= _TRANSACTION_BYTES:
                await self._write()
            start = keys[-1] + b"\0"

    async def _write(self) -> None:
        waiting, self._waiting, self._waiting_bytes = sorted(self._waiting), [], 0
        await trio.to_thread.run_sync(self._put, waiting, limiter=self._processor)
        self.keys += sum(len(keys) for keys, _ in waiting)

    def _put(self, waiting: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]]) -> None:
        with self._environment.begin(write=True) as transaction:
            for keys, values in waiting:
                put_sorted(transaction, self._values, keys, values)


def _unpack(packed: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    keys, values = msgpack.unpackb(packed, use_list=False)
    return keys, values
