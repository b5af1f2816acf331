"""The four processes of ``bench.sync``: server and client of the verified and of the raw copy.

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
from bench.raw import RawClient, RawServer
from manager import Manager
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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listeners)
            await _until_input_ends(server.stop)
        return {"bytes_sent": server.counters.bytes_sent}


async def serve_raw(path: Path) -> dict[str, Any]:
    """Serve the rows of a store until the parent says stop."""
    server = RawServer(path)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, server.handle, listeners))
        await _until_input_ends(nursery.cancel_scope.cancel)
    return {"bytes_sent": server.bytes_sent}


async def sync_verified(path: Path, port: int, root: bytes) -> dict[str, Any]:
    """Copy a store, verifying every pair."""
    with merkledb.open(path) as database:
        await Manager(database, [f"127.0.0.1:{port}"], root).run()
        return {"keys": len(database)}


async def sync_raw(path: Path, port: int) -> dict[str, Any]:
    """Copy a store, verifying nothing."""
    client = RawClient(path)
    await client.copy(await trio.open_tcp_stream("127.0.0.1", port))
    return {"keys": client.keys}


def main(role: str, path: str, *arguments: str) -> None:
    """Run one role and print what it measured of itself."""
    roles: dict[str, Callable[[], Any]] = {
        "serve_verified": partial(serve_verified, Path(path)),
        "serve_raw": partial(serve_raw, Path(path)),
        "sync_verified": lambda: sync_verified(Path(path), int(arguments[0]), bytes.fromhex(arguments[1])),
        "sync_raw": lambda: sync_raw(Path(path), int(arguments[0])),
    }
    cpu_seconds, began = _cpu_seconds(), time.perf_counter()
    result = trio.run(roles[role])
    result["seconds"] = time.perf_counter() - began
    result["cpu_seconds"] = _cpu_seconds() - cpu_seconds
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
