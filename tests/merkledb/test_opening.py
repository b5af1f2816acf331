"""Opening, closing and using a database wrongly: each mistake gets its own error and loses nothing."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

import merkledb
from merkledb import Database, Scheme
from tests.support.merkledb_strategies import SCHEMES

CONTENT = {b"key": b"value"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with one pair."""
    store = tmp_path / "store"
    with merkledb.open(store) as database:
        database.commit(CONTENT)
    return store


def assert_intact(path: Path) -> None:
    with merkledb.open(path, scheme=None, readonly=True) as database:
        assert dict(database.items()) == CONTENT
        database.check()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_store_keeps_its_scheme(tmp_path: Path, scheme: Scheme) -> None:
    with merkledb.open(tmp_path / "store", scheme=scheme) as database:
        assert database.scheme == scheme
    with merkledb.open(tmp_path / "store", scheme=None) as database:
        assert database.scheme == scheme


def test_another_scheme_is_refused_and_both_are_named(path: Path) -> None:
    for scheme in (Scheme("sha256", 16), Scheme("blake3", 2)):
        for readonly in (False, True):
            with pytest.raises(
                merkledb.SchemeMismatch, match="open it with scheme=None, which takes"
            ) as caught:
                merkledb.open(path, scheme=scheme, readonly=readonly)
            assert (caught.value.expected, caught.value.found) == (scheme, Scheme("blake3", 16))
    assert_intact(path)


@pytest.mark.parametrize(
    ("hasher", "branch_factor"),
    [("md5", 16), ("blake3", 3), ("blake3", 0), ("sha256", 1), ("", 16)],
)
def test_an_impossible_scheme_is_a_value_error(hasher: str, branch_factor: int) -> None:
    with pytest.raises(ValueError, match=r"hasher|branch factor"):
        Scheme(hasher, branch_factor)  # type: ignore[arg-type]  # the wrong name is what is tested
    with pytest.raises(TypeError, match="a branch factor is 2, 4, 16 or 256, not bool"):
        Scheme("blake3", True)


def test_a_missing_store_is_made_only_where_that_was_allowed(tmp_path: Path) -> None:
    missing = tmp_path / "deep" / "missing"
    for readonly, create in ((False, False), (True, False), (True, True)):
        with pytest.raises(merkledb.NotADatabase):
            merkledb.open(missing, readonly=readonly, create=create)
        assert not missing.exists()
    merkledb.open(missing).close()
    merkledb.open(missing, create=False).close()


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    with merkledb.open(tmp_path) as database:
        database.commit(CONTENT)
    assert_intact(tmp_path)


def test_a_file_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    for readonly in (False, True):
        with pytest.raises(merkledb.NotADatabase):
            merkledb.open(file, readonly=readonly)
    with pytest.raises(merkledb.NotADatabase):
        merkledb.open(file / "below")
    assert file.read_bytes() == b"precious"


def test_a_folder_with_other_things_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("precious")
    for readonly in (False, True):
        with pytest.raises(merkledb.NotADatabase):
            merkledb.open(tmp_path, readonly=readonly)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_creation_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    for name in ("data.mdb", "lock.mdb", "writer.lock"):
        (tmp_path / name).touch()
        merkledb.open(tmp_path).close()
        for entry in tmp_path.iterdir():
            entry.unlink()


@pytest.mark.parametrize("content", [b"precious", bytes(1 << 16), b"\xff" * (1 << 16)])
def test_a_foreign_file_in_the_place_of_the_data_is_no_store(tmp_path: Path, content: bytes) -> None:
    data = tmp_path / "data.mdb"
    data.write_bytes(content)
    for readonly in (True, False):
        with pytest.raises(merkledb.MerkleDBError):
            merkledb.open(tmp_path, readonly=readonly)
        assert data.read_bytes() == content


def test_an_lmdb_environment_of_somebody_else_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lib_version=0) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"precious", b"row")
    for readonly in (True, False):
        with pytest.raises(merkledb.NotADatabase):
            merkledb.open(tmp_path, readonly=readonly)
    with lmdb.open(str(tmp_path), lib_version=0) as environment, environment.begin() as transaction:
        assert [bytes(key) for key, _ in transaction.cursor()] == [b"precious"]


def meta_row(path: Path, row: bytes, value: bytes | None) -> None:
    """Write one row of a store's meta table as another release, or damage, would."""
    with merkledb.open(path, scheme=None) as database, database._store.write() as transaction:
        if value is None:
            transaction.delete(row, db=database._store.meta)
        else:
            transaction.put(row, value, db=database._store.meta)


def test_a_newer_format_is_refused_and_both_numbers_are_named(path: Path) -> None:
    meta_row(path, b"format", b"\x63")
    for readonly in (True, False):
        with pytest.raises(merkledb.FormatTooNew) as caught:
            merkledb.open(path, scheme=None, readonly=readonly)
        assert caught.value.found == 0x63
        assert caught.value.known < 0x63


def test_an_older_format_is_refused_and_both_numbers_are_named(path: Path) -> None:
    meta_row(path, b"format", b"\x01")
    for readonly in (True, False):
        with pytest.raises(merkledb.FormatTooOld) as caught:
            merkledb.open(path, scheme=None, readonly=readonly)
        assert (caught.value.found, caught.value.known) == (1, 3)


@pytest.mark.parametrize(
    "scheme", [b"", b"blake3", b"md5/16", b"blake3/17", b"blake3/16/1", b"\xff\xfe", b"blake3/\xc2\xb2"]
)
def test_an_unreadable_scheme_is_corruption(path: Path, scheme: bytes) -> None:
    meta_row(path, b"scheme", scheme)
    with pytest.raises(merkledb.CorruptDatabase):
        merkledb.open(path, scheme=None)


@pytest.mark.parametrize("tip", [b"", bytes(31), bytes(400)])
def test_an_unreadable_tip_is_corruption(path: Path, tip: bytes) -> None:
    meta_row(path, b"tip", tip)
    with merkledb.open(path, scheme=None) as database, pytest.raises(merkledb.CorruptDatabase):
        _ = database.root


def test_one_process_writes_at_a_time(path: Path) -> None:
    with merkledb.open(path) as database:
        with pytest.raises(merkledb.DatabaseInUse):
            merkledb.open(path)
        database.commit({b"more": b""})
    merkledb.open(path).close()


def opened_elsewhere(path: Path, readonly: bool) -> object:
    """Open the store in a process of its own; return what it read, or the name of the error."""
    try:
        with merkledb.open(path, readonly=readonly) as database:
            return dict(database.items())
    except merkledb.MerkleDBError as error:
        return type(error).__name__


def test_other_processes_may_read_but_not_write_meanwhile(path: Path) -> None:
    with merkledb.open(path), multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(opened_elsewhere, (path, True)) == CONTENT
        assert pool.apply(opened_elsewhere, (path, False)) == "DatabaseInUse"


def test_a_database_opened_for_reading_refuses_every_write(path: Path) -> None:
    with merkledb.open(path, readonly=True) as database:
        verified = merkledb.verify_range(database.prove_range(), database.root)
        writes: list[Callable[[], object]] = [
            lambda: database.commit({}),
            lambda: database.commit({b"key": None}),
            lambda: database.apply(verified),
            lambda: database.apply([]),
            lambda: database.set_progress(b""),
            database.roll_back,
        ]
        for write in writes:
            with pytest.raises(merkledb.ReadonlyDatabase):
                write()
        assert database.readonly
    assert_intact(path)


USES: dict[str, Callable[[Database], object]] = {
    "root": lambda database: database.root,
    "revision": lambda database: database.revision,
    "len": len,
    "get": lambda database: database.get(b"key"),
    "[]": lambda database: database[b"key"],
    "in": lambda database: b"key" in database,
    "items": lambda database: list(database.items()),
    "prove": lambda database: database.prove(b"key"),
    "prove_range": lambda database: database.prove_range(),
    "snapshot": lambda database: database.snapshot(),
    "at": lambda database: database.at(merkledb.EMPTY_ROOT),
    "head": lambda database: database.head,
    "revisions": lambda database: database.revisions(),
    "tip_root": lambda database: database.tip_root,
    "catching_up": lambda database: database.catching_up,
    "view": lambda database: database.view({}),
    "prove_changes": lambda database: database.prove_changes(merkledb.EMPTY_ROOT, merkledb.EMPTY_ROOT),
    "differences": lambda database: list(database.differences(merkledb.EMPTY_ROOT, merkledb.EMPTY_ROOT)),
    "verify_changes": lambda database: database.verify_changes(
        merkledb.ChangeProof((), (), None, ()), merkledb.EMPTY_ROOT
    ),
    "roll_back": lambda database: database.roll_back(),
    "check": lambda database: database.check(),
    "progress": lambda database: database.progress,
    "written_locally": lambda database: database.written_locally,
    "commit": lambda database: database.commit({b"key": b""}),
    "apply": lambda database: database.apply([]),
    "set_progress": lambda database: database.set_progress(b""),
}


@pytest.mark.parametrize("name", USES)
def test_a_closed_database_says_so(path: Path, name: str) -> None:
    database = merkledb.open(path)
    database.close()
    database.close()
    with pytest.raises(merkledb.DatabaseClosed):
        USES[name](database)
    assert_intact(path)


SNAPSHOT_USES = ["len", "get", "[]", "in", "items", "prove", "prove_range"]


@pytest.mark.parametrize("name", SNAPSHOT_USES)
def test_a_closed_snapshot_says_so(path: Path, name: str) -> None:
    with merkledb.open(path) as database:
        snapshot = database.snapshot()
        snapshot.close()
        snapshot.close()
        with pytest.raises(merkledb.DatabaseClosed):
            USES[name](snapshot)  # type: ignore[arg-type]  # a snapshot reads as a database does


@pytest.mark.parametrize("name", SNAPSHOT_USES)
def test_a_snapshot_of_a_closed_database_says_so(path: Path, name: str) -> None:
    database = merkledb.open(path)
    snapshot = database.snapshot()
    database.close()
    with pytest.raises(merkledb.DatabaseClosed):
        USES[name](snapshot)  # type: ignore[arg-type]  # a snapshot reads as a database does
    snapshot.close()
    assert_intact(path)


def test_an_iteration_that_outlives_its_database_says_so(path: Path) -> None:
    database = merkledb.open(path)
    iterator = database.items()
    assert next(iterator) == (b"key", b"value")
    database.close()
    with pytest.raises(merkledb.DatabaseClosed):
        next(iterator)


def test_every_error_is_a_merkledb_error() -> None:
    errors = [getattr(merkledb, name) for name in merkledb.__all__]
    kinds = [kind for kind in errors if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    others = {kind for kind in kinds if not issubclass(kind, merkledb.MerkleDBError)}
    assert others == {merkledb.PicklableError}
