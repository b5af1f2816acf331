"""A server of a real database on real sockets."""

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import trio

import merkledb
from merkledb import (
    ChangeProof,
    Database,
    RangeProof,
    Scheme,
    VerifiedChanges,
    VerifiedRange,
    verify_range,
)
from server import (
    AddressInUse,
    AddressNotAllowed,
    AddressNotFound,
    ListenError,
    Server,
    ServerLimits,
    addresses_of,
    open_listeners,
)
from syncproto import Changes, Error, ErrorCode, GetHead, Goodbye, Head, Range
from tests.support.protocol_client import NO_WAIT_SECONDS, Client

CONTENT = {sha256(number.to_bytes(8, "big")).digest(): number.to_bytes(40, "big") for number in range(500)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with merkledb.open(tmp_path / "store") as database:
        database.commit(CONTENT)
        yield database


@pytest.fixture
async def address(database: Database) -> AsyncIterator[tuple[str, int]]:
    async with serving(database) as address:
        yield address


@asynccontextmanager
async def serving(database: Database, server: Server | None = None) -> AsyncIterator[tuple[str, int]]:
    """Serve a database for the time of a ``with`` block."""
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start((server or Server(database)).serve, listeners)
        yield addresses_of(listeners)[0]
        nursery.cancel_scope.cancel()


async def greeted(address: tuple[str, int]) -> Client:
    client = Client(await trio.open_tcp_stream(*address))
    await client.greet()
    return client


async def copied(client: Client, root: bytes, max_keys: int) -> dict[bytes, bytes]:
    """Return the content at a root, every range of it verified."""
    content: dict[bytes, bytes] = {}
    start: bytes | None = None
    while True:
        answer = await client.ask(client.get_range(root, start=start, max_keys=max_keys))
        assert isinstance(answer, Range)
        verified = verify_range(RangeProof.decode(answer.proof), root, start, None, scheme=Scheme())
        content |= zip(verified.keys, verified.values, strict=True)
        if verified.complete:
            return content
        assert verified.end is not None
        start = verified.end + b"\0"


@pytest.mark.parametrize("max_keys", [1000, 61])
async def test_a_whole_database_is_copied_range_by_range(
    database: Database, address: tuple[str, int], max_keys: int
) -> None:
    client = await greeted(address)
    head = await client.ask(GetHead(99))
    assert isinstance(head, Head)
    assert (head.root, head.revision, head.keys) == (database.root, database.revision, len(CONTENT))
    assert await copied(client, database.root, max_keys) == CONTENT
    await client.stream.aclose()


async def test_many_clients_at_once(database: Database, address: tuple[str, int]) -> None:
    async def copy() -> None:
        client = await greeted(address)
        assert await copied(client, database.root, 100) == CONTENT
        await client.stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(copy)


async def test_a_whole_copy_at_an_old_root_while_the_writer_commits(
    database: Database, address: tuple[str, int]
) -> None:
    """Every range of the copy is verified against the old root, and each comes between two commits."""
    client = await greeted(address)
    root = database.root
    content: dict[bytes, bytes] = {}
    start: bytes | None = None
    for number in itertools.count():
        answer = await client.ask(client.get_range(root, start=start, max_keys=61))
        assert isinstance(answer, Range)
        verified = verify_range(RangeProof.decode(answer.proof), root, start, None, scheme=Scheme())
        content |= zip(verified.keys, verified.values, strict=True)
        if verified.complete:
            break
        assert verified.end is not None
        start = verified.end + b"\0"
        some = list(CONTENT)[number * 31 :: 7]
        database.commit({**dict.fromkeys(some), number.to_bytes(2, "big"): b"new"})
    assert content == CONTENT
    await client.stream.aclose()


async def test_a_proof_is_whole_though_the_writer_commits_in_another_thread(
    database: Database, address: tuple[str, int]
) -> None:
    roots = [database.root]
    contents = {database.root: dict(CONTENT)}

    def write() -> None:
        for number in range(20):
            changes = {key: number.to_bytes(4, "big") for key in list(CONTENT)[number::20]}
            after = contents[roots[-1]] | changes
            contents[merkledb.root_of(after)] = after
            roots.append(database.commit(changes))

    async def read() -> None:
        client = await greeted(address)
        for _ in range(10):
            # The oldest is the most work, and the newest may be a moment old.
            for root in (roots[0], roots[-1]):
                assert await copied(client, root, 200) == contents[root]
        await client.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write)
        nursery.start_soon(read)


async def test_a_root_that_was_pruned_is_gone_and_one_that_never_was_is_unknown(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store", history=2) as database:
        roots = [database.commit({b"key": bytes([number])}) for number in range(4)]
        async with serving(database) as address:
            client = await greeted(address)
            for root in roots[:2]:
                error = await client.refused(client.get_range(root))
                assert error.code is ErrorCode.HISTORY_GONE
            error = await client.refused(client.get_range(b"?" * 32))
            assert error.code is ErrorCode.UNKNOWN_ROOT
            for number in (2, 3):
                assert await copied(client, roots[number], 10) == {b"key": bytes([number])}
            await client.stream.aclose()


async def brought_forward(
    client: Client, copy: Database, old: bytes, new: bytes, max_keys: int
) -> dict[type[object], int]:
    """Bring a copy from an old root to a new one, and return how many answers there were of each sort."""
    answers: dict[type[object], int] = {Changes: 0, Range: 0}
    start: bytes | None = None
    while True:
        request = client.get_changes(old, new, start=start, max_keys=max_keys)
        answer = await client.ask(request)
        assert isinstance(answer, Changes | Range)
        answers[type(answer)] += 1
        verified: VerifiedChanges | VerifiedRange
        if isinstance(answer, Changes):
            verified = copy.verify_changes(
                ChangeProof.decode(answer.proof), new, start, max_keys=max_keys, max_bytes=request.max_bytes
            )
        else:
            verified = verify_range(RangeProof.decode(answer.proof), new, start, scheme=copy.scheme)
        copy.apply(verified)
        if verified.complete:
            return answers
        assert verified.end is not None
        start = verified.end + b"\0"


@pytest.mark.parametrize("max_keys", [1000, 17])
async def test_a_copy_is_brought_forward_by_changes(
    database: Database, address: tuple[str, int], tmp_path: Path, max_keys: int
) -> None:
    old = database.root
    database.commit({**dict.fromkeys(list(CONTENT)[::9]), b"": b"the empty key"})
    new = database.commit(dict.fromkeys(list(CONTENT)[::5], b"changed"))
    with merkledb.open(tmp_path / "copy") as copy:
        copy.commit(CONTENT)
        client = await greeted(address)
        answers = await brought_forward(client, copy, old, new, max_keys)
        assert answers[Range] == 0
        assert copy.root == new
        assert dict(copy.items()) == dict(database.items())
        assert dict(await brought_forward_again(client, copy, old, max_keys)) == CONTENT
        await client.stream.aclose()


async def brought_forward_again(
    client: Client, copy: Database, root: bytes, max_keys: int
) -> Iterable[tuple[bytes, bytes]]:
    """Bring a copy to another root, such as an older one, and return its pairs."""
    await brought_forward(client, copy, copy.root, root, max_keys)
    assert copy.root == root
    return copy.items()


@pytest.mark.parametrize("max_keys", [1000, 17])
async def test_a_copy_that_history_does_not_reach_is_brought_forward_by_ranges(
    tmp_path: Path, max_keys: int
) -> None:
    with (
        merkledb.open(tmp_path / "store", history=1) as database,
        merkledb.open(tmp_path / "copy") as copy,
    ):
        database.commit(CONTENT)
        copy.commit(CONTENT)
        new = database.commit(dict.fromkeys(list(CONTENT)[::9]))
        server = Server(database)
        async with serving(database, server) as address:
            client = await greeted(address)
            answers = await brought_forward(client, copy, copy.root, new, max_keys)
            assert answers[Changes] == 0
            assert server.counters.fallbacks == answers[Range]
            assert copy.root == new
            error = await client.refused(client.get_changes(new, merkledb.root_of(CONTENT)))
            assert error.code is ErrorCode.HISTORY_GONE
            await client.stream.aclose()


async def test_a_change_larger_than_an_ordinary_proof_is_sent_when_asked_for(
    database: Database, address: tuple[str, int]
) -> None:
    client = await greeted(address)
    old, value = database.root, bytes(5 << 20)
    new = database.commit({b"\x80large": value, b"\x80larger": b"short"})
    error = await client.refused(client.get_changes(old, new))
    assert error.code is ErrorCode.LIMIT_TOO_SMALL
    assert error.detail is not None
    answer = await client.ask(client.get_changes(old, new, max_bytes=error.detail))
    assert isinstance(answer, Changes)
    assert ChangeProof.decode(answer.proof).values[0] == value
    await client.stream.aclose()


@pytest.mark.slow
async def test_subscribers_hear_of_commits_of_this_process_and_of_others(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with merkledb.open(path) as database:
        database.commit({b"a": b"1"})
    with merkledb.open(path, readonly=True) as database:
        async with serving(database) as address:
            client = await greeted(address)
            head = await client.subscribe()
            assert (head.root, head.revision, head.keys) == (database.root, 1, 1)
            for number in range(3):
                await trio.to_thread.run_sync(partial(commit_elsewhere, path, number))
                head = await client.next_head()
                assert (head.root, head.revision, head.keys) == (database.root, 2 + number, 2 + number)
            await client.stream.aclose()


def commit_elsewhere(path: Path, number: int) -> None:
    program = (
        f"import merkledb\nwith merkledb.open({str(path)!r}) as d: d.commit({{b'key {number}': b'value'}})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_stopped_server_takes_leave_of_its_subscribers(database: Database) -> None:
    server = Server(database)
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        clients = [await greeted(addresses_of(listeners)[0]) for _ in range(3)]
        for client in clients:
            await client.subscribe()
        database.commit({b"new": b"value"})
        server.announce()
        for client in clients:
            assert (await client.next_head()).root == database.root
        server.stop()
        for client in clients:
            assert await client.receive() == Goodbye()
            await client.stream.aclose()


@pytest.mark.slow
async def test_a_replica_that_catches_up_shows_its_last_root_until_it_has_the_next(
    database: Database, tmp_path: Path
) -> None:
    """Beginning with none at all: a first sync that is unfinished has no root to show."""
    with merkledb.open(tmp_path / "replica") as replica:
        async with serving(replica) as address:
            client = await greeted(address)
            assert (await client.subscribe()).root == merkledb.EMPTY_ROOT
            root = database.root
            half = verify_range(database.prove_range(max_keys=250), root, max_keys=250)
            replica.apply(half)
            assert await client.next_head() == Head(77, None, 0, 0)
            error = await client.refused(client.get_range(root))
            assert error.code is ErrorCode.UNKNOWN_ROOT
            assert half.end is not None
            rest = half.end + b"\0"
            replica.apply(verify_range(database.prove_range(rest, max_keys=250), root, rest, max_keys=250))
            head = await client.next_head()
            assert (head.root, head.keys) == (root, len(CONTENT))
            assert await copied(client, root, 100) == CONTENT

            new = database.commit(dict.fromkeys(CONTENT, b"changed"))
            replica.apply(verify_range(database.prove_range(max_keys=250), new, max_keys=250))
            assert replica.catching_up
            assert await client.ask(GetHead(5)) == replace(head, request_id=5)
            assert await copied(client, root, 100) == CONTENT
            replica.apply(verify_range(database.prove_range(rest, max_keys=250), new, rest, max_keys=250))
            assert (await client.next_head()).root == new
            assert await copied(client, new, 100) == dict.fromkeys(CONTENT, b"changed")
            await client.stream.aclose()


async def test_a_pair_larger_than_an_ordinary_proof_is_sent_when_asked_for(
    database: Database, address: tuple[str, int]
) -> None:
    client = await greeted(address)
    value = bytes(5 << 20)
    root = database.commit({b"\x80large": value})
    first = client.get_range(root, start=b"\x80large")
    error = await client.refused(first)
    assert error.code is ErrorCode.LIMIT_TOO_SMALL
    assert error.detail is not None
    answer = await client.ask(client.get_range(root, start=b"\x80large", max_bytes=error.detail))
    assert isinstance(answer, Range)
    assert RangeProof.decode(answer.proof).values == (value,)
    await client.stream.aclose()


async def test_a_bad_range_is_a_bad_request(database: Database, address: tuple[str, int]) -> None:
    client = await greeted(address)
    error = await client.refused(client.get_range(database.root, start=b"b", end=b"a"))
    assert error.code is ErrorCode.BAD_REQUEST
    await client.stream.aclose()


@pytest.mark.parametrize("bound", [bytes(255), bytes(256), b"\xff" * 1024])
async def test_bounds_of_any_length_are_answered(
    database: Database, address: tuple[str, int], bound: bytes
) -> None:
    client = await greeted(address)
    answer = await client.ask(client.get_range(database.root, start=bound, max_keys=3))
    assert isinstance(answer, Range | Error)
    if isinstance(answer, Error):
        assert answer.code is ErrorCode.BAD_REQUEST
    await client.stream.aclose()


async def test_the_last_word_arrives_though_the_client_has_sent_more(database: Database) -> None:
    """Closing a socket with unread bytes resets it, and a reset destroys what the peer has not read yet."""
    listeners = await open_listeners("127.0.0.1", 0)
    limits = ServerLimits(max_connections=1, wait_seconds=NO_WAIT_SECONDS)
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(database, limits=limits).serve, listeners)
        address = addresses_of(listeners)[0]
        first = await greeted(address)
        second = Client(await trio.open_tcp_stream(*address))
        await second.stream.send_all(second.connection.send(second.connection.hello) + bytes(10_000))
        refusal = await second.receive()
        assert isinstance(refusal, Error)
        assert (refusal.request_id, refusal.code) == (0, ErrorCode.OVERLOADED)
        await second.stream.aclose()
        await first.stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_stopped_server_has_answered_and_closed_its_port(database: Database) -> None:
    server = Server(database)
    listeners = await open_listeners("127.0.0.1", 0)
    address = addresses_of(listeners)[0]
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        client = await greeted(address)
        request = client.get_range(database.root)
        await client.send(request)
        answer = await client.receive()
        server.stop()
        assert isinstance(answer, Range)
        assert await client.receive() == Goodbye()
        await client.stream.aclose()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(*address)


async def test_an_address_in_use_is_said_to_be() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    ((host, port),) = addresses_of([listener])
    async with listener:
        with pytest.raises(AddressInUse) as caught:
            await open_listeners(host, port)
    assert (caught.value.host, caught.value.port) == (host, port)
    assert "another program" in str(caught.value)


@pytest.mark.parametrize("host", ["no such host", "nowhere.invalid", "192.0.2.1", "x" * 300, ""])
async def test_an_address_that_is_not_this_machines_is_said_to_be(host: str) -> None:
    with pytest.raises(AddressNotFound):
        await open_listeners(host, 0)


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_a_port_out_of_range_is_said_to_be(port: int) -> None:
    with pytest.raises(ListenError, match="a port is a number"):
        await open_listeners("127.0.0.1", port)


async def test_a_listener_that_the_system_forbids_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(port: int, *, host: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    with pytest.raises(AddressNotAllowed):
        await open_listeners("127.0.0.1", 80)
