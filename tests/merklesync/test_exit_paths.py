"""How commands end where the machine around them is unkind: one line, the right code, nothing lost."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.command_line import (
    DEADLINE_SECONDS,
    PROGRAM,
    commit,
    content,
    fail,
    fill,
    finish,
    run,
    start,
    succeed,
)

pytestmark = pytest.mark.slow


def test_a_proof_is_never_written_over_something(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, {b"k": b"v"})
    assert "exists already" in fail(1, "prove", store, "k", "--output", store / "data.mdb")
    assert succeed("get", store, "k") == "v"


def test_a_key_that_the_terminal_cannot_show_is_shown_escaped(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, {"日本".encode(): b"v"})
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [*PROGRAM, "list", store],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        encoding="latin-1",
    )
    assert done.stdout == "\\u65e5\\u672c\n"


def test_a_closed_standard_output_is_one_line(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, {b"k": b"v"})
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "get", store, "k"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output is closed")
    assert len(done.stderr.splitlines()) == 1


def test_a_failed_replace_leaves_local_content_protected(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", "00" * 31 + "01"
    fill(mine, {b"precious": b"1"})
    arguments = ("sync", mine, "--from", "127.0.0.1:1", "--root", other)
    assert run(*arguments, "--replace").exit_code == 4
    assert "replace" in fail(1, *arguments)
    assert succeed("get", mine, "precious") == "1"


def test_an_export_that_is_terminated_leaves_no_half_file(tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "target.jsonl"
    fill(store, {})
    commit(store, {b"%06d" % number: bytes(2_000) for number in range(50_000)})
    with start("export", store, target) as process:
        while not (target.exists() and target.stat().st_size):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = finish(process)
    assert (process.returncode, errors) == (130, "Error: interrupted: export again\n")
    assert not target.exists()


def test_sigterm_ends_a_command_whose_interrupts_are_ignored(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *PROGRAM]
    with subprocess.Popen(
        [*command, "load", tmp_path / "store", "-", "--format", "jsonl"],
        stdin=reading,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(reading)
        # More than a pipe holds: once it is written, the process is known to read.
        os.write(writing, b'{"key": "a", "value": "b"}\n' * 10_000)
        process.send_signal(signal.SIGTERM)
        _, errors = finish(process)
    os.close(writing)
    assert (process.returncode, errors) == (130, "Error: interrupted: nothing was loaded\n")


def test_sigterm_is_heard_again_after_a_command(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    fill(tmp_path / "store", {})
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_while_peers_are_asked_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with start("status", f"127.0.0.1:{listener.getsockname()[1]}") as process:
            connection, _ = listener.accept()
            process.send_signal(signal.SIGTERM)
            _, errors = finish(process)
        connection.close()
    assert (process.returncode, errors) == (130, "Error: interrupted\n")


def test_a_data_file_that_was_cut_off_is_one_line(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, {number.to_bytes(4): bytes(1000) for number in range(500)})
    data = store / "data.mdb"
    os.truncate(data, data.stat().st_size // 2 // 4096 * 4096)
    for command in ("check", "root"):
        done = subprocess.run([*PROGRAM, command, store], capture_output=True, text=True, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)


def run_in_shell(
    script: str, *arguments: object, program: Sequence[str] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """Run a command with its streams as ``script`` has them, buffered as a user has them, too."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", script, "bash", *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
        env=environment,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("load", "STORE", "-", "--format", "csv"),
        ("put", "STORE", "x", "--file", "-"),
        ("verify", "-", "--root", "0" * 64),
    ],
)
def test_a_closed_standard_input_is_one_line_and_makes_no_store(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    store = tmp_path / "store"
    done = run_in_shell('"$@" <&-', *(store if word == "STORE" else word for word in arguments))
    assert (done.returncode, done.stderr) == (
        1,
        "Error: standard input is closed: open it, or name a file\n",
    )
    assert not store.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("root", "STORE"),
        ("list", "STORE", "--json"),
        ("put", "STORE", "k", "new"),
        ("prove", "STORE"),
        ("export", "STORE", "-", "--format", "csv"),
    ],
)
def test_a_full_standard_output_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    store = tmp_path / "store"
    fill(store, {b"k": b"v"})
    done = run_in_shell('"$@" >/dev/full', *(store if word == "STORE" else word for word in arguments))
    assert (done.returncode, done.stderr) == (
        1,
        "Error: writing to standard output failed: No space left on device; what was done by then stands\n",
    )
    assert content(store) == {b"k": b"new" if "put" in arguments else b"v"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_failure_that_cannot_be_printed_is_an_exit_code(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = run_in_shell('"$@" >/dev/full', "root", missing, "--json")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "is no store" in done.stderr
    for script in ('"$@" 2>/dev/full', '"$@" 2>&-', '"$@" >/dev/full 2>&1', '"$@" >&- 2>&-'):
        done = run_in_shell(script, "root", missing)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", ""), script


@pytest.mark.parametrize("form", ["list --json", "export - --format jsonl"])
def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path: Path, form: str) -> None:
    store = tmp_path / "store"
    fill(store, {b"%06d" % number: bytes(100) for number in range(3000)})
    name, *options = form.split()
    done = run_in_shell('"$@" | head -c 1; exit ${PIPESTATUS[0]}', name, store, *options)
    assert (done.returncode, done.stderr, len(done.stdout)) == (1, "", 1)


def test_a_failure_whose_reader_went_away_is_one_line(tmp_path: Path) -> None:
    script = '{ sleep 0; "$@"; echo $? >&2; } | true'
    done = run_in_shell(script, "root", tmp_path / "missing", "--json")
    error, code = done.stderr.splitlines()
    assert ("is no store" in error, code) == (True, "1")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells what a descriptor is of")
def test_no_file_of_a_store_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from merklesync.cli import main; import merkledb; "
        "main(['put', sys.argv[1], 'k', 'v'], standalone_mode=False); "
        "database = merkledb.open(sys.argv[1]); "
        "print(*(os.readlink(f'/proc/self/fd/{number}') for number in (0, 2)))"
    )
    done = run_in_shell('"$@" <&- 2>&-', tmp_path / "store", program=[sys.executable, "-c", code])
    assert done.stdout.splitlines()[1:] == ["/dev/null /dev/null"]


def test_a_command_works_with_closed_streams_that_it_does_not_need(tmp_path: Path) -> None:
    store, tree = tmp_path / "store", tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    for arguments in (("load", store, tree), ("check", store), ("export", store, tmp_path / "new")):
        done = run_in_shell('"$@" <&- 2>&-', *arguments)
        assert (done.returncode, done.stderr) == (0, "")


# Python imports it before anything else that it is told to.
_SIGNALS_ITSELF = """
import builtins, os, signal
imported = builtins.__import__
def importing(name, *arguments, **options):
    if name == {module!r}:
        os.kill(os.getpid(), signal.{number})
    return imported(name, *arguments, **options)
builtins.__import__ = importing
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["lmdb", "manager", "click", "merklesync.commands.verify"])
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path: Path, module: str, number: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SIGNALS_ITSELF.format(module=module, number=number))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*PROGRAM, "root", tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Error: interrupted\n")
