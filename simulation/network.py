"""The network between the nodes: names that can be dialled, links with their ways, and what goes wrong.

Each pair of a client's node and a server's name is a link with a line of its own, so that what is sent over
two of them arrives in any order.  While the weather is rough, a new connection may be refused, or hang, or
have a fate (see ``stream``); parts of the network may be cut off from each other for a while.  When it calms
down, nothing goes wrong any more, except for what went wrong already.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import trio

from simulation.stream import Connection, Fate, Line, Pipe, SimulatedStream
from simulation.trace import Trace

# How many connections a listener holds that nobody has accepted.
BACKLOG: Final = 16
_CALM: Final = Line(0.001, 0.001, 10_000_000.0, 65_536)
_USUAL: Final = Line(0.002, 0.01, 1_000_000.0, 65_536)


class Listener(trio.abc.Listener[SimulatedStream]):
    """Where a server accepts connections.

    Args:
        arrivals: The streams that arrive.
    """

    def __init__(self, arrivals: "trio.MemoryReceiveChannel[SimulatedStream]") -> None:
        self._arrivals = arrivals

    async def accept(self) -> SimulatedStream:
        """Wait for the next connection."""
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        """Accept no more."""
        self._arrivals.close()
        await trio.lowlevel.checkpoint()


@dataclass
class Weather:
    """How rough the network is.

    Attributes:
        random: Where all chances come from.
        roughness: The share of new connections that come to harm, 0 to 1.
        slowness: The share of links that are slow or narrow, 0 to 1.
    """

    random: Random
    roughness: float
    slowness: float

    def line(self) -> Line:
        """Return what the next link is made of."""
        if self.random.random() >= self.slowness:
            return _USUAL
        delay = self.random.choice([0.01, 0.1, 0.5])
        width = self.random.choice([20_000.0, 100_000.0, 1_000_000.0])
        window = self.random.choice([256, 4096, 65_536])
        return Line(delay, delay * self.random.random() * 2, width, window)

    def refuses(self) -> bool:
        """Whether the next connection is refused."""
        return self.random.random() < self.roughness / 4

    def fates(self) -> tuple[Fate, Fate]:
        """Return what happens to the bytes of the next connection's client, and to those of its server."""
        if self.random.random() >= self.roughness:
            return Fate(), Fate()
        at = self.random.choice([self.random.randrange(64), *(self.random.randrange(5000),) * 3])
        fate = self._fate(at)
        # Most bytes come down, so most harm is done there.
        return (fate, Fate()) if self.random.random() < 0.2 else (Fate(), fate)

    def _fate(self, at: int) -> Fate:
        match self.random.randrange(4):
            case 0:
                return Fate(cut_at=at)
            case 1:
                return Fate(end_at=at)
            case 2:
                return Fate(corrupt_at=at)
            case _:
                return Fate(stall_at=at, stall_seconds=self.random.choice([0.5, 5.0, 60.0]))


class Network:
    """All nodes' connections.

    Args:
        weather: How rough it is, until ``calm``; None when it is calm from the beginning.
        trace: Where events are noted.

    Attributes:
        trusting: Nodes that believe what heads their peers announce.  Nothing protects an announcement but
            the line, so their lines corrupt proofs only.
    """

    def __init__(self, weather: Weather, trace: Trace) -> None:
        self.trusting: set[str] = set()
        self._weather = weather
        self._is_calm = False
        self._trace = trace
        self._arrivals: dict[str, tuple[str, trio.MemorySendChannel[SimulatedStream]]] = {}
        self._connections: list[Connection] = []
        self._lines: dict[tuple[str, str], Line] = {}
        # Pairs of nodes that cannot reach each other, each with the time from which on they can.
        self._parted: dict[frozenset[str], float] = {}
        self._without_power: set[str] = set()
        self._corrupted: set[tuple[str, str]] = set()
        self._count = 0

    # For nodes.

    def listen(self, node: str, name: str) -> Listener:
        """Return a listener at ``name``, on a node."""
        put, arrivals = trio.open_memory_channel[SimulatedStream](BACKLOG)
        self._arrivals[name] = (node, put)
        return Listener(arrivals)

    async def dial(self, client: str, name: str) -> trio.abc.Stream:
        """Connect a client's node to a server's name.

        Raises:
            OSError: Nobody listens there.
        """
        line = self._line(client, name)
        await trio.sleep(line.delay_seconds + line.jitter_seconds * self._weather.random.random())
        server, put = self._arrivals.get(name, (name, None))
        await self._until_reachable(client, server)
        if put is None or (not self._is_calm and self._weather.refuses()):
            raise ConnectionRefusedError(f"nobody listens at {name}")
        connection = self._connection(client, server, name)
        ours, theirs = connection.streams()
        try:
            put.send_nowait(theirs)
        except (trio.WouldBlock, trio.BrokenResourceError) as error:
            raise ConnectionRefusedError(f"{name} does not accept") from error
        self._connections = [each for each in self._connections if each.open_sides]
        self._connections.append(connection)
        return ours

    async def _until_reachable(self, client: str, server: str) -> None:
        while True:
            if server in self._without_power:
                await trio.sleep_forever()
            until = self._parted.get(frozenset((client, server)), 0.0)
            if until <= trio.current_time():
                return
            await trio.sleep_until(until)

    def _connection(self, client: str, server: str, name: str) -> Connection:
        line, random = self._line(client, name), self._weather.random
        up, down = (Fate(), Fate()) if self._is_calm else self._weather.fates()
        if client in self.trusting:
            up, down = (each._replace(spare_short_frames=True) for each in (up, down))
        self._count += 1
        label = f"{client}>{name}#{self._count}"
        harmed = partial(self._harmed, label, client, name)
        pipes = (Pipe(line, fate, random, harmed) for fate in (up, down))
        return Connection(label, client, server, *pipes)

    def _line(self, client: str, name: str) -> Line:
        if self._is_calm:
            return _CALM
        if (client, name) not in self._lines:
            self._lines[client, name] = self._weather.line()
        return self._lines[client, name]

    def _harmed(self, label: str, client: str, name: str, what: str) -> None:
        self._trace.note(f"network: {what}", label)
        if what == "corrupted":
            self._corrupted.add((client, name))

    def was_corrupted(self, client: str, name: str) -> bool:
        """Whether a byte between a client's node and a server's name was ever changed."""
        return (client, name) in self._corrupted

    # For those who disturb.

    def drop_one(self) -> None:
        """Break a connection."""
        alive = [each for each in self._connections if each.open_sides == 2]
        if alive:
            unlucky = self._weather.random.choice(alive)
            self._trace.note("network: dropped", unlucky.name)
            unlucky.reset()

    def part(self, some: Iterable[str], others: Iterable[str], seconds: float) -> None:
        """Let nothing pass between two groups of nodes for so long."""
        until = trio.current_time() + seconds
        pairs = [frozenset((one, other)) for one in some for other in others]
        self._parted.update(dict.fromkeys(pairs, until))
        for each in self._connections:
            if frozenset((each.client, each.server)) in pairs:
                each.block(until)

    def fall_silent(self, node: str) -> None:
        """Note that a node has lost its power: its peers hear nothing at all."""
        self._without_power.add(node)
        for each in self._connections_of(node):
            each.swallow()

    def hang_up(self, node: str) -> None:
        """Break all connections of a node, as the system does whose program was killed."""
        self._without_power.discard(node)
        for each in self._connections_of(node):
            each.reset()
        for name in [name for name, (where, _) in self._arrivals.items() if where == node]:
            del self._arrivals[name]

    def _connections_of(self, node: str) -> list[Connection]:
        return [each for each in self._connections if node in (each.client, each.server)]

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._is_calm = True
        self._parted.clear()
        for each in self._connections:
            each.calm()
