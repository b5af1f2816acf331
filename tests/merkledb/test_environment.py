"""What happens to an open store from outside: growth, killed readers, forks, a full disk, LMDB's errors."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

import merkledb
from merkledb.storage import environment
from merkledb.storage.lmdb_errors import opening_error, translated_error

CONTENT = {b"key": b"value"}
LARGE = {b"large %d" % number: bytes(1 << 20) for number in range(4)}
# A map that a reader has reserved, and that ``LARGE`` outgrows.
SMALL_MAP = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with one pair."""
    with merkledb.open(tmp_path / "store") as database:
        database.commit(CONTENT)
    return tmp_path / "store"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def grow(path: Path) -> None:
    """Make a store larger from another process."""
    done = run(
        "import sys, merkledb\n"
        "with merkledb.open(sys.argv[1]) as database:\n"
        "    database.commit({b'large %d' % number: bytes(1 << 20) for number in range(4)})",
        path,
    )
    assert not done.returncode, done.stderr


# Growth.


def test_a_reader_takes_over_what_a_store_has_grown_to(path: Path) -> None:
    with merkledb.open(path, readonly=True, map_bytes=SMALL_MAP) as database:
        assert dict(database.items()) == CONTENT
        grow(path)
        assert dict(database.items()) == CONTENT | LARGE
        assert database.prove(b"key").values == (b"value",)
        database.check()


def test_every_thread_goes_on_when_a_store_has_grown(path: Path) -> None:
    with merkledb.open(path, readonly=True, map_bytes=SMALL_MAP) as database:
        grow(path)
        together = threading.Barrier(8)
        found: list[object] = []

        def read() -> None:
            together.wait()
            for _ in range(50):
                found.append(database[b"key"])
                with database.snapshot() as snapshot:
                    found.append(snapshot.get(b"key"))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [b"value"] * 800


def test_a_snapshot_from_before_the_growth_stays_whole_and_its_end_lets_all_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PAUSES", 1)
    monkeypatch.setattr(environment, "_PAUSE_SECONDS", 0.0)
    with merkledb.open(path, readonly=True, map_bytes=SMALL_MAP) as database:
        snapshot = database.snapshot()
        grow(path)
        for _ in range(2):
            with pytest.raises(merkledb.DatabaseOutgrown, match="close its snapshots"):
                database.snapshot()
            with pytest.raises(merkledb.DatabaseOutgrown):
                database.get(b"key")
            assert dict(snapshot.items()) == CONTENT
        snapshot.close()
        snapshot.close()
        assert len(database) == 5
        assert dict(database.items()) == CONTENT | LARGE


def test_room_that_cannot_be_reserved_is_tried_again_at_the_next_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with merkledb.open(path, readonly=True, map_bytes=SMALL_MAP) as database:
        grow(path)
        with monkeypatch.context() as patch:
            patch.setattr(environment, "_open_in_any_room", _no_room)
            for _ in range(2):
                with pytest.raises(merkledb.DatabaseOutgrown, match="address space"):
                    database.get(b"key")
        assert database[b"key"] == b"value"
        assert dict(database.items()) == CONTENT | LARGE


def _no_room(path: Path, **_: object) -> lmdb.Environment:
    error = lmdb.MemoryError("no room")
    vars(error)["code"] = errno.ENOMEM
    raise error


LITTLE_ROOM = """
import resource, sys, merkledb
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (120 << 20),) * 2)
with merkledb.open(sys.argv[1], readonly=True) as database:
    print(len(database), flush=True)
    sys.stdin.readline()
    print(len(database), len(database[b"69"]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited in Linux's way")
def test_a_process_with_little_address_space_goes_on_beside_a_growing_store(path: Path) -> None:
    command = [sys.executable, "-c", LITTLE_ROOM, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "1\n"
        with merkledb.open(path) as database:
            database.commit({b"%d" % number: bytes(1 << 20) for number in range(70)})
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "71 1048576\n"
    assert reader.returncode == 0


def test_a_store_that_was_replaced_while_it_was_open_is_not_taken_for_the_same(path: Path) -> None:
    with merkledb.open(path, readonly=True, map_bytes=SMALL_MAP) as database:
        grow(path)
        (path / "data.mdb").rename(path / "kept")
        (path / "data.mdb").write_bytes((path / "kept").read_bytes())
        for _ in range(2):
            with pytest.raises(merkledb.DatabaseReplaced, match="close it, and open"):
                database.get(b"key")
    with merkledb.open(path, readonly=True) as database:
        assert dict(database.items()) == CONTENT | LARGE


def take_away(path: Path) -> None:
    shutil.rmtree(path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace_by_a_copy(path: Path) -> None:
    move_away(path)
    shutil.copytree(path.with_name("moved"), path)


def replace_by_another(path: Path) -> None:
    move_away(path)
    merkledb.open(path.with_name("other")).close()
    path.with_name("other").rename(path)


@pytest.mark.parametrize("happens", [take_away, move_away, replace_by_a_copy, replace_by_another])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_folder_that_is_not_there_any_more_is_noticed(
    path: Path, happens: Callable[[Path], None], *, readonly: bool
) -> None:
    database = merkledb.open(path, readonly=readonly)
    root, proof = database.root, database.prove_range()
    uses: list[Callable[[], object]] = [
        lambda: database.root,
        database.snapshot,
        lambda: database.at(root),
        lambda: next(database.items()),
        lambda: database.prove(b"key"),
        database.prove_range,
        database.revisions,
        database.check,
        lambda: [database.get(b"key") for _ in range(2000)],
    ]
    if not readonly:
        uses += [
            lambda: database.commit({b"lost": b"1"}),
            lambda: database.apply(merkledb.verify_range(proof, root)),
            lambda: database.set_progress(b"progress"),
            database.roll_back,
        ]
    files = {each: each.read_bytes() for each in path.parent.glob("*/data.mdb") if happens is not take_away}
    happens(path)
    for use in uses:
        with pytest.raises(merkledb.DatabaseReplaced, match=f"{path.name} was removed, moved or replaced"):
            use()
    if happens is not take_away:
        moved = path.with_name("moved") / "data.mdb"
        assert moved.read_bytes() == files[path / "data.mdb"]
    database.close()
    with pytest.raises(merkledb.DatabaseClosed):
        database.root  # noqa: B018 - reading it is the use.


def test_a_view_of_what_is_not_there_any_more_is_not_committed(path: Path) -> None:
    with merkledb.open(path) as database, database.view({b"lost": b"1"}) as view:
        replace_by_a_copy(path)
        assert view[b"lost"] == b"1"
        with pytest.raises(merkledb.DatabaseReplaced):
            view.commit()


def test_a_relative_path_holds_wherever_the_process_goes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(path.parent)
    with merkledb.open(path.name, readonly=True, map_bytes=SMALL_MAP) as database:
        monkeypatch.chdir(elsewhere)
        grow(path)
        assert dict(database.items()) == CONTENT | LARGE
    monkeypatch.chdir(path.parent)
    with merkledb.open(path.name) as database:
        monkeypatch.chdir(elsewhere)
        database.commit({b"more": bytes(1 << 20)})
        assert database[b"more"] == bytes(1 << 20)
    assert not list(elsewhere.iterdir())


# Killed readers.

FEW_PLACES = """
import merkledb, sys
from merkledb.storage import environment
environment.MAX_READERS, environment._LOCK_FILE_BYTES = 6, 128 + 64 * 6
"""
READER = f"""{FEW_PLACES}
with merkledb.open(sys.argv[1], readonly=True) as database, database.snapshot() as snapshot:
    print("reading", flush=True)
    sys.stdin.readline()
"""
BESIDE = f"""{FEW_PLACES}
readonly = sys.argv[2] == "True"
with merkledb.open(sys.argv[1], readonly=readonly) as database:
    print("open", flush=True)
    sys.stdin.readline()
    snapshots = [database.snapshot() for _ in range(5)]
    try:
        snapshots += [database.snapshot() for _ in range(2)]
    except merkledb.TooManyReaders as error:
        print("too many", flush=True)
    if not readonly:
        snapshots.pop().close()
        database.commit({{b"written": b"after"}})
    print(len(snapshots), flush=True)
"""


@contextlib.contextmanager
def started(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize("readonly", [False, True])
def test_the_places_of_killed_readers_are_taken_back_beside_an_open_store(path: Path, readonly: bool) -> None:
    (path / "lock.mdb").unlink()
    with started(BESIDE, path, readonly) as at_same_snapshot, contextlib.ExitStack() as readers:
        assert line_of(at_same_snapshot) == "open"
        killed = []
        # All at once, for each one that opens the store takes back the places of those that died before.
        while line_of(reader := readers.enter_context(started(READER, path))) == "reading":
            killed.append(reader)
        assert len(killed) >= 3
        for each in killed:
            each.send_signal(signal.SIGKILL)
            each.wait()
        assert at_same_snapshot.stdin is not None
        at_same_snapshot.stdin.write("\n")
        at_same_snapshot.stdin.flush()
        said = [line_of(at_same_snapshot)]
        while said[-1] and not said[-1].isdecimal():
            said.append(line_of(at_same_snapshot))
        assert int(said[-1]) >= 4
        assert at_same_snapshot.wait() == 0


# Forks.

FORK = """
import gc, os, sys, merkledb
from tests.merkledb.test_opening import USES
database = merkledb.open(sys.argv[1])
snapshot, iterator, view = database.snapshot(), database.items(), database.view({b"new": b"pair"})
next(iterator)
differences = database.differences(merkledb.EMPTY_ROOT, database.root)
next(differences)
uses = {name: (lambda use=use: use(database)) for name, use in USES.items()}
uses |= {
    "snapshot": lambda: snapshot[b"key"], "snapshot items": lambda: list(snapshot.items()),
    "snapshot prove": lambda: snapshot.prove(b"key"), "snapshot range": lambda: snapshot.prove_range(),
    "snapshot len": lambda: len(snapshot), "iterator": lambda: next(iterator),
    "differences": lambda: next(differences), "view": lambda: view.commit(),
    "view item": lambda: view[b"key"], "batch": lambda: fill(database),
}
def fill(database):
    with database.batch() as batch:
        batch[b"a"] = b"b"
child = os.fork()
if not child:
    wrong = []
    for name, use in uses.items():
        try:
            wrong.append((name, use()))
        except merkledb.ForkedDatabase:
            continue
        except BaseException as error:
            wrong.append((name, repr(error)))
    snapshot.close(), view.close(), iterator.close(), database.close()
    del snapshot, iterator, view, database
    if not wrong:
        try:
            merkledb.open(sys.argv[1], readonly=True)
            wrong.append("opened again")
        except merkledb.ForkedDatabase:
            gc.collect()
    print(*wrong, sep="\\n", flush=True)
    os._exit(len(wrong))
assert os.waitpid(child, 0)[1] == 0
assert snapshot[b"key"] == b"value" and len(list(snapshot.items())) == 2
assert len(list(iterator)) == 1 and len(list(differences)) == 1
places = database._store.environment.lmdb.readers()
assert places.count(str(os.getpid())) == 2, places
database.commit({b"from the parent": b""})
assert view[b"new"] == b"pair"
view.close(), snapshot.close()
database.check()
ready, is_ready = os.pipe()
held, holds = os.pipe()
waiting = os.fork()
if not waiting:
    os.write(is_ready, b".")
    os.read(held, 1)
os.read(ready, 1)
database.close()
# The child has no part in the lock: it does not keep the parent from opening the store again.
with merkledb.open(sys.argv[1]) as database:
    print(sorted(dict(database.items())), flush=True)
os.kill(waiting, 9)
os.waitpid(waiting, 0)
"""


@pytest.mark.slow
def test_a_process_that_was_forked_off_can_use_nothing_and_harms_nothing(path: Path) -> None:
    with merkledb.open(path) as database:
        database.commit({b"more": b"pairs"})
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[b'from the parent', b'key', b'more']"


# A full disk.

ON_A_FULL_DISK = """
import sys, merkledb
try:
    with merkledb.open(sys.argv[1] + "/store") as database:
        for number in range(10_000):
            database.commit({b"%d" % number: bytes(1000)})
except merkledb.DatabaseFull as error:
    print("full")
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts a disk")
@pytest.mark.parametrize("pages", [1, 4, 10, 17, 20, 30, 200])
def test_a_full_disk_in_memory_is_an_error_and_not_the_end_of_the_process(tmp_path: Path, pages: int) -> None:
    options = f"size={pages * 4096}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        done = run(ON_A_FULL_DISK, tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (done.returncode, done.stdout) == (0, "full\n"), done.stderr


# LMDB's errors.

EXPECTED: dict[type[lmdb.Error], type[merkledb.MerkleDBError]] = {
    lmdb.BadChecksumError: merkledb.CorruptDatabase,
    lmdb.BadDbiError: merkledb.StoreFailed,
    lmdb.BadRslotError: merkledb.StoreFailed,
    lmdb.BadTxnError: merkledb.StoreFailed,
    lmdb.BadValsizeError: merkledb.StoreFailed,
    lmdb.CorruptedError: merkledb.CorruptDatabase,
    lmdb.CryptoFailError: merkledb.StoreFailed,
    lmdb.CursorFullError: merkledb.CorruptDatabase,
    lmdb.DbsFullError: merkledb.StoreFailed,
    lmdb.DiskError: merkledb.DatabaseFull,
    lmdb.EnvEncryptionError: merkledb.StoreFailed,
    lmdb.IncompatibleError: merkledb.CorruptDatabase,
    lmdb.InvalidError: merkledb.NotADatabase,
    lmdb.InvalidParameterError: merkledb.StoreFailed,
    lmdb.KeyExistsError: merkledb.StoreFailed,
    lmdb.LockError: merkledb.StoreFailed,
    lmdb.MapFullError: merkledb.DatabaseFull,
    lmdb.MapResizedError: merkledb.DatabaseOutgrown,
    lmdb.MemoryError: merkledb.StoreFailed,
    lmdb.NotFoundError: merkledb.StoreFailed,
    lmdb.PageFullError: merkledb.CorruptDatabase,
    lmdb.PageNotFoundError: merkledb.CorruptDatabase,
    lmdb.PanicError: merkledb.StoreFailed,
    lmdb.ProblemError: merkledb.StoreFailed,
    lmdb.ReadersFullError: merkledb.TooManyReaders,
    lmdb.ReadonlyError: merkledb.StoreFailed,
    lmdb.TlsFullError: merkledb.StoreFailed,
    lmdb.TxnFullError: merkledb.DatabaseFull,
    lmdb.VersionMismatchError: merkledb.NotADatabase,
}


def test_every_error_of_lmdb_is_translated_on_purpose() -> None:
    kinds = {each for each in vars(lmdb).values() if isinstance(each, type) and issubclass(each, lmdb.Error)}
    assert kinds - {lmdb.Error} == EXPECTED.keys()
    for kind, expected in EXPECTED.items():
        assert type(translated_error(kind("why"), "store", is_closed=False)) is expected, kind
        assert type(translated_error(kind("why"), "store", is_closed=True)) is merkledb.DatabaseClosed
    assert type(translated_error(lmdb.Error("?"), "store", is_closed=False)) is merkledb.StoreFailed


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOMEM, merkledb.NotADatabase),
        (errno.EACCES, merkledb.NotADatabase),
        (errno.ENOSPC, merkledb.DatabaseFull),
        (errno.EIO, merkledb.DatabaseFull),
        (errno.EINTR, merkledb.StoreFailed),
    ],
)
def test_what_keeps_a_store_from_being_opened_is_no_damage(
    code: int, expected: type[merkledb.MerkleDBError]
) -> None:
    error = lmdb.Error("why")
    vars(error)["code"] = code
    assert type(opening_error(error, "store")) is expected
