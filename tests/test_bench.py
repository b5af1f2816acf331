"""The benchmarks run, and report every figure; how fast they are is nobody's test."""

import json
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
import trio
import trio.testing

import merkledb
from bench.figures import Figure, Stopwatch, table
from bench.loop import rare
from bench.pipeline import Job, divide
from bench.raw import RawClient, RawServer
from manager import Limits

ROOT = Path(__file__).parent.parent
# Enough pairs for every proof that is measured, and little else.
SIZES: dict[str, dict[str, float]] = {
    "bench.database": {"keys": 40_000, "runs": 1},
    "bench.commits": {"keys": 900, "batch": 400, "runs": 1},
    "bench.sync": {"keys": 40_000, "runs": 1},
    "bench.history": {"keys": 40_000, "commits": 21, "changes": 100, "rounds": 2},
    "bench.follow": {"keys": 10_000, "retained": 2, "changes": 100, "seconds": 0.1, "runs": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_benchmark_runs(name: str) -> None:
    options = [f"--{option}={size}" for option, size in SIZES[name].items()]
    command = [sys.executable, "-m", name, *options, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    figures = json.loads(done.stdout)
    assert {option: figures.pop(option) for option in SIZES[name]} == SIZES[name]
    assert figures
    for figure in figures.values():
        values = figure.values() if isinstance(figure, dict) else [figure]
        assert all(isinstance(value, int | float) for value in values)


def test_a_table_tells_what_is_missed() -> None:
    figures = [Figure("a", 1234.5), Figure("b", 0.2, 0.25), Figure("c", 3.0, 2.0)]
    figures += [Figure("d", 0.5, at_least=0.4), Figure("e", 0.3, at_least=0.4)]
    lines = table("title", figures).splitlines()
    assert lines[0] == "title"
    assert [line.split() for line in lines[3:]] == [
        ["a", "1,234"],
        ["b", "0.2", "<=", "0.25"],
        ["c", "3", "<=", "2", "missed"],
        ["d", "0.5", ">=", "0.4"],
        ["e", "0.3", ">=", "0.4", "missed"],
    ]


def test_ratios_are_medians_of_what_was_done_in_turn() -> None:
    ticks = iter([0.0, 1.0, 1.0, 3.0, 3.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0, 13.0])
    clock = Stopwatch(lambda: next(ticks))
    for _ in range(3):
        clock.lap("one", lambda: None)
        clock.lap("other", lambda: None)
    assert clock.seconds == {"one": [1.0, 3.0, 1.0], "other": [2.0, 1.0, 5.0]}
    assert clock.median("one") == 1.0
    assert clock.ratio("other", "one") == 2.0


def test_a_thread_that_does_nothing_waits_for_answers_or_for_the_event_loop() -> None:
    jobs = [
        Job(is_verification=True, asked=0.0, began=1.0, ended=3.0),
        Job(is_verification=True, asked=2.0, began=3.5, ended=4.0),
        Job(is_verification=False, asked=6.0, began=7.0, ended=9.0),
        Job(is_verification=True, asked=10.0, began=10.0, ended=11.0),
    ]
    assert divide(jobs) == {
        "verifying": 3.5,
        "writing": 2.0,
        "handing_over": 1.5,
        "waiting_for_answers": 3.0,
        "idle_with_verified_work": 3.5,
    }


def test_one_in_a_thousand_is_rare() -> None:
    assert rare(array("q", range(2000))) == 1997
    assert rare(array("q", [7])) == 7
    assert rare(array("q")) == 0


async def test_a_raw_copy_of_keys_that_begin_with_zero_ends(tmp_path: Path) -> None:
    keys = [number.to_bytes(8, "big") for number in range(2 * Limits().max_keys + 1)]
    with merkledb.open(tmp_path / "store") as database:
        database.commit(dict.fromkeys(keys, b"value"))
    client_side, server_side = trio.testing.memory_stream_pair()
    client = RawClient(tmp_path / "copy")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(RawServer(tmp_path / "store").handle, server_side)
            await client.copy(client_side)
            nursery.cancel_scope.cancel()
    assert client.keys == len(keys)
