"""Wrong arguments of every public function and constructor: an error that names what is wanted.

A wrong type is a ``TypeError``, a wrong value a ``ValueError`` or an error of the package's own tree.  What
holds for a parameter is one row of ``WRONG``; a test holds that no public parameter is without one.
"""

import dataclasses
import inspect
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

import manager
import merkledb
import server
import syncproto
from manager import Limits, Manager, Peer
from merkledb import MAX_PROGRESS_BYTES, ChangeProof, Database, RangeProof, Scheme, Snapshot, View
from server import Server, ServerLimits, ThreadExecutor, open_listeners
from syncproto import Connection, Hello, Role
from tests.support.databases import new_database

OTHER = object()
HELLO = Hello(hasher="blake3", branch_factor=16, root=None, revision=0, max_frame_bytes=4096)


class Site(NamedTuple):
    """What the calls need: a database with two revisions, their roots, and proofs."""

    folder: Path
    database: Database
    old: bytes
    new: bytes
    proof: RangeProof
    changes: ChangeProof
    snapshot: Snapshot
    view: View


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("arguments")
    with new_database() as database:
        old, new = database.commit({b"a": b"1"}), database.commit({b"b": b"2"})
        with database.snapshot() as snapshot, database.view({b"c": b"3"}) as view:
            proofs = database.prove_range(), database.prove_changes(old, new)
            yield Site(folder, database, old, new, *proofs, snapshot, view)


class Wrong(NamedTuple):
    """One parameter: how it is passed, what is of a wrong type, and what of a wrong value.

    Attributes:
        call: Passes a value for it.
        types: Of a type that it does not take.
        sentence: What a TypeError says.
        values: Of the right type, and wrong.
        value_sentence: What the error about these says.
        value_error: The class of that error.
    """

    call: Callable[[Site, Any], object]
    types: tuple[object, ...]
    sentence: str
    values: tuple[object, ...] = ()
    value_sentence: str = ""
    value_error: type[Exception] = ValueError


NO_BYTES = ("a", 1, OTHER, bytearray(b"a"))
NO_NUMBERS = ("1", 1.5, True, OTHER)
NO_FUNCTIONS = ("x", 1, OTHER)
NOT_OURS = ("x", 1, OTHER)
IS_BYTES, IS_WHOLE, IS_FUNCTION = "is bytes, not", "is a whole number, not", "is a function, not"


def a_key(call: Callable[[Site, Any], object]) -> Wrong:
    return Wrong(call, (*NO_BYTES, None), IS_BYTES)


def a_bound(call: Callable[[Site, Any], object]) -> Wrong:
    return Wrong(call, NO_BYTES, IS_BYTES)


def a_root(call: Callable[[Site, Any], object]) -> Wrong:
    types = ("a" * 64, 1, OTHER, None, bytearray(32))
    return Wrong(call, types, IS_BYTES, (b"", b"a", bytes(33)), "a root has 32 bytes")


def a_limit(call: Callable[[Site, Any], object], least: int = 0) -> Wrong:
    return Wrong(call, NO_NUMBERS, IS_WHOLE, (-1, least - 1), "max_(keys|bytes) is -?[01]: a ")


def a_scheme(call: Callable[[Site, Any], object]) -> Wrong:
    return Wrong(call, ("sha256", 1, OTHER, ("sha256", 16)), "scheme is a Scheme, not")


def some_changes(call: Callable[[Site, Any], object]) -> Wrong:
    not_mappings = (1, OTHER, None, [b"a"], "ab", [(b"a", b"1")])
    return Wrong(call, (*not_mappings, {"a": b""}, {b"a": 1}), "changes (is a Mapping|map bytes to bytes)")


def reading_rows(kind: str, held: str) -> dict[str, Wrong]:
    """Return the rows of the methods that all readable states have; ``held`` is the field of a site."""

    def of(site: Site) -> Any:
        return getattr(site, held)

    rows = {
        "get.key": a_key(lambda site, wrong: of(site).get(wrong)),
        "prove.key": a_key(lambda site, wrong: of(site).prove(wrong)),
        "items.start": a_bound(lambda site, wrong: of(site).items(wrong)),
        "items.end": a_bound(lambda site, wrong: of(site).items(None, wrong)),
        "prove_range.start": a_bound(lambda site, wrong: of(site).prove_range(wrong)),
        "prove_range.end": a_bound(lambda site, wrong: of(site).prove_range(None, wrong)),
        "prove_range.max_keys": a_limit(lambda site, wrong: of(site).prove_range(max_keys=wrong), least=1),
        "prove_range.max_bytes": a_limit(lambda site, wrong: of(site).prove_range(max_bytes=wrong)),
    }
    if kind != "Database":
        rows |= {
            "verified_get.key": a_key(lambda site, wrong: of(site).verified_get(wrong)),
            "verified_items.start": a_bound(lambda site, wrong: of(site).verified_items(wrong)),
            "verified_items.end": a_bound(lambda site, wrong: of(site).verified_items(None, wrong)),
            "check_proof.proof": Wrong(
                lambda site, wrong: of(site).check_proof(wrong),
                (*NOT_OURS, None),
                "proof is a RangeProof, not",
            ),
            "check_proof.start": a_bound(lambda site, wrong: of(site).check_proof(site.proof, wrong)),
            "check_proof.end": a_bound(lambda site, wrong: of(site).check_proof(site.proof, None, wrong)),
        }
    return {f"{kind}.{name}": row for name, row in rows.items()}


def between_rows(method: str) -> dict[str, Wrong]:
    """Return the rows of a method of the database that takes two roots and a range."""

    def call(site: Site, *arguments: Any) -> Any:
        return getattr(site.database, method)(*arguments)

    rows = {
        "old": a_root(lambda site, wrong: call(site, wrong, site.new)),
        "new": a_root(lambda site, wrong: call(site, site.old, wrong)),
        "start": a_bound(lambda site, wrong: call(site, site.old, site.new, wrong)),
        "end": a_bound(lambda site, wrong: call(site, site.old, site.new, None, wrong)),
    }
    return {f"Database.{method}.{name}": row for name, row in rows.items()}


def opened(site: Site, **options: Any) -> None:
    merkledb.open(site.folder / "never", **options).close()


def managed(site: Site, **options: Any) -> Manager:
    return Manager(site.database, ["h:1"], **options)


def a_peer(name: Any, open_stream: Any) -> Peer:
    return Peer(name, open_stream)


async def listening(host: Any, port: Any) -> None:
    for listener in await open_listeners(host, port):
        await listener.aclose()


async def serving(database: Any, listeners: Any, limits: Any = None) -> None:
    await server.serve(database, listeners, limits=limits)


async def listeners_served(site: Site, listeners: Any) -> None:
    await Server(site.database).serve(listeners)


A_REVISION = ("1", 1.5, True, OTHER), "the number of a revision is a whole number, not"
SOME_PROGRESS = (("x", 1, OTHER, bytearray(b"x")), "is bytes, not")
A_PORT = (("1", 1.5, True, None, OTHER), "port is a whole number, not")
SOME_LISTENERS = ((1, None, OTHER, [OTHER]), "listeners? is a (Sequence|Listener|SocketListener), not")

WRONG: dict[str, Wrong] = {
    # merkledb
    "open.path": Wrong(
        lambda site, wrong: merkledb.open(wrong),
        (None, 1, OTHER, b"folder"),
        "a path is a str or a Path, not",
        ("", "a\0b"),
        "a path is not empty and holds no NUL character",
    ),
    "open.scheme": a_scheme(lambda site, wrong: opened(site, scheme=wrong)),
    "open.history": Wrong(
        lambda site, wrong: opened(site, history=wrong),
        NO_NUMBERS,
        f"history {IS_WHOLE}",
        (0, -1, 10**30),
        "a history holds 1 to",
    ),
    "open.history_seconds": Wrong(
        lambda site, wrong: opened(site, history_seconds=wrong),
        ("1", True, OTHER),
        "history_seconds is a number, not",
        (-1, 1e300, 10**400, math.nan),
        "a history holds 0 to .* seconds",
    ),
    "open.map_bytes": Wrong(
        lambda site, wrong: opened(site, map_bytes=wrong),
        (*NO_NUMBERS, None),
        f"map_bytes {IS_WHOLE}",
        (0, -1, 10**30),
        "map_bytes is at (least 1|most)",
    ),
    "open.clock": Wrong(
        lambda site, wrong: opened(site, clock=wrong),
        (*NO_FUNCTIONS, None),
        f"clock {IS_FUNCTION}",
        (lambda: "noon", lambda: -1),
        "the clock says",
        merkledb.ImplausibleTime,
    ),
    "root_of.pairs": Wrong(
        lambda site, wrong: merkledb.root_of(wrong),
        (1, OTHER, None, {"a": b""}, {b"a": 1}, {b"a": None}, [1], [(b"a",)]),
        "pairs are a mapping, or keys with values|a pair is a key and a value|a (key|value) is bytes",
    ),
    "root_of.scheme": a_scheme(lambda site, wrong: merkledb.root_of({b"a": b""}, wrong)),
    "verify_range.proof": Wrong(
        lambda site, wrong: merkledb.verify_range(wrong, site.new),
        (b"", OTHER, None),
        "a proof is what RangeProof.decode returns, not",
    ),
    "verify_range.root": a_root(lambda site, wrong: merkledb.verify_range(site.proof, wrong)),
    "verify_range.start": a_bound(lambda site, wrong: merkledb.verify_range(site.proof, site.new, wrong)),
    "verify_range.end": a_bound(lambda site, wrong: merkledb.verify_range(site.proof, site.new, None, wrong)),
    "verify_range.scheme": a_scheme(
        lambda site, wrong: merkledb.verify_range(site.proof, site.new, scheme=wrong)
    ),
    "verify_range.max_keys": a_limit(
        lambda site, wrong: merkledb.verify_range(site.proof, site.new, max_keys=wrong)
    ),
    "verify_range.max_bytes": a_limit(
        lambda site, wrong: merkledb.verify_range(site.proof, site.new, max_bytes=wrong)
    ),
    "RangeProof.decode.data": Wrong(
        lambda site, wrong: RangeProof.decode(wrong), ("a", 1, OTHER, None), "an encoded proof is bytes, not"
    ),
    "ChangeProof.decode.data": Wrong(
        lambda site, wrong: ChangeProof.decode(wrong), ("a", 1, OTHER, None), "an encoded proof is bytes, not"
    ),
    "Scheme.hasher": Wrong(
        lambda site, wrong: Scheme(wrong), (1, None, [], OTHER), "a hasher is", ("md5", ""), "unknown hasher"
    ),
    "Scheme.branch_factor": Wrong(
        lambda site, wrong: Scheme("blake3", wrong),
        ("16", 16.0, True, None, OTHER),
        "a branch factor is",
        (0, 3, 512),
        "is not possible: use 2, 4, 16 or 256",
    ),
    **reading_rows("Database", "database"),
    **reading_rows("Snapshot", "snapshot"),
    **reading_rows("View", "view"),
    "Database.check.on_pairs": Wrong(
        lambda site, wrong: site.database.check(wrong), (*NO_FUNCTIONS, None), IS_FUNCTION
    ),
    "Database.revisions.limit": Wrong(
        lambda site, wrong: site.database.revisions(limit=wrong),
        NO_NUMBERS,
        f"a limit {IS_WHOLE}",
        (-1,),
        "a limit is at least 0",
    ),
    "Database.at.root": a_root(lambda site, wrong: site.database.at(wrong)),
    **between_rows("differences"),
    **between_rows("prove_changes"),
    "Database.prove_changes.max_keys": a_limit(
        lambda site, wrong: site.database.prove_changes(site.old, site.new, max_keys=wrong), least=1
    ),
    "Database.prove_changes.max_bytes": a_limit(
        lambda site, wrong: site.database.prove_changes(site.old, site.new, max_bytes=wrong)
    ),
    "Database.view.changes": some_changes(lambda site, wrong: site.database.view(wrong)),
    "View.view.changes": some_changes(lambda site, wrong: site.view.view(wrong)),
    "Database.commit.changes": some_changes(lambda site, wrong: site.database.commit(wrong)),
    "Database.verify_changes.proof": Wrong(
        lambda site, wrong: site.database.verify_changes(wrong, site.new),
        (b"", OTHER, None),
        "a proof is what ChangeProof.decode returns, not",
    ),
    "Database.verify_changes.new_root": a_root(
        lambda site, wrong: site.database.verify_changes(site.changes, wrong)
    ),
    "Database.verify_changes.start": a_bound(
        lambda site, wrong: site.database.verify_changes(site.changes, site.new, wrong)
    ),
    "Database.verify_changes.end": a_bound(
        lambda site, wrong: site.database.verify_changes(site.changes, site.new, None, wrong)
    ),
    "Database.verify_changes.max_keys": a_limit(
        lambda site, wrong: site.database.verify_changes(site.changes, site.new, max_keys=wrong)
    ),
    "Database.verify_changes.max_bytes": a_limit(
        lambda site, wrong: site.database.verify_changes(site.changes, site.new, max_bytes=wrong)
    ),
    "Database.apply.verified": Wrong(
        lambda site, wrong: site.database.apply(wrong),
        (1, None, "x", OTHER, [OTHER], iter([])),
        "only what a verification returns can be applied, not",
    ),
    "Database.apply.progress": Wrong(
        lambda site, wrong: site.database.apply([], progress=wrong),
        *SOME_PROGRESS,
        (bytes(MAX_PROGRESS_BYTES + 1),),
        "progress",
        Exception,
    ),
    "Database.apply.revision": Wrong(
        lambda site, wrong: site.database.apply([], revision=wrong), *A_REVISION, (-1,), "is at least 0"
    ),
    "Database.renumber.revision": Wrong(
        lambda site, wrong: site.database.renumber(wrong), *A_REVISION, (-1,), "is at least 0"
    ),
    "Database.set_progress.progress": Wrong(
        lambda site, wrong: site.database.set_progress(wrong),
        *SOME_PROGRESS,
        (bytes(MAX_PROGRESS_BYTES + 1),),
        "progress",
        Exception,
    ),
    "Batch.__setitem__.key": a_key(lambda site, wrong: site.database.batch().__setitem__(wrong, b"")),
    "Batch.__setitem__.value": a_key(lambda site, wrong: site.database.batch().__setitem__(b"", wrong)),
    "Batch.__delitem__.key": a_key(lambda site, wrong: site.database.batch().__delitem__(wrong)),
    # server
    "Server.database": Wrong(lambda site, wrong: Server(wrong), (None, *NOT_OURS), "database is a Database"),
    "Server.limits": Wrong(
        lambda site, wrong: Server(site.database, limits=wrong), (*NOT_OURS, {}), "limits is a ServerLimits"
    ),
    "Server.executor": Wrong(
        lambda site, wrong: Server(site.database, executor=wrong), NOT_OURS, "executor is a ThreadExecutor"
    ),
    "Server.on_failure": Wrong(
        lambda site, wrong: Server(site.database, on_failure=wrong), NO_FUNCTIONS, f"on_failure {IS_FUNCTION}"
    ),
    "Server.user_agent": Wrong(
        lambda site, wrong: Server(site.database, user_agent=wrong),
        (1, None, OTHER, b"x"),
        "user_agent is a str",
        ("x" * 129, "a\nb"),
        "user_agent is a short text without control characters",
    ),
    "Server.network_of": Wrong(
        lambda site, wrong: Server(site.database, network_of=wrong),
        (*NO_FUNCTIONS, None),
        f"network_of {IS_FUNCTION}",
    ),
    "Server.serve.listeners": Wrong(
        lambda site, wrong: trio.run(listeners_served, site, wrong),
        *SOME_LISTENERS,
        ([], ()),
        "a server needs at least one listener",
    ),
    "serve.database": Wrong(
        lambda site, wrong: trio.run(serving, wrong, []), (None, *NOT_OURS), "database is a Database"
    ),
    "serve.listeners": Wrong(
        lambda site, wrong: trio.run(serving, site.database, wrong), *SOME_LISTENERS, ([],), "at least one"
    ),
    "serve.limits": Wrong(
        lambda site, wrong: trio.run(serving, site.database, [], wrong), NOT_OURS, "limits is a ServerLimits"
    ),
    "ThreadExecutor.max_threads": Wrong(
        lambda site, wrong: ThreadExecutor(wrong), (*NO_NUMBERS, None), IS_WHOLE, (0, -1), "is at least 1"
    ),
    "open_listeners.host": Wrong(
        lambda site, wrong: trio.run(listening, wrong, 0), (1, None, OTHER, b"h"), "host is a str, not"
    ),
    "open_listeners.port": Wrong(
        lambda site, wrong: trio.run(listening, "127.0.0.1", wrong),
        *A_PORT,
        (-1, 65_536),
        "a port is a number from 0 to 65535",
        server.ListenError,
    ),
    "addresses_of.listeners": Wrong(lambda site, wrong: server.addresses_of(wrong), *SOME_LISTENERS),
    # manager
    "Manager.database": Wrong(
        lambda site, wrong: Manager(wrong, ["h:1"]), (None, *NOT_OURS), "database is a Database"
    ),
    "Manager.peers": Wrong(
        lambda site, wrong: Manager(site.database, wrong),
        (
            *(None, 1, OTHER, "h:1", Peer.parse("h:1"), [1], [None], [b"h:1"], [("h",)], [("h", "1")]),
            *([("h", 1, 2)], [(1, 1)], [("h", 1.5)], [("h", True)], [a_peer("h", OTHER)], [a_peer(1, print)]),
        ),
        "peers are a list of peers|a peer is a Peer, HOST:PORT, or a pair|whole number|is a (function|str)",
        ([], ["h"], ["h:0"], [("h", 0)]),
        "at least one peer|is not HOST:PORT",
    ),
    "Manager.target": Wrong(
        lambda site, wrong: managed(site, target=wrong),
        ("a" * 64, 1, OTHER, bytearray(32)),
        "a target is bytes, not",
        (b"", b"a", bytes(33)),
        "a root has 32 bytes, the target has",
    ),
    "Manager.limits": Wrong(
        lambda site, wrong: managed(site, limits=wrong), (*NOT_OURS, {}), "limits is a Limits, not"
    ),
    "Manager.random": Wrong(
        lambda site, wrong: managed(site, random=wrong), (*NOT_OURS, random), "random is a Random, not"
    ),
    "Manager.executor": Wrong(
        lambda site, wrong: managed(site, executor=wrong), NOT_OURS, "executor is a SerialExecutor, not"
    ),
    "Manager.update_target.root": Wrong(
        lambda site, wrong: managed(site).update_target(wrong),
        ("a" * 64, 1, OTHER, None, bytearray(32)),
        "a target is bytes, not",
        (b"", bytes(33)),
        "a root has 32 bytes, the target has",
    ),
    "Manager.update_target.revision": Wrong(
        lambda site, wrong: managed(site).update_target(site.new, wrong), *A_REVISION, (-1,), "is at least 0"
    ),
    "Peer.tcp.host": Wrong(
        lambda site, wrong: Peer.tcp(wrong, 1),
        (1, None, OTHER, b"h"),
        "host is a str, not",
        ("", "a..b"),
        "is not HOST:PORT",
    ),
    "Peer.tcp.port": Wrong(
        lambda site, wrong: Peer.tcp("h", wrong), *A_PORT, (0, -1, 65_536), "is not HOST:PORT"
    ),
    "Peer.parse.text": Wrong(
        lambda site, wrong: Peer.parse(wrong),
        (1, None, OTHER, b"h:1"),
        "an address is a str, not",
        ("h", "h:x"),
        "is not HOST:PORT",
    ),
    # syncproto
    "Connection.send.message": Wrong(
        lambda site, wrong: Connection(Role.CLIENT, HELLO).send(wrong),
        (*NOT_OURS, None, b"x"),
        "a message is one of this package's, not",
    ),
    "encode.message": Wrong(
        lambda site, wrong: syncproto.encode(wrong),
        (*NOT_OURS, None, b"x"),
        "a message is one of this package's, not",
    ),
    "decode.payload": Wrong(
        lambda site, wrong: syncproto.decode(wrong), (*NOT_OURS, None, b"x"), "payload is a memoryview, not"
    ),
}

LIMITS = [
    (kind, field.name, field.type is int)
    for kind in (Limits, ServerLimits)
    for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_a_type_error_that_says_what_is_wanted(site: Site, name: str) -> None:
    for wrong in WRONG[name].types:
        with pytest.raises(TypeError, match=WRONG[name].sentence):
            WRONG[name].call(site, wrong)


@pytest.mark.parametrize("name", [name for name in WRONG if WRONG[name].values])
def test_a_wrong_value_is_an_error_that_says_what_is_wanted(site: Site, name: str) -> None:
    row = WRONG[name]
    for wrong in row.values:
        with pytest.raises(row.value_error, match=row.value_sentence):
            row.call(site, wrong)


@pytest.mark.parametrize(("kind", "name", "is_whole"), LIMITS)
def test_a_limit_is_a_number_above_zero(kind: type, name: str, is_whole: bool) -> None:
    for wrong in ("1", None, True, OTHER, *([1.5] if is_whole else [])):
        with pytest.raises(TypeError, match=f"^{name} is a (whole )?number, not"):
            kind(**{name: wrong})
    for wrong in (0, -1, *([] if is_whole else [math.nan])):
        with pytest.raises(ValueError, match=f"^{name} (is|must be) .*(above|positive)"):
            kind(**{name: wrong})


def test_nothing_was_written_by_any_of_it(site: Site) -> None:
    for name, row in WRONG.items():
        for wrong in (*row.types, *row.values):
            with pytest.raises((TypeError, row.value_error)):
                row.call(site, wrong)
        assert site.database.root == site.new, name
        assert not (site.folder / "never" / "data.mdb").exists(), name
    site.database.check()


# Every public function and constructor, and the methods of classes that users hold.
PUBLIC: dict[str, Callable[..., object]] = {
    **{name: getattr(merkledb, name) for name in ("open", "root_of", "verify_range", "Scheme")},
    **{name: getattr(server, name) for name in ("Server", "serve", "ThreadExecutor", "open_listeners")},
    "addresses_of": server.addresses_of,
    **{name: getattr(manager, name) for name in ("Manager", "SerialExecutor")},
    **{name: getattr(syncproto, name) for name in ("encode", "decode")},
    "Peer.tcp": Peer.tcp,
    "Peer.parse": Peer.parse,
    "RangeProof.decode": RangeProof.decode,
    "ChangeProof.decode": ChangeProof.decode,
    "Batch.__setitem__": merkledb.Batch.__setitem__,
    "Batch.__delitem__": merkledb.Batch.__delitem__,
    **{
        f"{kind.__name__}.{name}": method
        for kind in (Database, View, Server, Manager)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    },
    **{f"Snapshot.{name}": getattr(Snapshot, name) for name in ("get", "items", "prove", "prove_range")},
}
# What takes anything: a default, trio's own, and ids, of which those that nobody sent are simply not there.
TAKES_ANYTHING = {"self", "default", "task_status", "request_id"}
# Methods of a view that the store's other modules call.
NOT_FOR_USERS = {"View.read_rows.low"}


def test_every_public_parameter_has_a_row() -> None:
    parameters = {
        f"{name}.{parameter.name}"
        for name, function in PUBLIC.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in TAKES_ANYTHING and parameter.annotation is not bool
    }
    missing = parameters - WRONG.keys() - NOT_FOR_USERS
    assert not missing
