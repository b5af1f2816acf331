"""The clients that wait for a place of a full server, in one line for each network.

A client that finds no place is not refused at once: else those that come back fastest would get every place
that becomes free.  It waits, for ``wait_seconds`` at most: at the door until it has said hello, then in the
line of its network, first come, first served.

::

    it says hello                 it goes from the door to the line
    a place is left               the first of a line gets it, at once; where all lines are empty, of the door
    a place can be given up       the first of a line gets it, as ``places`` says whose it is
    ``wait_seconds`` have passed  the client is told when to try again
    its line has no room          so is a newcomer, at once
    the door has no room          so is the first of the network with most clients there

So who says nothing makes no other client leave, and takes nothing from one that has said hello.  Some clients
wait for our hello before they say theirs: who stands at the door for a moment is told it.  A client that is
refused afterwards hears so as one does that has to leave its place.

Lines of networks that hold fewer places come first, else those of networks that were given their last place
longest ago.  That is remembered while their clients are away: which are the same clients cannot be told, but
it is the same network.  Lines belong to networks as places do: where all lines together are full, a newcomer
takes the last position of the longest line, if that is longer than its own, or of one that comes after its
own.  So no network can use up the lines for the others.

Invariant: no client of a network is given a place while another one of it waits that joined the line before.

An encrypted stream cannot be read before it has a place: its handshake would begin, and a cancellation in the
middle of one breaks the stream.  Such a client counts as one that has said hello.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final

import trio

from server.limits import DOOR_SECONDS, MAX_AT_DOOR, MAX_REMEMBERED, REMEMBERED_SECONDS, ServerLimits
from server.places import UNKNOWN_NETWORK, Place, Places
from server.services import Counters
from syncproto import MAX_HELLO_BYTES, Hello, RemoteProtocolError, decode

# Between two looks whether a client has to give its place up to one that waits.  A place that is left is
# given away at once.
LOOK_SECONDS: Final = 0.25
_LENGTH_BYTES: Final = 4
# A client says no more than hello, in its frame, before the server has said hello.
_MAX_HEARD_BYTES: Final = _LENGTH_BYTES + MAX_HELLO_BYTES


class ClientLeft(Exception):
    """A client that waited for a place has closed its connection."""


def _begins_with_hello(heard: bytes) -> bool:
    """Return whether a whole hello was received."""
    stop = _LENGTH_BYTES + int.from_bytes(heard[:_LENGTH_BYTES])
    if len(heard) < max(stop, _LENGTH_BYTES):
        return False
    try:
        return isinstance(decode(memoryview(heard)[_LENGTH_BYTES:stop]), Hello)
    except RemoteProtocolError:
        # What is wrong with it is the connection's to say, when it has a place.
        return False


class _WaitingClient:
    """One client at the door, or in a line.

    Args:
        stream: To the client.
        network: Of the client.
        wait_seconds: For how long it waits.

    Attributes:
        came_at: When it came to the door.
        waiting: Cancelled when it has a place, or has to go.
        place: That it was given; None before, and where it was given none.
        heard: What it has said meanwhile.
        said: Our hello, if it was sent that meanwhile.
        has_left: Whether it has closed the connection.
    """

    def __init__(self, stream: trio.abc.Stream, network: str, wait_seconds: float) -> None:
        self._stream = stream
        self.network = network
        self.came_at = trio.current_time()
        self.waiting = trio.CancelScope(deadline=self.came_at + wait_seconds)
        self.place: Place | None = None
        self.heard = b""
        self.said: Hello | None = None
        self.has_left = False

    @property
    def can_be_heard(self) -> bool:
        """Whether it can say hello before it has a place."""
        return not isinstance(self._stream, trio.SSLStream)

    async def listen(
        self,
        on_hello: Callable[["_WaitingClient"], None],
        say_hello: Callable[[trio.abc.Stream], Awaitable[Hello | None]],
    ) -> None:
        """Keep what the client says; return when it has closed the connection, which ends its waiting.

        A cancellation loses nothing that was received.

        Args:
            on_hello: Called once, when the client has said hello.
            say_hello: Called once, if it has not for a moment.
        """
        has_greeted, patience_ends = False, self.came_at + DOOR_SECONDS
        with suppress(trio.BrokenResourceError):
            while self.can_be_heard and len(self.heard) < _MAX_HEARD_BYTES:
                with trio.CancelScope(deadline=patience_ends) as patience:
                    data = await self._stream.receive_some(_MAX_HEARD_BYTES - len(self.heard))
                if patience.cancelled_caught:
                    patience_ends = math.inf
                    self.said = await say_hello(self._stream)
                    continue
                if not data:
                    self.has_left = True
                    return
                self.heard += data
                if not has_greeted and _begins_with_hello(self.heard):
                    has_greeted, patience_ends = True, math.inf
                    on_hello(self)
            await trio.sleep_forever()


class _Queues:
    """Clients that wait, a queue for each network in the order in which they joined it; none is empty."""

    def __init__(self) -> None:
        self._by_network: dict[str, deque[_WaitingClient]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[str]:
        """Return the networks that wait."""
        return iter(self._by_network)

    def __contains__(self, network: str) -> bool:
        return network in self._by_network

    def of(self, network: str) -> deque[_WaitingClient]:
        """Return the queue of a network, an empty one where no client of it waits."""
        return self._by_network.get(network) or deque()

    def longest(self) -> deque[_WaitingClient]:
        """Return the longest queue, of several the one whose first client came first; there has to be one."""
        return max(self._by_network.values(), key=lambda queue: (len(queue), -queue[0].came_at))

    def add(self, client: _WaitingClient) -> None:
        """Let a client be the last of its network."""
        self._by_network.setdefault(client.network, deque()).append(client)
        self._total += 1

    def remove(self, client: _WaitingClient) -> bool:
        """Take a client out; return whether it was there."""
        queue = self._by_network.get(client.network)
        if queue is None or client not in queue:
            return False
        queue.remove(client)
        self._total -= 1
        if not queue:
            del self._by_network[client.network]
        return True


class _LastPlaces:
    """When networks were given their last places, ``MAX_REMEMBERED`` of those that were seen last.

    One that is not known has had none for ``REMEMBERED_SECONDS``, and nobody can say for how much longer: no
    network gains anything by staying away, and new ones, of which a client may have many, not much.

    Args:
        waits: Whether a client of a network waits, which is not forgotten then; fewer do than are remembered.
    """

    def __init__(self, waits: Callable[[str], bool]) -> None:
        self._waits = waits
        # When it was given one, and when it was seen last; who was not seen for longest is the first.
        self._known: dict[str, tuple[float, float]] = {}

    def see(self, network: str, *, given: bool = False) -> None:
        """Note that a client of a network waits, has waited until now, or was given a place."""
        now = trio.current_time()
        given_at, seen_at = self._known.pop(network, (-math.inf, -math.inf))
        if now - seen_at > REMEMBERED_SECONDS:
            given_at = now - REMEMBERED_SECONDS
        self._known[network] = (now if given else given_at, now)
        if len(self._known) > MAX_REMEMBERED:
            del self._known[next(known for known in self._known if not self._waits(known))]

    def given_at(self, network: str) -> float:
        """Return when a network that waits, or was just seen, was given its last place."""
        return self._known[network][0]


class WaitingLine:
    """Gives the places of one server to those who wait for them, in the order that the module describes.

    Args:
        places: Of the server.
        limits: How many wait, and for how long.
        counters: Of the server.
        say_hello: Called with the stream to a client at the door; says our hello and returns it, None where
            there is none to say.  It may raise ``trio.BrokenResourceError``; a cancellation must not leave a
            part of it said.
    """

    def __init__(
        self,
        places: Places,
        limits: ServerLimits,
        counters: Counters,
        say_hello: Callable[[trio.abc.Stream], Awaitable[Hello | None]],
    ) -> None:
        self._places = places
        self._limits = limits
        self._counters = counters
        self._say_hello = say_hello
        self._door = _Queues()
        self._lines = _Queues()
        self._last_places = _LastPlaces(lambda network: network in self._door or network in self._lines)
        self._joined = trio.Event()

    async def take(self, stream: trio.abc.Stream, network: str) -> Place | None:
        """Return a place for a client that has just connected, for which it may have to wait.

        A cancellation leaves no place taken.

        Args:
            stream: To the client; what it says meanwhile is the place's ``heard``.
            network: Of the client.

        Returns:
            None where there is no place, after ``wait_seconds`` at most.

        Raises:
            ClientLeft: The client has closed the connection meanwhile.
        """
        if self._places.has_room(network) and not self._lines.of(network) and not self._door.of(network):
            self._last_places.see(network, given=True)
            return self._places.take(network)
        client = _WaitingClient(stream, network, self._limits.wait_seconds)
        self._come(client)
        try:
            with client.waiting:
                await client.listen(self._greet, self._say_hello)
        except BaseException:
            if client.place is not None:
                self.leave(client.place)
            raise
        finally:
            self._part(client)
        if client.place is not None:
            client.place.heard, client.place.said = client.heard, client.said
        elif client.has_left:
            raise ClientLeft
        return client.place

    def leave(self, place: Place) -> None:
        """Note that the connection is closed that had a place, and give it to a client that waits."""
        self._places.leave(place)
        for queues in (self._lines, self._door):
            for network in self._in_order(queues):
                if self._places.has_room(network):
                    self._serve_first(queues, network)

    def close(self) -> None:
        """Let no client wait any more."""
        for queues in (self._lines, self._door):
            for network in list(queues):
                for client in list(queues.of(network)):
                    self._send_away(client)

    async def run(self) -> None:
        """Look, while a client is in line, whether places can be given up, until cancelled in the event loop.

        A look costs some hundred microseconds for each network that waits, each in a step of its own.  A
        cancellation leaves all of them waiting.
        """
        while True:
            if not self._lines:
                self._joined = trio.Event()
                await self._joined.wait()
            await trio.sleep(LOOK_SECONDS)
            for network in self._in_order(self._lines):
                while self._serve_first(self._lines, network):
                    pass
                await trio.lowlevel.checkpoint()

    def _in_order(self, queues: _Queues) -> list[str]:
        """Return the networks that wait, the one first that is served first."""
        return sorted(queues, key=self._turn_of)

    def _turn_of(self, network: str) -> tuple[int, float]:
        """Return what networks are served by, that with the least first."""
        return self._places.count(network), self._last_places.given_at(network)

    def _serve_first(self, queues: _Queues, network: str) -> bool:
        """Give a place to the first client of a network that waits; return whether there was one for it."""
        queue, held = queues.of(network), self._places.count(network)
        # So many places change hands in a time: none goes round within a network while one with fewer waits.
        swaps = not held or all(self._places.count(other) >= held for other in self._lines)
        if not queue or (place := self._places.take(network, swaps=swaps)) is None:
            return False
        client = queue[0]
        client.place = place
        self._send_away(client)
        self._last_places.see(network, given=True)
        return True

    def _come(self, client: _WaitingClient) -> None:
        """Let a client stand at the door, for which another one may have to go."""
        self._last_places.see(client.network)
        self._counters.connections_waiting += 1
        self._door.add(client)
        if not client.can_be_heard:
            self._greet(client)
        elif len(self._door) > MAX_AT_DOOR:
            # It had more time than any other of its network to say hello.
            self._send_away(self._door.longest()[0])

    def _greet(self, client: _WaitingClient) -> None:
        """Note that a client at the door has said hello: it joins its line, or has to go."""
        if not self._door.remove(client):
            # It was given a place, or sent away, in this very moment.
            return
        may_join = self._make_room(client.network)
        # Also the one that has to go is in line for a moment, as the others are that do.
        self._lines.add(client)
        if not may_join:
            self._send_away(client)
            return
        self._joined.set()
        # Others that come before it have looked for a place already, or will with the next look.
        if min(self._lines, key=self._turn_of) == client.network:
            self._serve_first(self._lines, client.network)

    def _make_room(self, network: str) -> bool:
        """Return whether a client may join its line, for which the last of another one may have to go."""
        own = len(self._lines.of(network))
        # Clients of which no address is known may be any number of machines.
        if network != UNKNOWN_NETWORK and own >= self._limits.max_waiting_per_network:
            return False
        if len(self._lines) < self._limits.max_waiting:
            return True
        longest = self._lines.longest()
        # With one more than the newcomer's, both lines would only change their roles.
        if len(longest) < own + 2:
            last = max(self._lines, key=self._turn_of)
            if own or self._turn_of(last) <= self._turn_of(network):
                return False
            longest = self._lines.of(last)
        self._send_away(longest[-1])
        return True

    def _send_away(self, client: _WaitingClient) -> None:
        """Let a client wait no more."""
        self._part(client)
        client.waiting.cancel()

    def _part(self, client: _WaitingClient) -> None:
        """Take a client out of the door or its line, if it is there."""
        if self._door.remove(client) or self._lines.remove(client):
            self._counters.connections_waiting -= 1
            self._last_places.see(client.network)
