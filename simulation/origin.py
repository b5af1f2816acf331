"""Where content comes from: the writer's own node, with honest servers and others, and copies that lag."""

from typing import Final

import trio

from merkledb import Database, DatabaseFull, StaleView, View
from server import Server
from server.closing import refuse
from simulation.commits import Author, difference
from simulation.lies import Liar
from simulation.model import Changes, Made
from simulation.node import Node, World
from simulation.safety import Unsafe
from syncproto import Error, ErrorCode

_FULL: Final = Error(0, ErrorCode.OVERLOADED, "all places are taken: try again", 500)


class Origin(Node):
    """The writer, and servers of what it writes.

    Args:
        world: Where it is.
        liars: Which serve beside the honest servers.

    Attributes:
        honest: The names of the honest servers.
        full: The names of servers that have no place for anybody.
        is_finished: Set when the writer has made all its commits.
    """

    def __init__(self, world: World, liars: tuple[Liar, ...]) -> None:
        super().__init__(world, "origin", world.plan.history)
        plan = world.plan
        self.honest = tuple(f"origin-{number}" for number in range(plan.origin_servers))
        self.full = tuple(f"full-{number}" for number in range(plan.always_full))
        self.liars = liars
        self._author = Author(world.random("author"), plan.longest_value_bytes, plan.large_changes)
        self._left = plan.commits
        self._has_begun = False
        self._last_words = self._random.randrange(3)
        self.is_finished = trio.Event()

    async def live(self, database: Database) -> None:
        """Serve, and write."""
        self._publish_durable(database)
        servers = [self.server(database) for _ in (*self.honest, *self.liars)]
        async with trio.open_nursery() as nursery:
            for name in self.full:
                nursery.start_soon(self._refuse, name, float("inf"))
            for server, name in zip(servers, self.honest, strict=False):
                nursery.start_soon(self._serve_later, server, name)
            for server, liar in zip(servers[len(self.honest) :], self.liars, strict=True):
                nursery.start_soon(server.serve, [self.listener(liar.name, liar)])
            await self._write_all(database, servers)

    async def _serve_later(self, server: Server, name: str) -> None:
        """Serve after a time without a free place."""
        if self.world.plan.full_seconds and not self.world.is_calm:
            await self._refuse(name, self.world.plan.full_seconds)
        await server.serve([self.listener(name)])

    async def _refuse(self, name: str, seconds: float) -> None:
        """Refuse whoever connects, as a server does that is full."""

        async def refuse_one(stream: trio.abc.Stream) -> None:
            self.world.trace.note("refused: full", self.name, name)
            await refuse(stream, _FULL)

        with trio.move_on_after(seconds):
            await trio.serve_listeners(refuse_one, [self.listener(name)])

    def _publish_durable(self, database: Database) -> None:
        """Publish a commit that was durable when the node died before it could say so."""
        head = database.head
        if head is not None and head.number > self.world.model.newest.number:
            self._publish(Made(head.number, head.root))

    def _publish(self, made: Made) -> None:
        self.world.trace.note("published", self.name, f"{made.number} {made.root.hex()[:8]}")
        self.world.publish(made)

    async def _write_all(self, database: Database, servers: list[Server]) -> None:
        plan, model = self.world.plan, self.world.model
        if plan.keys and not self._has_begun:
            self._has_begun = True
            self._commit(database, servers, "first", self._author.pairs(plan.keys))
        while self._left and not self.world.is_calm:
            await trio.sleep(self._random.expovariate(1.0) * plan.commit_seconds)
            self._commit(database, servers, *self._author.next_changes(model))
            self._left -= 1
        await self.world.calm.wait()
        while self._last_words:
            await trio.sleep(self._random.random())
            self._commit(database, servers, *self._author.next_changes(model))
            self._last_words -= 1
        self.is_finished.set()

    def _commit(self, database: Database, servers: list[Server], kind: str, changes: Changes) -> None:
        model = self.world.model
        root = model.proposed(changes)
        try:
            found = self._commit_somehow(database, changes)
        except DatabaseFull:
            self.world.trace.note("full disk", self.name)
            return
        if found != root:
            self.world.violate(Unsafe(f"a commit gives root {found.hex()}, and not {root.hex()}"))
        head = database.head
        if self.is_dying or head is None or root == model.newest.root:
            return
        self.world.trace.note(f"commit: {kind}", self.name, f"{len(changes)} changes")
        self._publish(Made(head.number, root))
        for server in servers:
            server.announce()

    def _commit_somehow(self, database: Database, changes: Changes) -> bytes:
        """Commit changes at once, or by way of a view that stands on a view."""
        if self._random.random() < 0.7:
            return database.commit(changes)
        keys, before = sorted(changes), database.root
        half = self._random.randrange(len(keys) + 1)
        first, second = ({key: changes[key] for key in part} for part in (keys[:half], keys[half:]))
        with database.view(first) as lower, lower.view(second) as upper, database.view(changes) as sibling:
            if upper.root != sibling.root or dict(upper.items()) != dict(sibling.items()):
                self.world.violate(Unsafe("two views of the same changes differ"))
            root = upper.commit()
            self.world.trace.note("committed a view", self.name)
            if root != before and not self._is_stale(sibling):
                self.world.violate(Unsafe("a view is not stale though another commit came first"))
        return root

    def _is_stale(self, view: View) -> bool:
        """Whether a view cannot be committed any more; if it can, that changes nothing."""
        try:
            view.commit()
        except StaleView:
            return True
        return False


class Mirror(Node):
    """A copy that makes the same commits, later, and serves them.

    Args:
        world: Where it is.
        name: Of the node and of its server.
        may_jump: Whether it may make several commits as one, so that its revisions have other numbers.
    """

    def __init__(self, world: World, name: str, *, may_jump: bool) -> None:
        super().__init__(world, name, world.plan.history)
        self._may_jump = may_jump
        self._at = 0

    async def live(self, database: Database) -> None:
        """Serve, and lag behind."""
        self._at = self._position(database)
        server = self.server(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, [self.listener(self.name)])
            while True:
                await self._wait()
                self._catch_up(database, server)

    async def _wait(self) -> None:
        """Wait for a while; while nothing is calm, for longer."""
        with trio.move_on_after(self._random.choice([0.2, 2.0, 8.0])):
            await self.world.calm.wait()
        await trio.sleep(0.1)

    def _position(self, database: Database) -> int:
        """Return the newest commit of the writer that the store is at."""
        made = self.world.model.made
        return max(at for at, each in enumerate(made) if each.root == database.root)

    def _catch_up(self, database: Database, server: Server) -> None:
        """Make the next commit, or jump to the newest one."""
        model = self.world.model
        if self._at + 1 >= len(model.made):
            return
        jumps = self._may_jump and self._random.random() < 0.3
        target = len(model.made) - 1 if jumps else self._at + 1
        before, after = (model.contents_of(model.made[at].root) for at in (self._at, target))
        try:
            database.commit(difference(before or {}, after or {}))
        except DatabaseFull:
            return
        self._at = target
        server.announce()
