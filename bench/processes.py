"""How a program runs and watches other processes, and what the servers and clients among them do.

A process runs as ``python -m MODULE ROLE ARGUMENTS``, with its arguments as a JSON array, and prints one JSON
document at its end.  The roles of this module are the servers and clients of ``bench.sync`` and
``bench.follow``.  A server prints its port first, and ends when its standard input does.
"""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, NamedTuple

import trio

import merkledb
from bench.data import scattered_changes
from bench.instruments import LoopWatch, WatchedThread
from bench.raw import RawClient, RawServer
from manager import Manager
from merklesync.console.signals import short_pauses
from server import Server

_SAMPLE_SECONDS: Final = 0.01


# The parent's side.


class WatchedProcess:
    """A process that does one thing, with a thread that watches its memory.

    Args:
        role: What it does.
        arguments: What that takes.
        module: Where its role is defined.

    Attributes:
        peak_bytes: The peak of its anonymous memory; mapped pages of a store do not count.
    """

    def __init__(self, role: str, *arguments: object, module: str = "bench.processes") -> None:
        command = [sys.executable, "-m", module, role, json.dumps(arguments, default=str)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak_bytes = 0
        self._ended = Event()
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, _anonymous_bytes(status))

    def line(self) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of the benchmark failed, see above: {self._process.args!r}")
        return line.strip()

    def tell(self, line: str) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Let the process end; return what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        result: dict[str, Any] = json.loads(self.line())
        self._ended.set()
        self._process.wait()
        return result


def _anonymous_bytes(status: Path) -> int:
    """Return the anonymous memory that a /proc status file tells of; 0 when the process is gone."""
    try:
        lines = status.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


class Transfer(NamedTuple):
    """What a server and its client took.

    Attributes:
        seconds: The client's whole time with its database open.
        client_memory: The peak of its anonymous memory in megabytes.
        server_memory: Of the server.
        client: What the client says of itself.
        server: What the server says of itself.
    """

    seconds: float
    client_memory: float
    server_memory: float
    client: dict[str, Any]
    server: dict[str, Any]


def end_both(server: WatchedProcess, client: WatchedProcess) -> Transfer:
    """Wait for the client, then let the server end; return what both took."""
    synced, served = client.end(), server.end()
    return Transfer(synced["seconds"], client.peak_bytes / 1e6, server.peak_bytes / 1e6, synced, served)


def transfer(kind: str, source: Path, target: Path, root: bytes) -> Transfer:
    """Sync ``target`` with ``source`` once; ``kind`` is "raw" or "verified"."""
    server = WatchedProcess(f"serve_{kind}", source)
    client = WatchedProcess(f"sync_{kind}", target, int(server.line()), root.hex())
    return end_both(server, client)


def run_role(roles: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Run the role that the command line names, and print what it measured of itself."""
    role, arguments = sys.argv[1:]
    print(json.dumps(roles[role](*json.loads(arguments))), flush=True)


# The children's side.


@asynccontextmanager
async def _serving(serve: Callable[..., Awaitable[None]]) -> AsyncIterator[LoopWatch]:
    """Serve as long as the block lasts, at a port that is printed; yield the watch on the event loop."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    watch = LoopWatch()
    with watch.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listeners)
            yield watch
            nursery.cancel_scope.cancel()


async def _input_end() -> None:
    """Wait for the parent to close our standard input."""
    await trio.to_thread.run_sync(sys.stdin.read)


async def serve_verified(path: str) -> dict[str, Any]:
    """Serve a store until the parent says stop."""
    with merkledb.open(path, readonly=True) as database:
        server = Server(database)
        async with _serving(server.serve) as watch:
            await _input_end()
        return {"loop": watch.figures(), "bytes_sent": server.counters.bytes_sent}


async def serve_committing(path: str, keys: int, first: int, changes: int, seconds: float) -> dict[str, Any]:
    """Serve a store and commit changes to it until the parent sends a line; then print its root.

    Args:
        path: The store.
        keys: Pairs in it.
        first: The number of the first set of changes.
        changes: Changes in each commit.
        seconds: From the beginning of one commit to that of the next.
    """
    with merkledb.open(path) as database:
        server, before = Server(database), database.revision

        def commit(number: int) -> None:
            database.commit(scattered_changes(keys, number, changes))

        async def commit_until_cancelled() -> None:
            for number in count(first):
                began = trio.current_time()
                # A commit that has begun is waited for, also when this is cancelled.
                await trio.to_thread.run_sync(commit, number)
                server.announce()
                await trio.sleep_until(began + seconds)

        async with _serving(server.serve) as watch:
            async with trio.open_nursery() as committing:
                committing.start_soon(commit_until_cancelled)
                await trio.to_thread.run_sync(sys.stdin.readline)
                committing.cancel_scope.cancel()
            print(database.root.hex(), flush=True)
            await _input_end()
        commits, sent = database.revision - before, server.counters.bytes_sent
        return {"loop": watch.figures(), "bytes_sent": sent, "commits": commits}


async def serve_raw(path: str) -> dict[str, Any]:
    """Serve the rows of a store until the parent says stop."""
    server = RawServer(Path(path))
    async with _serving(partial(trio.serve_listeners, server.handle)) as watch:
        await _input_end()
    return {"loop": watch.figures(), "bytes_sent": server.bytes_sent}


async def sync_verified(path: str, port: int, root: str) -> dict[str, Any]:
    """Copy a store, verifying every pair."""
    with merkledb.open(path) as database:
        thread, watch = WatchedThread(), LoopWatch()
        # The replicas of benchmarks are copies of files, which count as written here.
        manager = Manager(database, [f"127.0.0.1:{port}"], bytes.fromhex(root), replace=True, executor=thread)
        with watch.watching():
            await manager.run()
        return {"loop": watch.figures(), "thread": thread.figures(), **_fetched(database, manager)}


async def sync_following(path: str, port: int) -> dict[str, Any]:
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


async def sync_raw(path: str, port: int, _root: str) -> dict[str, Any]:
    """Copy a store, verifying nothing."""
    client, watch = RawClient(Path(path)), LoopWatch()
    with watch.watching():
        await client.copy(await trio.open_tcp_stream("127.0.0.1", port))
    return {"loop": watch.figures(), "keys": client.keys}


def _measured(role: Callable[..., Awaitable[dict[str, Any]]], *arguments: Any) -> dict[str, Any]:
    """Run a role to its end; return what it measured, with its whole time and processor time."""
    cpu_seconds, began = time.process_time(), time.perf_counter()
    # As a command does.
    with short_pauses():
        result = trio.run(role, *arguments)
    seconds = time.perf_counter() - began
    return {**result, "seconds": seconds, "cpu_seconds": time.process_time() - cpu_seconds}


if __name__ == "__main__":
    roles = (serve_verified, serve_committing, serve_raw, sync_verified, sync_following, sync_raw)
    run_role({role.__name__: partial(_measured, role) for role in roles})
