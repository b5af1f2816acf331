"""A database survives what kills its process: it opens at its last complete root.

The processes and the signals are real. The random moments come from a seed that a failure prints.
"""

import multiprocessing
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

import merkledb
from merkledb import Database, Scheme, VerifiedChanges, VerifiedRange, verify_range
from tests.support.proof_verdicts import change_proof_of, proof_of
from tests.support.thoroughness import amount

pytestmark = pytest.mark.slow

SPAWN = multiprocessing.get_context("spawn")
KILLS = amount(4, soak=200)
# Long enough to lose patience with a process that hangs; nothing waits this long when all is well.
PATIENCE_SECONDS = 60.0


def changes_of(number: int) -> dict[bytes, bytes | None]:
    """The commit with a number: new keys, others replaced, others deleted, so that all tables change."""
    put = {b"%d of %d" % (item, number % 7): b"%d" % number * 20 for item in range(40)}
    return {**put, **dict.fromkeys(b"%d of %d" % (item, (number + 3) % 7) for item in range(0, 40, 3))}


def content_after(commits: int) -> dict[bytes, bytes]:
    content: dict[bytes, bytes] = {}
    for number in range(commits):
        for key, value in changes_of(number).items():
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
    return content


def assert_stands_at(path: Path, commits: range) -> int:
    """Fail unless the store is whole, and at the root of one of these numbers of commits; return which."""
    with merkledb.open(path) as database:
        database.check()
        assert database.revision in commits
        assert dict(database.items()) == content_after(database.revision)
        return database.revision


@contextmanager
def started(process: SpawnProcess, ours: Connection, theirs: Connection) -> Iterator[Connection]:
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join(PATIENCE_SECONDS)
        ours.close()


def commit_for_ever(path: Path, reports: Connection) -> None:
    with merkledb.open(path) as database:
        reports.send(database.revision)
        while True:
            database.commit(changes_of(database.revision))
            reports.send(database.revision)


def last_report(reports: Connection, last: Any = -1) -> Any:
    """Read what a killed process had reported before it died; `last` when it was nothing more."""
    try:
        while True:
            last = reports.recv()
    except EOFError:
        return last


def test_a_writer_that_is_killed_at_any_moment_leaves_its_last_commit(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    moments, path = random.Random(seed), tmp_path / "store"
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    revision = 0
    for _ in range(KILLS):
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=commit_for_ever, args=(path, theirs))
        with started(process, ours, theirs) as reports:
            for _ in range(moments.randrange(1, 12)):
                assert reports.poll(PATIENCE_SECONDS)
                revision = reports.recv()
            # A few microseconds to some milliseconds: into the middle of a commit.
            for _ in range(moments.randrange(20_000)):
                pass
            process.kill()
            revision = max(revision, last_report(reports))
        # A commit that was durable may not have been reported any more.
        revision = assert_stands_at(path, range(revision, revision + 2))


# A replica that is killed in the middle of its syncs: the key space in pieces, each applied on its own.
CUTS = (b"1", b"14 of 3", b"20", b"3 of", b"33", b"5 of 5")
PIECES = [*zip((None, *CUTS), (*CUTS, None), strict=True)]


def piece(database: Database, number: int, at: int) -> VerifiedRange | VerifiedChanges:
    """Verify a piece of the content after `number` + 1 commits; every other one by what changed."""
    (start, end), old, new = PIECES[at], content_after(number), content_after(number + 1)
    root = merkledb.root_of(new)
    if (number + at) % 2:
        return verify_range(proof_of(new, Scheme(), start, end), root, start, end)
    return database.verify_changes(change_proof_of(old, new, Scheme(), start, end), root, start, end)


def follow_for_ever(path: Path, reports: Connection) -> None:
    with merkledb.open(path, history=3) as database:
        number = database.head.number if database.head else 0
        while True:
            for at in (3, 0, 5, 1, 6, 4, 2):
                database.apply(piece(database, number, at), progress=b"%d" % number, revision=number + 1)
                reports.send((database.head.number if database.head else 0, at))
            number += 1


def assert_never_went_dark(path: Path, *, roll_back: bool) -> int:
    """Fail unless the store shows complete roots only, each with its content; return the head's number."""
    with merkledb.open(path) as database:
        database.check()
        head = database.head
        if head is None:
            assert (database.revisions(), database.progress) == ([], b"0")
        for revision in database.revisions():
            with database.at(revision.root) as snapshot:
                assert dict(snapshot.items()) == content_after(revision.number)
                assert snapshot.root == merkledb.root_of(snapshot.items())
        if head is not None:
            assert dict(database.items()) == content_after(head.number)
            assert (len(database), database.root) == (head.keys, head.root)
        if database.catching_up and roll_back:
            database.roll_back()
            database.check()
            assert database.tip_root == merkledb.root_of(content_after(head.number if head else 0))
            assert database.progress is None
        return head.number if head else 0


def test_a_replica_that_is_killed_at_any_moment_shows_complete_roots_only(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    moments, path = random.Random(seed), tmp_path / "store"
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    number = 0
    for kill in range(KILLS):
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=follow_for_ever, args=(path, theirs))
        with started(process, ours, theirs) as reports:
            for _ in range(moments.randrange(1, 2 * len(PIECES))):
                assert reports.poll(PATIENCE_SECONDS)
                number, _ = reports.recv()
            for _ in range(moments.randrange(20_000)):
                pass
            process.kill()
            number = max(number, last_report(reports, (0, 0))[0])
        found = assert_never_went_dark(path, roll_back=bool(kill % 2))
        # An apply that was durable may not have been reported any more.
        assert found in (number, number + 1)
        number = found


def test_a_store_that_cannot_even_be_made_says_so(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=open_without_room, args=(tmp_path / "store", theirs))
    with started(process, ours, theirs) as reports:
        assert reports.poll(PATIENCE_SECONDS)
        assert reports.recv() == "DatabaseFull"
    merkledb.open(tmp_path / "store").close()


def open_without_room(path: Path, reports: Connection) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    try:
        merkledb.open(path).close()
    except merkledb.MerkleDBError as error:
        reports.send(type(error).__name__)
    else:
        reports.send("opened")
