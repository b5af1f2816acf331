"""How a program runs and watches other processes, and what the servers and clients among them do.

A process runs as ``python -m MODULE ROLE ARGUMENTS``, with its arguments as a JSON array, and prints one JSON
document at its end.  The roles of this module are the servers and clients of ``bench.sync`` and
``bench.follow``.  A server prints its port first, and ends when its standard input does.
"""

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import trio

import merkledb
from bench.data import scattered_changes
from bench.figures import Figures
from bench.instruments import LoopWatch, WatchedThread
from bench.raw import RawClient, RawServer
from manager import Manager
from merklesync.console.signals import short_pauses
from server import Server

_SAMPLE_SECONDS: Final = 0.01


class WatchedProcess:
    """A process that has a role of a module; ``arguments`` are what the role takes.

    Attributes:
        memory: The peak of its anonymous memory in MB; mapped pages of a store do not count.
    """

    def __init__(self, role: str, *arguments: object, module: str = "bench.processes") -> None:
        command = [sys.executable, "-m", module, role, json.dumps(arguments, default=str)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.memory = 0.0
        self._ended = Event()
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while not self._ended.wait(_SAMPLE_SECONDS):
            # The process may be gone.
            with suppress(FileNotFoundError, ProcessLookupError):
                anonymous = [row for row in status.read_text().splitlines() if row.startswith("RssAnon:")]
                self.memory = max([self.memory, *(int(row.split()[1]) * 1024 / 1e6 for row in anonymous)])

    def line(self) -> str:
        """Return the next line that the process prints."""
        line = self._output.readline()
        if not line:
            raise SystemExit(f"a process of the benchmark failed, see above: {self._process.args!r}")
        return line.strip()

    def tell(self, line: str) -> None:
        """Write a line to the process."""
        self._input.write(line + "\n")
        self._input.flush()

    def end(self) -> Figures:
        """Let the process end; return what it measured."""
        self._input.close()
        figures: Figures = json.loads(self.line())
        self._ended.set()
        self._process.wait()
        return figures


def end_both(server: WatchedProcess, client: WatchedProcess) -> Figures:
    """Wait for the client, then let the server end; return what each measured after its name."""
    both: Figures = {}
    for side, process in (("client", client), ("server", server)):
        both |= {f"{side}_{name}": figure for name, figure in process.end().items()}
        both[f"{side}_memory"] = process.memory
    return both


def transfer(kind: str, source: Path, target: Path, root: bytes) -> Figures:
    """Sync ``target`` with ``source`` once; ``kind`` is "raw" or "verified"."""
    server = WatchedProcess(f"serve_{kind}", source)
    return end_both(server, WatchedProcess(f"sync_{kind}", target, int(server.line()), root.hex()))


def run_role(roles: Mapping[str, Callable[..., Mapping[str, float]]]) -> None:
    """Run the role that the command line names, and print what it measured of itself."""
    role, arguments = sys.argv[1:]
    print(json.dumps(roles[role](*json.loads(arguments))), flush=True)


async def _until_input_ends() -> None:
    await trio.to_thread.run_sync(sys.stdin.read)


async def _serve(
    serve: Callable[..., Awaitable[None]], meanwhile: Callable[[], Awaitable[None]] = _until_input_ends
) -> Figures:
    """Serve at a port that is printed until ``meanwhile`` ends; return the figures of the event loop."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    with LoopWatch().watching() as figures:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listeners)
            await meanwhile()
            nursery.cancel_scope.cancel()
    return figures


async def serve_verified(path: str) -> Figures:
    """Serve a store."""
    with merkledb.open(path, readonly=True) as database:
        server = Server(database)
        return {**await _serve(server.serve), "bytes_sent": server.counters.bytes_sent}


async def serve_committing(path: str, keys: int, first: int, changes: int, seconds: float) -> Figures:
    """Serve a store of so many keys, and commit to it until the parent sends a line; then print its root.

    Each commit has so many ``changes``, the first one those of the number ``first``; they begin ``seconds``
    apart.
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

        async def commit_until_line() -> None:
            async with trio.open_nursery() as committing:
                committing.start_soon(commit_until_cancelled)
                await trio.to_thread.run_sync(sys.stdin.readline)
                committing.cancel_scope.cancel()
            print(database.root.hex(), flush=True)
            await _until_input_ends()

        figures = await _serve(server.serve, commit_until_line)
        commits, sent = database.revision - before, server.counters.bytes_sent
        return {**figures, "bytes_sent": sent, "commits": commits}


async def serve_raw(path: str) -> Figures:
    """Serve the rows of a store."""
    server = RawServer(Path(path))
    figures = await _serve(partial(trio.serve_listeners, server.handle))
    return {**figures, "bytes_sent": server.bytes_sent}


async def sync_verified(path: str, port: int, root: str) -> Figures:
    """Copy a store, verifying every pair."""
    with merkledb.open(path) as database:
        thread = WatchedThread()
        # The replicas of benchmarks are copies of files, which count as written here.
        manager = Manager(database, [f"127.0.0.1:{port}"], bytes.fromhex(root), replace=True, executor=thread)
        with LoopWatch().watching() as figures:
            await manager.run()
        return {**figures, **thread.figures(), "keys": len(database)}


async def sync_following(path: str, port: int) -> Figures:
    """Follow a server: print a line at the first complete root, and end at that which the parent answers."""
    began = time.perf_counter()
    with merkledb.open(path) as database:
        manager = Manager(database, [f"127.0.0.1:{port}"], trust_peers=True)
        roots = manager.roots()
        with LoopWatch().watching() as figures:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.follow)
                reached = await anext(roots)
                first_root_seconds = time.perf_counter() - began
                print(reached.revision, flush=True)
                newest = bytes.fromhex(await trio.to_thread.run_sync(sys.stdin.readline))
                while reached.root != newest:
                    reached = await anext(roots)
                nursery.cancel_scope.cancel()
        fetched = {"fetched_pairs": manager.progress.keys, "fetched_changes": manager.progress.changes}
        return {**figures, "first_root_seconds": first_root_seconds, **fetched}


async def sync_raw(path: str, port: int, _root: str) -> Figures:
    """Copy a store, verifying nothing."""
    client = RawClient(Path(path))
    with LoopWatch().watching() as figures:
        await client.copy(await trio.open_tcp_stream("127.0.0.1", port))
    return {**figures, "keys": client.keys}


def _measured(role: Callable[..., Awaitable[Figures]], *arguments: Any) -> Figures:
    """Run a role to its end; return what it measured, with its whole time and processor time."""
    cpu_seconds, began = time.process_time(), time.perf_counter()
    # As a command does.
    with short_pauses():
        figures = trio.run(role, *arguments)
    seconds = time.perf_counter() - began
    return {**figures, "seconds": seconds, "cpu_seconds": time.process_time() - cpu_seconds}


if __name__ == "__main__":
    roles = (serve_verified, serve_committing, serve_raw, sync_verified, sync_following, sync_raw)
    run_role({role.__name__: partial(_measured, role) for role in roles})
