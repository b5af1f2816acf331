"""Peers whose answers are true and hold next to nothing: beside an honest one they hold up no sync."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from manager import Limits, PeerState, Progress
from manager.transfer.fetcher import MAX_EMPTY_ANSWERS
from merkledb import ChangeProof, Database
from syncproto import Changes, GetChanges, Range
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import Answer, Asked, ClientConnection, FakeServer, ScriptedServer
from tests.support.moving_source import Source, new_source
from tests.support.syncing import SMALL, assert_same, some_pairs, sync_from

# Each of them is a sync of some hundred answers on a virtual clock, twice.
pytestmark = pytest.mark.slow

# How long the honest server takes for an answer.
HONEST_SECONDS = 0.05
# More requests than any of these syncs needs.
MOST_REQUESTS = 2000
Drip = Callable[[FakeServer, GetChanges], ChangeProof]


def with_changes(proof: ChangeProof, changes: dict[bytes, bytes | None], end: bytes) -> ChangeProof:
    ascending = dict(sorted(changes.items()))
    return proof._replace(keys=tuple(ascending), values=tuple(ascending.values()), end=end)


def up_to(server: FakeServer, request: GetChanges, end: bytes) -> ChangeProof:
    """The honest proof of a part of what was asked for."""
    return server.database.prove_changes(request.old_root, request.new_root, request.start, end)


def inert_change(server: FakeServer, request: GetChanges) -> ChangeProof:
    """One change that changes nothing, at the start."""
    start = request.start or b""
    with server.database.at(request.new_root) as snapshot:
        return with_changes(up_to(server, request, start), {start: snapshot.get(start)}, start)


def nothing(server: FakeServer, request: GetChanges) -> ChangeProof:
    """No change up to the start."""
    return up_to(server, request, request.start or b"")


def inert_changes(server: FakeServer, request: GetChanges) -> ChangeProof:
    """As many changes as were asked for, of keys that never were."""
    start = request.start or b""
    end = start + b"\x00" * 3
    proof = up_to(server, request, end)
    changes: dict[bytes, bytes | None] = dict(zip(proof.keys, proof.values, strict=True))
    for number in range(request.max_keys):
        changes.setdefault(start + b"\x00\x00" + number.to_bytes(2), None)
    kept = dict(sorted(changes.items())[: request.max_keys])
    return with_changes(up_to(server, request, max(kept)), kept, max(kept))


def one_change(server: FakeServer, request: GetChanges) -> ChangeProof:
    """The first change, and no other."""
    return server.database.prove_changes(
        request.old_root, request.new_root, request.start, request.end, max_keys=1
    )


def a_fifth(server: FakeServer, request: GetChanges) -> ChangeProof:
    """A little less than counts as a full answer."""
    most = max(1, request.max_keys // 5)
    return server.database.prove_changes(
        request.old_root, request.new_root, request.start, request.end, max_keys=most
    )


DRIPS: dict[str, Drip] = {
    "one change that changes nothing": inert_change,
    "nothing at all": nothing,
    "many changes that change nothing": inert_changes,
    "one change": one_change,
    "a fifth of the changes": a_fifth,
}


def dripping(drip: Drip, seconds: float = 0.0) -> Answer:
    async def answer(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        assert len(server.requests) < MOST_REQUESTS, "the sync does not end"
        await trio.sleep(seconds)
        if not conversation.connection.is_in_flight(request.request_id):
            return
        if isinstance(request, GetChanges) and request.old_root != request.new_root:
            await conversation.send(Changes(request.request_id, drip(server, request).encode()))
        else:
            await one_pair(server, conversation, request)

    return answer


async def one_pair(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send the first pair, whatever is asked for."""
    root = fake_servers.root_of(request)
    with server.database.at(root) as snapshot:
        proof = snapshot.prove_range(request.start, request.end, max_keys=1)
    await conversation.send(Range(request.request_id, proof.encode()))


def honest(source: Source, seconds: float = HONEST_SECONDS, max_keys: int = 8192) -> ScriptedServer:
    return ScriptedServer(source.database, fake_servers.after(seconds), "honest", max_keys=max_keys)


async def timed(
    servers: Sequence[FakeServer], source: Source, copy: Database, limits: Limits = SMALL
) -> tuple[float, Progress]:
    """Sync, and return how long it took on the virtual clock."""
    began = trio.current_time()
    progress = await sync_from(servers, source.root, copy, limits)
    assert_same(copy, source.database)
    return trio.current_time() - began, progress


async def catch_up(
    source: Source, old: bytes, servers: Sequence[FakeServer], limits: Limits = SMALL
) -> tuple[float, Progress]:
    """Bring a new copy from an older root forward, and return how long that took."""
    with new_database() as copy:
        await sync_from([FakeServer(source.database)], old, copy)
        return await timed(servers, source, copy, limits)


def assert_nobody_is_blamed(progress: Progress) -> None:
    assert all(peer.state is PeerState.CONNECTED for peer in progress.peers)


@pytest.mark.parametrize("liars", [1, 3])
@pytest.mark.parametrize("seconds", [0.0, HONEST_SECONDS])
@pytest.mark.parametrize("name", DRIPS)
async def test_a_peer_that_drips_changes_at_most_doubles_the_time_of_the_honest_one(
    name: str, seconds: float, liars: int, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(1000)) as source:
        old = source.root
        source.change(500, random.Random(1))
        alone, _ = await catch_up(source, old, [honest(source)])
        peers = [
            ScriptedServer(source.database, dripping(DRIPS[name], seconds), f"drip {number}")
            for number in range(liars)
        ]
        at_same_snapshot, progress = await catch_up(source, old, [*peers, honest(source)])
    assert at_same_snapshot <= 2 * alone, f"{at_same_snapshot:.2f} s, and {alone:.2f} s without"
    assert_nobody_is_blamed(progress)


@pytest.mark.parametrize("seconds", [0.0, HONEST_SECONDS])
async def test_a_peer_that_drips_pairs_at_most_doubles_the_time_of_the_honest_one(
    seconds: float, autojump_clock: MockClock
) -> None:
    async def drip(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await trio.sleep(seconds)
        if conversation.connection.is_in_flight(request.request_id):
            await one_pair(server, conversation, request)

    with new_source(some_pairs(1000)) as source:
        with new_database() as copy:
            alone, _ = await timed([honest(source)], source, copy)
        with new_database() as copy:
            servers = [ScriptedServer(source.database, drip, "drip"), honest(source)]
            at_same_snapshot, progress = await timed(servers, source, copy)
    assert at_same_snapshot <= 2 * alone, f"{at_same_snapshot:.2f} s, and {alone:.2f} s without"
    assert_nobody_is_blamed(progress)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("drip_seconds", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("honest_seconds", [1.0, 2.1, 3.0, 5.0])
async def test_a_drip_throws_no_honest_answer_away_that_is_under_way(
    honest_seconds: float, drip_seconds: float, is_first: bool, autojump_clock: MockClock
) -> None:
    """All of the work is one piece, so whoever has nothing to do is given what the other one has."""
    with new_source(some_pairs(600)) as source:
        old = source.root
        source.change(300, random.Random(1))
        drip = ScriptedServer(source.database, dripping(inert_change, drip_seconds), "drip")
        peers = [drip, honest(source, honest_seconds)]
        changes, progress = await catch_up(source, old, peers if is_first else peers[::-1], Limits())
        with new_database() as copy:
            pairs, _ = await timed(peers if is_first else peers[::-1], source, copy, Limits())
    assert changes <= 2 * honest_seconds + 0.5
    # Of a first copy, the drip may have cut the one piece into a few.
    assert pairs <= 2.5 * honest_seconds + 0.5
    assert_nobody_is_blamed(progress)


@pytest.mark.parametrize("name", DRIPS)
async def test_a_peer_that_drips_alone_is_asked_for_pairs_in_the_end(
    name: str, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(100)) as source:
        old = source.root
        source.change(40, random.Random(1))
        server = ScriptedServer(source.database, dripping(DRIPS[name]), "drip")
        _, progress = await catch_up(source, old, [server])
    asked = [request for request in server.requests if isinstance(request, GetChanges)]
    assert len(asked) <= MAX_EMPTY_ANSWERS + 2 * SMALL.requests_per_peer + 100
    assert_nobody_is_blamed(progress)


@pytest.mark.parametrize("max_keys", [1, 3])
async def test_honest_peers_that_send_little_at_a_time_are_neither_blamed_nor_slowed_down(
    max_keys: int, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(200)) as source:
        old = source.root
        source.change(100, random.Random(1))
        alone, one = await catch_up(source, old, [honest(source, max_keys=max_keys)])
        answers = 100 // max_keys + 100
        assert alone <= HONEST_SECONDS * answers, "no pause lies between two answers"
        together, two = await catch_up(source, old, [honest(source, max_keys=max_keys) for _ in range(2)])
    assert together <= 1.1 * alone
    assert_nobody_is_blamed(one)
    assert_nobody_is_blamed(two)


async def test_honest_peers_with_values_of_every_size_share_the_work(autojump_clock: MockClock) -> None:
    pairs = {
        key: value if number % 2 else bytes(40_000)
        for number, (key, value) in enumerate(some_pairs(60).items())
    }
    limits = Limits(max_keys=16, max_changes=16, max_bytes=4096, min_bytes=1024)
    with new_source(pairs) as source:
        with new_database() as copy:
            alone, _ = await timed([honest(source)], source, copy, limits)
        with new_database() as copy:
            together, progress = await timed([honest(source), honest(source)], source, copy, limits)
    assert together <= 1.1 * alone
    assert_nobody_is_blamed(progress)


@pytest.mark.parametrize("honest_seconds", [0.05, 0.9, 5.0])
@pytest.mark.parametrize("keys", [1, 10, 50])
async def test_peers_that_answer_at_once_with_little_leave_no_small_pieces_to_the_honest_one(
    keys: int, honest_seconds: float, autojump_clock: MockClock
) -> None:
    async def drip(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        few = replace(request, max_keys=min(request.max_keys, keys))
        await conversation.send(server.honest_answer(few))

    async def seconds_beside(drips: int, source: Source) -> float:
        peers = [ScriptedServer(source.database, drip, f"drip {number}") for number in range(drips)]
        with new_database() as copy:
            seconds, progress = await timed([*peers, honest(source, honest_seconds)], source, copy, Limits())
        assert_nobody_is_blamed(progress)
        return seconds

    with new_source(some_pairs(20_000)) as source:
        alone, one, two = [await seconds_beside(drips, source) for drips in (0, 1, 2)]
    assert max(one, two) <= 1.5 * alone + 2, f"{one:.2f} and {two:.2f} s, and {alone:.2f} s without"
