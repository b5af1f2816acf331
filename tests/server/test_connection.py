"""What a server answers, refuses, and ends, over memory streams and on a virtual clock."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from merkledb import CorruptDatabase, KeyTooLong, Scheme
from server import Server, ServerLimits
from server.limits import LINGER_SECONDS, MIN_SEND_BYTES_PER_SECOND, SEND_BYTES
from syncproto import (
    MAX_CONTROL_BYTES,
    Cancel,
    Error,
    ErrorCode,
    GetHead,
    Goodbye,
    Head,
    Hello,
    Message,
    Ping,
    Pong,
    Range,
    encode,
)
from tests.support.fake_database import FakeDatabase, FakeProof, VirtualWorkers
from tests.support.protocol_client import HELLO, NO_WAIT_SECONDS, Site, pairs_of, running

CONTENT = {b"a": b"1", b"b": b"2", b"c": b"3"}
LIMITS = ServerLimits(max_requests=4, max_keys=100)
Result = TypeVar("Result")


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase(dict(CONTENT))


@pytest.fixture
def executor() -> VirtualWorkers:
    return VirtualWorkers()


@pytest.fixture
async def site(database: FakeDatabase, executor: VirtualWorkers) -> AsyncIterator[Site]:
    async with running(Server(database, limits=LIMITS, executor=executor)) as site:
        yield site


# Hello.


async def test_the_servers_hello_tells_its_head_and_its_limits(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.client()
    hello = await client.greet()
    assert (hello.hasher, hello.branch_factor) == ("blake3", 16)
    assert (hello.root, hello.revision, hello.keys) == (database.root, 1, len(CONTENT))
    assert (hello.max_keys, hello.max_bytes, hello.max_requests) == (100, LIMITS.max_bytes, 4)
    assert hello.max_frame_bytes == MAX_CONTROL_BYTES


async def test_the_server_speaks_without_waiting_for_the_client(
    site: Site, autojump_clock: MockClock
) -> None:
    client = await site.client()
    assert isinstance(await client.receive(), Hello)


@pytest.mark.parametrize("theirs", [replace(HELLO, hasher="sha256"), replace(HELLO, branch_factor=2)])
async def test_a_client_of_another_scheme_is_told_and_left(
    site: Site, theirs: Hello, autojump_clock: MockClock
) -> None:
    client = await site.greeted(theirs)
    error = await client.receive()
    assert isinstance(error, Error)
    assert (error.request_id, error.code) == (0, ErrorCode.SCHEME_MISMATCH)
    assert f"{theirs.hasher} with branch factor {theirs.branch_factor}" in error.message
    assert await client.receive() is None


async def test_the_servers_scheme_is_its_databases(autojump_clock: MockClock) -> None:
    database = FakeDatabase(scheme=Scheme(hasher="sha256", branch_factor=256))
    async with running(Server(database, executor=VirtualWorkers())) as site:
        hello = await (await site.client()).greet()
        assert (hello.hasher, hello.branch_factor) == ("sha256", 256)


async def test_a_client_that_says_no_hello_is_left(site: Site, autojump_clock: MockClock) -> None:
    client = await site.client()
    started = trio.current_time()
    _, last_word = await client.receive_all()
    assert last_word == Goodbye()
    assert trio.current_time() - started == pytest.approx(LIMITS.hello_timeout_seconds)
    assert site.server.counters.timeouts == 1


async def test_a_hello_that_trickles_gets_no_more_time(site: Site, autojump_clock: MockClock) -> None:
    client = await site.client()
    started = trio.current_time()
    for byte in client.connection.send(HELLO)[:40]:
        try:
            await client.stream.send_all(bytes([byte]))
        except trio.BrokenResourceError:
            break
        await trio.sleep(1)
    assert trio.current_time() - started < LIMITS.hello_timeout_seconds + 3


# Answers.


async def test_a_range_is_answered_from_the_head(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    assert pairs_of(await client.ask(client.get_range(database.root))) == CONTENT
    request = client.get_range(database.root, start=b"b", end=b"b")
    assert pairs_of(await client.ask(request)) == {b"b": b"2"}


async def test_the_clients_limits_hold(site: Site, database: FakeDatabase, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    assert pairs_of(await client.ask(client.get_range(database.root, max_keys=2))) == {b"a": b"1", b"b": b"2"}
    one_pair = len(FakeProof([b"a"], [b"1"]).encode())
    assert pairs_of(await client.ask(client.get_range(database.root, max_bytes=one_pair))) == {b"a": b"1"}


async def test_the_servers_limits_hold(autojump_clock: MockClock) -> None:
    database = FakeDatabase({bytes([number]): bytes(100) for number in range(50)})
    limits = ServerLimits(max_keys=20, max_ordinary_bytes=1100)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        assert len(pairs_of(await client.ask(client.get_range(database.root)))) == 10
        database.content = {bytes([number]): b"" for number in range(50)}
        assert len(pairs_of(await client.ask(client.get_range(database.root)))) == 20


async def test_the_head_is_told_as_it_is_now(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    database.content[b"d"] = b"4"
    database.revision = 2
    assert await client.ask(GetHead(1)) == Head(1, database.root, 2, 4)


async def test_a_root_that_the_database_never_had_is_unknown(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    error = await client.refused(client.get_range(bytes(32)))
    assert error.code is ErrorCode.UNKNOWN_ROOT
    assert pairs_of(await client.ask(client.get_range(database.root))) == CONTENT


async def test_a_range_is_answered_at_any_retained_root(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit({b"d": b"4"})
    assert pairs_of(await client.ask(client.get_range(old))) == CONTENT
    assert pairs_of(await client.ask(client.get_range(new))) == CONTENT | {b"d": b"4"}


async def test_a_root_that_is_not_retained_any_more_is_gone(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit({b"d": b"4"})
    database.prune()
    error = await client.refused(client.get_range(old))
    assert error.code is ErrorCode.HISTORY_GONE
    assert pairs_of(await client.ask(client.get_range(new))) == CONTENT | {b"d": b"4"}
    assert site.server.counters.failures == 0


async def test_a_database_without_a_complete_root_is_served(
    database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    database.complete = False
    server = Server(database, limits=LIMITS, executor=executor)
    async with running(server) as site:
        client = await site.client()
        hello = await client.greet()
        assert (hello.root, hello.revision, hello.keys) == (None, 0, 0)
        assert await client.ask(GetHead(1)) == Head(1, None, 0, 0)
        for request in (
            client.get_range(database.root),
            client.get_changes(bytes(32), database.root),
        ):
            error = await client.refused(request)
            assert error.code is ErrorCode.UNKNOWN_ROOT
            assert "/secret/path" not in error.message
        database.complete = True
        assert await client.ask(GetHead(1)) == Head(1, database.root, 1, len(CONTENT))
        assert pairs_of(await client.ask(client.get_range(database.root))) == CONTENT
        assert server.counters.failures == 0


async def test_a_limit_that_is_too_small_is_answered_with_one_that_will_do(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    database.content = {b"a": bytes(5000)}
    error = await client.refused(client.get_range(database.root, max_bytes=100))
    assert error.code is ErrorCode.LIMIT_TOO_SMALL
    assert error.detail is not None
    request = client.get_range(database.root, max_bytes=error.detail)
    assert pairs_of(await client.ask(request)) == database.content


async def test_what_the_clients_frames_cannot_hold_is_a_limit_too_small(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted(replace(HELLO, max_frame_bytes=MAX_CONTROL_BYTES))
    database.content = {b"a": bytes(5000)}
    await client.force(client.get_range(database.root, max_bytes=10_000))
    error = await client.receive()
    assert isinstance(error, Error)
    assert error.code is ErrorCode.LIMIT_TOO_SMALL


async def test_a_start_after_the_end_is_a_bad_request(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    error = await client.refused(client.get_range(database.root, start=b"b", end=b"a"))
    assert error.code is ErrorCode.BAD_REQUEST
    assert pairs_of(await client.ask(client.get_range(database.root))) == CONTENT


async def test_what_the_database_refuses_is_the_clients_to_mend(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    failure = database.failure = KeyTooLong(1000, 255, 16)
    error = await client.refused(client.get_range(database.root))
    assert (error.code, error.message) == (ErrorCode.BAD_REQUEST, str(failure))
    assert site.server.counters.failures == 0


@pytest.mark.parametrize("failure", [CorruptDatabase("/secret/path", "a hole"), ZeroDivisionError("a bug")])
async def test_our_own_failure_is_reported_to_us_and_tells_the_client_nothing(
    database: FakeDatabase, failure: Exception, autojump_clock: MockClock
) -> None:
    seen: list[Exception] = []
    server = Server(database, executor=VirtualWorkers(), on_failure=seen.append)
    async with running(server) as site:
        client = await site.greeted()
        database.failure = failure
        error = await client.refused(client.get_range(database.root))
        assert (error.code, error.message) == (ErrorCode.INTERNAL, "the server failed: use another")
        assert seen == [failure]
        database.failure = None
        assert pairs_of(await client.ask(client.get_range(database.root))) == CONTENT
        assert server.counters.failures == 1


async def test_a_failure_is_logged_where_nobody_observes(
    site: Site, database: FakeDatabase, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    database.failure = ZeroDivisionError("a bug")
    await client.refused(client.get_range(database.root))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is database.failure


async def test_a_database_that_cannot_be_read_refuses_connections(autojump_clock: MockClock) -> None:
    seen: list[Exception] = []
    server = Server(
        FakeDatabase(unreadable=CorruptDatabase("/secret/path", "a hole")),
        executor=VirtualWorkers(),
        on_failure=seen.append,
    )
    async with running(server) as site:
        (error,) = await (await site.client()).receive_all()
        assert error == Error(0, ErrorCode.INTERNAL, "the server failed: use another")
        assert [type(failure) for failure in seen] == [CorruptDatabase]
        await trio.sleep(2 * LINGER_SECONDS)
        assert server.counters.connections_open == 0


async def test_requests_are_answered_in_order(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.send(
        client.get_range(database.root), GetHead(2), client.get_range(database.root, request_id=3)
    )
    answers = [await client.receive() for _ in range(3)]
    assert [type(answer) for answer in answers] == [Range, Head, Range]


async def test_a_ping_is_answered_while_a_proof_is_made(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 60
    await client.send(client.get_range(database.root), Ping(7))
    assert await client.receive() == Pong(7)
    assert isinstance(await client.receive(), Range)


# Cancelling.


async def test_a_cancelled_request_is_answered_without_being_worked_on(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 1
    for number in (1, 2, 3):
        await client.send(client.get_range(database.root, request_id=number))
    await trio.testing.wait_all_tasks_blocked()
    before = database.snapshots
    await client.send(Cancel(1), Cancel(2))
    assert isinstance(await client.receive(), Range)
    assert client.connection.in_flight == 0
    assert database.snapshots - before == 2
    assert site.server.counters.refusals[ErrorCode.CANCELLED] == 1


async def test_the_id_of_a_cancelled_request_can_be_used_again(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 1
    await client.send(
        client.get_range(database.root, request_id=1), client.get_range(database.root, request_id=2)
    )
    await trio.testing.wait_all_tasks_blocked()
    await client.send(Cancel(1), Cancel(2), Ping(1))
    while client.connection.in_flight:
        with trio.move_on_after(0.5):
            await client.receive()
    assert pairs_of(await client.ask(client.get_range(database.root, request_id=2))) == CONTENT


# Limits of connections and requests.


async def test_requests_above_the_limit_are_refused_as_overloaded(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 1
    await client.force(*(client.get_range(database.root, request_id=number) for number in range(1, 7)))
    refusals = [await client.receive(), await client.receive()]
    for refusal, number in zip(refusals, (5, 6), strict=True):
        assert isinstance(refusal, Error)
        assert (refusal.request_id, refusal.code) == (number, ErrorCode.OVERLOADED)
        assert refusal.detail == LIMITS.retry_after_milliseconds
    answers = [await client.receive() for _ in range(4)]
    assert [type(answer) for answer in answers] == [Range] * 4


async def test_connections_above_the_limit_are_refused_as_overloaded(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(
        database,
        limits=ServerLimits(max_connections=2, wait_seconds=NO_WAIT_SECONDS),
        executor=VirtualWorkers(),
    )
    async with running(server) as site:
        first, second = await site.greeted(), await site.greeted()
        (refusal,) = await (await site.client()).receive_all()
        assert isinstance(refusal, Error)
        assert (refusal.request_id, refusal.code) == (0, ErrorCode.OVERLOADED)
        assert refusal.detail == 500
        assert isinstance(await second.ask(GetHead(1)), Head)
        await first.stream.aclose()
        await trio.sleep(2 * LINGER_SECONDS)
        assert isinstance(await (await site.greeted()).ask(GetHead(1)), Head)
        assert server.counters.connections_refused == 1


async def test_connections_that_only_hold_their_places_make_room(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(
        database,
        limits=ServerLimits(max_connections=2, wait_seconds=NO_WAIT_SECONDS),
        executor=VirtualWorkers(),
    )
    async with running(server) as site:
        holder, worker = await site.greeted(), await site.greeted()
        await trio.sleep(4)
        assert isinstance(await worker.ask(GetHead(1)), Head)
        await trio.sleep(2)
        await holder.send(Ping(1))
        late = await site.greeted()
        assert isinstance(await late.ask(GetHead(1)), Head)
        assert isinstance(await worker.ask(GetHead(2)), Head)
        # Both were at work just now: the next one has to wait.
        (refusal,) = await (await site.client()).receive_all()
        assert isinstance(refusal, Error)
        assert refusal.code is ErrorCode.OVERLOADED


async def test_refusing_is_itself_limited(database: FakeDatabase, autojump_clock: MockClock) -> None:
    server = Server(
        database,
        limits=ServerLimits(max_connections=1, wait_seconds=NO_WAIT_SECONDS),
        executor=VirtualWorkers(),
    )
    async with running(server) as site:
        await site.greeted()
        began = trio.current_time()
        for _ in range(3):
            client = await site.client()
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(await client.receive(), Error)
        # Each was told why, and only the last is still waited for to close first.
        assert trio.current_time() - began <= 4 * NO_WAIT_SECONDS
        assert await client.receive() is None
        assert trio.current_time() - began <= LINGER_SECONDS


async def test_what_a_refused_client_has_sent_is_read_before_the_connection_is_closed(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """TCP resets a connection that is closed with unread bytes, and the last word would be lost."""
    limits = ServerLimits(max_connections=1, wait_seconds=NO_WAIT_SECONDS)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        await site.greeted()
        refused = await site.client()
        async with trio.open_nursery() as nursery:
            # In lockstep, sending ends when everything was read.
            nursery.start_soon(refused.stream.send_all, bytes(100_000))
            assert isinstance(await refused.receive(), Error)


async def test_a_large_pair_waits_for_its_place_and_is_refused_in_the_end(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    database.content = {b"a": bytes(10_000)}
    limits = ServerLimits(max_ordinary_bytes=1000)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        slow, other = await site.greeted(), await site.greeted()
        await slow.send(slow.get_range(database.root))
        started = trio.current_time()
        refusal = await other.refused(other.get_range(database.root))
        assert refusal.code is ErrorCode.OVERLOADED
        assert trio.current_time() - started == pytest.approx(limits.large_timeout_seconds)
        assert pairs_of(await slow.receive()) == database.content
        assert pairs_of(await other.ask(other.get_range(database.root))) == database.content


async def test_a_large_pair_above_the_servers_limit_is_refused_with_what_it_needs(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    database.content = {b"a": bytes(10_000)}
    limits = ServerLimits(max_ordinary_bytes=1000, max_bytes=5000)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        refusal = await client.refused(client.get_range(database.root))
        assert refusal.code is ErrorCode.LIMIT_TOO_SMALL
        assert refusal.detail is not None
        assert refusal.detail > 10_000


class CommittingWorkers(VirtualWorkers):
    """Workers before whose second piece of work, beside the hello's, the database is written to."""

    def __init__(self, database: FakeDatabase, content: dict[bytes, bytes]) -> None:
        super().__init__()
        self._database = database
        self._content = content
        self._pieces = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        self._pieces += 1
        if self._pieces == 3:
            self._database.content = self._content
        return await super().run(work)


async def test_a_commit_before_a_large_pair_is_read_again_makes_its_root_unknown(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    database.content = {b"a": bytes(10_000)}
    executor = CommittingWorkers(database, {b"a": bytes(20_000)})
    limits = ServerLimits(max_ordinary_bytes=1000)
    async with running(Server(database, limits=limits, executor=executor)) as site:
        client = await site.greeted()
        error = await client.refused(client.get_range(database.root))
        assert error.code is ErrorCode.UNKNOWN_ROOT
        assert pairs_of(await client.ask(client.get_range(database.root))) == database.content


async def test_a_connection_that_does_not_read_costs_two_proofs_however_much_it_asks(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        before = database.snapshots
        await client.send(*(client.get_range(database.root, request_id=number) for number in range(1, 11)))
        await trio.testing.wait_all_tasks_blocked()
        assert database.snapshots - before == 2


# Silence and slowness.


async def test_a_silent_client_is_left_with_a_goodbye(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    started = trio.current_time()
    assert await client.receive_all() == [Goodbye()]
    assert trio.current_time() - started == pytest.approx(LIMITS.idle_timeout_seconds)
    assert site.server.counters.timeouts == 1


async def test_a_client_that_falls_silent_after_an_answer_is_left(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.ask(client.get_range(database.root))
    started = trio.current_time()
    assert await client.receive_all() == [Goodbye()]
    assert trio.current_time() - started == pytest.approx(LIMITS.idle_timeout_seconds)


async def test_a_ping_now_and_then_keeps_a_connection(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    for number in range(1, 5):
        await trio.sleep(0.9 * LIMITS.idle_timeout_seconds)
        assert await client.ask(Ping(number)) == Pong(number)


async def test_bytes_that_complete_no_message_keep_nothing(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    started = trio.current_time()
    for byte in encode(GetHead(2**32 - 1)).data[:-1]:
        await trio.sleep(0.3 * LIMITS.idle_timeout_seconds)
        try:
            await client.stream.send_all(bytes([byte]))
        except trio.BrokenResourceError:
            break
    assert await client.receive_all() == [Goodbye()]
    assert trio.current_time() - started <= 1.5 * LIMITS.idle_timeout_seconds


async def test_a_long_proof_is_no_silence(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 3 * LIMITS.idle_timeout_seconds
    assert isinstance(await client.ask(client.get_range(database.root)), Range)


async def test_a_client_that_does_not_read_is_cut_off(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(database, limits=LIMITS, executor=VirtualWorkers())
    async with running(server, lockstep=True) as site:
        client = await site.greeted()
        await client.send(client.get_range(database.root))
        await trio.sleep(LIMITS.send_timeout_seconds + 1 + 2 * LINGER_SECONDS)
        assert server.counters.connections_open == 0
        assert server.counters.timeouts == 1


async def test_a_longer_message_has_longer_to_be_read(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    database.content = {b"a": bytes(20 * MIN_SEND_BYTES_PER_SECOND)}
    limits = ServerLimits(send_timeout_seconds=5)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.send(client.get_range(database.root, max_bytes=32 << 20))
        messages: list[Message] = []
        while not messages:
            await trio.sleep(0.9)
            data = await client.stream.receive_some(MIN_SEND_BYTES_PER_SECOND)
            assert data, "it was cut off"
            messages = list(client.connection.receive_data(data))
        assert pairs_of(messages[0]) == database.content


@pytest.mark.parametrize(
    ("value_bytes", "patience_seconds"),
    [(900_000, ServerLimits().send_timeout_seconds), (20 << 20, ServerLimits().large_timeout_seconds)],
)
async def test_who_takes_nothing_of_an_answer_is_not_waited_for_however_long_it_is(
    database: FakeDatabase, value_bytes: int, patience_seconds: float, autojump_clock: MockClock
) -> None:
    database.content = {b"a": bytes(value_bytes)}
    server = Server(database, executor=VirtualWorkers())
    async with running(server, lockstep=True) as site:
        client = await site.greeted()
        await client.send(client.get_range(database.root, max_bytes=32 << 20))
        await client.stream.receive_some(SEND_BYTES)
        await trio.sleep(patience_seconds + 1 + 2 * LINGER_SECONDS)
        assert (server.counters.connections_open, server.counters.timeouts) == (0, 1)


async def test_a_client_that_does_not_read_is_not_read_from(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """Pongs wait for the client; the server does not gather them."""
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        sent = 0
        with trio.move_on_after(1):
            for number in range(1, 8):
                await client.send(Ping(number))
                sent += 1
        assert sent <= 3


@pytest.mark.parametrize("greedy", [1, 3])
async def test_clients_take_turns_however_much_one_asks(
    database: FakeDatabase, greedy: int, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers()
    async with running(Server(database, executor=executor)) as site:
        others = [await site.greeted() for _ in range(greedy)]
        modest = await site.greeted()
        executor.seconds = 1
        for other in others:
            await other.send(*(other.get_range(database.root, request_id=number) for number in range(1, 17)))
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        for _ in range(3):
            assert pairs_of(await modest.ask(modest.get_range(database.root))) == CONTENT
        # One piece of work of each other client at most goes before each of ours, besides the one under way.
        assert trio.current_time() - started <= 3 * (greedy + 1) + 1


async def test_slow_clients_do_not_slow_the_others(database: FakeDatabase, autojump_clock: MockClock) -> None:
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        for _ in range(10):
            slow = await site.greeted()
            await slow.send(*(slow.get_range(database.root, request_id=number) for number in range(1, 17)))
        modest = await site.greeted()
        started = trio.current_time()
        for _ in range(10):
            assert pairs_of(await modest.ask(modest.get_range(database.root))) == CONTENT
        assert trio.current_time() == started


# Misbehaviour.


HOSTILE: dict[str, Callable[[], bytes]] = {
    "another protocol": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a frame of 4 GiB": lambda: encode(HELLO).data + b"\xff\xff\xff\xff",
    "another version": lambda: b"\x00\x00\x00\x04\x93\x00\x00\x02",
    "a request before hello": lambda: encode(GetHead(1)).data,
    "a second hello": lambda: encode(HELLO).data * 2,
    "an answer": lambda: encode(HELLO).data + encode(Range(1, b"p")).data,
    "nested arrays": lambda: encode(HELLO).data + b"\x00\x00\x01\x00" + b"\x91" * 256,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_misbehaviour_ends_its_connection_with_a_word_and_no_other(
    site: Site, database: FakeDatabase, data: Callable[[], bytes], autojump_clock: MockClock
) -> None:
    other = await site.greeted()
    client = await site.client()
    await client.stream.send_all(data())
    hello, error = await client.receive_all()
    assert isinstance(hello, Hello)
    assert isinstance(error, Error)
    assert (error.request_id, error.code) == (0, ErrorCode.BAD_REQUEST)
    assert pairs_of(await other.ask(other.get_range(database.root))) == CONTENT
    assert site.server.counters.protocol_errors == 1
    assert site.server.counters.failures == 0


async def test_misbehaviour_while_a_proof_is_made(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 5
    await client.send(client.get_range(database.root))
    await client.stream.send_all(encode(HELLO).data)
    (error,) = await client.receive_all()
    assert isinstance(error, Error)
    assert error.code is ErrorCode.BAD_REQUEST
    assert site.server.counters.failures == 0


async def test_a_clients_last_error_ends_the_conversation(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    await client.send(Error(0, ErrorCode.INTERNAL, "the disk is full"))
    assert await client.receive_all() == []
    assert site.server.counters.failures == 0


async def test_a_client_that_vanishes_inside_its_hello_is_no_misbehaviour(
    site: Site, autojump_clock: MockClock
) -> None:
    client = await site.client()
    await client.stream.send_all(encode(HELLO).data[:10])
    await client.stream.aclose()
    await trio.sleep(2 * LINGER_SECONDS)
    assert site.server.counters.connections_open == 0
    assert site.server.counters.protocol_errors == 0


@pytest.mark.parametrize("greet", [False, True])
async def test_a_client_that_vanishes_leaves_nothing_behind(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, greet: bool, autojump_clock: MockClock
) -> None:
    client = await site.client()
    if greet:
        await client.greet()
        executor.seconds = 1
        await client.send(client.get_range(database.root), client.get_range(database.root, request_id=9))
    await client.stream.aclose()
    await trio.sleep(2 + 2 * LINGER_SECONDS)
    assert site.server.counters.connections_open == 0
    assert site.server.counters.protocol_errors == 0
    assert site.server.counters.failures == 0


# Goodbyes and shutdown.


async def test_a_client_that_says_goodbye_gets_its_answers(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 1
    await client.send(
        client.get_range(database.root), client.get_range(database.root, request_id=2), Goodbye()
    )
    answers = await client.receive_all()
    assert [pairs_of(answer) for answer in answers] == [CONTENT, CONTENT]


async def test_a_shutdown_finishes_what_is_in_flight(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 3
    await client.send(client.get_range(database.root), client.get_range(database.root, request_id=2))
    await trio.testing.wait_all_tasks_blocked()
    site.server.stop()
    goodbye, *answers = await client.receive_all()
    assert goodbye == Goodbye()
    assert [pairs_of(answer) for answer in answers] == [CONTENT, CONTENT]
    await site.stopped.wait()


async def test_a_request_that_crosses_the_shutdown_is_refused(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    site.server.stop()
    await trio.testing.wait_all_tasks_blocked()
    request = client.get_range(database.root)
    assert await client.ask(request) == Goodbye()
    refusal = await client.receive()
    assert isinstance(refusal, Error)
    assert (refusal.request_id, refusal.code) == (request.request_id, ErrorCode.SHUTTING_DOWN)
    assert await client.receive() is None


async def test_a_shutdown_does_not_wait_for_idle_clients(site: Site, autojump_clock: MockClock) -> None:
    clients = [await site.greeted() for _ in range(3)]
    silent = await site.client()
    await trio.testing.wait_all_tasks_blocked()
    started = trio.current_time()
    site.server.stop()
    await site.stopped.wait()
    assert trio.current_time() - started <= 3 * LINGER_SECONDS
    for client in clients:
        assert await client.receive_all() == [Goodbye()]
    assert [type(message) for message in await silent.receive_all()] == [Hello, Goodbye]


async def test_a_client_that_connects_while_the_server_stops_is_refused(
    site: Site, autojump_clock: MockClock
) -> None:
    client = await site.client()
    site.server.stop()
    messages = await client.receive_all()
    last_word = messages[-1]
    assert isinstance(last_word, Goodbye) or (
        isinstance(last_word, Error) and last_word.code is ErrorCode.SHUTTING_DOWN
    )
    await site.stopped.wait()


async def test_after_a_shutdown_nobody_can_connect(site: Site, autojump_clock: MockClock) -> None:
    site.server.stop()
    await site.stopped.wait()
    with pytest.raises(trio.BrokenResourceError):
        await site.listener.connect()


async def test_a_shutdown_cuts_off_what_takes_too_long(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(shutdown_timeout_seconds=5)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.send(client.get_range(database.root))
        started = trio.current_time()
        site.server.stop()
        await site.stopped.wait()
        assert trio.current_time() - started == pytest.approx(5)


async def test_cancelling_cuts_everything_off_at_once(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with running(Server(database, executor=VirtualWorkers(1))) as site:
        client = await site.greeted()
        await client.send(client.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - started <= 3
    assert client.connection.in_flight == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_connections": 0},
        {"max_requests": 65_536},
        {"max_bytes": 2**32},
        {"idle_timeout_seconds": -1.0},
        {"retry_after_milliseconds": 3_600_001},
    ],
    ids=str,
)
def test_limits_that_no_message_can_say_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        ServerLimits(**wrong)


async def test_the_counters_count(site: Site, database: FakeDatabase, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    await client.ask(client.get_range(database.root))
    await client.ask(GetHead(5))
    await client.ask(client.get_range(bytes(32)))
    counters = site.server.counters
    assert (counters.connections_open, counters.connections_accepted) == (1, 1)
    assert (counters.requests, counters.answers) == (3, 2)
    assert counters.refusals == {ErrorCode.UNKNOWN_ROOT: 1}
    assert counters.bytes_received > 150
    assert counters.bytes_sent > 100
    await client.send(Goodbye())
    await client.receive_all()
    await client.stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert counters.connections_open == 0


async def test_a_request_may_follow_the_clients_hello_at_once(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.client()
    await client.stream.send_all(encode(HELLO).data)
    await client.force(GetHead(1))
    assert isinstance(await client.receive(), Hello)
    assert await client.receive() == Head(1, database.root, 1, len(database.content))
