"""Who waits for a place of a full server, for how long, and that those who come back fastest gain nothing."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from merkledb import Database
from server import ServerLimits
from server.handlers import HeadFacts, read_head
from server.limits import (
    DOOR_SECONDS,
    GREETING_SECONDS,
    MAX_AT_DOOR,
    MAX_LEAVING,
    MAX_REMEMBERED,
    REMEMBERED_SECONDS,
)
from server.places import Place, Places
from server.services import Counters
from server.waiting_line import LOOK_SECONDS, WaitingLine, _LastPlaces
from syncproto import (
    MAX_HELLO_BYTES,
    Error,
    ErrorCode,
    GetHead,
    Head,
    Hello,
    LocalProtocolError,
    Subscribe,
    encode,
)
from tests.support.fake_database import FakeDatabase
from tests.support.protocol_client import Client
from tests.support.thoroughness import amount
from tests.support.town import Town, a_town

SMALL = ServerLimits(
    max_connections=2, max_connections_per_network=1, max_waiting=4, max_waiting_per_network=2
)


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase({b"key": b"value"})


async def says_nothing(_: trio.abc.Stream) -> None:
    """Say no hello to those who wait for a place."""


async def asks_all_the_time(client: Client) -> None:
    """Hold a place and be busy, until told to leave."""
    while isinstance(await client.ask(GetHead(client.connection.next_request_id())), Head):  # noqa: ASYNC110 - that is all it does.
        await trio.sleep(0.5)


async def subscribes(client: Client) -> None:
    """Hold a place as a client that follows, until told to leave."""
    await client.send(Subscribe(77))
    while (message := await client.receive()) is not None and not isinstance(message, Error):
        pass


async def keep_coming(
    town: Town, network: str, patience_seconds: float, use: Callable[[Client], Awaitable[None]]
) -> None:
    """Connect again 0.2 seconds after each end; hang up where nothing is heard for some time."""
    while True:
        client, heard = await town.client(network), None
        with trio.move_on_after(patience_seconds):
            heard = await client.receive()
        if isinstance(heard, Hello):
            # What it was told last may have come together with hello.
            with suppress(trio.BrokenResourceError, LocalProtocolError):
                await use(client)
        await client.stream.aclose()
        await trio.sleep(0.2)


async def come_with_patience(town: Town, network: str, random: Random) -> float:
    """Connect as an honest client does, with growing pauses up to 5 seconds; return how long it took."""
    began, pause = trio.current_time(), 0.5
    while isinstance(await (client := await town.client(network)).receive(), Error):
        await client.stream.aclose()
        await trio.sleep(pause * (1 + random.random()))
        pause = min(2 * pause, 2.5)
    assert isinstance(await client.ask(GetHead(1)), Head), "it has its turn"
    await client.stream.aclose()
    return trio.current_time() - began


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patience_seconds", "use"),
    [(60, asks_all_the_time), (0.2, asks_all_the_time), (60, subscribes)],
    ids=["they wait", "they hang up", "they subscribe"],
)
@pytest.mark.parametrize("seed", range(amount(1, soak=10)))
async def test_an_honest_client_gets_in_behind_the_address_of_64_greedy_ones(
    database: FakeDatabase,
    seed: int,
    patience_seconds: float,
    use: Callable[[Client], Awaitable[None]],
    autojump_clock: MockClock,
) -> None:
    """Those that came back 0.2 seconds after a refusal took every place that became free, for ever."""
    limits, random = ServerLimits(), Random(seed)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(keep_coming, town, "nat", patience_seconds, use)
        await trio.sleep(limits.turn_seconds * (1 + random.random()))
        for _ in range(4):
            assert await come_with_patience(town, "nat", random) <= limits.wait_seconds + limits.turn_seconds
            await trio.sleep(limits.turn_seconds * random.random())
        nursery.cancel_scope.cancel()


async def test_subscribers_take_turns_with_their_own_network_also_below_its_limit(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_connections=4, max_connections_per_network=3)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for network, use in (("nat", subscribes), ("other", asks_all_the_time)):
            for _ in range(2):
                nursery.start_soon(use, await town.greeted(network))
        began = trio.current_time()
        assert isinstance(await (await town.client("nat")).receive(), Hello)
        assert trio.current_time() - began <= limits.turn_seconds + 2 * LOOK_SECONDS
        nursery.cancel_scope.cancel()


async def test_a_client_waits_for_a_place_and_is_refused_in_the_end(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = replace(SMALL, wait_seconds=SMALL.turn_seconds - 1)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        nursery.start_soon(asks_all_the_time, await town.greeted("nat"))
        began = trio.current_time()
        await town.refused("nat")
        assert trio.current_time() - began == pytest.approx(limits.wait_seconds)
        assert town.site.server.counters.connections_waiting == 0
        nursery.cancel_scope.cancel()


async def test_a_place_that_is_left_goes_at_once_to_the_first_in_line_and_not_to_a_newcomer(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, replace(SMALL, max_waiting_per_network=3)) as town:
        holder = await town.greeted("nat")
        first, second = [await town.client("nat") for _ in range(2)]
        began = trio.current_time()
        await holder.stream.aclose()
        newcomer = await town.client("nat")
        assert isinstance(await first.receive(), Hello)
        assert trio.current_time() == began
        await first.stream.aclose()
        assert isinstance(await second.receive(), Hello)
        await second.stream.aclose()
        assert isinstance(await newcomer.receive(), Hello)
        assert trio.current_time() == began


async def test_what_a_client_says_while_it_waits_is_heard(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, SMALL) as town:
        holder = await town.greeted("nat")
        client = await town.mute("nat")
        await client.send(client.connection.hello)
        await trio.testing.wait_all_tasks_blocked()
        await holder.stream.aclose()
        assert isinstance(await client.receive(), Hello)
        assert isinstance(await client.ask(GetHead(1)), Head)


async def test_a_client_that_talks_on_while_it_waits_is_read_no_further(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """Its bytes wait in the network; an answer to them is the connection's to give, when it has a place."""
    async with a_town(database, SMALL) as town:
        holder = await town.greeted("nat")
        client = await town.mute("nat")
        await client.stream.send_all(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        await holder.stream.aclose()
        assert isinstance(await client.receive(), Hello)
        assert (await client.receive_all())[-1].code is ErrorCode.BAD_REQUEST  # type: ignore[union-attr]


async def test_who_hangs_up_leaves_the_line(database: FakeDatabase, autojump_clock: MockClock) -> None:
    async with a_town(database, SMALL) as town:
        await town.greeted("nat")
        client = await town.client("nat")
        assert town.site.server.counters.connections_waiting == 1
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert town.site.server.counters.connections_waiting == 0


async def test_many_who_wait_and_never_speak_keep_no_other_address_out_of_the_line(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, SMALL) as town, trio.open_nursery() as nursery:
        holders = [await town.greeted(network) for network in ("one", "two")]
        for holder in holders:
            nursery.start_soon(asks_all_the_time, holder)
        silent = [await town.client(network) for network in ("one", "one", "two", "two")]
        began = trio.current_time()
        for network in ("one", "two"):
            await town.refused(network)
        honest = await town.client("honest")
        assert trio.current_time() == began
        # The last of the longest line had to go, and nobody else.
        assert isinstance(await silent[1].receive(), Error)
        assert town.site.server.counters.connections_waiting == SMALL.max_waiting
        # A network that holds no place comes before those that do, though they have waited longer.
        assert isinstance(await honest.receive(), Hello)
        assert trio.current_time() - began <= SMALL.turn_seconds + 2 * LOOK_SECONDS
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_hundreds_who_wait_behind_two_addresses_do_not_delay_a_third(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits()
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for network in ("one", "two"):
            for _ in range(limits.max_connections_per_network):
                nursery.start_soon(asks_all_the_time, await town.greeted(network))
            for _ in range(limits.max_waiting_per_network):
                await town.client(network)
        assert town.site.server.counters.connections_waiting == limits.max_waiting
        began = trio.current_time()
        for _ in range(5):
            await town.greeted("honest")
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def hold_all_places(town: Town, nursery: trio.Nursery) -> None:
    """Let busy clients of two networks hold all places."""
    limits = town.site.server.limits
    for number in range(limits.max_connections):
        nursery.start_soon(asks_all_the_time, await town.greeted(f"greedy {number % 2}"))


@pytest.mark.parametrize("network", ["mute 0", "honest"])
async def test_who_says_no_hello_gives_way_at_once_to_one_who_has(
    database: FakeDatabase, network: str, autojump_clock: MockClock
) -> None:
    """64 half-open connections kept their places for 10 seconds: an honest client waited for as long."""
    async with a_town(database, ServerLimits()) as town:
        mute = [await town.mute(f"mute {number % 2}") for number in range(2 * 64)]
        await trio.sleep(GREETING_SECONDS)
        began = trio.current_time()
        for _ in range(5):
            await town.greeted(network)
        assert trio.current_time() == began
        assert isinstance(await mute[0].receive(), Hello)
        last_word = await mute[0].receive()
        assert isinstance(last_word, Error)
        assert "you have said no hello" in last_word.message


async def test_a_place_is_safe_for_the_time_that_a_hello_may_take(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, SMALL) as town:
        await town.greeted("one")
        late = await town.mute("two")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(town.greeted, "three")
            await trio.sleep(GREETING_SECONDS / 2)
            assert isinstance(await late.receive(), Hello)
            await late.send(late.connection.hello)
            assert isinstance(await late.ask(GetHead(1)), Head)
        assert trio.current_time() - began >= SMALL.grace_seconds


@pytest.mark.slow
async def test_mute_clients_of_any_number_of_addresses_keep_nobody_out(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """400 of them filled the line: everybody else was refused at once."""
    async with a_town(database, ServerLimits()) as town, trio.open_nursery() as nursery:
        await hold_all_places(town, nursery)
        mute = [await town.mute(f"mute {number}") for number in range(400)]
        assert town.site.server.counters.connections_waiting == MAX_AT_DOOR
        # Those that had most time to say hello were sent away.
        assert isinstance(await mute[0].receive(), Error)
        began = trio.current_time()
        for number in range(5):
            await town.greeted(f"honest {number}")
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("greets", [False, True])
async def test_those_who_hang_up_make_few_others_leave(
    database: FakeDatabase, greets: bool, autojump_clock: MockClock
) -> None:
    limits = ServerLimits()
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for number in range(limits.max_connections):
            network = f"greedy {number % 2}"
            nursery.start_soon(keep_coming, town, network, 60, asks_all_the_time)
        counters = town.site.server.counters
        await trio.sleep(2)
        for _ in range(10):
            clients = [
                await (town.client if greets else town.mute)(f"hostile {number}") for number in range(20)
            ]
            for client in clients:
                await client.stream.aclose()
            await trio.sleep(0.25)
        # As if they had come to stay: what one of the others may hold, and those of one burst.
        due = limits.max_connections_per_network + MAX_LEAVING
        assert counters.connections_displaced <= (due if greets else 0)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_client_that_waits_for_our_hello_is_told_it_at_the_door(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """As one does that does not know the scheme yet."""
    async with a_town(database, ServerLimits()) as town, trio.open_nursery() as nursery:
        await hold_all_places(town, nursery)
        began = trio.current_time()
        client = await town.mute("honest")
        assert isinstance(await client.receive(), Hello)
        assert trio.current_time() - began == pytest.approx(DOOR_SECONDS)
        assert town.site.server.counters.connections_displaced == 0
        await client.send(client.connection.hello)
        assert isinstance(await client.ask(GetHead(1)), Head)
        assert town.site.server.counters.connections_displaced == 1
        assert trio.current_time() - began == pytest.approx(DOOR_SECONDS)
        # Who stays mute is refused in the end as one that has to leave.
        mute = await town.mute("another")
        assert isinstance(await mute.receive(), Hello)
        assert isinstance(await mute.receive(), Error)
        nursery.cancel_scope.cancel()


async def test_for_all_who_stand_at_the_door_the_head_is_read_once(
    database: FakeDatabase, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many who say nothing kept the threads busy that others wait for."""
    reads = []

    def counting(database: Database) -> HeadFacts:
        reads.append(database)
        return read_head(database)

    async with a_town(database, ServerLimits()) as town, trio.open_nursery() as nursery:
        await hold_all_places(town, nursery)
        monkeypatch.setattr("server.server.read_head", counting)
        mute = [await town.mute(f"mute {number}") for number in range(50)]
        for client in mute:
            assert isinstance(await client.receive(), Hello)
        assert len(reads) == 1
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_or_takes_nothing_as_it_is_told_our_hello_leaves_the_door(
    autojump_clock: MockClock,
) -> None:
    async def breaks(_: trio.abc.Stream) -> None:
        raise trio.BrokenResourceError

    counters = Counters()
    line = WaitingLine(Places(SMALL, counters), SMALL, counters, breaks)
    assert await line.take(trio.testing.memory_stream_pair()[0], "nat") is not None
    began = trio.current_time()
    assert await line.take(trio.testing.memory_stream_pair()[0], "nat") is None
    assert trio.current_time() - began == pytest.approx(DOOR_SECONDS)
    assert counters.connections_waiting == 0


async def test_a_network_that_had_no_place_lately_comes_before_one_that_had(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """Beside 250 addresses, each with a busy client, a newcomer waited for several times its share."""
    limits = ServerLimits(max_connections=1, max_connections_per_network=1)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        nursery.start_soon(asks_all_the_time, await town.greeted("first"))
        nursery.start_soon(asks_all_the_time, await town.greeted("second"))
        first = await town.client("first")
        newcomer = await town.client("newcomer")
        assert isinstance(await newcomer.receive(), Hello)
        assert town.site.server.counters.connections_waiting == 1
        await newcomer.stream.aclose()
        assert isinstance(await first.receive(), Hello)
        nursery.cancel_scope.cancel()


async def test_a_full_line_has_a_position_for_a_network_that_had_no_place_lately(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_connections=1, max_connections_per_network=1, max_waiting=2)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for network in ("first", "second", "third"):
            nursery.start_soon(asks_all_the_time, await town.greeted(network))
        first, second = [await town.client(network) for network in ("first", "second")]
        newcomer = await town.client("newcomer")
        assert isinstance(await second.receive(), Error)
        # It was given a place later than both that wait.
        await town.refused("third")
        assert isinstance(await newcomer.receive(), Hello)
        await newcomer.stream.aclose()
        assert isinstance(await first.receive(), Hello)
        nursery.cancel_scope.cancel()


async def test_a_network_may_use_all_positions_until_another_needs_one(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    """Of those beyond the line, the ones that came back fastest got in: it begins as late as can be."""
    limits = ServerLimits()
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for _ in range(limits.max_connections_per_network):
            nursery.start_soon(asks_all_the_time, await town.greeted("nat"))
            nursery.start_soon(asks_all_the_time, await town.greeted("other"))
        waiting = [await town.client("nat") for _ in range(limits.max_waiting)]
        await town.refused("nat")
        await town.client("other")
        assert isinstance(await waiting[-1].receive(), Error)
        assert town.site.server.counters.connections_waiting == limits.max_waiting
        nursery.cancel_scope.cancel()


async def test_those_who_wait_are_told_when_the_server_stops(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, SMALL) as town:
        await town.greeted("nat")
        client = await town.client("nat")
        town.site.server.stop()
        refusal = await client.receive()
        assert isinstance(refusal, Error)
        assert refusal.code is ErrorCode.SHUTTING_DOWN


async def test_a_client_that_is_cancelled_as_it_gets_its_place_gives_it_back(
    autojump_clock: MockClock,
) -> None:
    counters = Counters()
    line = WaitingLine(Places(SMALL, counters), SMALL, counters, says_nothing)
    held = await line.take(trio.testing.memory_stream_pair()[0], "nat")
    assert held is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.take, trio.testing.memory_stream_pair()[0], "nat")
        await trio.testing.wait_all_tasks_blocked()
        assert counters.connections_waiting == 1
        line.leave(held)
        nursery.cancel_scope.cancel()
    assert counters.connections_waiting == 0
    assert await line.take(trio.testing.memory_stream_pair()[0], "nat") is not None


async def test_an_encrypted_stream_is_not_read_before_it_has_a_place(autojump_clock: MockClock) -> None:
    """Its handshake would begin, and a cancellation in the middle of one breaks the stream."""
    counters = Counters()
    line = WaitingLine(Places(SMALL, counters), SMALL, counters, says_nothing)
    held = await line.take(trio.testing.memory_stream_pair()[0], "nat")
    assert held is not None
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(bytes(10))
    encrypted = trio.SSLStream(ours, ssl.create_default_context(), server_side=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.take, encrypted, "nat")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await ours.receive_some() == bytes(10)


async def come(line: WaitingLine, network: str, given: list[str], *, says_hello: bool = True) -> None:
    """Wait for a place, and note the network when it has one."""
    ours, theirs = trio.testing.memory_stream_pair()
    if says_hello:
        hello = Hello(hasher="blake3", branch_factor=16, root=None, revision=0, max_frame_bytes=65_536)
        await ours.send_all(encode(hello).data)
    if await line.take(theirs, network) is not None:
        given.append(network)


async def test_a_network_that_waits_keeps_its_turn_however_many_others_come_to_the_door(
    autojump_clock: MockClock,
) -> None:
    await trio.sleep(2 * REMEMBERED_SECONDS)
    counters, given = Counters(), list[str]()
    line = WaitingLine(Places(SMALL, counters), SMALL, counters, says_nothing)
    first = await line.take(trio.testing.memory_stream_pair()[1], "at work")
    assert first is not None
    await line.take(trio.testing.memory_stream_pair()[1], "at work too")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, line, "honest", given)
        await trio.sleep(0.1)
        for number in range(MAX_REMEMBERED + 1):
            nursery.start_soon(partial(come, line, f"mute {number}", given, says_hello=False))
        await trio.sleep(0.1)
        nursery.start_soon(come, line, "newcomer", given)
        await trio.sleep(0.1)
        line.leave(first)
        await trio.sleep(0.05)
        assert given == ["honest"]
        nursery.cancel_scope.cancel()


async def test_the_last_places_of_so_many_networks_are_remembered_for_so_long(
    autojump_clock: MockClock,
) -> None:
    last_places = _LastPlaces(lambda network: network == "waits")
    last_places.see("waits", given=True)
    began = trio.current_time()
    for number in range(MAX_REMEMBERED + 10):
        last_places.see(str(number), given=True)
    assert len(last_places._known) == MAX_REMEMBERED
    assert last_places.given_at("waits") == began
    assert "10" not in last_places._known
    assert last_places.given_at("11") == began
    await trio.sleep(REMEMBERED_SECONDS + 1)
    last_places.see("11")
    assert last_places.given_at("11") == began + 1, "it is as one that is not known"


async def test_of_who_waits_no_more_than_a_hello_is_kept(autojump_clock: MockClock) -> None:
    counters = Counters()
    line = WaitingLine(Places(SMALL, counters), SMALL, counters, says_nothing)
    first = await line.take(trio.testing.memory_stream_pair()[1], "at work")
    assert first is not None
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            place = await line.take(theirs, "at work")
            assert place is not None
            assert len(place.heard) == 4 + MAX_HELLO_BYTES

        nursery.start_soon(wait)
        await ours.send_all(b"\x00" * 4 + b"x" * 100_000)
        await trio.sleep(0.1)
        line.leave(first)


async def test_who_leaves_while_it_waits_is_not_refused(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    async with a_town(database, SMALL) as town:
        for network in ("first", "second"):
            assert isinstance(await (await town.client(network)).receive(), Hello)
        third = await town.client("third")
        await trio.sleep(0.1)
        await third.stream.aclose()
        await trio.sleep(0.1)
        assert town.site.server.counters.connections_refused == 0
        assert town.site.server.counters.connections_waiting == 0


class RecordingPlaces(Places):
    """Places that note who asks for one."""

    asked: list[tuple[str, bool]]

    def take(self, network: str, *, swaps: bool = True) -> Place | None:
        self.asked.append((network, swaps))
        return super().take(network, swaps=swaps)


async def test_no_network_changes_its_own_clients_while_one_with_fewer_places_waits(
    autojump_clock: MockClock,
) -> None:
    """So many places change hands in a time: 100 addresses used that up, and one without waited two turns."""
    limits, counters = replace(SMALL, max_connections_per_network=2), Counters()
    places, given = RecordingPlaces(limits, counters), list[str]()
    places.asked = []
    line = WaitingLine(places, limits, counters, says_nothing)
    for network in ("first", "second"):
        assert await line.take(trio.testing.memory_stream_pair()[1], network) is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run)
        nursery.start_soon(come, line, "first", given)
        await trio.sleep(LOOK_SECONDS / 2)
        assert places.asked[-1] == ("first", True)
        nursery.start_soon(come, line, "third", given)
        await trio.sleep(2 * LOOK_SECONDS)
        assert places.asked[-2:] == [("third", True), ("first", False)]
        nursery.cancel_scope.cancel()


async def test_a_turn_that_is_over_is_another_clients_of_the_network_only_where_it_swaps(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = replace(SMALL, max_connections_per_network=2)
    async with a_town(database, limits) as town, trio.open_nursery() as nursery:
        for network in ("first", "second"):
            nursery.start_soon(asks_all_the_time, await town.greeted(network))
        places = town.site.server._line._places
        await trio.sleep(2 * limits.turn_seconds)
        assert places.take("first", swaps=False) is None
        assert places.take("first") is not None
        nursery.cancel_scope.cancel()
