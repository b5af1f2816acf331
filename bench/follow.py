"""Measure how a replica stays current, beside a full sync: two processes over loopback TCP.

    python -m bench.follow [--keys N] [--retained N] [--changes N] [--seconds S] [--runs N] [--json]

The server's store retains so many commits of scattered changes.  In each run, one after the other: a full
sync into a new store; a replica, which retains as many revisions, is brought forward by one more commit; and
a full sync while the server commits every second, until the client has a complete root and then stands at the
newest one.  Ratios are taken within a run, and the median of the runs is what counts.
"""

import tempfile
from pathlib import Path
from typing import Final

import click

import merkledb
from bench import options
from bench.data import batches, copy_store, load, scattered_changes, sorted_pairs
from bench.figures import Figures, medians
from bench.processes import WatchedProcess, end_both, transfer

# The most revisions that a store retains unless it is told otherwise, its head among them.
_MAX_RETAINED: Final = 256
# A commit seldom takes as long as a second; with an hour between two, none would come during a sync.
_MAX_SECONDS: Final = 3_600.0
# Each run of a server that commits takes numbers of change sets from here on; so many are never made in one.
_RUN_NUMBERS: Final = 1_000_000
# The syncs of a run, in this order.
_KINDS: Final = ("full sync", "bring a replica forward", "full sync while the server commits")
_FULL, _FORWARD, _FOLLOWING = _KINDS
# What is told of an event loop.
_LOOP_FIGURES: Final = {
    "loop_blocked_most_ms": "event loop blocked by a step, ms at most",
    "loop_blocked_by_process_most_ms": "  less waits for a processor",
    "loop_blocked_by_process_rare_ms": "  less those, all but one step in a thousand",
    "loop_own_work_most_ms": "  less waits for other threads of the process",
    "collection_most_ms": "  a collection of garbage in any thread",
}
_SIDES: Final = ("client", "server")
_ASKED: Final = {
    # Where a full sync is three times as fast, bringing forward, half of which is the disk, is more of it.
    f"{_FORWARD} / {_FULL}": ("<=", 1 / 4 if merkledb.kernel_name() == "pure" else 1 / 3),
    **{f"  {label} ({side})": ("<=", 5.0) for label in list(_LOOP_FIGURES.values())[1:] for side in _SIDES},
    **{f"{kind}, client memory, MB": ("<=", 250.0) for kind in _KINDS},
    **{f"{kind}, server memory, MB": ("<=", 150.0) for kind in _KINDS},
}


def follow(target: Path, *serving: object) -> Figures:
    """Sync ``target`` with a server that commits, until it is at a complete root, and then at the newest.

    The server gets ``serving``, as ``processes.serve_committing`` takes it.
    """
    server = WatchedProcess("serve_committing", *serving)
    client = WatchedProcess("sync_following", target, int(server.line()))
    client.line()
    server.tell("no more")
    client.tell(server.line())
    return end_both(server, client)


def measure_run(folder: Path, keys: int, changes: int, seconds: float, run: int) -> Figures:
    """Return what the syncs of one run took; its replicas are removed."""
    source, first = folder / "source", (run + 1) * _RUN_NUMBERS
    with tempfile.TemporaryDirectory(dir=folder) as name:
        replicas = Path(name)
        copy_store(source, replicas / "forward")
        with merkledb.open(source) as database:
            root = database.commit(scattered_changes(keys, first, changes))
        full = transfer("verified", source, replicas / "full", root)
        forward = transfer("verified", source, replicas / "forward", root)
        following = follow(replicas / "following", source, keys, first + 1, changes, seconds)
    syncs = dict(zip(_KINDS, (full, forward, following), strict=True))
    return {
        f"{_FULL}, s": full["client_seconds"],
        f"{_FORWARD} by {changes:,} changes, s": forward["client_seconds"],
        f"{_FORWARD} / {_FULL}": forward["client_seconds"] / full["client_seconds"],
        f"{_FOLLOWING}, to its newest root, s": following["client_seconds"],
        f"{_FOLLOWING} / {_FULL}": following["client_seconds"] / full["client_seconds"],
        "  its first complete root after, s": following["client_first_root_seconds"],
        "  commits meanwhile": following["server_commits"],
        "  pairs fetched": following["client_fetched_pairs"],
        "  changes fetched": following["client_fetched_changes"],
        **{
            f"  {label} ({side})": following[f"{side}_{name}"]
            for side in _SIDES
            for name, label in _LOOP_FIGURES.items()
        },
        **{f"{kind}, {side} memory, MB": syncs[kind][f"{side}_memory"] for kind in _KINDS for side in _SIDES},
    }


@click.command(cls=options.Benchmark, help=__doc__)
@options.number_option("--keys", 1_000_000, "Pairs in the store.")
@options.number_option("--retained", 256, "Commits that the server retains.", least=0, most=_MAX_RETAINED)
@options.number_option("--changes", 10_000, "Changes in each of them.")
@click.option("--seconds", default=1.0, show_default=True, help="From commit to commit during a sync.")
@options.RUNS
@options.AS_JSON
def main(*, keys: int, retained: int, changes: int, seconds: float, runs: int, as_json: bool) -> None:
    options.require_at_most("--changes", changes, "--keys", keys)
    # A comparison that also refuses what is not a number.
    if not 0 <= seconds <= _MAX_SECONDS:
        raise click.UsageError(f"--seconds is {seconds}: give a number from 0 to {_MAX_SECONDS:,.0f}")
    # The source and three replicas, two of them with the history.
    options.require_room(
        4 * keys * options.PAIR_BYTES + 2 * retained * changes * options.CHANGE_BYTES, pairs_in_memory=keys
    )
    with options.work_folder() as folder:
        load(folder / "source", batches(*sorted_pairs(keys)))
        with merkledb.open(folder / "source") as database:
            for number in range(retained):
                database.commit(scattered_changes(keys, number, changes))
        rows = [measure_run(folder, keys, changes, seconds, run) for run in range(runs)]
    # Of memory the most of any run counts.
    most = {name: max(row[name] for row in rows) for name in rows[0] if name.endswith("memory, MB")}
    figures = medians(rows) | most
    title = f"{keys:,} keys of 32 + 32 bytes, {retained} commits retained, median of {runs} runs"
    sizes = {"keys": keys, "retained": retained, "changes": changes, "seconds": seconds, "runs": runs}
    options.report(title, sizes, figures, _ASKED, as_json=as_json)


if __name__ == "__main__":
    main()
