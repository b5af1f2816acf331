"""What peers cannot do to each other: hold up the others by silence, by trickling, or by claims."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from manager import Limits, Manager, NoPeersLeft, PeerState, Preempted, WrongRoot
from manager.keyspace.keyspace import key_after
from manager.keyspace.range_map import RangeMap
from manager.memory import ByteBudget, LargeValueLane
from manager.peers.throughput import FIRST_BYTES, FIRST_HEDGE_SECONDS, ThroughputEstimator
from manager.scheduling.assignment import Assignment, HeldAnswer, Piece, VerificationResult
from manager.scheduling.checkpoint import Checkpoint, encode_checkpoint
from manager.scheduling.pivot import Target
from manager.scheduling.resume import LocalState, ResumePoint, all_at
from manager.scheduling.scheduler import Scheduler, WriterStep
from manager.transfer.sync_writer import SyncWriter
from manager.transfer.verification import rest_of
from merkledb import EMPTY_ROOT, Database, Revision, StaleChanges, VerifiedRange, verify_range
from syncproto import Error, ErrorCode
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import Answer, Asked, ClientConnection, FakeServer, ScriptedServer
from tests.support.moving_source import Source, Watching, new_source
from tests.support.syncing import assert_same, some_pairs, sync_from, sync_in_part

MIB = 1 << 20
# Of what is accepted here; a real one grants it before it is asked for.
BUDGET = ByteBudget(1 << 40, lambda: None)


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


@pytest.mark.parametrize(
    ("answer", "connections"),
    [(fake_servers.never, 2), (FakeServer.answer, 1)],
    ids=["silent twice", "small proof"],
)
async def test_a_peer_that_does_not_keep_its_claim_is_dropped(
    answer: Answer, connections: int, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        hostile = ScriptedServer(source, fake_servers.claim_and_then(80 * MIB, answer), "hostile")
        with pytest.raises(NoPeersLeft, match="it claimed that a pair needs 83886080 bytes, and then sent"):
            await sync_from([hostile], source.root, database)
    assert hostile.connections == connections


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
    claims = {FIRST_BYTES: 2 * MIB, 2 * MIB: 3 * MIB}

    class Unsure(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if request.max_bytes in claims:
                code, needed = ErrorCode.LIMIT_TOO_SMALL, claims[request.max_bytes]
                await conversation.send(Error(request.request_id, code, "too small", needed))
            else:
                await super().answer(conversation, request)

    with new_database({b"a": bytes(5 * MIB // 2)}) as source, new_database() as database:
        server = Unsure(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert [request.max_bytes for request in server.requests[:3]] == [FIRST_BYTES, 2 * MIB, 3 * MIB]
    assert server.connections == 1


async def test_a_claim_is_not_corrected_twice(autojump_clock: MockClock) -> None:
    async def raising(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
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
    line = LargeValueLane(20.0, lambda: None)
    await line.budget.reserve(MIB)
    with trio.move_on_after(1000), line.turn():
        await trio.sleep(500)
    assert trio.current_time() == pytest.approx(500), "nobody waits"
    nursery.start_soon(line.budget.reserve, MIB)
    for patience in (20.0, 40.0):
        began = trio.current_time()
        with pytest.raises(Preempted), line.turn():
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
    assert sum(server.cancels for server in slow) > 0, "something was asked for twice"
    assert progress.keys == 300
    assert sum(peer.keys for peer in progress.peers) == 300
    assert all(peer.state is PeerState.CONNECTED for peer in progress.peers)


def fresh_scheduler(source: Database) -> Scheduler:
    local = LocalState(None, EMPTY_ROOT, is_at_rest=False)
    start = ResumePoint(local, all_at(source.scheme.max_key_bytes, None), None)
    return Scheduler(start, Target(source.root), Limits(max_keys=16), trio.current_time())


async def take(scheduler: Scheduler, peer: str) -> Assignment:
    assignment = await scheduler.take(peer, lambda: 0.0, lambda: False, ThroughputEstimator(Limits()))
    assert assignment is not None
    return assignment


def accept(
    scheduler: Scheduler, assignment: Assignment, source: Database, fullness: float = 1.0
) -> Piece | None:
    """Accept the first 16 pairs of some work, as so much of what was asked for."""
    start, end = assignment.out.work.start or None, assignment.out.work.end
    proof = source.prove_range(start, end, max_keys=16)
    verified = verify_range(proof, source.root, start, end, scheme=source.scheme, max_keys=16)
    return accept_verified(scheduler, assignment, verified, fullness)


def accept_verified(
    scheduler: Scheduler, assignment: Assignment, verified: VerifiedRange, fullness: float = 1.0
) -> Piece | None:
    rest, memory_bytes = rest_of(assignment.out.work, verified), verified.memory_bytes
    BUDGET.release(-memory_bytes)
    result = VerificationResult(
        verified, rest, memory_bytes, proof_bytes=1000, content_bytes=1000, filling=1.0, fullness=fullness
    )
    piece = scheduler.accept(assignment, result, BUDGET)
    if piece is None:
        BUDGET.release(memory_bytes)
    return piece


async def test_overdue_work_is_out_with_two_and_accepted_once(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler, began = fresh_scheduler(source), trio.current_time()
        first = await take(scheduler, "first")
        second = await take(scheduler, "second")
        assert second.out.work is first.out.work
        assert trio.current_time() == began + FIRST_HEDGE_SECONDS
        piece = accept(scheduler, second, source)
        assert piece is not None
        assert first.scope.cancel_called, "the slower one is called off"
        assert first.is_outrun
        assert accept(scheduler, first, source) is None
        scheduler.give_back(first)
        scheduler.give_back(second)
        planned = scheduler.plan()
        assert planned.pieces == [piece]
        assert planned.progress is not None
        scheduler.settle(planned, scheduler.local, trio.current_time())
        assert scheduler.stats.keys == 16
        # All the rest can be taken once, in pieces that do not overlap, and nothing else.
        with trio.move_on_after(1):
            pieces = []
            while True:
                pieces.append((await take(scheduler, "first")).out.work)
        assert sum(each.share for each in pieces) + piece.before.share == pytest.approx(1.0)
        assert pieces[0].start == key_after(piece.take().keys[-1], source.scheme.max_key_bytes)
        assert pieces[-1].end is None


async def test_a_peer_that_is_waited_for_in_vain_is_not_waited_for_again_until_its_next_full_answer(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)

        async def seconds_lost() -> float:
            """Return how long the same work takes one after the other, whose answer holds little."""
            silent, little = await take(scheduler, "silent"), await take(scheduler, "little")
            assert silent.out is little.out
            silent.is_asked = little.is_asked = True
            little.held, little.patience_seconds = HeldAnswer(0.1, 0.1), 1.5
            await trio.sleep_until(max(scheduler.work.awaited_until(little), trio.current_time()))
            # All of the rest is there at once, as one piece.
            proof = source.prove_range(little.out.work.start or None, None)
            verified = verify_range(proof, source.root, little.out.work.start or None, None)
            assert accept_verified(scheduler, little, verified, fullness=0.1) is not None
            assert silent.is_outrun
            lost_seconds = trio.current_time() - silent.taken
            scheduler.work.call_off()
            return lost_seconds

        assert await seconds_lost() == 1.5
        assert await seconds_lost() == 0.0, "neither the answer was held, nor the work kept"
        assert accept(scheduler, await take(scheduler, "silent"), source) is not None
        scheduler.work.call_off()
        assert scheduler.work.silent == set()


async def test_a_peer_that_had_some_work_for_a_moment_only_is_waited_for_again(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)
        slow, fast = await take(scheduler, "slow"), await take(scheduler, "fast")
        fast.patience_seconds = 2 * FIRST_HEDGE_SECONDS
        assert accept(scheduler, fast, source) is not None
        assert slow.is_outrun
        assert not scheduler.work.silent


async def test_work_goes_back_to_the_backlog_when_the_last_peer_gives_it_back(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)
        first = await take(scheduler, "first")
        second = await take(scheduler, "second")
        scheduler.give_back(first)
        began = trio.current_time()
        third = await take(scheduler, "third")
        assert third.out.work == first.out.work
        assert trio.current_time() - began == FIRST_HEDGE_SECONDS, "it is still out"
        scheduler.give_back(third)
        scheduler.give_back(second)
        began = trio.current_time()
        assert (await take(scheduler, "fourth")).out.work == first.out.work
        assert trio.current_time() == began, "it was in the backlog"
        assert not scheduler.work.is_fetched


async def test_what_was_given_back_and_taken_again_is_another_assignment(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)
        old = await take(scheduler, "peer")
        scheduler.give_back(old)
        new = await take(scheduler, "peer")
        assert accept(scheduler, old, source) is None, "who gave it back has no claim to it"
        scheduler.give_back(old)
        assert accept(scheduler, new, source) is not None


async def test_who_waits_looks_again_where_there_is_work_or_to_leave_and_else_does_not(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    with new_database(some_pairs(10)) as source:
        scheduler, looks, leaves = fresh_scheduler(source), list[float](), trio.Event()
        taken = list[Assignment | None]()

        def look() -> float:
            looks.append(trio.current_time())
            return 0.0

        async def wait() -> None:
            throughput = ThroughputEstimator(Limits())
            taken.append(await scheduler.take("waiting", look, leaves.is_set, throughput))

        assert accept(scheduler, await take(scheduler, "first"), source) is not None
        assert scheduler.work.is_fetched
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(looks) == 1
        scheduler.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert len(looks) == 1, "there is nothing to be had"
        scheduler.work.call_off()
        scheduler.wake()
        await trio.testing.wait_all_tasks_blocked()
        (assignment,) = taken
        assert assignment is not None
        assert accept(scheduler, assignment, source) is not None
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        leaves.set()
        scheduler.wake_workers()
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [assignment, None]


# Goals that come back.


def scheduler_at(source: Source, head: bytes | None = None) -> Scheduler:
    """Return a scheduler on the way to the newest root, half of it at the first one and half unknown."""
    first = source.roots[1]
    ranges = RangeMap(source.database.scheme.max_key_bytes)
    ranges.set(b"", b"\x7f", first)
    checkpoint = Checkpoint(Target(first), 0, 0, 0, None, ranges, (0.5, 0.5))
    shown = None if head is None else Revision(1, head)
    local = LocalState(shown, b"mixture".ljust(32), is_at_rest=False)
    start = ResumePoint(local, checkpoint, None)
    return Scheduler(start, Target(source.root), Limits(pivot_seconds=1), trio.current_time())


def accept_changes(scheduler: Scheduler, assignment: Assignment, source: Source) -> Piece | None:
    """Accept all of some work as a range at the newest root."""
    start, end = assignment.out.work.start or None, assignment.out.work.end
    verified = verify_range(source.database.prove_range(start, end), source.root, start, end)
    return accept_verified(scheduler, assignment, verified)


@pytest.mark.parametrize("is_head", [True, False])
async def test_what_leads_away_from_a_pivot_that_came_back_is_called_off(
    is_head: bool, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(100)) as source:
        first = source.root
        source.change(10, random.Random(1))
        scheduler = scheduler_at(source, first if is_head else None)
        left, right = await take(scheduler, "one"), await take(scheduler, "two")
        assert (left.out.work.root, right.out.work.root) == (first, None)
        scheduler.aim(Target(first), trio.current_time())
        scheduler.follow_time(trio.current_time() + 3600)
        assert left.scope.cancel_called
        assert not left.is_outrun
        assert accept_changes(scheduler, left, source) is None
        # What is only unknown is brought to the old pivot, and on from there, or is rolled back.
        assert right.scope.cancel_called == is_head
        assert (scheduler.next_step() is WriterStep.ROLL_BACK) == is_head


@pytest.mark.parametrize("is_head", [True, False])
async def test_pieces_that_lead_away_from_a_pivot_that_came_back_are_not_applied(
    is_head: bool, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(100)) as source:
        first = source.root
        source.change(10, random.Random(1))
        scheduler, before = scheduler_at(source, first if is_head else None), BUDGET.reserved_bytes
        pieces = [
            accept_changes(scheduler, assignment, source)
            for assignment in (await take(scheduler, "one"), await take(scheduler, "two"))
        ]
        assert scheduler.work.verified == pieces
        assert scheduler.work.held_bytes(BUDGET) == BUDGET.reserved_bytes - before > 0
        scheduler.aim(Target(first), trio.current_time())
        scheduler.follow_time(trio.current_time() + 3600)
        assert scheduler.work.verified == ([] if is_head else pieces[1:])
        # The memory of what is not applied is there for others at once.
        assert scheduler.work.held_bytes(BUDGET) == BUDGET.reserved_bytes - before


async def test_a_sync_does_not_end_at_a_head_that_a_transaction_under_way_leads_away_from(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        head = source.root
        source.change(200, random.Random(1))

        class Slow(Watching):
            """Takes its time for a transaction, and meanwhile the head becomes the target again."""

            async def run(self, work: Callable[[], fake_servers.Result]) -> fake_servers.Result:
                transaction = work.func if isinstance(work, partial) else None
                if getattr(transaction, "__func__", None) is SyncWriter._transaction:
                    manager.update_target(head)
                    await trio.sleep(5)
                return await super().run(work)

        async with trio.open_nursery() as nursery:
            limits = Limits(max_keys=16, max_changes=16)
            watching = Slow(source, copy)
            peers = [FakeServer(source.database).peer(nursery)]
            manager = Manager(copy, peers, source.root, limits=limits, executor=watching)
            await manager.run()
            nursery.cancel_scope.cancel()
        assert not copy.catching_up
        assert copy.root == head
        assert copy.progress is None
        copy.check()


# Progress that is not true.


def says_done(database: Database, target: bytes, *, behind: bytes = b"") -> bytes:
    """Return progress that says that everything from ``behind`` on is at the target."""
    ranges = RangeMap(database.scheme.max_key_bytes)
    ranges.set(behind, None, target)
    shares = (0.0,) if not behind else (1.0, 0.0)
    return encode_checkpoint(Checkpoint(Target(target), 0, 0, 0, None, ranges, shares))


async def unfinish(database: Database, source: Database) -> None:
    """Begin a sync, so that there is something that progress can be untrue about."""
    await sync_in_part(source, database, FakeServer(source), 20)


@pytest.mark.parametrize("behind", [b"", b"\x80"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_progress_that_is_not_true_is_not_believed_over_the_root(
    behind: bytes, is_first: bool, autojump_clock: MockClock
) -> None:
    pairs = some_pairs(200)
    with new_database(pairs) as source, new_database() as database:
        if not is_first:
            await sync_from([FakeServer(source)], source.root, database)
            source.commit(dict.fromkeys(pairs, b"new"))
        await unfinish(database, source)
        database.set_progress(says_done(database, source.root, behind=behind))
        await sync_from([FakeServer(source)], source.root, database)
        assert_same(database, source)


async def test_changes_that_have_gone_stale_are_fetched_again_from_the_head(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = some_pairs(200)
    with new_database(pairs) as source, new_database() as database:
        await sync_from([FakeServer(source)], source.root, database)
        source.commit(dict.fromkeys(list(pairs)[:100], b"new"))
        apply, roll_back, rolled_back = database.apply, database.roll_back, list[bool]()

        def apply_what_is_not_stale(verified: list[VerifiedRange], **others: Any) -> bytes:
            if database.catching_up and not rolled_back:
                raise StaleChanges(None)
            return apply(verified, **others)

        def roll_back_and_note() -> None:
            rolled_back.append(True)
            roll_back()

        monkeypatch.setattr(database, "apply", apply_what_is_not_stale)
        monkeypatch.setattr(database, "roll_back", roll_back_and_note)
        limits = Limits(max_keys=16, max_changes=16, transaction_bytes=1)
        server = FakeServer(source)
        await sync_from([server], source.root, database, limits)
        assert_same(database, source)
    assert server.keys_sent == 0


async def test_a_database_that_does_not_get_to_the_root_in_two_attempts_is_a_typed_error(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = some_pairs(100)
    with new_database(pairs) as source, new_database() as database:
        await unfinish(database, source)
        # A disk that forgets the last range of all.
        apply = database.apply

        def forgetful(verified: list[VerifiedRange], **others: Any) -> bytes:
            return apply([each for each in verified if each.end is not None], **others)

        monkeypatch.setattr(database, "apply", forgetful)
        with pytest.raises(WrongRoot) as caught:
            await sync_from([FakeServer(source)], source.root, database)
        assert caught.value.expected == source.root
        assert caught.value.found == database.tip_root


def test_the_memory_for_large_pairs_is_granted_to_one_at_a_time() -> None:
    async def main() -> None:
        budget: ByteBudget = LargeValueLane(20.0, lambda: None).budget
        await budget.reserve(80 * MIB)
        with trio.move_on_after(100) as scope:
            await budget.reserve(2 * MIB)
        assert scope.cancelled_caught
        assert not budget.is_starving

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_nobody_is_called_silent_whom_nobody_waited_for(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)
        slow, fast = await take(scheduler, "slow"), await take(scheduler, "fast")
        assert slow.out is fast.out
        slow.is_asked, fast.patience_seconds = True, 0.1
        # It holds all, so it was not held.
        assert accept(scheduler, fast, source) is not None
        assert not scheduler.work.silent
        scheduler.work.silent.add("slow")
        assert accept(scheduler, slow, source) is None
        assert not scheduler.work.silent, "its answer came second, and was full"


async def test_nobody_waits_for_a_peer_that_waits_for_memory(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source:
        scheduler = fresh_scheduler(source)
        starved, little = await take(scheduler, "starved"), await take(scheduler, "little")
        little.patience_seconds = 1.5
        assert scheduler.work.awaited_until(little) < trio.current_time()
        starved.is_asked = True
        assert scheduler.work.awaited_until(little) == starved.taken + 1.5
