"""Targets that move: what was fetched is brought forward, nothing comes twice, and the sync still ends."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock

from manager import Limits, Manager, Progress, Reached, TargetGone
from merkledb import EMPTY_ROOT, ChangeProof, Database, LimitTooSmall
from syncproto import GetChanges
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import Asked, ClientConnection, FakeServer, ScriptedServer
from tests.support.moving_source import Source, Watching, new_source
from tests.support.syncing import SMALL, applied_keys, assert_same, some_pairs, sync_from, sync_in_part

ONE_AT_A_TIME = Limits(max_keys=16, max_changes=16, requests_per_peer=1)


def choice_of(seed: int) -> random.Random:
    return random.Random(seed)


async def run_while(
    manager: Manager, meanwhile: Callable[[], object] = lambda: None, seconds: float = 1.0
) -> Progress:
    """Run a sync, and do something every so many seconds until it ends."""

    async def repeat() -> None:
        while True:
            await trio.sleep(seconds)
            meanwhile()

    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat)
            progress = await manager.run()
            nursery.cancel_scope.cancel()
    return progress


class Copying(NamedTuple):
    """A sync, and who watches what the copy shows."""

    manager: Manager
    watching: Watching


@asynccontextmanager
async def a_manager(
    source: Source,
    copy: Database,
    servers: list[FakeServer],
    target: bytes | None,
    limits: Limits = SMALL,
) -> AsyncIterator[Copying]:
    """Yield a manager of servers that live as long as the block, and who watches what the copy shows."""
    async with trio.open_nursery() as nursery:
        watching = Watching(source, copy)
        peers = [server.peer(nursery) for server in servers]
        yield Copying(
            Manager(copy, peers, target, limits=limits, executor=watching, random=random.Random(1)),
            watching,
        )
        watching.look()
        nursery.cancel_scope.cancel()


# Changes.


async def test_a_copy_is_brought_forward_by_changes_alone(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(2000)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        for seed in range(3):
            source.change(100, choice_of(seed))
        server = FakeServer(source.database)
        progress = await sync_from([server], source.root, copy)
        assert_same(copy, source.database)
    assert server.keys_sent == 0
    assert 100 <= server.changes_sent <= 350
    assert progress.changes == server.changes_sent
    assert (progress.keys, progress.expected_keys, progress.share) == (0, 0, 1.0)


async def test_a_few_changes_take_one_request(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(2000)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.change(10, choice_of(1))
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy)
    assert len(server.requests) == 1


async def test_the_copy_of_a_database_that_lost_everything_loses_everything(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.commit(dict.fromkeys(source.contents[source.root]))
        assert source.root == EMPTY_ROOT
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy)
        assert_same(copy, source.database)
        source.commit(some_pairs(50, seed=2))
        await sync_from([server], source.root, copy)
        assert_same(copy, source.database)


async def test_a_copy_goes_back_to_an_older_root(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(500)) as source, new_database() as copy:
        old = source.root
        source.change(50, choice_of(1))
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy)
        await sync_from([server], old, copy)
        assert copy.root == old
        assert dict(copy.items()) == source.contents[old]
    assert server.fallbacks == 0


async def test_where_history_does_not_reach_back_ranges_come_and_are_asked_for_from_then_on(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(max_keys=64, max_changes=16, requests_per_peer=1)
    with new_source(some_pairs(500), history=2) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        for seed in range(4):
            source.change(20, choice_of(seed))
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy, limits)
        assert_same(copy, source.database)
    assert server.fallbacks == 1
    assert server.keys_sent == len(source.contents[source.root])


async def test_a_store_that_is_no_copy_of_the_source_becomes_one(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(300)) as source, new_database(some_pairs(200, seed=2)) as copy:
        await sync_from([FakeServer(source.database)], source.root, copy, replace=True)
        assert_same(copy, source.database)


async def test_a_large_change_is_fetched_with_memory_of_its_own(autojump_clock: MockClock) -> None:
    limits = Limits(max_keys=32, max_changes=16, max_bytes=20_000)
    with new_source(some_pairs(200)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.commit({bytes([byte]) * 4: bytes([byte]) * 50_000 for byte in range(0, 250, 50)})
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy, limits)
        assert_same(copy, source.database)
    assert server.fallbacks == 0


class Pruning(FakeServer):
    """Prunes the root that changes are asked from as soon as it has claimed that one of them is large."""

    has_claimed = False

    def changes(self, request: GetChanges) -> ChangeProof | None:
        if self.has_claimed:
            return None
        try:
            return super().changes(request)
        except LimitTooSmall:
            self.has_claimed = True
            raise


@pytest.mark.parametrize("first_bytes", [10, 30_000, 70_000])
async def test_who_prunes_the_old_root_behind_a_claim_is_not_blamed(
    first_bytes: int, autojump_clock: MockClock
) -> None:
    limits = Limits(max_keys=32, max_changes=16, max_bytes=20_000, requests_per_peer=1)
    first = {b"\0": bytes(first_bytes)}
    with new_source(some_pairs(200) | first) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.commit({b"\xff" * 4: bytes(50_000)})
        server = Pruning(source.database)
        await sync_from([server], source.root, copy, limits)
        assert_same(copy, source.database)
        assert server.has_claimed
        assert server.connections == 1


async def test_changes_with_hardly_any_memory_still_end(autojump_clock: MockClock) -> None:
    tight = Limits(max_keys=8, max_changes=8, max_bytes=4096, buffered_bytes=10_000, transaction_bytes=5000)
    with new_source(some_pairs(300)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.change(200, choice_of(1))
        await sync_from([FakeServer(source.database) for _ in range(3)], source.root, copy, tight)
        assert_same(copy, source.database)


async def test_the_numbers_of_revisions_are_those_of_the_source(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        server = FakeServer(source.database)
        for _ in range(2):
            for seed in range(3):
                source.change(10, choice_of(seed))
            async with a_manager(source, copy, [server], None) as sync:
                sync.manager.update_target(source.root, source.database.revision)
                await sync.manager.run()
            assert copy.revision == source.database.revision


# A target that moves.


async def test_a_target_that_moves_every_second_is_reached_though_a_copy_takes_longer(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(1000)) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(0.4))
        async with a_manager(source, copy, [server], source.root, ONE_AT_A_TIME) as sync:
            progress = await run_while(
                sync.manager, lambda: sync.manager.update_target(source.change(8, choice))
            )
            seconds = trio.current_time()
        assert copy.root == source.root
        assert seconds > 1000 / 16 * 0.4, "no faster than a copy"
        assert seconds < 2.5 * 1000 / 16 * 0.4
        assert len(source.roots) > seconds * 0.9
    assert progress.status == "in sync"
    assert progress.share == 1.0
    # Each pair comes once, and each change about once.
    assert server.keys_sent < 1100
    assert server.changes_sent < 2 * 8 * len(source.roots)
    assert server.fallbacks == 0


@pytest.mark.slow
@pytest.mark.parametrize(("milliseconds", "moves"), [(1, 400), (50, 40)])
async def test_a_target_that_moves_many_times_a_second_is_reached(
    milliseconds: int, moves: int, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(500)) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(0.02))
        async with a_manager(source, copy, [server], source.root, SMALL) as sync:

            def move() -> None:
                if len(source.roots) < moves:
                    sync.manager.update_target(source.change(2, choice))

            await run_while(sync.manager, move, milliseconds / 1000)
        if milliseconds == 1:
            # The sync lasts as long as the target moves faster than an answer takes.
            assert len(source.roots) == moves
        assert copy.root == sync.manager.target == source.root
        assert_same(copy, source.database)
    # A thousand commits a second leave history before an answer for them comes.
    assert not server.fallbacks or milliseconds == 1


async def test_a_target_moves_to_every_root_of_the_past_and_back(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy:
        choice = choice_of(1)
        for _ in range(5):
            source.change(20, choice)
        server = ScriptedServer(source.database, fake_servers.after(0.3))
        targets = [choice.choice(source.roots) for _ in range(40)]
        async with a_manager(source, copy, [server], source.root) as sync:
            await run_while(
                sync.manager, lambda: sync.manager.update_target((targets or [source.root]).pop()), 0.7
            )
            assert copy.root == sync.manager.target
            sync.manager.update_target(source.root)
        await sync_from([server], source.root, copy)
        assert_same(copy, source.database)


@pytest.mark.slow
async def test_changes_that_take_longer_than_history_lasts_are_brought_along(
    autojump_clock: MockClock,
) -> None:
    # Twenty revisions of two a second: what was fetched at a root is forgotten there ten seconds later.
    with new_source(some_pairs(1200), history=20) as source, new_database() as copy:
        choice = choice_of(1)
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.change(1000, choice)
        server = ScriptedServer(source.database, fake_servers.after(0.3))
        async with a_manager(source, copy, [server], source.root, ONE_AT_A_TIME) as sync:
            await run_while(sync.manager, lambda: sync.manager.update_target(source.change(2, choice)), 0.5)
            seconds = trio.current_time()
        assert copy.root == source.root
    assert seconds > 20
    # The first root itself goes out of history in the middle, and what is left then comes as ranges.
    assert server.fallbacks < 5
    assert server.keys_sent < 1200


async def test_a_pivot_is_kept_until_it_is_reached_while_only_changes_are_left(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(max_keys=16, max_changes=16, requests_per_peer=1)
    with new_source(some_pairs(500)) as source, new_database() as copy:
        choice = choice_of(1)
        await sync_from([FakeServer(source.database)], source.root, copy)
        server = ScriptedServer(source.database, fake_servers.after(0.4))
        async with a_manager(source, copy, [server], source.change(100, choice), limits) as sync:
            pivot = source.root
            await run_while(sync.manager, lambda: sync.manager.update_target(source.change(4, choice)), 1.0)
        assert pivot in sync.watching.shown, "a target that was newest once"
        assert copy.root == source.root


async def test_a_target_that_always_moves_faster_than_an_answer_takes_is_followed_by_its_roots(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(2.0))
        async with a_manager(source, copy, [server], source.root) as sync:
            with trio.move_on_after(100):
                await run_while(
                    sync.manager, lambda: sync.manager.update_target(source.change(2, choice)), 0.5
                )
        assert len(sync.watching.shown) > 10, "root after root, though never the newest"
    assert server.fallbacks == 0


async def test_an_answer_that_takes_longer_than_any_pivot_is_used_and_the_sync_ends(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(15.0))
        async with a_manager(source, copy, [server], source.root, SMALL) as sync:

            def move() -> None:
                if trio.current_time() < 400:
                    sync.manager.update_target(source.change(2, choice))

            await run_while(sync.manager, move, 4.0)
        assert copy.root == source.root
        assert len(sync.watching.shown) > 3
    assert server.keys_sent < 150, "what is copied once is not copied again"


async def test_what_is_in_flight_for_an_older_target_is_used(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(64)) as source, new_database() as copy:
        old = source.root
        server = ScriptedServer(source.database, fake_servers.after(10.0))
        limits = Limits(max_keys=1000, max_changes=1000)
        async with a_manager(source, copy, [server], old, limits) as sync:
            moves = iter([source.change(8, choice_of(1))])

            def move() -> None:
                for root in moves:
                    sync.manager.update_target(root)

            await run_while(sync.manager, move, 9.0)
        assert copy.root == source.root
    assert sync.watching.shown == [EMPTY_ROOT, old, source.root]
    assert server.keys_sent == 64
    assert [fake_servers.root_of(request) for request in server.requests] == [old, source.root]


# States.


async def test_a_target_may_be_named_before_the_run_and_at_every_moment_of_it(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        choice = choice_of(1)
        server = FakeServer(source.database)

        class Retargeting(Watching):
            """Names another target while anything is prepared, verified, applied or concluded."""

            steps = 0

            async def run(self, work: Callable[[], fake_servers.Result]) -> fake_servers.Result:
                result = await super().run(work)
                self.steps += 1
                if self.steps in (1, 2, 5, 9, 14, 20):
                    manager.update_target(source.change(5, choice))
                return result

        async with trio.open_nursery() as nursery:
            watching = Retargeting(source, copy)
            limits = Limits(max_keys=16, max_changes=16, transaction_bytes=1)
            manager = Manager(copy, [server.peer(nursery)], limits=limits, executor=watching)
            manager.update_target(b"n" * 32)
            manager.update_target(source.root)
            await manager.run()
            nursery.cancel_scope.cancel()
        assert watching.steps > 20
        assert manager.target == copy.root == source.root


async def test_a_target_named_when_the_last_one_was_just_reached_is_reached_too(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with a_manager(source, copy, [server], source.root) as sync:
            later = [source.change(5, choice_of(seed)) for seed in range(3)]
            reached: list[Reached] = []

            async def chase() -> None:
                async for each in sync.manager.roots():
                    reached.append(each)
                    if later:
                        sync.manager.update_target(later.pop(0))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(chase)
                await trio.testing.wait_all_tasks_blocked()
                await sync.manager.run()
        assert copy.root == source.root
    assert [each.root for each in reached] == source.roots[1:]
    assert reached[-1].keys == len(source.contents[source.root])


async def test_a_run_to_the_present_head_asks_nobody(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        revision = copy.revision
        server = FakeServer(source.database)
        async with a_manager(source, copy, [server], b"elsewhere".ljust(32)) as sync:
            sync.manager.update_target(source.root)
            progress = await sync.manager.run()
    assert server.connections == 0
    assert progress.share == 1.0
    assert revision == 1


async def test_the_present_head_as_target_gives_up_what_leads_elsewhere_without_asking_anybody(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        head = source.root
        source.change(400, choice_of(1))
        server = ScriptedServer(source.database, fake_servers.after(1.0))
        limits = Limits(max_keys=16, max_changes=16, transaction_bytes=1000)
        async with a_manager(source, copy, [server], source.root, limits) as sync:

            def back() -> None:
                assert copy.catching_up
                sync.manager.update_target(head)

            await run_while(sync.manager, back, 8.0)
            assert not copy.catching_up
            assert copy.root == head
            copy.check()
    assert all(fake_servers.root_of(request) != head for request in server.requests)
    assert sync.watching.shown == [head]


async def test_a_head_as_target_calls_off_what_was_asked_for_another(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        head = source.root
        source.change(50, choice_of(1))
        server = ScriptedServer(source.database, fake_servers.after(5.0))
        async with a_manager(source, copy, [server], source.root) as sync:
            await run_while(sync.manager, lambda: sync.manager.update_target(head), 1.0)
            assert trio.current_time() < 2.0
        assert copy.root == head
    assert server.changes_sent == 0


async def test_a_sync_whose_target_was_pruned_everywhere_is_a_typed_error_and_goes_on_with_the_next(
    autojump_clock: MockClock,
) -> None:
    pairs = some_pairs(300)
    with new_source(pairs, history=2) as source, new_database() as copy:
        await sync_in_part(source.database, copy, FakeServer(source.database), 100)
        old, applied = source.root, applied_keys(copy)
        for seed in range(3):
            source.change(5, choice_of(seed))
        servers = [FakeServer(source.database, "one"), FakeServer(source.database, "two")]
        with pytest.raises(TargetGone, match="history gone") as caught:
            await sync_from(servers, old, copy)
        assert applied_keys(copy) == applied, "progress is kept"
        server = FakeServer(source.database)
        await sync_from([server], source.root, copy)
        assert_same(copy, source.database)
    assert [failure.peer for failure in caught.value.failures] == ["one", "two"]


async def test_a_pivot_that_nobody_has_any_more_gives_way_at_once(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(300), history=1) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(0.1))
        async with a_manager(source, copy, [server], source.root) as sync:

            def move() -> None:
                if len(source.roots) < 5:
                    sync.manager.update_target(source.change(3, choice))

            await run_while(sync.manager, move, 0.55)
            assert trio.current_time() < 5.0, "no wait for a root that is gone"
        assert_same(copy, source.database)
    assert server.connections == 1


async def test_a_peer_that_lacks_the_pivot_is_asked_for_the_next(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy, new_database() as empty:
        choice = choice_of(1)
        behind = FakeServer(empty, "behind")
        slow = ScriptedServer(source.database, fake_servers.after(1.0), "slow")
        async with a_manager(source, copy, [behind, slow], source.root) as sync:

            def catch_up() -> None:
                if behind.database is empty:
                    behind.database = source.database
                    sync.manager.update_target(source.change(3, choice))

            progress = await run_while(sync.manager, catch_up, 3.0)
        assert copy.root == source.root
    assert progress.peers[0].keys > 0
    assert progress.peers[0].score > 0.9


async def test_a_connection_that_breaks_while_the_target_moves_costs_nothing_that_was_fetched(
    autojump_clock: MockClock,
) -> None:
    class Breaking(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            await trio.sleep(0.3)
            if len(self.requests) % 9 == 0:
                await conversation.stream.aclose()
            else:
                await super().answer(conversation, request)

    with new_source(some_pairs(500)) as source, new_database() as copy:
        choice = choice_of(1)
        server = Breaking(source.database)
        async with a_manager(source, copy, [server], source.root) as sync:
            await run_while(sync.manager, lambda: sync.manager.update_target(source.change(3, choice)), 1.0)
        assert copy.root == source.root
    assert server.connections > 3
    assert server.keys_sent < 700


async def test_progress_says_what_is_going_on(autojump_clock: MockClock) -> None:
    seen: list[Progress] = []
    with new_source(some_pairs(500)) as source, new_database() as copy:
        choice = choice_of(1)
        server = ScriptedServer(source.database, fake_servers.after(0.5))
        async with a_manager(source, copy, [server], source.root) as sync:

            async def watch() -> None:
                async for progress in sync.manager.watch():
                    seen.append(progress)  # noqa: PERF401 - the nursery may end before the stream does.

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.testing.wait_all_tasks_blocked()
                await run_while(
                    sync.manager,
                    lambda: (
                        sync.manager.update_target(source.change(3, choice))
                        if len(source.roots) < 9
                        else None
                    ),
                    1.5,
                )
    situations = [progress.status for progress in seen]
    assert set(situations) == {"first copy", "catching up", "in sync"}
    assert (situations[0], situations[-1]) == ("first copy", "in sync")
    for before, after in pairwise(seen):
        assert before.keys <= after.keys
        assert before.changes <= after.changes
        assert before.share <= after.share or before.root != after.root
    assert all(progress.share < 1.0 for progress in seen if progress.root != progress.target)
    assert seen[-1].share == 1.0
    assert seen[-1].root == source.root
