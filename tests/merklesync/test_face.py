"""The face: what it offers, and that it names the file that hides one of our packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import manager
import merkledb
import merklesync
import server
from merklesync.packages import PACKAGES, HiddenPackage, require_own_packages

HIDDEN = "hides the package {name!r}, a part of merklesync: rename it"


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder``, which comes first on its path."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_face_offers_what_most_users_import() -> None:
    assert merklesync.open is merkledb.open
    assert merklesync.Manager is manager.Manager
    assert merklesync.serve is server.serve
    assert merklesync.Server is server.Server
    assert merklesync.open_listeners is server.open_listeners
    for name in merklesync.__all__:
        assert getattr(merklesync, name).__doc__ or name == "EMPTY_ROOT"


def test_an_import_beside_an_unrelated_module_works(tmp_path: Path) -> None:
    (tmp_path / "servers.py").write_text("")
    assert python(tmp_path, "-c", "import merklesync; merklesync.open").returncode == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_a_module_that_hides_a_package_is_named(tmp_path: Path, name: str) -> None:
    hiding = tmp_path / f"{name}.py"
    hiding.write_text("raise SystemExit('imported')")
    result = python(tmp_path, "-c", "import merklesync")
    last_line = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last_line.startswith("merklesync.packages.HiddenPackage: ")
    assert f"{hiding} {HIDDEN.format(name=name)}" in last_line


@pytest.mark.parametrize("content", ["__init__.py", "something.py"])
def test_a_folder_that_hides_a_package_is_named(tmp_path: Path, content: str) -> None:
    hiding = tmp_path / "manager"
    hiding.mkdir()
    (hiding / content).write_text("")
    result = python(tmp_path, "-c", "import merklesync")
    # A folder without __init__.py hides nothing that is installed in a folder that Python searches.
    if result.returncode:
        assert f"{hiding} {HIDDEN.format(name='manager')}" in result.stderr
    else:
        assert content == "something.py"


def test_a_module_that_was_imported_before_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("")
    script = "import server, sys; sys.path.remove(sys.path[0]); import merklesync"
    result = python(tmp_path, "-c", script)
    assert f"{tmp_path / 'server.py'} {HIDDEN.format(name='server')}" in result.stderr


def test_the_command_shows_one_line(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("")
    script = Path(sys.executable).with_name("merklesync")
    for command in (["-m", "merklesync", "--version"], [str(script), "--version"]):
        result = python(tmp_path, *command)
        assert result.returncode == 1
        sentence = f"{tmp_path / 'server.py'} {HIDDEN.format(name='server')}"
        start_elsewhere = "or start Python so that its folder does not come first on sys.path"
        assert result.stderr == f"Error: {sentence}, {start_elsewhere}\n"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merklesync.packages.PACKAGES", ("no_such_package",))
    with pytest.raises(HiddenPackage, match="install merklesync again") as caught:
        require_own_packages(Path(merklesync.__file__).parent.parent)
    assert (caught.value.name, caught.value.path) == ("no_such_package", None)


def test_our_own_packages_are_found() -> None:
    require_own_packages(Path(merklesync.__file__).parent.parent)


@pytest.mark.parametrize("names", [[], ["merklesync"], ["/bin/merklesync", "x"], ["program.py"]])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_program_keeps_its_signals_whatever_its_name_is(names: list[str], in_thread: bool) -> None:
    code = f"""
import signal, sys, threading
sys.argv = {names!r}
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
def use():
    import merklesync, merklesync.cli
if {in_thread}:
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
else:
    use()
assert "merklesync.cli" in sys.modules
assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
