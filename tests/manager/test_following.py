"""Following: each new target, the heads of trusted peers, peers that come, go, lag, or lose everything."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from manager import (
    Limits,
    LocalContent,
    Manager,
    NoPeersLeft,
    Peer,
    PeerNotReady,
    PeerState,
    PeerUnreachable,
    Progress,
    Reached,
    SyncStatus,
    TargetGone,
    VerificationFailed,
)
from merkledb import EMPTY_ROOT, Database, DatabaseFull, StaleChanges
from syncproto import ErrorCode, Head
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import FakeServer, InEventLoop, ScriptedServer
from tests.support.moving_source import Source, Watching, new_source
from tests.support.syncing import SMALL, assert_same, some_pairs, sync_from, sync_in_part


class Following:
    """A manager that follows, and what it reaches.

    Attributes:
        reached: What ``roots`` said.
    """

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.reached: list[Reached] = []

    async def collect(self) -> None:
        async for each in self.manager.roots():
            self.reached.append(each)

    @property
    def progress(self) -> Progress:
        return self.manager.progress

    def status(self) -> SyncStatus:
        return self.progress.status


@asynccontextmanager
async def follow(
    copy: Database,
    servers: list[FakeServer | Peer],
    target: bytes | None = None,
    *,
    source: Source | None = None,
    limits: Limits = SMALL,
    trust_peers: bool = False,
    replace: bool = False,
) -> AsyncIterator[Following]:
    """Follow as long as the block lasts, from servers that live as long."""
    async with trio.open_nursery() as nursery:
        peers = [each if isinstance(each, Peer) else each.peer(nursery) for each in servers]
        manager = Manager(
            copy,
            peers,
            target,
            limits=limits,
            trust_peers=trust_peers,
            replace=replace,
            executor=Watching(source, copy) if source is not None else InEventLoop(),
            random=random.Random(1),
        )
        following = Following(manager)
        nursery.start_soon(following.collect)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(manager.follow)
        await trio.sleep(0.1)
        yield following
        nursery.cancel_scope.cancel()


def lone_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


async def commit_and_announce(source: Source, server: FakeServer, seed: int) -> bytes:
    root = source.change(5, random.Random(seed))
    await server.announce()
    return root


# Targets that are named.


async def test_each_named_target_is_reached_and_then_the_next_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with follow(copy, [server], source=source) as following:
            assert following.status() is SyncStatus.NO_TARGET
            for seed in range(4):
                following.manager.update_target(await commit_and_announce(source, server, seed))
                await trio.sleep(3600)
                assert copy.root == source.root
                assert following.status() is SyncStatus.IN_SYNC
                assert following.progress.share == 1.0
        assert_same(copy, source.database)
    assert [each.root for each in following.reached] == source.roots[2:]
    assert server.connections == 1, "pings keep the connection through the hours"


async def test_what_untrusted_peers_announce_is_no_target(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with follow(copy, [server], source.root, source=source) as following:
            await commit_and_announce(source, server, 1)
            await trio.sleep(60)
            assert copy.root == source.roots[1]
            assert following.status() is SyncStatus.IN_SYNC
            assert following.progress.peers[0].root == source.root
            assert following.progress.peers[0].revision == 2


async def test_following_goes_on_with_what_an_earlier_run_was_on_the_way_to(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy:
        await sync_in_part(source.database, copy, FakeServer(source.database), 50)
        async with follow(copy, [FakeServer(source.database)], source=source) as following:
            await trio.sleep(60)
            assert following.manager.target == source.root
        assert_same(copy, source.database)


async def test_a_target_that_no_peer_has_is_waited_for_and_ends_nothing(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with follow(copy, [server], b"?" * 32, source=source) as following:
            await trio.sleep(600)
            assert following.status() is SyncStatus.NO_PEER_KNOWS_TARGET
            assert following.progress.peers[0].state is PeerState.LACKING
            assert "unknown root" in following.progress.peers[0].reason
            following.manager.update_target(source.root)
            await trio.sleep(1)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, source.database)
    assert server.connections == 1
    assert len(server.requests) < 60, "it is asked again now and then, no more"


async def test_a_peer_that_announces_the_target_is_asked_for_it_at_once(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy, new_database() as empty:
        server = FakeServer(empty)
        async with follow(copy, [server], source.root, source=source) as following:
            await trio.sleep(10)
            assert following.status() is SyncStatus.NO_PEER_KNOWS_TARGET
            server.database = source.database
            await server.announce()
            await trio.sleep(2)
            assert copy.root == source.root


async def test_a_target_that_is_pruned_while_it_is_fetched_is_given_up_for_the_next(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(300), history=1) as source, new_database() as copy:
        server = ScriptedServer(source.database, fake_servers.after(0.1))
        async with follow(copy, [server], source.root, source=source) as following:
            await trio.sleep(1)
            source.change(3, random.Random(1))
            await trio.sleep(60)
            assert following.status() is SyncStatus.NO_PEER_KNOWS_TARGET
            assert "history gone" in following.progress.peers[0].reason
            keys = following.progress.keys
            following.manager.update_target(source.root)
            await trio.sleep(60)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, source.database)
    assert keys > 0


# Heads that are announced.


async def test_each_announced_head_of_a_trusted_peer_is_followed_under_its_own_number(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with follow(copy, [server], source=source, trust_peers=True) as following:
            assert copy.root == source.root
            for seed in range(5):
                await commit_and_announce(source, server, seed)
                await trio.sleep(1)
                assert copy.root == source.root
            assert copy.revision == source.database.revision == 6
        assert_same(copy, source.database)
    assert [each.root for each in following.reached] == source.roots[1:]
    assert [each.revision for each in following.reached] == [1, 2, 3, 4, 5, 6]
    assert server.keys_sent == 200
    assert server.connections == 1


async def test_the_highest_revision_of_several_peers_wins(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(100)) as source, new_source(some_pairs(10, seed=2)) as other:
        for seed in range(3):
            source.change(5, random.Random(seed))
        with new_database() as copy:
            servers = [FakeServer(other.database, "behind"), FakeServer(source.database, "ahead")]
            async with follow(copy, [*servers], trust_peers=True) as following:
                await trio.sleep(10)
                assert copy.root == source.root
                await commit_and_announce(other, servers[0], 1)
                await trio.sleep(10)
                assert copy.root == source.root
                assert following.status() is SyncStatus.IN_SYNC


async def test_a_peer_that_lost_everything_changes_nothing_here(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy, new_source({b"a": b"b"}) as other:
        for seed in range(5):
            source.change(5, random.Random(seed))
        server = FakeServer(source.database)
        async with follow(copy, [server], source=source, trust_peers=True) as following:
            for lost in (other.database, None):
                with new_database() as empty:
                    server.database = lost or empty
                    await server.announce()
                    await trio.sleep(60)
                    assert following.status() is SyncStatus.PEERS_BEHIND
                    assert copy.root == source.root
            server.database = source.database
            await commit_and_announce(source, server, 9)
            await trio.sleep(1)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, source.database)


class Incomplete(FakeServer):
    """Has no complete root, as long as it is so."""

    is_incomplete = True

    def head(self, request_id: int) -> Head:
        return Head(request_id, None, 0, 0) if self.is_incomplete else super().head(request_id)


async def test_a_peer_without_a_complete_root_is_waited_for(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = Incomplete(source.database)
        async with follow(copy, [server], source=source, trust_peers=True) as following:
            await trio.sleep(600)
            assert following.status() is SyncStatus.NO_TARGET
            server.is_incomplete = False
            await server.announce()
            await trio.sleep(1)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, source.database)
    assert server.connections == 1


async def test_a_run_that_trusts_peers_copies_the_newest_head(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        async with trio.open_nursery() as nursery:
            peers = [FakeServer(source.database).peer(nursery)]
            manager = Manager(copy, peers, trust_peers=True, executor=InEventLoop())
            progress = await manager.run()
            nursery.cancel_scope.cancel()
        assert_same(copy, source.database)
    assert progress.target == source.root


async def test_a_run_that_trusts_peers_of_which_none_has_a_root_is_a_typed_error(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        async with trio.open_nursery() as nursery:
            peers = [Incomplete(source.database).peer(nursery)]
            manager = Manager(copy, peers, trust_peers=True, executor=InEventLoop())
            with pytest.raises(NoPeersLeft, match="no complete root to show yet") as caught:
                await manager.run()
            nursery.cancel_scope.cancel()
        assert isinstance(caught.value.failures[0].error, PeerNotReady)


class Boasting(FakeServer):
    """Announces a root that nobody has, under a high number."""

    def head(self, request_id: int) -> Head:
        return Head(request_id, b"?" * 32, 1000, 7)


@pytest.mark.parametrize("late", ["boaster", "honest", "nobody"])
async def test_a_trusted_peer_that_does_not_have_what_it_announces_does_not_keep_us_from_the_others(
    late: str, autojump_clock: MockClock
) -> None:
    class Late(FakeServer):
        async def open_stream(self) -> trio.abc.Stream:
            await trio.sleep(5 if self.name == late else 0)
            return await super().open_stream()

    class LateBoaster(Late, Boasting):
        pass

    with new_source(some_pairs(100)) as source, new_database() as copy:
        boaster, honest = LateBoaster(source.database, "boaster"), Late(source.database, "honest")
        async with follow(copy, [boaster, honest], source=source, trust_peers=True) as following:
            await trio.sleep(120)
            assert copy.root == source.root
            assert following.status() is SyncStatus.IN_SYNC
            for seed in range(3):
                await commit_and_announce(source, honest, seed)
                await trio.sleep(120)
                assert copy.root == source.root
                assert following.status() is SyncStatus.IN_SYNC


async def test_a_source_that_was_set_back_while_we_were_on_the_way_to_its_head_is_followed_there(
    autojump_clock: MockClock,
) -> None:
    pairs = some_pairs(300)
    with new_source(pairs) as source, new_source(pairs) as restored, new_database() as copy:
        for seed in range(4):
            source.change(5, random.Random(seed))
            if seed < 2:
                restored.change(5, random.Random(seed))
        assert restored.root in source.contents
        server = ScriptedServer(source.database, fake_servers.after(1.0))
        async with follow(copy, [server], source=source, trust_peers=True) as following:
            await trio.sleep(3)
            assert following.status() is SyncStatus.FIRST_COPY
            server.database = restored.database
            await server.announce()
            await trio.sleep(600)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, restored.database)


# A head is a root and a number.


async def test_a_root_that_comes_back_under_a_higher_number_is_taken_over_with_it(
    autojump_clock: MockClock,
) -> None:
    """A, B, A at the source, of which the replica hears the first and the last."""
    with new_source({b"a": b"1"}) as source, new_database() as copy, new_source({b"a": b"1"}) as older:
        older.commit({b"a": b"2"})
        async with follow(copy, [FakeServer(source.database)], trust_peers=True):
            await trio.sleep(1)
        source.commit({b"a": b"2"})
        source.commit({b"a": b"1"})
        async with follow(copy, [FakeServer(source.database)], trust_peers=True) as following:
            await trio.sleep(1)
            assert following.reached == [Reached(source.root, 3, 1)]
            assert following.status() is SyncStatus.IN_SYNC
        revisions = [(each.number, each.root) for each in copy.revisions()]
        assert revisions == [(3, source.root), (1, source.root)]
        # Another life, and a peer at the revision in between.
        async with follow(copy, [FakeServer(older.database)], trust_peers=True) as following:
            await trio.sleep(60)
            assert following.status() is SyncStatus.PEERS_BEHIND
        assert (copy.root, copy.revision) == (source.root, 3)
        copy.check()


async def test_a_replica_of_a_replica_hears_of_a_root_that_came_back(autojump_clock: MockClock) -> None:
    with new_source({b"a": b"1"}) as source, new_database() as middle, new_database() as last:
        server, relay = FakeServer(source.database), FakeServer(middle)
        async with (
            follow(middle, [server], trust_peers=True) as first,
            follow(last, [relay], trust_peers=True) as second,
        ):
            await trio.sleep(1)
            await relay.announce()
            await trio.sleep(1)
            source.commit({b"a": b"2"})
            source.commit({b"a": b"1"})
            await server.announce()
            await trio.sleep(1)
            await relay.announce()
            await trio.sleep(1)
        assert first.reached[-1] == second.reached[-1] == Reached(source.root, 3, 1)
        assert (last.root, last.revision) == (middle.root, middle.revision) == (source.root, 3)


@pytest.mark.parametrize("revision", [None, 1, 3, 9])
async def test_a_named_target_that_is_here_already_takes_its_number_over(
    revision: int | None, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(5)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        async with trio.open_nursery() as nursery:
            manager = Manager(copy, [FakeServer(source.database).peer(nursery)], executor=InEventLoop())
            manager.update_target(source.root, revision)
            progress = await manager.run()
            assert manager.is_at_target
            nursery.cancel_scope.cancel()
        assert (progress.root, progress.revision) == (source.root, max(revision or 0, 1))
        assert copy.revision == progress.revision


async def test_content_that_was_written_here_keeps_its_own_number(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(5)) as source, new_database(some_pairs(5)) as copy:
        async with trio.open_nursery() as nursery:
            manager = Manager(copy, [FakeServer(source.database).peer(nursery)], executor=InEventLoop())
            manager.update_target(source.root, 9)
            await manager.run()
            nursery.cancel_scope.cancel()
        assert (copy.root, copy.revision, copy.written_locally) == (source.root, 1, True)


async def test_the_head_goes_back_to_a_root_that_came_back_while_another_is_fetched(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy:
        head = source.root
        await sync_from([FakeServer(source.database)], head, copy)
        source.change(200, random.Random(1))
        slow = ScriptedServer(source.database, fake_servers.after(1.0))
        limits = Limits(max_keys=16, max_changes=16, transaction_seconds=0.1)
        async with follow(copy, [slow], source.root, limits=limits) as following:
            await trio.sleep(5)
            assert copy.catching_up
            following.manager.update_target(head, 3)
            await trio.sleep(600)
            assert following.manager.is_at_target
        assert (copy.root, copy.revision) == (head, 3)
        copy.check()


# What the situation is said to be follows from what peers announce.


class PruningAhead(FakeServer):
    """Announces heads that it has pruned before anybody can ask for them."""

    def head(self, request_id: int) -> Head:
        said = 1000 + len(self.requests)
        return Head(request_id, said.to_bytes(32), said, 7)


async def test_a_newer_head_that_is_always_pruned_before_it_is_fetched_is_not_in_sync(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        server = PruningAhead(source.database)
        seen: list[SyncStatus] = []
        async with follow(copy, [server], trust_peers=True) as following:
            for _ in range(100):
                await trio.sleep(1)
                await server.announce()
                seen.append(following.status())
            assert following.reached == []
        assert SyncStatus.IN_SYNC not in seen
        assert SyncStatus.NO_PEER_KNOWS_TARGET in seen
        assert copy.root == source.root
        assert len(server.requests) < 100, "a peer that is asked in vain is asked less often"


@pytest.mark.parametrize("commits", [1, 2, 3])
async def test_the_only_peer_that_lost_everything_and_began_again_has_diverged(
    commits: int, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy, new_source({b"new": b"1"}) as again:
        for seed in range(2):
            source.change(5, random.Random(seed))
        server = FakeServer(source.database)
        async with follow(copy, [server], trust_peers=True) as following:
            await trio.sleep(1)
        # A life after which the revisions are known from the store alone, or from those that were reached.
        for number in range(1, commits):
            again.commit({b"new": bytes([number])})
        server.database = again.database
        async with follow(copy, [server], trust_peers=True) as following:
            await trio.sleep(60)
            expected = SyncStatus.PEERS_BEHIND if commits < 3 else SyncStatus.DIVERGED
            assert following.status() is expected
            assert copy.root == source.root
            server.database = source.database
            for seed in range(2):
                await commit_and_announce(source, server, seed + 7)
                await trio.sleep(1)
            assert following.status() is SyncStatus.IN_SYNC
            # Below our number by now, under one of which we know what was here.
            for number in range(commits, 4):
                again.commit({b"new": bytes([number])})
            server.database = again.database
            await server.announce()
            await trio.sleep(60)
            assert following.status() is SyncStatus.DIVERGED
            assert copy.root == source.root
            again.commit({b"new": b"5"})
            again.commit({b"new": b"6"})
            await server.announce()
            await trio.sleep(60)
            # Trusted for which root is the newest, it is followed as soon as it is ahead.
            assert copy.root == again.root
            assert following.status() is SyncStatus.IN_SYNC


# Announcers that lie.


class Silent(Boasting):
    """Announces a root that nobody has, and says nothing when it is asked for it."""

    async def answer(self, conversation: fake_servers.ClientConnection, request: fake_servers.Asked) -> None:
        del conversation
        self.requests.append(request)


class Renewing(Silent):
    """Announces another root that nobody has each time that it says anything."""

    said = 0

    def head(self, request_id: int) -> Head:
        self.said += 1
        return Head(request_id, self.said.to_bytes(32), 1000 + self.said, 7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Silent, Renewing])
async def test_who_announces_what_it_never_shows_does_not_keep_us_from_the_honest_for_long(
    kind: type[FakeServer], autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(100)) as source, new_database() as copy:
        liar, honest = kind(source.database, "liar"), FakeServer(source.database, "honest")

        async def boast() -> None:
            while True:
                await trio.sleep(0.5)
                await liar.announce()

        async with (
            follow(copy, [liar, honest], trust_peers=True) as following,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(boast)
            await trio.sleep(Limits().unproven_seconds + 10)
            assert copy.root == source.root
            for seed in range(20):
                await commit_and_announce(source, honest, seed)
                await trio.sleep(Limits().unproven_seconds + 10 if seed < 3 else 5)
                assert copy.root == source.root
                if seed > 3:
                    assert following.status() is SyncStatus.IN_SYNC
            nursery.cancel_scope.cancel()
    assert [each.root for each in following.reached] == source.roots[1:]


async def test_a_run_does_not_report_a_head_that_nobody_has_as_reached(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        async with trio.open_nursery() as nursery:
            boaster, honest = Boasting(source.database, "boaster"), FakeServer(source.database, "honest")
            alone = Manager(copy, [boaster.peer(nursery)], trust_peers=True, executor=InEventLoop())
            with pytest.raises(TargetGone):
                await alone.run()
            source.change(5, random.Random(1))
            both = [boaster.peer(nursery), honest.peer(nursery)]
            for _ in range(2):
                manager = Manager(copy, both, trust_peers=True, executor=InEventLoop())
                progress = await manager.run()
                assert progress.root == progress.target == source.root
            nursery.cancel_scope.cancel()


# A machine that has no room.


class Full:
    """A processor with a disk that is full as long as it is so.

    Attributes:
        is_full: Whether it is.
        attempts: How often something was to be written meanwhile.
    """

    def __init__(self, copy: Database) -> None:
        self.is_full = False
        self.attempts = 0
        store: Any = copy._store
        write = store.write

        @contextmanager
        def watched() -> Iterator[Any]:
            with write() as transaction:
                yield transaction
                self.attempts += self.is_full
                if self.is_full:
                    raise DatabaseFull(str(copy.path), "No space left on device")

        store.write = watched


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["at the start", "before a copy", "on the way", "before a number"])
async def test_following_outlasts_a_disk_that_is_full(
    moment: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with new_source(some_pairs(300)) as source, new_database() as copy:
        disk, server = Full(copy), ScriptedServer(source.database, fake_servers.after(0.2))
        if moment != "before a copy":
            await sync_from([FakeServer(source.database)], source.root, copy)
        shown = copy.root
        if moment == "at the start":
            source.change(200, random.Random(1))
            await sync_in_part(source.database, copy, FakeServer(source.database), 20)
            assert copy.catching_up
            copy.set_progress(b"no progress")
        elif moment == "before a number":
            source.commit({b"extra": b"1"})
            source.commit({b"extra": None})
        elif moment == "on the way":
            source.change(200, random.Random(1))
        limits = Limits(max_keys=16, max_changes=16, transaction_seconds=0.1)
        disk.is_full = moment != "on the way"
        async with follow(copy, [server], trust_peers=True, limits=limits) as following:
            await trio.sleep(1)
            assert moment != "on the way" or copy.catching_up
            disk.is_full = True
            await trio.sleep(3600)
            assert following.status() is SyncStatus.NO_ROOM
            assert "No space left on device" in following.progress.reason
            assert copy.head is None or copy.root == shown
            assert 10 < disk.attempts < 300, "it is tried again, and not all the time"
            said = [record.getMessage() for record in caplog.records if "is full" in record.getMessage()]
            assert said[-1] == (
                f"nothing can be written, which is tried again until it can: {copy.path} is full "
                "(No space left on device): the last change was not kept, those before it are; make room, "
                "then try again"
            )
            requests = len(server.requests)
            disk.is_full = False
            await trio.sleep(60)
            assert following.status() is SyncStatus.IN_SYNC
            assert following.progress.reason == ""
            await trio.sleep(600)
        assert (copy.root, copy.revision) == (source.root, source.database.revision)
        copy.check()
    if moment == "before a copy":
        assert requests >= 300 // 16, "what was fetched meanwhile waits"
        assert server.keys_sent == 300, "and is not fetched again"


async def test_stale_changes_are_rolled_back_again_where_the_disk_was_full(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        await sync_from([FakeServer(source.database)], source.root, copy)
        source.change(100, random.Random(1))
        apply, roll_back, attempts = copy.apply, copy.roll_back, list[int]()

        def apply_what_is_not_stale(verified: Any, **others: Any) -> bytes:
            if copy.catching_up and len(attempts) < 3:
                raise StaleChanges(None)
            return apply(verified, **others)

        def roll_back_when_there_is_room() -> None:
            attempts.append(1)
            if len(attempts) < 3:
                raise DatabaseFull(str(copy.path), "No space left on device")
            roll_back()

        monkeypatch.setattr(copy, "apply", apply_what_is_not_stale)
        monkeypatch.setattr(copy, "roll_back", roll_back_when_there_is_room)
        limits = Limits(max_keys=16, max_changes=16, transaction_bytes=1)
        async with follow(copy, [FakeServer(source.database)], trust_peers=True, limits=limits) as following:
            await trio.sleep(60)
            assert len(attempts) == 3
            assert following.status() is SyncStatus.IN_SYNC
        assert copy.root == source.root
        copy.check()


async def test_a_run_ends_with_the_error_where_the_disk_is_full(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        Full(copy).is_full = True
        with pytest.raises(DatabaseFull, match="No space left on device"):
            await sync_from([FakeServer(source.database)], source.root, copy)


# Peers that come and go.


async def test_following_outlasts_an_outage_of_all_peers(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(200)) as source, new_database() as copy:
        server = FakeServer(source.database)
        is_down = False

        async def open_stream() -> trio.abc.Stream:
            if is_down:
                raise ConnectionRefusedError("connection refused")
            return await server.open_stream()

        async with trio.open_nursery() as nursery:
            server.peer(nursery)
            async with follow(copy, [Peer("peer", open_stream)], trust_peers=True) as following:
                assert following.status() is SyncStatus.IN_SYNC
                is_down = True
                for conversation, _ in list(server.subscribers):
                    await conversation.stream.aclose()
                await trio.sleep(3600)
                assert following.status() is SyncStatus.NO_PEER_REACHABLE
                assert copy.root == source.root
                source.change(5, random.Random(1))
                is_down = False
                await trio.sleep(60)
                assert following.status() is SyncStatus.IN_SYNC
                assert following.progress.peers[0].reason == ""
            nursery.cancel_scope.cancel()
        assert_same(copy, source.database)


async def test_a_first_outage_is_outlasted_too(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(20)) as source, new_database() as copy:
        server = FakeServer(source.database)

        async def open_later() -> trio.abc.Stream:
            if trio.current_time() < 3600:
                raise ConnectionRefusedError("connection refused")
            return await server.open_stream()

        async with trio.open_nursery() as nursery:
            server.peer(nursery)
            async with follow(copy, [Peer("late", open_later)], source.root) as following:
                await trio.sleep(1800)
                assert following.status() is SyncStatus.NO_PEER_REACHABLE
                await trio.sleep(1900)
                assert following.status() is SyncStatus.IN_SYNC
            nursery.cancel_scope.cancel()


async def test_following_ends_when_every_peer_was_dropped(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with follow(copy, [ScriptedServer(source.database, fake_servers.no_pairs)], source.root):
                await trio.sleep(60)
        assert isinstance(lone_error(caught.value), VerificationFailed)


async def test_a_busy_peer_is_followed_all_the_same(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        busy = ScriptedServer(source.database, fake_servers.refuse(ErrorCode.OVERLOADED, 1000), times=3)
        async with follow(copy, [busy], source=source, trust_peers=True) as following:
            await trio.sleep(60)
            assert following.status() is SyncStatus.IN_SYNC


# Local commits.


async def test_a_local_commit_while_following_is_not_lost_unasked(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)

        async def commit_here_and_there() -> None:
            async with follow(copy, [server], trust_peers=True):
                copy.commit({b"mine": b"now"})
                await commit_and_announce(source, server, 1)
                await trio.sleep(10)

        with pytest.raises(BaseExceptionGroup) as caught:
            await commit_here_and_there()
        error = lone_error(caught.value)
        assert isinstance(error, LocalContent)
        assert error.root == copy.root
        assert copy[b"mine"] == b"now"


async def test_a_local_commit_while_following_is_replaced_where_that_is_allowed(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with follow(copy, [server], trust_peers=True, replace=True) as following:
            for seed in range(3):
                copy.commit(dict.fromkeys(list(source.contents[source.root])[:20], b"mine"))
                for _ in range(2):
                    await commit_and_announce(source, server, seed)
                    await trio.sleep(10)
                assert copy.root == source.root
                assert following.status() is SyncStatus.IN_SYNC
                assert following.progress.peers[0].state is PeerState.CONNECTED
        assert_same(copy, source.database)


async def test_a_number_that_was_given_here_keeps_no_trusted_peer_from_being_followed(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        for number in range(9):
            copy.commit({b"mine": bytes([number])})
        async with follow(copy, [FakeServer(source.database)], trust_peers=True, replace=True) as following:
            await trio.sleep(10)
            assert following.status() is SyncStatus.IN_SYNC
        assert_same(copy, source.database)


# Replicas of replicas.


async def test_a_replica_of_a_replica_follows_the_source_with_the_same_numbers(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(200)) as source, new_database() as middle, new_database() as last:
        server, relay = FakeServer(source.database, "source"), FakeServer(middle, "middle")

        async def announce_what_is_reached(following: Following) -> None:
            async for _ in following.manager.roots():
                await relay.announce()

        async with (
            follow(middle, [server], source=source, trust_peers=True) as first,
            follow(last, [relay], source=source, trust_peers=True) as second,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(announce_what_is_reached, first)
            for seed in range(5):
                await commit_and_announce(source, server, seed)
                await trio.sleep(1)
                assert last.root == middle.root == source.root
                assert last.revision == middle.revision == source.database.revision
            assert second.status() is SyncStatus.IN_SYNC
            nursery.cancel_scope.cancel()
        assert_same(last, source.database)


async def test_a_replica_serves_its_last_complete_root_while_it_catches_up(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(300)) as source, new_database() as middle, new_database() as last:
        await sync_from([FakeServer(source.database)], source.root, middle)
        source.change(250, random.Random(1))
        slow = ScriptedServer(source.database, fake_servers.after(5.0))
        limits = Limits(max_keys=16, max_changes=16, transaction_seconds=0.1)
        async with follow(middle, [slow], source=source, trust_peers=True, limits=limits):
            await trio.sleep(22)
            assert middle.catching_up
            await sync_from([FakeServer(middle)], source.roots[1], last)
            assert dict(last.items()) == source.contents[source.roots[1]]
            assert middle.catching_up


# The stream of roots.


async def test_a_slow_reader_of_roots_sees_the_newest_only(autojump_clock: MockClock) -> None:
    seen: list[int] = []

    async def read(manager: Manager) -> None:
        async for reached in manager.roots():
            seen.append(reached.revision)
            await trio.sleep(100)

    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)
        async with (
            follow(copy, [server], trust_peers=True) as following,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(read, following.manager)
            for seed in range(20):
                await trio.sleep(10)
                await commit_and_announce(source, server, seed)
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
    assert seen[-1] == 21
    assert len(seen) <= 4


async def test_the_stream_of_roots_ends_with_the_run(autojump_clock: MockClock) -> None:
    with new_source(some_pairs(50)) as source, new_database() as copy:
        async with trio.open_nursery() as nursery:
            manager = Manager(
                copy, [FakeServer(source.database).peer(nursery)], source.root, executor=InEventLoop()
            )
            roots, progress = manager.roots(), manager.watch()
            await manager.run()
            assert [each.root async for each in roots] == [source.root]
            assert [each.share async for each in progress] == [1.0]
            nursery.cancel_scope.cancel()


async def test_a_sync_that_cannot_begin_ends_its_streams(autojump_clock: MockClock) -> None:
    async def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError("connection refused")

    with new_database() as copy:
        manager = Manager(copy, [Peer("nobody", refuse)], EMPTY_ROOT[:-1] + b"x", executor=InEventLoop())
        roots = manager.roots()
        with pytest.raises(PeerUnreachable):
            await manager.run()
        assert [each async for each in roots] == []


async def test_a_root_that_a_peer_lacked_is_believed_when_it_comes_back(autojump_clock: MockClock) -> None:
    """A, B, A: the peer announced A, went on before it was asked, and returns to A under a higher number."""
    with new_source(some_pairs(50)) as source, new_database() as copy:
        server = FakeServer(source.database)
        first = source.root
        async with follow(copy, [server], trust_peers=True) as following:
            await trio.sleep(60)
            following.manager._sessions[0].known.disbelieve(first)
            for changes in ({b"extra": b"1"}, {b"extra": None}):
                source.database.commit(changes)
                await server.announce()
                await trio.sleep(60)
                assert copy.root == source.database.root
        assert (copy.root, copy.revision) == (first, source.database.revision)
