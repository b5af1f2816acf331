"""Measure a sync beside the raw copy of the same pairs: two processes over loopback TCP.

    python -m bench.sync [--keys N] [--runs N] [--json]

Each run copies the store twice, raw and verified, one after the other; ratios are taken within a run, and the
median of the runs is what counts.
"""

import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from bench.data import load, sorted_pairs, store_bytes
from bench.watched import WatchedProcess


@dataclass
class Copy:
    """What one copy took.

    Attributes:
        keys_per_second: Pairs copied, over the client's whole time with its database open.
        client_cpu_seconds: Of the client, user and system, without its start.
        server_cpu_seconds: Of the server.
        client_memory: The peak of its anonymous memory in MB; mapped file pages do not count.
        server_memory: Of the server.
        client_loop_blocked_most_ms: The longest that one step kept the client's event loop from all else.
        client_loop_blocked_rare_ms: What one step in a thousand exceeds.
        client_loop_blocked_by_process_most_ms: The longest, less waits for a processor that others had.
        client_loop_blocked_by_process_rare_ms: What one step in a thousand exceeds of that.
        client_loop_own_work_most_ms: The most processor time of one step, so without waits for other threads.
        client_collection_most_ms: The longest collection of garbage, which holds the interpreter.
        client_collection_sum_ms: All of them.
        server_loop_blocked_most_ms: As of the client, and the others too.
        server_loop_blocked_rare_ms: Of the server.
        server_loop_blocked_by_process_most_ms: Of the server.
        server_loop_blocked_by_process_rare_ms: Of the server.
        server_loop_own_work_most_ms: Of the server.
        server_collection_most_ms: Of the server.
        server_collection_sum_ms: Of the server.
        wire_bytes_per_key: What the server sent.
        store_bytes_per_key: What the new store takes on disk.
    """

    keys_per_second: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    client_memory: float
    server_memory: float
    client_loop_blocked_most_ms: float
    client_loop_blocked_rare_ms: float
    client_loop_blocked_by_process_most_ms: float
    client_loop_blocked_by_process_rare_ms: float
    client_loop_own_work_most_ms: float
    client_collection_most_ms: float
    client_collection_sum_ms: float
    server_loop_blocked_most_ms: float
    server_loop_blocked_rare_ms: float
    server_loop_blocked_by_process_most_ms: float
    server_loop_blocked_by_process_rare_ms: float
    server_loop_own_work_most_ms: float
    server_collection_most_ms: float
    server_collection_sum_ms: float
    wire_bytes_per_key: float
    store_bytes_per_key: float


def copy(kind: str, source: Path, target: Path, keys: int, root: bytes) -> tuple[Copy, dict[str, float]]:
    """Copy ``source`` once; ``kind`` is "raw" or "verified".

    Returns:
        What it took, and what the client's thread did with its time, where that is known.
    """
    server = WatchedProcess(f"serve_{kind}", str(source))
    port = server.line()
    client = WatchedProcess(f"sync_{kind}", str(target), port, root.hex())
    copied, served = client.end(), server.end()
    if copied["keys"] != keys:
        raise SystemExit(f"the {kind} copy has {copied['keys']} of {keys} keys")
    done = Copy(
        keys_per_second=keys / copied["seconds"],
        client_cpu_seconds=copied["cpu_seconds"],
        server_cpu_seconds=served["cpu_seconds"],
        client_memory=client.peak_bytes / 1e6,
        server_memory=server.peak_bytes / 1e6,
        **{f"client_{name}": figure for name, figure in copied["loop"].items()},
        **{f"server_{name}": figure for name, figure in served["loop"].items()},
        wire_bytes_per_key=served["bytes_sent"] / keys,
        store_bytes_per_key=store_bytes(target) / keys,
    )
    return done, copied.get("thread", {})


def measure(keys: int, runs: int, folder: Path) -> dict[str, Any]:
    """Return the medians of ``runs`` runs, raw and verified."""
    source = folder / "source"
    root = load(source, *sorted_pairs(keys))
    copies: dict[str, list[Copy]] = {"raw": [], "verified": []}
    threads = []
    for run in range(runs):
        for kind, done in copies.items():
            copied, thread = copy(kind, source, folder / f"{kind}-{run}", keys, root)
            done.append(copied)
        threads.append(thread)
    pairs = zip(copies["raw"], copies["verified"], strict=True)
    ratio = statistics.median(verified.keys_per_second / raw.keys_per_second for raw, verified in pairs)
    return {
        "keys": keys,
        "runs": runs,
        **{kind: median([asdict(each) for each in done]) for kind, done in copies.items()},
        "thread": median(threads),
        "ratio": ratio,
    }


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def table(result: dict[str, Any]) -> str:
    """Return the result for a person."""
    lines = [f"{result['keys']:,} keys of 32 + 32 bytes, median of {result['runs']} runs", ""]
    lines.append(f"{'':40}{'raw copy':>12}{'verified':>12}")
    for name in result["raw"]:
        raw, verified = result["raw"][name], result["verified"][name]
        label = name.replace("_", " ") + (" MB" if name.endswith("memory") else "")
        lines.append(f"{label:40}{raw:>12,.1f}{verified:>12,.1f}")
    lines += ["", "the thread of the verified copy's client"]
    lines += [f"{name.replace('_', ' '):40}{figure:>24.3f}" for name, figure in result["thread"].items()]
    lines += ["", f"verified / raw: {result['ratio']:.3f} of the keys a second"]
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--keys", default=1_000_000, show_default=True, help="Pairs in the store.")
@click.option("--runs", default=3, show_default=True, help="How often both copies are made.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def main(*, keys: int, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="merklesync-bench-") as folder:
        result = measure(keys, runs, Path(folder))
    print(json.dumps(result) if as_json else table(result))


if __name__ == "__main__":
    main()
