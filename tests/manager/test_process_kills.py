"""``kill -9`` of a real syncing process at random moments: it resumes, and fetches nothing applied again.

Server and client are processes of their own, over TCP.  The server counts the pairs it proves; the stores say
how many of them were on disk when the client died.  A client that starts again may have another target.

The moments are counted in steps of the client's progress, not in seconds, so a slow machine kills as one in a
hurry does.
"""

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import merkledb
from manager.limits import PAIR_OVERHEAD_BYTES
from tests.support.sync_process import LIMITS
from tests.support.syncing import applied_keys
from tests.support.thoroughness import amount

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill_resume")]

KEYS = 20_000
KILLS = amount(6, soak=200)
# The source's later revisions, each with so many changes.
LATER_REVISIONS = 6
CHANGES = 3000
# What may be fetched and not be on disk: what the limit of buffered bytes has room for, a
# pair being two hashes.
MOST_IN_FLIGHT = LIMITS.buffered_bytes // (PAIR_OVERHEAD_BYTES + 64)
# The proofs that the server was making when a client died are counted with the next client.
LATE = 2 * LIMITS.max_keys
# Behind the last step before a kill, some of a moment's loops pass: up to a few milliseconds.
MOST_LOOPS = 100_000
# Of the syncs to any target, for some of them have to come to their end.
UNDISTURBED_SHARE = 0.3


class Source(NamedTuple):
    """A store that is served, with the content of each of its roots, the oldest first."""

    store: Path
    contents: dict[bytes, dict[bytes, bytes]]
    port: int
    counts: Path

    @property
    def roots(self) -> list[bytes]:
        return list(self.contents)

    @property
    def proved_keys(self) -> int:
        """How many pairs the server has proved so far."""
        return sum(map(int, self.counts.read_text().split()))


def hash_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8)).digest()


def revisions() -> Iterator[dict[bytes, bytes | None]]:
    """Yield the changes of each revision: first all pairs, then others, absent ones, and new ones."""
    yield {hash_of(number): hash_of(number) for number in range(KEYS)}
    choice = random.Random(1)
    for revision in range(LATER_REVISIONS):
        numbers = choice.sample(range(KEYS + CHANGES), CHANGES)
        yield {hash_of(number): hash_of(revision) if number % 3 else None for number in numbers}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("source")
    contents: dict[bytes, dict[bytes, bytes]] = {}
    with merkledb.open(folder / "store") as database:
        for changes in revisions():
            content = {**next(reversed(contents.values()), {}), **changes}
            contents[database.commit(changes)] = {
                key: value for key, value in content.items() if value is not None
            }
    counts = folder / "counts"
    counts.touch()
    command = [sys.executable, "-m", "tests.support.serve_process", str(folder / "store"), str(counts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Source(folder / "store", contents, int(server.stdout.readline()), counts)
        server.kill()


class Killed(NamedTuple):
    """The moment at which a process is killed: after so many steps of its progress, and some loops more."""

    steps: int
    loops: int


def some_moment(choice: random.Random, usual_steps: int) -> Killed:
    """Return a moment: most lie within a sync, some before its first and some after its last transaction."""
    return Killed(int(choice.expovariate(2 / usual_steps)), choice.randrange(MOST_LOOPS))


def sync(source: Source, store: Path, root: bytes, killed: Killed | None = None) -> bool:
    """Sync in a process that is killed at a moment; return whether it ended before."""
    command = [sys.executable, "-m", "tests.support.sync_process", str(store), str(source.port), root.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "syncing\n"
        steps = 0
        while (killed is None or steps < killed.steps) and client.stdout.readline():
            steps += 1
        if killed is not None:
            for _ in range(killed.loops):
                pass
            client.kill()
        status = client.wait()
    assert status in (0, -signal.SIGKILL)
    assert status == 0 or killed is not None
    return status == 0


def keys_on_disk(store: Path) -> int:
    with merkledb.open(store) as database:
        database.check()
        return applied_keys(database) if database.catching_up else len(database)


def shown_root(source: Source, store: Path) -> bytes | None:
    """Return the root that a store shows, which is one of the source's with exactly its content."""
    with merkledb.open(store) as database:
        database.check()
        if database.head is None or database.head.number == 0:
            return None
        assert dict(database.items()) == source.contents[database.root]
        return database.root


def assert_copied(source: Source, store: Path, root: bytes) -> None:
    assert shown_root(source, store) == root
    with merkledb.open(store) as copy:
        assert not copy.catching_up
        assert copy.progress is None


def usual_steps(source: Source) -> int:
    """Return about how many steps an undisturbed sync has: one for each transaction, and a few more."""
    pair_bytes = PAIR_OVERHEAD_BYTES + 64
    return len(source.contents[source.roots[0]]) * pair_bytes // LIMITS.transaction_bytes + 4


class Outcome(NamedTuple):
    """What became of one process."""

    ended: bool
    keys_on_disk: int
    lost_keys: int


def sync_until(source: Source, store: Path, killed: Killed | None, keys_before: int) -> Outcome:
    """Sync to the first root until a moment; return what came of it."""
    proved = source.proved_keys
    ended = sync(source, store, source.roots[0], killed)
    keys = keys_on_disk(store)
    return Outcome(ended, keys, source.proved_keys - proved - (keys - keys_before))


def test_a_sync_killed_at_random_moments_resumes_without_fetching_again_what_it_applied(
    source: Source, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails.
    moments = random.Random(seed)
    kills = resumed = syncs = 0
    # So many kills, and so many of them within a sync.
    while kills < KILLS or resumed <= KILLS // 4:
        syncs += 1
        store, keys, ended = tmp_path / str(syncs), 0, False
        while not ended:
            is_enough = kills >= KILLS and resumed > KILLS // 4
            killed = None if is_enough else some_moment(moments, usual_steps(source))
            resumed += keys > 0
            ended, keys, lost = sync_until(source, store, killed, keys)
            kills += not ended
            assert 0 <= lost <= (LATE if ended else MOST_IN_FLIGHT)
        assert keys == KEYS
        assert_copied(source, store, source.roots[0])


def test_a_sync_killed_at_random_moments_resumes_to_any_other_target_and_never_shows_a_mixture(
    source: Source, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails.
    choice = random.Random(seed)
    store = tmp_path / "store"
    assert sync(source, store, source.roots[0])
    shown, kills = {source.roots[0]}, 0
    while kills < KILLS // 2 or len(shown) < 3:
        target = choice.choice(source.roots)
        killed = None if choice.random() < UNDISTURBED_SHARE else some_moment(choice, usual_steps(source))
        ended = sync(source, store, target, killed)
        kills += not ended
        root = shown_root(source, store)
        assert root is not None, "what was complete once stays readable"
        assert root == target or not ended
        shown.add(root)
    assert sync(source, store, source.roots[-1])
    assert_copied(source, store, source.roots[-1])
