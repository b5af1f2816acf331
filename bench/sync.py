"""Measure a sync beside the raw copy of the same pairs: two processes over loopback TCP.

    python -m bench.sync [--keys N] [--runs N] [--json]

Each run copies the store twice, raw and verified, one after the other; ratios are taken within a run, and the
median of the runs is what counts.  These are the figures of each copy:

    keys_per_second         pairs copied, over the client's whole time with its database open
    *_cpu_seconds           of the client or the server, user and system, without its start
    *_memory                the peak of its anonymous memory in MB; mapped file pages do not count
    *_loop_blocked_*        how long one step kept its event loop from all else: the longest (most), and what
                            one step in a thousand exceeds (rare)
    *_blocked_by_process_*  the same, less waits for a processor that others had
    *_own_work_most_ms      the most processor time of one step, so without waits for other threads
    *_collection_*          the longest collection of garbage, which holds the interpreter, and all of them
    wire_bytes_per_key      what the server sent
    store_bytes_per_key     what the new store takes on disk
"""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import click

from bench import options
from bench.data import load, sorted_pairs, store_bytes
from bench.figures import Grid, medians
from bench.processes import transfer


def copy(
    kind: str, source: Path, target: Path, keys: int, root: bytes
) -> tuple[dict[str, float], dict[str, float]]:
    """Copy ``source`` once into a new store, which is removed again; ``kind`` is "raw" or "verified".

    Returns:
        The figures of the copy, and what the client's thread did with its time, where that is known.
    """
    done = transfer(kind, source, target, root)
    if done.client["keys"] != keys:
        raise SystemExit(f"the {kind} copy has {done.client['keys']} of {keys} keys: this is a defect")
    figures = {
        "keys_per_second": keys / done.seconds,
        "client_cpu_seconds": done.client["cpu_seconds"],
        "server_cpu_seconds": done.server["cpu_seconds"],
        "client_memory": done.client_memory,
        "server_memory": done.server_memory,
        **{f"client_{name}": figure for name, figure in done.client["loop"].items()},
        **{f"server_{name}": figure for name, figure in done.server["loop"].items()},
        "wire_bytes_per_key": done.server["bytes_sent"] / keys,
        "store_bytes_per_key": store_bytes(target) / keys,
    }
    shutil.rmtree(target)
    return figures, done.client.get("thread", {})


def measure(keys: int, runs: int, folder: Path) -> dict[str, Any]:
    """Return the medians of ``runs`` runs, raw and verified."""
    source = folder / "source"
    root = load(source, *sorted_pairs(keys))
    copies: dict[str, list[dict[str, float]]] = {"raw": [], "verified": []}
    threads = []
    for _ in range(runs):
        for kind, done in copies.items():
            figures, thread = copy(kind, source, folder / kind, keys, root)
            done.append(figures)
        threads.append(thread)
    rates = [[figures["keys_per_second"] for figures in done] for done in copies.values()]
    return {
        "keys": keys,
        "runs": runs,
        **{kind: medians(done) for kind, done in copies.items()},
        "thread": medians(threads),
        "ratio": statistics.median(verified / raw for raw, verified in zip(*rates, strict=True)),
    }


def text(result: dict[str, Any]) -> str:
    """Return the result for a person."""
    title = f"{result['keys']:,} keys of 32 + 32 bytes, median of {result['runs']} runs"
    rows = [
        (_label(name), [f"{result[kind][name]:,.1f}" for kind in ("raw", "verified")])
        for name in result["raw"]
    ]
    thread = [
        (_label(name.removesuffix("_seconds")), [f"{seconds:.3f}"])
        for name, seconds in result["thread"].items()
    ]
    return "\n\n".join(
        [
            Grid(title, ["raw copy", "verified"], rows).text(),
            Grid("the thread of the verified copy's client", ["seconds"], thread).text(),
            f"verified / raw: {result['ratio']:.3f} of the keys a second",
        ]
    )


def _label(name: str) -> str:
    return name.replace("_", " ") + (" MB" if name.endswith("memory") else "")


@click.command(cls=options.Benchmark, help=__doc__)
@options.number_option("--keys", 1_000_000, "Pairs in the store.")
@options.RUNS
@options.AS_JSON
def main(*, keys: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    # The source, and one copy of it at a time.
    options.require_room(2 * keys * options.PAIR_BYTES, pairs_in_memory=keys)
    with options.work_folder() as folder:
        result = measure(keys, runs, folder)
    print(json.dumps(result) if as_json else text(result))


if __name__ == "__main__":
    main()
