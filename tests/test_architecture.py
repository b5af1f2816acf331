"""The folders are the architecture: imports between the packages point one way, and only where they may.

::

    merklesync ──> manager, server ──> syncproto, merkledb

Neither do manager and server know each other, nor syncproto and merkledb. What a package must do without
is a rule too: merkledb has no network, syncproto no input or output at all.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "merkledb": set[str](),
    "syncproto": set[str](),
    "server": {"merkledb", "syncproto"},
    "manager": {"merkledb", "syncproto"},
    "merklesync": {"merkledb", "syncproto", "server", "manager"},
}
NETWORK = {"asyncio", "http", "select", "selectors", "socket", "socketserver", "ssl", "trio", "urllib"}
MUST_DO_WITHOUT = {
    "merkledb": NETWORK,
    "syncproto": NETWORK | {"io", "lmdb", "os", "pathlib", "subprocess", "tempfile", "threading", "time"},
}


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_in(source: str, package: str) -> Iterator[str]:
    """Yield the first part of every name that a module imports, wherever in the module it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] if node.level == 0 else package
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "importlib.import_module",
        ):
            yield "an import that only a running program knows"


def imported_by(package: str) -> dict[str, set[str]]:
    return {
        str(path.relative_to(ROOT)): set(imports_in(path.read_text(encoding="utf-8"), package))
        for path in modules_of(package)
    }


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_has_modules_and_says_that_it_is_typed(package: str) -> None:
    assert ROOT / package / "__init__.py" in modules_of(package)
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_between_packages_point_one_way(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    assert not {name: found & forbidden for name, found in imported_by(package).items() if found & forbidden}


@pytest.mark.parametrize("package", MUST_DO_WITHOUT)
def test_a_package_does_without_what_it_must_not_know(package: str) -> None:
    forbidden = MUST_DO_WITHOUT[package]
    assert not {name: found & forbidden for name, found in imported_by(package).items() if found & forbidden}


@pytest.mark.parametrize("package", ["merkledb", "syncproto", "server", "manager"])
def test_no_module_hides_its_imports_from_this_test(package: str) -> None:
    unknown = "an import that only a running program knows"
    assert not [name for name, found in imported_by(package).items() if unknown in found]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_package_imports_the_tests_or_the_benchmarks(package: str) -> None:
    assert not [name for name, found in imported_by(package).items() if found & {"tests", "bench"}]


def test_every_form_of_an_import_is_found() -> None:
    source = """
import a.b, c as d
from e.f import g
from . import h
def function():
    from i import j
    __import__("k")
"""
    expected = {"a", "c", "e", "package", "i", "an import that only a running program knows"}
    assert set(imports_in(source, "package")) == expected


# What each room of the face may import from the others; all may import the two modules at the bottom.
FACE_MAY_IMPORT = {
    "commands": {"commands", "following", "files", "console"},
    "following": {"following", "files", "console"},
    "files": {"files"},
    "console": {"console"},
}
# The same in the manager, whose modules at the bottom are named first, and in whose middle stands what is
# known of one peer.  ``manager``, ``peer_session`` and ``targets`` are on top, and may import all.
MANAGER_BOTTOM = ("errors", "executor", "limits", "memory")
MANAGER_MAY_IMPORT = {
    **{module: set[str]() for module in MANAGER_BOTTOM},
    "keyspace": {"keyspace"},
    "status": {"status"},
    "peers": {"peers"},
    "scheduling": {"scheduling", "peers", "keyspace", "status"},
    "known_peer": {"scheduling", "peers", "status"},
    "transfer": {"transfer", "known_peer", "scheduling", "peers", "keyspace"},
}
MANAGER_TOP = {"__init__", "manager", "peer_session", "targets"}


def imported_rooms(path: Path, package: str) -> set[str]:
    """Return the rooms, and the modules beside them, of its own package that a module imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[1] for module in modules if module.startswith(f"{package}.")}


@pytest.mark.parametrize("room", MANAGER_MAY_IMPORT)
def test_imports_between_the_rooms_of_the_manager_point_one_way(room: str) -> None:
    may_import = MANAGER_MAY_IMPORT[room] | set(MANAGER_BOTTOM)
    folder = ROOT / "manager" / room
    paths = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert paths
    for path in paths:
        assert imported_rooms(path, "manager") <= may_import, path.name


def test_every_room_of_the_manager_has_its_arrows_and_no_two_know_each_other_both_ways() -> None:
    rooms = {path.stem for path in (ROOT / "manager").iterdir() if path.name != "__pycache__"}
    assert rooms - {"py"} == MANAGER_MAY_IMPORT.keys() | MANAGER_TOP
    for room, others in MANAGER_MAY_IMPORT.items():
        for other in others - {room}:
            assert room not in MANAGER_MAY_IMPORT[other], (room, other)


@pytest.mark.parametrize("room", FACE_MAY_IMPORT)
def test_imports_between_the_rooms_of_the_face_point_one_way(room: str) -> None:
    may_import = FACE_MAY_IMPORT[room] | {"errors", "text"}
    for path in sorted((ROOT / "merklesync" / room).glob("*.py")):
        assert imported_rooms(path, "merklesync") <= may_import, path.name
        assert room != "files" or "click" not in imports_in(path.read_text(encoding="utf-8"), "merklesync")
