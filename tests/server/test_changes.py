"""What a server answers when it is asked for changes, over memory streams and on a virtual clock."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from merkledb import CorruptDatabase
from server import Server, ServerLimits
from syncproto import MAX_CONTROL_BYTES, Cancel, Changes, Error, ErrorCode, Message, Range
from tests.support.fake_database import FakeDatabase, FakeProof, VirtualWorkers
from tests.support.protocol_client import HELLO, Site, pairs_of, running

CONTENT = {b"a": b"1", b"b": b"2", b"c": b"3"}
CHANGED = {b"a": b"9", b"b": None, b"d": b"4"}


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase(dict(CONTENT))


@pytest.fixture
def executor() -> VirtualWorkers:
    return VirtualWorkers()


@pytest.fixture
async def site(database: FakeDatabase, executor: VirtualWorkers) -> AsyncIterator[Site]:
    async with running(Server(database, executor=executor)) as site:
        yield site


def changes_of(message: Message | None) -> dict[bytes, bytes | None]:
    assert isinstance(message, Changes)
    proof = FakeProof.decode(message.proof)
    return dict(zip(proof.keys, proof.values, strict=True))


async def test_changes_are_answered_between_two_retained_roots_in_either_direction(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit(CHANGED)
    newest = database.commit({b"e": b"5"})
    assert changes_of(await client.ask(client.get_changes(old, new))) == CHANGED
    assert changes_of(await client.ask(client.get_changes(old, newest))) == CHANGED | {b"e": b"5"}
    back = {b"a": b"1", b"b": b"2", b"d": None}
    assert changes_of(await client.ask(client.get_changes(new, old))) == back
    assert changes_of(await client.ask(client.get_changes(newest, newest))) == {}
    counters = site.server.counters
    assert (counters.requests, counters.answers, counters.changes, counters.fallbacks) == (4, 4, 4, 0)


async def test_changes_keep_to_the_range_that_was_asked_for(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit(CHANGED)
    answer = await client.ask(client.get_changes(old, new, start=b"b", end=b"c"))
    assert changes_of(answer) == {b"b": None}


async def test_changes_are_cut_off_at_the_clients_limits(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit(CHANGED)
    assert changes_of(await client.ask(client.get_changes(old, new, max_keys=2))) == {b"a": b"9", b"b": None}
    one_change = len(FakeProof([b"a"], [b"9"]).encode())
    answer = await client.ask(client.get_changes(old, new, max_bytes=one_change))
    assert changes_of(answer) == {b"a": b"9"}


async def test_changes_are_cut_off_at_the_servers_limits(autojump_clock: MockClock) -> None:
    database = FakeDatabase()
    limits = ServerLimits(max_keys=20, max_ordinary_bytes=1100)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        empty = database.root
        long = database.commit({bytes([number]): bytes(100) for number in range(50)})
        short = database.commit({bytes([number]): b"" for number in range(50)})
        assert len(changes_of(await client.ask(client.get_changes(empty, long)))) == 10
        assert len(changes_of(await client.ask(client.get_changes(empty, short)))) == 20


@pytest.mark.parametrize("pruned", [False, True])
async def test_changes_from_a_root_that_is_not_retained_are_answered_by_a_range(
    site: Site, database: FakeDatabase, pruned: bool, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root if pruned else bytes(32)
    new = database.commit(CHANGED)
    database.prune()
    assert pairs_of(await client.ask(client.get_changes(old, new))) == database.content
    part = client.get_changes(old, new, start=b"b", end=b"d", max_keys=1)
    assert pairs_of(await client.ask(part)) == {b"c": b"3"}
    counters = site.server.counters
    assert (counters.answers, counters.changes, counters.fallbacks, counters.failures) == (2, 0, 2, 0)


async def test_a_new_root_that_is_not_retained_is_gone_whatever_the_old_one_is(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    older, old = database.root, database.commit(CHANGED)
    head = database.commit({b"e": b"5"})
    database.prune()
    for source in (older, old, head, bytes(32)):
        error = await client.refused(client.get_changes(source, old))
        assert error.code is ErrorCode.HISTORY_GONE
    assert site.server.counters.fallbacks == 0


async def test_a_new_root_that_the_database_never_had_is_unknown_whatever_the_old_one_is(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old, _ = database.root, database.commit(CHANGED)
    for source in (old, database.root, bytes(32), b"?" * 32):
        error = await client.refused(client.get_changes(source, bytes(32)))
        assert error.code is ErrorCode.UNKNOWN_ROOT
    assert site.server.counters.fallbacks == 0


async def test_a_start_after_the_end_is_a_bad_request(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit(CHANGED)
    error = await client.refused(client.get_changes(old, new, start=b"b", end=b"a"))
    assert error.code is ErrorCode.BAD_REQUEST
    assert changes_of(await client.ask(client.get_changes(old, new))) == CHANGED


@pytest.mark.parametrize("retained", [True, False])
async def test_a_limit_that_is_too_small_is_answered_with_one_that_will_do(
    site: Site, database: FakeDatabase, retained: bool, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit({b"a": bytes(5000)})
    if not retained:
        database.prune()
    error = await client.refused(client.get_changes(old, new, max_bytes=100))
    assert error.code is ErrorCode.LIMIT_TOO_SMALL
    assert error.detail is not None
    answer = await client.ask(client.get_changes(old, new, max_bytes=error.detail))
    assert isinstance(answer, Changes if retained else Range)
    assert FakeProof.decode(answer.proof).values[0] == bytes(5000)


@pytest.mark.parametrize("retained", [True, False])
async def test_a_large_pair_is_sent_alone(
    database: FakeDatabase, retained: bool, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_ordinary_bytes=1000)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        old = database.root
        new = database.commit({b"a": bytes(10_000), b"b": b"short"})
        if not retained:
            database.prune()
        answer = await client.ask(client.get_changes(old, new))
        assert isinstance(answer, Changes if retained else Range)
        assert FakeProof.decode(answer.proof) == FakeProof([b"a"], [bytes(10_000)])
        assert site.server.counters.fallbacks == (not retained)


async def test_a_large_change_waits_for_its_place_and_is_refused_in_the_end(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_ordinary_bytes=1000)
    async with running(Server(database, limits=limits, executor=VirtualWorkers()), lockstep=True) as site:
        slow, other = await site.greeted(), await site.greeted()
        old = database.root
        new = database.commit({b"a": bytes(10_000)})
        await slow.send(slow.get_changes(old, new))
        refusal = await other.refused(other.get_changes(old, new))
        assert (refusal.code, refusal.detail) == (ErrorCode.OVERLOADED, limits.retry_after_milliseconds)
        assert changes_of(await slow.receive()) == {b"a": bytes(10_000)}
        assert changes_of(await other.ask(other.get_changes(old, new))) == {b"a": bytes(10_000)}


async def test_a_change_above_the_servers_limit_is_refused_with_what_it_needs(
    database: FakeDatabase, autojump_clock: MockClock
) -> None:
    limits = ServerLimits(max_ordinary_bytes=1000, max_bytes=5000)
    async with running(Server(database, limits=limits, executor=VirtualWorkers())) as site:
        client = await site.greeted()
        old = database.root
        new = database.commit({b"a": bytes(10_000)})
        refusal = await client.refused(client.get_changes(old, new))
        assert refusal.code is ErrorCode.LIMIT_TOO_SMALL
        assert refusal.detail is not None
        assert refusal.detail > 10_000


async def test_what_the_clients_frames_cannot_hold_is_a_limit_too_small(
    site: Site, database: FakeDatabase, autojump_clock: MockClock
) -> None:
    client = await site.greeted(replace(HELLO, max_frame_bytes=MAX_CONTROL_BYTES))
    old = database.root
    new = database.commit({b"a": bytes(5000)})
    await client.force(client.get_changes(old, new, max_bytes=10_000))
    error = await client.receive()
    assert isinstance(error, Error)
    assert error.code is ErrorCode.LIMIT_TOO_SMALL


@pytest.mark.parametrize("failure", [CorruptDatabase("/secret/path", "a hole"), ZeroDivisionError("a bug")])
async def test_a_failure_of_the_prover_ends_one_request_and_not_the_server(
    database: FakeDatabase, failure: Exception, autojump_clock: MockClock
) -> None:
    seen: list[Exception] = []
    server = Server(database, executor=VirtualWorkers(), on_failure=seen.append)
    async with running(server) as site:
        client = await site.greeted()
        old = database.root
        new = database.commit(CHANGED)
        database.failure = failure
        error = await client.refused(client.get_changes(old, new))
        assert (error.code, error.message) == (ErrorCode.INTERNAL, "the server failed: use another")
        assert seen == [failure]
        database.failure = None
        assert changes_of(await client.ask(client.get_changes(old, new))) == CHANGED


async def test_cancelled_changes_are_answered_without_being_worked_on(
    site: Site, database: FakeDatabase, executor: VirtualWorkers, autojump_clock: MockClock
) -> None:
    client = await site.greeted()
    old = database.root
    new = database.commit(CHANGED)
    executor.seconds = 1
    await client.send(*(client.get_changes(old, new, request_id=number) for number in (1, 2, 3)))
    await trio.testing.wait_all_tasks_blocked()
    await client.send(Cancel(2))
    answers = [await client.receive(), await client.receive()]
    assert [changes_of(answer) for answer in answers] == [CHANGED, CHANGED]
    assert database.snapshots == 2
    assert client.connection.in_flight == 0
    assert site.server.counters.refusals == {ErrorCode.CANCELLED: 1}


values = st.none() | st.binary(max_size=8)
deltas = st.dictionaries(st.binary(max_size=2), values, max_size=8)


@pytest.mark.slow
@given(
    st.lists(deltas, min_size=1, max_size=5),
    st.data(),
    st.integers(1, 4),
    st.sampled_from([25, 60, 1000]),
)
def test_a_copy_brought_forward_range_by_range_is_what_the_server_has(
    commits: list[dict[bytes, bytes | None]], data: st.DataObject, max_keys: int, max_bytes: int
) -> None:
    """Whatever was pruned, however answers are cut off: changes or ranges, the copy gets there."""

    async def scenario() -> None:
        database = FakeDatabase({b"a": b"1", b"b": b"2"})
        async with running(Server(database, executor=VirtualWorkers())) as site:
            client = await site.greeted()
            copy, old = dict(database.content), database.root
            for changes in commits:
                database.commit(changes)
            if data.draw(st.booleans()):
                database.prune()
            start: bytes | None = None
            while True:
                request = client.get_changes(
                    old, database.root, start=start, max_keys=max_keys, max_bytes=max_bytes
                )
                answer = await client.ask(request)
                assert isinstance(answer, Changes | Range)
                proof = FakeProof.decode(answer.proof)
                complete = not proof.keys
                if isinstance(answer, Range):
                    end = None if complete else proof.keys[-1]
                    copy = {
                        key: value
                        for key, value in copy.items()
                        if key < (start or b"") or (end is not None and key > end)
                    }
                merged = {**copy, **dict(zip(proof.keys, proof.values, strict=True))}
                copy = {key: value for key, value in merged.items() if value is not None}
                if complete:
                    break
                start = proof.keys[-1] + b"\0"
            assert copy == database.content

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
