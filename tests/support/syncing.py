"""What the tests of the manager share: some content, a sync on the virtual clock, and what holds after it."""

import random
from collections.abc import Sequence

import trio
from outcome import acapture

from manager import Limits, Manager, Peer, Progress
from manager.scheduling.checkpoint import decode_checkpoint
from merkledb import Database
from tests.support.fake_servers import FakeServer, InEventLoop

# Small proofs make many of them out of a small store.
SMALL = Limits(max_keys=16, max_changes=16)


def some_pairs(count: int, seed: int = 1) -> dict[bytes, bytes]:
    """Return pairs with keys like hashes, and short values."""
    source = random.Random(seed)
    return {source.randbytes(32): source.randbytes(source.randrange(50)) for _ in range(count)}


async def sync_from(
    servers: Sequence[FakeServer | Peer],
    target: bytes,
    database: Database,
    limits: Limits = SMALL,
    *,
    replace: bool = False,
) -> Progress:
    """Sync ``database`` to ``target`` from servers that live as long as the sync."""
    async with trio.open_nursery() as nursery:
        peers = [each if isinstance(each, Peer) else each.peer(nursery) for each in servers]
        manager = Manager(
            database,
            peers,
            target,
            limits=limits,
            replace=replace,
            executor=InEventLoop(),
            random=random.Random(1),
        )
        # An error must leave the nursery alone, not in a group.
        outcome = await acapture(manager.run)
        nursery.cancel_scope.cancel()
    return outcome.unwrap()


def assert_same(database: Database, source: Database) -> None:
    """Assert that a sync made ``database`` the copy of ``source``, and left nothing behind."""
    assert database.root == source.root
    assert list(database.items()) == list(source.items())
    assert database.progress is None
    assert not database.catching_up
    assert not database.written_locally
    database.check()


async def sync_in_part(source: Database, database: Database, server: FakeServer, keys: int) -> None:
    """Sync until some pairs and changes are on disk, and cancel."""
    async with trio.open_nursery() as nursery:
        limits = Limits(max_keys=16, max_changes=16, transaction_bytes=10_000)
        peers = [server.peer(nursery)]
        manager = Manager(database, peers, source.root, limits=limits, executor=InEventLoop())
        nursery.start_soon(manager.run)
        async for progress in manager.watch():
            if database.catching_up and progress.keys + progress.changes >= keys:
                nursery.cancel_scope.cancel()
    assert database.catching_up


def applied_keys(database: Database) -> int:
    """Return how many pairs an unfinished sync has applied, as its progress says."""
    assert database.progress is not None
    return decode_checkpoint(database.progress, database.scheme.max_key_bytes).keys
