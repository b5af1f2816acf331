"""The processes of ``bench.sync`` and ``bench.follow``: servers and clients of verified and of raw copies.

Each runs as ``python -m bench.processes ROLE STORE ...`` and prints one JSON document at its end.  A server
prints its port first, and ends when its standard input does.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

import merkledb
from bench.data import scattered_changes
from bench.loop import LoopWatch
from bench.pipeline import WatchedThread
from bench.raw import RawClient, RawServer
from manager import Manager
from merklesync.tasks import responsive
from server import Server


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _until_input_ends(stop: Callable[[], None]) -> None:
    """Wait for the parent to close our standard input, then stop."""
    await trio.to_thread.run_sync(sys.stdin.read)
    stop()


async def serve_verified(path: Path) -> dict[str, Any]:
    """Serve a store until the parent says stop."""
    with merkledb.open(path, readonly=True) as database:
        server = Server(database)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        watch = LoopWatch()
        with watch.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listeners)
                await _until_input_ends(server.stop)
        return {"loop": watch.figures(), "bytes_sent": server.counters.bytes_sent}


class Committer:
    """Commits scattered changes to a store that is served.

    Args:
        database: The store's, open for writing.
        server: It is told of each commit.
        keys: Pairs in the store.
        first: The number of the first set of changes.
        changes: Changes in each commit.
        seconds: From the beginning of one commit to that of the next.

    Attributes:
        commits: How many it has made.
    """

    def __init__(
        self,
        database: merkledb.Database,
        server: Server,
        *,
        keys: int,
        first: int,
        changes: int,
        seconds: float,
    ) -> None:
        self._database = database
        self._server = server
        self._keys = keys
        self._first = first
        self._changes = changes
        self._seconds = seconds
        self.commits = 0

    async def run(self) -> None:
        """Commit until cancelled, which waits for the commit that has begun."""
        while True:
            began = trio.current_time()
            await trio.to_thread.run_sync(self._commit)
            self._server.announce()
            await trio.sleep_until(began + self._seconds)

    def _commit(self) -> None:
        self._database.commit(scattered_changes(self._keys, self._first + self.commits, self._changes))
        self.commits += 1


async def serve_committing(path: Path, keys: int, first: int, changes: int, seconds: float) -> dict[str, Any]:
    """Serve a store and commit changes to it until the parent sends a line; then print its root."""
    with merkledb.open(path) as database:
        server, watch = Server(database), LoopWatch()
        committer = Committer(database, server, keys=keys, first=first, changes=changes, seconds=seconds)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        with watch.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listeners)
                async with trio.open_nursery() as committing:
                    committing.start_soon(committer.run)
                    await trio.to_thread.run_sync(sys.stdin.readline)
                    committing.cancel_scope.cancel()
                print(database.root.hex(), flush=True)
                await _until_input_ends(server.stop)
        sent, commits = server.counters.bytes_sent, committer.commits
        return {"loop": watch.figures(), "bytes_sent": sent, "commits": commits}


async def serve_raw(path: Path) -> dict[str, Any]:
    """Serve the rows of a store until the parent says stop."""
    server = RawServer(path)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    watch = LoopWatch()
    with watch.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, server.handle, listeners))
            await _until_input_ends(nursery.cancel_scope.cancel)
    return {"loop": watch.figures(), "bytes_sent": server.bytes_sent}


async def sync_verified(path: Path, port: int, root: bytes) -> dict[str, Any]:
    """Copy a store, verifying every pair."""
    with merkledb.open(path) as database:
        # The replicas of benchmarks are copies of files, which count as written here.
        thread, watch = WatchedThread(), LoopWatch()
        manager = Manager(database, [f"127.0.0.1:{port}"], root, replace=True, processor=thread)
        with watch.watching():
            await manager.run()
        return {"loop": watch.figures(), "thread": thread.figures(), **_fetched(database, manager)}


async def sync_following(path: Path, port: int) -> dict[str, Any]:
    """Follow a server: print a line at the first complete root, and end at that which the parent answers."""
    began = time.perf_counter()
    with merkledb.open(path) as database:
        manager, watch = Manager(database, [f"127.0.0.1:{port}"], trust_peers=True), LoopWatch()
        roots = manager.roots()
        with watch.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.follow)
                reached = await anext(roots)
                first_root_seconds = time.perf_counter() - began
                print(reached.revision, flush=True)
                newest = bytes.fromhex(await trio.to_thread.run_sync(sys.stdin.readline))
                while reached.root != newest:
                    reached = await anext(roots)
                nursery.cancel_scope.cancel()
        told = {"loop": watch.figures(), "first_root_seconds": first_root_seconds}
        return {**told, **_fetched(database, manager)}


def _fetched(database: merkledb.Database, manager: Manager) -> dict[str, Any]:
    progress = manager.progress
    return {"keys": len(database), "fetched_pairs": progress.keys, "fetched_changes": progress.changes}


async def sync_raw(path: Path, port: int) -> dict[str, Any]:
    """Copy a store, verifying nothing."""
    client, watch = RawClient(path), LoopWatch()
    with watch.watching():
        await client.copy(await trio.open_tcp_stream("127.0.0.1", port))
    return {"loop": watch.figures(), "keys": client.keys}


def main(role: str, path: str, *arguments: str) -> None:
    """Run one role and print what it measured of itself."""
    roles: dict[str, Callable[[], Any]] = {
        "serve_verified": partial(serve_verified, Path(path)),
        "serve_committing": lambda: serve_committing(
            Path(path), int(arguments[0]), int(arguments[1]), int(arguments[2]), float(arguments[3])
        ),
        "serve_raw": partial(serve_raw, Path(path)),
        "sync_verified": lambda: sync_verified(Path(path), int(arguments[0]), bytes.fromhex(arguments[1])),
        "sync_following": lambda: sync_following(Path(path), int(arguments[0])),
        "sync_raw": lambda: sync_raw(Path(path), int(arguments[0])),
    }
    cpu_seconds, began = _cpu_seconds(), time.perf_counter()
    # As a command does.
    with responsive():
        result = trio.run(roles[role])
    result["seconds"] = time.perf_counter() - began
    result["cpu_seconds"] = _cpu_seconds() - cpu_seconds
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
