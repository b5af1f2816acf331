"""A server of a real database on real sockets."""

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio

import merkledb
from merkledb import Database, RangeProof, Scheme, verify_range
from server import (
    AddressInUse,
    AddressNotAllowed,
    AddressNotFound,
    ListenError,
    Server,
    ServerLimits,
    addresses_of,
    open_listeners,
    serve,
)
from syncproto import Error, ErrorCode, GetHead, Goodbye, Head, Range
from tests.server_peers import Client

CONTENT = {sha256(number.to_bytes(8, "big")).digest(): number.to_bytes(40, "big") for number in range(500)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with merkledb.open(tmp_path / "store") as database:
        database.commit(CONTENT)
        yield database


@pytest.fixture
async def address(database: Database) -> AsyncIterator[tuple[str, int]]:
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, database, listeners)
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
    assert await copied(client, head.root, max_keys) == CONTENT
    await client.stream.aclose()


async def test_many_clients_at_once(database: Database, address: tuple[str, int]) -> None:
    async def copy() -> None:
        client = await greeted(address)
        assert await copied(client, database.root, 100) == CONTENT
        await client.stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(copy)


async def test_a_commit_makes_the_old_root_unknown(database: Database, address: tuple[str, int]) -> None:
    client = await greeted(address)
    old = database.root
    database.commit({b"new": b"value"})
    error = await client.refused(client.get_range(old))
    assert error.code is ErrorCode.UNKNOWN_ROOT
    assert await copied(client, database.root, 1000) == CONTENT | {b"new": b"value"}
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
    limits = ServerLimits(max_connections=1)
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
