"""A node: one machine with one store, which lives, dies at any moment, and lives again.

What it does while it lives is its subclass's.  Each life is a task with a cancel scope of its own; whatever
ends it, the store is closed and opened again, from the same folder where only the program was killed, from a
copy where the machine lost its power.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import trio

from merkledb import Database, VerifiedChanges
from server import Server, ServerLimits
from simulation.disk import Disk, Moment
from simulation.inline import Inline
from simulation.lies import Liar, LyingStream
from simulation.model import Made, Model
from simulation.network import Listener, Network
from simulation.plan import Plan
from simulation.safety import Safety, Unexpected, Unsafe, Violation, Witness
from simulation.stream import SimulatedStream
from simulation.trace import Trace

# New heads are announced, so looking for them is for a commit that nobody announced.
_HEAD_INTERVAL_SECONDS: Final = 3.0


class Death(Enum):
    """How a node dies."""

    KILLED = "killed"  # the program ends at some checkpoint; the disk has all that it wrote
    POWER_LOST = "power lost"  # the disk has what it had at that moment, and peers hear nothing
    WIPED = "wiped"  # the disk is empty afterwards
    AT_WRITE = "crashed at a write"


class World:
    """What all nodes share.

    Args:
        plan: What is to be simulated.
        random: Returns a source of chances for each purpose, so that one does not disturb the other.
        folder: For all stores.
        model: The truth.
        network: Between the nodes.
        trace: Where events are noted.

    Attributes:
        violation: The first thing that must not happen, and did.
        calm: Set when the time of faults is over.
        on_publish: Called with every new commit of the writer.
    """

    def __init__(
        self,
        plan: Plan,
        random: Callable[[str], Random],
        folder: Path,
        model: Model,
        network: Network,
        trace: Trace,
    ) -> None:
        self.plan = plan
        self.random = random
        self.folder = folder
        self.model = model
        self.network = network
        self.trace = trace
        self.safety = Safety(model, random("safety"))
        self.violation: Violation | None = None
        self.calm = trio.Event()
        self.on_publish: list[Callable[[Made], None]] = []
        self.scope = trio.CancelScope()

    @property
    def is_calm(self) -> bool:
        """Whether the time of faults is over."""
        return self.calm.is_set()

    def publish(self, made: Made) -> None:
        """Let everybody whom it concerns know of a commit."""
        self.model.publish(made)
        for tell in self.on_publish:
            tell(made)

    def violate(self, violation: Violation) -> None:
        """End the simulation, for something happened that must not."""
        if self.violation is None:
            self.violation = violation
            self.trace.note("violation", type(violation).__name__, str(violation))
            self.scope.cancel()


class Node(ABC):
    """One machine.

    Args:
        world: Where it is.
        name: Of the node.
        history: How many revisions its store retains.

    Attributes:
        name: Of the node.
        database: Its store; None while it is dead.
    """

    def __init__(self, world: World, name: str, history: int) -> None:
        self.world = world
        self.name = name
        self.database: Database | None = None
        self._history = history
        self._random = world.random(name)
        self._disk = Disk(world.folder / name, self._wrote, self._applies, self._crashed)
        self._witness = Witness()
        self._life = trio.CancelScope()
        self._death: Death | None = None
        self._dead_until = 0.0
        self._reborn = trio.Event()

    # Life and death.

    async def exist(self) -> None:
        """Live, die and live again, for as long as the simulation lasts."""
        while True:
            await self._live_once()
            self._reborn = trio.Event()
            with trio.move_on_at(self._dead_until):
                await self._reborn.wait()

    async def _live_once(self) -> None:
        plan, self._life, self._death = self.world.plan, trio.CancelScope(), None
        # Whatever its peers still had open with an earlier life ends when the machine is up again.
        self.world.network.hang_up(self.name)
        try:
            self.database = self._disk.open(
                plan.scheme, self._history, plan.history_seconds, trio.current_time
            )
            self._disk.forget_old()
            self.look_closely()
            self._wrote(self.database)
            with self._life:
                await self._live_and_read(self.database)
        except Exception as error:  # noqa: BLE001 - anything unexpected is a finding.
            self.world.violate(Unexpected(f"{self.name} died", error))
        finally:
            self._bury()

    async def _live_and_read(self, database: Database) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_slowly, database)
            await self.live(database)

    def _bury(self) -> None:
        database, self.database = self.database, None
        if self._death is not Death.POWER_LOST and self._death is not Death.AT_WRITE:
            self.world.network.hang_up(self.name)
        if database is not None:
            database.close()
        if self._death is Death.WIPED:
            self._disk.wipe()
            self._witness.forget()

    @abstractmethod
    async def live(self, database: Database) -> None:
        """Do what the node is for, until cancelled."""

    def die(self, death: Death, seconds: float) -> None:
        """Die now, and stay dead for so long; a node that is dead already stays so."""
        if self.database is None or self._death is not None:
            return
        self.world.trace.note(f"death: {death.value}", self.name, f"for {seconds:.1f} seconds")
        if death is Death.POWER_LOST:
            self._disk.freeze()
        self._end(death, seconds)

    def die_at_write(self, writes: int, moment: Moment) -> None:
        """Die at one of the next writes, or find no room there."""
        self._disk.set_trap(writes, moment)

    def fill_disk(self, seconds: float) -> None:
        """Let no write find room for so long."""
        self.world.trace.note("disk filled", self.name, f"for {seconds:.1f} seconds")
        self._disk.full_until = trio.current_time() + seconds

    def _crashed(self, moment: Moment) -> None:
        self.world.trace.note(f"death: at a write, {moment.name.lower()}", self.name)
        self._end(Death.AT_WRITE, self._random.choice([0.0, 0.1, 3.0]))

    def _end(self, death: Death, seconds: float) -> None:
        self._death = death
        self._dead_until = trio.current_time() + (0.0 if self.world.is_calm else seconds)
        if death in (Death.POWER_LOST, Death.AT_WRITE):
            self.world.network.fall_silent(self.name)
        self._life.cancel()

    def calm_down(self) -> None:
        """Live again, if dead, and die no more."""
        self._disk.set_trap(0, None)
        self._disk.full_until = 0.0
        self._dead_until = 0.0
        self._reborn.set()

    @property
    def is_dying(self) -> bool:
        """Whether this life is over, although some of its tasks still run."""
        return self._death is not None

    # Its store.

    def look_closely(self) -> None:
        """Check everything that the store shows and holds."""
        if self.database is None:
            self.world.violate(Unexpected(f"{self.name} is dead, though nothing goes wrong any more"))
            return
        self._look(self.world.safety.look_closely, self.database)

    def _look(self, look: Callable[[Database], None], database: Database) -> None:
        try:
            look(database)
        except Violation as violation:
            self.world.violate(type(violation)(f"{self.name}: {violation}"))
        except Exception as error:  # noqa: BLE001 - a store that cannot be read is a finding.
            self.world.violate(Unexpected(f"{self.name}: reading its store", error))

    def _wrote(self, database: Database) -> None:
        self._look(self.world.safety.look, database)
        if not self.is_dying:
            self._look(lambda shown: self._witness.look(shown.head), database)

    async def _read_slowly(self, database: Database) -> None:
        """Read retained revisions while others are made and old ones go."""
        while not self.world.is_calm:
            await trio.sleep(self._random.choice([0.5, 2.0, 5.0]))
            revisions = database.revisions()
            if revisions:
                await self._read_one(database, self._random.choice(revisions).root)

    async def _read_one(self, database: Database, root: bytes) -> None:
        with database.at(root) as snapshot:
            items = snapshot.items()
            found = dict(islice(items, len(snapshot) // 2))
            await trio.sleep(self._random.choice([0.0, 1.0, 5.0]))
            found.update(items)
        self.world.trace.note("read slowly", self.name, root.hex()[:8])
        if found != self.world.model.contents_of(root):
            self.world.violate(Unsafe(f"{self.name}: a snapshot of {root.hex()} changed while it was read"))

    def _applies(self, verified: object) -> None:
        kind = "changes" if isinstance(verified, VerifiedChanges) else "a range"
        self.world.trace.note(f"applied {kind}", self.name)

    # Its servers.

    def server(self, database: Database) -> Server:
        """Return a server of the store."""
        plan = self.world.plan
        limits = ServerLimits(
            max_connections=plan.max_connections,
            max_keys=max(plan.max_keys, 8),
            max_ordinary_bytes=plan.max_bytes,
            head_interval_seconds=_HEAD_INTERVAL_SECONDS,
        )
        executor = Inline(self._random, limits.max_threads, plan.slowest_work_seconds)
        return Server(
            database, limits=limits, executor=executor, on_failure=self._server_failed, network_of=_client_of
        )

    def _server_failed(self, error: Exception) -> None:
        if not self.is_dying:
            self.world.violate(Unexpected(f"a server of {self.name} failed", error))

    def listener(self, name: str, liar: Liar | None = None) -> "Listener | LyingListener":
        """Return where a server of this node accepts connections, lying or not."""
        listener = self.world.network.listen(self.name, name)
        return listener if liar is None else LyingListener(listener, liar)


def _client_of(stream: trio.abc.Stream) -> str:
    """Return the node that connected: each has an address of its own."""
    assert isinstance(stream, SimulatedStream | LyingStream)
    return stream.client


class LyingListener(trio.abc.Listener[LyingStream]):
    """Accepts connections whose streams lie."""

    def __init__(self, listener: Listener, liar: Liar) -> None:
        self._listener = listener
        self._liar = liar

    async def accept(self) -> LyingStream:
        """Wait for the next connection."""
        stream = await self._listener.accept()
        return LyingStream(stream, self._liar, stream.client)

    async def aclose(self) -> None:
        """Accept no more."""
        await self._listener.aclose()
