"""Who gets a place of a full server, and the memory of answers that nobody reads."""

import functools
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import merkledb
from server import Server, ServerLimits, addresses_of, open_listeners
from server.budget import AnswerBudget, Reservation
from server.limits import LINGER_SECONDS, MAX_LEAVING, MIN_SHARE_BYTES
from server.places import UNKNOWN_NETWORK, network_at, network_of
from syncproto import (
    UNASKED_BURST,
    Cancel,
    Connection,
    Error,
    ErrorCode,
    GetHead,
    GetRange,
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
from syncproto.connection import EXCESS_REQUESTS_FACTOR
from tests.support.fake_database import FakeDatabase, VirtualWorkers
from tests.support.protocol_client import NO_WAIT_SECONDS, Client, pairs_of, running
from tests.support.town import a_town

# Elsewhere, this machine has but one address of its own.
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address on Linux only")
CONTENT = {bytes([number]): bytes(1000) for number in range(200)}


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase(dict(CONTENT))


async def last_word_of(client: Client) -> Error:
    """Return what a client hears last, before the end."""
    *_, last_word = await client.receive_all()
    assert isinstance(last_word, Error)
    assert last_word.request_id == 0
    return last_word


# Networks.


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a name", "a name"),
    ],
)
def test_a_network_is_an_ipv4_address_or_64_bits_of_an_ipv6_address(host: str, network: str) -> None:
    assert network_at(host) == network


@on_linux
async def test_the_network_of_a_stream_is_that_of_its_socket() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    ((host, port),) = addresses_of([listener])
    async with (
        listener,
        await trio.open_tcp_stream(host, port, local_address="127.0.0.3"),
        await listener.accept() as stream,
    ):
        assert network_of(stream) == "127.0.0.3"
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        async with trio.SocketStream(trio.socket.from_stdlib_socket(each)) as unix:
            assert network_of(unix) == UNKNOWN_NETWORK
    assert network_of(trio.testing.memory_stream_pair()[0]) == UNKNOWN_NETWORK


async def test_the_network_of_an_encrypted_stream_is_that_of_the_stream_below() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    async with (
        listener,
        await trio.open_tcp_stream(*addresses_of([listener])[0]),
        await listener.accept() as stream,
    ):
        assert network_of(trio.SSLStream(stream, ssl.create_default_context())) == "127.0.0.1"


# Places.


async def test_a_network_has_no_more_places_than_it_may(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(
        database, ServerLimits(max_connections=4, max_connections_per_network=2, wait_seconds=NO_WAIT_SECONDS)
    ) as town:
        greedy = [await town.greeted("greedy") for _ in range(2)]
        await town.refused("greedy")
        for network in ("one", "another"):
            assert isinstance(await (await town.greeted(network)).ask(GetHead(1)), Head)
        for client in greedy:
            assert isinstance(await client.ask(GetHead(1)), Head)


async def test_the_network_that_holds_most_gives_a_place_to_another_however_busy_it_is(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """64 tiny requests every 4 seconds held all places: an honest client got in 0 of 20 times."""
    async with a_town(
        database, ServerLimits(max_connections=8, max_connections_per_network=8, wait_seconds=NO_WAIT_SECONDS)
    ) as town:
        greedy = [await town.greeted("greedy") for _ in range(8)]
        for client in greedy:
            await client.send(GetHead(1))
        honest = [await town.greeted("honest") for _ in range(4)]
        for client in honest:
            assert isinstance(await client.ask(GetHead(1)), Head)
        # Now each has a fair share, and nobody more has to leave.
        await town.refused("honest")
        await town.refused("greedy")
        counters = town.site.server.counters
        assert (counters.connections_displaced, counters.connections_refused) == (4, 2)
        told = [await last_word_of(client) for client in greedy if await is_over(client)]
        assert len(told) == 4
        assert all("your address holds more of them" in error.message for error in told)


async def is_over(client: Client) -> bool:
    """Whether a client that reads all that is there comes to the end of the stream."""
    with trio.move_on_after(0.01):
        while (message := await client.receive()) is not None:
            if isinstance(message, Error):
                client._received.appendleft(message)
                return True
    return False


async def test_who_waits_for_no_answer_leaves_first_and_an_answer_under_way_still_comes(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers()
    limits = ServerLimits(max_connections=2, max_connections_per_network=2)
    async with a_town(database, limits, executor) as town:
        busy, idle = [await town.greeted("greedy") for _ in range(2)]
        executor.seconds = limits.leave_seconds / 2
        await busy.send(busy.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
        await town.client("one")
        assert (await last_word_of(idle)).code is ErrorCode.OVERLOADED
        assert pairs_of(await busy.receive())


async def test_an_answer_under_way_comes_before_the_last_word_and_what_is_asked_meanwhile_is_refused(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers(count=4)
    limits = ServerLimits(max_connections=2, max_connections_per_network=2)
    async with a_town(database, limits, executor) as town:
        clients = [await town.greeted("greedy") for _ in range(2)]
        executor.seconds = limits.leave_seconds / 2
        for client in clients:
            await client.send(client.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
        await town.client("one")
        for client in clients:
            await client.send(client.get_range(database.root))
        messages = [await client.receive() for client in clients]
        (late,) = [each for each in messages if isinstance(each, Error)]
        assert (late.request_id, late.code) == (2, ErrorCode.OVERLOADED)
        displaced = clients[messages.index(late)]
        answer, last_word = await displaced.receive_all()
        assert pairs_of(answer)
        assert isinstance(last_word, Error)
        assert (last_word.request_id, last_word.code) == (0, ErrorCode.OVERLOADED)


async def test_who_has_to_leave_gets_no_more_than_a_moment(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers(count=4)
    limits = ServerLimits(max_connections=2, max_connections_per_network=2)
    async with a_town(database, limits, executor) as town:
        clients = [await town.greeted("greedy") for _ in range(2)]
        executor.seconds = 3 * limits.leave_seconds
        for client in clients:
            await client.send(client.get_range(database.root))
        await trio.testing.wait_all_tasks_blocked()
        executor.seconds = 0
        await town.client("one")
        assert town.site.server.counters.connections_open == 3
        await trio.sleep(3 * limits.leave_seconds + 1)
        assert town.site.server.counters.connections_open == 2


async def test_clients_of_one_network_take_turns(database: FakeDatabase, autojump_clock: MockClock) -> None:
    limits = ServerLimits(max_connections=4, wait_seconds=NO_WAIT_SECONDS)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask_for_ever, await town.greeted("nat"))
        began = trio.current_time()
        await town.refused("nat")
        while isinstance(await (late := await town.client("nat")).receive(), Error):  # noqa: ASYNC110 - as a refused client does.
            await trio.sleep(0.5)
        waited = trio.current_time() - began
        assert waited <= limits.turn_seconds + 1
        # And it has its turn, too.
        while trio.current_time() < began + waited + limits.turn_seconds - 2:
            assert isinstance(await late.ask(GetHead(1)), Head)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def ask_for_ever(client: Client) -> None:
    """Ask for a head every 4 seconds, and come no more when it is told to leave."""
    with suppress(trio.BrokenResourceError):
        while isinstance(await client.ask(GetHead(client.connection.next_request_id())), Head):  # noqa: ASYNC110 - that is all it does.
            await trio.sleep(4)


async def test_nobody_has_to_leave_who_is_sent_a_large_pair(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    executor = VirtualWorkers(count=2)
    database.content[b"\xfflarge"] = bytes(50_000)
    limits = ServerLimits(max_connections=2, max_connections_per_network=2, max_ordinary_bytes=20_000)
    async with a_town(database, limits, executor) as town:
        clients = [await town.greeted("greedy") for _ in range(2)]
        executor.seconds = limits.turn_seconds
        await clients[0].send(clients[0].get_range(database.root, start=b"\xfflarge"))
        await clients[1].send(clients[1].get_range(database.root))
        await trio.sleep(1.5 * limits.turn_seconds)
        executor.seconds = 0
        await town.client("one")
        assert (await last_word_of(clients[1])).code is ErrorCode.OVERLOADED
        assert pairs_of(await clients[0].receive()) == {b"\xfflarge": bytes(50_000)}


async def test_as_many_leave_at_a_time_as_may_and_then_newcomers_wait(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(
        max_connections=2 * MAX_LEAVING,
        max_connections_per_network=2 * MAX_LEAVING,
        wait_seconds=NO_WAIT_SECONDS,
    )
    async with a_town(database, limits) as town:
        for _ in range(2 * MAX_LEAVING):
            await town.greeted("greedy")
        for number in range(MAX_LEAVING):
            await town.client(f"honest {number}")
        assert town.site.server.counters.connections_open == 3 * MAX_LEAVING
        await town.refused("one more")
        await town.greeted("one more")
        await trio.sleep(limits.leave_seconds + 2 * LINGER_SECONDS)
        assert town.site.server.counters.connections_open == limits.max_connections


async def test_streams_that_tell_no_address_have_no_limit_of_their_own(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(
        database, ServerLimits(max_connections=3, max_connections_per_network=1, wait_seconds=NO_WAIT_SECONDS)
    ) as town:
        for _ in range(3):
            await town.greeted(UNKNOWN_NETWORK)
        await town.refused(UNKNOWN_NETWORK)
        await town.greeted("somewhere")


@on_linux
async def test_an_honest_client_gets_in_beside_a_greedy_address(tmp_path: Path) -> None:
    """On real sockets, whose addresses differ."""
    with merkledb.open(tmp_path / "store") as database:
        database.commit({b"key": b"value"})
        limits = ServerLimits(max_connections=6, max_connections_per_network=4, wait_seconds=NO_WAIT_SECONDS)
        listeners = await open_listeners("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(database, limits=limits).serve, listeners)
            connect = functools.partial(trio.open_tcp_stream, *addresses_of(listeners)[0])
            greedy = [Client(await connect(local_address="127.0.0.2")) for _ in range(10)]
            heard = [await client.receive() for client in greedy]
            assert [type(message) for message in heard].count(Hello) == 4
            for number in range(20):
                client = Client(await connect(local_address=f"127.0.0.{3 + number % 2}"))
                assert isinstance(await client.receive(), Hello), "each time"
                await client.stream.aclose()
            for client in greedy:
                await client.stream.aclose()
            nursery.cancel_scope.cancel()


# Memory.


@pytest.mark.slow
async def test_answers_that_nobody_reads_take_no_more_than_their_budget(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(
        max_connections=100, max_ordinary_bytes=50_000, max_answer_bytes=200 * 2 * MIN_SHARE_BYTES
    )
    server = Server(database, limits=limits, executor=VirtualWorkers(count=2))
    budget = server._services.budget
    async with running(server, lockstep=True) as site:
        deaf = [await site.greeted() for _ in range(99)]
        for client in deaf:
            await client.send(*(client.get_range(database.root, request_id=number) for number in range(1, 9)))
        await trio.testing.wait_all_tasks_blocked()
        assert limits.max_answer_bytes / 4 < budget.peak_bytes <= limits.max_answer_bytes
        # Nobody waits for them: others get shorter answers.
        began = trio.current_time()
        honest = await site.greeted()
        for _ in range(5):
            pairs = pairs_of(await honest.ask(honest.get_range(database.root)))
            assert 0 < len(pairs) * 1000 <= limits.max_answer_bytes / 200
        assert trio.current_time() == began
        # And they lose their connections.
        await trio.sleep(limits.send_timeout_seconds + 2 + 2 * LINGER_SECONDS)
        assert server.counters.timeouts == 99
        assert budget.held_bytes == 0
        assert len(pairs_of(await honest.ask(honest.get_range(database.root)))) >= 45


async def test_the_budget_is_whole_again_after_answers_of_all_sorts(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    database.content[b"large"] = bytes(50_000)
    limits = ServerLimits(max_ordinary_bytes=20_000)
    server = Server(database, limits=limits, executor=VirtualWorkers())
    async with running(server) as site:
        client = await site.greeted()
        for request in (
            client.get_range(database.root),
            client.get_range(bytes(32), request_id=2),
            client.get_range(database.root, request_id=3, start=b"large"),
            client.get_range(database.root, request_id=4, start=b"large", max_bytes=100),
            GetHead(5),
        ):
            assert isinstance(await client.ask(request), Range | Error | Head)
        assert server._services.budget.held_bytes == 0
        assert server._services.budget.peak_bytes <= limits.max_ordinary_bytes


takes = st.tuples(st.integers(0, 4), st.integers(0, 400), st.floats(0, 1))


@given(st.lists(takes | st.integers(0, 30), max_size=60))
def test_what_is_taken_is_never_more_than_the_budget_and_a_share_is_always_there(
    steps: list[tuple[int, int, float] | int],
) -> None:
    budget = AnswerBudget(1000, 5)
    accounts = [budget.account() for _ in range(5)]
    taken: list[tuple[int, Reservation]] = []
    for step in steps:
        if isinstance(step, int):
            if step < len(taken):
                taken.pop(step)[1].release()
            continue
        number, wanted, part = step
        reservation = accounts[number].take(wanted)
        if reservation is None:
            assert any(each == number for each, _ in taken), "only its own answers keep anybody waiting"
        else:
            assert min(wanted, budget.share_bytes) <= reservation.byte_count <= wanted
            reservation.shrink(int(reservation.byte_count * part))
            taken.append((number, reservation))
        assert budget.held_bytes == sum(each.byte_count for _, each in taken) <= 1000
    for account in accounts:
        account.close()
    assert budget.held_bytes == 0
    assert accounts[0].take(500) is not None, "the pool is whole again"


def test_a_budget_that_leaves_a_connection_next_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_answer_bytes is 1000000, and must be at least"):
        ServerLimits(max_connections=1000, max_answer_bytes=1_000_000)


# Floods.


FLOODS: dict[str, Callable[[int], list[Message]]] = {
    "pings": lambda number: [Ping(number)],
    "cancels of nothing": lambda number: [Cancel(number)],
    "heads asked for": lambda number: [GetHead(number)],
    "ranges that are cancelled": lambda number: [
        GetRange(number, bytes(32), None, None, 1, 100),
        Cancel(number),
    ],
    "subscriptions that are cancelled": lambda number: [Subscribe(number), Cancel(number)],
    "pongs": lambda number: [Pong(number)],
}


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_no_flood_of_messages_is_handled_in_one_step(
    database: FakeDatabase,
    flood: Callable[[int], list[Message]],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What others wait for is counted in messages: each takes some microseconds."""
    limits = ServerLimits()
    decoded = [0]

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            decoded.append(0)

    receive = Connection._receive

    def counting(connection: Connection, message: Message) -> bool:
        decoded[-1] += connection.role is Role.SERVER
        return receive(connection, message)

    monkeypatch.setattr(Connection, "_receive", counting)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        messages = [message for number in range(1, 3_000) for message in flood(number)]
        trio.lowlevel.add_instrument(steps := Steps())
        with suppress(trio.BrokenResourceError):
            await client.stream.send_all(b"".join(encode(message).data for message in messages))
        await trio.sleep(1)
        trio.lowlevel.remove_instrument(steps)
    assert 0 < max(decoded) <= 2 * EXCESS_REQUESTS_FACTOR * limits.max_requests + 1


async def test_pings_without_end_are_misbehaviour(database: FakeDatabase, autojump_clock: MockClock) -> None:
    async with running(Server(database, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        pings = [encode(Ping(number)).data for number in range(1, UNASKED_BURST + 10)]
        client.connection._pings._ours.update(range(1, UNASKED_BURST + 10))
        await client.stream.send_all(b"".join(pings))
        *pongs, last_word = await client.receive_all()
        assert pongs == [Pong(number) for number in range(1, UNASKED_BURST + 1)]
        assert isinstance(last_word, Error)
        assert "heads and pings a second" in last_word.message
        assert site.server.counters.protocol_errors == 1


@pytest.mark.slow
async def test_a_ping_a_second_is_welcome_for_ever(database: FakeDatabase, autojump_clock: MockClock) -> None:
    async with running(Server(database, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        for number in range(1, 2 * UNASKED_BURST):
            assert await client.ask(Ping(number)) == Pong(number)
            await trio.sleep(1)
