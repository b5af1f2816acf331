"""One connection: requests and answers, failures, pings, goodbyes; and the addresses of peers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from manager import (
    ConnectionLost,
    Limits,
    Peer,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    RequestTimeout,
    RootUnavailable,
)
from manager.peers.address import peer_at
from manager.peers.client import MAX_FORGOTTEN_ROOTS, PeerClient
from manager.peers.conversation import MESSAGES_PER_STEP, OUTBOX_FRAMES
from merkledb import Scheme
from server import ServerLimits
from syncproto import (
    UNASKED_BURST,
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
    Subscribe,
    encode,
)

ROOT, OLD = b"r" * 32, b"o" * 32


def hello(max_requests: int = 0) -> Hello:
    return Hello(
        hasher="blake3",
        branch_factor=16,
        root=ROOT,
        revision=1,
        max_frame_bytes=1 << 20,
        max_requests=max_requests,
    )


class Line(NamedTuple):
    """Both ends of a connection: our client, and the server's side to be played by the test."""

    client: PeerClient
    stream: trio.abc.Stream
    connection: Connection

    async def say(self, message: Message) -> None:
        await self.stream.send_all(self.connection.send(message))

    async def say_past_the_rules(self, message: Message) -> None:
        await self.stream.send_all(encode(message).data)

    async def hear(self) -> list[Message]:
        return list(self.connection.receive_data(await self.stream.receive_some()))

    async def ask(self) -> bytes:
        return (await self.client.ask(ROOT, None, None, max_keys=10, max_bytes=1000)).proof

    async def ask_for_changes(self) -> Changes | Range:
        return await self.client.ask(ROOT, None, None, max_keys=10, max_bytes=1000, old_root=OLD)


@asynccontextmanager
async def a_line(max_requests: int = 4) -> AsyncIterator[Line]:
    """Yield a line on which both sides have said hello."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = PeerClient(ours, hello(), Scheme(), Limits())
    line = Line(client, theirs, Connection(Role.SERVER, hello(max_requests)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await line.say(line.connection.hello)
        assert await client.greeted()
        assert isinstance((await line.hear())[0], Hello)
        yield line
        nursery.cancel_scope.cancel()


async def failure_of(line: Line) -> PeerError:
    """Return what a request ends with."""
    try:
        await line.ask()
    except PeerError as error:
        return error
    raise AssertionError("the request was answered")


async def test_answers_find_their_requests_in_any_order(autojump_clock: MockClock) -> None:
    answers: dict[str, bytes] = {}

    async def ask(line: Line, name: str) -> None:
        answers[name] = await line.ask()

    async with a_line() as line, trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(ask, line, name)
            await trio.testing.wait_all_tasks_blocked()
        requests = await line.hear()
        assert line.client.requests_in_flight == 3
        for request, proof in reversed(list(zip(requests, (b"1", b"2", b"3"), strict=True))):
            assert isinstance(request, GetRange)
            await line.say(Range(request.request_id, proof))
    assert answers == {"first": b"1", "second": b"2", "third": b"3"}


async def test_an_error_is_raised_with_its_code_and_detail(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def refuse() -> None:
            (request,) = await line.hear()
            assert isinstance(request, GetRange)
            await line.say(Error(request.request_id, ErrorCode.LIMIT_TOO_SMALL, "too small", 77))

        failure = await failure_of(line)
    assert isinstance(failure, PeerRefused)
    assert (failure.code, failure.detail) == (ErrorCode.LIMIT_TOO_SMALL, 77)
    assert "limit too small: too small" in str(failure)


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_ROOT, ErrorCode.HISTORY_GONE])
async def test_an_error_about_a_root_means_the_root_that_was_asked_for(
    code: ErrorCode, autojump_clock: MockClock
) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def refuse() -> None:
            (request,) = await line.hear()
            assert isinstance(request, GetChanges)
            assert (request.old_root, request.new_root) == (OLD, ROOT)
            await line.say(Error(request.request_id, code, "not here"))

        with pytest.raises(RootUnavailable) as caught:
            await line.ask_for_changes()
        assert line.client.failure is None
    assert (caught.value.root, caught.value.code) == (ROOT, code)


@pytest.mark.parametrize("kind", [Changes, Range])
async def test_changes_or_a_range_in_their_place_come_as_they_are(
    kind: type[Changes] | type[Range], autojump_clock: MockClock
) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer() -> None:
            (request,) = await line.hear()
            assert isinstance(request, GetChanges)
            await line.say(kind(request.request_id, b"proof"))

        assert await line.ask_for_changes() == kind(1, b"proof")


async def test_changes_instead_of_a_range_are_misbehaviour(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def confuse() -> None:
            (request,) = await line.hear()
            assert isinstance(request, GetRange)
            await line.say_past_the_rules(Changes(request.request_id, b"proof"))

        assert isinstance(await failure_of(line), PeerMisbehaved)


def test_the_roots_that_a_peer_has_forgotten_are_not_remembered_without_end() -> None:
    client = PeerClient(trio.testing.memory_stream_pair()[0], hello(), Scheme(), Limits())
    for number in range(MAX_FORGOTTEN_ROOTS + 1):
        client.forget_root(number.to_bytes(32))
    assert client.forgotten_roots == {MAX_FORGOTTEN_ROOTS.to_bytes(32)}


# Following a head.


async def test_a_subscriber_hears_the_head_now_and_whenever_it_changes(autojump_clock: MockClock) -> None:
    heard: list[Head] = []
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def announce() -> None:
            (request,) = await line.hear()
            assert request == Subscribe(1)
            for revision in (7, 8):
                await trio.sleep(1)
                await line.say(Head(1, ROOT, revision, 0))

        await line.client.subscribe(heard.append)
        assert heard == [Head(1, ROOT, 7, 0)]
        await trio.sleep(5)
        assert heard == [Head(1, ROOT, 7, 0), Head(1, ROOT, 8, 0)]
        assert line.client.requests_in_flight == 0, "a subscription is no request"


def head_frames(request_id: int, count: int) -> bytes:
    """Return heads without a root, the shortest there are, as they travel."""
    return encode(Head(request_id, None, 0, 0)).data * count


class Steps(trio.abc.Instrument):
    """Counts heads that are heard in each step of the event loop."""

    def __init__(self) -> None:
        self.heard = 0
        self.most = 0

    def hear(self, head: Head) -> None:
        self.heard += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.heard = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self.heard)


async def test_heads_that_come_together_are_heard_once_and_a_flood_ends_the_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of a megabyte of heads blocked the event loop for a second."""
    decoded: list[int] = []
    steps, heard = Steps(), 0

    class Counting(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            decoded.append(0)

    receive = Connection._receive

    def counting(connection: Connection, message: Message) -> bool:
        if decoded:
            decoded[-1] += 1
        return receive(connection, message)

    def hear(head: Head) -> None:
        nonlocal heard
        heard += 1
        steps.hear(head)

    async with a_line() as line:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.client.subscribe, hear)
            (subscribe,) = await line.hear()
            assert isinstance(subscribe, Subscribe)
            await line.say(Head(subscribe.request_id, ROOT, 1, 1))
        monkeypatch.setattr(Connection, "_receive", counting)
        trio.lowlevel.add_instrument(steps)
        trio.lowlevel.add_instrument(counter := Counting())
        await line.stream.send_all(head_frames(subscribe.request_id, 250_000 // 10))
        await line.client.closing.wait()
        trio.lowlevel.remove_instrument(counter)
        trio.lowlevel.remove_instrument(steps)
        assert isinstance(line.client.failure, PeerMisbehaved)
        assert "heads and pings a second" in str(line.client.failure)
    assert sum(decoded) <= UNASKED_BURST + 1
    assert max(decoded) <= MESSAGES_PER_STEP
    assert steps.most == 1
    assert heard <= 2 + UNASKED_BURST / MESSAGES_PER_STEP


async def test_pings_without_end_are_misbehaviour(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, line)
            await line.stream.send_all(
                b"".join(encode(Ping(number)).data for number in range(1, UNASKED_BURST + 2))
            )
            await line.client.closing.wait()
            nursery.cancel_scope.cancel()
        assert isinstance(line.client.failure, PeerMisbehaved)


async def test_a_last_word_is_heard_though_sending_fails_before_it_is_read(
    autojump_clock: MockClock,
) -> None:
    """A server that is full closes without waiting for our hello."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(encode(Error(0, ErrorCode.OVERLOADED, "full", 500)).data)
    await theirs.aclose()
    client = PeerClient(ours, hello(), Scheme(), Limits())
    client._post(encode(Ping(1)).data)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client._write)
        await trio.testing.wait_all_tasks_blocked()
        assert client.failure is None
        await client._read()
        nursery.cancel_scope.cancel()
    assert isinstance(client.failure, PeerRefused)


async def drain(line: Line) -> None:
    while await line.stream.receive_some():
        pass


@pytest.mark.slow
async def test_as_many_heads_as_an_honest_server_sends_are_welcome_for_ever(
    autojump_clock: MockClock,
) -> None:
    heads: list[Head] = []
    async with a_line() as line:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.client.subscribe, heads.append)
            (subscribe,) = await line.hear()
            assert isinstance(subscribe, Subscribe)
            await line.say(Head(subscribe.request_id, ROOT, 1, 1))
        for number in range(2, 3 * UNASKED_BURST):
            await trio.sleep(ServerLimits().head_pause_seconds)
            await line.say(Head(subscribe.request_id, ROOT, number, 1))
            await trio.testing.wait_all_tasks_blocked()
        assert line.client.failure is None
    assert [head.revision for head in heads] == list(range(1, 3 * UNASKED_BURST))


async def test_a_peer_that_does_not_say_what_its_head_is_times_out(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        with pytest.raises(RequestTimeout):
            await line.client.subscribe(lambda head: None)


async def test_a_subscription_that_is_refused_ends_the_connection(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def refuse() -> None:
            (request,) = await line.hear()
            assert isinstance(request, Subscribe)
            await line.say(Error(request.request_id, ErrorCode.OVERLOADED, "too many", 5))

        with pytest.raises(PeerRefused) as refused:
            await line.client.subscribe(lambda head: None)
        assert refused.value.code is ErrorCode.OVERLOADED
        assert line.client.failure is refused.value


async def test_a_second_subscription_is_not_sent(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:
        nursery.start_soon(line.client.subscribe, lambda head: None)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="takes no subscription"):
            await line.client.subscribe(lambda head: None)
        nursery.cancel_scope.cancel()


async def test_an_idle_subscriber_pings(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:
        nursery.start_soon(line.client.subscribe, lambda head: None)
        (request,) = await line.hear()
        assert isinstance(request, Subscribe)
        await line.say(Head(request.request_id, ROOT, 1, 0))
        await trio.sleep(30.5)
        assert await line.hear() == [Ping(1)]


async def test_a_head_instead_of_a_range_is_misbehaviour(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def confuse() -> None:
            (request,) = await line.hear()
            assert isinstance(request, GetRange)
            await line.say_past_the_rules(Head(request.request_id, ROOT, 1, 0))

        assert isinstance(await failure_of(line), PeerMisbehaved)


async def test_a_request_that_is_not_answered_in_time_is_cancelled_and_its_late_answer_dropped(
    autojump_clock: MockClock,
) -> None:
    async with a_line() as line:
        assert isinstance(await failure_of(line), RequestTimeout)
        await trio.testing.wait_all_tasks_blocked()
        request, cancel = await line.hear()
        assert isinstance(request, GetRange)
        assert cancel == Cancel(request.request_id)
        await line.say(Range(request.request_id, b"late"))
        await trio.testing.wait_all_tasks_blocked()
        assert line.client.failure is None
        await line.say_past_the_rules(Range(request.request_id, b"and once more"))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(line.client.failure, PeerMisbehaved)


async def test_a_cancelled_request_is_cancelled_with_the_peer(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        with trio.move_on_after(1):
            await line.ask()
        await trio.testing.wait_all_tasks_blocked()
        request, cancel = await line.hear()
        assert isinstance(request, GetRange)
        assert cancel == Cancel(request.request_id)
        assert line.client.requests_in_flight == 0


async def test_more_requests_than_the_peer_takes_are_not_sent(autojump_clock: MockClock) -> None:
    async with a_line(max_requests=1) as line:
        assert isinstance(await failure_of(line), RequestTimeout)
        # The peer still owes an answer to the cancelled one.
        failure = await failure_of(line)
        assert isinstance(failure, ConnectionLost)
        assert "takes no more requests" in str(failure)


async def test_who_waits_is_told_when_the_connection_ends(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def hang_up() -> None:
            await line.hear()
            await line.stream.aclose()

        failure = await failure_of(line)
        assert isinstance(failure, ConnectionLost)
        assert line.client.closing.is_set()
        assert await failure_of(line) is failure, "the first failure is final"


async def broken() -> None:
    """A hook of a memory stream that breaks it."""
    await trio.lowlevel.checkpoint()
    raise trio.BrokenResourceError("reset by the peer")


@pytest.mark.parametrize(
    "stream",
    [
        lambda: trio.StapledStream(trio.testing.MemorySendStream(broken), trio.testing.MemoryReceiveStream()),
        lambda: trio.StapledStream(trio.testing.MemorySendStream(), trio.testing.MemoryReceiveStream(broken)),
    ],
    ids=["writing", "reading"],
)
async def test_a_stream_that_breaks_is_a_lost_connection(
    stream: Callable[[], trio.abc.Stream], autojump_clock: MockClock
) -> None:
    client = PeerClient(stream(), hello(), Scheme(), Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        assert not await client.greeted()
        nursery.cancel_scope.cancel()
    assert isinstance(client.failure, ConnectionLost)
    assert "reset by the peer" in str(client.failure)


async def test_a_peer_that_does_not_read_is_given_up_before_its_frames_pile_up(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    client = PeerClient(ours, hello(), Scheme(), Limits(request_timeout_seconds=1))
    server = Connection(Role.SERVER, hello(max_requests=10 * OUTBOX_FRAMES))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await theirs.send_all(server.send(server.hello))
        assert await client.greeted()
        for _ in range(OUTBOX_FRAMES):
            nursery.start_soon(expect_failure, client)
        await client.closing.wait()
        nursery.cancel_scope.cancel()
    assert f"read none of the last {OUTBOX_FRAMES} frames" in str(client.failure)


async def expect_failure(client: PeerClient) -> None:
    with pytest.raises(PeerError):
        await client.ask(ROOT, None, None, max_keys=1, max_bytes=1)


async def test_a_ping_is_answered(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        await line.say(Ping(7))
        await trio.testing.wait_all_tasks_blocked()
        assert await line.hear() == [Pong(7)]


async def test_an_idle_connection_is_kept_alive(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        for number in range(1, 6):
            await trio.sleep(30.5)
            pings = await line.hear()
            assert pings == [Ping(number)]
            await line.say(Pong(number))
        assert line.client.failure is None


async def test_an_idle_peer_that_answers_no_ping_is_given_up(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        await trio.sleep(15 * 30)
        assert "it answers no ping" in str(line.client.failure)


async def test_a_goodbye_is_said_before_leaving(autojump_clock: MockClock) -> None:
    async with a_line() as line:
        await line.client.leave()
        assert await line.hear() == [Goodbye()]
        assert line.client.closing.is_set()


async def test_leaving_a_peer_that_closes_at_our_goodbye_takes_no_time(autojump_clock: MockClock) -> None:
    async with a_line() as line, trio.open_nursery() as nursery:
        ours = line.client._stream
        assert isinstance(ours, trio.StapledStream)
        deliver = ours.send_stream.send_all_hook

        async def deliver_and_linger() -> None:
            # The goodbye has arrived, but the task that sent it has not heard of that when the stream ends.
            await deliver()
            await trio.sleep(0.1)

        ours.send_stream.send_all_hook = deliver_and_linger

        @nursery.start_soon
        async def close() -> None:
            assert await line.hear() == [Goodbye()]
            await line.stream.aclose()

        began = trio.current_time()
        await line.client.leave()
        assert trio.current_time() == began


async def test_leaving_a_peer_that_does_not_read_takes_no_time(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    client = PeerClient(ours, hello(), Scheme(), Limits())
    server = Connection(Role.SERVER, hello(max_requests=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await theirs.send_all(server.send(server.hello))
        assert await client.greeted()
        began = trio.current_time()
        await client.leave()
        assert trio.current_time() - began <= 0.5
        nursery.cancel_scope.cancel()


# Addresses.


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("localhost:9400", "localhost:9400"),
        ("[::1]:9400", "[::1]:9400"),
        (("::1", 9400), "[::1]:9400"),
        (("example.org", 1), "example.org:1"),
    ],
)
def test_an_address_becomes_a_peer_of_that_name(address: str | tuple[str, int], name: str) -> None:
    assert peer_at(address).name == name


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "localhost",
            ":9400",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "::1:9400",
            "a:b",
            "h:+1",
        ),
        *("a..b:1", f"{'h' * 64}:1", "[]:1", "h\0:1", "\udcff:1", "h:" + "1" * 5000),
        *(("", 1), ("a..b", 1), ("h\0", 1), ("h", 0), ("h", -1), ("h", 65536)),
    ],
)
def test_what_is_no_address_is_refused(address: str | tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        peer_at(address)


async def test_a_peer_at_a_port_opens_connections_to_it() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listeners[0].socket.getsockname()

    async def greet(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, greet, listeners)
        async with await Peer.parse(f"{host}:{port}").open_stream() as stream:
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
