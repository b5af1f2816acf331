"""What a seed makes of the world: how many nodes there are, how large things are, and how much goes wrong.

Everything is drawn here at once, so that the first line of a log says what kind of run it was.  Stores are
small and proofs are smaller, so that there are many requests; the sizes vary by a factor of a hundred.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal, cast

from merkledb import Scheme

HasherName = Literal["blake3", "sha256"]


@dataclass(frozen=True)
class Plan:
    """One world.

    Attributes:
        scheme: Of all stores.
        keys: At the origin, when all begins.
        large_changes: Keys that a large commit changes at most.
        longest_value_bytes: Of a value; often more than ``max_bytes``.
        commits: How many the writer makes while things go wrong.
        commit_seconds: Between two of them, on average.
        history: Revisions that the origin retains.
        history_seconds: For how long every node retains them; None: for ever.
        replica_history: Revisions that replicas retain.
        max_keys: Of a request.
        max_changes: Of a request for changes.
        max_bytes: Of a request.
        buffered_bytes: Memory of a sync; small enough that requests wait for it.
        transaction_bytes: Of proofs that are applied at once.
        transaction_seconds: After which they are applied.
        ban_seconds: For which a peer is dropped, at first.
        pivot_seconds: For which a root is fetched although there is a newer one.
        max_requests: In flight to one peer.
        max_connections: Of each server.
        origin_servers: Honest servers of the origin.
        liars: Dishonest servers of the origin.
        repertoire: The lies that each of them tells; None: each has some of its own.
        mirrors: Honest copies of the origin that lag behind.
        replicas: Which sync.
        trusting_share: The share of replicas that believe the heads that their peers announce.
        fault_seconds: For which things go wrong.
        roughness: Of the network, see ``Weather``.
        slowness: Of the network.
        kills: How many nodes are killed, in every way.
        partitions: How often the network is parted.
        drops: How many connections are dropped.
        full_disks: How often a write finds no room.
        slowest_work_seconds: That blocking work takes, on either side of its moment.
        full_seconds: For which each honest server of the origin has no place, whenever it has begun.
        always_full: Servers that have no place for anybody, ever.
        misleads: Whether liars that are believed announce heads that can be proven and are not the newest, or
            have other numbers.  Whoever believes them is to end at something true, and no more is promised.
    """

    scheme: Scheme
    keys: int
    large_changes: int
    longest_value_bytes: int
    commits: int
    commit_seconds: float
    history: int
    history_seconds: float | None
    replica_history: int
    max_keys: int
    max_changes: int
    max_bytes: int
    buffered_bytes: int
    transaction_bytes: int
    transaction_seconds: float
    ban_seconds: float
    pivot_seconds: float
    max_requests: int
    max_connections: int
    origin_servers: int
    liars: int
    repertoire: tuple[str, ...] | None
    mirrors: int
    replicas: int
    trusting_share: float
    fault_seconds: float
    roughness: float
    slowness: float
    kills: int
    partitions: int
    drops: int
    full_disks: int
    slowest_work_seconds: float
    full_seconds: float
    always_full: int
    misleads: bool


def draw(random: Random) -> Plan:
    """Return the plan of a seed."""
    branch_factor = random.choice([2, 4, 16, 16, 16, 256])
    keys = random.choice([0, 1, 10, 30, 30, 60, 60, 60, 120, 200])
    is_quiet = random.random() < 0.15
    return Plan(
        scheme=Scheme(cast("HasherName", random.choice(["blake3", "sha256"])), branch_factor),
        keys=keys,
        large_changes=random.choice([10, 30, 60, keys + 1]),
        longest_value_bytes=random.choice([60, 1000, 10_000]),
        commits=random.choice([1, 3, 8, 8, 15, 25]),
        commit_seconds=random.choice([0.05, 0.5, 2.0, 5.0]),
        history=random.choice([1, 2, 4, 16, 16, 256]),
        history_seconds=random.choice([None, None, None, 3.0, 20.0]),
        replica_history=random.choice([1, 2, 4, 16, 256]),
        max_keys=max(random.choice([2, 5, 10, 20, 64]), keys // 12),
        max_bytes=max(random.choice([600, 1500, 4000, 100_000]), keys * (30 if branch_factor == 256 else 12)),
        max_changes=max(random.choice([1, 3, 10, 30, 2048]), keys // 20),
        buffered_bytes=random.choice([10_000, 100_000, 64 << 20]),
        transaction_bytes=random.choice([2_000, 20_000, 200_000, 32 << 20]),
        transaction_seconds=random.choice([0.01, 0.2, 1.0]),
        ban_seconds=random.choice([10.0, 300.0]),
        pivot_seconds=random.choice([0.2, 1.0, 5.0]),
        max_requests=random.choice([1, 2, 2, 4]),
        max_connections=random.choice([3, 64, 64]),
        origin_servers=random.choice([1, 1, 2, 3]),
        liars=random.choice([0, 0, 1, 1, 2, 3]),
        repertoire=None,
        mirrors=random.choice([0, 0, 1, 2]),
        replicas=random.choice([1, 1, 2, 2, 3, 4]),
        trusting_share=random.choice([0.0, 0.3, 1.0]),
        fault_seconds=random.choice([5.0, 15.0, 40.0]),
        roughness=0.0 if is_quiet else random.choice([0.05, 0.2, 0.5, 0.8]),
        slowness=0.0 if is_quiet else random.choice([0.0, 0.2, 0.6]),
        kills=0 if is_quiet else random.choice([0, 1, 2, 5, 8]),
        partitions=0 if is_quiet else random.choice([0, 0, 1, 3]),
        drops=0 if is_quiet else random.choice([0, 1, 5]),
        full_disks=0 if is_quiet else random.choice([0, 0, 0, 2]),
        slowest_work_seconds=random.choice([0.0, 0.001, 0.05]),
        full_seconds=random.choice([0.0, 0.0, 0.0, 2.0, 20.0]),
        always_full=random.choice([0, 0, 1]),
        misleads=random.random() < 0.3,
    )
