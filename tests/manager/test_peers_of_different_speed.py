"""Peers whose answers are true and slow, or never come: beside a faster one they cost little time."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from manager import Limits, Manager
from manager.known_peer import KnownPeer
from manager.peers.client import PeerClient, _Pending
from manager.peers.health import PeerHealth
from manager.peers.throughput import (
    FIRST_HEDGE_SECONDS,
    FULL_PROGRESS,
    MIN_HEDGE_SECONDS,
    ThroughputEstimator,
)
from manager.scheduling.pivot import PivotTracker
from merkledb import Scheme
from syncproto import Hello
from tests.manager.test_short_answers import honest, timed
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import (
    Answer,
    Asked,
    ClientConnection,
    FakeServer,
    InEventLoop,
    ScriptedServer,
)
from tests.support.moving_source import Source, new_source
from tests.support.syncing import SMALL, some_pairs, sync_from

# Just below the time after which any peer is found to be slow.
LATE_SECONDS = 0.95 * Limits().overdue_seconds
# What a sync may take longer for all peers that are of no use, however short it is.
MOST_SECONDS_LOST = 4 * FIRST_HEDGE_SECONDS


async def good_quarter(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send just as much as counts for a full answer, just in time."""
    await trio.sleep(LATE_SECONDS)
    if conversation.connection.is_in_flight(request.request_id):
        most = math.ceil(request.max_keys * (FULL_PROGRESS + 0.01))
        await conversation.send(server.honest_answer(replace(request, max_keys=most)))


async def seconds_of(servers: list[ScriptedServer], source: Source, limits: Limits = SMALL) -> float:
    with new_database() as copy:
        seconds, progress = await timed(servers, source, copy, limits)
    assert sum(peer.keys for peer in progress.peers) == progress.keys, "what comes twice counts once"
    return seconds


@pytest.mark.parametrize("comes_first", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("keys", "seconds"), [(100, 0.05), (600, 0.05), (300, 0.3)])
@pytest.mark.parametrize("answer", [good_quarter, fake_servers.never], ids=["a quarter, late", "silence"])
async def test_slow_peers_at_most_double_the_time_of_the_honest_one(
    answer: Answer, keys: int, seconds: float, count: int, comes_first: bool, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(keys)) as source:
        alone = await seconds_of([honest(source, seconds)], source)
        slow = [ScriptedServer(source.database, answer, f"slow {number}") for number in range(count)]
        peers = [*slow, honest(source, seconds)] if comes_first else [honest(source, seconds), *slow]
        beside = await seconds_of(peers, source)
    assert beside <= max(2 * alone, alone + MOST_SECONDS_LOST), f"{beside:.2f} s, and {alone:.2f} s without"
    assert beside <= alone + 2 * Limits().overdue_seconds


# A peer whose limit lets no answer count as a full one.
FEW = int(Limits().max_changes * FULL_PROGRESS) - 12


@pytest.mark.parametrize("count", [1, 2])
async def test_silent_peers_cost_an_honest_one_of_low_limits_some_seconds(
    count: int, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(6000)) as source:
        alone = await seconds_of([honest(source, 0.05, FEW)], source, Limits())
        silent = [ScriptedServer(source.database, fake_servers.never, f"silent {at}") for at in range(count)]
        for peers in ([honest(source, 0.05, FEW), *silent], [*silent, honest(source, 0.05, FEW)]):
            beside = await seconds_of(peers, source, Limits())
            assert beside <= alone + Limits().overdue_seconds


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("comes_first", [True, False])
async def test_a_follower_loses_time_to_silent_peers_once_and_not_at_each_update(
    count: int, comes_first: bool, autojump_clock: MockClock
) -> None:
    seconds, choice = 0.5, Random(1)
    with new_source(some_pairs(6000)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy, Limits())
        silent = [ScriptedServer(source.database, fake_servers.never, f"silent {at}") for at in range(count)]
        few = honest(source, seconds, FEW)
        servers = [*silent, few] if comes_first else [few, *silent]
        lags = []
        async with trio.open_nursery() as nursery:
            peers = [server.peer(nursery) for server in servers]
            manager = Manager(copy, peers, trust_peers=True, executor=InEventLoop(), random=Random(1))
            roots = manager.roots()
            nursery.start_soon(manager.follow)
            await trio.sleep(1)
            for _ in range(6):
                source.change(600, choice)
                began = trio.current_time()
                for server in servers:
                    await server.announce()
                async for reached in roots:
                    if reached.root == source.root:
                        break
                lags.append(trio.current_time() - began)
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
    # Two answers, one after the other.
    assert sum(lag > 2.5 * seconds for lag in lags) <= 1, lags
    assert max(lags) <= 2 * seconds + Limits().overdue_seconds


@pytest.mark.parametrize("keys", [600, pytest.param(1800, marks=pytest.mark.slow)])
@pytest.mark.parametrize("comes_first", [True, False])
async def test_a_fast_peer_of_low_limits_leaves_no_work_to_one_that_gives_less_in_the_same_time(
    keys: int, comes_first: bool, autojump_clock: MockClock
) -> None:
    """Its answers held 3 of 16 keys and came after 10 ms; of the other one 12 after 240: 8 times as long."""
    with new_source(some_pairs(keys)) as source:

        async def fuller(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
            await trio.sleep(0.24)
            if conversation.connection.is_in_flight(request.request_id):
                most = max(1, request.max_keys * 3 // 4)
                await conversation.send(server.honest_answer(replace(request, max_keys=most)))

        alone = await seconds_of([honest(source, 0.01, 3)], source)
        slow, fast = ScriptedServer(source.database, fuller, "fuller"), honest(source, 0.01, 3)
        beside = await seconds_of([fast, slow] if comes_first else [slow, fast], source)
    assert beside <= 1.5 * alone + 1


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3, 10])
async def test_an_honest_peer_that_is_slower_does_its_part_and_little_is_fetched_twice(
    times: int, autojump_clock: MockClock
) -> None:
    keys, seconds = 3000, 0.05
    with new_source(some_pairs(keys)) as source:
        alone = await seconds_of([honest(source, seconds)], source)
        slow, fast = honest(source, times * seconds), honest(source, seconds)
        together = await seconds_of([slow, fast], source)
    # What both can do at best, and what it costs to find out at the start that one is faster.
    best = alone * times / (times + 1)
    assert together <= 1.1 * best + FIRST_HEDGE_SECONDS
    assert slow.keys_sent >= keys / (times + 1) / 2
    assert slow.keys_sent + fast.keys_sent <= 1.02 * keys


def estimator(*work_seconds: float) -> ThroughputEstimator:
    throughput = ThroughputEstimator(Limits())
    for seconds in work_seconds:
        throughput.finish_work(seconds)
    return throughput


@pytest.mark.parametrize(
    ("throughput", "seconds"),
    [
        (estimator, FIRST_HEDGE_SECONDS),
        (lambda: estimator(0.0), MIN_HEDGE_SECONDS),
        (lambda: estimator(0.3), 0.6),
        (lambda: estimator(0.3, 0.3), 0.6),
        (lambda: estimator(0.3, 1.3), 1.2),
        (lambda: estimator(5.0), Limits().overdue_seconds),
    ],
)
def test_work_is_left_to_another_peer_for_twice_what_it_takes_here(
    throughput: Callable[[], ThroughputEstimator], seconds: float
) -> None:
    assert throughput().hedge_seconds == pytest.approx(seconds)


def test_a_peer_whose_answers_hold_little_gets_nothing_of_others_soon() -> None:
    throughput = estimator(0.01)
    for fullness, reaches_end, seconds in [
        (0.001, False, Limits().overdue_seconds),
        (0.001, True, Limits().overdue_seconds),
        (0.2, False, 2 * MIN_HEDGE_SECONDS / 0.2),
        (FULL_PROGRESS, True, MIN_HEDGE_SECONDS),
    ]:
        throughput.note_fullness(fullness, 0.01, reaches_end=reaches_end)
        throughput.finish_work(0.01)
        assert throughput.hedge_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("fullness", "seconds", "full_answer_seconds"),
    [
        (1.0, 3.0, 3.0),
        (0.25, 0.5, 2.0),
        (0.1, 0.001, MIN_HEDGE_SECONDS / 0.1),
        (1e-4, 0.3, Limits().request_timeout_seconds),
        (0.0, 0.3, Limits().request_timeout_seconds),
        (0.5, 60.0, Limits().request_timeout_seconds),
    ],
)
def test_a_full_answers_worth_takes_as_many_answers_as_it_needs_and_a_timeout_at_most(
    fullness: float, seconds: float, full_answer_seconds: float
) -> None:
    throughput = ThroughputEstimator(Limits())
    assert throughput.full_answer_seconds == Limits().request_timeout_seconds, "nothing is known"
    throughput.note_fullness(fullness, seconds, reaches_end=False)
    assert throughput.full_answer_seconds == pytest.approx(full_answer_seconds)


def test_that_little_was_left_to_send_says_nothing_of_a_peer() -> None:
    throughput = ThroughputEstimator(Limits())
    throughput.note_fullness(0.05, 0.5, reaches_end=False)
    throughput.note_fullness(0.001, 0.001, reaches_end=True)
    assert throughput.full_answer_seconds == pytest.approx(10.0)


def health() -> PeerHealth:
    return PeerHealth(Limits(), Random(1))


def test_a_peer_that_was_outrun_rests_unless_it_took_no_longer_than_always() -> None:
    usual, slow, new, late = health(), health(), health(), health()
    usual.outrun(0.3, 0.2, 10.0)
    assert (usual.paused_until, usual.slow_until, usual.score.value) == (0.0, 10.2, 1.0)
    slow.outrun(0.5, 0.2, 10.0)
    new.outrun(0.3, None, 10.0)
    late.outrun(2.0, 1.9, 10.0)
    for each in (slow, new, late):
        assert 10.0 < each.paused_until <= 10.0 + Limits().backoff_seconds
        assert each.score.value < 1.0


@pytest.mark.parametrize(
    ("fast", "slow", "busy", "is_outdone"),
    [
        (0.1, 0.4, 0, True),
        (0.1, 0.4, 1, True),
        (0.1, 0.4, 2, False),
        (0.1, 0.39, 0, False),
        (None, 0.4, 0, False),
        (0.1, None, 0, False),
        (0.0, 0.0, 0, False),
    ],
)
async def test_a_slow_peer_leaves_work_to_one_four_times_as_fast_that_has_a_request_to_spare(
    fast: float | None, slow: float | None, busy: int, is_outdone: bool, autojump_clock: MockClock
) -> None:
    better, worse = known_peer("better", fast), known_peer("worse", slow)
    for number in range(busy):
        assert better.client is not None
        better.client._pending[number] = _Pending()
    assert not better.outdoes(worse), "it has done nothing of late"
    worse.health.answered(1.0, 1.0, trio.current_time())
    assert better.outdoes(worse) is is_outdone
    assert not worse.outdoes(better)
    await trio.sleep(1.0)
    assert not better.outdoes(worse), "it left work for as long as it takes itself"


async def test_work_is_left_to_no_peer_that_keeps_a_request_for_longer_than_as_much_takes_here(
    autojump_clock: MockClock,
) -> None:
    silent, few = known_peer("silent", None), known_peer("few", 0.1)
    assert silent.client is not None
    assert few.client is not None
    silent.client._pending[1] = _Pending()
    few.client.throughput.note_fullness(0.05, 0.1, reaches_end=False)
    for seconds, is_outdone in [(1.9, True), (0.2, False)]:
        await trio.sleep(seconds)
        few.health.answered(0.05, 0.1, trio.current_time())
        assert silent.outdoes(few) is is_outdone


def known_peer(name: str, work_seconds: float | None) -> KnownPeer:
    """Return a connected peer whose work took so long, with two requests at most."""
    limits = Limits()
    peer = KnownPeer(name, limits, Random(1), PivotTracker(1.0), wake=lambda: None, changed=lambda: None)
    hello = Hello(hasher="blake3", branch_factor=16, root=None, revision=0, max_frame_bytes=4096)
    peer.client = PeerClient(trio.testing.memory_stream_pair()[0], hello, Scheme(), limits)
    peer.client.useful_requests = 8
    if work_seconds is not None:
        peer.client.throughput.finish_work(work_seconds)
    return peer
