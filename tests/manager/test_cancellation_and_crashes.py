"""Syncs to targets that move, cancelled and killed at any moment: only roots that there were are shown."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import merkledb
from manager import Limits, Manager, TargetGone
from merkledb import Database
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import FakeServer, ScriptedServer
from tests.support.moving_source import Source, Watching, new_source
from tests.support.syncing import assert_same, some_pairs
from tests.support.thoroughness import amount

# Small proofs and transactions make many moments out of a short sync.
LIMITS = Limits(max_keys=8, max_changes=4, transaction_bytes=4000, requests_per_peer=2)
SECONDS = 0.2


class AtStep(trio.abc.Instrument):
    """Calls a function when trio has run so many steps of tasks.

    Attributes:
        steps: How many are left.
    """

    def __init__(self, steps: int, then: Callable[[], None]) -> None:
        self.steps = steps
        self._then = then

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self._then()


async def sync_to(
    source: Source, copy: Database, targets: list[bytes], steps: int, at_step: Callable[[], None]
) -> int:
    """Sync to one target after the other, one each second; at some step do something and cancel.

    Returns:
        How many steps were left when the sync ended, 0 or less when it was cancelled.
    """
    scope = trio.CancelScope()

    def stop() -> None:
        at_step()
        scope.cancel()

    async def move(manager: Manager) -> None:
        for target in targets[1:]:
            await trio.sleep(1)
            manager.update_target(target)

    instrument = AtStep(steps, stop)
    trio.lowlevel.add_instrument(instrument)
    watching = Watching(source, copy)
    try:
        with scope:
            async with trio.open_nursery() as nursery:
                servers = [
                    ScriptedServer(source.database, fake_servers.after(SECONDS)),
                    FakeServer(source.database),
                ]
                peers = [server.peer(nursery) for server in servers]
                manager = Manager(copy, peers, targets[0], limits=LIMITS, executor=watching)
                nursery.start_soon(move, manager)
                # A target may have left the source's history.
                with contextlib.suppress(TargetGone):
                    await manager.run()
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    watching.look()
    return instrument.steps


def run_sync(
    source: Source,
    copy: Database,
    targets: list[bytes],
    steps: int = 1 << 62,
    at_step: Callable[[], None] = lambda: None,
) -> int:
    return trio.run(sync_to, source, copy, targets, steps, at_step, clock=MockClock(autojump_threshold=0))


def moved_source(source: Source) -> list[bytes]:
    """Let a source move; return targets that lead forth and back."""
    choice = random.Random(1)
    for _ in range(3):
        source.change(8, choice)
    return [*source.roots[1:], source.roots[2], source.root]


# Together the offsets are all steps that there are.
@pytest.mark.slow
@pytest.mark.parametrize("offset", range(6))
@pytest.mark.parametrize("is_first", [True, False])
def test_a_sync_to_moving_targets_cancelled_at_any_step_resumes(is_first: bool, offset: int) -> None:
    with new_source(some_pairs(40)) as source:
        targets = moved_source(source)
        step, left = offset + 1, 0
        while left <= 0:
            with new_database() as copy:
                if not is_first:
                    run_sync(source, copy, targets[:1])
                left = run_sync(source, copy, targets, step)
                assert copy.catching_up or copy.head is not None
                run_sync(source, copy, [source.root])
                assert_same(copy, source.database)
            step += 6


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class Story:
    """A source that moves, and a copy that syncs, is killed, and is opened again."""

    def __init__(self, source: Source, folder: Path, seed: int) -> None:
        self._source = source
        self._folder = folder
        self._choice = random.Random(seed)
        self._lives = 0
        self._store = folder / "0"

    def commit(self) -> None:
        count = self._choice.randrange(1, 12)
        self._source.change(min(count, len(self._source.contents[self._source.root])), self._choice)

    def lose_everything(self) -> None:
        self._source.commit(dict.fromkeys(self._source.contents[self._source.root]))
        self._source.commit(some_pairs(20, self._choice.randrange(1 << 32)))

    def sync_and_kill(self) -> None:
        """Sync to some targets, and take a copy of the folder at some step: that is what a crash leaves."""
        self._lives += 1
        targets = [self._choice.choice(self._source.roots) for _ in range(self._choice.randrange(1, 4))]
        crashed = self._folder / str(self._lives)

        def crash() -> None:
            shutil.copytree(self._store, crashed)

        with merkledb.open(self._store) as copy:
            run_sync(
                self._source,
                copy,
                targets,
                self._choice.randrange(1, 600),
                crash,
            )
        if crashed.exists():
            self._store = crashed

    def roll_back(self) -> None:
        with merkledb.open(self._store) as copy:
            copy.roll_back()
            Watching(self._source, copy).look()

    def end(self) -> None:
        with merkledb.open(self._store) as copy:
            copy.check()
            run_sync(self._source, copy, [self._source.root])
            assert_same(copy, self._source.database)


STEPS = st.sampled_from(
    [
        Story.commit,
        Story.commit,
        Story.sync_and_kill,
        Story.sync_and_kill,
        Story.sync_and_kill,
        Story.roll_back,
        Story.lose_everything,
    ]
)


@pytest.mark.slow
@settings(max_examples=amount(30, soak=2_000))
@given(st.lists(STEPS, max_size=12), st.integers(0, 1 << 32), st.sampled_from([2, 5, 256]))
def test_whatever_happens_a_copy_shows_roots_that_there_were_and_ends_at_the_newest(
    steps: list[Callable[[Story], None]], seed: int, history: int
) -> None:
    with new_source(some_pairs(50, seed), history) as source, scratch() as folder:
        story = Story(source, folder, seed)
        for step in steps:
            step(story)
        story.end()
