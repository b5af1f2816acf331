"""What peers cannot do to each other: hold up the others by silence, by trickling, or by claims."""

import pytest
import trio
from trio.testing import MockClock

from manager import GaveWay, Limits, NoPeersLeft, PeerState, WrongRoot
from manager.budget import ByteBudget
from manager.large import LargePairs
from manager.ledger import Ledger, rest_of
from manager.ranges import RangeMap
from manager.saved import Saved, encode_saved
from manager.work import Work
from merkledb import Database, verify_range
from syncproto import Error, ErrorCode, GetRange
from tests import fake_servers
from tests.fake_servers import Answer, Conversation, FakeServer, ScriptedServer
from tests.stores import new_database
from tests.syncing import assert_same, some_pairs, sync_from

MIB = 1 << 20


# Large pairs.


@pytest.mark.parametrize("answer", [fake_servers.never, fake_servers.trickle], ids=["silent", "trickling"])
async def test_a_claim_of_a_large_pair_holds_up_nobody_else(
    answer: Answer, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        hostile = ScriptedServer(source, fake_servers.claim_and_then(80 * MIB, answer), "hostile")
        began = trio.current_time()
        await sync_from([hostile, FakeServer(source)], source.root, database)
        assert_same(database, source)
        assert trio.current_time() - began < 10


@pytest.mark.parametrize("answer", [fake_servers.never, FakeServer.answer], ids=["silent", "small proof"])
async def test_a_peer_that_does_not_keep_its_claim_is_dropped(
    answer: Answer, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        hostile = ScriptedServer(source, fake_servers.claim_and_then(80 * MIB, answer), "hostile")
        with pytest.raises(NoPeersLeft, match="it claimed that a pair needs 83886080 bytes, and then sent"):
            await sync_from([hostile], source.root, database)
    assert hostile.connections == 1


async def test_a_large_pair_that_one_peer_trickles_comes_from_another(autojump_clock: MockClock) -> None:
    with new_database({b"large": bytes(3 * MIB)}) as source, new_database() as database:
        hostile = ScriptedServer(
            source, fake_servers.claim_and_then(80 * MIB, fake_servers.trickle), "hostile"
        )
        began = trio.current_time()
        await sync_from([hostile, FakeServer(source)], source.root, database)
        assert_same(database, source)
        assert trio.current_time() - began < 30


async def test_a_claim_may_be_corrected_once(autojump_clock: MockClock) -> None:
    class Unsure(FakeServer):
        async def answer(self, conversation: Conversation, request: GetRange) -> None:
            if request.max_bytes in (MIB, 2 * MIB):
                code, needed = ErrorCode.LIMIT_TOO_SMALL, request.max_bytes + MIB
                await conversation.send(Error(request.request_id, code, "too small", needed))
            else:
                await super().answer(conversation, request)

    with new_database({b"a": bytes(5 * MIB // 2)}) as source, new_database() as database:
        server = Unsure(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert [request.max_bytes for request in server.requests[:3]] == [MIB, 2 * MIB, 3 * MIB]
    assert server.connections == 1


async def test_a_claim_is_not_corrected_twice(autojump_clock: MockClock) -> None:
    async def raising(server: FakeServer, conversation: Conversation, request: GetRange) -> None:
        code = ErrorCode.LIMIT_TOO_SMALL
        await conversation.send(Error(request.request_id, code, "too small", request.max_bytes + 1))

    with new_database(some_pairs(10)) as source, new_database() as database:
        server = ScriptedServer(source, raising)
        with pytest.raises(NoPeersLeft, match="refused that many"):
            await sync_from([server], source.root, database)
    assert len(server.requests) <= 3 * Limits().requests_per_peer
    assert server.connections == 1


async def test_who_fetches_a_large_pair_gives_way_once_another_waited_long_enough(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line = LargePairs(20.0, lambda: None)
    await line.budget.reserve(MIB)
    with trio.move_on_after(1000), line.turn():
        await trio.sleep(500)
    assert trio.current_time() == pytest.approx(500), "nobody waits"
    nursery.start_soon(line.budget.reserve, MIB)
    for patience in (20.0, 40.0):
        began = trio.current_time()
        with pytest.raises(GaveWay), line.turn():
            await trio.sleep(500)
        assert trio.current_time() - began == pytest.approx(patience)
        await trio.testing.wait_all_tasks_blocked()


# Silence.


@pytest.mark.parametrize("silent_peers", [1, 4])
async def test_silent_peers_hold_up_an_honest_one_by_seconds(
    silent_peers: int, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        silent = [ScriptedServer(source, fake_servers.never, f"silent {at}") for at in range(silent_peers)]
        began = trio.current_time()
        progress = await sync_from([*silent, FakeServer(source)], source.root, database)
        assert_same(database, source)
        assert trio.current_time() - began < 4 * Limits().overdue_seconds * silent_peers
    assert progress.keys == 1000
    assert progress.share == 1.0


async def test_what_comes_twice_is_counted_once(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:
        slow = [ScriptedServer(source, fake_servers.after(seconds)) for seconds in (2.5, 4.0, 4.5)]
        progress = await sync_from(slow, source.root, database)
        assert_same(database, source)
    assert sum(server.keys_sent for server in slow) > 300, "something was fetched twice"
    assert progress.keys == 300
    assert sum(peer.keys for peer in progress.peers) == 300
    assert all(peer.state is PeerState.CONNECTED for peer in progress.peers)


def fresh_ledger(source: Database) -> Ledger:
    ranges = RangeMap(source.scheme.max_key_bytes)
    saved = Saved(source.root, 0, 0, None, ranges, (1.0,))
    return Ledger(saved, Limits(max_keys=16), trio.current_time())


async def take(ledger: Ledger, peer: str) -> Work:
    work = await ledger.take(peer, lambda: True, lambda: False)
    assert work is not None
    return work


async def test_overdue_work_is_out_with_two_and_accepted_once(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source:
        ledger = fresh_ledger(source)
        work = await take(ledger, "first")
        assert await take(ledger, "second") is work
        assert trio.current_time() >= Limits().overdue_seconds
        scope = ledger.scope_of("first", work)
        proof = source.prove_range(max_keys=16)
        verified = verify_range(proof, source.root, scheme=source.scheme, max_keys=16)
        rest = rest_of(work, verified)
        piece = ledger.accept(work, verified, rest, 1000)
        assert piece is not None
        assert scope.cancel_called, "the slower one is called off"
        assert ledger.accept(work, verified, rest, 1000) is None
        ledger.give_back("first", work)
        ledger.give_back("second", work)
        ranges, saved = ledger.plan([piece])
        assert saved is not None
        ledger.settle([piece], ranges, trio.current_time())
        assert ledger.keys == 16
        # All the rest can be taken once, in pieces that do not overlap, and nothing else.
        pieces = [await take(ledger, "first") for _ in rest if ledger._queue]
        assert sum(each.share for each in pieces) + piece.share == pytest.approx(1.0)
        assert pieces[0].start == rest[0].start
        assert pieces[-1].end is None


async def test_work_goes_back_to_the_queue_when_the_last_peer_gives_it_back(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source:
        ledger = fresh_ledger(source)
        work = await take(ledger, "first")
        await take(ledger, "second")
        ledger.give_back("first", work)
        began = trio.current_time()
        assert await take(ledger, "third") == work
        assert trio.current_time() - began >= Limits().overdue_seconds, "it is still out"
        ledger.give_back("third", work)
        ledger.give_back("second", work)
        began = trio.current_time()
        assert await take(ledger, "fourth") == work
        assert trio.current_time() == began, "it was in the queue"
        assert not ledger.is_fetched


# Progress that is not true.


def says_done(database: Database, target: bytes, *, behind: bytes = b"") -> bytes:
    """Return progress that says that everything from ``behind`` on is at the target."""
    ranges = RangeMap(database.scheme.max_key_bytes)
    ranges.set(behind, None, target)
    shares = (0.0,) if not behind else (1.0, 0.0)
    return encode_saved(Saved(target, 0, 0, None, ranges, shares))


async def test_progress_that_says_that_all_is_done_is_not_believed_over_the_root(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        database.set_progress(says_done(database, source.root))
        await sync_from([FakeServer(source)], source.root, database)
        assert_same(database, source)


async def test_progress_that_is_not_true_ends_at_a_wrong_root_and_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        database.set_progress(says_done(database, source.root, behind=b"\x80"))
        with pytest.raises(WrongRoot):
            await sync_from([FakeServer(source)], source.root, database)
        assert database.progress is None
        await sync_from([FakeServer(source)], source.root, database)
        assert_same(database, source)


def test_the_memory_for_large_pairs_is_granted_to_one_at_a_time() -> None:
    async def main() -> None:
        budget: ByteBudget = LargePairs(20.0, lambda: None).budget
        await budget.reserve(80 * MIB)
        with trio.move_on_after(100) as scope:
            await budget.reserve(2 * MIB)
        assert scope.cancelled_caught
        assert not budget.is_starving

    trio.run(main, clock=MockClock(autojump_threshold=0))
