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
from typing import Any, Final

import click

from bench import options
from bench.data import batches, load, sorted_pairs, store_bytes
from bench.figures import Figures, Grid, medians
from bench.processes import transfer

_KINDS: Final = ("raw", "verified")
_SIDES: Final = ("client", "server")
# What the names of the figures of the client's thread begin with.
_THREAD: Final = "client_thread_"


def copy(kind: str, source: Path, target: Path, keys: int, root: bytes) -> Figures:
    """Copy ``source`` once into a new store, which is removed again; ``kind`` is one of ``_KINDS``.

    Returns:
        The figures of the copy; last what the client's thread did with its time, where that is known.
    """
    done = transfer(kind, source, target, root)
    if done["client_keys"] != keys:
        raise SystemExit(f"the {kind} copy has {done['client_keys']} of {keys} keys: this is a defect")
    figures = {
        "keys_per_second": keys / done["client_seconds"],
        **{f"{side}_{name}": done[f"{side}_{name}"] for name in ("cpu_seconds", "memory") for side in _SIDES},
        **{name: done[name] for name in done if "_loop_" in name or "_collection_" in name},
        "wire_bytes_per_key": done["server_bytes_sent"] / keys,
        "store_bytes_per_key": store_bytes(target) / keys,
        **{name: done[name] for name in done if name.startswith(_THREAD)},
    }
    shutil.rmtree(target)
    return figures


def measure(keys: int, runs: int, folder: Path) -> dict[str, Any]:
    """Return the medians of ``runs`` runs, raw and verified."""
    source = folder / "source"
    root = load(source, batches(*sorted_pairs(keys))).root
    rows = [{kind: copy(kind, source, folder / kind, keys, root) for kind in _KINDS} for _ in range(runs)]
    copies = {kind: medians([row[kind] for row in rows]) for kind in _KINDS}
    verified = copies["verified"]
    thread = {name.removeprefix(_THREAD): verified.pop(name) for name in list(verified) if _THREAD in name}
    ratio = statistics.median(
        row["verified"]["keys_per_second"] / row["raw"]["keys_per_second"] for row in rows
    )
    return {"keys": keys, "runs": runs, **copies, "thread": thread, "ratio": ratio}


def text(result: dict[str, Any]) -> str:
    """Return the result for a person."""
    title = f"{result['keys']:,} keys of 32 + 32 bytes, median of {result['runs']} runs"
    rows = [(_label(name), [f"{result[kind][name]:,.1f}" for kind in _KINDS]) for name in result["raw"]]
    spent = result["thread"].items()
    thread = [(_label(name.removesuffix("_seconds")), [f"{seconds:.3f}"]) for name, seconds in spent]
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
    # The source, and one copy of it at a time.
    options.require_room(2 * keys * options.PAIR_BYTES, pairs_in_memory=keys)
    with options.work_folder() as folder:
        result = measure(keys, runs, folder)
    print(json.dumps(result) if as_json else text(result))


if __name__ == "__main__":
    main()
