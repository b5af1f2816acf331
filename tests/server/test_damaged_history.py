"""A server whose history is damaged: its clients hear that it failed, and do not take it for a liar."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

import merkledb
from manager import Peer, PeerState
from merkledb import CorruptDatabase, Database, RangeProof
from server import Server, handlers
from server.handlers import CHECKED_SHARE, HistoryChecks
from syncproto import ErrorCode, Range
from tests.support.fake_database import VirtualWorkers
from tests.support.protocol_client import running
from tests.support.syncing import assert_same, sync_from

DAMAGED_KEY = b"\x64key"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with a first revision that is damaged in one value, and a second that is not."""
    with merkledb.open(tmp_path / "store") as opened:
        opened.commit({bytes([number]) + b"key": b"%d" % number * 9 for number in range(200)})
        opened.commit({DAMAGED_KEY: b"new", b"\x10key": b"new"})
        opened.commit({b"\x20key": b"newer"})
        with opened._store.write() as transaction:
            row = (2).to_bytes(7) + DAMAGED_KEY
            assert transaction.replace(row, b"\x01forged", db=opened._store.value_history)
        yield opened


async def test_a_proof_that_does_not_hold_is_a_failure_and_is_not_sent(
    database: Database, autojump_clock: MockClock
) -> None:
    failures: list[Exception] = []
    old = database.revisions()[-2].root
    async with running(Server(database, executor=VirtualWorkers(), on_failure=failures.append)) as site:
        client = await site.greeted()
        refused = await client.refused(client.get_range(old, max_keys=200, max_bytes=1 << 20))
        assert (refused.code, refused.message) == (ErrorCode.INTERNAL, "the server failed: use another")
        assert [type(failure) for failure in failures] == [CorruptDatabase]
        assert f"at root {old.hex()} does not belong to it" in str(failures[0])
        assert site.server.counters.failures == 1
        for _ in range(3):
            # From now on every proof at an old root is verified, and what is not damaged is served.
            request = client.get_range(old, end=b"\x60", max_keys=200, max_bytes=1 << 20)
            answer = await client.ask(request)
            assert isinstance(answer, Range)
            proof = RangeProof.decode(answer.proof)
            assert len(merkledb.verify_range(proof, old, None, b"\x60")) == 96
            await client.refused(client.get_range(old, start=b"\x61", max_keys=200, max_bytes=1 << 20))
        assert len(failures) == 4
        for revision in database.revisions()[:2]:
            request = client.get_range(revision.root, max_keys=200, max_bytes=1 << 20)
            assert isinstance(await client.ask(request), Range)


async def test_a_client_takes_what_is_damaged_from_another_and_drops_nobody(
    database: Database, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long a proof takes must not decide whether the damaged one is among those that are verified.
    monkeypatch.setattr(handlers, "CHECKED_SHARE", 1000)
    old = database.revisions()[-2].root
    failures: list[Exception] = []
    with merkledb.open(tmp_path / "honest") as honest, merkledb.open(tmp_path / "replica") as replica:
        assert honest.commit({bytes([number]) + b"key": b"%d" % number * 9 for number in range(200)}) == old
        damaged_server = Server(database, executor=VirtualWorkers(), on_failure=failures.append)
        honest_server = Server(honest, executor=VirtualWorkers(2.0))
        async with running(damaged_server) as damaged_site, running(honest_server) as honest_site:
            peers = [
                Peer("damaged", damaged_site.listener.connect),
                Peer("honest", honest_site.listener.connect),
            ]
            progress = await sync_from(peers, old, replica)
        assert_same(replica, honest)
        assert failures
        assert {type(failure) for failure in failures} == {CorruptDatabase}
        assert PeerState.BANNED not in {peer.state for peer in progress.peers}


class Work:
    """A clock, and a snapshot whose proofs take a while to be verified."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.checked = 0
        self.is_damaged = False

    def clock(self) -> float:
        return self.now

    def check_proof(self, proof: RangeProof, start: bytes | None, end: bytes | None) -> None:
        del proof, start, end
        self.now += self.seconds
        self.checked += 1
        if self.is_damaged:
            raise CorruptDatabase("store", "it is")


def look(checks: HistoryChecks, work: Work, times: int, making_seconds: float) -> None:
    proof = RangeProof((), (), None, ())
    for _ in range(times):
        checks.check(work, proof, None, None, making_seconds)  # type: ignore[arg-type]  # all that is used


@pytest.mark.parametrize(("seconds", "checked"), [(0.0001, 1000), (0.001, 200), (0.002, 100), (0.01, 20)])
def test_a_fifth_of_the_time_is_spent_to_verify_until_there_is_damage(seconds: float, checked: int) -> None:
    work = Work(seconds)
    checks = HistoryChecks(work.clock)
    look(checks, work, 1000, making_seconds=0.001)
    assert abs(work.checked - checked) <= 1
    assert work.now <= CHECKED_SHARE * 1.0 + seconds
    work.is_damaged = True
    with pytest.raises(CorruptDatabase):
        look(checks, work, 200, making_seconds=0.001)
    work.is_damaged, before = False, work.checked
    look(checks, work, 100, making_seconds=0.001)
    assert work.checked == before + 100


def test_a_quiet_time_saves_no_more_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    work = Work(0)
    checks = HistoryChecks(work.clock)
    look(checks, work, 1000, making_seconds=1.0)
    work.seconds, before = 0.01, work.checked
    look(checks, work, 1000, making_seconds=0)
    assert 10 <= work.checked - before <= 11
