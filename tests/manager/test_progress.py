"""What a sync says of itself: how much is done, how much there is, how long the rest takes."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from manager import Limits, Manager, Peer, Progress, SyncStatus
from merkledb import Database
from syncproto import Hello
from tests.support.databases import new_database
from tests.support.fake_servers import FakeServer, InEventLoop, ScriptedServer, after, no_pairs
from tests.support.syncing import SMALL, applied_keys, assert_same, some_pairs, sync_from, sync_in_part

# Then the order of the requests depends on nothing but what is asked for.
ONE_AT_A_TIME = Limits(max_keys=16, requests_per_peer=1)


def file_tree() -> dict[bytes, bytes]:
    """Return pairs most of which sit in one corner of the tree, as those of a folder do."""
    corner = {b"\xc0/" + number.to_bytes(2): b"" for number in range(2000)}
    return corner | {bytes([first << 4, second]): b"" for first in range(16) for second in range(4)}


async def watched_sync(
    servers: Sequence[FakeServer], source: Database, database: Database, limits: Limits = SMALL
) -> list[Progress]:
    """Sync from servers, and return all progress that was seen, the final one last."""
    seen: list[Progress] = []

    async def watch(manager: Manager) -> None:
        async for progress in manager.watch():
            seen.append(progress)  # noqa: PERF401 - the nursery may end before the stream does.

    async with trio.open_nursery() as nursery:
        peers = [server.peer(nursery) for server in servers]
        manager = Manager(database, peers, source.root, limits=limits, executor=InEventLoop())
        assert manager.progress.share == 0.0
        assert manager.progress.expected_keys is None
        assert manager.progress.seconds_left is None
        nursery.start_soon(watch, manager)
        await trio.testing.wait_all_tasks_blocked()
        seen.append(await manager.run())
        nursery.cancel_scope.cancel()
    return seen


def assert_progress_is_sane(seen: Sequence[Progress], keys: int) -> None:
    """Assert what holds whatever the peers say."""
    assert [each.share for each in seen] == sorted(each.share for each in seen)
    assert [each.keys for each in seen] == sorted(each.keys for each in seen)
    assert all(each.share < 1.0 for each in seen if each.keys < keys)
    assert all(each.seconds_left is None or 0.0 <= each.seconds_left < math.inf for each in seen)
    assert all(each.expected_keys is None or each.expected_keys >= each.keys for each in seen)
    final = seen[-1]
    assert (final.keys, final.expected_keys, final.share, final.seconds_left) == (keys, keys, 1.0, 0.0)


@pytest.mark.parametrize("content", [some_pairs(2064), file_tree()], ids=["hashes", "file tree"])
async def test_share_and_time_left_are_those_of_the_keys(
    content: dict[bytes, bytes], autojump_clock: MockClock
) -> None:
    with new_database(content) as source, new_database() as database:
        seen = await watched_sync([ScriptedServer(source, after(0.5))], source, database)
    assert_progress_is_sane(seen, 2064)
    assert seen[0].seconds_left is None
    for each in seen[:-1]:
        assert each.share == pytest.approx(each.keys / 2064, abs=0.001)
    middle = [each for each in seen if 0.2 < each.share < 0.9]
    assert len(middle) > 10
    for each in middle:
        assert each.expected_keys == 2064
        left = seen[-1].elapsed_seconds - each.elapsed_seconds
        # At the edge of the corner proofs begin to hold more keys, which nobody foresees.
        assert each.seconds_left is not None
        assert left / 2 - 2 < each.seconds_left < left * 2 + 2


async def test_where_nobody_says_how_many_keys_there_are_the_tree_tells_the_share_and_nobody_the_time(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        silent = ScriptedServer(source, after(0.5))
        silent.announced_keys = 0
        seen = await watched_sync([silent], source, database)
    assert_progress_is_sane(seen, 1000)
    unfinished = [each for each in seen if each.share < 1.0]
    assert len(unfinished) > 10
    for each in unfinished:
        assert each.share == pytest.approx(each.keys / 1000, abs=0.05)
        assert (each.expected_keys, each.seconds_left) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize("said", [0, 1, 999, 2**63 - 1])
async def test_a_lie_about_the_number_of_keys_spoils_the_display_and_nothing_else(
    said: int, autojump_clock: MockClock
) -> None:
    with new_database(file_tree()) as source, new_database() as database:
        liar = ScriptedServer(source, after(0.5))
        liar.announced_keys = said
        seen = await watched_sync([liar], source, database, ONE_AT_A_TIME)
        assert_same(database, source)
        honest = ScriptedServer(source, after(0.5))
        with new_database() as other:
            await watched_sync([honest], source, other, ONE_AT_A_TIME)
    assert_progress_is_sane(seen, 2064)
    assert liar.requests == honest.requests


async def test_a_lie_of_a_peer_that_is_dropped_is_forgotten(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(500)) as source, new_database() as database:
        liar, honest = ScriptedServer(source, no_pairs), ScriptedServer(source, after(0.5))
        liar.announced_keys = 2**63 - 1
        seen = await watched_sync([liar, honest], source, database)
    assert_progress_is_sane(seen, 500)
    assert all(each.expected_keys == 500 for each in seen if each.keys)


async def test_what_a_peer_says_of_another_root_does_not_count(autojump_clock: MockClock) -> None:
    class Moving(FakeServer):
        """Was at another root when it said hello."""

        def hello(self) -> Hello:
            return replace(super().hello(), root=bytes(32))

    with new_database(some_pairs(300)) as source, new_database() as database:
        seen = await watched_sync([Moving(source)], source, database)
    assert_progress_is_sane(seen, 300)
    assert all(each.expected_keys is None for each in seen if each.share < 1.0)


async def test_a_slow_watcher_sees_the_newest_progress_only(autojump_clock: MockClock) -> None:
    seen: list[float] = []

    async def watch(manager: Manager) -> None:
        async for progress in manager.watch():
            seen.append(progress.share)
            await trio.sleep(3600)

    with new_database(some_pairs(300)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            limits = Limits(max_keys=16, transaction_bytes=4000)
            peers = [FakeServer(source).peer(nursery)]
            manager = Manager(database, peers, source.root, limits=limits, executor=InEventLoop())
            async with trio.open_nursery() as watchers:
                watchers.start_soon(watch, manager)
                await trio.testing.wait_all_tasks_blocked()
                await manager.run()
            nursery.cancel_scope.cancel()
    assert len(seen) == 2
    assert seen[-1] == 1.0


@pytest.mark.parametrize("content", [some_pairs(1000), file_tree()], ids=["hashes", "file tree"])
async def test_the_share_done_survives_a_restart(
    content: dict[bytes, bytes], autojump_clock: MockClock
) -> None:
    with new_database(content) as source, new_database() as database:
        await sync_in_part(source, database, FakeServer(source), 500)
        unreachable = Peer("unreachable", trio.sleep_forever)
        manager = Manager(database, [unreachable], source.root, executor=InEventLoop())
        with trio.move_on_after(1):
            await manager.run()
        assert manager.progress.keys == applied_keys(database)
        assert manager.progress.expected_keys == len(content)
        assert manager.progress.share == applied_keys(database) / len(content)
        assert manager.progress.seconds_left is None


@pytest.mark.parametrize("has_history", [True, False])
async def test_what_no_peer_has_changes_for_is_said_to_be_copied(
    has_history: bool, autojump_clock: MockClock
) -> None:
    pairs = some_pairs(300)
    with new_database(pairs) as source, new_database() as copy, new_database() as anew:
        await sync_from([FakeServer(source)], source.root, copy)
        pairs |= dict.fromkeys(list(pairs)[:100], b"new")
        source.commit(pairs)
        # The same content, of which the root that the copy shows never was a part.
        anew.commit(pairs)
        assert anew.root == source.root
        limits = replace(SMALL, transaction_bytes=1)
        seen = await watched_sync([FakeServer(source if has_history else anew)], source, copy, limits)
    on_the_way = {each.status for each in seen if 0.1 < each.share < 0.9}
    assert on_the_way == {SyncStatus.CATCHING_UP if has_history else SyncStatus.COPYING}
