"""What is over stays over, and what is not goes on: peers, connections, runs, and work given back."""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from manager import (
    ConnectionLost,
    Limits,
    Manager,
    NoPeersLeft,
    Peer,
    PeerError,
    PeerRefused,
    PeerState,
    ProofRejected,
    SyncStatus,
)
from manager.errors import Preempted
from manager.memory import LargeValueLane
from manager.peers.client import PeerClient
from manager.scheduling.backlog import Backlog, Suspicion, Work
from manager.scheduling.resume import LocalState, hello_of, local_state_of
from manager.transfer import sync_writer
from merkledb import MAX_FOREIGN_REVISION, Database, DatabaseFull, Reason, TooManyReaders, verify_range
from syncproto import Connection, Error, ErrorCode, GetRange, Head, Range, Role, Subscribe, encode
from tests.support.databases import new_database
from tests.support.fake_servers import (
    Asked,
    ClientConnection,
    FakeServer,
    InEventLoop,
    Result,
    ScriptedServer,
    after,
)
from tests.support.syncing import SMALL, assert_same, some_pairs

# Many proofs out of a small store, each large enough to be verified in the executor.
IN_EXECUTOR = Limits(max_keys=128, max_changes=16)
# Many transactions.
IN_PARTS = Limits(max_keys=16, max_changes=16, transaction_bytes=10_000)
VERIFICATION, TRANSACTION = "verify_answer", "_transaction"
FOR_EVER = 100_000


class Meddling(InEventLoop):
    """Lets something happen once, just before some blocking work: the ``number``-th of its kind."""

    def __init__(self, kind: str, number: int, meddle: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._kind = kind
        self._left = number
        self._meddle = meddle

    async def run(self, work: Callable[[], Result]) -> Result:
        if isinstance(work, partial) and getattr(work.func, "__name__", "") == self._kind:
            self._left -= 1
            if self._left == 0:
                await self._meddle()
        return await super().run(work)


class Remembering(FakeServer):
    """Keeps its conversations, so that a test can speak in them."""

    def __init__(self, database: Database, name: str = "peer") -> None:
        super().__init__(database, name)
        self.conversations: list[ClientConnection] = []

    async def greet(self, conversation: ClientConnection) -> None:
        self.conversations.append(conversation)
        await super().greet(conversation)


def manager_of(
    database: Database,
    peers: list[Peer],
    target: bytes | None,
    limits: Limits = SMALL,
    executor: InEventLoop | None = None,
    **options: Any,
) -> Manager:
    return Manager(
        database,
        peers,
        target,
        limits=limits,
        executor=executor or InEventLoop(),
        random=random.Random(1),
        **options,
    )


def copy_all(source: Database, root: bytes, database: Database) -> None:
    """Write to a database what another sync would: all that its source had at some root."""
    with source.at(root) as snapshot:
        proof = snapshot.prove_range(max_keys=10_000)
    database.apply(verify_range(proof, root, None, None, scheme=source.scheme))


# Peers that are dropped.


async def test_a_peer_dropped_for_its_head_stays_so_when_an_earlier_answer_holds(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(3000)) as source, new_database() as database:
        server = FakeServer(source)

        async def refuse_connection() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            raise OSError("refused")

        async def announce_too_much() -> None:
            conversation, request_id = server.subscribers[0]
            await conversation.send(Head(request_id, source.root, MAX_FOREIGN_REVISION + 1, 3000))
            await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            manager = manager_of(
                database,
                [server.peer(nursery), Peer("down", refuse_connection)],
                source.root,
                IN_EXECUTOR,
                Meddling(VERIFICATION, 2, announce_too_much),
                trust_peers=True,
            )
            with trio.fail_after(FOR_EVER), pytest.raises(NoPeersLeft):
                await manager.run()
            nursery.cancel_scope.cancel()


async def test_a_peer_proven_to_lie_stays_dropped_when_an_earlier_answer_holds(
    autojump_clock: MockClock,
) -> None:
    lied: list[bool] = []

    async def honest_until_then(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        # Late, so that what is verified until then came from the other one.
        await trio.sleep(0.05)
        gone = Error(request.request_id, ErrorCode.UNKNOWN_ROOT, "gone")
        await conversation.send(gone if lied else server.honest_answer(request))

    with new_database(some_pairs(3000)) as source, new_database() as database:

        async def prove_the_lie() -> None:
            await trio.lowlevel.checkpoint()
            lied.append(True)
            liar, failure = manager._sessions[0].known, ProofRejected(Reason.WRONG_ROOT, "")
            manager._report_invalid_proof(Suspicion(liar, failure, None, 0.0))

        async with trio.open_nursery() as nursery:
            peers = [
                FakeServer(source, "liar").peer(nursery),
                ScriptedServer(source, honest_until_then, "other").peer(nursery),
            ]
            executor = Meddling(VERIFICATION, 3, prove_the_lie)
            manager = manager_of(database, peers, source.root, IN_EXECUTOR, executor)
            with trio.fail_after(FOR_EVER), pytest.raises(NoPeersLeft):
                await manager.run()
            nursery.cancel_scope.cancel()


async def test_no_head_is_followed_that_came_in_the_same_bytes_as_the_one_that_dropped_the_peer(
    autojump_clock: MockClock,
) -> None:
    never_had = b"x" * 32
    with new_database(some_pairs(30)) as source, new_database(some_pairs(30)) as database:
        server = FakeServer(source)
        async with trio.open_nursery() as nursery:
            manager = manager_of(database, [server.peer(nursery)], None, trust_peers=True)

            nursery.start_soon(manager.follow)
            await trio.sleep(1)
            conversation, request_id = server.subscribers[0]
            # As many as are handled in one step, of which the last one is told of; and one for the next step.
            heads = [Head(request_id, source.root, 1, 30)] * 31
            heads.append(Head(request_id, source.root, MAX_FOREIGN_REVISION + 1, 30))
            heads.append(Head(request_id, never_had, 99, 30))
            await conversation.send_bytes(b"".join(encode(head).data for head in heads))
            await trio.sleep(0.1)
            assert manager.progress.peers[0].state is PeerState.BANNED
            assert manager.target != never_had
            nursery.cancel_scope.cancel()


# Connections that end.


async def greeted_line(
    source: Database, nursery: trio.Nursery, max_requests: int = 16
) -> tuple[PeerClient, trio.abc.Stream, Connection]:
    """Return a client that was greeted, and the server's side, to be played by the test."""
    theirs, ours = trio.testing.memory_stream_pair()
    hello = hello_of(source.scheme, local_state_of(source), Limits())
    client = PeerClient(ours, hello, source.scheme, Limits())
    server = FakeServer(source)
    server.max_requests = max_requests
    connection = Connection(Role.SERVER, server.hello())
    nursery.start_soon(client.run)
    await theirs.send_all(connection.send(connection.hello))
    assert await client.greeted()
    return client, theirs, connection


async def test_the_failure_of_a_connection_is_what_a_request_ends_with_whatever_came_right_behind(
    autojump_clock: MockClock,
) -> None:
    failures: list[PeerError] = []
    with new_database(some_pairs(30)) as source:
        async with trio.open_nursery() as nursery:
            client, stream, connection = await greeted_line(source, nursery)

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(PeerRefused) as raised:
                    await client.ask(source.root, None, None, max_keys=100, max_bytes=100_000)
                failures.append(raised.value)

            await trio.testing.wait_all_tasks_blocked()

            @nursery.start_soon
            async def subscribe() -> None:
                with pytest.raises(PeerRefused):
                    await client.subscribe(lambda head: None)

            await trio.testing.wait_all_tasks_blocked()
            _, request, subscription = connection.receive_data(await stream.receive_some())
            assert isinstance(request, GetRange)
            assert isinstance(subscription, Subscribe)
            end = Error(subscription.request_id, ErrorCode.INTERNAL, "the server failed")
            answer = Range(request.request_id, source.prove_range(max_keys=100).encode())
            await stream.send_all(connection.send(end) + connection.send(answer))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert failures == [client.failure]


async def test_a_subscription_raises_when_the_connection_ends_before_the_first_head(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(30)) as source:
        async with trio.open_nursery() as nursery:
            client, stream, _ = await greeted_line(source, nursery)

            @nursery.start_soon
            async def end() -> None:
                await trio.sleep(1)
                await stream.aclose()

            with pytest.raises(ConnectionLost):
                await client.subscribe(lambda head: None)
            nursery.cancel_scope.cancel()


async def test_a_peer_is_connected_to_again_while_no_memory_is_left_to_ask_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_args: object, **_options: object) -> bytes:
        raise DatabaseFull("store", "full")

    limits = Limits(
        max_keys=64, max_bytes=65_536, max_changes=64, buffered_bytes=300_000, transaction_bytes=100_000
    )
    with new_database(some_pairs(3000)) as source, new_database() as database:
        monkeypatch.setattr(database, "apply", no_room)
        server = Remembering(source)
        async with trio.open_nursery() as nursery:
            manager = manager_of(database, [server.peer(nursery)], source.root, limits)
            nursery.start_soon(manager.follow)
            await trio.sleep(20)
            assert manager.progress.status is SyncStatus.NO_ROOM
            for conversation in server.conversations:
                await trio.aclose_forcefully(conversation.stream)
            await trio.sleep(3600)
            nursery.cancel_scope.cancel()
    assert server.connections > 1


async def test_a_request_waits_for_the_place_of_a_cancelled_one_and_costs_no_connection(
    autojump_clock: MockClock,
) -> None:
    """A request that was cancelled has its place at the server until its answer comes all the same."""
    with new_database(some_pairs(30)) as source:
        async with trio.open_nursery() as nursery:
            client, stream, connection = await greeted_line(source, nursery, max_requests=1)
            proof = source.prove_range(max_keys=100).encode()

            @nursery.start_soon
            async def answer_late() -> None:
                while data := await stream.receive_some():
                    for message in connection.receive_data(data):
                        if isinstance(message, GetRange):
                            await trio.sleep(1)
                            await stream.send_all(connection.send(Range(message.request_id, proof)))

            with trio.move_on_after(0.5):
                await client.ask(source.root, None, None, max_keys=100, max_bytes=100_000)
            answer = await client.ask(source.root, None, None, max_keys=100, max_bytes=100_000)
            assert answer.proof == proof
            assert client.failure is None
            nursery.cancel_scope.cancel()


# Runs that end.


async def test_a_run_that_is_done_waits_for_no_peer_that_asked_to_be_left_alone(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(3000)) as source, new_database() as database:
        one, two = Remembering(source, "one"), ScriptedServer(source, after(0.01), "two")

        async def refuse_and_be_slow() -> None:
            refusal = Error(0, ErrorCode.OVERLOADED, "all places are taken", 20_000)
            await one.conversations[0].send(refusal)
            # A thread under way is waited for.
            with trio.CancelScope(shield=True):
                await trio.sleep(1.0)

        async with trio.open_nursery() as nursery:
            executor = Meddling(VERIFICATION, 2, refuse_and_be_slow)
            peers = [one.peer(nursery), two.peer(nursery)]
            manager = manager_of(database, peers, source.root, IN_EXECUTOR, executor)
            began = trio.current_time()
            await manager.run()
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
        assert_same(database, source)
    assert seconds < 3


@pytest.mark.parametrize("stream_of", [Manager.watch, Manager.roots])
async def test_a_stream_that_is_asked_for_after_the_run_ends_at_once(
    autojump_clock: MockClock, stream_of: Callable[[Manager], Any]
) -> None:
    with new_database(some_pairs(30)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            manager = manager_of(database, [FakeServer(source).peer(nursery)], source.root)
            await manager.run()
            with trio.move_on_after(1000) as waiting:
                async for _ in stream_of(manager):
                    pass
            nursery.cancel_scope.cancel()
    assert not waiting.cancelled_caught


async def test_a_sync_goes_on_when_a_transaction_cannot_be_read_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def without_a_place(database: Database) -> LocalState:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise TooManyReaders("store", 1024)
        return local_state_of(database)

    monkeypatch.setattr(sync_writer, "local_state_of", without_a_place)
    with new_database(some_pairs(300)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            manager = manager_of(database, [FakeServer(source).peer(nursery)], source.root, IN_PARTS)
            nursery.start_soon(manager.follow)
            with trio.move_on_after(1000):
                async for reached in manager.roots():
                    assert reached.root == source.root
                    break
            assert manager.is_at_target
            nursery.cancel_scope.cancel()
    assert looks >= 2


async def test_all_is_done_when_another_write_has_brought_the_target(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:

        async def write() -> None:
            await trio.lowlevel.checkpoint()
            copy_all(source, source.root, database)

        async with trio.open_nursery() as nursery:
            executor = Meddling(TRANSACTION, 2, write)
            manager = manager_of(
                database, [FakeServer(source).peer(nursery)], source.root, IN_PARTS, executor
            )
            progress = await manager.run()
            nursery.cancel_scope.cancel()
    assert (progress.status, progress.share) == (SyncStatus.IN_SYNC, 1.0)


async def test_the_next_target_is_gone_to_at_once_when_another_write_has_brought_the_pivot(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:
        old = source.root
        source.commit({b"k": b"v"})

        async def write() -> None:
            await trio.lowlevel.checkpoint()
            manager.update_target(source.root)
            copy_all(source, old, database)

        async with trio.open_nursery() as nursery:
            executor = Meddling(TRANSACTION, 2, write)
            manager = manager_of(database, [FakeServer(source).peer(nursery)], old, IN_PARTS, executor)
            began = trio.current_time()
            await manager.run()
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
        assert_same(database, source)
    assert seconds < 3


# Work and turns.


async def test_patience_with_large_pairs_falls_again_after_a_turn_that_succeeds(
    autojump_clock: MockClock,
) -> None:
    lane = LargeValueLane(20.0, lambda: None)

    async def be_called_off() -> None:
        await lane.budget.reserve(10)
        with pytest.raises(Preempted), lane.turn():
            await trio.sleep_forever()
        lane.budget.release(10)

    async def succeed() -> None:
        await lane.budget.reserve(10)
        with lane.turn():
            await trio.sleep(0.1)
        lane.budget.release(10)

    waits = []
    for _ in range(8):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_called_off)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(succeed)
        waits.append(trio.current_time() - began)
    assert max(waits) <= 2 * waits[0]


def test_stale_work_that_is_given_back_is_the_oldest_still() -> None:
    backlog = Backlog(32, 2.0, [Work(b"", b"\x7f", 0.5), Work(b"\x7f\0", None, 0.5)])
    oldest, older, pivot = b"1" * 32, b"2" * 32, b"3" * 32

    def take() -> Work:
        work = backlog.take("peer", 0, 1 << 20)
        assert isinstance(work, Work)
        return work

    backlog.set_pivot(oldest)
    backlog.put([take()._replace(root=oldest)])
    backlog.set_pivot(older)
    while (work := take()).root is not None:
        backlog.put([work])
    backlog.put([work._replace(root=older)])
    backlog.set_pivot(pivot)
    stale = take()
    assert stale.root == oldest
    backlog.put([stale])
    assert take().root == oldest
