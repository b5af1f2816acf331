"""What a server tells those who follow its head, over memory streams and on a virtual clock."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from merkledb import CorruptDatabase
from server import Server, ServerLimits, ThreadExecutor
from server.handlers import HeadFacts
from server.head_notifier import LOOKS_AT_ONCE, Subscription
from server.limits import LINGER_SECONDS
from syncproto import (
    Cancel,
    Error,
    ErrorCode,
    GetHead,
    Goodbye,
    Head,
    Message,
    Ping,
    Pong,
    Range,
    Subscribe,
    encode,
)
from tests.support.fake_database import FakeDatabase, VirtualWorkers
from tests.support.protocol_client import HELLO, NO_WAIT_SECONDS, Client, Site, head_of, pairs_of, running

CONTENT = {b"a": b"1", b"b": b"2", b"c": b"3"}
LIMITS = ServerLimits(max_requests=4)
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


def change(database: FakeDatabase, number: int = 0) -> None:
    database.commit({b"number": number.to_bytes(4, "big")})


def assert_displaced(messages: list[Message]) -> None:
    """Assert that a client was told that somebody else has its place now."""
    (last_word,) = messages
    assert isinstance(last_word, Error)
    assert (last_word.request_id, last_word.code) == (0, ErrorCode.OVERLOADED)
    assert "connect again" in last_word.message


async def hears_nothing(client: Client, seconds: float) -> bool:
    with trio.move_on_after(seconds) as waiting:
        await client.receive()
    return waiting.cancelled_caught


# Announcing.


async def test_the_head_is_announced_at_once(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    for _ in range(3):
        client = await site.greeted()
        assert await client.subscribe() == head_of(database)
    assert trio.current_time() == started


async def test_each_new_head_is_announced_within_an_interval(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    for number in range(5):
        change(database, number)
        started = trio.current_time()
        assert await client.receive() == head_of(database)
        assert trio.current_time() - started <= LIMITS.head_interval_seconds


async def test_a_head_is_announced_at_once_where_the_server_is_told_to_look(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    for number in range(5):
        await trio.testing.wait_all_tasks_blocked()
        change(database, number)
        started = trio.current_time()
        site.server.announce()
        assert await client.receive() == head_of(database)
        assert trio.current_time() == started


class LateWorkers(ThreadExecutor):
    """Workers that come back some time after their work was done."""

    async def run(self, work: Callable[[], Result]) -> Result:
        result = work()
        await trio.sleep(0.1)
        return result


async def test_a_commit_while_the_head_is_read_is_not_missed(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(head_interval_seconds=1000, idle_timeout_seconds=5000)
    async with running(Server(database, limits=limits, executor=LateWorkers(1))) as site:
        client = await site.greeted()
        await client.subscribe()
        site.server.announce()
        await trio.testing.wait_all_tasks_blocked()
        change(database)
        site.server.announce()
        started = trio.current_time()
        assert await client.receive() == head_of(database)
        assert trio.current_time() - started <= 0.3


async def test_a_head_that_stays_is_announced_once(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    await client.subscribe()
    site.server.announce()
    assert await hears_nothing(client, 20)


async def test_a_root_that_came_back_is_a_new_head(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    first = await client.subscribe()
    database.commit({b"a": b"9"})
    await client.next_head()
    database.commit({b"a": b"1"})
    again = await client.next_head()
    assert (again.root, again.revision) == (first.root, 3)


async def test_the_end_of_a_first_sync_is_announced(
    database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    database.complete = False
    async with running(Server(database, executor=executor)) as site:
        client = await site.greeted()
        assert await client.subscribe() == Head(77, None, 0, 0)
        assert await hears_nothing(client, 20)
        database.complete = True
        assert await client.receive() == head_of(database)


async def test_what_is_asked_is_answered_beside_a_subscription(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = await client.subscribe()
    change(database)
    new = await client.next_head()
    assert old.root is not None
    assert new.root is not None
    assert pairs_of(await client.ask(client.get_range(old.root))) == CONTENT
    assert await client.ask(GetHead(3)) == head_of(database, 3)
    assert pairs_of(await client.ask(client.get_range(new.root))) == database.content


async def test_a_subscription_takes_the_place_of_no_request(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    executor.seconds = 1
    await client.send(*(client.get_range(database.root, request_id=number) for number in range(1, 5)))
    answers = [await client.receive() for _ in range(4)]
    assert [type(answer) for answer in answers] == [Range] * 4


async def test_a_head_is_announced_while_a_proof_is_made(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers(count=2)
    async with running(Server(database, executor=executor)) as site:
        client = await site.greeted()
        await client.subscribe()
        executor.seconds = 10
        await client.send(client.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
        executor.seconds = 0
        change(database)
        assert await client.receive() == head_of(database)
        assert pairs_of(await client.receive()) == CONTENT


async def test_the_counters_count_announcements(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    clients = [await site.greeted() for _ in range(3)]
    for client in clients:
        await client.subscribe()
    change(database)
    for client in clients:
        await client.receive()
    await clients[0].ask(GetHead(1))
    counters = site.server.counters
    assert (counters.announcements, counters.requests, counters.answers) == (6, 4, 1)


# Slow subscribers.


async def test_a_subscriber_that_reads_slowly_gets_the_newest_head_and_no_queue(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.subscribe()
        change(database, 0)
        await trio.sleep(1)
        in_the_stream = head_of(database)
        for number in range(1, LOOKS_AT_ONCE - 5):
            change(database, number)
            site.server.announce()
            await trio.testing.wait_all_tasks_blocked()
        assert await client.receive() == in_the_stream
        assert await client.receive() == head_of(database)
        assert await hears_nothing(client, 5)
        assert site.server.counters.announcements == 3


async def test_a_proof_that_is_read_slowly_keeps_heads_from_queueing(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.subscribe()
        await client.send(client.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(50):
            change(database, number)
            site.server.announce()
            await trio.testing.wait_all_tasks_blocked()
        assert pairs_of(await client.receive()) == CONTENT
        assert await client.receive() == head_of(database)
        assert await hears_nothing(client, 5)


async def test_a_subscriber_that_does_not_read_is_cut_off_and_keeps_nobody_waiting(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(database, limits=LIMITS, executor=VirtualWorkers())
    async with running(server, lockstep=True) as site:
        deaf, other = await site.greeted(), await site.greeted()
        await deaf.subscribe()
        await other.subscribe()
        for number in range(5):
            change(database, number)
            server.announce()
            started = trio.current_time()
            assert await other.receive() == head_of(database)
            assert trio.current_time() == started
        await trio.sleep(LIMITS.send_timeout_seconds + 1 + 2 * LINGER_SECONDS)
        assert (server.counters.connections_open, server.counters.timeouts) == (1, 1)
        change(database, 9)
        assert await other.receive() == head_of(database)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1), st.booleans(), st.booleans()), max_size=30),
    st.booleans(),
)
def test_every_subscriber_ends_at_the_newest_head_and_sees_no_older_one_after_a_newer(
    steps: list[tuple[int, float, bool, bool]], lockstep: bool
) -> None:
    """Commits, waits, calls of announce, and a subscriber that reads now and then."""

    async def scenario() -> None:
        database = FakeDatabase(dict(CONTENT))
        async with running(Server(database, executor=VirtualWorkers(0.01)), lockstep=lockstep) as site:
            client = await site.greeted()
            await client.send(Subscribe(77))
            seen = []
            for commits, seconds, announce, read in steps:
                for _ in range(commits):
                    change(database, database.revision)
                if announce:
                    site.server.announce()
                await trio.sleep(seconds)
                if read:
                    with trio.move_on_after(0):
                        seen.append(await client.next_head())
            while not seen or seen[-1] != head_of(database):
                seen.append(await client.next_head())
            revisions = [head.revision for head in seen]
            assert revisions == sorted(set(revisions))
            assert await hears_nothing(client, 2)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_waits_for_a_subscriber_is_the_newest_head_and_nothing_after_the_end() -> None:
    subscription = Subscription(7)
    assert subscription.take() is None
    for revision in (1, 2, 3):
        subscription.offer(HeadFacts(bytes(32), revision, 0))
    assert subscription.take() == Head(7, bytes(32), 3, 0)
    subscription.offer(HeadFacts(bytes(32), 3, 0))
    assert subscription.take() is None
    subscription.offer(HeadFacts(bytes(32), 4, 0))
    subscription.end(ErrorCode.CANCELLED, "the end")
    subscription.end(ErrorCode.INTERNAL, "another end")
    subscription.offer(HeadFacts(bytes(32), 5, 0))
    assert not subscription.is_over
    assert subscription.take() == Error(7, ErrorCode.CANCELLED, "the end")
    assert subscription.is_over


# Watching.


async def test_the_database_is_watched_only_while_somebody_is_subscribed(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    before = database.looks
    site.server.announce()
    await trio.sleep(100)
    assert database.looks == before
    await client.subscribe()
    await trio.sleep(10)
    assert database.looks - before >= 10 / LIMITS.head_interval_seconds
    await client.send(Cancel(77))
    await trio.sleep(1)
    before = database.looks
    await trio.sleep(10)
    assert database.looks == before


async def test_a_subscriber_that_vanishes_is_not_watched_for(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    await client.stream.aclose()
    await trio.sleep(3 * LINGER_SECONDS)
    before = database.looks
    await trio.sleep(100)
    assert database.looks == before
    assert site.server.counters.failures == 0


async def test_many_subscribers_cost_no_more_looks_than_one(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    clients = [await site.greeted() for _ in range(20)]
    for client in clients:
        await client.subscribe()
    before = database.looks
    await trio.sleep(10)
    assert database.looks - before <= 10 / LIMITS.head_interval_seconds + 1


async def test_a_head_that_cannot_be_read_is_reported_once_and_ends_nothing(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    seen: list[Exception] = []
    server = Server(database, executor=VirtualWorkers(), on_failure=seen.append)
    async with running(server) as site:
        client, late = await site.greeted(), await site.greeted()
        await client.subscribe()
        failure = database.unreadable = CorruptDatabase("/secret/path", "a hole")
        assert await hears_nothing(client, 10)
        assert seen == [failure]
        refusal = await late.refused(Subscribe(5))
        assert (refusal.request_id, refusal.code) == (5, ErrorCode.INTERNAL)
        assert refusal.message == "the server failed: use another"
        database.unreadable = None
        change(database)
        assert await client.receive() == head_of(database)
        assert await late.ask(Subscribe(5)) == head_of(database, 5)
        database.unreadable = failure
        await trio.sleep(10)
        assert seen == [failure, failure]


# Ending.


async def test_a_cancelled_subscription_ends_and_nothing_is_announced_any_more(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    await client.send(Cancel(77))
    change(database)
    assert await hears_nothing(client, 10)
    assert client.connection.subscription is None
    assert site.server.counters.refusals == {ErrorCode.CANCELLED: 1}
    assert await client.subscribe() == head_of(database)
    change(database, 1)
    assert await client.receive() == head_of(database)


async def test_a_cancel_that_crosses_a_head_is_harmless(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    for number in range(20):
        change(database, number)
        site.server.announce()
        await client.send(Cancel(77))
        while client.connection.subscription is not None:
            with trio.move_on_after(0.1):
                await client.receive()
        await client.subscribe()
    assert site.server.counters.protocol_errors == 0
    assert site.server.counters.failures == 0


async def test_a_subscription_cancelled_at_once_ends(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    executor.seconds = 1
    await client.send(Subscribe(1), Cancel(1))
    assert await hears_nothing(client, 10)
    assert client.connection.subscription is None


async def test_a_subscriber_that_does_not_read_the_end_holds_one_message(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with running(Server(database, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.subscribe()
        change(database)
        site.server.announce()
        await trio.testing.wait_all_tasks_blocked()
        await client.send(Cancel(77))
        for number in range(10):
            change(database, number)
            site.server.announce()
            await trio.testing.wait_all_tasks_blocked()
        assert await hears_nothing(client, 10)
        assert client.connection.subscription is None
        assert site.server.counters.announcements == 2


async def test_a_second_subscription_is_misbehaviour(site: Site, autojump_clock: MockClock) -> None:
    client = await site.greeted()
    await client.subscribe()
    await client.stream.send_all(encode(Subscribe(78)).data)
    (error,) = await client.receive_all()
    assert isinstance(error, Error)
    assert (error.request_id, error.code) == (0, ErrorCode.BAD_REQUEST)
    assert site.server.counters.protocol_errors == 1


async def test_a_subscriber_that_says_goodbye_gets_its_answers_and_is_left(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    executor.seconds = 1
    await client.send(client.get_range(database.root), Goodbye())
    (answer,) = await client.receive_all()
    assert pairs_of(answer) == CONTENT
    assert site.server.counters.timeouts == 0


async def test_a_shutdown_says_goodbye_to_subscribers_and_waits_for_none_of_them(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    clients = [await site.greeted() for _ in range(3)]
    for client in clients:
        await client.subscribe()
    started = trio.current_time()
    site.server.stop()
    await trio.testing.wait_all_tasks_blocked()
    change(database)
    site.server.announce()
    await site.stopped.wait()
    assert trio.current_time() - started <= 3 * LINGER_SECONDS
    for client in clients:
        assert await client.receive_all() == [Goodbye()]


async def test_a_shutdown_finishes_what_a_subscriber_has_asked(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    executor.seconds = 3
    await client.send(client.get_range(database.root))
    await trio.testing.wait_all_tasks_blocked()
    site.server.stop()
    goodbye, answer = await client.receive_all()
    assert goodbye == Goodbye()
    assert pairs_of(answer) == CONTENT
    await site.stopped.wait()


async def test_a_shutdown_cuts_off_a_subscriber_that_does_not_read(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(shutdown_timeout_seconds=5)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        client = await site.greeted()
        await client.subscribe()
        change(database)
        site.server.announce()
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        site.server.stop()
        await site.stopped.wait()
        assert trio.current_time() - started == pytest.approx(5)


async def test_a_subscription_that_crosses_the_shutdown_is_refused(
    site: Site, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    site.server.stop()
    await trio.testing.wait_all_tasks_blocked()
    assert await client.ask(Subscribe(1)) == Goodbye()
    refusal = await client.receive()
    assert isinstance(refusal, Error)
    assert (refusal.request_id, refusal.code) == (1, ErrorCode.SHUTTING_DOWN)
    assert await client.receive() is None


async def test_cancelling_cuts_subscribers_off_at_once(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with running(Server(database, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        await client.subscribe()
    assert trio.current_time() == started
    assert await client.receive_all() == []


# Silence, and places.


async def test_a_subscriber_that_answers_pings_stays_however_long_nothing_happens(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    pings = 0
    with trio.move_on_after(9.75 * LIMITS.idle_timeout_seconds):
        while (message := await client.receive()) is not None:
            assert isinstance(message, Ping)
            await client.send(Pong(message.request_id))
            pings += 1
    assert pings == 19
    change(database)
    assert await client.receive() == head_of(database)


@pytest.mark.parametrize("commits", [False, True])
async def test_a_subscriber_that_answers_no_ping_is_left_whatever_is_announced_to_it(
    site: Site, database: FakeDatabase, commits: bool, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    started = trio.current_time()
    while site.server.counters.connections_open:
        await trio.sleep(1)
        if commits:
            change(database, database.revision)
    assert trio.current_time() - started <= LIMITS.idle_timeout_seconds + 3 * LINGER_SECONDS
    *heads, goodbye = await client.receive_all()
    assert goodbye == Goodbye()
    assert len([head for head in heads if isinstance(head, Head)]) >= 100 * commits


async def test_a_subscriber_that_waits_for_a_long_proof_is_not_pinged_again_and_again(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    await client.subscribe()
    executor.seconds = 20 * LIMITS.idle_timeout_seconds
    await client.send(client.get_range(database.root))
    assert await client.receive() == Ping(1)
    assert pairs_of(await client.receive()) == CONTENT
    assert site.server.counters.failures == 0


async def test_a_subscriber_keeps_its_place_while_another_connection_asks_nothing(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(
        database,
        limits=ServerLimits(max_connections=2, wait_seconds=NO_WAIT_SECONDS),
        executor=VirtualWorkers(),
    )
    async with running(server) as site:
        follower = await site.greeted()
        await follower.subscribe()
        await trio.sleep(70)
        holder = await site.greeted()
        await trio.sleep(10)
        late = await site.greeted()
        assert_displaced(await holder.receive_all())
        assert [await follower.receive(), await follower.ask(GetHead(1))] == [Ping(1), head_of(database, 1)]
        assert isinstance(await late.ask(GetHead(1)), Head)


async def test_subscribers_make_room_after_everybody_else(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    server = Server(
        database,
        limits=ServerLimits(max_connections=3, wait_seconds=NO_WAIT_SECONDS),
        executor=VirtualWorkers(),
    )
    async with running(server) as site:
        follower, worker, holder = [await site.greeted() for _ in range(3)]
        await follower.subscribe()
        await trio.sleep(6)
        await worker.ask(GetHead(1))
        late = await site.greeted()
        assert_displaced(await holder.receive_all())
        # The others were at work too short a time ago, and the subscriber has grace for longer.
        (refusal,) = await (await site.client()).receive_all()
        assert isinstance(refusal, Error)
        assert refusal.code is ErrorCode.OVERLOADED
        change(database)
        assert await follower.receive() == head_of(database)
        assert isinstance(await late.ask(GetHead(1)), Head)


async def test_a_host_full_of_silent_subscribers_keeps_nobody_out_for_ever(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_connections=3, wait_seconds=NO_WAIT_SECONDS)
    server = Server(database, limits=limits, executor=VirtualWorkers())
    async with running(server) as site:
        first, follower, last = [await site.greeted() for _ in range(3)]
        for client in (first, follower, last):
            await client.subscribe()
            await trio.sleep(1)
        (refusal,) = await (await site.client()).receive_all()
        assert isinstance(refusal, Error)
        assert refusal.code is ErrorCode.OVERLOADED
        await trio.sleep(limits.subscriber_grace_seconds - 10)
        # Who follows what is announced is the last to go.
        assert isinstance(await follower.ask(GetHead(1)), Head)
        await trio.sleep(10)
        late = await site.greeted()
        assert isinstance(await late.ask(GetHead(1)), Head)
        assert_displaced([each for each in await first.receive_all() if not isinstance(each, Ping)])
        assert [await follower.ask(GetHead(2)), await follower.receive()] == [Ping(1), head_of(database, 2)]
        await trio.sleep(2 * LINGER_SECONDS)
        assert server.counters.connections_open == 3


async def test_a_client_is_not_idle_while_its_answer_is_sent(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_connections=1, wait_seconds=NO_WAIT_SECONDS)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        slow = await site.greeted()
        await slow.send(slow.get_range(database.root))
        await trio.sleep(limits.turn_seconds - 1)
        (refusal,) = await (await site.client()).receive_all()
        assert isinstance(refusal, Error)
        assert pairs_of(await slow.receive()) == CONTENT


async def test_subscriptions_may_follow_the_clients_hello_at_once(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.client()
    await client.stream.send_all(encode(HELLO).data)
    await client.force(Subscribe(77))
    await client.receive()
    assert await client.receive() == head_of(database)
