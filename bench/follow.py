"""Measure how a replica stays current, beside a full sync: two processes over loopback TCP.

    python -m bench.follow [--keys N] [--retained N] [--changes N] [--seconds S] [--runs N] [--json]

The server's store retains so many commits of scattered changes.  In each run, one after the other: a full
sync into a new store; a replica, which retains as many revisions, is brought forward by one more commit; and
a full sync while the server commits every second, until the client has a complete root and then stands at the
newest one.  Ratios are taken within a run, and the median of the runs is what counts.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import merkledb
from bench.data import copy_store, load, scattered_changes, sorted_pairs
from bench.figures import Figure, document, table
from bench.watched import WatchedProcess

# Where a full sync is three times as fast, bringing forward, half of which is the disk, is more of it.
_FORWARD: Final = {"pure": 1 / 4, "compiled": 1 / 3}
# What the first issue asked of a sync, with no history, in megabytes.
_CLIENT_MEMORY: Final = 250.0
_SERVER_MEMORY: Final = 150.0
# Each run of a server that commits takes numbers of change sets from here on; so many are never made in one.
_RUN_NUMBERS: Final = 1_000_000
# What is told of an event loop, and what is asked of it, in milliseconds.
_LOOP_FIGURES: Final = (
    ("loop_blocked_most_ms", "event loop blocked by a step, ms at most", None),
    ("loop_blocked_by_process_most_ms", "  less waits for a processor", 5.0),
    ("loop_blocked_by_process_rare_ms", "  less those, all but one step in a thousand", 5.0),
    ("loop_own_work_most_ms", "  less waits for other threads of the process", 5.0),
    ("collection_most_ms", "  a collection of garbage in any thread", 5.0),
)


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
        keys: Pairs in the store.
        retained: How many commits the store retains.
        changes: Changes in each.
        seconds: Between commits while a full sync runs.
        runs: How often all is measured.
    """

    keys: int
    retained: int
    changes: int
    seconds: float
    runs: int


class Sync(NamedTuple):
    """What one sync took.

    Attributes:
        seconds: The client's whole time with its database open.
        client_memory: The peak of its anonymous memory in megabytes.
        server_memory: Of the server.
        client: What the client says of itself.
        server: What the server says of itself.
    """

    seconds: float
    client_memory: float
    server_memory: float
    client: dict[str, Any]
    server: dict[str, Any]


def sync(serve: list[str], synchronise: list[str], *arguments: str) -> Sync:
    """Run a server and a client until the client ends.

    Args:
        serve: The server's role and arguments.
        synchronise: The client's role and store.
        arguments: What the client gets behind the server's port.
    """
    server = WatchedProcess(*serve)
    client = WatchedProcess(*synchronise, server.line(), *arguments)
    synced = client.end()
    served = server.end()
    return Sync(synced["seconds"], client.peak_bytes / 1e6, server.peak_bytes / 1e6, synced, served)


def sync_meanwhile(committing: list[str], target: str) -> Sync:
    """Run a server that commits, and a client, until the client is at a complete root, and at the newest."""
    server = WatchedProcess("serve_committing", *committing)
    client = WatchedProcess("sync_following", target, server.line())
    client.line()
    server.tell("no more")
    client.tell(server.line())
    synced, served = client.end(), server.end()
    return Sync(synced["seconds"], client.peak_bytes / 1e6, server.peak_bytes / 1e6, synced, served)


def prepare(folder: Path, sizes: Sizes) -> None:
    """Make the server's store, with its history, and the replica."""
    source = folder / "source"
    load(source, *sorted_pairs(sizes.keys))
    with merkledb.open(source) as database:
        for number in range(sizes.retained):
            database.commit(scattered_changes(sizes.keys, number, sizes.changes))
    copy_store(source, folder / "replica")


def measure_run(folder: Path, sizes: Sizes, run: int) -> dict[str, Sync]:
    """Return what each sync of one run took."""
    first = (run + 1) * _RUN_NUMBERS
    source, replica = str(folder / "source"), str(folder / "replica")
    with merkledb.open(source) as database:
        root = database.commit(scattered_changes(sizes.keys, first, sizes.changes)).hex()
    committing = [source, str(sizes.keys), str(first + 1), str(sizes.changes), str(sizes.seconds)]
    return {
        "full": sync(["serve_verified", source], ["sync_verified", str(folder / f"full-{run}")], root),
        "forward": sync(["serve_verified", source], ["sync_verified", replica], root),
        "following": sync_meanwhile(committing, str(folder / f"following-{run}")),
    }


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Return all figures."""
    prepare(folder, sizes)
    runs = []
    for run in range(sizes.runs):
        runs.append(measure_run(folder, sizes, run))
        # The replica of the next run starts where the server stands.
        (folder / "replica" / "data.mdb").unlink()
        (folder / "replica").rename(folder / f"replica-{run}")
        copy_store(folder / "source", folder / "replica")
    return time_figures(runs, sizes) + loop_figures(runs) + memory_figures(runs)


def time_figures(runs: list[dict[str, Sync]], sizes: Sizes) -> list[Figure]:
    """Return how long the syncs took."""
    forward = statistics.median(run["forward"].seconds / run["full"].seconds for run in runs)
    following = statistics.median(run["following"].seconds / run["full"].seconds for run in runs)
    return [
        Figure("full sync, s", median(runs, "full", "seconds")),
        Figure(
            f"bring a replica forward by {sizes.changes:,} changes, s", median(runs, "forward", "seconds")
        ),
        Figure("bring a replica forward / full sync", forward, _FORWARD[merkledb.kernel_name()]),
        Figure(
            "full sync while the server commits, to its newest root, s", median(runs, "following", "seconds")
        ),
        Figure("full sync while the server commits / full sync", following),
        Figure("  its first complete root after, s", told(runs, "client", "first_root_seconds")),
        Figure("  commits meanwhile", told(runs, "server", "commits")),
        Figure("  pairs fetched", told(runs, "client", "fetched_pairs")),
        Figure("  changes fetched", told(runs, "client", "fetched_changes")),
    ]


def loop_figures(runs: list[dict[str, Sync]]) -> list[Figure]:
    """Return for how long steps blocked the event loops while the server committed."""
    figures = []
    for side in ("client", "server"):
        loops = [getattr(run["following"], side)["loop"] for run in runs]
        for name, label, asked in _LOOP_FIGURES:
            figure = float(statistics.median(loop[name] for loop in loops))
            figures.append(Figure(f"  {label} ({side})", figure, asked))
    return figures


def memory_figures(runs: list[dict[str, Sync]]) -> list[Figure]:
    """Return how much memory both sides took at most, in any run."""
    names = {
        "full": "full sync",
        "forward": "bring a replica forward",
        "following": "full sync while the server commits",
    }
    figures = []
    for kind, name in names.items():
        client = max(run[kind].client_memory for run in runs)
        server = max(run[kind].server_memory for run in runs)
        figures.append(Figure(f"{name}, client memory, MB", client, _CLIENT_MEMORY))
        asked = None if kind == "following" else _SERVER_MEMORY
        figures.append(Figure(f"{name}, server memory, MB", server, asked))
    return figures


def median(runs: list[dict[str, Sync]], kind: str, name: str) -> float:
    """Return the median of what one kind of sync took."""
    return float(statistics.median(getattr(run[kind], name) for run in runs))


def told(runs: list[dict[str, Sync]], side: str, name: str) -> float:
    """Return the median of what a process said of a sync while the server committed."""
    return float(statistics.median(getattr(run["following"], side)[name] for run in runs))


@click.command(help=__doc__)
@click.option("--keys", default=1_000_000, show_default=True, help="Pairs in the store.")
@click.option("--retained", default=256, show_default=True, help="Commits that the server retains.")
@click.option("--changes", default=10_000, show_default=True, help="Changes in each of them.")
@click.option("--seconds", default=1.0, show_default=True, help="From commit to commit during a sync.")
@click.option("--runs", default=3, show_default=True, help="How often all is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def main(*, keys: int, retained: int, changes: int, seconds: float, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    sizes = Sizes(keys, retained, changes, seconds, runs)
    with tempfile.TemporaryDirectory(prefix="merklesync-bench-") as folder:
        figures = measure(Path(folder), sizes)
    if as_json:
        print(json.dumps(sizes._asdict() | document(figures)))
    else:
        title = f"{keys:,} keys of 32 + 32 bytes, {retained} commits retained, median of {runs} runs"
        print(table(title, figures))


if __name__ == "__main__":
    main()
