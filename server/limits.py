"""What a server allows: every connection, request, proof and wait has a bound, and a reason for it."""

import math
from dataclasses import dataclass, fields
from typing import Final

from merkledb.arguments import require_number, require_whole
from syncproto import MAX_FRAME_BYTES, MAX_RETRY_AFTER_MILLISECONDS, RANGE_OVERHEAD_BYTES

# One value of the largest size that a database holds, with its boundary and air.
LARGEST_PROOF_BYTES: Final = 80 << 20
# A client slower than this would keep a large proof in our memory for longer than it is worth.
MIN_SEND_BYTES_PER_SECOND: Final = 64 << 10
# What a connection gets to read our last word before it is closed.
LINGER_SECONDS: Final = 1.0
# So much of a large answer is handed to the network at a time, to see whether the client takes any of it.
SEND_BYTES: Final = 128 << 10
# Connections that were told to give up their places and have not closed yet.  Each holds its memory for
# another moment, so they are few, and some newcomers come in each second even where no client leaves by
# itself.
MAX_LEAVING: Final = 16
# For which a place is safe whose client has not said hello: it may wait for ours, which takes a round trip.
GREETING_SECONDS: Final = 1.0
# Connections beside the lines that have found no place and not said hello.  Those that say it do so soon, so
# that few are here at a time.  Each takes a socket and a kilobyte.
MAX_AT_DOOR: Final = 128
# After which a client that waits and has not said hello is sent ours, for it may wait for that.
DOOR_SECONDS: Final = 0.25
# Networks of which is remembered when they were given a place, and for how long after they were seen last:
# for as long as the turns of some hundreds take.  The pauses between the attempts of a client are shorter.
MAX_REMEMBERED: Final = 1024
REMEMBERED_SECONDS: Final = 30.0
# Below this, an answer would hold little more than its boundary.
MIN_SHARE_BYTES: Final = 4 << 10
# Requests are short; a client that sends more at once waits in the kernel's buffer.
RECEIVE_BYTES: Final = 16 << 10
# What the messages of the protocol can carry.
_HIGHEST: Final = {
    "max_requests": 65_535,
    "max_keys": 2**32 - 1,
    "max_bytes": MAX_FRAME_BYTES - RANGE_OVERHEAD_BYTES,
    "retry_after_milliseconds": MAX_RETRY_AFTER_MILLISECONDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The limits of one server; the defaults suit two cores.

    What answers take, whatever clients ask for and do not read, is ``max_answer_bytes`` in all, and
    ``max_large_proofs`` times ``max_bytes`` for large pairs.  Each of ``max_threads`` takes a few times its
    proof while it makes one: the pairs, their encoding, and the frame.

    Attributes:
        max_connections: Served at a time; more wait, and are refused as overloaded.  Beside them, at most
            ``MAX_LEAVING`` were told to leave and have not done so yet.
        max_connections_per_network: Of these, for clients of one network: one IPv4 address, or 64 bits of an
            IPv6 address.  Half of all, so that no client has to leave for the first one of another network.
        max_waiting: Connections that wait for a place.  Each takes a socket and a kilobyte.
        max_waiting_per_network: Of these, for clients of one network.  All of them, as newcomers of another
            network take positions from the longest line.
        wait_seconds: That a connection waits for a place before it is refused as overloaded.  Clients give up
            after 10 seconds without a hello.  In this time ``turn_seconds`` end for all places of a network,
            so up to twice as many clients as these may share a network, and each of them has its turns.
        max_requests: In flight on one connection; more are refused as overloaded.
        max_keys: Pairs in one proof; with ``max_ordinary_bytes``, all that an ordinary proof holds.
        max_ordinary_bytes: Of one encoded proof, whatever the client allows, unless a single pair needs more.
        max_answer_bytes: Of all proofs up to ``max_ordinary_bytes`` that are made, wait, or are sent.  Half
            of it is given out in the order of requests; the other half is divided among ``max_connections``,
            and where the first is taken, proofs are as short as a connection's share.  So no client waits for
            others to read.
        max_bytes: Of one encoded proof that holds a single large pair.
        max_large_proofs: Proofs above ``max_ordinary_bytes`` that are made or sent at a time.
        max_threads: That read the database.  Proofs are made in Python, which runs one thread at a time: a
            second lets a short request overtake a long one, more would only keep the tasks waiting.
        hello_timeout_seconds: Until a new connection has said hello.
        idle_timeout_seconds: Without a whole message, while nothing is in flight.  A subscriber has nothing
            to say: it is pinged twice in that time, and stays as long as it answers.
        turn_seconds: For which a connection is safe from newcomers of its own network, whatever it asks.  A
            copy loses little by connecting again so seldom.  While others of the network wait, all of its
            places change hands in this time, one after the other.
        leave_seconds: For the answers under way and our last word, on a connection that has to make room.
        grace_seconds: For which a connection that asks nothing is safe.  After that, when all places are
            taken, the one that has asked nothing for the longest time makes room for a new one, pings or not:
            else a few that only hold their places would keep all others out.
        subscriber_grace_seconds: Both for a subscriber, which makes room only where no other connection
            does.  A client that follows a head and copies it asks at each commit; a subscriber that asks
            nothing for so long loses little by connecting again, and a host full of them keeps other clients
            out no longer.  For clients of their own network, subscribers make room as others do.
        head_interval_seconds: Between two looks for a new head, while a client is subscribed.  Such a look is
            one small read in a thread; a quarter of a second is soon enough for people who wait.
        head_pause_seconds: Between two looks on average at least, however often there are commits,
            subscriptions, or calls of ``announce``: more heads a second are of no use, and each costs every
            subscriber.
        send_timeout_seconds: For a message, or what it takes at ``MIN_SEND_BYTES_PER_SECOND`` where that is
            more.
        large_timeout_seconds: That a request for a large pair waits before it is refused as overloaded; and
            for the next ``SEND_BYTES`` of an answer that holds one, because others wait for it.
        shutdown_timeout_seconds: For a graceful shutdown, then what is left is cut off.
        retry_after_milliseconds: What a client is told that is refused as overloaded.

    Raises:
        ValueError: A limit is not above zero, or more than a message can say.
        TypeError: A limit is not a number, or one that counts is not a whole number.
    """

    max_connections: int = 64
    max_connections_per_network: int = 32
    max_waiting: int = 256
    max_waiting_per_network: int = 256
    wait_seconds: float = 6
    max_requests: int = 16
    max_keys: int = 8192
    max_ordinary_bytes: int = 1 << 20
    max_answer_bytes: int = 64 << 20
    max_bytes: int = LARGEST_PROOF_BYTES
    max_large_proofs: int = 1
    max_threads: int = 2
    hello_timeout_seconds: float = 10
    idle_timeout_seconds: float = 120
    turn_seconds: float = 5
    leave_seconds: float = 2
    grace_seconds: float = 5
    subscriber_grace_seconds: float = 60
    head_interval_seconds: float = 0.25
    head_pause_seconds: float = 0.02
    send_timeout_seconds: float = 30
    large_timeout_seconds: float = 5
    shutdown_timeout_seconds: float = 30
    retry_after_milliseconds: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            (require_whole if field.type is int else require_number)(name, value)
            highest = _HIGHEST.get(name, math.inf)
            if not 0 < value <= highest:
                raise ValueError(f"{name} is {value}, and must be above 0 and at most {highest}")
        least = 2 * self.max_connections * MIN_SHARE_BYTES
        if self.max_answer_bytes < least:
            raise ValueError(
                f"max_answer_bytes is {self.max_answer_bytes}, and must be at least {least} "
                f"for {self.max_connections} connections"
            )
