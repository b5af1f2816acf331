"""Syncs from honest servers: what arrives, what is resumed, what is refused, what is reported."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import merkledb
from manager import (
    Limits,
    LocalContent,
    Manager,
    PairTooLarge,
    PeerState,
    Progress,
    TargetGone,
)
from manager.scheduling.checkpoint import decode_checkpoint
from merkledb import (
    EMPTY_ROOT,
    Database,
    DatabaseFull,
    ReadonlyDatabase,
    Scheme,
    SyncUnfinished,
    VerifiedRange,
)
from tests.support.databases import new_database
from tests.support.fake_servers import Asked, ClientConnection, FakeServer, InEventLoop
from tests.support.merkledb_strategies import contents, schemes
from tests.support.syncing import SMALL, applied_keys, assert_same, some_pairs, sync_from, sync_in_part
from tests.support.thoroughness import amount


async def sync_honestly(
    source: Database, database: Database, limits: Limits = SMALL, *, replace: bool = False
) -> Progress:
    """Sync from one honest server of ``source``."""
    return await sync_from([FakeServer(source)], source.root, database, limits, replace=replace)


async def test_an_empty_database_becomes_the_copy(autojump_clock: MockClock) -> None:
    pairs = some_pairs(500)
    with new_database(pairs) as source, new_database() as database:
        server = FakeServer(source)
        progress = await sync_from([server], source.root, database)
        assert_same(database, source)
    assert progress.keys == 500
    assert progress.share == 1.0
    assert progress.seconds_left == 0.0
    assert server.keys_sent == 500, "every pair is sent once"


async def test_a_sync_works_in_real_threads() -> None:
    with new_database(some_pairs(2000)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            manager = Manager(database, [FakeServer(source).peer(nursery)], source.root, limits=SMALL)
            await manager.run()
            nursery.cancel_scope.cancel()
        assert_same(database, source)


@settings(max_examples=amount(30, soak=2_000))
@given(contents(), contents(), schemes(), st.integers(1, 5), st.integers(1, 3))
def test_any_database_ends_with_exactly_the_targets_content(
    pairs: dict[bytes, bytes], others: dict[bytes, bytes], scheme: Scheme, max_keys: int, servers: int
) -> None:
    async def main() -> None:
        honest = [FakeServer(source, f"peer {number}") for number in range(servers)]
        await sync_from(honest, source.root, database, Limits(max_keys=max_keys), replace=True)

    with new_database(pairs, scheme) as source, new_database(others, scheme) as database:
        trio.run(main, clock=MockClock(autojump_threshold=0))
        assert_same(database, source) if pairs != others else None
        assert dict(database.items()) == pairs


async def test_content_written_locally_is_not_replaced_unless_allowed(autojump_clock: MockClock) -> None:
    mine = some_pairs(20, seed=2)
    with new_database(some_pairs(50)) as source, new_database(mine) as database:
        with pytest.raises(LocalContent) as caught:
            await sync_honestly(source, database)
        assert caught.value.root == database.root
        assert dict(database.items()) == mine
        await sync_honestly(source, database, replace=True)
        assert_same(database, source)


async def test_a_copy_of_another_root_is_replaced_without_asking(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        await sync_honestly(source, database)
        source.commit({b"new": b"pair"})
        await sync_honestly(source, database)
        assert_same(database, source)


async def test_the_copy_of_an_empty_store_is_empty(autojump_clock: MockClock) -> None:
    with new_database() as source, new_database(some_pairs(20)) as database:
        await sync_honestly(source, database, replace=True)
        assert database.root == EMPTY_ROOT
        assert_same(database, source)


async def test_a_database_at_the_target_is_done_without_asking_anybody(autojump_clock: MockClock) -> None:
    pairs = some_pairs(50)
    with new_database(pairs) as source, new_database(pairs) as database:
        server = FakeServer(source)
        progress = await sync_from([server], source.root, database)
        assert progress.share == 1.0
        assert server.connections == 0
        assert database.written_locally, "what was written here stays protected from later syncs"


async def test_a_database_at_the_target_forgets_progress_to_elsewhere(autojump_clock: MockClock) -> None:
    pairs = some_pairs(50)
    with new_database(pairs) as source, new_database(pairs) as database:
        database.set_progress(b"towards another root")
        await sync_honestly(source, database)
        assert database.progress is None


async def test_several_peers_share_the_work(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        progress = await sync_from([FakeServer(source) for _ in range(3)], source.root, database)
        assert_same(database, source)
    assert [peer.state for peer in progress.peers] == [PeerState.CONNECTED] * 3
    assert all(peer.keys > 100 for peer in progress.peers)
    assert sum(peer.keys for peer in progress.peers) == 1000


async def test_no_more_requests_are_in_flight_than_the_limit(autojump_clock: MockClock) -> None:
    class Counting(FakeServer):
        most = 0

        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            Counting.most = max(Counting.most, conversation.connection.in_flight)
            await trio.sleep(0.1)
            await super().answer(conversation, request)

    with new_database(some_pairs(500)) as source, new_database() as database:
        await sync_from([Counting(source)], source.root, database, Limits(max_keys=16, requests_per_peer=3))
    assert Counting.most == 3


async def test_a_peer_that_takes_one_request_at_a_time_gets_one(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = FakeServer(source)
        server.max_requests = 1
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.connections == 1


async def test_work_goes_from_left_to_right_in_few_ranges(autojump_clock: MockClock) -> None:
    sizes: list[int] = []

    class Looking(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if database.progress is not None:
                sizes.append(len(decode_checkpoint(database.progress, database.scheme.max_key_bytes).ranges))
            await super().answer(conversation, request)

    limits = Limits(max_keys=16, transaction_bytes=1000)
    with new_database(some_pairs(2000)) as source, new_database() as database:
        await sync_from([Looking(source)], source.root, database, limits)
    assert len(sizes) > 100
    assert max(sizes) <= 10


async def test_many_proofs_are_applied_in_one_transaction(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        applied: list[int] = []
        apply = database.apply

        def counting(verified: Sequence[VerifiedRange], **others: Any) -> bytes:
            applied.append(len(verified))
            return apply(verified, **others)

        monkeypatch.setattr(database, "apply", counting)
        server = FakeServer(source)
        await sync_from([server], source.root, database)
        assert sum(applied) == len(server.requests)
        assert len(applied) < len(server.requests) / 10


async def test_a_sync_with_hardly_any_memory_still_ends(autojump_clock: MockClock) -> None:
    tight = Limits(max_keys=8, max_bytes=4096, buffered_bytes=10_000, transaction_bytes=5000)
    with new_database(some_pairs(300)) as source, new_database() as database:
        await sync_from([FakeServer(source) for _ in range(3)], source.root, database, tight)
        assert_same(database, source)


# Large pairs.


async def test_pairs_above_the_usual_proof_are_fetched_one_by_one(autojump_clock: MockClock) -> None:
    large = {bytes([byte]) * 4: bytes([byte]) * 50_000 for byte in range(0, 250, 50)}
    with new_database(some_pairs(200) | large) as source, new_database() as database:
        await sync_honestly(source, database, Limits(max_keys=32, max_bytes=20_000))
        assert_same(database, source)


async def test_a_pair_above_the_hard_cap_is_a_typed_error_and_the_rest_is_kept(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(200) | {b"\xff": bytes(60_000)}) as source, new_database() as database:
        limits = Limits(max_keys=16, max_bytes=20_000, max_proof_bytes=40_000, transaction_seconds=0.001)
        with pytest.raises(PairTooLarge) as caught:
            await sync_honestly(source, database, limits)
        assert caught.value.needed_bytes > 60_000
        assert caught.value.max_bytes == 40_000
        server = FakeServer(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)


async def test_a_pair_that_one_peer_does_not_send_is_fetched_from_another(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(50) | {b"\x00": bytes(60_000)}) as source, new_database() as database:
        narrow, wide = FakeServer(source, "narrow"), FakeServer(source, "wide")
        narrow.max_bytes = 30_000
        async with trio.open_nursery() as nursery:
            peers = [narrow.peer(nursery), wide.peer(nursery)]
            manager = Manager(database, peers, source.root, limits=SMALL, executor=InEventLoop())
            progress = await manager.run()
            nursery.cancel_scope.cancel()
        assert_same(database, source)
    assert progress.peers[0].state in (PeerState.BANNED, PeerState.CONNECTED)


# Resuming.


async def test_a_cancelled_sync_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(1000)) as source, new_database() as database:
        server = FakeServer(source)
        await sync_in_part(source, database, server, 600)
        applied = applied_keys(database)
        again = FakeServer(source)
        progress = await sync_from([again], source.root, database)
        assert_same(database, source)
    assert applied >= 600
    assert again.keys_sent == 1000 - applied, "what was applied is not fetched again"
    assert progress.keys == 1000


async def test_a_first_sync_whose_progress_is_damaged_starts_anew(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:
        await sync_in_part(source, database, FakeServer(source), 100)
        database.set_progress(b"\xc1 damaged")
        server = FakeServer(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.keys_sent == 300


async def test_a_sync_whose_progress_is_damaged_starts_from_the_last_head(autojump_clock: MockClock) -> None:
    pairs = some_pairs(300)
    with new_database(pairs) as source, new_database() as database:
        await sync_honestly(source, database)
        source.commit(dict.fromkeys(pairs, b"new"))
        await sync_in_part(source, database, FakeServer(source), 0)
        database.set_progress(b"\xc1 damaged")
        server = FakeServer(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.changes_sent == 300
    assert server.keys_sent == 0


async def test_a_sync_to_another_target_uses_what_the_old_one_had_fetched(autojump_clock: MockClock) -> None:
    pairs = some_pairs(300)
    with new_database(pairs) as source, new_database() as database:
        await sync_in_part(source, database, FakeServer(source), 100)
        applied = applied_keys(database)
        source.commit(dict.fromkeys(list(pairs)[:50], b"new"))
        server = FakeServer(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.keys_sent == 300 - applied
    assert 0 < server.changes_sent <= 50


async def test_a_local_commit_has_to_wait_for_the_end_of_a_sync(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:
        await sync_in_part(source, database, FakeServer(source), 100)
        with pytest.raises(SyncUnfinished):
            database.commit({b"mine": b"now"})
        await sync_honestly(source, database)
        assert_same(database, source)


@pytest.mark.parametrize("replace", [False, True])
async def test_a_local_commit_before_the_first_transaction_is_not_lost_unasked(
    replace: bool, autojump_clock: MockClock
) -> None:
    class Meddling(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if len(self.requests) == 2:
                database.commit({b"mine": b"now"})
            await super().answer(conversation, request)

    with new_database(some_pairs(600)) as source, new_database() as database:
        if replace:
            await sync_from([Meddling(source)], source.root, database, replace=True)
            assert_same(database, source)
        else:
            with pytest.raises(LocalContent):
                await sync_from([Meddling(source)], source.root, database)
            assert dict(database.items()) == {b"mine": b"now"}


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when trio has run so many steps of tasks."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_sync_cancelled_at_any_step_resumes_to_the_target(seed: int) -> None:
    source_of_steps = random.Random(seed)
    limits = Limits(max_keys=8, transaction_bytes=4000)

    async def main() -> None:
        scope = trio.CancelScope()
        instrument = CancelAtStep(scope, source_of_steps.randrange(1, 500))
        trio.lowlevel.add_instrument(instrument)
        with scope:
            await sync_honestly(source, database, limits)
        trio.lowlevel.remove_instrument(instrument)

    with new_database(some_pairs(300)) as source, new_database() as database:
        for _ in range(100):
            trio.run(main, clock=MockClock(autojump_threshold=0))
            database.check()
            if not database.catching_up and database.root == source.root:
                break
        assert_same(database, source)


# What the database itself refuses.


async def test_a_full_disk_is_the_databases_own_error_and_what_was_applied_stays(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    with new_database(some_pairs(3000)) as source:
        limits = Limits(max_keys=64, transaction_bytes=20_000)
        with merkledb.open(tmp_path / "store", map_bytes=300_000) as database:
            with pytest.raises(DatabaseFull):
                await sync_honestly(source, database, limits)
            database.check()
        with merkledb.open(tmp_path / "store") as database:
            applied = applied_keys(database)
            server = FakeServer(source)
            await sync_from([server], source.root, database)
            assert_same(database, source)
    assert applied > 0
    assert server.keys_sent == 3000 - applied


async def test_a_database_open_for_reading_cannot_be_synced(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    with merkledb.open(tmp_path / "store"):
        pass
    with (
        new_database(some_pairs(10)) as source,
        merkledb.open(tmp_path / "store", readonly=True) as database,
        pytest.raises(ReadonlyDatabase),
    ):
        await sync_honestly(source, database)


async def test_a_target_that_the_only_peer_does_not_have_is_a_typed_error(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(10)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            peers = [FakeServer(source, "behind").peer(nursery)]
            manager = Manager(database, peers, b"x" * 32, executor=InEventLoop())
            with pytest.raises(TargetGone, match="behind: unknown root") as caught:
                await manager.run()
            nursery.cancel_scope.cancel()
    assert [failure.peer for failure in caught.value.failures] == ["behind"]


# The caller's mistakes.


def test_a_sync_needs_a_peer_and_a_root() -> None:
    with new_database() as database:
        with pytest.raises(ValueError, match="at least one peer"):
            Manager(database, [], bytes(32))
        with pytest.raises(ValueError, match="a root has 32 bytes, the target has 3"):
            Manager(database, ["localhost:9400"], b"abc")
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            Manager(database, ["localhost"], bytes(32))


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="max_keys must be positive, not 0"):
        Limits(max_keys=0)
    with pytest.raises(ValueError, match="max_proof_bytes must be at least max_bytes"):
        Limits(max_bytes=20, max_proof_bytes=10)
    with pytest.raises(ValueError, match="more than a proof holds"):
        Limits(max_keys=1 << 20)
