"""A replica: a store that a manager keeps current, from peers of which some lie, and that serves others."""

from enum import Enum
from functools import partial
from random import Random
from typing import Final

import trio
from outcome import acapture

from manager import Limits, LocalContent, Manager, Peer, SizeClaimBroken, SyncError, SyncStatus, WrongRoot
from merkledb import Database, DatabaseFull
from server import Server
from simulation.inline import Inline
from simulation.model import Made
from simulation.node import Node, World
from simulation.safety import ON_DROP, Unexpected, Unsafe

# So that who was dropped for what the network did is forgiven in time.
_MAX_FORGIVE_SECONDS: Final = 300.0


class Manner(Enum):
    """How a replica learns which root to be at."""

    TRUSTING = "trusting"  # it believes its peers which root is the newest
    TOLD = "told"  # it is told
    CALLED = "called"  # it is told, and begins again with each root


class Replica(Node):
    """One replica.

    Args:
        world: Where it is.
        name: Of the node and of its server.
        peers: The names of the servers that it asks.
        liars: Those of them that lie.
        manner: How it learns which root to be at.
    """

    def __init__(
        self, world: World, name: str, peers: tuple[str, ...], liars: frozenset[str], manner: Manner
    ) -> None:
        super().__init__(world, name, world.plan.replica_history)
        self._peers = peers
        self._liars = liars
        self._manner = manner
        self.target: Made | None = None
        self._manager: Manager | None = None
        self._was_told = trio.Event()

    @property
    def is_trusting(self) -> bool:
        """Whether it believes its peers which root is the newest."""
        return self._manner is Manner.TRUSTING

    @property
    def is_current(self) -> bool:
        """Whether it shows the newest root under its number; or a higher number, as liars have it say."""
        database, newest = self.database, self.world.model.newest
        head = None if database is None else database.head
        if database is None or head is None or head.number < newest.number:
            return False
        is_misled = self.is_trusting and self.world.plan.misleads and bool(self.world.plan.liars)
        return head.root == newest.root or (is_misled and not database.catching_up)

    def tell(self, made: Made) -> None:
        """Tell it which root to be at."""
        self.target = made
        self._was_told.set()
        if self._manager is not None and not self.is_dying:
            self.world.trace.note("retarget", self.name, f"{made.number} {made.root.hex()[:8]}")
            self._manager.update_target(made.root, made.number)

    async def live(self, database: Database) -> None:
        """Serve, and follow."""
        ON_DROP.set(self._note_drop)
        server = self.server(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, [self.listener(self.name)])
            if not self.is_trusting and self.target is None:
                await self._was_told.wait()
            while True:
                self._was_told = trio.Event()
                if await self._sync(database, server):
                    await self._was_told.wait()
                else:
                    await trio.sleep(self._random.choice([0.1, 1.0, 5.0]))

    async def _sync(self, database: Database, server: Server) -> bool:
        """Follow until that fails, or come to the target; return whether it is reached."""
        self._manager = manager = self._new_manager(database)
        try:
            await self._watched(manager, server)
        except SyncError as error:
            self._judge(error)
        except DatabaseFull as error:
            self.world.trace.note("full disk", self.name)
            if self._manner is not Manner.CALLED:
                self.world.violate(Unexpected(f"{self.name} does not follow any more", error))
        else:
            return True
        finally:
            self._manager = None
        return False

    def _new_manager(self, database: Database) -> Manager:
        plan = self.world.plan
        limits = Limits(
            max_keys=plan.max_keys,
            max_changes=plan.max_changes,
            max_bytes=plan.max_bytes,
            buffered_bytes=plan.buffered_bytes,
            transaction_bytes=plan.transaction_bytes,
            transaction_seconds=plan.transaction_seconds,
            pivot_seconds=plan.pivot_seconds,
            ban_seconds=plan.ban_seconds,
            max_ban_seconds=_MAX_FORGIVE_SECONDS,
            requests_per_peer=plan.max_requests,
        )
        manager = Manager(
            database,
            [Peer(name, partial(self.world.network.dial, self.name, name)) for name in self._peers],
            limits=limits,
            random=Random(self._random.random()),
            executor=Inline(self._random, 1, plan.slowest_work_seconds),
            trust_peers=self.is_trusting,
        )
        if self.target is not None:
            manager.update_target(self.target.root, self.target.number)
        return manager

    async def _watched(self, manager: Manager, server: Server) -> None:
        """Run the manager, and announce what it reaches."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, manager, server)
            nursery.start_soon(self._watch, manager)
            # An error must leave the nursery alone, not in a group.
            sync = partial(self._run, manager) if self._manner is Manner.CALLED else manager.follow
            outcome = await acapture(sync)
            nursery.cancel_scope.cancel()
        outcome.unwrap()

    async def _run(self, manager: Manager) -> None:
        """Let the manager come to its end, and see whether that is what it was to reach."""
        progress = await manager.run()
        head = manager.database.head
        if head is None or head.root != progress.target:
            self.world.violate(Unsafe(f"{self.name} ended a sync, and does not show its target"))
        self.world.trace.note("sync ended: at its target", self.name)

    async def _announce(self, manager: Manager, server: Server) -> None:
        async for reached in manager.roots():
            self.world.trace.note("reached", self.name, f"{reached.revision} {reached.root.hex()[:8]}")
            server.announce()

    async def _watch(self, manager: Manager) -> None:
        was: SyncStatus | None = None
        async for progress in manager.watch():
            if progress.status is SyncStatus.NO_ROOM is not was:
                self.world.trace.note("tries again without room", self.name, progress.reason)
            was = progress.status

    def _judge(self, error: SyncError) -> None:
        """Say whether a sync may end so."""
        self.world.trace.note(f"sync ended: {type(error).__name__}", self.name, str(error))
        if isinstance(error, LocalContent | WrongRoot):
            self.world.violate(Unexpected(f"{self.name}", error))

    def _note_drop(self, peer: str, failure: object) -> None:
        """Say whether a peer may be dropped."""
        is_liar = peer in self._liars
        self.world.trace.note(f"dropped {'a liar' if is_liar else 'an honest peer'}", self.name, str(failure))
        # Nothing tells a network that stalls from a peer that claims what it does not have.
        is_late = isinstance(failure, SizeClaimBroken) and failure.is_late
        if not is_liar and not is_late and not self.world.network.was_corrupted(self.name, peer):
            self.world.violate(Unsafe(f"{self.name} dropped honest {peer}: {failure}"))
