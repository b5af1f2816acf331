"""What goes wrong beside the network's own weather: nodes that die, partitions, dropped lines, full disks."""

from collections.abc import Sequence

import trio

from simulation.disk import Moment
from simulation.network import Network
from simulation.node import Death, Node, World

_MOMENTS = (Moment.BEFORE, Moment.INSIDE, Moment.AFTER)


class Faults:
    """All that happens to the nodes of a world, at times drawn in advance.

    Args:
        world: Where they are.
        nodes: Whom it happens to.
        network: Between them.
        wipeable: The names of those that may lose everything.
    """

    def __init__(
        self, world: World, nodes: Sequence[Node], network: Network, wipeable: frozenset[str]
    ) -> None:
        self._world = world
        self._nodes = nodes
        self._network = network
        self._wipeable = wipeable
        self._random = world.random("faults")

    async def strike(self) -> None:
        """Strike until the time of faults is over."""
        plan = self._world.plan
        strikes = [
            *([self._kill] * plan.kills),
            *([self._part] * plan.partitions),
            *([self._drop] * plan.drops),
            *([self._fill_disk] * plan.full_disks),
        ]
        times = sorted((self._random.random() * plan.fault_seconds, at) for at in range(len(strikes)))
        for time, at in times:
            await trio.sleep_until(time)
            strikes[at]()

    def _kill(self) -> None:
        node = self._random.choice(self._nodes)
        seconds = self._random.choice([0.0, 0.5, 5.0, 20.0])
        chance = self._random.random()
        if chance < 0.5:
            node.die_at_write(self._random.randrange(6), self._random.choice(_MOMENTS))
        elif chance < 0.6 and node.name in self._wipeable:
            node.die(Death.WIPED, seconds)
        else:
            node.die(self._random.choice([Death.KILLED, Death.POWER_LOST]), seconds)

    def _part(self) -> None:
        names = [node.name for node in self._nodes]
        some = [name for name in names if self._random.random() < 0.5]
        others = [name for name in names if name not in some]
        seconds = self._random.choice([1.0, 10.0, 60.0])
        self._world.trace.note("network: parted", "network", f"{some} for {seconds} seconds")
        self._network.part(some, others, seconds)

    def _drop(self) -> None:
        self._network.drop_one()

    def _fill_disk(self) -> None:
        node = self._random.choice(self._nodes)
        if self._random.random() < 0.5:
            node.die_at_write(self._random.randrange(4), Moment.FULL)
        else:
            node.fill_disk(self._random.choice([0.5, 5.0, 40.0]))
