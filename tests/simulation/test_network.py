"""The simulated network: it delivers in order and in time, and breaks where a fate says so."""

from random import Random

import pytest
import trio

from simulation.network import Network, Weather
from simulation.scheduling import MAX_TURNS_AT_ONE_TIME, StandstillAlarm, run
from simulation.stream import Connection, Fate, Line, Pipe, SimulatedStream
from simulation.trace import Trace

QUICK = Line(0.0, 0.0, 1e9, 1 << 16)
MESSAGE = bytes(range(256)) * 4


def connected(
    line: Line = QUICK, fate: Fate | None = None
) -> tuple[SimulatedStream, SimulatedStream, Connection, list[str]]:
    """Return a client's stream, a server's, their connection, and what goes wrong with the server's bytes."""
    harm: list[str] = []
    random = Random(1)
    up, down = Pipe(line, Fate(), random, harm.append), Pipe(line, fate or Fate(), random, harm.append)
    connection = Connection("test", "client", "server", up, down)
    return *connection.streams(), connection, harm


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def send_and_close(stream: trio.abc.Stream) -> None:
    await stream.send_all(MESSAGE)
    await stream.aclose()


async def test_bytes_arrive_in_order_through_a_narrow_window(autojump_clock: trio.abc.Clock) -> None:
    client, server, _, harm = connected(Line(0.1, 0.5, 1000.0, 50))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_close, server)
        assert await read_all(client) == MESSAGE
    assert not harm
    assert trio.current_time() >= len(MESSAGE) / 1000


async def test_a_cut_connection_delivers_no_more_and_breaks_on_both_sides(
    autojump_clock: trio.abc.Clock,
) -> None:
    client, server, _, harm = connected(fate=Fate(cut_at=100))
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(MESSAGE)
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    assert harm == ["cut"]


async def test_a_connection_that_ends_early_looks_closed(autojump_clock: trio.abc.Clock) -> None:
    client, server, _, harm = connected(fate=Fate(end_at=100))
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(MESSAGE * 100)
    assert await read_all(client) == MESSAGE[:100]
    assert harm == ["ended early"]


async def test_corruption_changes_one_bit(autojump_clock: trio.abc.Clock) -> None:
    client, server, _, harm = connected(fate=Fate(corrupt_at=10))
    await send_and_close(server)
    received = await read_all(client)
    differing = [one ^ other for one, other in zip(received, MESSAGE, strict=True) if one != other]
    assert len(differing) == 1
    assert differing[0].bit_count() == 1
    assert harm == ["corrupted"]


async def test_short_frames_can_be_spared(autojump_clock: trio.abc.Clock) -> None:
    client, server, _, harm = connected(fate=Fate(corrupt_at=0, spare_short_frames=True))
    await server.send_all(b"a head")
    assert await client.receive_some() == b"a head"
    assert not harm


async def test_a_stall_passes(autojump_clock: trio.abc.Clock) -> None:
    client, server, _, harm = connected(fate=Fate(stall_at=10, stall_seconds=5.0))
    await send_and_close(server)
    assert await read_all(client) == MESSAGE
    assert trio.current_time() >= 5.0
    assert harm == ["stalled"]


async def test_a_reset_loses_what_is_under_way(autojump_clock: trio.abc.Clock) -> None:
    client, server, connection, _ = connected(Line(1.0, 0.0, 1e9, 1 << 16))
    await server.send_all(MESSAGE)
    connection.reset()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def test_who_has_no_power_says_nothing_and_takes_all(autojump_clock: trio.abc.Clock) -> None:
    client, server, connection, _ = connected()
    connection.swallow()
    await server.aclose()
    await client.send_all(MESSAGE * 100)
    with trio.move_on_after(1000) as patience:
        await client.receive_some()
    assert patience.cancelled_caught


async def test_a_partition_holds_bytes_back_until_it_heals(autojump_clock: trio.abc.Clock) -> None:
    network = Network(Weather(Random(1), 0.0, 0.0), Trace())
    listener = network.listen("b", "b")
    client = await network.dial("a", "b")
    server = await listener.accept()
    network.part(["a"], ["b"], 10.0)
    await server.send_all(b"x")
    with trio.move_on_after(9.0) as patience:
        await client.receive_some()
    assert patience.cancelled_caught
    assert await client.receive_some() == b"x"


async def test_nobody_listens_at_an_unknown_name_nor_behind_a_hang_up(
    autojump_clock: trio.abc.Clock,
) -> None:
    network = Network(Weather(Random(1), 0.0, 0.0), Trace())
    with pytest.raises(ConnectionRefusedError):
        await network.dial("a", "b")
    network.listen("b", "b")
    stream = await network.dial("a", "b")
    network.hang_up("b")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await network.dial("a", "b")


async def test_a_calm_network_harms_nothing(autojump_clock: trio.abc.Clock) -> None:
    network = Network(Weather(Random(1), 1.0, 1.0), Trace())
    listener = network.listen("b", "b")
    network.calm()
    for _ in range(50):
        client = await network.dial("a", "b")
        server = await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_close, server)
            assert await read_all(client) == MESSAGE
        await client.aclose()
    assert not network.was_corrupted("a", "b")


def test_tasks_that_let_no_time_pass_are_noticed() -> None:
    async def circle() -> int:
        scope = trio.CancelScope()
        trio.lowlevel.add_instrument(StandstillAlarm(scope.cancel))
        turns = 0
        with scope:
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()
        return turns

    assert run(1, circle) == pytest.approx(MAX_TURNS_AT_ONE_TIME, rel=0.01)


def test_a_seed_decides_in_which_order_tasks_run() -> None:
    async def order() -> list[int]:
        ran: list[int] = []

        async def note(number: int) -> None:
            await trio.lowlevel.checkpoint()
            ran.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(note, number)
        return ran

    orders = [run(seed, order) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
