"""The clients that wait for a place of a full server, in one line for each network.

A client that finds no place is not refused at once: else those that come back fastest would get every place
that becomes free.  It waits in the line of its network, first come, first served, for ``wait_seconds`` at
most, and says hello meanwhile if it likes.

::

    a place is left               the first of a line gets it, at once
    a place can be given up       the first of a line gets it, as ``places`` says whose it is
    ``wait_seconds`` have passed  the client is told when to try again
    its line has no room          so is a newcomer, at once

Lines of networks that hold fewer places come first, else those whose first client has waited longest.  Lines
belong to networks as places do: where all lines together are full, a newcomer takes the last position
of the longest line, if that is longer than its own.  So no network can use up the lines for the others.

Invariant: no client of a network is given a place while another one of that network has waited longer.
"""

from collections import deque
from contextlib import suppress
from typing import Final

import trio

from server.limits import ServerLimits
from server.places import UNKNOWN_NETWORK, Place, Places
from server.services import Counters
from syncproto import MAX_HELLO_BYTES

# Between two looks whether a client has to give its place up to one that waits.  A place that is left is
# given away at once.
LOOK_SECONDS: Final = 0.25
# A client says no more than hello, in its frame, before the server has said hello.
_MAX_HEARD_BYTES: Final = 4 + MAX_HELLO_BYTES


class _WaitingClient:
    """One client in a line.

    Args:
        network: Of the client.
        wait_seconds: For how long it waits.

    Attributes:
        came_at: When it joined.
        waiting: Cancelled when it has a place, or has to go.
        place: That it was given; None before, and where it was given none.
        heard: What it has said meanwhile.
    """

    def __init__(self, network: str, wait_seconds: float) -> None:
        self.network = network
        self.came_at = trio.current_time()
        self.waiting = trio.CancelScope(deadline=self.came_at + wait_seconds)
        self.place: Place | None = None
        self.heard = b""

    async def listen(self, stream: trio.abc.Stream) -> None:
        """Keep what the client says; return when it has closed the connection, which ends its waiting.

        A cancellation loses nothing that was received.
        """
        # An encrypted stream would shake hands first, and a cancellation then breaks it.
        with suppress(trio.BrokenResourceError):
            while not isinstance(stream, trio.SSLStream) and len(self.heard) < _MAX_HEARD_BYTES:
                data = await stream.receive_some(_MAX_HEARD_BYTES - len(self.heard))
                if not data:
                    return
                self.heard += data
            await trio.sleep_forever()


class WaitingLine:
    """Gives the places of one server to those who wait for them, in the order in which they came.

    Args:
        places: Of the server.
        limits: How many wait, and for how long.
        counters: Of the server.
    """

    def __init__(self, places: Places, limits: ServerLimits, counters: Counters) -> None:
        self._places = places
        self._limits = limits
        self._counters = counters
        # None of them is empty.
        self._lines: dict[str, deque[_WaitingClient]] = {}
        self._joined = trio.Event()

    async def take(self, stream: trio.abc.Stream, network: str) -> Place | None:
        """Return a place for a client that has just connected, for which it may have to wait.

        A cancellation leaves no place taken.

        Args:
            stream: To the client; what it says meanwhile is the place's ``heard``.
            network: Of the client.

        Returns:
            None where there is no place, after ``wait_seconds`` at most, or the client has left.
        """
        if network not in self._lines and (place := self._places.take(network)) is not None:
            return place
        if not self._make_room(network):
            return None
        client = _WaitingClient(network, self._limits.wait_seconds)
        self._join(client)
        try:
            with client.waiting:
                await client.listen(stream)
        except BaseException:
            if client.place is not None:
                self.leave(client.place)
            raise
        finally:
            self._part(client)
        if client.place is not None:
            client.place.heard = client.heard
        return client.place

    def leave(self, place: Place) -> None:
        """Note that the connection is closed that had a place, and give it to a client that waits."""
        self._places.leave(place)
        for network in self._in_order():
            if self._places.has_room(network):
                self._serve_first(network)

    def close(self) -> None:
        """Let no client wait any more."""
        for line in list(self._lines.values()):
            for client in list(line):
                self._send_away(client)

    async def run(self) -> None:
        """Look, while a client waits, whether places can be given up, until cancelled in the event loop.

        A look costs some ten microseconds for each network that waits, each in a step of its own.  A
        cancellation leaves all of them waiting.
        """
        while True:
            if not self._lines:
                self._joined = trio.Event()
                await self._joined.wait()
            await trio.sleep(LOOK_SECONDS)
            for network in self._in_order():
                while self._serve_first(network):
                    pass
                await trio.lowlevel.checkpoint()

    def _in_order(self) -> list[str]:
        """Return the networks that wait, the one first that is served first."""
        return sorted(self._lines, key=lambda name: (self._places.count(name), self._lines[name][0].came_at))

    def _serve_first(self, network: str) -> bool:
        """Give a place to the client of a network that waits longest; return whether there was one for it."""
        line = self._lines.get(network)
        if line is None or (place := self._places.take(network)) is None:
            return False
        client = line[0]
        client.place = place
        self._send_away(client)
        return True

    def _make_room(self, network: str) -> bool:
        """Return whether a client may join, for which the last of another line may have to go."""
        own = len(self._lines.get(network, ()))
        # Clients of which no address is known may be any number of machines.
        if network != UNKNOWN_NETWORK and own >= self._limits.max_waiting_per_network:
            return False
        if self._counters.connections_waiting < self._limits.max_waiting:
            return True
        longest = max(self._lines.values(), key=len)
        # With one more than the newcomer's, both lines would only change their roles.
        if len(longest) < own + 2:
            return False
        self._send_away(longest[-1])
        return True

    def _join(self, client: _WaitingClient) -> None:
        self._lines.setdefault(client.network, deque()).append(client)
        self._counters.connections_waiting += 1
        self._joined.set()

    def _send_away(self, client: _WaitingClient) -> None:
        """Let a client wait no more."""
        self._part(client)
        client.waiting.cancel()

    def _part(self, client: _WaitingClient) -> None:
        """Take a client out of its line, if it is there."""
        line = self._lines.get(client.network)
        if line is None or client not in line:
            return
        line.remove(client)
        self._counters.connections_waiting -= 1
        if not line:
            del self._lines[client.network]
