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
import timeit
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

import click
import lmdb

import merkledb
from bench import options, sync
from bench.figures import Figures, medians
from bench.processes import WatchedProcess
from bench.results import Plan, Results, draw_plots, markdown, replace_measured, text
from bench.workload import Workload

# The raw copy counts pairs a frame, not bytes, so heavier values do not fit.
_MAX_RAW_VALUE_BYTES: Final = 64


def run(plan: Plan) -> Results:
    """Measure everything; raise click.UsageError where there is no room for the largest store."""
    # A store, and one copy of it at a time; values of 4 KiB take twice their bytes.
    options.require_room(
        max(2 * each.keys * (options.PAIR_BYTES + 2 * each.value_bytes) for each in plan.workloads())
    )
    with options.work_folder() as folder:
        measured = {
            workload: medians([measure_run(folder / "run", workload, run) for run in range(plan.runs)])
            for workload in plan.workloads()
        }
        return Results(machine(), plan, measured)


def measure_run(folder: Path, workload: Workload, run: int) -> Figures:
    """Return what one run measured of one store, in the order of a table."""
    what = f"{workload.keys:,} {workload.kind} keys with values of {workload.value_bytes:,} bytes"
    click.echo(f"run {run + 1}: {what}", err=True)
    folder.mkdir()
    # Each step has a process of its own.
    begin = partial(WatchedProcess, module="bench.steps")
    append_seconds = begin("append", folder, *workload).end()["seconds"]
    shutil.rmtree(folder / "raw")
    load = begin("load", folder, *workload)
    loaded = load.end()
    synced = measure_sync(folder, workload)
    read, committed = (begin(name, folder, *workload).end() for name in ("read", "commit"))
    shutil.rmtree(folder)
    all_bytes = loaded["key_bytes"] + workload.keys * workload.value_bytes
    return {
        "keys": workload.keys,
        "bytes of a key": loaded["key_bytes"] / workload.keys,
        "bytes of a value": workload.value_bytes,
        "load, keys a second": workload.keys / loaded["seconds"],
        "load, MB a second": all_bytes / loaded["seconds"] / 1e6,
        "raw append, keys a second": workload.keys / append_seconds,
        "load / raw append": append_seconds / loaded["seconds"],
        "load, peak memory, MB": loaded["memory_bytes"] / 1e6,
        "load, peak anonymous memory, MB": load.memory,
        **read,
        **committed,
        **synced,
    }


def measure_sync(folder: Path, workload: Workload) -> Figures:
    """Return what a sync of the store takes, beside a raw copy where that is possible."""
    with merkledb.open(folder / "store", readonly=True) as database:
        root = database.root
    kinds = ["raw", "verified"] if workload.value_bytes <= _MAX_RAW_VALUE_BYTES else ["verified"]
    copies = {kind: sync.copy(kind, folder / "store", folder / kind, workload.keys, root) for kind in kinds}
    verified = copies["verified"]
    rate, wire_bytes = verified["keys_per_second"], verified["wire_bytes_per_key"]
    ratio = {"sync / raw copy": rate / copies["raw"]["keys_per_second"]} if "raw" in copies else {}
    return {
        "sync, keys a second": rate,
        "sync, MB a second": rate * wire_bytes / 1e6,
        **ratio,
        "sync, client's peak anonymous memory, MB": verified["client_memory"],
        "sync, server's peak anonymous memory, MB": verified["server_memory"],
        "sync, bytes on the wire a key": wire_bytes,
        "store after a sync, bytes a key": verified["store_bytes_per_key"],
    }


def machine() -> str:
    """Return what this machine is, and how fast it hashes."""
    data, release = bytes(70), platform.release().partition("-")[0]
    microseconds = min(timeit.repeat(lambda: sha256(data).digest(), number=100_000, repeat=5)) * 10
    # The processor's name, where the system tells it, or else its kind.
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return (
        f"{os.cpu_count()} cores of an {next(names, platform.machine())}, {platform.system()} {release}, "
        f"Python {platform.python_version()}, LMDB {'.'.join(map(str, lmdb.version()))}, "
        f"{merkledb.kernel_name()} kernel; sha256 of 70 bytes from Python takes {microseconds:.2f} µs"
    )


def read(file: IO[str]) -> Results:
    """Return what an earlier run printed; raise click.UsageError where it is something else."""
    try:
        return Results.of(json.load(file))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"{file.name} is not what this program prints with --json; measure again ({error!r})"
        raise click.UsageError(wrong) from error


@click.command(cls=options.Benchmark, help=__doc__)
# Two keys, for the logarithm of one is nothing that a figure can grow with.
@options.number_option(
    "--keys", (100_000, 1_000_000, 10_000_000), "Pairs in a store; once for each size.", least=2
)
@options.number_option(
    "--distribution-keys",
    1_000_000,
    "Pairs in the stores of other keys and values (fewer where values are large); 0 for none.",
    least=0,
)
@options.RUNS
@options.AS_JSON
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables for a document.")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    help="A document whose measured part is replaced, too.",
)
@click.option(
    "--plots", type=click.Path(file_okay=False, writable=True, path_type=Path), help="A folder for plots."
)
@click.option(
    "--measured", type=click.File(), help="What an earlier run printed with --json: nothing is measured."
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
    measured: IO[str] | None,
) -> None:
    if plots and importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError(
            'plots need matplotlib, which is not installed: pip install "merklesync[plots]"'
        )
    if document:
        # What cannot be replaced is to be known before hours of measuring, not after.
        replace_measured(document.read_text(), "")
    plan = Plan(tuple(sorted(set(keys))), distribution_keys, runs)
    results = read(measured) if measured else run(plan)
    print(json.dumps(results.document()) if as_json else (markdown if as_markdown else text)(results))
    if document:
        document.write_text(replace_measured(document.read_text(), markdown(results)))
    if plots:
        draw_plots(plots, results)


if __name__ == "__main__":
    main()
