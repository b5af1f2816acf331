"""A process that syncs a store, to be killed: ``python -m tests.support.sync_process STORE PORT ROOT``.

It prints a line when it begins, and another after each step of its progress; it ends with status 0 when the
store is at the root.
"""

import sys

import trio

import merkledb
from manager import Limits, Manager

# Small transactions, so that a sync that takes some tenths of a second has many moments to be killed at.
LIMITS = Limits(
    max_keys=256,
    max_changes=64,
    max_bytes=64 << 10,
    buffered_bytes=1 << 20,
    transaction_bytes=256 << 10,
)


async def main(store: str, port: int, root: bytes) -> None:
    with merkledb.open(store) as database:
        print("syncing", flush=True)  # noqa: T201 - the parent waits for it.
        manager = Manager(database, [("127.0.0.1", port)], root, limits=LIMITS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report, manager)
            await manager.run()


async def report(manager: Manager) -> None:
    async for progress in manager.watch():
        print(progress.keys + progress.changes, flush=True)  # noqa: T201 - the parent counts the lines.


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]))
