"""Syncs from servers that lie, stall, cut off, answer late or twice, send junk, or refuse."""

import logging
import ssl
from collections.abc import Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from manager import (
    ConnectionLost,
    Limits,
    Manager,
    NoPeersLeft,
    PairTooLarge,
    Peer,
    PeerMisbehaved,
    PeersOverloaded,
    PeerState,
    PeerUnreachable,
    RequestTimeout,
    SchemeDiffers,
    SyncStatus,
    TargetGone,
    VerificationFailed,
)
from merkledb import EMPTY_ROOT, Branch, Database, RangeProof, Reason, Scheme
from syncproto import PROTOCOL_VERSION, Error, ErrorCode, Goodbye, Hello, Range, State, encode
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import (
    Answer,
    Asked,
    ClientConnection,
    FakeServer,
    InEventLoop,
    ScriptedServer,
)
from tests.support.syncing import applied_keys, assert_same, some_pairs, sync_from
from tests.support.thoroughness import amount

# Lies about content.


def altered_value(proof: RangeProof) -> RangeProof:
    return proof._replace(values=(b"altered", *proof.values[1:]))


def omitted_pair(proof: RangeProof) -> RangeProof:
    return proof._replace(keys=proof.keys[1:], values=proof.values[1:])


def altered_key(proof: RangeProof) -> RangeProof:
    return proof._replace(keys=(proof.keys[0][:-1], *proof.keys[1:]))


def early_end(proof: RangeProof) -> RangeProof:
    return proof._replace(end=proof.keys[0][:-1])


def swapped_pairs(proof: RangeProof) -> RangeProof:
    if len(proof.keys) == 1:
        return proof._replace(keys=proof.keys * 2, values=proof.values * 2)
    return proof._replace(keys=(proof.keys[-1], *proof.keys[:-1]))


def without_boundary(proof: RangeProof) -> RangeProof:
    return proof._replace(boundary=())


def other_branch(proof: RangeProof) -> RangeProof:
    first, *others = proof.boundary
    children = tuple((token, bytes(32)) for token, _ in first.children)
    return proof._replace(boundary=(Branch(first.path, first.digest, children), *others))


LIES: dict[str, tuple[Answer, Reason]] = {
    "an altered value": (fake_servers.tamper(altered_value), Reason.WRONG_ROOT),
    "an omitted pair": (fake_servers.tamper(omitted_pair), Reason.WRONG_ROOT),
    "an altered key": (fake_servers.tamper(altered_key), Reason.WRONG_ROOT),
    "an end that is not the last key": (fake_servers.tamper(early_end), Reason.WRONG_END),
    "pairs out of order": (fake_servers.tamper(swapped_pairs), Reason.KEYS_OUT_OF_ORDER),
    "no boundary": (fake_servers.tamper(without_boundary), Reason.WRONG_ROOT),
    "another branch": (fake_servers.tamper(other_branch), Reason.WRONG_ROOT),
    "nothing at all": (fake_servers.no_pairs, Reason.WRONG_ROOT),
    "bytes that are no proof": (fake_servers.no_proof, Reason.MALFORMED),
}


@pytest.mark.parametrize(("script", "reason"), LIES.values(), ids=LIES)
async def test_a_lie_ends_the_sync_when_nobody_else_is_left_and_names_the_liar(
    script: Answer, reason: Reason, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        liar = ScriptedServer(source, script, "liar")
        with pytest.raises(VerificationFailed, match="liar: invalid proof") as caught:
            await sync_from([liar], source.root, database)
        assert database.tip_root == EMPTY_ROOT, "nothing of it was applied"
    assert caught.value.peer == "liar"
    assert caught.value.reason is reason
    assert liar.connections == 1, "it is not asked again"


@pytest.mark.parametrize(("script", "reason"), LIES.values(), ids=LIES)
async def test_one_honest_peer_is_enough_beside_a_liar_who_is_dropped_and_named(
    script: Answer, reason: Reason, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with new_database(some_pairs(200)) as source, new_database() as database:
        liar, honest = ScriptedServer(source, script, "liar"), FakeServer(source, "honest")
        progress = await sync_from([liar, honest], source.root, database)
        assert_same(database, source)
    assert progress.peers[0].state is PeerState.BANNED
    assert progress.peers[0].reason.startswith(f"invalid proof: {reason}")
    assert progress.peers[0].keys == 0
    assert progress.peers[1].keys == 200
    assert "dropped peer liar: invalid proof" in caplog.text


async def test_more_pairs_than_asked_for_are_a_lie(autojump_clock: MockClock) -> None:
    class Generous(FakeServer):
        def proof(self, request: Asked) -> RangeProof:
            return self.database.prove_range(request.start, request.end, max_keys=request.max_keys + 1)

    with (
        new_database(some_pairs(200)) as source,
        new_database() as database,
        pytest.raises(VerificationFailed) as caught,
    ):
        await sync_from([Generous(source)], source.root, database)
    assert caught.value.reason is Reason.TOO_MANY_KEYS


async def test_a_server_that_serves_another_store_under_the_targets_name_is_a_liar(
    autojump_clock: MockClock,
) -> None:
    class Impostor(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            proof = self.database.prove_range(request.start, request.end, max_keys=request.max_keys)
            await conversation.send(Range(request.request_id, proof.encode()))

    with (
        new_database(some_pairs(200)) as source,
        new_database(some_pairs(200, seed=2)) as other,
        new_database() as database,
        pytest.raises(VerificationFailed),
    ):
        await sync_from([Impostor(other)], source.root, database)


async def test_a_liar_who_begins_late_costs_nothing_that_was_applied(autojump_clock: MockClock) -> None:
    class Turncoat(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if len(self.requests) > 20:
                await fake_servers.no_pairs(self, conversation, request)
            else:
                await trio.sleep(1)
                await super().answer(conversation, request)

    with new_database(some_pairs(600)) as source, new_database() as database:
        with pytest.raises(VerificationFailed):
            await sync_from([Turncoat(source)], source.root, database)
        applied = applied_keys(database)
        honest = FakeServer(source)
        await sync_from([honest], source.root, database)
        assert_same(database, source)
    assert applied > 150
    assert honest.keys_sent == 600 - applied


# Silence, lateness, and broken connections.


async def test_a_peer_that_never_answers_is_given_up_in_bounded_time(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(50)) as source, new_database() as database:
        silent = ScriptedServer(source, fake_servers.never, "silent")
        with pytest.raises(NoPeersLeft, match="silent: no answer within 20 seconds") as caught:
            await sync_from([silent], source.root, database)
    assert_was_reached(caught.value)
    assert isinstance(caught.value.failures[0].error, RequestTimeout)
    assert trio.current_time() < 15 * 60
    assert silent.connections <= Limits().max_failures


async def test_one_honest_peer_is_enough_beside_one_that_never_answers(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(500)) as source, new_database() as database:
        silent = ScriptedServer(source, fake_servers.never, "silent")
        began = trio.current_time()
        progress = await sync_from([silent, FakeServer(source)], source.root, database)
        assert_same(database, source)
        # What the silent peer was asked for is asked for again after the timeout, once or twice.
        assert trio.current_time() - began < 60
    assert progress.peers[0].keys == 0
    assert progress.peers[0].score < 1.0


async def test_an_answer_that_comes_after_its_timeout_is_dropped_and_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        late = ScriptedServer(source, fake_servers.after(25.0), times=1)
        progress = await sync_from([late], source.root, database)
        assert_same(database, source)
    assert late.cancels == 1
    assert late.connections == 1, "one timeout does not cost the connection"
    assert progress.peers[0].state is PeerState.CONNECTED


async def test_a_slow_answer_within_the_timeout_is_used(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        slow = ScriptedServer(source, fake_servers.after(19.0))
        await sync_from([slow], source.root, database)
        assert_same(database, source)
    assert slow.keys_sent == 100
    assert slow.cancels == 0


def drip(bytes_per_second: int) -> Answer:
    """Answer honestly, in drops."""

    async def dripping(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        frame = conversation.connection.send(server.honest_answer(request))
        for at in range(0, len(frame), bytes_per_second):
            await conversation.send_bytes(frame[at : at + bytes_per_second])
            await trio.sleep(1)

    return dripping


async def test_a_large_answer_over_a_slow_line_gets_the_time_that_its_bytes_take(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(requests_per_peer=1, request_timeout_seconds=5)
    with new_database({b"large": bytes(10 << 20)}) as source, new_database() as database:
        began = trio.current_time()
        await sync_from([ScriptedServer(source, drip(100_000))], source.root, database, limits)
        assert_same(database, source)
        assert trio.current_time() - began > 100


async def test_an_answer_in_drops_is_not_waited_for(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(500)) as source, new_database() as database:
        slow = ScriptedServer(source, drip(10), "slow")
        limits = Limits(max_keys=64, requests_per_peer=1)
        began = trio.current_time()
        await sync_from([slow, FakeServer(source)], source.root, database, limits)
        assert_same(database, source)
        assert trio.current_time() - began < 60


@pytest.mark.parametrize(
    "script",
    [fake_servers.half_a_frame, fake_servers.hang_up, fake_servers.goodbye, fake_servers.junk],
    ids=["half a frame", "hang up", "goodbye", "junk"],
)
async def test_a_connection_that_breaks_once_is_opened_again(
    script: Answer, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, script, times=1)
        progress = await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.connections == 2
    assert progress.peers[0].state is PeerState.CONNECTED


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (fake_servers.half_a_frame, "the stream ended"),
        (fake_servers.hang_up, "closed the connection"),
        (fake_servers.goodbye, "shutting down"),
    ],
)
async def test_a_connection_that_always_breaks_is_given_up(
    script: Answer, message: str, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, script)
        with pytest.raises(NoPeersLeft, match=message) as caught:
            await sync_from([server], source.root, database)
    assert_was_reached(caught.value)
    assert server.connections == Limits().max_failures


async def test_a_peer_that_was_there_and_is_no_more_cannot_be_reached(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.hang_up)

        async def open_once() -> trio.abc.Stream:
            if server.connections:
                raise ConnectionRefusedError("connection refused")
            return await server.open_stream()

        async with trio.open_nursery() as nursery:
            server.peer(nursery)
            with pytest.raises(PeerUnreachable, match="connection refused") as caught:
                await sync_from([Peer("gone", open_once)], source.root, database)
            nursery.cancel_scope.cancel()
    assert server.connections == 1
    assert not caught.value.failures[0].has_answered


@pytest.mark.parametrize("answer", [Error(0, ErrorCode.INTERNAL, "the server failed"), b"\0\0\0\1x"])
async def test_a_peer_that_answers_with_nothing_of_use_was_reached(
    answer: Error | bytes, autojump_clock: MockClock
) -> None:
    said = answer if isinstance(answer, bytes) else encode(answer).data
    with new_database(some_pairs(20)) as source, new_database() as database:
        peers: list[FakeServer | Peer] = [Greeter(source, lambda _: said), unreachable()]
        with pytest.raises(NoPeersLeft) as caught:
            await sync_from(peers, source.root, database)
    assert_was_reached(caught.value)


async def test_a_peer_that_answered_was_reached_also_while_it_is_tried_again(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(max_backoff_seconds=1.0, connect_timeout_seconds=60.0, max_connect_failures=1)
    is_tried_again = trio.Event()
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.hang_up)

        async def open_stream() -> trio.abc.Stream:
            if server.connections < limits.max_failures:
                return await server.open_stream()
            is_tried_again.set()
            await trio.sleep_forever()
            raise AssertionError

        async def refuse() -> trio.abc.Stream:
            await is_tried_again.wait()
            raise ConnectionRefusedError("connection refused")

        async with trio.open_nursery() as nursery:
            server.peer(nursery)
            peers = [Peer("there", open_stream), Peer("nobody", refuse)]
            with pytest.raises(NoPeersLeft) as caught:
                await sync_from(peers, source.root, database, limits)
            nursery.cancel_scope.cancel()
    assert_was_reached(caught.value)


def assert_was_reached(error: NoPeersLeft) -> None:
    """Fail where an error says that a peer which answered could not be reached."""
    assert not isinstance(error, PeerUnreachable)
    assert error.failures[0].has_answered


async def test_a_goodbye_lets_answers_come_that_were_asked_for_before(autojump_clock: MockClock) -> None:
    class Leaving(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if len(self.requests) == 10:
                await conversation.send(Goodbye())
            await trio.sleep(0.1)
            await super().answer(conversation, request)

    with new_database(some_pairs(500)) as source, new_database() as database:
        server = Leaving(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.keys_sent == 500, "nothing was sent twice"
    assert server.connections == 2


async def test_an_answer_that_comes_twice_costs_the_connection_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.twice, times=3)
        progress = await sync_from([server], source.root, database)
        assert_same(database, source)
    assert 2 <= server.connections <= 4
    assert progress.keys == 200


async def test_an_answer_that_nobody_asked_for_costs_the_connection(autojump_clock: MockClock) -> None:
    async def unsolicited(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await conversation.send_past_the_rules(Range(request.request_id + 7, b"\x90"))

    with new_database(some_pairs(200)) as source, new_database() as database:
        server = ScriptedServer(source, unsolicited, times=1)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.connections == 2


async def test_requests_in_flight_are_cancelled_with_the_peer_when_the_sync_is(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        silent = ScriptedServer(source, fake_servers.never)
        with trio.move_on_after(5) as scope:
            await sync_from([silent], source.root, database)
    assert scope.cancelled_caught
    assert len(silent.requests) == 1


# Peers that are no use from the first moment.


def unreachable(name: str = "nobody") -> Peer:
    async def refuse() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError("connection refused")

    return Peer(name, refuse)


async def test_a_peer_that_cannot_be_reached_is_given_up_soon(autojump_clock: MockClock) -> None:
    with (
        new_database() as database,
        pytest.raises(PeerUnreachable, match="nobody: no connection: connection refused") as caught,
    ):
        await sync_from([unreachable()], b"t" * 32, database)
    assert isinstance(caught.value.failures[0].error, ConnectionLost)
    assert trio.current_time() < 10


async def test_an_address_that_never_connects_is_given_up(autojump_clock: MockClock) -> None:
    with new_database() as database, pytest.raises(PeerUnreachable, match="no connection within 10 seconds"):
        await sync_from([Peer("black hole", trio.sleep_forever)], b"t" * 32, database)


async def test_a_peer_that_comes_back_is_used_again_while_others_work(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(2000)) as source, new_database() as database:
        slow = ScriptedServer(source, fake_servers.after(5.0), "slow")
        server = FakeServer(source, "back")

        async def open_later() -> trio.abc.Stream:
            if trio.current_time() < 100:
                raise ConnectionRefusedError("not yet")
            return await server.open_stream()

        async with trio.open_nursery() as nursery:
            server.peer(nursery)
            progress = await sync_from([slow, Peer("back", open_later)], source.root, database)
            nursery.cancel_scope.cancel()
        assert_same(database, source)
    assert progress.peers[1].keys > 0
    assert progress.peers[1].state is PeerState.CONNECTED


class Greeter(FakeServer):
    """Greets with what a function makes of its hello."""

    def __init__(self, database: Database, greeting: Callable[[Hello], bytes], name: str = "greeter") -> None:
        super().__init__(database, name)
        self._greeting = greeting

    async def greet(self, conversation: ClientConnection) -> None:
        await conversation.send_bytes(self._greeting(conversation.connection.hello))


async def test_a_store_of_another_scheme_is_refused_by_name(autojump_clock: MockClock) -> None:
    scheme = Scheme(hasher="sha256", branch_factor=256)
    with (
        new_database(some_pairs(20), scheme) as source,
        new_database() as database,
        pytest.raises(NoPeersLeft, match="it serves sha256 with branch factor 256") as caught,
    ):
        await sync_from([FakeServer(source)], source.root, database)
    error = caught.value.failures[0].error
    assert isinstance(error, SchemeDiffers)
    assert (error.hasher, error.branch_factor) == ("sha256", 256)


def http_answer(hello: Hello) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def other_version(hello: Hello) -> bytes:
    frame = bytearray(encode(hello).data)
    # length, array, kind, request id, version
    assert frame[7] == PROTOCOL_VERSION
    frame[7] = PROTOCOL_VERSION + 1
    return bytes(frame)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [(http_answer, "check that the address"), (other_version, "the peer version 2")],
)
async def test_what_is_no_server_of_ours_is_dropped_at_once(
    greeting: Callable[[Hello], bytes], message: str, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(20)) as source, new_database() as database:
        server = Greeter(source, greeting)
        with pytest.raises(NoPeersLeft, match=message) as caught:
            await sync_from([server], source.root, database)
    assert isinstance(caught.value.failures[0].error, PeerMisbehaved)
    assert server.connections == 1


async def test_a_peer_without_a_hello_is_given_up(autojump_clock: MockClock) -> None:
    with (
        new_database(some_pairs(20)) as source,
        new_database() as database,
        pytest.raises(PeerUnreachable, match="it said no hello within 10 seconds"),
    ):
        await sync_from([Greeter(source, lambda _: b"")], source.root, database)


async def test_a_peer_that_serves_nothing_is_refused(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(20)) as source, new_database() as database:
        client = FakeServer(source)
        client.max_requests = 0
        with pytest.raises(NoPeersLeft, match="it serves nothing"):
            await sync_from([client], source.root, database)


async def test_a_server_that_refuses_the_connection_says_why(autojump_clock: MockClock) -> None:
    refusal = Error(0, ErrorCode.OVERLOADED, "too many connections", 50)
    with new_database(some_pairs(20)) as source, new_database() as database:
        full = Greeter(source, lambda hello: encode(hello).data + encode(refusal).data)
        with pytest.raises(PeersOverloaded, match="overloaded: too many connections"):
            await sync_from([full], source.root, database)


class Full(FakeServer):
    """Refuses every connection before any greeting, for so many seconds."""

    def __init__(self, database: Database, seconds: float, name: str = "full", *, retry: int = 500) -> None:
        super().__init__(database, name)
        self._until = trio.current_time() + seconds
        self._refusal = Error(0, ErrorCode.OVERLOADED, "all places are taken", retry)

    async def greet(self, conversation: ClientConnection) -> None:
        if trio.current_time() >= self._until:
            await super().greet(conversation)
            return
        await conversation.send(self._refusal)
        await conversation.stream.aclose()


async def test_a_full_peer_is_tried_again_when_it_says_until_it_has_a_place(
    autojump_clock: MockClock,
) -> None:
    """It was taken for a wrong address: four refusals, within two seconds, ended the sync."""
    with new_database(some_pairs(100)) as source, new_database() as database:
        full = Full(source, 60.0)
        progress = await sync_from([full], source.root, database)
        assert_same(database, source)
    limits = Limits()
    assert 60 / limits.overload_backoff_seconds <= full.connections <= 60 / 0.5
    assert trio.current_time() < 60 + 2 * limits.overload_backoff_seconds
    assert progress.peers[0].state is PeerState.CONNECTED


async def test_a_peer_that_is_full_for_ever_is_given_up_after_long_and_is_no_wrong_address(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        with pytest.raises(PeersOverloaded, match="full: overloaded: all places are taken") as caught:
            await sync_from([Full(source, 1e9), unreachable()], source.root, database)
        waited, limits = trio.current_time(), Limits()
        assert limits.overload_patience_seconds <= waited
        assert waited <= limits.overload_patience_seconds + 2 * limits.overload_backoff_seconds
    assert not isinstance(caught.value, PeerUnreachable)


@pytest.mark.parametrize("retry", [1, 20_000, 3_600_000])
async def test_how_long_a_full_peer_is_left_alone_has_bounds_whatever_it_says(
    retry: int, autojump_clock: MockClock
) -> None:
    limits = Limits()
    with new_database(some_pairs(100)) as source, new_database() as database:
        full = Full(source, 1e9, retry=retry)
        with pytest.raises(PeersOverloaded):
            await sync_from([full], source.root, database)
    assert trio.current_time() <= limits.overload_patience_seconds + limits.max_backoff_seconds
    longest = limits.max_backoff_seconds if retry > 1 else limits.overload_backoff_seconds
    shortest = min(retry / 1000, limits.max_backoff_seconds / 2)
    most = limits.overload_patience_seconds / max(shortest, limits.overload_backoff_seconds / 2)
    assert limits.overload_patience_seconds / longest <= full.connections <= most + 8


async def test_who_follows_a_peer_that_is_full_says_so_and_waits_for_ever(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        async with trio.open_nursery() as nursery:
            full = Full(source, 3 * Limits().overload_patience_seconds)
            manager = Manager(database, [full.peer(nursery)], trust_peers=True, executor=InEventLoop())
            nursery.start_soon(manager.follow)
            situations = []
            for _ in range(2):
                await trio.sleep(2 * Limits().overload_patience_seconds)
                situations.append(manager.progress.status)
            assert situations == [SyncStatus.PEERS_OVERLOADED, SyncStatus.IN_SYNC]
            nursery.cancel_scope.cancel()
        assert_same(database, source)


async def test_peers_that_are_full_hold_up_nobody_who_has_another(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(500)) as source, new_database() as database:
        full = [Full(source, 1e9, "always"), Full(source, 1.0, "for a while")]
        honest = ScriptedServer(source, fake_servers.after(0.5), "honest")
        progress = await sync_from([*full, honest], source.root, database)
        assert_same(database, source)
    assert progress.peers[0].state is PeerState.OVERLOADED
    assert progress.peers[1].keys > 0, "it is used as soon as it has a place"
    assert trio.current_time() < 20


async def test_a_connection_that_has_to_make_room_is_opened_again_and_costs_nothing(
    autojump_clock: MockClock,
) -> None:
    class Rotating(FakeServer):
        answers = 0

        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if conversation.connection.our_state is State.ENDED:
                return
            await super().answer(conversation, request)
            self.answers += 1
            if self.answers % 3 == 0 and conversation.connection.our_state is State.OPEN:
                await conversation.send(Error(0, ErrorCode.OVERLOADED, "others wait for their turn", 500))
                await conversation.stream.aclose()

    with new_database(some_pairs(500)) as source, new_database() as database:
        server = Rotating(source)
        await sync_from([server], source.root, database)
        assert_same(database, source)
    assert server.connections > Limits().max_failures


# Transports that are not ours.


class TransportError(Exception):
    """What a transport of somebody else's raises; it knows none of ours."""


def raising(error: Exception, cause: Exception | None = None) -> Peer:
    async def fail() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error from cause

    return Peer("strange", fail)


TLS = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (raising(TransportError("no circuit")), "no connection: TransportError: no circuit"),
        (raising(TransportError()), "no connection: TransportError"),
        (raising(trio.BrokenResourceError(), TLS), "no connection: .SSL: CERTIFICATE_VERIFY_FAILED"),
        (raising(ExceptionGroup("two", [OSError(111, "refused")])), "no connection: Connection refused"),
        (raising(TransportError("two\nlines\x1b[1m")), "TransportError: two lines "),
    ],
)
async def test_whatever_a_transport_raises_is_a_failed_attempt_of_its_peer(
    peer: Peer, reason: str, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        with pytest.raises(PeerUnreachable, match=f"strange: .*{reason}"):
            await sync_from([peer], source.root, database)
        progress = await sync_from([peer, FakeServer(source)], source.root, database)
        assert_same(database, source)
    assert "no connection" in progress.peers[0].reason


class StrangeStream(trio.abc.Stream):
    """A stream that fails in a way of its own, when it is first received from or sent to, and closed."""

    def __init__(self, stream: trio.abc.Stream, *, sends: bool) -> None:
        self._stream = stream
        self._sends = sends

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self._sends:
            raise TransportError("cannot send") from TLS
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await self._stream.receive_some(max_bytes)
        raise TransportError("cannot receive") from TLS

    async def aclose(self) -> None:
        raise TransportError("cannot close")


@pytest.mark.parametrize("sends", [False, True])
async def test_whatever_a_stream_raises_is_a_lost_connection_of_its_peer(
    sends: bool, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(200)) as source, new_database() as database:
        behind, honest = FakeServer(source, "behind"), FakeServer(source, "honest")

        async def open_strange() -> trio.abc.Stream:
            return StrangeStream(await behind.open_stream(), sends=sends)

        async with trio.open_nursery() as nursery:
            behind.peer(nursery)
            strange = Peer("strange", open_strange)
            with pytest.raises(NoPeersLeft, match=r"the connection broke: .SSL: CERT"):
                await sync_from([strange], source.root, database)
            await sync_from([strange, honest], source.root, database)
            nursery.cancel_scope.cancel()
        assert_same(database, source)


# Error codes.


async def test_an_unknown_root_leads_to_another_peer(autojump_clock: MockClock) -> None:
    with (
        new_database(some_pairs(300)) as source,
        new_database(some_pairs(10)) as old,
        new_database() as database,
    ):
        behind, current = FakeServer(old, "behind"), FakeServer(source, "current")
        progress = await sync_from([behind, current], source.root, database)
        assert_same(database, source)
    assert progress.peers[0].state is PeerState.LACKING
    assert behind.connections == 1, "it is no reason to hang up"
    assert "unknown root" in progress.peers[0].reason


async def test_a_peer_that_gets_the_target_later_is_used_then(autojump_clock: MockClock) -> None:
    with (
        new_database(some_pairs(2000)) as source,
        new_database(some_pairs(10)) as old,
        new_database() as database,
    ):
        behind = FakeServer(old, "behind")
        slow = ScriptedServer(source, fake_servers.after(10.0), "slow")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def catch_up() -> None:
                await trio.sleep(60)
                behind.database = source

            progress = await sync_from([behind, slow], source.root, database)
        assert_same(database, source)
    assert progress.peers[0].keys > 0


async def test_no_peer_with_the_target_is_a_typed_error(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(300)) as source, new_database() as database:
        servers = [FakeServer(source, "one"), FakeServer(source, "two")]
        with pytest.raises(TargetGone) as caught:
            await sync_from([*servers, unreachable()], b"t" * 32, database)
    assert [failure.peer for failure in caught.value.failures] == ["one", "two", "nobody"]


async def test_an_overloaded_peer_is_asked_again_no_sooner_than_it_says(autojump_clock: MockClock) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        script = fake_servers.refuse(ErrorCode.OVERLOADED, 7000)
        busy = ScriptedServer(source, script, times=2)
        began = trio.current_time()
        await sync_from([busy], source.root, database)
        assert_same(database, source)
        assert trio.current_time() - began >= 14
    assert busy.connections == 1


@pytest.mark.parametrize(
    ("code", "detail"),
    [(ErrorCode.INTERNAL, None), (ErrorCode.SHUTTING_DOWN, None)],
)
async def test_a_peer_that_always_refuses_is_given_up(
    code: ErrorCode, detail: int | None, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.refuse(code, detail))
        with pytest.raises(NoPeersLeft):
            await sync_from([server], source.root, database)
        assert len(server.requests) <= 3 * Limits().max_failures


async def test_a_peer_that_greets_and_is_then_overloaded_for_ever_is_given_up(
    autojump_clock: MockClock,
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.refuse(ErrorCode.OVERLOADED, 10))
        with pytest.raises(PeersOverloaded):
            await sync_from([server], source.root, database)
    limits = Limits()
    assert trio.current_time() <= limits.overload_patience_seconds + 2 * limits.overload_backoff_seconds
    assert len(server.requests) <= 3 * limits.overload_patience_seconds / limits.overload_backoff_seconds


@pytest.mark.parametrize("code", [ErrorCode.BAD_REQUEST, ErrorCode.SCHEME_MISMATCH])
async def test_a_peer_with_which_we_cannot_talk_is_dropped(
    code: ErrorCode, autojump_clock: MockClock
) -> None:
    with new_database(some_pairs(100)) as source, new_database() as database:
        server = ScriptedServer(source, fake_servers.refuse(code))
        with pytest.raises(NoPeersLeft):
            await sync_from([server], source.root, database)
    assert server.connections == 1


async def test_a_pair_that_is_claimed_to_be_beyond_the_hard_cap_drops_only_who_claims_it(
    autojump_clock: MockClock,
) -> None:
    claim = fake_servers.refuse(ErrorCode.LIMIT_TOO_SMALL, 1 << 30)
    with new_database(some_pairs(100)) as source, new_database() as database:
        liar = ScriptedServer(source, claim, "liar")
        progress = await sync_from([liar, FakeServer(source)], source.root, database)
        assert_same(database, source)
        assert progress.peers[0].state is PeerState.BANNED
    with (
        new_database(some_pairs(100)) as source,
        new_database() as database,
        pytest.raises(PairTooLarge) as caught,
    ):
        await sync_from([ScriptedServer(source, claim)], source.root, database)
    assert caught.value.needed_bytes == 1 << 30


@pytest.mark.parametrize("needed_bytes", [1, 1 << 20, 64 << 20])
async def test_a_peer_that_claims_large_pairs_where_there_are_none_delays_only_itself(
    needed_bytes: int, autojump_clock: MockClock
) -> None:
    class Claiming(FakeServer):
        async def answer(self, conversation: ClientConnection, request: Asked) -> None:
            if request.max_bytes < needed_bytes or needed_bytes == 1:
                code = ErrorCode.LIMIT_TOO_SMALL
                await conversation.send(Error(request.request_id, code, "too small", needed_bytes))
            else:
                await super().answer(conversation, request)

    with new_database(some_pairs(500)) as source, new_database() as database:
        began = trio.current_time()
        liar = Claiming(source, "liar")
        await sync_from(
            [liar, FakeServer(source)], source.root, database, Limits(max_keys=16, max_bytes=8192)
        )
        assert_same(database, source)
        assert trio.current_time() - began < 60
    assert liar.keys_sent < 20


# Everything at once.

BAD_SCRIPTS: list[Answer] = [
    *(script for script, _ in LIES.values()),
    fake_servers.never,
    fake_servers.twice,
    fake_servers.half_a_frame,
    fake_servers.hang_up,
    fake_servers.junk,
    fake_servers.goodbye,
    fake_servers.after(25.0),
    fake_servers.refuse(ErrorCode.UNKNOWN_ROOT),
    fake_servers.refuse(ErrorCode.OVERLOADED, 1),
    fake_servers.refuse(ErrorCode.INTERNAL),
    fake_servers.refuse(ErrorCode.LIMIT_TOO_SMALL, 1 << 21),
    fake_servers.claim_and_then(1 << 21, fake_servers.never),
    fake_servers.claim_and_then(1 << 21, fake_servers.trickle),
    drip(7),
]


@pytest.mark.slow
@settings(max_examples=amount(40, soak=2_000))
@given(st.lists(st.sampled_from(BAD_SCRIPTS), max_size=5), st.integers(0, 5), st.integers(0, 1 << 32))
def test_one_honest_peer_is_enough_among_any_others(scripts: list[Answer], place: int, seed: int) -> None:
    async def main() -> None:
        bad = [ScriptedServer(source, script, f"bad {at}") for at, script in enumerate(scripts)]
        servers = [*bad[:place], FakeServer(source, "honest"), *bad[place:]]
        await sync_from(servers, source.root, database)
        # Each bad peer can hold up one piece of work for a timeout, and a few times after a backoff.
        assert trio.current_time() < 600

    with new_database(some_pairs(150, seed)) as source, new_database() as database:
        trio.run(main, clock=MockClock(autojump_threshold=0))
        assert_same(database, source)
