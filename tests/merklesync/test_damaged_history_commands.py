"""Commands that read a damaged store end with the error of damage, and leave nothing that looks whole."""

from pathlib import Path

import pytest

import merkledb
from tests.support.command_line import fail, run, succeed, succeed_json

KEY = b"key/100"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose first revision is damaged in one value, and whose other two are not."""
    path = tmp_path / "store"
    with merkledb.open(path) as database:
        database.commit({b"key/%d" % number: b"first %d" % number * 4 for number in range(300)})
        database.commit({KEY: b"second", b"key/17": b"second"})
        database.commit({b"key/200": b"third"})
        with database._store.write() as transaction:
            row = (2).to_bytes(7) + KEY
            assert transaction.replace(row, b"\x01forged", db=database._store.value_history)
    return path


@pytest.mark.parametrize(
    "target", ["folder", "empty/", "pairs.jsonl", "pairs.csv"], ids=["folder", "empty folder", "jsonl", "csv"]
)
def test_an_export_that_does_not_make_the_root_leaves_nothing(
    store: Path, tmp_path: Path, target: str
) -> None:
    written = tmp_path / target
    if target.endswith("/"):
        written.mkdir()
    assert "is damaged: what is read at root" in fail(3, "export", store, written, "--at", 1)
    assert not written.exists() or list(written.iterdir()) == []
    assert fail(3, "export", store, written, "--at", 1, "--json").startswith(str(store))
    succeed("export", store, written, "--at", 2)
    with merkledb.open(store, readonly=True) as database:
        root = database.revisions()[1].root.hex()
    assert succeed("load", tmp_path / "again", written).splitlines()[-1].split()[-1] == root


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_to_standard_output_tells_by_its_error(store: Path, form: str) -> None:
    result = run("export", store, "-", "--format", form, "--at", 1)
    assert result.exit_code == 3
    assert "is damaged: what is read at root" in result.stderr


def test_a_damaged_head_is_not_exported_either(store: Path, tmp_path: Path) -> None:
    with merkledb.open(store) as database, database._store.write() as transaction:
        transaction.put(b"key/50", b"forged", db=database._store.values)
    assert "is damaged: what is read at root" in fail(3, "export", store, tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()
    assert "does not belong to it" in fail(3, "get", store, "key/50")


def test_values_are_exported_though_a_branch_is_damaged(store: Path, tmp_path: Path) -> None:
    with merkledb.open(store) as database, database._store.write() as transaction:
        cursor = transaction.cursor(db=database._store.branches)
        assert cursor.last()
        transaction.put(cursor.key(), cursor.value()[:-5], db=database._store.branches)
    succeed("export", store, tmp_path / "new.jsonl")
    fail(3, "check", store)


def test_get_gives_neither_a_wrong_value_nor_an_absence(store: Path) -> None:
    assert "does not belong to it" in fail(3, "get", store, KEY.decode(), "--at", 1)
    assert succeed("get", store, KEY.decode(), "--at", 2) == "second"
    assert succeed("get", store, "key/17", "--at", 1) == "first 17" * 4
    assert "has no key nope" in fail(1, "get", store, "nope", "--at", 1)
    with merkledb.open(store) as database, database._store.write() as transaction:
        transaction.put((2).to_bytes(7) + KEY, b"\x00", db=database._store.value_history)
    assert "does not belong to it" in fail(3, "get", store, KEY.decode(), "--at", 1)


def test_list_ends_before_the_damage(store: Path) -> None:
    for arguments in ((), ("--reverse",)):
        result = run("list", store, "--at", 1, "--values", *arguments)
        assert (result.exit_code, "forged" in result.stdout) == (3, False)
        assert "does not belong to it" in result.stderr
    assert len(succeed("list", store, "--at", 1, "--prefix", "key/2").splitlines()) == 111
    assert succeed("list", store, "--at", 1, "--limit", 2, "--reverse").splitlines() == ["key/99", "key/98"]


def test_prove_writes_no_proof_that_does_not_hold(store: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for arguments in ((KEY.decode(),), ("--start", "key/1", "--end", "key/2"), ()):
        assert "is damaged" in fail(3, "prove", store, *arguments, "--output", proof, "--at", 1)
        assert not proof.exists()
    succeed("prove", store, "key/17", "--output", proof, "--at", 1)


def test_check_finds_it_with_history_alone(store: Path) -> None:
    assert succeed_json("check", store)["ok"] is True
    with merkledb.open(store, readonly=True) as database:
        root = database.revisions()[-2].root.hex()
    assert f"is damaged: at revision 1, {root}, node [" in fail(3, "check", store, "--history")
    assert f"at revision 1, {root}" in fail(3, "check", store, "--history", "--json")


def test_check_of_history_without_damage_succeeds(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for value in ("one", "two"):
        succeed("put", store, "key", value)
    assert succeed_json("check", store, "--history") == succeed_json("check", store)
