"""What tests of the server share: a listener without sockets, and a client that obeys the protocol."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio
import trio.testing

from server import Server
from syncproto import (
    Connection,
    Error,
    GetChanges,
    GetRange,
    Head,
    Hello,
    Message,
    Range,
    Request,
    Role,
    Subscribe,
    encode,
)
from tests.support.fake_database import FakeDatabase, FakeProof

HELLO = Hello(hasher="blake3", branch_factor=16, root=bytes(32), revision=0, max_frame_bytes=64 << 20)
_RECEIVE_BYTES = 64 << 10
# For servers whose clients are refused as soon as there is no place: a limit is above zero.
NO_WAIT_SECONDS = 1e-6


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose connections are pairs of memory streams.

    Args:
        lockstep: Whether sending waits until the other side has received everything.
    """

    def __init__(self, *, lockstep: bool = False) -> None:
        self._make = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self._put, self._accepted = trio.open_memory_channel[trio.abc.Stream](100)

    async def connect(self) -> trio.abc.Stream:
        ours, theirs = self._make()
        await self._put.send(theirs)
        return ours

    async def accept(self) -> trio.abc.Stream:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        self._accepted.close()


def pairs_of(message: Message | None) -> dict[bytes, bytes]:
    """Return what the range of a fake database holds."""
    assert isinstance(message, Range)
    proof = FakeProof.decode(message.proof)
    return {key: value for key, value in zip(proof.keys, proof.values, strict=True) if value is not None}


def head_of(database: FakeDatabase, request_id: int = 77) -> Head:
    """Return what a server should say of the head of a fake database."""
    return Head(request_id, database.root, database.revision, len(database.content))


class Client:
    """Speaks the protocol over a stream, one message at a time."""

    def __init__(self, stream: trio.abc.Stream, hello: Hello = HELLO) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT, hello)
        self._received: deque[Message] = deque()

    async def send(self, *messages: Message) -> None:
        """Send messages that the rules allow."""
        await self.stream.send_all(b"".join(self.connection.send(message) for message in messages))

    async def force(self, *requests: Request) -> None:
        """Send requests that our own connection would refuse to send; it accepts their answers."""
        for request in requests:
            self.connection._requests.add(request)
        await self.stream.send_all(b"".join(encode(request).data for request in requests))

    async def receive(self) -> Message | None:
        """Return the next message; None at the end of the stream."""
        while not self._received:
            data = await self.stream.receive_some(_RECEIVE_BYTES)
            if not data:
                return None
            self._received.extend(self.connection.receive_data(data))
        return self._received.popleft()

    async def receive_all(self) -> list[Message]:
        """Return all messages up to the end of the stream."""
        messages = []
        while (message := await self.receive()) is not None:
            messages.append(message)
        return messages

    async def greet(self) -> Hello:
        """Say hello and return the server's."""
        await self.send(self.connection.hello)
        message = await self.receive()
        assert isinstance(message, Hello)
        return message

    async def ask(self, message: Message) -> Message | None:
        """Send one message and return the next that comes."""
        await self.send(message)
        return await self.receive()

    async def refused(self, message: Message) -> Error:
        """Send one message and return the error that comes."""
        answer = await self.ask(message)
        assert isinstance(answer, Error)
        return answer

    async def subscribe(self, request_id: int = 77) -> Head:
        """Subscribe and return the head that is announced first."""
        head = await self.ask(Subscribe(request_id))
        assert isinstance(head, Head)
        assert head.request_id == request_id
        return head

    async def next_head(self) -> Head:
        """Return the next message, which is a head."""
        head = await self.receive()
        assert isinstance(head, Head)
        return head

    def get_changes(self, old_root: bytes, new_root: bytes, **changes: object) -> GetChanges:
        """Return a request of all changes, with what a test wants otherwise."""
        request = GetChanges(self.connection.next_request_id(), old_root, new_root, None, None, 1000, 1 << 20)
        return replace(request, **changes)  # type: ignore[arg-type]  # a wrong name fails the test that gives it

    def get_range(self, root: bytes, **changes: object) -> GetRange:
        """Return a request of everything, with what a test wants otherwise."""
        request = GetRange(self.connection.next_request_id(), root, None, None, 1000, 1 << 20)
        return replace(request, **changes)  # type: ignore[arg-type]  # a wrong name fails the test that gives it


class Site:
    """A running server, and a door to it."""

    def __init__(self, server: Server, listener: MemoryListener) -> None:
        self.server = server
        self.listener = listener
        self.stopped = trio.Event()

    async def client(self, hello: Hello = HELLO) -> Client:
        """Return a client that is connected and has not said hello."""
        return Client(await self.listener.connect(), hello)

    async def greeted(self, hello: Hello = HELLO) -> Client:
        """Return a client that has exchanged hellos."""
        client = await self.client(hello)
        await client.greet()
        return client

    async def run(self, task_status: trio.TaskStatus[object]) -> None:
        """Serve until the server stops."""
        await self.server.serve([self.listener], task_status=task_status)
        self.stopped.set()


@asynccontextmanager
async def running(server: Server, *, lockstep: bool = False) -> AsyncIterator[Site]:
    """Run a server for the time of a ``with`` block; cut it off at the end."""
    site = Site(server, MemoryListener(lockstep=lockstep))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(_run, site))
        yield site
        nursery.cancel_scope.cancel()


async def _run(site: Site, *, task_status: trio.TaskStatus[object]) -> None:
    await site.run(task_status)
