"""Measure how everything grows with the store, and what other keys and values make of it.

    python -m bench.scale [--keys N]... [--distribution-keys N] [--runs N]
                          [--json] [--markdown] [--document FILE] [--plots FOLDER] [--measured FILE]

Stores of 100 k, 1 M and 10 M pairs are loaded, read, proved, synced over loopback TCP and changed; then
stores of one size with keys of other kinds, and with smaller and larger values.  Each step has a process of
its own, so that its memory is its own, and walks over its pairs instead of holding them.  The load is timed
beside a raw LMDB append of the same pairs in the same transactions, the sync beside a raw copy; ratios are
taken within a run, and the median of the runs counts.  What is read was read before, so that it is in memory,
if the machine has as much.
"""

import importlib.util
import json
import os
import platform
import shutil
import statistics
import tempfile
import timeit
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import click
import lmdb

import merkledb
from bench import sync
from bench.data import store_bytes, table_bytes
from bench.plan import Plan
from bench.quantity import Measured, Quantity
from bench.results import Results, markdown, replace_measured, text
from bench.store_steps import STEPS
from bench.watched import WatchedProcess
from bench.workload import Workload

# The raw copy counts pairs a frame, not bytes, so heavier values do not fit.
_MAX_RAW_VALUE_BYTES: Final = 64
_NO_PLOTS: Final = 'plots need matplotlib, which is not installed: pip install "merklesync[plots]"'


def measure(plan: Plan, folder: Path) -> dict[Workload, Measured]:
    """Return the medians for each store of a plan; one that is wanted twice is measured once."""
    measured: dict[Workload, Measured] = {}
    for workload in dict.fromkeys([*plan.by_size(), *plan.by_kind(), *plan.by_value()]):
        rows = [measure_run(folder / "run", workload, run) for run in range(plan.runs)]
        measured[workload] = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return measured


def measure_run(folder: Path, workload: Workload, run: int) -> Measured:
    """Return what one run measured of one store."""
    what = f"{workload.keys:,} {workload.kind} keys with values of {workload.value_bytes:,} bytes"
    click.echo(f"run {run + 1}: {what}", err=True)
    folder.mkdir()
    loaded, root = measure_load(folder, workload)
    synced = measure_sync(folder, workload, root)
    read, _ = step("read", folder, workload)
    committed, _ = step("commit", folder, workload)
    shutil.rmtree(folder)
    own = {Quantity(name): figure for name, figure in (read | committed).items()}
    figures = loaded | own | synced | {Quantity.COMMIT_PAIRS: workload.commit_pairs}
    return {quantity: figures[quantity] for quantity in Quantity if quantity in figures}


def step(name: str, folder: Path, workload: Workload) -> tuple[dict[str, Any], int]:
    """Take one step in a process of its own.

    Returns:
        What it measured, and the peak of its anonymous memory in bytes.
    """
    assert name in STEPS
    arguments = [str(folder), workload.kind, str(workload.keys), str(workload.value_bytes)]
    process = WatchedProcess(name, *arguments, module="bench.store_steps")
    return process.end(), process.peak_bytes


def measure_load(folder: Path, workload: Workload) -> tuple[Measured, bytes]:
    """Fill ``folder / "store"``; return what that took, and its root."""
    raw, _ = step("append_raw", folder, workload)
    shutil.rmtree(folder / "raw")
    loaded, anonymous_bytes = step("load", folder, workload)
    keys = workload.keys
    measured = {
        Quantity.KEYS: keys,
        Quantity.KEY_BYTES: loaded["key_bytes"] / keys,
        Quantity.VALUE_BYTES: workload.value_bytes,
        Quantity.LOAD_KEYS: keys / loaded["seconds"],
        Quantity.LOAD_MEGABYTES: (loaded["key_bytes"] + keys * workload.value_bytes)
        / loaded["seconds"]
        / 1e6,
        Quantity.RAW_KEYS: keys / raw["seconds"],
        Quantity.LOAD_RATIO: raw["seconds"] / loaded["seconds"],
        Quantity.LOAD_MEMORY: loaded["peak_bytes"] / 1e6,
        Quantity.LOAD_ANONYMOUS: anonymous_bytes / 1e6,
    }
    return measured | store_figures(folder / "store", keys), bytes.fromhex(loaded["root"])


def store_figures(path: Path, keys: int) -> Measured:
    """Return what a store takes on disk, and for what."""
    whole, values, branches = store_bytes(path), table_bytes(path, b"values"), table_bytes(path, b"branches")
    return {
        Quantity.STORE_BYTES: whole / keys,
        Quantity.STORE_VALUES: values / keys,
        Quantity.STORE_BRANCHES: branches / keys,
        Quantity.STORE_REST: (whole - values - branches) / keys,
    }


def measure_sync(folder: Path, workload: Workload, root: bytes) -> Measured:
    """Return what a sync of the store takes, beside a raw copy where that is possible."""
    copies = {
        kind: sync.copy(kind, folder / "store", folder / kind, workload.keys, root)[0]
        for kind in _kinds_of_copies(workload)
    }
    verified = copies["verified"]
    measured = {
        Quantity.SYNC_KEYS: verified.keys_per_second,
        Quantity.SYNC_MEGABYTES: verified.keys_per_second * verified.wire_bytes_per_key / 1e6,
        Quantity.SYNC_CLIENT_MEMORY: verified.client_memory,
        Quantity.SYNC_SERVER_MEMORY: verified.server_memory,
        Quantity.SYNC_WIRE: verified.wire_bytes_per_key,
        Quantity.SYNC_STORE: verified.store_bytes_per_key,
    }
    if "raw" in copies:
        measured[Quantity.SYNC_RATIO] = verified.keys_per_second / copies["raw"].keys_per_second
    for kind in copies:
        shutil.rmtree(folder / kind)
    return measured


def _kinds_of_copies(workload: Workload) -> list[str]:
    return ["raw", "verified"] if workload.value_bytes <= _MAX_RAW_VALUE_BYTES else ["verified"]


def machine() -> str:
    """Return what this machine is, and how fast it hashes."""
    microseconds = min(timeit.repeat(partial(_hash, bytes(70)), number=100_000, repeat=5)) * 10
    return (
        f"{os.cpu_count()} cores of an {_processor()}, {platform.system()} {_system()}, "
        f"Python {platform.python_version()}, LMDB {'.'.join(map(str, lmdb.version()))}, "
        f"{merkledb.kernel_name()} kernel; sha256 of 70 bytes from Python takes {microseconds:.2f} µs"
    )


def _system() -> str:
    return platform.release().partition("-")[0]


def _hash(data: bytes) -> bytes:
    return sha256(data).digest()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def require_plots() -> None:
    """Raise click.UsageError, with what to do, where plots cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError(_NO_PLOTS)


def draw_plots(folder: Path, results: Results) -> None:
    """Draw how stores of several sizes compare."""
    from bench import plots  # noqa: PLC0415 - it needs matplotlib, which is optional

    plots.draw(folder, results.plan.sizes, [results.measured[each] for each in results.plan.by_size()])


def run(plan: Plan) -> Results:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="merklesync-bench-") as folder:
        return Results(machine(), plan, measure(plan, Path(folder)))


@click.command(help=__doc__)
@click.option(
    "--keys",
    type=click.IntRange(min=2),
    multiple=True,
    default=(100_000, 1_000_000, 10_000_000),
    show_default=True,
    help="Pairs in a store; once for each size.",
)
@click.option(
    "--distribution-keys",
    type=click.IntRange(min=0),
    default=1_000_000,
    show_default=True,
    help="Pairs in the stores of other keys and values (fewer where values are large); 0 for none.",
)
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="How often.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables for a document.")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A document whose measured part is replaced, too.",
)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="A folder for plots.")
@click.option(
    "--measured",
    type=click.File(),
    help="What an earlier run printed with --json: nothing is measured.",
)
def main(
    *,
    keys: tuple[int, ...],
    distribution_keys: int,
    runs: int,
    as_json: bool,
    as_markdown: bool,
    document: Path | None,
    plots: Path | None,
    measured: Any,
) -> None:
    """Run the benchmark."""
    if plots:
        require_plots()
    plan = Plan(tuple(sorted(set(keys))), distribution_keys, runs)
    results = Results.of(json.load(measured)) if measured else run(plan)
    print(json.dumps(results.document()) if as_json else (markdown if as_markdown else text)(results))
    if document:
        document.write_text(replace_measured(document.read_text(), markdown(results)))
    if plots:
        draw_plots(plots, results)


if __name__ == "__main__":
    main()
