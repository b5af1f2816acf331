"""The benchmark of large stores runs, on small ones; its keys, its trends and its tables are right."""

import importlib.util
import json
import subprocess
import sys
from itertools import chain, pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.figures import Grid, short
from bench.results import Growth, Plan, Results, grids, markdown, replace_measured, text, trend
from bench.scale import main
from bench.workload import (
    KINDS,
    ROUNDS,
    Workload,
    counters,
    prefixed_counters,
    uniform_keys,
    values,
)

# All but a few need what one run of the benchmark printed.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bench_scale")]

ROOT = Path(__file__).parents[2]
PLAN = Plan((100, 300), 300, 1)
# What is measured of every store, in the order of a table.
FIGURES = [
    "keys",
    "bytes of a key",
    "bytes of a value",
    "load, keys a second",
    "load, MB a second",
    "raw append, keys a second",
    "load / raw append",
    "load, peak memory, MB",
    "load, peak anonymous memory, MB",
    "store, bytes a key",
    "of these, values",
    "of these, branches",
    "of these, all else",
    "get, µs",
    "range proof, pairs",
    "range proof: prove, ms",
    "range proof: encode, ms",
    "range proof: decode, ms",
    "range proof: verify, ms",
    "range proof: apply durably, ms",
    "range proof, bytes a key",
    "single proof: prove, µs",
    "single proof: verify, µs",
    "single proof, bytes",
    "commit, pairs",
    "commit of scattered new pairs, ms",
    "commit of scattered changed values, ms",
    "sync, keys a second",
    "sync, MB a second",
    "sync / raw copy",
    "sync, client's peak anonymous memory, MB",
    "sync, server's peak anonymous memory, MB",
    "sync, bytes on the wire a key",
    "store after a sync, bytes a key",
]


def scale(*options: str) -> str:
    """Run the benchmark; return what it prints."""
    command = [sys.executable, "-m", "bench.scale", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


@pytest.fixture(scope="module")
def document() -> dict[str, object]:
    """What a small run prints."""
    measured = scale("--keys=300", "--keys=100", "--distribution-keys=300", "--runs=1", "--json")
    return dict(json.loads(measured))


def test_every_store_of_the_plan_is_measured_once(document: dict[str, object]) -> None:
    results = Results.of(document)
    assert results.plan == PLAN
    assert set(results.measured) == set(chain.from_iterable(PLAN.tables().values()))
    assert {(each.kind, each.keys, each.value_bytes) for each in results.measured} == {
        ("uniform", 100, 32),
        *((kind, 300, 32) for kind in KINDS),
        ("uniform", 300, 8),
        ("uniform", 75, 4096),
        ("uniform", 1, 1 << 20),
    }
    assert len(results.measured) == 1 + len(KINDS) + 3
    assert json.loads(json.dumps(results.document())) == document


def test_every_figure_is_measured(document: dict[str, object]) -> None:
    for workload, measured in Results.of(document).measured.items():
        not_there = ["sync / raw copy"] if workload.value_bytes > 1000 else []
        assert list(measured) == [name for name in FIGURES if name not in not_there]
        # A store of one key has no branch, and memory of a process that lives briefly is not always seen.
        assert all(figure >= 0 for figure in measured.values())
        assert measured["load, keys a second"] > 0


def test_tables_have_a_row_for_each_quantity_and_a_column_for_each_store(document: dict[str, object]) -> None:
    sizes, kinds, lengths = grids(Results.of(document))
    assert list(sizes.heads) == ["100", "300", "growth"]
    assert list(kinds.heads) == list(KINDS)
    assert list(lengths.heads) == ["8 bytes", "32 bytes", "4 KiB", "1 MiB"]
    for grid in (sizes, kinds, lengths):
        assert [name for name, _ in grid.rows] == FIGURES
        assert all(len(cells) == len(grid.heads) for _, cells in grid.rows)


def test_what_an_earlier_run_measured_is_shown_again(document: dict[str, object], tmp_path: Path) -> None:
    measured, page = tmp_path / "measured.json", tmp_path / "page.md"
    measured.write_text(json.dumps(document))
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nbehind\n")
    results = Results.of(document)
    assert scale(f"--measured={measured}") == text(results) + "\n"
    printed = scale(f"--measured={measured}", "--markdown", f"--document={page}")
    assert printed == markdown(results) + "\n"
    assert page.read_text() == (
        f"before\n<!-- measured: begin -->\n\n{markdown(results)}\n<!-- measured: end -->\nbehind\n"
    )


def test_plots_are_small_files(document: dict[str, object], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps(document))
    for folder in ("first", "second"):
        scale(f"--measured={measured}", f"--plots={tmp_path / folder}")
    for plot in ("speed", "memory", "store", "range-proof", "single-proof"):
        content = (tmp_path / "first" / f"{plot}.svg").read_bytes()
        assert b"<svg" in content
        assert len(content) < 60_000
        assert content == (tmp_path / "second" / f"{plot}.svg").read_bytes()


def test_plots_without_matplotlib_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = CliRunner().invoke(main, ["--plots=plots"])
    assert done.exit_code == 2
    assert 'pip install "merklesync[plots]"' in done.stderr


@pytest.mark.parametrize("page", ["", "<!-- measured: end -->\n<!-- measured: begin -->\n"])
def test_a_document_without_marks_is_refused(page: str) -> None:
    with pytest.raises(click.UsageError, match="has no lines"):
        replace_measured(page, "tables")


def test_a_document_without_marks_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing is measured here\n")
    done = CliRunner().invoke(main, ["--document", str(page)])
    assert done.exit_code == 2
    assert [line.startswith("Error: the document has no lines") for line in done.stderr.splitlines()] == [
        True
    ]


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"sizes": 1}'])
def test_what_no_run_has_printed_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    measured = tmp_path / "measured.json"
    measured.write_text(content)
    done = CliRunner().invoke(main, ["--measured", str(measured)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "measured.json is not what this program prints with --json" in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 5, 1024, 1025, 5000])
def test_keys_are_as_many_as_asked_for_and_strictly_ascending(kind: str, count: int) -> None:
    keys = list(KINDS[kind](count))
    assert len(keys) == count
    assert all(key < following for key, following in pairwise(keys))
    assert all(len(key) <= 252 for key in keys)
    assert keys == list(KINDS[kind](count))


def test_keys_look_as_their_kinds_do() -> None:
    assert list(counters(3)) == [bytes(8), bytes(7) + b"\1", bytes(7) + b"\2"]
    assert {len(key) for key in KINDS["addresses"](5000)} == {20}
    assert {len(key) for key in uniform_keys(5000)} == {32}
    assert len({key[0] for key in uniform_keys(5000)}) == 256
    assert len({key[:64] for key in prefixed_counters(5000)}) == 4
    assert {len(key) for key in prefixed_counters(5000)} == {72}
    paths = [key.decode() for key in KINDS["file paths"](5000)]
    folders = {path.rpartition("/")[0] for path in paths}
    assert not folders & set(paths)
    assert 100 < len(folders) < 2500
    assert max(path.count("/") for path in paths) >= 5


def test_keys_are_the_same_in_every_process() -> None:
    program = "from bench.workload import KINDS\n"
    program += "print({kind: list(make(50))[-1] for kind, make in KINDS.items()})"
    other = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert other.stdout.strip() == str({kind: list(make(50))[-1] for kind, make in KINDS.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_loads_all_keys_but_those_that_it_commits_later(kind: str) -> None:
    workload = Workload(kind, 997, 5)
    batches = list(workload.batches())
    loaded = list(chain.from_iterable(keys for keys, _ in batches))
    assert len(loaded) == 997
    assert loaded == sorted(set(loaded)) == list(workload.loaded_keys())
    assert {len(value) for _, some in batches for value in some} == {5}
    sample = workload.sample()
    assert len(sample.new) == len(set(sample.new)) == ROUNDS * workload.commit_pairs == 300
    assert not set(sample.new) & set(loaded)
    assert len(sample.present) == len(set(sample.present)) == 300
    assert set(sample.present) <= set(loaded)
    assert sample.starts == sorted(sample.starts)


def test_the_smallest_workload_has_a_sample() -> None:
    sample = Workload("uniform", 1, 1).sample()
    assert (len(sample.new), len(sample.present)) == (3, 1)


def test_heavy_values_come_in_small_batches() -> None:
    keys, some = next(Workload("counters", 100, 1 << 20).batches())
    assert len(keys) == len(some) == 64


def test_values_differ_by_name_and_by_place() -> None:
    some = values("name", 3, 8)
    assert len({*some, *values("other", 3, 8)}) == 6
    assert some == values("name", 3, 8)


@pytest.mark.parametrize(
    ("figures", "growth"),
    [
        ([5, 5, 5], "flat"),
        ([5, 7, 6], "flat"),
        ([5, 5, 4.1], "flat"),
        ([5, 6, 7], "logarithmic"),
        ([7, 6, 5], "logarithmic"),
        ([5, 5, 8], "logarithmic"),
        ([1, 10, 100], "linear"),
        ([100, 10, 1], "linear"),
        ([30, 39, 129], "linear"),
        ([30, 80, 130], "logarithmic"),
    ],
)
def test_growth_over_a_hundredfold(figures: list[float], growth: Growth) -> None:
    found = trend([100_000, 1_000_000, 10_000_000], figures)
    assert found == (figures[-1] / figures[0], growth)


@pytest.mark.parametrize(("last", "growth"), [(1.1, "flat"), (2, "logarithmic"), (80, "linear")])
def test_growth_from_two_sizes(last: float, growth: Growth) -> None:
    assert trend([100_000, 10_000_000], [1, last]) == (last, growth)


def test_one_size_and_nothing_measured_have_no_trend() -> None:
    assert trend([100], [5]) is None
    assert trend([100, 1000], [0, 5]) is None


def test_a_grid_for_a_person_and_for_a_document() -> None:
    grid = Grid("title", ["1 k", "10 M"], [("first", ["1", "2"]), ("of these", ["1,000", "-"])])
    assert grid.text().splitlines() == [
        "title",
        "",
        "            1 k  10 M",
        "first         1     2",
        "of these  1,000     -",
    ]
    assert grid.markdown().splitlines() == [
        "### title",
        "",
        "|  | 1 k | 10 M |",
        "|---|--:|--:|",
        "| first | 1 | 2 |",
        "| of these | 1,000 | - |",
    ]


def test_sizes_are_said_shortly() -> None:
    assert [short(size) for size in (300, 100_000, 2_500_000)] == ["300", "100 k", "2.5 M"]
