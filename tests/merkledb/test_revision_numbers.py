"""The numbers of revisions: what no honest store reaches is refused wherever it comes from."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import merkledb
from manager import HeadImplausible, Manager, NoPeersLeft, PeerState, SyncStatus
from manager.peers.address import Address
from manager.peers.probe import ProbeResult
from merkledb import MAX_FOREIGN_REVISION, MAX_NAMED_REVISION, MAX_REVISION, Database
from merkledb.history.revisions import put_revision, read_revision
from merklesync.commands.sync import _target_of_first_peer
from merklesync.errors import CommandError, ExitCode
from merklesync.following.root_source import parse_target
from merklesync.following.status_text import describe_peer_relation
from merklesync.following.store_status import StoreStatus, sync_status_of
from syncproto import Head, messages
from tests.manager.test_following import follow
from tests.support.databases import new_database
from tests.support.fake_servers import FakeServer, InEventLoop
from tests.support.moving_source import new_source
from tests.support.syncing import some_pairs

PAIRS = {b"a": b"1", b"b": b"2"}


def apply_as(database: Database, revision: int) -> None:
    """Copy ``PAIRS`` with one key more into a database, as a revision of that number."""
    with new_database({**PAIRS, b"c": b"%d" % revision}) as source:
        verified = merkledb.verify_range(source.prove_range(), source.root)
        database.apply(verified, revision=revision)


def test_a_number_that_no_honest_store_reaches_is_refused_before_anything_is_written() -> None:
    with new_database() as database:
        for number in (MAX_FOREIGN_REVISION + 1, MAX_REVISION, 2**64 - 1, 2**200):
            with pytest.raises(merkledb.RevisionTooHigh) as caught:
                apply_as(database, number)
            assert (caught.value.number, caught.value.limit) == (number, MAX_FOREIGN_REVISION)
        with pytest.raises(ValueError, match="at least 0"):
            apply_as(database, -1)
        with pytest.raises(TypeError, match="is a whole number, not float"):
            apply_as(database, 1.5)  # type: ignore[arg-type]  # the wrong type is what is tested
        assert database.revision == 0
        assert not database.catching_up


def test_whoever_believed_the_highest_number_goes_on_for_ever() -> None:
    with new_database() as database:
        apply_as(database, MAX_FOREIGN_REVISION)
        assert database.revision == MAX_FOREIGN_REVISION
        database.commit({b"d": b"4"})
        apply_as(database, 7)
        assert database.revision == MAX_FOREIGN_REVISION + 2
    assert MAX_REVISION - MAX_FOREIGN_REVISION > 2**61


def set_number(database: Database, number: int) -> None:
    """Give the head another number, as only damage does."""
    with database._write() as write:
        sequence = write.tip.newest
        revision, top = read_revision(write.transaction, sequence)
        put_revision(write.transaction, sequence, revision._replace(number=number), top)


def test_a_commit_above_the_highest_number_is_refused_and_nothing_is_written() -> None:
    with new_database(PAIRS) as database:
        set_number(database, MAX_REVISION)
        root = database.root
        with pytest.raises(merkledb.RevisionTooHigh):
            database.commit({b"more": b""})
        assert (database.root, dict(database.items())) == (root, PAIRS)
        database.check()


def test_a_number_on_disk_that_no_store_writes_is_damage() -> None:
    with new_database(PAIRS) as database:
        set_number(database, MAX_REVISION + 1)
        with pytest.raises(merkledb.CorruptDatabase, match="above"):
            _ = database.head


def test_store_and_wire_have_the_same_highest_number() -> None:
    assert messages.MAX_REVISION == MAX_REVISION


def test_a_target_with_a_number_that_no_honest_store_reaches_is_refused() -> None:
    root = b"\7" * 32
    assert parse_target(f"{root.hex()} {MAX_NAMED_REVISION}").revision == MAX_NAMED_REVISION
    with pytest.raises(ValueError, match="no honest store"):
        parse_target(f"{root.hex()} {MAX_NAMED_REVISION + 1}")
    with new_database() as database:
        manager = Manager(database, [("127.0.0.1", 1)])
        manager.update_target(root, MAX_NAMED_REVISION)
        with pytest.raises(merkledb.RevisionTooHigh):
            manager.update_target(root, MAX_NAMED_REVISION + 1)
        with pytest.raises(ValueError, match="at least 0"):
            manager.update_target(root, -1)


class Exaggerating(FakeServer):
    """Announces its head under a number that no honest store reaches, from some moment on."""

    lies = True

    def head(self, request_id: int) -> Head:
        head = super().head(request_id)
        return replace(head, revision=MAX_FOREIGN_REVISION + 1) if self.lies else head


@pytest.mark.parametrize("late", [False, True])
async def test_a_trusted_peer_with_an_implausible_number_is_dropped_and_honest_ones_are_followed(
    autojump_clock: MockClock, late: bool
) -> None:
    with new_source(some_pairs(50)) as honest, new_source(some_pairs(5, seed=2)) as other:
        liar, server = Exaggerating(other.database, "liar"), FakeServer(honest.database, "honest")
        liar.lies = not late
        with new_database() as copy:
            async with follow(copy, [liar, server], trust_peers=True) as following:
                await trio.sleep(10)
                liar.lies = True
                await liar.announce()
                honest.database.commit({b"new": b"pair"})
                await server.announce()
                await trio.sleep(10)
                assert (copy.root, copy.revision) == (honest.database.root, honest.database.revision)
                assert following.status() is SyncStatus.IN_SYNC
                states = {peer.name: peer.state for peer in following.progress.peers}
                assert states == {"liar": PeerState.BANNED, "honest": PeerState.CONNECTED}
            copy.commit({b"written": b"here"})


async def test_a_run_whose_only_trusted_peer_has_an_implausible_number_names_it(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(5)) as source, new_database() as copy:
        async with trio.open_nursery() as nursery:
            peers = [Exaggerating(source.database, "liar").peer(nursery)]
            manager = Manager(copy, peers, trust_peers=True, executor=InEventLoop())
            with pytest.raises(NoPeersLeft, match="no honest store reaches") as caught:
                await manager.run()
            nursery.cancel_scope.cancel()
        assert isinstance(caught.value.failures[0].error, HeadImplausible)
        assert copy.revision == 0


async def test_content_is_copied_from_a_peer_with_an_implausible_number_where_the_root_is_named(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(5)) as source, new_database() as copy:
        async with trio.open_nursery() as nursery:
            peers = [Exaggerating(source.database).peer(nursery)]
            await Manager(copy, peers, source.root, executor=InEventLoop()).run()
            nursery.cancel_scope.cancel()
        assert (copy.root, copy.revision) == (source.root, 1)


def test_the_status_of_a_replica_takes_no_implausible_number_for_news(tmp_path: Path) -> None:
    with new_source(some_pairs(5)) as source, new_database(PAIRS) as replica:
        hello = Exaggerating(source.database).hello()
        peer = ProbeResult(Address("liar", 1), hello, 0.0, {})
        told = StoreStatus(replica.scheme, replica.head, is_local=False)
        assert sync_status_of(told, [peer]) is SyncStatus.IN_SYNC
        assert "no honest store reaches" in describe_peer_relation(told, peer)


def test_a_sync_to_what_peers_announce_passes_over_an_implausible_number() -> None:
    with new_source(some_pairs(5)) as source:
        liar = ProbeResult(Address("liar", 1), Exaggerating(source.database).hello(), 0.0, {})
        honest = ProbeResult(Address("honest", 2), FakeServer(source.database).hello(), 0.0, {})
        assert _target_of_first_peer([liar, honest]) == (source.root, 1)
        with pytest.raises(CommandError, match="no honest store reaches") as caught:
            _target_of_first_peer([liar])
        assert caught.value.exit_code == ExitCode.NOT_VERIFIED


async def test_a_store_with_the_highest_number_that_may_be_named_is_followed_after_its_next_commits(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(5)) as source, new_database() as named, new_database() as copy:
        server = FakeServer(source.database)
        async with trio.open_nursery() as nursery:
            manager = Manager(named, [server.peer(nursery)], executor=InEventLoop())
            manager.update_target(source.root, MAX_NAMED_REVISION)
            await manager.run()
            nursery.cancel_scope.cancel()
        named.commit({b"one": b"more"})
        named.commit({b"and": b"another"})
        async with trio.open_nursery() as nursery:
            peers = [FakeServer(named).peer(nursery)]
            await Manager(copy, peers, trust_peers=True, executor=InEventLoop()).run()
            nursery.cancel_scope.cancel()
        assert (copy.root, copy.revision) == (named.root, MAX_NAMED_REVISION + 2)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (MAX_FOREIGN_REVISION + 1, merkledb.RevisionTooHigh),
        (MAX_REVISION, merkledb.RevisionTooHigh),
        (True, TypeError),
        (-1, ValueError),
    ],
)
def test_a_head_takes_no_number_over_that_no_honest_store_reaches(
    number: int, error: type[Exception]
) -> None:
    with new_database({b"a": b"1"}) as database:
        with pytest.raises(error):
            database.renumber(number)
        assert database.revision == 1


def test_a_limit_of_revisions_is_not_negative() -> None:
    with new_database({b"a": b"1"}) as database:
        assert database.revisions(limit=0) == []
        with pytest.raises(ValueError, match="a limit is at least 0, not -1"):
            database.revisions(limit=-1)
