"""Limits of memory and of work that nothing outside shows: each is held at both ends, by its number.

The numbers stand here again, so that a limit which is doubled, or gone, is noticed.
"""

from typing import Any

import pytest

import merkledb
from manager import Manager
from manager.errors import reason_of
from manager.scheduling.resume import known_revisions
from merkledb import Database, Revision, Scheme, verify_range
from merkledb.history import revisions
from merkledb.writing.transaction import WriteTransaction
from tests.support.databases import new_database
from tests.support.fake_database import FakeDatabase
from tests.support.proof_verdicts import proof_of

MIB = 1 << 20


@pytest.mark.parametrize(
    ("retained", "dropped"), [(4_000, 4_000), (4_096, 4_096), (4_097, 4_096), (20_000, 4_096)]
)
def test_a_commit_looks_at_the_age_of_4096_revisions(
    monkeypatch: pytest.MonkeyPatch, retained: int, dropped: int
) -> None:
    looks = 0

    def read_revision(transaction: object, sequence: int) -> tuple[Revision, object]:
        nonlocal looks
        looks += 1
        return Revision(sequence, bytes(32), 0.0 if sequence < retained else 1_000.0), None

    monkeypatch.setattr(revisions, "read_revision", read_revision)
    newest = retained + revisions.MIN_RETAINED_REVISIONS - 1
    transaction: Any = None
    assert revisions._oldest_by_age(transaction, 0, newest, 100.0, 1_000.0) == dropped
    # One look more is that at the revision before the newest.
    assert looks == dropped + 1


def test_the_state_of_a_sync_has_at_most_a_mebibyte() -> None:
    with new_database() as database:
        most = bytes(MIB)
        database.set_progress(most)
        for store in (database.set_progress, lambda progress: database.apply([], progress=progress)):
            with pytest.raises(ValueError, match="the progress has 1048577 bytes, more than 1048576"):
                store(bytes(MIB + 1))
        assert database.progress == most
        database.apply([], progress=most[1:])
        assert database.progress == most[1:]


@pytest.mark.parametrize(("values", "transactions"), [(17, 1), (18, 2)])
def test_a_sync_is_rolled_back_16_mebibytes_at_a_time(
    monkeypatch: pytest.MonkeyPatch, values: int, transactions: int
) -> None:
    # With a byte that says that a value was there, each takes a mebibyte.
    before = {b"%02d" % number: bytes([number]) * (MIB - 1) for number in range(values)}
    after = dict.fromkeys(before, b"after")
    root, last = merkledb.root_of({**after, b"~": b""}), max(before)
    proof = proof_of({**after, b"~": b""}, Scheme(), None, last)
    steps, step = 0, WriteTransaction.roll_back

    def counted(write: WriteTransaction, low: bytes) -> bytes | None:
        nonlocal steps
        steps += 1
        return step(write, low)

    monkeypatch.setattr(WriteTransaction, "roll_back", counted)
    with new_database(before) as database:
        database.apply(verify_range(proof, root, None, last))
        database.roll_back()
        assert steps == transactions
        assert dict(database.items()) == before


class WithRevisions(FakeDatabase):
    """A database that retains so many revisions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def revisions(self, *, limit: int | None = None) -> list[Revision]:
        return [Revision(number, bytes(32)) for number in range(self.count, 0, -1)][:limit]


@pytest.mark.parametrize(("retained", "known"), [(1_024, 1_024), (1_025, 1_024), (9_000, 1_024)])
def test_a_sync_knows_1024_revisions(retained: int, known: int) -> None:
    database: Database = WithRevisions(retained)
    numbers = list(known_revisions(database))
    assert numbers == list(range(retained - known + 1, retained + 1))
    # The same of those that it reaches itself.
    manager = Manager(database, ["h:1"])
    for number in range(1, retained + 1):
        manager._know({number: bytes(32)})
    assert list(manager._known) == numbers


@pytest.mark.parametrize(("length", "shown"), [(299, 299), (300, 300), (301, 300), (100_000, 300)])
def test_a_reason_has_300_characters(length: int, shown: int) -> None:
    assert reason_of(OSError("x" * length)) == "x" * shown
