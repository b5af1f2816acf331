"""Measure history, change proofs and views in one process: what they add, beside what it is like without.

    python -m bench.history [--keys N] [--commits N] [--changes N] [--rounds N] [--json]

Copies of one loaded store take the same commits of scattered changes in turn: one retains 256 revisions, one
none but the head, one few enough that each commit prunes what a commit has added; raw LMDB puts the same
pairs.  Then proofs at older roots are made in turn with those at the head.  Ratios are medians of the ratios
of what was done in turn.  What ends with its data on the disk is timed by the clock on the wall, everything
else by the processor's time.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import click

import merkledb
from bench import data, options
from bench.data import PROOF_KEYS, Columns, scattered_changes
from bench.figures import Figures, Stopwatch
from bench.raw import append_raw, open_raw, put_raw

# How far back proofs are made, in commits.
_BACKS: Final = (1, 20, 200)
_AT_HEAD: Final = " at the head"
# Single proofs are made so many at each root, in turn.
_SINGLE_PROOFS: Final = 300
_VIEW_CHANGES: Final = 1000
# Few revisions, so that pruning sets in soon.
_FEW_REVISIONS: Final = 8
# Numbers of change sets that no commit of the others has.
_FIRST_SYNCED: Final = 1_000_000
_FIRST_VIEW: Final = 2_000_000
_RANGE_PROOF: Final = f"range proof of {PROOF_KEYS:,} pairs"
_SCATTERED: Final = f"{PROOF_KEYS:,} scattered changes, ms"
_ASKED: Final = {
    "history adds, of the commit without": ("<=", 0.8),
    "history, bytes a changed pair": ("<=", 1000.0),
    f"{_RANGE_PROOF}, 20 commits back / at the head": ("<=", 2.0),
    f"{_RANGE_PROOF}, 200 commits back / at the head": ("<=", 5.0),
    f"verify {_SCATTERED}": ("<=", 150.0),
    f"apply {_SCATTERED}": ("<=", 75.0),
}

# Makes a proof of a root and a key.
Prove = Callable[[bytes, bytes], object]


class Sizes(NamedTuple):
    """The options of the program."""

    keys: int
    commits: int
    changes: int
    rounds: int


def measure_commits(folder: Path, pairs: Columns, sizes: Sizes) -> tuple[Figures, list[bytes]]:
    """Return what commits cost with and without history, and the roots of the store "kept"."""
    clock, grown = Stopwatch(), []
    raw_puts, what = "raw LMDB puts of the same pairs, ms", f"commit of {sizes.changes:,} changes"
    in_bare, in_kept = f"{what}, no history, ms", f"{what}, 256 revisions, ms"
    in_pruned = f"{what}, {_FEW_REVISIONS} revisions, pruning, ms"
    with (
        open_raw(folder / "raw") as raw,
        merkledb.open(folder / "kept") as kept,
        merkledb.open(folder / "bare", history=1) as bare,
        merkledb.open(folder / "pruned", history=_FEW_REVISIONS) as pruned,
    ):
        append_raw(raw, *pairs)
        roots = [kept.root]
        every = max(1, sizes.commits // sizes.rounds)
        for number in range(sizes.commits):
            changes = scattered_changes(sizes.keys, number, sizes.changes)
            if number % every:
                kept.commit(changes)
            else:
                stores = {in_bare: bare, in_kept: kept, in_pruned: pruned}
                commits = {name: partial(store.commit, changes) for name, store in stores.items()}
                clock.in_turn({raw_puts: partial(put_raw, raw, changes), **commits}, number // every)
                grown.append(data.store_bytes(folder / "pruned"))
            roots.append(kept.root)
    return {
        **clock.figures(),
        "history adds, of the commit without": clock.ratio(in_kept, in_bare) - 1,
        "history and pruning add, of the commit without": clock.ratio(in_pruned, in_bare) - 1,
        "commit with history / raw LMDB puts": clock.ratio(in_kept, raw_puts),
        **measure_stores(folder, sizes, grown),
    }, roots


def measure_stores(folder: Path, sizes: Sizes, grown: list[int]) -> Figures:
    """Return what history takes on disk; ``grown`` is how large the pruning store was after its commits."""
    (kept_values, kept_branches), pruned = (
        [data.table_bytes(folder / name, table) for table in ("value_history", "branch_history")]
        for name in ("kept", "pruned")
    )
    changed = sizes.commits * sizes.changes
    retained = min(_FEW_REVISIONS - 1, len(grown)) * sizes.changes
    settled = grown[min(2 * _FEW_REVISIONS, len(grown) - 1)]
    return {
        "history, bytes a changed pair": (kept_values + kept_branches) / changed,
        "  of these, values": kept_values / changed,
        "  of these, branches": kept_branches / changed,
        "history when pruning, bytes a retained changed pair": sum(pruned) / retained,
        "file when pruning / file without history": grown[-1] / data.store_bytes(folder / "bare"),
        f"file when pruning, at the end / after {2 * _FEW_REVISIONS} commits": grown[-1] / settled,
    }


def measure_proofs(path: Path, keys: list[bytes], roots: list[bytes], sizes: Sizes) -> Figures:
    """Return what proofs cost at older roots, beside those at the head, and what views of the head cost."""
    older = {back: roots[-1 - back] for back in _BACKS if back < len(roots)}
    all_roots = {_AT_HEAD: roots[-1]} | {f", {back} commits back": root for back, root in older.items()}
    with merkledb.open(path, readonly=True) as database:

        def prove_range(root: bytes, start: bytes) -> None:
            with database.at(root) as snapshot:
                snapshot.prove_range(start, max_keys=PROOF_KEYS)

        def prove_one(root: bytes, key: bytes) -> None:
            with database.at(root) as snapshot:
                snapshot.prove(key)

        def prove_changes(old: bytes, start: bytes) -> None:
            database.prove_changes(old, roots[-1], start, max_keys=PROOF_KEYS)

        single, changes = random.Random(3).choices(keys, k=_SINGLE_PROOFS), f"change proof of {PROOF_KEYS:,}"
        from_older = {f", from {back} back": root for back, root in older.items()}
        return {
            **prove_in_turn(_RANGE_PROOF, "ms", prove_range, all_roots, starts(sizes.rounds)),
            **prove_in_turn("single proof", "µs", prove_one, all_roots, single),
            **prove_in_turn(changes, "ms", prove_changes, from_older, starts(sizes.rounds, share=0.5)),
            **measure_views(database, sizes),
        }


def starts(proofs: int, share: float = 0.97) -> list[bytes]:
    """Return where proofs start: all over the first ``share`` of the key space."""
    return [int((number + 0.5) / proofs * share * (1 << 32)).to_bytes(4, "big") for number in range(proofs)]


def prove_in_turn(
    what: str, unit: str, prove: Prove, roots: Mapping[str, bytes], keys: list[bytes]
) -> Figures:
    """Return how long a proof takes at each root and key, in turn, once its pages are in memory.

    Where the roots lie is part of the names of the figures.  The others are also compared with the head's.
    """
    clock = Stopwatch(time.process_time)
    for turn, key in enumerate(keys):
        for root in roots.values():
            prove(root, key)
        work = {f"{what}{where}, {unit}": partial(prove, root, key) for where, root in roots.items()}
        clock.in_turn(work, turn)
    figures, head = {}, f"{what}{_AT_HEAD}, {unit}"
    for name, median in clock.figures().items():
        figures[name] = median
        if head in work and name != head:
            figures[name.removesuffix(f", {unit}") + " /" + _AT_HEAD] = clock.ratio(name, head)
    return figures


def measure_views(database: merkledb.Database, sizes: Sizes) -> Figures:
    """Return what views of the head cost."""
    clock, what = Stopwatch(time.process_time), f"view of {_VIEW_CHANGES:,} changes, with its root, ms"
    (start,) = starts(1)
    for number in range(sizes.rounds):
        changes = scattered_changes(sizes.keys, _FIRST_VIEW + number, _VIEW_CHANGES)
        with clock.lap(what, partial(database.view, changes)) as view:
            clock.lap(f"  its {_RANGE_PROOF}, ms", partial(view.prove_range, start, max_keys=PROOF_KEYS))
    return clock.figures()


def measure_changes(folder: Path, pairs: Columns, sizes: Sizes) -> Figures:
    """Return what the parts of a change sync cost, a proof of 2,048 changes each."""
    clock, writing, encoded_bytes = Stopwatch(time.process_time), Stopwatch(), 0
    with (
        open_raw(folder / "raw changes") as raw,
        merkledb.open(folder / "source") as source,
        merkledb.open(folder / "replica") as replica,
    ):
        append_raw(raw, *pairs)
        for number in range(sizes.rounds):
            changes, old = scattered_changes(sizes.keys, _FIRST_SYNCED + number, PROOF_KEYS), source.root
            new = source.commit(changes)
            proof = clock.lap(f"prove {_SCATTERED}", partial(source.prove_changes, old, new))
            encoded = clock.lap(f"encode {_SCATTERED}", proof.encode)
            decoded = clock.lap(f"decode {_SCATTERED}", partial(merkledb.ChangeProof.decode, encoded))
            verified = clock.lap(f"verify {_SCATTERED}", partial(replica.verify_changes, decoded, new))
            apply, put = partial(replica.apply, verified), partial(put_raw, raw, changes)
            writing.in_turn({f"apply {_SCATTERED}": apply, f"raw LMDB puts of {_SCATTERED}": put}, number)
            encoded_bytes += len(encoded)
    size = encoded_bytes / sizes.rounds / PROOF_KEYS
    return {**clock.figures(), **writing.figures(), "change proof, bytes a change": size}


@click.command(cls=options.Benchmark, help=__doc__)
# Fewer, and most of the measured proofs would have fewer pairs than their figures say.
@options.number_option("--keys", 1_000_000, "Pairs in the store.", least=2 * PROOF_KEYS)
@options.number_option("--commits", 210, "Commits before proofs are made.", most=options.MAX_RUNS)
@options.number_option("--changes", 10_000, "Changes in each; at least 2,048 fill a change proof.")
@options.number_option("--rounds", 30, "How often each thing is timed.", most=options.MAX_RUNS)
@options.AS_JSON
def main(*, keys: int, commits: int, changes: int, rounds: int, as_json: bool) -> None:
    sizes = Sizes(keys, commits, changes, rounds)
    options.require_at_most("--changes", changes, "--keys", keys)
    # The base, five copies of it, two raw ones, and the history of one or two.
    options.require_room(
        8 * keys * options.PAIR_BYTES + 2 * commits * changes * options.CHANGE_BYTES, pairs_in_memory=keys
    )
    with options.work_folder() as folder:
        pairs = data.sorted_pairs(keys)
        # All these pairs are the benchmark's own; the collector need not look at them again and again.
        gc.freeze()
        data.load(folder / "base", data.batches(*pairs))
        for name in ("kept", "bare", "pruned", "source", "replica"):
            data.copy_store(folder / "base", folder / name)
        of_changes = measure_changes(folder, pairs, sizes)
        of_commits, roots = measure_commits(folder, pairs, sizes)
        figures = of_commits | measure_proofs(folder / "kept", pairs[0], roots, sizes) | of_changes
    title = f"{keys:,} keys of 32 + 32 bytes, medians of {rounds} rounds in one run"
    options.report(title, sizes._asdict(), figures, _ASKED, as_json=as_json)


if __name__ == "__main__":
    main()
