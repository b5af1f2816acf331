"""demo: from a folder to a verified copy, in two processes."""

import sysconfig
import tempfile
from pathlib import Path

import pytest

import merkledb
from merkledb import Scheme, root_of
from merklesync.commands import demo as demo_module
from tests.support.command_line import fail, run, succeed_json

FILES = {b"a": b"1", b"b/c": b"2" * 1000, b"server.py": b"raise SystemExit"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    for name, contents in FILES.items():
        (folder / name.decode()).write_bytes(contents)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    # Where the demo runs may hold anything, such as a module with the name of one of our packages.
    monkeypatch.chdir(folder)
    return folder


def test_a_demo_ends_with_two_equal_stores_and_removes_them(folder: Path, tmp_path: Path) -> None:
    document = succeed_json("demo", folder, "--hasher", "sha256", "--branch-factor", "256")
    assert document["root"] == root_of(FILES, Scheme("sha256", 256)).hex()
    assert (document["keys"], document["bytes"]) == (3, sum(len(key) + len(FILES[key]) for key in FILES))
    assert set(document["seconds"]) == {"load", "sync", "check", "compare"}
    assert document["kept"] is None
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_demo_keeps_its_stores_when_asked(folder: Path) -> None:
    result = run("demo", folder, "--keep")
    assert f"root           {root_of(FILES).hex()}" in result.stdout
    kept = Path(result.stderr.strip().removeprefix("Note: both stores are in "))
    for name in ("served", "copied"):
        with merkledb.open(kept / name, readonly=True) as database:
            assert dict(database.items()) == FILES


def test_a_demo_of_nothing_fails_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    assert "No such file" in fail(1, "demo", tmp_path / "missing")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_default_is_the_library_of_the_running_python() -> None:
    assert demo_module.default_folder() == Path(sysconfig.get_path("stdlib"))
