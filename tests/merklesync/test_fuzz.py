"""Every command with every option that it has and values that nobody expects: each ends as documented."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledb import MAX_HISTORY, MAX_PROOF_KEYS, MAX_TIME
from merklesync.cli import main
from merklesync.commands import demo, follow, serve, sync
from merklesync.commands.options import ADDRESS, BYTES, MAX_COUNT, PATH, PEER, ROOT
from merklesync.commands.prove import MAX_PROOF_FILE_BYTES
from merklesync.commands.revision_option import REVISION
from merklesync.errors import ExitCode
from tests.support.command_line import fail, fill, succeed
from tests.support.thoroughness import amount

# In the folder that a command works in.
_PATHS: Final = [
    "store",
    "copy",
    "tree",
    "pairs.csv",
    "pairs.jsonl",
    "proof",
    "missing",
    "missing/x",
    "new.csv",
]
_VALUES: Final[dict[Any, list[str]]] = {
    PATH: [*_PATHS, "", ".", "-", "\0", "a\0b", "\udcff", "\ud800", "é", "n" * 300, "/dev/null", "loop"],
    BYTES: ["", "a", "b", "0x", "0xff", "0x1", "0x-text", "\udcff", "\ud800", "k" * 600, "line\nbreak", "é"],
    ROOT: ["0" * 64, "0x" + "F" * 64, "0" * 63, "", "g" * 64, "\u0660" * 64],
    REVISION: ["0", "1", "2", "9999999", "r0", "r99999999999999999999", "00000000", "0x" + "0" * 64, "", "r"],
    # No names that somebody would have to be asked for.
    ADDRESS: [
        *("127.0.0.1:1", ":0", "[::1]:1", "127.0.0.1:65536", "127.0.0.1:" + "9" * 5000, "a..b:1", "[]:1"),
        *("", ":", "127.0.0.1", "::1:1", "\0:1", "\udcff:1", f"{'h' * 64}:1", "é..:1", "127.0.0.1:\u0661"),
    ],
}
_NUMBERS: Final = [
    "0",
    "1",
    "2",
    "-1",
    str(MAX_COUNT),
    str(MAX_COUNT + 1),
    "9" * 20,
    "9" * 5000,
    "x",
    "",
    "1_0",
]
_SECONDS: Final = ["0", "inf", "nan", "-1", "1e308", "1e400", "-inf", "1e-320", "x", ""]
_OTHERS: Final = ["", "x", "\0", "\udcff", "9" * 20, "true"]
_STANDARD_INPUTS: Final = [b"", b"a,1\n", b'{"key": "a", "value": "b"}\n', b"\xff\0", b"key_hex,value\n0,\n"]

_VALUES[PEER] = _VALUES[ADDRESS]


def _values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    kind: Any = parameter.type
    if parameter.name == "subject":
        return st.sampled_from([*_VALUES[PATH], *_VALUES[ADDRESS]])
    if isinstance(kind, click.Choice):
        return st.sampled_from([*kind.choices, "", "TEXT"])
    if isinstance(kind, click.IntRange):
        return st.sampled_from(_NUMBERS)
    if parameter.name == "history_seconds":
        return st.sampled_from(_SECONDS)
    known = next(
        (values for other, values in _VALUES.items() if kind is other or _is_of(kind, other)), _OTHERS
    )
    return st.sampled_from(known)


def _is_of(kind: Any, other: Any) -> bool:
    """Return whether a function that click has wrapped is one of ours."""
    return isinstance(kind, click.types.FuncParamType) and kind.func is other


@st.composite
def command_lines(draw: st.DrawFn, command: click.Command) -> list[str]:
    """Return arguments for a command, most of them of the kind that it wants."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            most = 3 if parameter.nargs == -1 else 1
            few = st.lists(
                _values(parameter), min_size=0 if draw(st.integers(0, 7)) == 0 else 1, max_size=most
            )
            arguments += draw(few)
        elif isinstance(parameter, click.Option) and (parameter.required or draw(st.integers(0, 3)) == 0):
            name = parameter.opts[0]
            options.append(name if parameter.is_flag else f"{name}={draw(_values(parameter))}")
    return [*draw(st.permutations(options)), *draw(st.sampled_from([[], ["--"]])), *arguments]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    fill(folder / "store", {b"a": b"1", b"b": b"\xff", b"0x-text": b""})
    succeed("put", folder / "store", "a", "2")
    succeed("export", folder / "store", folder / "pairs.csv")
    succeed("export", folder / "store", folder / "pairs.jsonl")
    succeed("export", folder / "store", folder / "tree")
    succeed("prove", folder / "store", "a", "--output", folder / "proof")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what would serve, follow or copy until it is told to stop be told so at once."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for module in (serve, follow, sync):
        monkeypatch.setattr(module, "run", interrupt)
    monkeypatch.setattr(demo, "load_folder", interrupt)


def _in_copy_of(template: Path) -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@pytest.mark.usefixtures("nobody_waits")
@pytest.mark.parametrize("name", main.commands)
def test_whatever_a_command_is_given_it_ends_as_documented(name: str, template: Path) -> None:
    @settings(max_examples=amount(30, soak=1_000))  # each in a folder of its own, with a store
    @given(arguments=command_lines(main.commands[name]), stdin=st.sampled_from(_STANDARD_INPUTS))
    def ends_as_documented(arguments: list[str], stdin: bytes) -> None:
        with ExitStack() as cleanup:
            work = _in_copy_of(template)
            next(work)
            cleanup.callback(next, work, None)
            # What is no documented end is raised here.
            result = CliRunner().invoke(main, [name, *arguments], input=stdin, catch_exceptions=False)
        assert result.exit_code in list(ExitCode)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("Note: ")]
        as_json = "--json" in arguments
        if result.exit_code == ExitCode.DONE:
            assert lines == []
            assert not as_json or json.loads(result.stdout) is not None
            return
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")
        assert lines[0].isprintable()
        if as_json:
            document = json.loads(result.stdout)
            assert lines[0] == f"Error: {document['error']}"
            assert document["exit_code"] == result.exit_code

    ends_as_documented()


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [
        (("put", "store", "k", "v", "--history"), 1, MAX_HISTORY),
        (("put", "store", "k", "v", "--history-seconds"), 0, MAX_TIME),
        (("list", "store", "--limit"), 0, MAX_COUNT),
        (("log", "store", "--limit"), 0, MAX_COUNT),
        (("prove", "store", "a", "--json", "--max-keys"), 1, MAX_PROOF_KEYS),
        (("prove", "store", "a", "--json", "--max-bytes"), 1, MAX_PROOF_FILE_BYTES),
    ],
)
def test_a_number_is_taken_at_both_ends_and_refused_beyond(
    template: Path, arguments: tuple[str, ...], least: int, most: int
) -> None:
    for _ in _in_copy_of(template):
        for number in (least, most):
            succeed(*arguments, number)
        for number in (least - 1, most + 1, 10**20):
            assert "is not in the range" in fail(2, *arguments, number)


def test_a_store_and_files_need_names_of_bytes_only(tmp_path: Path, template: Path) -> None:
    odd = tmp_path / os.fsdecode(b"x\xff")
    succeed("put", odd, "a", "1")
    assert succeed("get", odd, "a") == "1"
    succeed("load", odd, template / "tree")
    succeed("export", odd, tmp_path / os.fsdecode(b"tree\xff"))
    succeed("prove", odd, "a", "--output", tmp_path / os.fsdecode(b"proof\xff"))
    assert json.loads(succeed("status", odd, "--json"))["keys"] == 3


def test_the_empty_path_is_not_the_present_folder(template: Path) -> None:
    for _ in _in_copy_of(template):
        for arguments in (
            ("put", "", "a", "1"),
            ("root", ""),
            ("load", "store", ""),
            ("export", "store", ""),
        ):
            assert "a path is not empty" in fail(2, *arguments)
        assert "a path is not empty" in fail(2, "put", "store", "a", "--file", "")


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_an_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "store", {b"a": b"1"})
    real_stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path.name in ("data.mdb", "source.csv", "subject"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert "Permission denied" in fail(1, "put", tmp_path / "store", "a", "2")
    assert "Permission denied" in fail(1, "load", tmp_path / "new", tmp_path / "source.csv")
    assert "Permission denied" in fail(1, "status", tmp_path / "subject")
