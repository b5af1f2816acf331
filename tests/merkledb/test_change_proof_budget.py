"""How much of history one change proof may read, and where it ends when that is not enough."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from merkledb import Database, Scheme
from merkledb.history import reader
from merkledb.history.reader import HistoryReader, Overlay
from merkledb.proofs import prover as change_prover
from tests.support import oracle
from tests.support.databases import new_database

KEYS = [bytes([number]) * 2 for number in range(200)]
REVISIONS = 30


class Reads:
    """Counts what overlays read and look up."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = self.overlays = 0
        overlay = HistoryReader.overlay

        def counted(past: HistoryReader, *arguments: object) -> Overlay:
            found = overlay(past, *arguments)  # type: ignore[arg-type]  # they are those of the method
            self.count += found.reads
            self.overlays += 1
            return found

        patch.setattr(HistoryReader, "overlay", counted)


def restless(database: Database) -> list[dict[bytes, bytes]]:
    """Commit the same keys again and again, and some others; return what each revision held."""
    source = random.Random(1)
    content = dict.fromkeys(KEYS, b"at rest") | {source.randbytes(3): b"other" for _ in range(50)}
    database.commit(content)
    contents = [content]
    for number in range(REVISIONS):
        is_last = number == REVISIONS - 1
        changes: dict[bytes, bytes | None] = {
            key: b"at rest" if is_last or source.random() < 0.3 else b"%d" % number for key in KEYS
        }
        changes |= dict.fromkeys(source.sample(sorted(content), 3))
        changes |= {source.randbytes(3): b"new"}
        database.commit(changes)
        content = oracle.changed(content, changes)
        contents.append(content)
    return contents


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[Database, list[dict[bytes, bytes]]]]:
    with new_database({}, Scheme()) as database:
        yield database, restless(database)


def roots_of(store: tuple[Database, list[dict[bytes, bytes]]], *numbers: int) -> list[bytes]:
    return [oracle.root_of(store[1][number], Scheme()) for number in numbers]


@pytest.mark.parametrize("budget", [1, 50, 500, 5000])
@pytest.mark.parametrize("ends", [(0, REVISIONS), (REVISIONS, 0), (0, 12), (12, 0), (28, 29)])
def test_proofs_that_end_where_the_budget_does_lead_to_the_new_content_in_the_end(
    store: tuple[Database, list[dict[bytes, bytes]]],
    ends: tuple[int, int],
    budget: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_prover, "MAX_PROOF_READS", budget)
    database, contents = store
    old, new = roots_of(store, *ends)
    with new_database(contents[ends[0]], Scheme()) as copy:
        start, proofs = None, 0
        while True:
            proof = database.prove_changes(old, new, start)
            truth = oracle.untruth_of(proof, contents[ends[0]], contents[ends[1]], Scheme(), start, None)
            assert truth is None
            verified = copy.verify_changes(proof, new, start)
            assert verified.effective == len(proof.keys)
            copy.apply(verified)
            proofs += 1
            if verified.complete:
                break
            assert verified.end is not None
            assert start is None or verified.end >= start
            start = verified.end + b"\x00"
        assert copy.tip_root == new
        copy.check()
    assert proofs <= len(KEYS) + 200


@pytest.mark.parametrize("max_keys", [1, 4096])
def test_a_proof_reads_no_more_than_its_budget_however_often_keys_were_changed_back(
    store: tuple[Database, list[dict[bytes, bytes]]], max_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 1000
    monkeypatch.setattr(change_prover, "MAX_PROOF_READS", budget)
    database, _ = store
    reads = Reads(monkeypatch)
    old, new = roots_of(store, 0, REVISIONS)
    proof = database.prove_changes(old, new, max_keys=max_keys)
    assert proof.end is not None
    # Each revision may spend a handful beyond its part.
    assert reads.count <= budget + 20 * REVISIONS


def test_what_fits_into_the_budget_is_proved_whole(store: tuple[Database, list[dict[bytes, bytes]]]) -> None:
    database, contents = store
    old, new = roots_of(store, 0, REVISIONS)
    proof = database.prove_changes(old, new)
    changes = oracle.changes_between(contents[0], contents[REVISIONS])
    assert (proof.keys, proof.end) == (tuple(changes), None)


def test_the_last_keys_of_an_old_root_are_found_without_reading_all_that_came_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = {bytes([number]): b"old" for number in range(0, 200, 10)}
    source = random.Random(2)
    with new_database(first) as database:
        old = database.root
        database.commit({source.randbytes(8): b"new" for _ in range(20_000)})
        reads = Reads(monkeypatch)
        with database.at(old) as snapshot:
            assert next(snapshot.items(reverse=True)) == (bytes([190]), b"old")
            assert reads.count < 2000
            assert list(snapshot.items(reverse=True)) == sorted(first.items(), reverse=True)
            assert list(snapshot.items(b"\x05", b"\x46", reverse=True)) == [
                (bytes([number]), b"old") for number in (70, 60, 50, 40, 30, 20, 10)
            ]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_pair_of_an_old_root_costs_a_few_rows_of_each_revision(
    monkeypatch: pytest.MonkeyPatch, *, reverse: bool
) -> None:
    source = random.Random(3)
    first = {source.randbytes(8): b"old" for _ in range(4000)}
    with new_database(first) as database:
        old = database.root
        for _ in range(5):
            database.commit(dict.fromkeys(first, source.randbytes(4)))
        reads = Reads(monkeypatch)
        with database.at(old) as snapshot:
            key = max(first) if reverse else min(first)
            assert next(snapshot.items(reverse=reverse)) == (key, b"old")
            assert next(database.differences(old, database.root)).key == min(first)
            assert reads.count < 2500


def test_the_last_keys_of_an_old_root_are_found_without_reading_all_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = random.Random(4)
    first = {source.randbytes(8): b"old" for _ in range(20_000)} | {
        b"\xff" * 9 + bytes([2 * at]): b"" for at in range(100)
    }
    ordered = sorted(first.items(), reverse=True)
    with new_database(first) as database:
        old = database.root
        database.commit(dict.fromkeys(ordered[at][0] for at in range(len(ordered)) if at % 5000))
        reads = Reads(monkeypatch)
        with database.at(old) as snapshot:
            assert next(snapshot.items(reverse=True)) == ordered[0]
            assert reads.count < 3000
            assert list(snapshot.items(reverse=True)) == ordered
            assert reads.count < 5 * len(first)
            some = list(snapshot.items(ordered[15_000][0], ordered[60][0] + b"\x00", reverse=True))
            assert some == ordered[60:15_001]


def test_revisions_of_the_same_keys_are_cut_once_and_not_once_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    horizon, cuts = reader._horizon, itertools.count()

    def counted(*arguments: Any) -> bytes | None:
        next(cuts)
        return horizon(*arguments)

    keys = [bytes([first, second]) for first in range(20) for second in range(20)]
    with new_database(dict.fromkeys(keys, b"at rest")) as database:
        old = database.root
        for number in range(40):
            database.commit(dict.fromkeys(keys, b"%d" % number))
        new = database.commit({**dict.fromkeys(keys, b"at rest"), b"x": b"new"})
        monkeypatch.setattr(change_prover, "MAX_PROOF_READS", 4000)
        monkeypatch.setattr(reader, "_horizon", counted)
        reads = Reads(monkeypatch)
        start, changed = b"", list[bytes]()
        while True:
            proof = database.prove_changes(old, new, start)
            changed += proof.keys
            if proof.end is None:
                break
            start = proof.end + b"\x00"
        assert changed == [b"x"]
        # Each revision of each overlay was a cut before.
        assert next(cuts) <= 2 * reads.overlays
