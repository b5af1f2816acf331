"""Helpers for tests of the command line: commands in this process, and servers in others."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import merkledb
from merklesync.cli import main

# Far above what any of these processes and threads needs: what takes longer hangs, and is to fail by name.
DEADLINE_SECONDS = 60
PROGRAM = [sys.executable, "-m", "merklesync"]


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    """Run one command in this process; an exception that it lets out is a defect and is raised."""
    return CliRunner().invoke(main, list(map(str, arguments)), input=stdin, catch_exceptions=False)


def succeed(*arguments: object, stdin: bytes | None = None) -> str:
    """Run a command that must succeed; return its standard output."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def succeed_json(*arguments: object, stdin: bytes | None = None) -> Any:
    """Run a command with --json; return the one document that it prints."""
    return json.loads(succeed(*arguments, "--json", stdin=stdin))


def fail(exit_code: int, *arguments: object, stdin: bytes | None = None) -> str:
    """Run a command that must fail with ``exit_code`` and one printable line; return that line.

    With --json it must also print a document that says the same.
    """
    result = run(*arguments, stdin=stdin)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Note: ")]
    assert (result.exit_code, len(lines)) == (exit_code, 1), result.output
    assert lines[0].startswith("Error: ")
    assert lines[0].isprintable()
    sentence = lines[0].removeprefix("Error: ")
    if "--json" in arguments:
        assert json.loads(result.stdout) == {"error": sentence, "exit_code": exit_code}
    else:
        assert result.stdout == ""
    return sentence


def run_as_ordinary_user(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a user whom permissions concern, which they do not concern root."""
    drop = "os.setgid(65534); os.setuid(65534); " if os.geteuid() == 0 else ""
    # What is imported first need not be readable for that user.
    code = (
        f"import os, sys; from merklesync.cli import main; {drop}main(sys.argv[1:], prog_name='merklesync')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


@contextmanager
def folder_of_ordinary_user() -> Iterator[Path]:
    """Give a new folder that the user of ``run_as_ordinary_user`` can work in."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, 65534, 65534)
        yield Path(name)


def fill(store: Path, pairs: Mapping[bytes, bytes], *options: object) -> str:
    """Make a store that holds ``pairs``; return its root."""
    lines = (
        json.dumps({"key": {"hex": key.hex()}, "value": {"hex": value.hex()}}) for key, value in pairs.items()
    )
    source = "\n".join(lines).encode()
    return str(succeed_json("load", store, "-", "--format", "jsonl", *options, stdin=source)["root"])


def commit(store: Path, changes: Mapping[bytes, bytes | None]) -> str:
    """Commit changes to a store that nobody writes to at the moment; return its root."""
    with merkledb.open(store, scheme=None) as database:
        return database.commit(changes).hex()


def content(store: Path) -> dict[bytes, bytes]:
    """Return what a store shows."""
    with merkledb.open(store, scheme=None, readonly=True) as database:
        return dict(database.items())


@contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """Let standard input, as a file descriptor, which no runner replaces, hold ``data``, and then end."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def _mind_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(
    *arguments: object, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start a command as a process of its own, with pipes for its outputs."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=stdin,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and a child would inherit that.
        preexec_fn=_mind_interrupts,  # noqa: PLW1509 - it takes no lock
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process to end; return what it wrote to its outputs, or end it when it hangs."""
    try:
        return process.communicate(timeout=DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def free_port() -> int:
    """Return a port at which nothing listens now, for a server that is to come back at the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(store: Path, port: int = 0) -> Iterator[str]:
    """Serve a store from another process; give its address."""
    with start("serve", store, "--listen", f"127.0.0.1:{port}", "--json") as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["address"]
        finally:
            server.terminate()
            finish(server)
            assert server.returncode == 0
