"""The benchmarks run, and report every figure; how fast they are is nobody's test."""

import importlib
import json
import shutil
import subprocess
import sys
from array import array
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from click.testing import CliRunner

import merkledb
from bench.figures import Stopwatch, table
from bench.instruments import Job, divide, rare
from bench.raw import RawClient, RawServer
from bench.sync import text as sync_text
from manager import Limits

ROOT = Path(__file__).parents[2]
PROGRAMS = ("database", "commits", "history", "sync", "follow", "scale")
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
    figures = {"a": 1234.5, "b": 0.2, "c": 3.0, "d": 0.5, "e": 0.3}
    asked = {"b": ("<=", 0.25), "c": ("<=", 2.0), "d": (">=", 0.4), "e": (">=", 0.4)}
    lines = table("title", figures, asked).splitlines()
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


def test_what_is_done_in_turn_begins_with_another_step_each_time() -> None:
    done: list[str] = []
    clock = Stopwatch()
    for turn in range(3):
        clock.in_turn({name: partial(done.append, name) for name in "abc"}, turn)
    assert "".join(done) == "abcbcacab"
    assert {name: len(seconds) for name, seconds in clock.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_sync_is_shown_beside_the_raw_copy() -> None:
    copies = {"raw": {"client_memory": 20.5}, "verified": {"client_memory": 1234.5}}
    result = {"keys": 1000, "runs": 3, **copies, "thread": {"writing_seconds": 0.5}, "ratio": 0.25}
    assert [line.split() for line in sync_text(result).splitlines() if line][1:] == [
        ["raw", "copy", "verified"],
        ["client", "memory", "MB", "20.5", "1,234.5"],
        ["the", "thread", "of", "the", "verified", "copy's", "client"],
        ["seconds"],
        ["writing", "0.500"],
        ["verified", "/", "raw:", "0.250", "of", "the", "keys", "a", "second"],
    ]


def refusal(name: str, *options: str) -> str:
    """Run a program that is to refuse its options; return the one line that it prints."""
    done = CliRunner().invoke(importlib.import_module(f"bench.{name}").main, options)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "option", "value", "sentence"),
    [
        *((name, "--keys", "-1", "-1 is no whole number from") for name in PROGRAMS),
        *((name, "--keys", "0", "0 is no whole number from") for name in PROGRAMS),
        *((name, "--keys", "100000001", "to 100,000,000") for name in PROGRAMS),
        *((name, "--keys", "many", "many is no whole number from") for name in PROGRAMS),
        *((name, "--runs", "0", "from 1 to 1,000") for name in PROGRAMS if name != "history"),
        *((name, "--runs", "1001", "from 1 to 1,000") for name in PROGRAMS if name != "history"),
        ("database", "--keys", "4095", "from 4,096"),
        ("commits", "--batch", "0", "from 1"),
        ("history", "--keys", "4095", "from 4,096"),
        ("history", "--commits", "0", "from 1 to 1,000"),
        ("history", "--changes", "0", "from 1"),
        ("history", "--changes", "1000001", "give at most the 1,000,000 of --keys"),
        ("history", "--rounds", "0", "from 1 to 1,000"),
        ("follow", "--retained", "-1", "from 0 to 256"),
        ("follow", "--retained", "257", "from 0 to 256"),
        ("follow", "--changes", "1000001", "give at most the 1,000,000 of --keys"),
        ("follow", "--seconds", "-0.1", "give a number from 0 to 3,600"),
        ("follow", "--seconds", "nan", "give a number from 0 to 3,600"),
        ("follow", "--seconds", "inf", "give a number from 0 to 3,600"),
        ("scale", "--distribution-keys", "-1", "from 0"),
        ("scale", "--document", "no such file", "does not exist"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    name: str, option: str, value: str, sentence: str
) -> None:
    line = refusal(name, option, value)
    assert line.startswith("Error: ")
    assert option in line
    assert sentence in line


@pytest.mark.parametrize("name", PROGRAMS)
def test_stores_that_do_not_fit_on_the_disk_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(ROOT)._replace(free=1_000)
    monkeypatch.setattr("bench.options.shutil.disk_usage", lambda _: usage)
    assert "0.0 GB free in " in refusal(name)


@pytest.mark.parametrize("name", ["database", "sync", "history", "follow"])
def test_pairs_that_do_not_fit_into_memory_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.options.os.sysconf", lambda _: 1_000)
    assert "0.0 GB of memory: give smaller numbers" in refusal(name)


def test_commits_are_not_measured_in_memory_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(ROOT)
    monkeypatch.setattr("bench.commits._MEMORY", ROOT)
    monkeypatch.setattr(
        "bench.commits.shutil.disk_usage",
        lambda place: usage._replace(free=1_000 if place == ROOT else usage.free),
    )
    main = importlib.import_module("bench.commits").main
    done = CliRunner().invoke(main, ["--keys=10", "--batch=5", "--runs=1"])
    assert done.exit_code == 0
    assert done.stderr == f"not measured in memory: {ROOT} lacks 0.0 GB of room\n"
    assert "durable: pairs a second" in done.stdout
    assert "in memory" not in done.stdout
