"""What commands show while they work: bars on a terminal, nothing elsewhere, numbers that people can read."""

import os
import pty
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from merklesync.console.bar import CountedPairs, ProgressBar, progress_bar
from merklesync.console.output import format_key_count, format_seconds, format_size
from tests.support.command_line import PROGRAM, run


def stderr_on_a_terminal(*arguments: object) -> str:
    """Run a command whose standard error is a terminal; return all that it wrote there."""
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=its_end
    ) as process:
        os.close(its_end)
        shown = b""
        try:
            while data := os.read(terminal, 65_536):
                shown += data
        except OSError:
            # This is how a terminal says that nobody is at its other end any more.
            pass
    os.close(terminal)
    assert process.returncode == 0
    return shown.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(100):
        (folder / str(number)).write_text("x" * number)
    return folder


@pytest.mark.slow
def test_a_terminal_gets_a_bar_with_amount_rate_and_time(folder: Path, tmp_path: Path) -> None:
    shown = stderr_on_a_terminal("load", tmp_path / "store", folder)
    for part in ("loading", "100%", "100 keys", "5.1 kB", "keys/s", "in 0."):
        assert part in shown
    assert "checking" in stderr_on_a_terminal("check", tmp_path / "store")
    assert "writing" in stderr_on_a_terminal("export", tmp_path / "store", tmp_path / "pairs.jsonl")
    assert "reading" in stderr_on_a_terminal("load", tmp_path / "again", tmp_path / "pairs.jsonl")


def test_nobody_else_gets_a_bar(folder: Path, tmp_path: Path) -> None:
    assert run("load", tmp_path / "store", folder).stderr == ""
    assert stderr_on_a_terminal("load", tmp_path / "store", folder, "--json") == ""


def test_an_invisible_bar_does_nothing() -> None:
    with progress_bar("working", shows_progress=False) as bar:
        assert not bar.is_drawn
        bar.show(1, 2, 0.5)


def shown_by(show: Callable[[ProgressBar], None]) -> str:
    """Return the line of a bar that was shown something once."""
    columns = (TextColumn("{task.percentage:.0f}% {task.fields[details]} {task.fields[left]}"),)
    progress = Progress(*columns, console=Console(file=StringIO(), width=200))
    bar = ProgressBar(progress, "working")
    show(bar)
    with progress.console.capture() as shown:
        progress.console.print(progress.get_renderable())
    return shown.get().strip()


def test_a_bar_shows_how_many_keys_are_expected_and_the_time_that_its_caller_knows() -> None:
    line = shown_by(
        lambda bar: bar.show(1200, None, 0.24, expected_keys=5000, keys_a_second=100.0, left_seconds=38.0)
    )
    assert line == "24% 1,200 of 5,000 keys  100 keys/s 38 s left"


def test_a_bar_foretells_nothing_where_its_caller_knows_that_nothing_can_be_foretold() -> None:
    assert shown_by(lambda bar: bar.show(1200, None, 0.24, keys_a_second=0.0)) == "24% 1,200 keys"
    assert shown_by(lambda bar: bar.show(1200, None, 0.24)).endswith(" left")


def test_pairs_that_are_watched_are_counted_and_passed_on() -> None:
    pairs = CountedPairs([(b"a", b"1"), (b"bc", b"")], ProgressBar(None, ""))
    assert list(pairs) == [(b"a", b"1"), (b"bc", b"")]
    assert (pairs.keys, pairs.size_bytes) == (2, 4)


def test_the_share_weighs_keys_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float | None] = []
    monkeypatch.setattr(ProgressBar, "show", lambda _bar, _keys, _bytes, share: shares.append(share))
    source = [(b"", b"x" * 4096), (b"", b"")]
    for totals in ({}, {"total_keys": 2}, {"total_keys": 2, "total_bytes": 4096}, {"total_keys": 1}):
        list(CountedPairs(source, ProgressBar(None, ""), **totals))
    assert shares == [None, None, 0.5, 1.0, pytest.approx(2 / 3), 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.00 s"), (0.416, "0.42 s"), (12.4, "12 s"), (185, "3:05"), (3607, "1:00:07")],
)
def test_seconds_are_shown_as_people_read_them(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


def test_numbers_are_shown_as_people_read_them() -> None:
    assert (format_key_count(1), format_key_count(2000)) == ("1 key", "2,000 keys")
    assert format_size(1_500_000) == "1.5 MB"
