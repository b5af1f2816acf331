"""The limits that a sync keeps, each with its reason.

Memory is bounded by ``buffered_bytes`` and one large pair, at most ``max_proof_bytes``, whatever the size of
the database; patience is bounded by the timeouts and the numbers of failures.  The defaults are for one or a
few peers; what is asked at a time follows what the line to a peer carries (see ``throughput``).
"""

from dataclasses import dataclass, fields
from typing import Final

from merkledb import MAX_PROOF_KEYS, MAX_VALUE_BYTES
from merkledb.arguments import require_number, require_whole
from syncproto import MAX_FRAME_BYTES, RANGE_OVERHEAD_BYTES

KIB: Final = 1024
MIB: Final = 1024 * 1024
# A pair in memory takes about this much beside its bytes: two objects, and its part of the branches above it.
PAIR_OVERHEAD_BYTES: Final = 256
# The same for a change among very many pairs: up to seven branches above it, with what history keeps of them.
CHANGE_OVERHEAD_BYTES: Final = 6144


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sync may use.  All numbers are positive.

    Attributes:
        requests_per_peer: Requests in flight to each peer.  Two keep the peer busy while a proof is verified;
            more would spread the work over the key space, where the store fills its pages badly.
        max_requests_per_peer: The same for a peer far away, where two would leave the way to it empty for
            most of the round trip.  Peers get more than usual only while enough of ``buffered_bytes`` is
            free, so that one that only pretends to be far away takes no memory that others need.
        max_keys: Pairs a proof.  Few enough to verify in some ten milliseconds, many enough to make the
            boundary cheap.
        max_changes: Changed keys a change proof.  Fewer than pairs, for verifying a change costs ten times as
            much, in time and in memory.
        max_bytes: Bytes a proof, encoded, on a fast line.
        min_bytes: The same on the slowest: below, boundaries and round trips would be a good part of it.
        answer_seconds: How long the requests in flight to a peer may take to be answered, beside the round
            trip: on a slow line, less is asked for at a time.  Soon enough to notice that a peer is silent or
            the target has moved, and well below ``overdue_seconds``.
        max_proof_bytes: Bytes of a proof that holds a single large pair: the hard cap up to which
            ``max_bytes`` is raised for it.  The default has room for the largest value, its key and the
            largest boundary.
        buffered_bytes: Memory for proofs that are requested, verified or wait to be applied.  A proof of a
            single large pair is outside of it, one at a time, so that nobody else waits for its memory.
        transaction_bytes: Memory of the proofs that are applied in one transaction; at most half of
            ``buffered_bytes`` lets fetching go on meanwhile.
        transaction_seconds: Verified proofs are applied at the latest after this time.
        connect_timeout_seconds: For a connection to be open, and again for the peer to say hello.
        ping_seconds: Between signs of life on a connection on which nothing is asked; servers wait for two
            minutes.
        request_timeout_seconds: For an answer, without the time that its bytes take.
        overdue_seconds: A peer that has nothing else to do asks for what another one was asked for so long
            ago, or sooner, where it needs much less itself (see ``throughput``).  An honest answer takes
            less, so little is fetched twice; a silent peer delays the others by no more.
        min_bytes_per_second: The slowest peer that is of use: what it has sent of an answer extends the time.
        pivot_seconds: How long a root is fetched although there is a newer target.  What is fetched within it
            shares a root and is brought forward together; and all of it has to be brought forward before
            peers forget that root, so it is a small part of what they retain at some commits a second.
        backoff_seconds: The bound of the first wait after a failure.
        max_backoff_seconds: The bound of every wait, also of one that an overloaded peer asks for.
        overload_backoff_seconds: To which the waits for an overloaded peer grow, if it asks for no longer
            ones.  Its places go round, and who comes too seldom is there when none is free.
        overload_patience_seconds: For how long a peer may say that it is overloaded, and do nothing else,
            before nothing is expected of it any more.  A server lets its clients take turns, and even in a
            long queue everybody has had one by then.
        max_failures: Failures in a row after which nothing is expected of a peer any more.  It is still tried
            as long as other peers are at work, and the sync fails when it is so with all of them.
        max_connect_failures: The same for a peer that never answered at all: more likely a wrong address than
            an outage.
        ban_seconds: The bound of the first time for which a peer stays dropped that is followed; each
            time it doubles.  A damaged answer of an honest peer is rare, and a liar's costs a request.
        max_ban_seconds: The bound of every such time.
        unproven_seconds: How long a head that a trusted peer announced is asked for without any further part
            of it being verified, before another peer's head is followed instead.  Longer than an honest
            answer takes on the slowest line: ``max_bytes`` at ``min_bytes_per_second``, and
            ``request_timeout_seconds``.
        max_timeouts: Requests in a row that may time out before the connection is given up.
    """

    requests_per_peer: int = 2
    max_requests_per_peer: int = 8
    max_keys: int = 8192
    max_changes: int = 2048
    max_bytes: int = MIB
    min_bytes: int = 64 * KIB
    answer_seconds: float = 1.0
    max_proof_bytes: int = MAX_VALUE_BYTES + 16 * MIB
    buffered_bytes: int = 64 * MIB
    transaction_bytes: int = 32 * MIB
    transaction_seconds: float = 1.0
    connect_timeout_seconds: float = 10.0
    ping_seconds: float = 30.0
    request_timeout_seconds: float = 20.0
    overdue_seconds: float = 2.0
    min_bytes_per_second: int = 64 * KIB
    pivot_seconds: float = 5.0
    backoff_seconds: float = 0.25
    max_backoff_seconds: float = 30.0
    overload_backoff_seconds: float = 5.0
    overload_patience_seconds: float = 300.0
    max_failures: int = 8
    max_connect_failures: int = 4
    ban_seconds: float = 1200.0
    max_ban_seconds: float = 86_400.0
    unproven_seconds: float = 60.0
    max_timeouts: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            (require_whole if field.type is int else require_number)(field.name, value)
            # A comparison that also refuses what is not a number.
            if not value > 0:
                raise ValueError(f"{field.name} must be positive, not {value}")
        if max(self.max_keys, self.max_changes) > MAX_PROOF_KEYS:
            most = max(self.max_keys, self.max_changes)
            raise ValueError(f"max_keys {most} is more than a proof holds, {MAX_PROOF_KEYS}")
        if not self.max_bytes <= self.max_proof_bytes <= MAX_FRAME_BYTES - RANGE_OVERHEAD_BYTES:
            raise ValueError("max_proof_bytes must be at least max_bytes, and fit into a frame")


def range_proof_memory_bytes(max_bytes: int, max_keys: int) -> int:
    """Return about how much memory a range proof of this size takes, decoded and verified."""
    return max_bytes + max_keys * PAIR_OVERHEAD_BYTES


def change_proof_memory_bytes(max_bytes: int, max_changes: int) -> int:
    """Return about how much memory a change proof of this size takes, decoded and verified."""
    return max_bytes + max_changes * CHANGE_OVERHEAD_BYTES
