"""Servers for tests of the manager: on memory streams, honest by default, wrong in one chosen way each.

They speak through syncproto's own ``Connection`` wherever the protocol allows what they do; what it does not
allow they write past it.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing

from manager import Peer, SerialExecutor
from merkledb import (
    ChangeProof,
    Database,
    HistoryGone,
    LimitTooSmall,
    NoCompleteRoot,
    RangeProof,
    UnknownRoot,
)
from syncproto import (
    Cancel,
    Changes,
    Connection,
    Error,
    ErrorCode,
    GetChanges,
    GetRange,
    Goodbye,
    Head,
    Hello,
    Message,
    Ping,
    Pong,
    Range,
    Role,
    State,
    Subscribe,
    encode,
)

MAX_FRAME_BYTES = 1 << 20
Result = TypeVar("Result")
Asked = GetRange | GetChanges


class InEventLoop(SerialExecutor):
    """An executor without threads, so that the virtual clock does not jump while one works."""

    async def run(self, work: Callable[[], Result]) -> Result:
        await trio.lowlevel.checkpoint()
        return work()


def root_of(request: Asked) -> bytes:
    """Return the root that a request asks for."""
    return request.root if isinstance(request, GetRange) else request.new_root


class FakeServer:
    """Serves one database, with its history, to any number of connections.

    Attributes:
        requests: All that was asked, in order.
        connections: How often somebody connected.
        cancels: How many requests were cancelled before their answer.
        announced_keys: How many pairs it says that it has, true or not; what it has when None.
        keys_sent: Pairs of ranges that were sent.
        changes_sent: Changes that were sent.
        fallbacks: How many ranges were sent where changes were asked for.
        subscribers: How many connections follow the head now.
    """

    def __init__(self, database: Database, name: str = "peer", *, max_keys: int = 8192) -> None:
        self.database = database
        self.name = name
        self.max_keys = max_keys
        self.announced_keys: int | None = None
        self.max_bytes = 1 << 30
        self.max_requests = 16
        self.requests: list[Asked] = []
        self.keys_sent = 0
        self.changes_sent = 0
        self.fallbacks = 0
        self.connections = 0
        self.cancels = 0
        self.subscribers: list[tuple[ClientConnection, int]] = []
        self._nursery: trio.Nursery | None = None

    def peer(self, nursery: trio.Nursery) -> Peer:
        """Return the peer that leads here; its connections live in ``nursery``."""
        self._nursery = nursery
        return Peer(self.name, self.open_stream)

    async def open_stream(self) -> trio.abc.Stream:
        assert self._nursery is not None
        await trio.lowlevel.checkpoint()
        self.connections += 1
        theirs, ours = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._converse, ours)
        return theirs

    def head(self, request_id: int) -> Head:
        """Return what the head is, or is said to be."""
        head = self.database.head
        if head is None:
            return Head(request_id, None, 0, 0)
        keys = head.keys if self.announced_keys is None else self.announced_keys
        return Head(request_id, head.root, head.number, keys)

    def hello(self) -> Hello:
        scheme, head = self.database.scheme, self.head(1)
        return Hello(
            hasher=scheme.hasher,
            branch_factor=scheme.branch_factor,
            root=head.root,
            revision=head.revision,
            keys=head.keys,
            max_frame_bytes=MAX_FRAME_BYTES,
            max_keys=self.max_keys,
            max_bytes=self.max_bytes,
            max_requests=self.max_requests,
        )

    async def announce(self) -> None:
        """Tell all subscribers what the head is now."""
        for conversation, request_id in list(self.subscribers):
            await conversation.send(self.head(request_id))

    async def _converse(self, stream: trio.abc.Stream) -> None:
        conversation = ClientConnection(stream, Connection(Role.SERVER, self.hello()))
        try:
            async with trio.open_nursery() as nursery:
                await self.greet(conversation)
                while messages := await conversation.receive():
                    for message in messages:
                        await self._dispatch(nursery, conversation, message)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.subscribers = [row for row in self.subscribers if row[0] is not conversation]
            await trio.aclose_forcefully(stream)

    async def _dispatch(
        self, nursery: trio.Nursery, conversation: "ClientConnection", message: Message
    ) -> None:
        if isinstance(message, GetRange | GetChanges):
            self.requests.append(message)
            nursery.start_soon(self.answer, conversation, message)
        elif isinstance(message, Subscribe):
            self.subscribers.append((conversation, message.request_id))
            await conversation.send(self.head(message.request_id))
        elif isinstance(message, Cancel):
            self.cancels += 1
        elif isinstance(message, Ping):
            await conversation.send(Pong(message.request_id))

    async def greet(self, conversation: "ClientConnection") -> None:
        await conversation.send(conversation.connection.hello)

    async def answer(self, conversation: "ClientConnection", request: Asked) -> None:
        await conversation.send(self.honest_answer(request))

    def honest_answer(self, request: Asked) -> Message:
        """Return what an honest server says."""
        try:
            return self._count(self.proving(request))
        except (UnknownRoot, NoCompleteRoot):
            return Error(request.request_id, ErrorCode.UNKNOWN_ROOT, "not known here")
        except HistoryGone:
            return Error(request.request_id, ErrorCode.HISTORY_GONE, "not known here any more")
        except LimitTooSmall as error:
            code = ErrorCode.LIMIT_TOO_SMALL
            return Error(request.request_id, code, "one pair does not fit", error.needed_bytes)

    def _count(self, answer: Range | Changes) -> Message:
        if isinstance(answer, Changes):
            self.changes_sent += len(ChangeProof.decode(answer.proof).keys)
        else:
            self.keys_sent += len(RangeProof.decode(answer.proof).keys)
        return answer

    def proving(self, request: Asked) -> Range | Changes:
        """Return the proof that an honest server sends."""
        proof = self.changes(request) if isinstance(request, GetChanges) else None
        if proof is not None:
            return Changes(request.request_id, proof.encode())
        self.fallbacks += isinstance(request, GetChanges)
        return Range(request.request_id, self.proof(request).encode())

    def changes(self, request: GetChanges) -> ChangeProof | None:
        """Return what leads from one root to the other; None where history does not reach back."""
        with self.database.at(request.new_root):
            pass
        try:
            return self.database.prove_changes(
                request.old_root,
                request.new_root,
                request.start,
                request.end,
                max_keys=min(request.max_keys, self.max_keys),
                max_bytes=min(request.max_bytes, self.max_bytes),
            )
        except (UnknownRoot, HistoryGone):
            return None

    def proof(self, request: Asked) -> RangeProof:
        with self.database.at(root_of(request)) as snapshot:
            return snapshot.prove_range(
                request.start,
                request.end,
                max_keys=min(request.max_keys, self.max_keys),
                max_bytes=min(request.max_bytes, self.max_bytes),
            )


class ClientConnection:
    """The server's side of one connection."""

    def __init__(self, stream: trio.abc.Stream, connection: Connection) -> None:
        self.stream = stream
        self.connection = connection
        self._sending = trio.Lock()

    async def send(self, message: Message) -> None:
        await self.send_bytes(self.connection.send(message))

    async def send_past_the_rules(self, message: Message) -> None:
        """Send what our own connection would not let us send."""
        await self.send_bytes(encode(message).data)

    async def send_bytes(self, data: bytes) -> None:
        async with self._sending:
            await self.stream.send_all(data)

    async def receive(self) -> list[Message]:
        """Return the next messages; none at the end of the stream."""
        while data := await self.stream.receive_some():
            if messages := list(self.connection.receive_data(data)):
                return messages
        return []


Answer = Callable[[FakeServer, ClientConnection, Asked], Awaitable[None]]


class ScriptedServer(FakeServer):
    """Answers as a function says, the first ``times`` requests or all, and honestly otherwise."""

    def __init__(
        self,
        database: Database,
        script: Answer,
        name: str = "peer",
        *,
        times: int | None = None,
        max_keys: int = 8192,
    ) -> None:
        super().__init__(database, name, max_keys=max_keys)
        self._script = script
        self._times_left = times

    async def answer(self, conversation: ClientConnection, request: Asked) -> None:
        if self._times_left == 0:
            await super().answer(conversation, request)
            return
        if self._times_left is not None:
            self._times_left -= 1
        await self._script(self, conversation, request)


# Scripts.


async def never(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Read the request and say nothing, for ever."""


async def twice(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Answer, and answer again."""
    answer = server.honest_answer(request)
    await conversation.send(answer)
    await conversation.send_past_the_rules(answer)


async def half_a_frame(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Break off in the middle of an answer."""
    frame = conversation.connection.send(server.honest_answer(request))
    await conversation.send_bytes(frame[: len(frame) // 2])
    await conversation.stream.aclose()


async def hang_up(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Close the connection instead of answering."""
    await conversation.stream.aclose()


async def junk(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send what is no frame."""
    await conversation.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def goodbye(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Announce to leave, and refuse."""
    if conversation.connection.our_state is State.OPEN:
        await conversation.send(Goodbye())
    await conversation.send(Error(request.request_id, ErrorCode.SHUTTING_DOWN, "leaving"))


async def no_pairs(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Claim that there is nothing."""
    await conversation.send(Range(request.request_id, RangeProof((), (), request.end, ()).encode()))


async def no_proof(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send bytes that are no proof."""
    await conversation.send(Range(request.request_id, b"\x93\x90\x90\xc0"))


def after(seconds: float) -> Answer:
    """Answer honestly, but late."""

    async def late(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await trio.sleep(seconds)
        if conversation.connection.is_in_flight(request.request_id):
            await conversation.send(server.honest_answer(request))

    return late


def refuse(code: ErrorCode, detail: int | None = None) -> Answer:
    """Answer with an error."""

    async def refusing(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await conversation.send(Error(request.request_id, code, "no", detail))

    return refusing


def tamper(change: Callable[[RangeProof], RangeProof]) -> Answer:
    """Answer with an honest range proof that was changed, whatever is asked for."""

    async def lying(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await conversation.send(Range(request.request_id, change(server.proof(request)).encode()))

    return lying


def tamper_changes(change: Callable[[ChangeProof], ChangeProof]) -> Answer:
    """Answer with an honest change proof that was changed, wherever there are changes."""

    async def lying(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        proof = server.changes(request) if isinstance(request, GetChanges) else None
        if proof is None or not proof.keys:
            await conversation.send(server.honest_answer(request))
        else:
            await conversation.send(Changes(request.request_id, change(proof).encode()))

    return lying


def claim_and_then(needed_bytes: int, answer: Answer) -> Answer:
    """Claim a large pair wherever it is asked for several, and then answer as a function says."""

    async def claiming(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        if request.max_keys > 1:
            code = ErrorCode.LIMIT_TOO_SMALL
            await conversation.send(Error(request.request_id, code, "too small", needed_bytes))
        else:
            await answer(server, conversation, request)

    return claiming


async def trickle(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send a large answer just fast enough, and never its end."""
    frame = encode(Range(request.request_id, bytes(request.max_bytes))).data
    for at in range(0, len(frame) - 40 * 1024, 40 * 1024):
        await conversation.send_bytes(frame[at : at + 40 * 1024])
        await trio.sleep(0.5)
    await trio.sleep_forever()
