"""serve, sync, status: real processes on this machine's loopback, honest, lying, gone, and interrupted."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import merkledb
from manager.peers.address import Address
from merkledb import ChangeProof, Database, HistoryGone, Revision, Snapshot, root_of
from merklesync.commands.options import parse_listen_address
from merklesync.console.output import is_loopback
from server import Server, open_listeners
from server.closing import refuse
from syncproto import Error, ErrorCode
from tests.support.command_line import (
    DEADLINE_SECONDS,
    content,
    fail,
    fill,
    finish,
    run,
    serving,
    standard_input,
    start,
    succeed,
    succeed_json,
)

pytestmark = pytest.mark.slow

PAIRS = {b"key %d" % number: b"value %d" % number for number in range(2_000)}
ROOT = root_of(PAIRS).hex()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "store"
    fill(path, PAIRS)
    return path


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with serving(store) as address:
        yield address


@contextmanager
def closed_port() -> Iterator[str]:
    """Give an address at which nothing listens and nothing else will, as long as the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


class LyingDatabase(Database):
    """Claims to be at a root that it is not at, and proves what it holds."""

    def __init__(self, database: Database, root: bytes) -> None:
        self._database = database
        self._root = root
        self.scheme = database.scheme

    @property
    def head(self) -> Revision | None:
        head = self._database.head
        return head and head._replace(root=self._root)

    def at(self, root: bytes) -> Snapshot:
        return self._database.snapshot()

    def prove_changes(
        self,
        old: bytes,
        new: bytes,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = 1,
        max_bytes: int = 1,
    ) -> ChangeProof:
        raise HistoryGone(old)


@contextmanager
def listening(serve: Callable[[list[trio.SocketListener]], Awaitable[None]]) -> Iterator[str]:
    """Serve from a thread, for the command needs the main one for its signals; give the address."""
    started = threading.Event()
    addresses: list[str] = []
    stops: list[Callable[[], None]] = []

    async def run_server() -> None:
        try:
            await listen()
        finally:
            started.set()

    async def listen() -> None:
        listeners = await open_listeners("127.0.0.1", 0)
        with trio.CancelScope() as scope:
            token = trio.lowlevel.current_trio_token()
            stops.append(lambda: token.run_sync_soon(scope.cancel))
            addresses.append(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            started.set()
            await serve(listeners)

    thread = threading.Thread(target=trio.run, args=(run_server,), daemon=True)
    thread.start()
    assert started.wait(DEADLINE_SECONDS)
    try:
        yield addresses[0]
    finally:
        stops[0]()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@contextmanager
def liar(folder: Path, root: str) -> Iterator[str]:
    """Serve forged content under a root; give the address."""
    fill(folder / "forged", PAIRS | {b"key 77": b"forged"})
    with merkledb.open(folder / "forged", scheme=None, readonly=True) as database:
        server = Server(LyingDatabase(database, bytes.fromhex(root)))
        with listening(server.serve) as address:
            yield address


@contextmanager
def stalling_relay(address: str, max_bytes: int) -> Iterator[str]:
    """Pass on what a client and the server at ``address`` say, until the server has said so much."""
    left_bytes = max_bytes

    async def pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()

    async def pass_some_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        nonlocal left_bytes
        async for data in source:
            left_bytes -= len(data)
            if left_bytes < 0:
                await trio.sleep_forever()
            await sink.send_all(data)
        await sink.send_eof()

    async def relay(client: trio.SocketStream) -> None:
        async with (
            await trio.open_tcp_stream(*parse_listen_address(address)) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(pass_on, client, server)
            nursery.start_soon(pass_some_on, server, client)

    with listening(partial(trio.serve_listeners, relay)) as relay_address:
        yield relay_address


@contextmanager
def full_at_first(store: Path, refusals: int) -> Iterator[str]:
    """Serve a store, but refuse the first connections as a server does that is full; give the address."""
    left = refusals
    full = Error(0, ErrorCode.OVERLOADED, "all places are taken: try again", 1)
    with merkledb.open(store, scheme=None, readonly=True) as database:
        server = Server(database)

        async def answer(stream: trio.SocketStream) -> None:
            nonlocal left
            left -= 1
            await (server._handle(stream) if left < 0 else refuse(stream, full))

        with listening(partial(trio.serve_listeners, answer)) as address:
            yield address


def test_a_sync_waits_for_a_server_that_is_full(tmp_path: Path, store: Path) -> None:
    """Both where it asks which scheme a new store needs, and where it copies."""
    with full_at_first(store, 1) as address:
        result = run("sync", tmp_path / "copy", "--from", address, "--root", ROOT)
        assert result.exit_code == 0, result.output
        assert f"Note: {address}: it is overloaded: all places are taken: try again; waiting" in result.stderr
    assert content(tmp_path / "copy") == PAIRS
    with full_at_first(store, 5) as address:
        succeed("put", tmp_path / "other", "a key", "a value")
        document = succeed_json("sync", tmp_path / "other", "--from", address, "--root", ROOT, "--replace")
    assert document["root"] == ROOT


def test_a_new_replica_waits_for_a_server_that_is_full(tmp_path: Path, store: Path) -> None:
    with full_at_first(store, 2) as address:
        lines = f"{ROOT}\n".encode()
        with standard_input(lines):
            assert ROOT in succeed("follow", tmp_path / "replica", "--from", address, "--roots", "-")


def test_the_status_of_a_server_that_is_full_says_so_at_once(tmp_path: Path, store: Path) -> None:
    with full_at_first(store, 1_000) as address:
        sentence = fail(1, "status", address)
        assert sentence == (
            f"every peer that answers is overloaded ({address}: it is overloaded: "
            "all places are taken: try again): try again later, or name another peer"
        )
        fill(tmp_path / "mine", PAIRS)
        document = succeed_json("status", tmp_path / "mine", "--from", address)
        assert document["situation"] == "peers overloaded"
        assert document["peers"][0]["standing"].startswith("it is overloaded")


def test_a_sync_makes_a_verified_copy(tmp_path: Path, address: str) -> None:
    document = succeed_json("sync", tmp_path / "copy", "--from", address, "--root", ROOT)
    assert {name: document[name] for name in ("root", "keys", "synced_keys", "fetched_keys")} == {
        "root": ROOT,
        "keys": 2_000,
        "synced_keys": 2_000,
        "fetched_keys": 2_000,
    }
    assert [(peer["name"], peer["keys"]) for peer in document["peers"]] == [(address, 2_000)]
    with merkledb.open(tmp_path / "copy", readonly=True) as database:
        assert dict(database.items()) == PAIRS
    again = succeed_json("sync", tmp_path / "copy", "--from", address, "--root", ROOT)
    assert (again["revision"], again["fetched_keys"]) == (document["revision"], 0)


def test_a_trusted_peer_names_root_and_scheme(tmp_path: Path) -> None:
    root = fill(tmp_path / "store", PAIRS, "--hasher", "sha256", "--branch-factor", "256")
    with serving(tmp_path / "store") as address:
        assert root in succeed("sync", tmp_path / "copy", "--from", address, "--trust-peer")
        sentence = fail(1, "sync", tmp_path / "other", "--from", address, "--root", root)
        assert "add --hasher sha256 --branch-factor 256" in sentence
        assert not (tmp_path / "other").exists()
        options = ["--hasher", "sha256", "--branch-factor", "256"]
        assert (
            succeed_json("sync", tmp_path / "other", "--from", address, "--root", root, *options)["root"]
            == root
        )


def test_content_written_here_is_replaced_only_when_allowed(tmp_path: Path, address: str) -> None:
    root = fill(tmp_path / "mine", {b"mine": b"precious"})
    arguments = ["sync", tmp_path / "mine", "--from", address, "--root", ROOT]
    assert "add --replace" in fail(1, *arguments)
    assert succeed("root", tmp_path / "mine").strip() == root
    assert succeed_json(*arguments, "--replace")["keys"] == 2_000
    assert "has no key mine" in fail(1, "get", tmp_path / "mine", "mine")


def test_several_peers_of_which_one_is_gone(tmp_path: Path, address: str) -> None:
    with closed_port() as gone:
        output = succeed("sync", tmp_path / "copy", "--from", gone, "--from", address, "--trust-peer")
        assert output.endswith(f" {ROOT}\n")
        assert f"peer {gone}" in output


def test_no_peer_is_exit_code_4(tmp_path: Path) -> None:
    with closed_port() as gone:
        for command in (["status", gone], ["sync", tmp_path / "new", "--from", gone, "--root", ROOT]):
            assert f"{gone}: Connection refused" in fail(4, *command)
        assert not (tmp_path / "new").exists()
        fill(tmp_path / "store", {})
        assert "no peer could be reached" in fail(
            4, "sync", tmp_path / "store", "--from", gone, "--root", ROOT
        )


def test_a_root_that_no_peer_has_is_named(tmp_path: Path, address: str) -> None:
    assert "no peer has the target root" in fail(
        1, "sync", tmp_path / "c", "--from", address, "--root", "77" * 32
    )


def test_a_lying_peer_is_exit_code_3_and_named(tmp_path: Path) -> None:
    with liar(tmp_path, ROOT) as address:
        sentence = fail(3, "sync", tmp_path / "copy", "--from", address, "--root", ROOT)
    assert address in sentence
    assert "invalid proof: wrong root" in sentence
    assert succeed("list", tmp_path / "copy") == ""


def test_one_honest_peer_beside_a_liar_is_enough(tmp_path: Path, address: str) -> None:
    with liar(tmp_path, ROOT) as lying:
        arguments = ["sync", tmp_path / "copy", "--from", lying, "--from", address, "--root", ROOT]
        assert succeed_json(*arguments)["root"] == ROOT


def test_what_is_no_server_is_told_apart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        # Something answered, so this is not "no peer could be reached", exit code 4.
        sentence = fail(1, "status", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "it does not speak merklesync" in sentence


def test_status_shows_what_a_server_says(address: str) -> None:
    document = succeed_json("status", address)
    expected = {
        "root": ROOT,
        "revision": 1,
        "keys": len(PAIRS),
        "hasher": "blake3",
        "branch_factor": 16,
        "protocol": 1,
    }
    assert {name: document[name] for name in expected} == expected
    facts = succeed("status", address)
    assert ROOT in facts
    assert f"keys      {len(PAIRS):,}\n" in facts


def test_a_store_can_be_written_while_it_is_served(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"a": b"1"})
    with serving(tmp_path / "store") as address:
        root = succeed("put", tmp_path / "store", "b", "2").strip()
        assert succeed_json("status", address)["root"] == root


def test_serve_says_where_and_what_and_ends_well_when_told(store: Path) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):
        with start("serve", store, "--listen", ":0") as server:
            assert server.stdout is not None
            lines = [server.stdout.readline().split() for _ in range(3)]
            server.send_signal(stop)
            _, notes = finish(server)
        assert lines[0] == ["serving", "2,000", "keys"]
        assert lines[1][0] == "address"
        assert lines[1][1].startswith("127.0.0.1:")
        assert lines[2] == ["root", ROOT]
        assert (server.returncode, "stopped" in notes) == (0, True)


def test_serve_at_an_address_that_is_taken_or_elsewhere_fails(store: Path, address: str) -> None:
    assert "another program listens there" in fail(1, "serve", store, "--listen", address)
    assert "no address of this machine" in fail(1, "serve", store, "--listen", "192.0.2.1:0")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.org:1", ("example.org", 1)),
        (":7440", ("127.0.0.1", 7440)),
        ("[::1]:0", ("::1", 0)),
        ("[]:65535", ("127.0.0.1", 65535)),
    ],
)
def test_addresses_are_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address
    assert parse_listen_address(str(Address(*address))) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:x", "host:-1", "host:65536", "::1:1", "[::1]", "host:\u0661"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_listen_address(text)


def test_a_peer_without_a_complete_root_is_told_apart(tmp_path: Path) -> None:
    pairs = {b"%06d" % number: os.urandom(2_000) for number in range(2_000)}
    fill(tmp_path / "store", pairs)
    with serving(tmp_path / "store") as address:
        stop_in_the_middle(tmp_path / "copy", address)
    with serving(tmp_path / "copy") as address:
        document = succeed_json("status", address)
        assert (document["root"], document["revision"], document["keys"]) == (None, 0, 0)
        assert "none yet" in succeed("status", address)
        sentence = fail(1, "sync", tmp_path / "new", "--from", address, "--trust-peer")
    assert "has no complete root yet" in sentence
    assert not (tmp_path / "new").exists()


def test_only_the_loopback_is_private() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("192.0.2.1")


def stop_in_the_middle(copy: Path, address: str, *options: object) -> str:
    """Begin a sync that stalls, interrupt it when something of it is on disk; return what it says."""
    with (
        stalling_relay(address, 2_000_000) as relay,
        start("sync", copy, "--from", relay, "--trust-peer", *options) as process,
    ):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not is_begun(copy):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, errors = finish(process)
    assert process.returncode == 130
    return errors


def is_begun(copy: Path) -> bool:
    try:
        with merkledb.open(copy, scheme=None, readonly=True, create=False) as database:
            return database.catching_up
    except merkledb.NotADatabase:
        return False


def test_ctrl_c_leaves_a_copy_that_resumes(tmp_path: Path) -> None:
    pairs = {b"%06d" % number: os.urandom(2_000) for number in range(4_000)}
    root, copy = fill(tmp_path / "store", pairs), tmp_path / "copy"
    with serving(tmp_path / "store") as address:
        errors = stop_in_the_middle(copy, address)
        assert (
            errors
            == f"Error: interrupted: {copy} keeps what was copied; run the same command again to go on\n"
        )
        assert "no complete root yet" in fail(1, "root", copy, "--json")
        unfinished = succeed_json("status", copy)["sync"]
        assert unfinished["target"] == root
        assert 0 < unfinished["synced_keys"] < 4_000
        assert 0 < unfinished["share"] < 1
        assert succeed_json("check", copy)["root"] is None
        checked = re.match(r"ok    ([\d,]+) keys so far\n", succeed("check", copy))
        assert checked is not None
        assert 0 < int(checked[1].replace(",", "")) < 4_000
        document = succeed_json("sync", copy, "--from", address, "--root", root)
    assert (document["root"], document["keys"], document["synced_keys"]) == (root, 4_000, 4_000)
    assert 0 < document["fetched_keys"] < 4_000
    assert succeed_json("status", copy)["sync"] is None


def test_a_first_sync_that_fails_says_what_it_leaves(tmp_path: Path) -> None:
    pairs = {b"%06d" % number: os.urandom(2_000) for number in range(4_000)}
    root, copy = fill(tmp_path / "store", pairs), tmp_path / "copy"
    with serving(tmp_path / "store") as address:
        sentence = fail(1, "sync", copy, "--from", address, "--root", "01" * 32)
        assert sentence.endswith(f"; {copy} is still empty")
        assert "content   none: nothing was loaded or synced yet\n" in succeed("status", copy)
        stop_in_the_middle(copy, address)
        sentence = fail(1, "sync", copy, "--from", address, "--root", "01" * 32)
        assert sentence.endswith(f"; {copy} keeps what was copied, and the same command goes on with it")
        succeed("sync", copy, "--from", address, "--root", root)
        # Of a store that has content nothing needs to be said.
        assert str(copy) not in fail(1, "sync", copy, "--from", address, "--root", "01" * 32)


def test_writing_to_a_copy_says_what_becomes_of_it(tmp_path: Path) -> None:
    pairs = {b"a": b"1", b"d": b"4"}
    fill(tmp_path / "store", pairs)
    (tmp_path / "more.csv").write_text("b,2\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "c").write_text("3")
    note = "Note: {} was a copy of its peers, and is written here now: sync and follow refuse it from now on"
    with serving(tmp_path / "store") as address:
        for number, command in enumerate(
            [("put", "z", "1"), ("delete", "a"), ("load", tmp_path / "more.csv"), ("load", tmp_path / "tree")]
        ):
            copy = tmp_path / f"copy{number}"
            succeed("sync", copy, "--from", address, "--trust-peer")
            result = run(command[0], copy, *command[1:])
            assert result.exit_code == 0
            assert result.stderr.startswith(note.format(copy))
            # Once is enough, and what is promised holds.
            assert run("put", copy, "y", "1").stderr == ""
            assert "add --replace" in fail(1, "sync", copy, "--from", address, "--trust-peer")
            succeed("sync", copy, "--from", address, "--trust-peer", "--replace")
            assert content(copy) == pairs
            # What changes nothing leaves it a copy.
            assert run("put", copy, "a", "1").stderr == ""


def test_an_unfinished_sync_is_rolled_back_to_what_is_shown_meanwhile(tmp_path: Path) -> None:
    pairs = {b"%06d" % number: os.urandom(2_000) for number in range(2_000)}
    root = fill(tmp_path / "store", pairs)
    old_root = fill(tmp_path / "copy", {b"mine": b"1"})
    with serving(tmp_path / "store") as address:
        stop_in_the_middle(tmp_path / "copy", address, "--replace")
        assert succeed("root", tmp_path / "copy").strip() == old_root
        assert content(tmp_path / "copy") == {b"mine": b"1"}
        shown = succeed("status", tmp_path / "copy")
        assert f"on the way to root {root}" in shown
        for command in (["put", tmp_path / "copy", "k", "v"], ["delete", tmp_path / "copy", "mine"]):
            assert f"give it up with merklesync rollback {tmp_path / 'copy'}" in fail(1, *command)
        with merkledb.open(tmp_path / "copy") as database:
            database.set_progress(b"damaged")
        assert "how far it is cannot be told" in succeed("status", tmp_path / "copy")
        assert set(succeed_json("status", tmp_path / "copy")["sync"].values()) == {None}
        document = succeed_json("rollback", tmp_path / "copy")
        assert (document["rolled_back"], document["root"]) == (True, old_root)
        assert succeed_json("check", tmp_path / "copy")["root"] == old_root
        succeed("put", tmp_path / "copy", "k", "v")
        result = run("rollback", tmp_path / "copy")
        assert "has no unfinished sync" in result.stderr
        assert result.stdout == succeed("root", tmp_path / "copy")


def test_a_first_sync_is_rolled_back_to_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "store", {b"%06d" % number: os.urandom(2_000) for number in range(2_000)})
    with serving(tmp_path / "store") as address:
        stop_in_the_middle(tmp_path / "copy", address)
    assert "its first sync is unfinished" in fail(1, "get", tmp_path / "copy", "000000")
    document = succeed_json("rollback", tmp_path / "copy")
    assert (document["rolled_back"], document["root"], document["keys"]) == (True, "00" * 32, 0)
