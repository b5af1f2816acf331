"""Which clients hold the places of a server, and which gives one up when a newcomer finds all of them taken.

Places belong to networks, not to the busiest clients: one IPv4 address is a network, and so are the first 64
bits of an IPv6 address, for that is what one customer gets.  Many clients may share a network (NAT), so they
take turns.

::

    a place is free, and the network is below its limit    the newcomer takes it
    all are taken, and some client has said no hello       that client gives its place up, after
                                                             ``GREETING_SECONDS``; in the newcomer's network
                                                             only, where that is at its limit
    all are taken, and another network holds at least      that network gives one up, at once
      two more than the newcomer's
    all are taken, and some client asks nothing            that client gives its place up
    all are taken, or the network is at its limit          a client that held a place for long enough gives
                                                           it up, in the newcomer's network if it holds any
    otherwise                                              the newcomer waits, see ``waiting_line``

Only a newcomer that has said hello makes another leave, see ``waiting_line``.

In one network, and among networks that hold one each, places change hands one after the other, so that all
of them do in ``turn_seconds``.  If they did at the same moment, a client would get none that is not in line
then.

A place that was taken from a client at work, and is left early, counts for ``turn_seconds`` more as if it was
held.  So those that come and hang up make no more clients leave than those that come and stay.

A client that gives a place up is told why, and gets a moment for the answers under way.  A large pair needs
longer, so a client that is sent one keeps its place; there are few of these, and ``sender`` ends a connection
whose client takes nothing of one.
"""

from collections import Counter, deque
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import trio

from server.connection import ClientConnection
from server.limits import GREETING_SECONDS, MAX_LEAVING, ServerLimits
from server.services import Counters
from syncproto import Hello

# The network of streams that tell no address, such as those of a Unix socket.
UNKNOWN_NETWORK: Final = ""
# Over which the pace is measured at which the places of one network change hands.
_PACE_SECONDS: Final = 1.0
_IPV6_NETWORK_BITS: Final = 64


def network_of(stream: trio.abc.Stream) -> str:
    """Return the network of a client: its IPv4 address, or the /64 of its IPv6 address."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return UNKNOWN_NETWORK
    try:
        name = stream.socket.getpeername()
    except OSError:
        # The client has gone already.
        return UNKNOWN_NETWORK
    # The name of a Unix socket is a text, or bytes.
    return network_at(name[0]) if isinstance(name, tuple) else UNKNOWN_NETWORK


def network_at(host: str) -> str:
    """Return the network that an address, as a socket tells it, belongs to."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_NETWORK_BITS), strict=False))


class Place:
    """One place of a server, and the client that holds it.

    Attributes:
        network: Of the client.
        taken_at: When it was taken.
        client: None before its connection has begun.
        heard: What the client said while it waited for the place.
        said: Our hello, if the client was sent it while it waited.
        cost_work: Whether another client lost it at work.
    """

    def __init__(self, network: str, *, cost_work: bool = False) -> None:
        self.network = network
        self.taken_at = trio.current_time()
        self.client: ClientConnection | None = None
        self.heard = b""
        self.said: Hello | None = None
        self.cost_work = cost_work

    @property
    def is_firm(self) -> bool:
        """Whether it cannot be given up at this moment."""
        return self.client is None or self.client.has_large_proof

    @property
    def is_mute(self) -> bool:
        """Whether its client has had the time to say hello, and has not."""
        return (
            self.client is not None
            and not self.client.has_greeted
            and trio.current_time() - self.taken_at >= GREETING_SECONDS
        )


class Places:
    """The places of one server.

    Args:
        limits: How many there are, and for how long they are safe.
        counters: Of the server.
    """

    def __init__(self, limits: ServerLimits, counters: Counters) -> None:
        self._limits = limits
        self._counters = counters
        # In the order in which they were taken, so that a simulation does the same each time.
        self._held: dict[Place, None] = {}
        # How many of them each network holds; none that holds no place is there.
        self._counts: Counter[str] = Counter()
        # Told to leave, and not gone yet; the first was told first.
        self._leaving: deque[Place] = deque()
        # When a place was left early that another client had lost at work, and by which network; the first
        # comes first.  They are few: each such loss is of a place that was held for long, or of one in excess
        # of what these would leave to its network.
        self._left_early: deque[tuple[float, str]] = deque()
        self._left_early_counts: Counter[str] = Counter()

    def take(self, network: str, *, swaps: bool = True) -> Place | None:
        """Return a place for a newcomer, for which another may have to leave; None where there is none.

        Only one that has said hello may make another leave: for others, ask ``has_room`` before.

        Args:
            network: Of the newcomer.
            swaps: Whether a client of the same network may have to leave because its turn is over, where the
                network could hold more.
        """
        cost_work = False
        if not self.has_room(network):
            left = self._make_room(network, swaps=swaps)
            if left is None:
                return None
            cost_work = self._is_at_work(left)
        place = Place(network, cost_work=cost_work)
        self._held[place] = None
        self._counts[network] += 1
        return place

    def leave(self, place: Place) -> None:
        """Note that the connection is closed that had a place."""
        now = trio.current_time()
        if place in self._held and place.cost_work and now - place.taken_at < self._limits.turn_seconds:
            self._left_early.append((now, place.network))
            self._left_early_counts[place.network] += 1
        self._give_up(place)
        if place in self._leaving:
            self._leaving.remove(place)

    def _give_up(self, place: Place) -> None:
        """Note that a place is another's, or free; nothing happens where it was given up before."""
        if place in self._held:
            del self._held[place]
            self._counts[place.network] -= 1
            if not self._counts[place.network]:
                del self._counts[place.network]

    def count(self, network: str) -> int:
        """Return how many places a network holds, and those that count as if it did."""
        self._forget_left_early()
        return self._counts[network] + self._left_early_counts[network]

    def _forget_left_early(self) -> None:
        while self._left_early and trio.current_time() - self._left_early[0][0] >= self._limits.turn_seconds:
            _, network = self._left_early.popleft()
            self._left_early_counts[network] -= 1
            if not self._left_early_counts[network]:
                del self._left_early_counts[network]

    def has_room(self, network: str) -> bool:
        """Return whether a place is free for a client of a network, for which no other has to leave."""
        return len(self._held) < self._limits.max_connections and not self._is_at_limit(network)

    def _is_at_limit(self, network: str) -> bool:
        if network == UNKNOWN_NETWORK:
            # It may be any number of machines.
            return False
        return self._counts[network] >= self._limits.max_connections_per_network

    def _make_room(self, network: str, *, swaps: bool) -> Place | None:
        """Let one client leave for a newcomer; return the place that it had, None where none leaves."""
        found = self._who_leaves(network, swaps=swaps)
        if found is None:
            return None
        if len(self._leaving) >= MAX_LEAVING:
            # So many newcomers have a right to a place that the first one told gets no more time to leave.
            first = self._leaving[0].client
            if first is not None:
                first.cut_off()
            return None
        place, reason = found
        assert place.client is not None
        self._give_up(place)
        self._leaving.append(place)
        self._counters.connections_displaced += 1
        place.client.displace(f"all places are taken, and {reason}: connect again")
        return place

    def _who_leaves(self, network: str, *, swaps: bool) -> tuple[Place, str] | None:
        """Return the place that is given up, and why; None where none is."""
        all_loose = [place for place in self._held if not place.is_firm]
        own = [place for place in all_loose if place.network == network]
        is_at_limit = self._is_at_limit(network)
        # They were taken in this order, so the first has said nothing for longest.
        mute = next((place for place in (own if is_at_limit else all_loose) if place.is_mute), None)
        if mute is not None:
            return mute, "you have said no hello"
        if is_at_limit:
            return self._idlest(own) or self._whose_turn_is_over(network, own)
        richest = self._richest(network)
        if richest:
            return _first_to_leave(richest), "your address holds more of them than another that needs one"
        idlest = self._idlest(all_loose)
        if idlest is not None or (own and not swaps):
            return idlest
        return self._whose_turn_is_over(network, own or all_loose)

    def _richest(self, newcomer: str) -> list[Place]:
        """Return the places of the networks that hold most, if they hold more than a fair share."""
        counts = self._counts
        most = max(counts.values(), default=0)
        count = self.count(newcomer)
        # If those that were left early were held, the richest would have lost them.  And with one more than
        # the newcomer's network, both would only change their roles.
        if most - len(self._left_early) < count + 2:
            return []
        return [place for place in self._held if counts[place.network] == most and not place.is_firm]

    def _whose_turn_is_over(self, network: str, places: Iterable[Place]) -> tuple[Place, str] | None:
        """Return a place that was held for so long that it is another's turn."""
        now, limits = trio.current_time(), self._limits
        held = self._counts[network]
        if not held and self.count(network):
            # It has had its turn, and did not use it.
            return None
        # Among those of which one would change hands: the network's own, else all.
        taken = [place.taken_at for place in self._held if not held or place.network == network]
        taken += [left_at for left_at, name in self._left_early if not held or name == network]
        taken_lately = sum(now - at < _PACE_SECONDS for at in taken)
        if taken_lately * limits.turn_seconds >= (held or len(self._held)) * _PACE_SECONDS:
            # As many change hands already as are due.
            return None
        tired = [
            place
            for place in places
            if (client := place.client) is not None
            # Subscribers take turns with their own network as others do: else its clients would keep their
            # places by subscribing.
            and now - place.taken_at
            >= (
                limits.subscriber_grace_seconds
                if client.is_subscribed and not place.network == network != UNKNOWN_NETWORK
                else limits.turn_seconds
            )
        ]
        if not tired:
            return None
        return _first_to_leave(tired), "others wait for their turn"

    def _idlest(self, places: Iterable[Place]) -> tuple[Place, str] | None:
        """Return the place whose client was silent for longest; those of subscribers come last."""
        idle = [
            (not client.is_subscribed, client.idle_seconds, place)
            for place in places
            if (client := place.client) is not None and not self._has_grace(client)
        ]
        if not idle:
            return None
        return max(idle, key=lambda each: each[:2])[2], "you asked nothing for a while"

    def _is_at_work(self, place: Place) -> bool:
        client = place.client
        return client is not None and client.has_greeted and self._has_grace(client)

    def _has_grace(self, client: ClientConnection) -> bool:
        """Return whether a client has asked something too short a time ago to make room for another."""
        limits = self._limits
        grace_seconds = limits.subscriber_grace_seconds if client.is_subscribed else limits.grace_seconds
        return client.idle_seconds < grace_seconds


def _first_to_leave(places: Iterable[Place]) -> Place:
    """Return whose client loses least: it waits for no answer, else does not subscribe, else came first."""

    def loses_least(place: Place) -> tuple[bool, bool, float, float]:
        client = place.client
        assert client is not None
        return not client.is_busy, not client.is_subscribed, client.idle_seconds, -place.taken_at

    return max(places, key=loses_least)
