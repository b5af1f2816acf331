"""One simulation: a world made from a seed, a time of faults, and then the question whether all comes right.

Safety is looked at after each write (see ``safety``), and closely at each start of a node and at the end.
Liveness: when the faults are over and the writer has finished, every replica reaches the newest root within
``LIVENESS_SECONDS`` of virtual time, liars or not.  Only a replica that believes liars which announce heads
that can be proven may end at one of these, under a number that is not below the newest.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import trio

from simulation import lies, scheduling
from simulation.disk import temporary_folder
from simulation.faults import Faults
from simulation.lies import Liar
from simulation.model import Made, Model
from simulation.network import Network, Weather
from simulation.node import Node, World
from simulation.origin import Mirror, Origin
from simulation.plan import Plan, draw
from simulation.replica import Manner, Replica
from simulation.safety import NotLive, Unexpected, Violation, warnings_are_violations
from simulation.trace import Trace

# Backoffs last half a minute at most, and a peer that is silent is given up after a few of them.
LIVENESS_SECONDS: Final = 1200.0
# What the writer needs at most to come to its end after the faults.
_FINISH_SECONDS: Final = 120.0


class Outcome(NamedTuple):
    """What a simulation has shown.

    Attributes:
        seed: That it began with.
        violation: What must not happen, and did; None: all went well.
        counts: How often each kind of event happened.
        digest: Of all events.
        lines: The events, where they were asked for.
    """

    seed: int
    violation: Violation | None
    counts: Counter[str]
    digest: str
    lines: Sequence[str]


class Simulation:
    """One seed's world.

    Args:
        seed: Decides everything.
        keep_lines: Whether the log is wanted.
        plan: What to simulate; None: what the seed makes of it.
    """

    def __init__(self, seed: int, *, keep_lines: bool = False, plan: Plan | None = None) -> None:
        self.seed = seed
        self.trace = Trace(keep_lines=keep_lines)
        self.plan = plan or draw(self._random("plan"))

    def _random(self, purpose: str) -> Random:
        return Random(f"{self.seed} {purpose}")

    def run(self) -> Outcome:
        """Run it to its end, or to its first violation."""
        with temporary_folder() as folder:
            violation = scheduling.run(self.seed, partial(self._run, folder))
        return Outcome(self.seed, violation, self.trace.counts, self.trace.digest, self.trace.lines)

    async def _run(self, folder: Path) -> Violation | None:
        plan = self.plan
        self.trace.note("plan", f"seed {self.seed}", str(plan))
        weather = Weather(self._random("weather"), plan.roughness, plan.slowness)
        network = Network(weather, self.trace)
        world = World(plan, self._random, folder, Model(plan.scheme), network, self.trace)
        circling = Unexpected("tasks run for ever without letting time pass")
        trio.lowlevel.add_instrument(scheduling.StandstillAlarm(partial(world.violate, circling)))
        with world.scope, warnings_are_violations(world.violate):
            await _Course(world, self._random("world")).run()
        return world.violation


class _Course:
    """Who is there, and the order in which things happen.

    Args:
        world: Where all is.
        random: Decides who is there.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        plan = world.plan
        trusting = [random.random() < plan.trusting_share for _ in range(plan.replicas)]
        self._liars = tuple(self._liar(number, believed=any(trusting)) for number in range(plan.liars))
        self._origin = Origin(world, self._liars)
        self._mirrors = [
            Mirror(world, f"mirror-{number}", may_jump=not any(trusting)) for number in range(plan.mirrors)
        ]
        self._replicas = [self._replica(number, is_trusting=each) for number, each in enumerate(trusting)]
        world.network.trusting.update(each.name for each in self._replicas if each.is_trusting)
        self._nodes: list[Node] = [self._origin, *self._mirrors, *self._replicas]
        self._nursery: trio.Nursery | None = None
        world.on_publish.append(self._tell_all)

    def _liar(self, number: int, *, believed: bool) -> Liar:
        if self._random.random() < 0.5:
            # Who lies in one way only is not found out before that way was tried.
            choice, count = list(lies.FORGERIES), self._random.choice([1, 1, 2])
        else:
            may_mislead = self._world.plan.misleads or not believed
            choice = [name for name in lies.ALL if may_mislead or name not in lies.FALSE_HEADS]
            count = self._random.choice([1, 2, 5, len(choice)])
        return Liar(
            f"liar-{number}",
            self._world.model,
            self._world.random(f"liar {number}"),
            self._world.plan.repertoire or tuple(self._random.sample(choice, count)),
            self._random.choice([0.05, 0.3, 1.0]),
            self._world.trace,
            is_believed=believed,
        )

    def _replica(self, number: int, *, is_trusting: bool) -> Replica:
        """Return a replica with an honest way to the origin, and any other peers."""
        earlier = [f"replica-{each}" for each in range(number)]
        sure = self._random.choice([*self._origin.honest, *earlier, *earlier])
        replicas = [f"replica-{each}" for each in range(self._world.plan.replicas) if each != number]
        mirrors = [mirror.name for mirror in self._mirrors]
        others = [*self._origin.honest, *mirrors, *replicas, *(liar.name for liar in self._liars)]
        others += self._origin.full
        chosen = [name for name in others if name != sure and self._random.random() < 0.5]
        peers = [sure, *chosen]
        self._random.shuffle(peers)
        liars = frozenset(liar.name for liar in self._liars)
        manner = Manner.TRUSTING if is_trusting else self._random.choice([Manner.TOLD, Manner.CALLED])
        return Replica(self._world, f"replica-{number}", tuple(peers), liars, manner)

    async def run(self) -> None:
        """Let all happen."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for node in self._nodes:
                nursery.start_soon(node.exist)
            self._tell_all(self._world.model.newest)
            await self._faults()
            await self._calm_down()
            await self._converge()
            await self._look_closely()
            nursery.cancel_scope.cancel()

    async def _faults(self) -> None:
        wipeable = frozenset(node.name for node in (*self._mirrors, *self._replicas))
        with trio.move_on_at(self._world.plan.fault_seconds):
            await Faults(self._world, self._nodes, self._world.network, wipeable).strike()
            await trio.sleep_forever()

    async def _calm_down(self) -> None:
        """End the time of faults, and wait for the writer's last commit."""
        self._world.trace.note("calm", "world")
        self._world.network.calm()
        self._world.calm.set()
        for node in self._nodes:
            node.calm_down()
        with trio.move_on_after(_FINISH_SECONDS) as patience:
            await self._origin.is_finished.wait()
        if patience.cancelled_caught:
            self._world.violate(Unexpected("the writer does not come to its end"))
        for replica in self._replicas:
            if not replica.is_trusting:
                replica.tell(self._world.model.newest)

    async def _converge(self) -> None:
        """Wait until every replica shows the newest root."""
        deadline = trio.current_time() + LIVENESS_SECONDS
        while not all(replica.is_current for replica in self._replicas):
            if trio.current_time() >= deadline:
                late = ", ".join(each.name for each in self._replicas if not each.is_current)
                self._world.violate(NotLive(f"not current after {LIVENESS_SECONDS:.0f} seconds: {late}"))
            await trio.sleep(0.5)
        self._world.trace.note("current", "world")

    async def _look_closely(self) -> None:
        """Look at all stores once more, as they stand."""
        for node in self._nodes:
            node.look_closely()
        await trio.lowlevel.checkpoint()

    # Telling.

    def _tell_all(self, made: Made) -> None:
        """Tell the replicas that believe no peer which root is the newest; not all at once."""
        assert self._nursery is not None
        for replica in self._replicas:
            if not replica.is_trusting:
                self._nursery.start_soon(self._tell_later, replica, made)

    async def _tell_later(self, replica: Replica, made: Made) -> None:
        """Tell it after a while; sometimes what was true long ago, sometimes nothing."""
        await trio.sleep(self._random.choice([0.0, 0.0, 0.1, 1.0, 5.0]))
        if self._world.is_calm or self._random.random() < 0.9:
            newer = replica.target is not None and replica.target.number > made.number
            if not newer or self._may_go_back():
                replica.tell(made)

    def _may_go_back(self) -> bool:
        """Whether a replica may be told an older root.

        It gets a number above that of the newest, so nobody may do so where others believe what it announces.
        """
        return not self._world.is_calm and not any(replica.is_trusting for replica in self._replicas)
