"""The simulation: seeds that all go well, the same each time, and that really exercise what they are for."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from merkledb import Database
from merkledb.kernel.choice import VARIABLE
from simulation import Simulation, lies, runner
from simulation.runner import run_seed
from tests.support.thoroughness import amount

pytestmark = pytest.mark.usefixtures("untraced")

ROOT = Path(__file__).parents[2]
# In chunks, so that the tests of several processes share them.
CHUNK = 25
CHUNKS = amount(1, soak=400)
# Seeds whose counts are looked at until every event has happened; other ones, so that more are run.
COUNTED = range(10_000, 10_200)
# Within so many seeds each lie is told at least once, however seldom it fits.
SEEDS_FOR_A_LIE = 40
# So many of each kind of announcer, whose time is the honest peers' and that of the pauses after it.
SEEDS_FOR_AN_ANNOUNCER = amount(4, soak=80)
SEEDS_FOR_A_DISK = amount(8, soak=150)
EVENTS = {
    "applied a range",
    "applied changes",
    "commit: back",
    "commit: deletions",
    "commit: emptied",
    "commit: first",
    "commit: large",
    "commit: range deleted",
    "commit: small",
    "commit: values",
    "current",
    "death: at a write, after",
    "death: at a write, before",
    "death: at a write, inside",
    "death: killed",
    "death: power lost",
    "death: wiped",
    "disk filled",
    "dropped a liar",
    "full disk",
    "network: corrupted",
    "network: cut",
    "network: dropped",
    "network: ended early",
    "network: parted",
    "network: stalled",
    "reached",
    "refused: full",
    "lie: an unheard-of head",
    "retarget",
    "tries again without room",
}
DIGESTS = """
from simulation import Simulation
for seed in range(4):
    print(Simulation(seed).run().digest)
"""


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_seed_violates_anything(chunk: int) -> None:
    failures = {}
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        result = run_seed(seed)
        if result.failure:
            failures[seed] = result.failure
    assert not failures, f"replay with: python -m simulation --seed {min(failures)}"


def digests(hash_seed: int, **variables: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), **variables}
    command = [sys.executable, "-c", DIGESTS]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
def test_a_seed_does_the_same_in_every_process_and_on_both_kernels() -> None:
    first = digests(1)
    assert len(first.split()) == 4
    assert digests(2, **{VARIABLE: "pure"}) == first


def test_a_log_changes_nothing() -> None:
    silent, logged = Simulation(3).run(), Simulation(3, keep_lines=True).run()
    assert silent.digest == logged.digest
    assert silent.counts == logged.counts
    assert not silent.lines
    assert len(logged.lines) == sum(logged.counts.values())


@pytest.mark.either_kernel
@pytest.mark.slow
def test_everything_that_can_go_wrong_does() -> None:
    counts: Counter[str] = Counter()
    for seed in COUNTED:
        result = run_seed(seed)
        assert not result.failure
        counts += result.counts
        if counts.keys() >= EVENTS:
            return
    pytest.fail(f"never happened: {EVENTS - counts.keys()}")


@pytest.mark.either_kernel
@pytest.mark.slow
@pytest.mark.parametrize("lie", lies.ALL)
def test_no_lie_is_believed(lie: str) -> None:
    for seed in range(SEEDS_FOR_A_LIE):
        plan = replace(Simulation(seed).plan, liars=1, trusting_share=0.0, repertoire=(lie,), replicas=1)
        outcome = Simulation(seed, plan=plan).run()
        assert outcome.violation is None
        if outcome.counts[f"lie: {lie}"]:
            return
    pytest.fail(f"no liar told that lie in {SEEDS_FOR_A_LIE} seeds")


@pytest.mark.either_kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        ("an unheard-of head",),
        ("an unheard-of head", "silence"),
        ("an unheard-of head", "a trickle", "half a frame"),
        ("an unheard-of head", "overload", "a false error"),
        ("an unheard-of head", "a huge claim"),
        lies.FALSE_HEADS,
        (*lies.FALSE_HEADS, "an unheard-of head", "silence"),
    ],
    ids=", ".join,
)
def test_who_believes_its_peers_gets_to_what_the_honest_show_beside_announcers_that_lie(
    told: tuple[str, ...],
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS_FOR_AN_ANNOUNCER):
        plan = replace(
            Simulation(seed).plan,
            liars=1 + seed % 2,
            trusting_share=1.0,
            repertoire=told,
            misleads=told[0] in lies.FALSE_HEADS,
        )
        outcome = Simulation(seed, plan=plan).run()
        assert outcome.violation is None, seed
        counts += outcome.counts
    assert counts[f"lie: {told[0]}"]


@pytest.mark.either_kernel
@pytest.mark.slow
def test_who_follows_outlasts_full_disks() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS_FOR_A_DISK):
        plan = replace(Simulation(seed).plan, full_disks=12, kills=2)
        outcome = Simulation(seed, plan=plan).run()
        assert outcome.violation is None, seed
        counts += outcome.counts
    assert counts["tries again without room"] >= SEEDS_FOR_A_DISK // 2


# What is alike in all runs that are compared: a quiet world, in which one replica copies and then follows.
QUIET = {
    "replicas": 1,
    "mirrors": 0,
    "origin_servers": 1,
    "trusting_share": 0.0,
    "keys": 200,
    "large_changes": 200,
    "longest_value_bytes": 60,
    "max_keys": 8,
    "max_changes": 8,
    "max_bytes": 100_000,
    "commits": 8,
    "commit_seconds": 0.5,
    "history": 256,
    "history_seconds": None,
    "fault_seconds": 0.05,
    "roughness": 0.0,
    "slowness": 0.0,
    "kills": 0,
    "partitions": 0,
    "drops": 0,
    "full_disks": 0,
    "max_connections": 64,
    "buffered_bytes": 64 << 20,
}


def seconds_until_current(seed: int, liars: int, repertoire: tuple[str, ...]) -> float:
    """How long a world takes to come to rest whose liars say what is true, and next to nothing."""
    plan = replace(Simulation(seed).plan, liars=liars, repertoire=repertoire, **QUIET)  # type: ignore[arg-type]  # each of its own type
    outcome = Simulation(seed, plan=plan, keep_lines=True).run()
    assert outcome.violation is None
    assert not any(kind.startswith("dropped") for kind in outcome.counts), "nobody is blamed"
    (last,) = [line for line in outcome.lines if line.split()[1:3] == ["world", "current"]]
    return float(last.split()[0])


@pytest.mark.either_kernel
@pytest.mark.slow
@pytest.mark.parametrize("repertoire", [lies.DRIPS, lies.DAWDLES], ids=["drips", "dawdles"])
def test_liars_whose_answers_are_true_and_of_little_use_at_most_double_the_time_of_the_honest_peer(
    repertoire: tuple[str, ...],
) -> None:
    alone = sum(seconds_until_current(seed, 0, repertoire) for seed in range(5))
    beside = sum(seconds_until_current(seed, 2, repertoire) for seed in range(5))
    assert beside <= 2 * alone, f"{beside:.1f} s, and {alone:.1f} s without"


def test_a_failing_seed_is_printed_with_the_way_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Database, "at", lambda self, root: self.snapshot())
    assert not runner.run_all(range(17, 18), 1)
    printed = capsys.readouterr().out
    assert "seed 17 fails: Unsafe" in printed
    assert "-m simulation --seed 17" in printed
    assert not runner.show(17)
    logged = capsys.readouterr().out
    assert "violation" in logged
    assert "simulation.safety.Unsafe" in logged


@pytest.mark.slow
def test_good_seeds_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run_all(range(3), 1)
    printed = capsys.readouterr().out
    assert "3 seeds in" in printed
    assert "0 fail" in printed
    assert "published" in printed


@pytest.mark.either_kernel
@pytest.mark.slow
def test_processes_share_the_seeds() -> None:
    alone, shared = ({each.seed: each for each in runner.results_of(range(3), jobs)} for jobs in (1, 2))
    assert alone.keys() == shared.keys() == {0, 1, 2}
    assert all(alone[seed].counts == shared[seed].counts for seed in alone)
