"""``kill -9`` of a real syncing process at random moments: it resumes, and fetches nothing applied again.

Server and client are processes of their own, over TCP.  The server counts the pairs it proves; the stores say
how many of them were on disk when the client died.
"""

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import merkledb
from manager.limits import PAIR_OVERHEAD_BYTES
from tests.sync_process import LIMITS

KEYS = 20_000
KILLS = 30
# What may be fetched and not be on disk: what the limit of buffered bytes has room for, a
# pair being two hashes.
MOST_IN_FLIGHT = LIMITS.buffered_bytes // (PAIR_OVERHEAD_BYTES + 64)
# The proofs that the server was making when a client died are counted with the next client.
LATE = 2 * LIMITS.max_keys
PATIENCE_SECONDS = 60


class Source(NamedTuple):
    """A store that is served."""

    store: Path
    root: bytes
    port: int
    counts: Path

    @property
    def proved_keys(self) -> int:
        """How many pairs the server has proved so far."""
        return sum(map(int, self.counts.read_text().split()))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("source")
    hashes = (hashlib.sha256(number.to_bytes(8)).digest() for number in range(KEYS))
    with merkledb.open(folder / "store") as database:
        root = database.commit({digest: digest for digest in hashes})
    counts = folder / "counts"
    counts.touch()
    command = [sys.executable, "-m", "tests.serve_process", str(folder / "store"), str(counts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Source(folder / "store", root, int(server.stdout.readline()), counts)
        server.kill()


def sync(source: Source, store: Path, seconds: float) -> bool:
    """Sync in a process that is killed after some seconds; return whether it ended before."""
    command = [sys.executable, "-m", "tests.sync_process", str(store), str(source.port), source.root.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "syncing\n"
        try:
            status = client.wait(seconds)
        except subprocess.TimeoutExpired:
            client.kill()
            return False
    assert status == 0
    return True


def keys_on_disk(store: Path) -> int:
    with merkledb.open(store) as database:
        database.check()
        return len(database)


def assert_copied(source: Source, store: Path) -> None:
    with merkledb.open(store) as copy, merkledb.open(source.store, readonly=True) as original:
        assert copy.root == source.root
        assert copy.progress is None
        assert all(left == right for left, right in zip(copy.items(), original.items(), strict=True))


def seconds_of_a_sync(source: Source, store: Path) -> float:
    """Return how long a sync takes on this machine that nobody disturbs."""
    began = time.monotonic()
    assert sync(source, store, PATIENCE_SECONDS)
    return time.monotonic() - began


class Outcome(NamedTuple):
    """What became of one process."""

    ended: bool
    keys_on_disk: int
    lost_keys: int


def sync_for(source: Source, store: Path, seconds: float, keys_before: int) -> Outcome:
    """Sync for some seconds; return what came of it."""
    proved = source.proved_keys
    ended = sync(source, store, seconds)
    keys = keys_on_disk(store)
    return Outcome(ended, keys, source.proved_keys - proved - (keys - keys_before))


def test_a_sync_killed_at_random_moments_resumes_without_fetching_again_what_it_applied(
    source: Source, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails.
    moments = random.Random(seed)
    usual_seconds = seconds_of_a_sync(source, tmp_path / "undisturbed")
    kills = resumed = syncs = 0
    while kills < KILLS:
        syncs += 1
        store, keys, ended = tmp_path / str(syncs), 0, False
        while not ended:
            # Most moments lie within a sync, some before its first and some after its last transaction.
            seconds = moments.expovariate(2 / usual_seconds) if kills < KILLS else PATIENCE_SECONDS
            resumed += keys > 0
            ended, keys, lost = sync_for(source, store, seconds, keys)
            kills += not ended
            assert 0 <= lost <= (LATE if ended else MOST_IN_FLIGHT)
        assert keys == KEYS
        assert_copied(source, store)
    assert resumed > KILLS // 4, "too few of the moments lay within a sync"
