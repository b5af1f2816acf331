"""status: how a store stands to its peers, asked now; and what peers answer when they are asked."""

from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from manager import SyncStatus
from manager.keyspace.range_map import RangeMap
from manager.peers.address import Address
from manager.peers.probe import ProbeFailure, ProbeResult, probe
from manager.scheduling.checkpoint import Checkpoint
from manager.scheduling.pivot import Target
from merkledb import EMPTY_ROOT, Revision, Scheme
from merklesync.commands.status import _sync_as_text
from merklesync.following.status_text import STATUS_SENTENCES, describe_peer_relation
from merklesync.following.store_status import StoreStatus, sync_status_of
from server import open_listeners, serve
from syncproto import Error, ErrorCode, Goodbye, Hello, Message, encode
from tests.support.command_line import commit, fill, free_port, serving, succeed, succeed_json
from tests.support.databases import new_database

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
ADDRESS = Address("127.0.0.1", 1)
B_AT_6 = f"revision 6, root {B.hex()}"
SILENCE = ProbeFailure(ADDRESS, "Connection refused")
OVERLOADED = SILENCE._replace(reason="it is overloaded: full", retry_seconds=0.5)


def peer(root: bytes | None, revision: int = 0, hasher: str = "blake3", **retains: bool) -> ProbeResult:
    """Return a peer; ``retains`` names roots by their letters."""
    hello = Hello(hasher=hasher, branch_factor=16, root=root, revision=revision, max_frame_bytes=4096)
    return ProbeResult(ADDRESS, hello, 0.1, {globals()[name]: has for name, has in retains.items()})


def replica(
    root: bytes | None, revision: int, *, is_local: bool = False, target: bytes | None = None
) -> StoreStatus:
    head = None if root is None else Revision(revision, root, 0.0, 1)
    unfinished = None if target is None else Checkpoint(Target(target), 0, 0, 0, None, RangeMap(32), ())
    return StoreStatus(Scheme(), head, is_local, target is not None, unfinished)


NEW = replica(EMPTY_ROOT, 0)
AT_A = replica(A, 5)
AFTER_C = AT_A._replace(revisions=[Revision(5, A, 0.0, 1), Revision(4, C, 0.0, 1)])


@pytest.mark.parametrize(
    ("store", "peers", "situation"),
    [
        (AT_A, [peer(A, 5)], SyncStatus.IN_SYNC),
        (AT_A, [peer(A, 5), peer(B, 3)], SyncStatus.IN_SYNC),
        (AT_A, [peer(B, 6, A=True)], SyncStatus.CATCHING_UP),
        (AT_A, [peer(B, 6, A=False)], SyncStatus.COPYING),
        (AT_A, [peer(B, 6, A=False), peer(A, 5, A=True)], SyncStatus.CATCHING_UP),
        (AT_A, [peer(B, 4)], SyncStatus.PEERS_BEHIND),
        (AT_A, [peer(A, 7)], SyncStatus.IN_SYNC),
        (AT_A, [peer(A, 3)], SyncStatus.IN_SYNC),
        (AFTER_C, [peer(B, 5)], SyncStatus.DIVERGED),
        (AFTER_C, [peer(B, 4)], SyncStatus.DIVERGED),
        (AFTER_C, [peer(C, 4)], SyncStatus.PEERS_BEHIND),
        (replica(A, 5, is_local=True), [peer(A, 7)], SyncStatus.IN_SYNC),
        (AT_A, [peer(EMPTY_ROOT, 0), peer(None)], SyncStatus.PEERS_BEHIND),
        (AT_A, [SILENCE, peer(B, 4)], SyncStatus.PEERS_BEHIND),
        (AT_A, [SILENCE, SILENCE], SyncStatus.NO_PEER_REACHABLE),
        (AT_A, [SILENCE, OVERLOADED], SyncStatus.PEERS_OVERLOADED),
        (AT_A, [OVERLOADED, peer(A, 5)], SyncStatus.IN_SYNC),
        (AT_A, [peer(B, 6, hasher="sha256")], SyncStatus.NO_PEER_REACHABLE),
        (AT_A, [peer(B, 6, hasher="md5")], SyncStatus.NO_PEER_REACHABLE),
        (NEW, [peer(A, 5)], SyncStatus.FIRST_COPY),
        (NEW, [peer(None)], SyncStatus.NO_TARGET),
        (NEW, [peer(EMPTY_ROOT, 0)], SyncStatus.NO_TARGET),
        (replica(None, 0, target=A), [peer(A, 5)], SyncStatus.FIRST_COPY),
        (replica(None, 0, target=A), [peer(EMPTY_ROOT, 0, A=False)], SyncStatus.NO_PEER_KNOWS_TARGET),
        (replica(A, 5, target=B), [peer(A, 5, A=True, B=False)], SyncStatus.NO_PEER_KNOWS_TARGET),
        (replica(A, 5, target=B), [peer(C, 7, A=True, B=False)], SyncStatus.CATCHING_UP),
        (replica(A, 5, target=B), [peer(A, 5, A=True)], SyncStatus.CATCHING_UP),
        (replica(A, 5, is_local=True), [peer(B, 1, A=False)], SyncStatus.COPYING),
    ],
)
def test_a_store_stands_to_its_peers(
    store: StoreStatus, peers: list[ProbeResult | ProbeFailure], situation: SyncStatus
) -> None:
    assert sync_status_of(store, peers) is situation


def keyed(*, keys: int, changes: int, expected: int | None, roots: tuple[bytes | None, ...]) -> StoreStatus:
    """Return a store in the middle of an update to B, of which two halves are at ``roots``."""
    ranges = RangeMap.from_columns([b"", b"m"], list(roots), 32)
    return AT_A._replace(
        catching_up=True,
        checkpoint=Checkpoint(Target(B), keys, changes, 0, expected, ranges, (0.5, 0.5)),
    )


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        (keyed(keys=0, changes=0, expected=500, roots=(A, A)), "0%: 0 changes fetched so far"),
        (keyed(keys=0, changes=7, expected=500, roots=(A, B)), "50%: 7 changes fetched so far"),
        (keyed(keys=0, changes=0, expected=500, roots=(None, A)), "0%: 0 of 500 keys fetched so far"),
        (
            keyed(keys=100, changes=7, expected=500, roots=(None, B)),
            "20%: 100 of 500 keys and 7 changes fetched so far",
        ),
        (
            keyed(keys=100, changes=7, expected=None, roots=(A, B)),
            "50%: 100 keys and 7 changes fetched so far",
        ),
    ],
)
def test_an_unfinished_update_says_what_has_come(store: StoreStatus, sentence: str) -> None:
    assert _sync_as_text(store) == f"unfinished, {sentence}, on the way to root {B.hex()}"


def test_every_situation_has_a_sentence() -> None:
    assert STATUS_SENTENCES.keys() == set(SyncStatus)


@pytest.mark.parametrize(
    ("store", "met", "standing"),
    [
        (AT_A, SILENCE, "Connection refused"),
        (
            AT_A,
            peer(A, 5, hasher="sha256"),
            "serves sha256 with branch factor 16: not the scheme of this store",
        ),
        (AT_A, peer(None), "has no complete root to show"),
        (AT_A, peer(A, 5), "shows the same root"),
        (AT_A, peer(A, 7), "shows the same root under a higher revision, 7"),
        (replica(A, 5, is_local=True), peer(A, 7), "shows the same root"),
        (
            AFTER_C,
            peer(B, 4),
            f"has diverged: this revision has or had another content here: revision 4, root {B.hex()}",
        ),
        (
            AFTER_C,
            peer(B, 5),
            f"has diverged: this revision has or had another content here: revision 5, root {B.hex()}",
        ),
        (AT_A, peer(B, 4), f"is behind, or has lost what it had: revision 4, root {B.hex()}"),
        (AT_A, peer(B, 5), f"is not ahead, and shows another content: revision 5, root {B.hex()}"),
        (AT_A, peer(B, 6, A=True), f"is ahead, changes lead there: {B_AT_6}"),
        (
            AT_A,
            peer(B, 6, A=False),
            f"is ahead, and has not our root, so all is copied: {B_AT_6}",
        ),
        (AT_A, peer(B, 6), f"is ahead: {B_AT_6}"),
        (NEW, peer(B, 6), f"can be copied: {B_AT_6}"),
    ],
)
def test_a_peer_stands_to_a_store(store: StoreStatus, met: ProbeResult | ProbeFailure, standing: str) -> None:
    assert describe_peer_relation(store, met) == standing


def test_status_of_a_store_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    root = fill(store, {b"a": b"1"})
    document = succeed_json("status", store)
    assert document == {
        "store": str(store),
        "root": root,
        "revision": 1,
        "keys": 1,
        "hasher": "blake3",
        "branch_factor": 16,
        "written_locally": True,
        "revisions": 1,
        "oldest_revision": 1,
        "sync": None,
        "situation": None,
        "peers": None,
    }
    commit(store, {b"a": b"2"})
    facts = succeed("status", store)
    lines = [" ".join(line.split()) for line in facts.splitlines()]
    expected = {"retained 2 revisions, from 1 to 2", "content written here", "sync none is unfinished"}
    assert expected <= set(lines)
    commit(tmp_path / "new", {})
    assert "content   none: nothing was loaded or synced yet\n" in succeed("status", tmp_path / "new")


def test_status_compares_a_store_with_its_peers(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    fill(source, {b"a": b"1"})
    gone = f"127.0.0.1:{free_port()}"
    with serving(source) as address:
        assert succeed_json("status", tmp_path / "source", "--from", address)["situation"] == "in sync"
        succeed("sync", copy, "--from", address, "--trust-peer")
        root = commit(source, {b"a": b"2"})
        document = succeed_json("status", copy, "--from", address, "--from", gone)
        assert document["situation"] == "catching up"
        assert document["peers"][0] == {
            "address": address,
            "standing": f"is ahead, changes lead there: revision 2, root {root}",
            "answers": True,
            "root": root,
            "revision": 2,
            "keys": 1,
            "seconds": document["peers"][0]["seconds"],
        }
        assert document["peers"][1] == {"address": gone, "standing": "Connection refused", "answers": False}
        succeed("put", source, "b", "1", "--history", "1")
        assert "copying: changes alone do not lead to the target" in succeed(
            "status", copy, "--from", address
        )
        assert " no peer reachable: " in succeed("status", copy, "--from", gone)


async def test_a_peer_is_asked_which_roots_it_has() -> None:
    with new_database() as database:
        first = database.commit({b"": b"x" * 10_000})
        second = database.commit({b"": b"y"})
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(serve, database, await open_listeners("127.0.0.1", 0)))
            address = Address(*listeners[0].socket.getsockname())
            met = await probe(address, (first, second, A))
            nursery.cancel_scope.cancel()
    assert isinstance(met, ProbeResult)
    # The first is known although a proof of its only pair is too long to be sent.
    assert met.retains == {first: True, second: True, A: False}


@pytest.mark.parametrize("last_words", [None, (), (Goodbye(),), (Error(0, ErrorCode.SHUTTING_DOWN, "bye"),)])
async def test_a_peer_that_greets_and_does_not_answer_was_met(
    autojump_clock: trio.testing.MockClock, last_words: tuple[Message, ...] | None
) -> None:
    hello = Hello(hasher="blake3", branch_factor=16, root=A, revision=5, max_frame_bytes=4096, max_requests=1)

    async def say_hello(stream: trio.SocketStream) -> None:
        await stream.send_all(b"".join(encode(word).data for word in (hello, *(last_words or ()))))
        if last_words is None:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        nursery.start_soon(trio.serve_listeners, say_hello, listeners)
        met = await probe(Address(*listeners[0].socket.getsockname()), (A,))
        nursery.cancel_scope.cancel()
    assert isinstance(met, ProbeResult)
    assert (met.hello, met.retains) == (hello, {})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (encode(Error(0, ErrorCode.OVERLOADED, "full", 5)).data, "it is overloaded: full"),
        (encode(Error(0, ErrorCode.SHUTTING_DOWN, "bye")).data, "it refused: bye"),
        (encode(Goodbye()).data, "it does not speak merklesync: "),
        (b"", "it closed the connection without a word: "),
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            "it does not speak merklesync: a web server answers there (HTTP): ",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "it does not speak merklesync: an SSH server answers there: "),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it does not speak merklesync: a server for TLS answers there: "),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it does not speak merklesync: a server for TLS answers there: "),
        (
            b"220 mail\r\n",
            "it does not speak merklesync: the peer announced a frame of 842149920 bytes where ",
        ),
        (None, "it said nothing within 10 seconds"),
    ],
)
async def test_a_peer_that_does_not_greet_is_told_apart(
    autojump_clock: trio.testing.MockClock, words: bytes | None, reason: str
) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(words or b"")
        if words is None:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        nursery.start_soon(trio.serve_listeners, speak, listeners)
        silence = await probe(Address(*listeners[0].socket.getsockname()))
        nursery.cancel_scope.cancel()
    assert isinstance(silence, ProbeFailure)
    assert silence.reason.startswith(reason)
    assert silence.retry_seconds == (0.005 if "overloaded" in reason else None)
