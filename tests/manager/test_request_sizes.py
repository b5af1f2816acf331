"""What is asked of a peer at a time follows what the way to it carries, and stays within the limits."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from manager import Limits, Progress
from manager.limits import KIB, range_proof_memory_bytes
from manager.peers.client import PeerClient
from manager.peers.throughput import FIRST_BYTES, MEASURED_BYTES, ThroughputEstimator
from merkledb import Database
from simulation.stream import Connection as Pipes
from simulation.stream import Fate, Line, Pipe, SimulatedStream
from syncproto import GetRange
from tests.support.databases import new_database
from tests.support.fake_servers import Asked, ClientConnection, FakeServer
from tests.support.syncing import assert_same, some_pairs, sync_from

PACKET_BYTES = 8 * KIB
# Answers of more bytes than are measured at least, so that a small store makes many of them.
KEYS = 1024


class Packets(SimulatedStream):
    """Sends packet by packet, as a network does: what a line carries is seen while it comes."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(0, len(data), PACKET_BYTES):
            await super().send_all(data[at : at + PACKET_BYTES])


class FarServer(FakeServer):
    """A server at the other end of a line, which notes how large its answers were."""

    def __init__(self, database: Database, delay_seconds: float, bytes_per_second: float) -> None:
        super().__init__(database)
        self.line = Line(delay_seconds, 0.0, bytes_per_second, window_bytes=1 << 30)
        self.answer_bytes: list[int] = []

    async def open_stream(self) -> trio.abc.Stream:
        assert self._nursery is not None
        source = random.Random(1)
        up, down = (Pipe(self.line, Fate(), source, harmed=lambda _: None) for _ in range(2))
        pipes = Pipes("line", "client", "server", up, down)
        self._nursery.start_soon(self._converse, Packets(pipes, down, up))
        return Packets(pipes, up, down)

    async def answer(self, conversation: ClientConnection, request: Asked) -> None:
        answer = self.honest_answer(request)
        self.answer_bytes.append(len(getattr(answer, "proof", b"")))
        await conversation.send(answer)


@pytest.fixture
def in_flight(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests a client had in flight, at each one that it asked."""
    counts: list[int] = []
    ask = PeerClient._wait_for

    async def counting(client: PeerClient, pending: Any) -> None:
        counts.append(client.requests_in_flight)
        await ask(client, pending)

    monkeypatch.setattr(PeerClient, "_wait_for", counting)
    return counts


async def sync_over(server: FarServer, database: Database, limits: Limits) -> float:
    """Sync, and return how many seconds it took."""
    began = trio.current_time()
    progress: Progress = await sync_from([server], server.database.root, database, limits)
    assert progress.share == 1.0
    return trio.current_time() - began


async def test_on_a_slow_line_answers_become_small(autojump_clock: MockClock, in_flight: list[int]) -> None:
    with new_database(some_pairs(20_000)) as source, new_database() as database:
        server = FarServer(source, delay_seconds=0.01, bytes_per_second=100_000)
        await sync_over(server, database, Limits())
        assert_same(database, source)
    assert max(server.answer_bytes[:2]) <= FIRST_BYTES
    assert max(server.answer_bytes[4:]) <= Limits().min_bytes
    assert max(in_flight) == 2


async def test_between_both_limits_the_answers_in_flight_take_the_time_that_they_may(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(20_000)) as source, new_database() as database:
        server = FarServer(source, delay_seconds=0.001, bytes_per_second=400_000)
        await sync_over(server, database, Limits(answer_seconds=0.5))
    usual = server.answer_bytes[2:-2]
    assert max(usual) <= 100_000
    assert sum(usual) / len(usual) > 70_000, "the work is planned for answers of that size"


@pytest.mark.slow
async def test_on_a_long_fat_line_more_is_in_flight(autojump_clock: MockClock, in_flight: list[int]) -> None:
    seconds = []
    with new_database(some_pairs(40_000)) as source:
        for most in (2, 8):
            server = FarServer(source, delay_seconds=0.05, bytes_per_second=100_000_000)
            limits = Limits(max_keys=KEYS, max_requests_per_peer=most)
            with new_database() as database:
                seconds.append(await sync_over(server, database, limits))
                assert_same(database, source)
            assert max(in_flight) == most
    assert seconds[1] < 0.4 * seconds[0]


async def test_what_is_more_in_flight_takes_no_memory_that_others_need(
    autojump_clock: MockClock, in_flight: list[int]
) -> None:
    limits = Limits(max_keys=KEYS, buffered_bytes=6 << 20, transaction_bytes=3 << 20)
    assert 1 < limits.buffered_bytes * 3 / 8 / range_proof_memory_bytes(limits.max_bytes, KEYS) < 2
    with new_database(some_pairs(20_000)) as source, new_database() as database:
        servers = [FarServer(source, 0.05, 100_000_000) for _ in range(3)]
        await sync_from(servers, source.root, database, limits)
    assert len(in_flight) > 20
    assert max(in_flight[10:]) == limits.requests_per_peer, "the first ones ask for less"


async def test_on_a_fast_line_nothing_is_other_than_the_limits_say(
    autojump_clock: MockClock, in_flight: list[int]
) -> None:
    with new_database(some_pairs(20_000)) as source, new_database() as database:
        server = FarServer(source, delay_seconds=0.0001, bytes_per_second=1e9)
        limits = Limits(max_keys=KEYS)
        await sync_over(server, database, limits)
    assert max(in_flight) == limits.requests_per_peer
    assert {request.max_bytes for request in server.requests[2:]} == {limits.max_bytes}
    assert {request.max_keys for request in server.requests} == {limits.max_keys}


async def test_a_pair_that_a_slow_line_does_not_carry_soon_is_fetched_all_the_same(
    autojump_clock: MockClock,
) -> None:
    pairs = some_pairs(4000) | {b"\x80": bytes(300_000)}
    with new_database(pairs) as source, new_database() as database:
        server = FarServer(source, delay_seconds=0.01, bytes_per_second=50_000)
        await sync_over(server, database, Limits())
        assert_same(database, source)
    assert max(request.max_bytes for request in server.requests) < 310_000, "what it needs, and no more"


async def test_after_a_timeout_as_little_is_asked_for_as_may_be(autojump_clock: MockClock) -> None:
    class SilentOnce(FarServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if len(self.requests) != 5:
                await super().answer(conversation, request)

    with new_database(some_pairs(20_000)) as source, new_database() as database:
        server = SilentOnce(source, delay_seconds=0.001, bytes_per_second=1e9)
        await sync_over(server, database, Limits(max_keys=KEYS, requests_per_peer=1, max_requests_per_peer=1))
        assert_same(database, source)
    repeated = server.requests[5]
    assert isinstance(repeated, GetRange)
    assert repeated.start == getattr(server.requests[4], "start", None)
    assert repeated.max_bytes == Limits().min_bytes


# One connection, by itself.


def link_after(*answers: tuple[float, float, int]) -> ThroughputEstimator:
    """Return the link on which each answer was asked for at its time, took so long, and had so many bytes."""
    throughput = ThroughputEstimator(Limits())
    for asked, seconds, count in answers:
        throughput.receive(1, asked + 0.001)
        throughput.receive(count - 1, asked + seconds)
        throughput.answer(asked, asked + seconds)
    return throughput


def test_a_line_becomes_fast_again() -> None:
    slow = [(float(at), 1.0, 64 * KIB) for at in range(10)]
    fast = [(10.0 + at / 100, 0.01, 64 * KIB) for at in range(20)]
    assert link_after(*slow).max_bytes == Limits().min_bytes
    assert link_after(*slow, *fast).max_bytes == Limits().max_bytes


def test_short_answers_say_nothing_of_the_line() -> None:
    short = [(float(at), 1.0, MEASURED_BYTES - 1) for at in range(10)]
    assert link_after(*short).max_bytes == FIRST_BYTES


def test_a_limit_below_the_floor_is_kept() -> None:
    throughput = ThroughputEstimator(Limits(max_bytes=1000))
    assert throughput.max_bytes == 1000
    throughput.time_out()
    assert throughput.max_bytes == 1000


Event = Callable[[ThroughputEstimator, float], None]
events = st.one_of(
    st.integers(0, 1 << 21).map(lambda count: lambda throughput, now: throughput.receive(count, now)),
    st.floats(0, 100).map(lambda ago: lambda throughput, now: throughput.answer(now - ago, now)),
    st.just(lambda throughput, now: throughput.time_out()),
    st.just(lambda throughput, now: throughput.pass_over()),
)


@given(st.lists(st.tuples(events, st.floats(0, 10)), max_size=40))
@pytest.mark.parametrize("limits", [Limits(), Limits(max_bytes=5000, requests_per_peer=9)])
def test_whatever_a_peer_does_the_limits_are_kept(limits: Limits, told: list[tuple[Event, float]]) -> None:
    throughput, now = ThroughputEstimator(limits), 1000.0
    for event, seconds in told:
        now += seconds
        event(throughput, now)
        assert min(limits.min_bytes, limits.max_bytes) <= throughput.max_bytes <= limits.max_bytes
        most = max(limits.requests_per_peer, limits.max_requests_per_peer)
        assert limits.requests_per_peer <= throughput.requests <= most
