"""Measure how a replica stays current, beside a full sync: two processes over loopback TCP.

    python -m bench.follow [--keys N] [--retained N] [--changes N] [--seconds S] [--runs N] [--json]

The server's store retains so many commits of scattered changes.  In each run, one after the other: a full
sync into a new store; a replica, which retains as many revisions, is brought forward by one more commit; and
a full sync while the server commits every second, until the client has a complete root and then stands at the
newest one.  Ratios are taken within a run, and the median of the runs is what counts.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import click

import merkledb
from bench import options
from bench.data import copy_store, load, scattered_changes, sorted_pairs
from bench.figures import Figure, Stopwatch
from bench.processes import Transfer, WatchedProcess, end_both, transfer

# Where a full sync is three times as fast, bringing forward, half of which is the disk, is more of it.
_FORWARD: Final = {"pure": 1 / 4, "compiled": 1 / 3}
# What is asked of the memory of a sync, in megabytes.
_CLIENT_MEMORY: Final = 250.0
_SERVER_MEMORY: Final = 150.0
# The most revisions that a store retains unless it is told otherwise, its head among them.
_MAX_RETAINED: Final = 256
# A commit seldom takes as long as a second; with an hour between two, none would come during a sync.
_MAX_SECONDS: Final = 3_600.0
# Each run of a server that commits takes numbers of change sets from here on; so many are never made in one.
_RUN_NUMBERS: Final = 1_000_000
# The syncs of a run, in this order.
_KINDS: Final = {
    "full": "full sync",
    "forward": "bring a replica forward",
    "following": "full sync while the server commits",
}
# What is told of an event loop, and what is asked of it, in milliseconds.
_LOOP_FIGURES: Final = (
    ("loop_blocked_most_ms", "event loop blocked by a step, ms at most", None),
    ("loop_blocked_by_process_most_ms", "  less waits for a processor", 5.0),
    ("loop_blocked_by_process_rare_ms", "  less those, all but one step in a thousand", 5.0),
    ("loop_own_work_most_ms", "  less waits for other threads of the process", 5.0),
    ("collection_most_ms", "  a collection of garbage in any thread", 5.0),
)


class Sizes(NamedTuple):
    """The options of the program."""

    keys: int
    retained: int
    changes: int
    seconds: float
    runs: int


Run = dict[str, Transfer]


def follow(source: Path, target: Path, sizes: Sizes, first: int) -> Transfer:
    """Sync ``target`` with a server that commits, until it is at a complete root, and then at the newest.

    The first set of changes that is committed has the number ``first``.
    """
    server = WatchedProcess("serve_committing", source, sizes.keys, first, sizes.changes, sizes.seconds)
    client = WatchedProcess("sync_following", target, int(server.line()))
    client.line()
    server.tell("no more")
    client.tell(server.line())
    return end_both(server, client)


def measure_run(folder: Path, sizes: Sizes, run: int) -> Run:
    """Return what each sync of one run took; its replicas are removed."""
    source, first = folder / "source", (run + 1) * _RUN_NUMBERS
    with tempfile.TemporaryDirectory(dir=folder) as name:
        replicas = Path(name)
        copy_store(source, replicas / "forward")
        with merkledb.open(source) as database:
            root = database.commit(scattered_changes(sizes.keys, first, sizes.changes))
        return {
            "full": transfer("verified", source, replicas / "full", root),
            "forward": transfer("verified", source, replicas / "forward", root),
            "following": follow(source, replicas / "following", sizes, first + 1),
        }


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Return all figures."""
    load(folder / "source", *sorted_pairs(sizes.keys))
    with merkledb.open(folder / "source") as database:
        for number in range(sizes.retained):
            database.commit(scattered_changes(sizes.keys, number, sizes.changes))
    runs = [measure_run(folder, sizes, run) for run in range(sizes.runs)]
    return time_figures(runs, sizes) + loop_figures(runs) + memory_figures(runs)


def time_figures(runs: list[Run], sizes: Sizes) -> list[Figure]:
    """Return how long the syncs took."""
    clock = Stopwatch()
    for run in runs:
        for kind, done in run.items():
            clock.seconds[kind].append(done.seconds)

    def told(side: str, name: str) -> float:
        return float(statistics.median(getattr(run["following"], side)[name] for run in runs))

    full, forward, following = _KINDS.values()
    asked = _FORWARD[merkledb.kernel_name()]
    return [
        Figure(f"{full}, s", clock.median("full")),
        Figure(f"{forward} by {sizes.changes:,} changes, s", clock.median("forward")),
        Figure(f"{forward} / full sync", clock.ratio("forward", "full"), asked),
        Figure(f"{following}, to its newest root, s", clock.median("following")),
        Figure(f"{following} / full sync", clock.ratio("following", "full")),
        Figure("  its first complete root after, s", told("client", "first_root_seconds")),
        Figure("  commits meanwhile", told("server", "commits")),
        Figure("  pairs fetched", told("client", "fetched_pairs")),
        Figure("  changes fetched", told("client", "fetched_changes")),
    ]


def loop_figures(runs: list[Run]) -> list[Figure]:
    """Return for how long steps blocked the event loops while the server committed."""
    figures = []
    for side in ("client", "server"):
        loops = [getattr(run["following"], side)["loop"] for run in runs]
        for name, label, asked in _LOOP_FIGURES:
            figure = float(statistics.median(loop[name] for loop in loops))
            figures.append(Figure(f"  {label} ({side})", figure, asked))
    return figures


def memory_figures(runs: list[Run]) -> list[Figure]:
    """Return how much memory both sides took at most, in any run."""
    figures = []
    for kind, name in _KINDS.items():
        client = max(run[kind].client_memory for run in runs)
        server = max(run[kind].server_memory for run in runs)
        figures.append(Figure(f"{name}, client memory, MB", client, _CLIENT_MEMORY))
        figures.append(Figure(f"{name}, server memory, MB", server, _SERVER_MEMORY))
    return figures


@click.command(cls=options.Benchmark, help=__doc__)
@options.number_option("--keys", 1_000_000, "Pairs in the store.")
@options.number_option("--retained", 256, "Commits that the server retains.", least=0, most=_MAX_RETAINED)
@options.number_option("--changes", 10_000, "Changes in each of them.")
@click.option("--seconds", default=1.0, show_default=True, help="From commit to commit during a sync.")
@options.RUNS
@options.AS_JSON
def main(*, keys: int, retained: int, changes: int, seconds: float, runs: int, as_json: bool) -> None:
    """Run the benchmark."""
    sizes = Sizes(keys, retained, changes, seconds, runs)
    options.require_at_most("--changes", changes, "--keys", keys)
    # A comparison that also refuses what is not a number.
    if not 0 <= seconds <= _MAX_SECONDS:
        raise click.UsageError(f"--seconds is {seconds}: give a number from 0 to {_MAX_SECONDS:,.0f}")
    # The source and three replicas, two of them with the history.
    options.require_room(
        4 * keys * options.PAIR_BYTES + 2 * retained * changes * options.CHANGE_BYTES, pairs_in_memory=keys
    )
    with options.work_folder() as folder:
        figures = measure(folder, sizes)
    title = f"{keys:,} keys of 32 + 32 bytes, {retained} commits retained, median of {runs} runs"
    options.report(title, sizes._asdict(), figures, as_json=as_json)


if __name__ == "__main__":
    main()
