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
from bench import options
from bench.data import PROOF_KEYS, copy_store, load, scattered_changes, sorted_pairs, store_bytes, table_bytes
from bench.figures import Figure, Stopwatch
from bench.raw import append_raw, open_raw, put_raw

# How far back proofs are made, in commits, and what they may cost there, as multiples of the head's.
_BACKS: Final = (0, 1, 20, 200)
_ASKED_BACK: Final = {20: 2.0, 200: 5.0}
# What verifying so many changes may cost; applying them may cost half as much.
_ASKED_VERIFY_MS: Final = 150.0
# Single proofs are made so many at each root, in turn.
_SINGLE_PROOFS: Final = 300
_VIEW_CHANGES: Final = 1000
# Few revisions, so that pruning sets in soon.
_FEW_REVISIONS: Final = 8
# Numbers of change sets that no commit of the others has.
_FIRST_SYNCED: Final = 1_000_000
_FIRST_VIEW: Final = 2_000_000


class Sizes(NamedTuple):
    """The options of the program."""

    keys: int
    commits: int
    changes: int
    rounds: int


def measure_commits(
    folder: Path, keys: list[bytes], values: list[bytes], sizes: Sizes
) -> tuple[list[Figure], list[bytes]]:
    """Return what commits cost with and without history, and the roots of the store "kept"."""
    clock, grown = Stopwatch(), []
    with (
        open_raw(folder / "raw") as raw,
        merkledb.open(folder / "kept") as kept,
        merkledb.open(folder / "bare", history=1) as bare,
        merkledb.open(folder / "pruned", history=_FEW_REVISIONS) as pruned,
    ):
        append_raw(raw, keys, values)
        roots = [kept.root]
        every = max(1, sizes.commits // sizes.rounds)
        for number in range(sizes.commits):
            changes = scattered_changes(sizes.keys, number, sizes.changes)
            work: dict[str, Callable[[], object]] = {
                "kept": partial(kept.commit, changes),
                "bare": partial(bare.commit, changes),
                "pruned": partial(pruned.commit, changes),
                "raw": partial(put_raw, raw, changes),
            }
            if number % every:
                kept.commit(changes)
            else:
                clock.in_turn(work, number // every)
                grown.append(store_bytes(folder / "pruned"))
            roots.append(kept.root)
    return [*commit_figures(clock, sizes), *store_figures(folder, sizes, grown)], roots


def commit_figures(clock: Stopwatch, sizes: Sizes) -> list[Figure]:
    """Return what a commit took."""
    what = f"commit of {sizes.changes:,} changes"
    return [
        Figure("raw LMDB puts of the same pairs, ms", clock.median("raw") * 1e3),
        Figure(f"{what}, no history, ms", clock.median("bare") * 1e3),
        Figure(f"{what}, 256 revisions, ms", clock.median("kept") * 1e3),
        Figure(f"{what}, {_FEW_REVISIONS} revisions, pruning, ms", clock.median("pruned") * 1e3),
        Figure("history adds, of the commit without", clock.ratio("kept", "bare") - 1, 0.8),
        Figure("history and pruning add, of the commit without", clock.ratio("pruned", "bare") - 1),
        Figure("commit with history / raw LMDB puts", clock.ratio("kept", "raw")),
    ]


def store_figures(folder: Path, sizes: Sizes, grown: list[int]) -> list[Figure]:
    """Return what history takes on disk.

    Args:
        folder: Where the stores are, all closed.
        sizes: What was committed.
        grown: How large the store that prunes was after each of its commits.
    """
    changed = sizes.commits * sizes.changes
    value_bytes = table_bytes(folder / "kept", b"value_history")
    branch_bytes = table_bytes(folder / "kept", b"branch_history")
    retained = min(_FEW_REVISIONS - 1, len(grown)) * sizes.changes
    added = table_bytes(folder / "pruned", b"value_history", b"branch_history")
    settled = grown[min(2 * _FEW_REVISIONS, len(grown) - 1)]
    return [
        Figure("history, bytes a changed pair", (value_bytes + branch_bytes) / changed, 1000),
        Figure("  of these, values", value_bytes / changed),
        Figure("  of these, branches", branch_bytes / changed),
        Figure("history when pruning, bytes a retained changed pair", added / retained),
        Figure("file when pruning / file without history", grown[-1] / store_bytes(folder / "bare")),
        Figure(f"file when pruning, at the end / after {2 * _FEW_REVISIONS} commits", grown[-1] / settled),
    ]


def measure_proofs(path: Path, keys: list[bytes], roots: list[bytes], sizes: Sizes) -> list[Figure]:
    """Return what proofs cost at older roots, beside those at the head."""
    backs = {back: roots[-1 - back] for back in _BACKS if back < len(roots)}
    older = {back: root for back, root in backs.items() if back}
    with merkledb.open(path, readonly=True) as database:

        def prove_range(root: bytes, start: bytes) -> None:
            with database.at(root) as snapshot:
                snapshot.prove_range(start, max_keys=PROOF_KEYS)

        def prove_one(root: bytes, key: bytes) -> None:
            with database.at(root) as snapshot:
                snapshot.prove(key)

        def prove_changes(old: bytes, start: bytes) -> None:
            database.prove_changes(old, roots[-1], start, max_keys=PROOF_KEYS)

        ranges = prove_in_turn(prove_range, backs, starts(sizes.rounds))
        singles = prove_in_turn(prove_one, backs, random.Random(3).choices(keys, k=_SINGLE_PROOFS))
        changes = prove_in_turn(prove_changes, older, starts(sizes.rounds, share=0.5))
        return [
            *proof_figures(f"range proof of {PROOF_KEYS:,} pairs", "ms", ranges, _ASKED_BACK),
            *proof_figures("single proof", "µs", singles, {}),
            *(
                Figure(f"change proof of {PROOF_KEYS:,}, from {back} back, ms", changes.median(back) * 1e3)
                for back in changes.seconds
            ),
            *measure_views(database, sizes),
        ]


def starts(proofs: int, share: float = 0.97) -> list[bytes]:
    """Return where proofs start: all over the first ``share`` of the key space."""
    return [int((number + 0.5) / proofs * share * (1 << 32)).to_bytes(4, "big") for number in range(proofs)]


def prove_in_turn(
    prove: Callable[[bytes, bytes], object], roots: Mapping[int, bytes], keys: list[bytes]
) -> Stopwatch:
    """Return how long a proof takes at each root and key, in turn, once its pages are in memory.

    The steps of the result are the numbers of commits that the roots are back.
    """
    clock = Stopwatch(time.process_time)
    for turn, key in enumerate(keys):
        for root in roots.values():
            prove(root, key)
        clock.in_turn({str(back): partial(prove, root, key) for back, root in roots.items()}, turn)
    return clock


def proof_figures(what: str, unit: str, clock: Stopwatch, asked: Mapping[int, float]) -> list[Figure]:
    """Return what proofs took at the head, and so many commits back."""
    factor = {"ms": 1e3, "µs": 1e6}[unit]
    figures = []
    for back in clock.seconds:
        where = f", {back} commits back" if int(back) else " at the head"
        figures.append(Figure(f"{what}{where}, {unit}", clock.median(back) * factor))
        if int(back):
            ratio = clock.ratio(back, "0")
            figures.append(Figure(f"{what}{where} / at the head", ratio, asked.get(int(back))))
    return figures


def measure_views(database: merkledb.Database, sizes: Sizes) -> list[Figure]:
    """Return what views of the head cost."""
    clock = Stopwatch(time.process_time)
    for number in range(sizes.rounds):
        changes = scattered_changes(sizes.keys, _FIRST_VIEW + number, _VIEW_CHANGES)
        with clock.lap("view", partial(database.view, changes)) as view:
            clock.lap("prove", partial(view.prove_range, starts(1)[0], max_keys=PROOF_KEYS))
    return [
        Figure(f"view of {_VIEW_CHANGES:,} changes, with its root, ms", clock.median("view") * 1e3),
        Figure(f"  its range proof of {PROOF_KEYS:,} pairs, ms", clock.median("prove") * 1e3),
    ]


def measure_changes(folder: Path, keys: list[bytes], values: list[bytes], sizes: Sizes) -> list[Figure]:
    """Return what the parts of a change sync cost, a proof of 2,048 changes each."""
    clock, writing, encoded_bytes = Stopwatch(time.process_time), Stopwatch(), 0
    with (
        open_raw(folder / "raw changes") as raw,
        merkledb.open(folder / "source") as source,
        merkledb.open(folder / "replica") as replica,
    ):
        append_raw(raw, keys, values)
        for number in range(sizes.rounds):
            changes, old = scattered_changes(sizes.keys, _FIRST_SYNCED + number, PROOF_KEYS), source.root
            new = source.commit(changes)
            proof = clock.lap("prove", partial(source.prove_changes, old, new))
            encoded = clock.lap("encode", proof.encode)
            decoded = clock.lap("decode", partial(merkledb.ChangeProof.decode, encoded))
            verified = clock.lap("verify", partial(replica.verify_changes, decoded, new))
            apply, put = partial(replica.apply, verified), partial(put_raw, raw, changes)
            writing.in_turn({"apply": apply, "raw": put}, number)
            encoded_bytes += len(encoded)
    asked = {"verify": _ASKED_VERIFY_MS}
    what = f"{PROOF_KEYS:,} scattered changes, ms"
    return [
        *(Figure(f"{step} {what}", clock.median(step) * 1e3, asked.get(step)) for step in clock.seconds),
        Figure(f"apply {what}", writing.median("apply") * 1e3, _ASKED_VERIFY_MS / 2),
        Figure(f"raw LMDB puts of {what}", writing.median("raw") * 1e3),
        Figure("change proof, bytes a change", encoded_bytes / sizes.rounds / PROOF_KEYS),
    ]


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Return all figures."""
    keys, values = sorted_pairs(sizes.keys)
    # All these pairs are the benchmark's own; the collector need not look at them again and again.
    gc.freeze()
    load(folder / "base", keys, values)
    for name in ("kept", "bare", "pruned", "source", "replica"):
        copy_store(folder / "base", folder / name)
    figures = measure_changes(folder, keys, values, sizes)
    commit_part, roots = measure_commits(folder, keys, values, sizes)
    return commit_part + measure_proofs(folder / "kept", keys, roots, sizes) + figures


@click.command(cls=options.Benchmark, help=__doc__)
# Fewer, and most of the measured proofs would have fewer pairs than their figures say.
@options.number_option("--keys", 1_000_000, "Pairs in the store.", least=2 * PROOF_KEYS)
@options.number_option("--commits", 210, "Commits before proofs are made.", most=options.MAX_RUNS)
@options.number_option("--changes", 10_000, "Changes in each; at least 2,048 fill a change proof.")
@options.number_option("--rounds", 30, "How often each thing is timed.", most=options.MAX_RUNS)
@options.AS_JSON
def main(*, keys: int, commits: int, changes: int, rounds: int, as_json: bool) -> None:
    """Run the benchmark."""
    sizes = Sizes(keys, commits, changes, rounds)
    options.require_at_most("--changes", changes, "--keys", keys)
    # The base, five copies of it, two raw ones, and the history of one or two.
    options.require_room(
        8 * keys * options.PAIR_BYTES + 2 * commits * changes * options.CHANGE_BYTES, pairs_in_memory=keys
    )
    with options.work_folder() as folder:
        figures = measure(folder, sizes)
    title = f"{keys:,} keys of 32 + 32 bytes, medians of {rounds} rounds in one run"
    options.report(title, sizes._asdict(), figures, as_json=as_json)


if __name__ == "__main__":
    main()
