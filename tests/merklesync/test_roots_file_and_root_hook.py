"""Roots that somebody writes down, and the command that is run for each root reached."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from manager import Reached
from manager.scheduling.pivot import Target
from merklesync.following.root_hook import RootHook
from merklesync.following.root_source import (
    MAX_LINE_BYTES,
    MAX_REPORTED_LINES,
    TargetParser,
    parse_target,
    read_targets,
)
from tests.support.command_line import standard_input

ROOTS = [bytes([number]) * 32 for number in range(10)]


def line(number: int, revision: int | None = None) -> bytes:
    rest = "" if revision is None else f" {revision}"
    return f"{ROOTS[number].hex()}{rest}\n".encode()


# Lines.


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("07" * 32, Target(ROOTS[7])),
        ("0x" + "07" * 32, Target(ROOTS[7])),
        ("07" * 32 + "\t12", Target(ROOTS[7], 12)),
        ("AB" * 32 + "  281474976710656", Target(b"\xab" * 32, 2**48)),
    ],
)
def test_a_line_is_a_root_and_perhaps_its_revision(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("rest", [" -1", " x", " 1 2", " \u0661", " 1.0"])
def test_a_line_with_anything_else_is_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="is not a root and the number of its revision"):
        parse_target("07" * 32 + rest)
    with pytest.raises(ValueError, match="is not a root"):
        parse_target("07" * 31 + rest)


def complaints_about(lines: list[bytes]) -> int:
    """Return how many complaints there are: of bad lines in a row, the first few and one for all the rest."""
    complaints = in_a_row = 0
    for each in lines:
        if len(each) == 65:
            in_a_row = 0
        elif len(each) != 1:
            in_a_row += 1
            complaints += in_a_row <= MAX_REPORTED_LINES + 1
    return complaints


@given(
    lines=st.lists(
        st.integers(0, 9).map(line) | st.sampled_from([b"\n", b"nonsense\n", b"\xff\n", b"x" * 200 + b"\n"])
    ),
    unended=st.integers(0, 9).map(line),
    cuts=st.lists(st.integers(0, 2_000)),
)
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], unended: bytes, cuts: list[int]) -> None:
    complaints: list[str] = []
    feeder = TargetParser(complaints.append)
    data = b"".join(lines) + unended[:-1]
    found: list[Target | None] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        found.append(feeder.feed(data[start:end]))
    good = [parse_target(each.decode()) for each in lines if len(each) == 65]
    assert [target for target in found if target][-1:] == good[-1:]
    assert len(complaints) == complaints_about(lines)
    assert feeder.end() == parse_target(unended.decode())
    assert feeder.end() is None


def test_a_line_that_never_ends_takes_no_memory_and_is_left_out_once() -> None:
    complaints: list[str] = []
    lines = TargetParser(complaints.append)
    for _ in range(100):
        assert lines.feed(b"0" * 1_000) is None
    assert len(lines._line) <= MAX_LINE_BYTES
    assert lines.feed(b"\n" + line(1)) == Target(ROOTS[1])
    assert complaints == [f"line 1 of the roots is left out: it has more than {MAX_LINE_BYTES} bytes"]


@given(
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=3, max_size=3),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    cuts=st.lists(st.integers(0, 210)),
)
def test_lines_may_end_in_any_way_and_a_byte_order_mark_may_stand_before_them(
    ends: list[bytes], mark: bytes, cuts: list[int]
) -> None:
    complaints: list[str] = []
    lines = TargetParser(complaints.append)
    texts = [line(1)[:-1], b"nonsense", line(2)[:-1]]
    data = mark + b"".join(text + end for text, end in zip(texts, ends, strict=True))
    found: list[Target | None] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        found.append(lines.feed(data[start:end]))
    assert [target for target in found if target][-1] == Target(ROOTS[2])
    # Two bytes that end one line together do not count as two lines.
    assert len(complaints) == 1
    assert complaints[0].startswith("line 2 of the roots is left out: 'nonsense' is not a root")


def test_a_byte_order_mark_stands_before_the_first_line_only() -> None:
    complaints: list[str] = []
    lines = TargetParser(complaints.append)
    lines.feed(b"\xef\xbb\xbf" + line(1)[:-1])
    assert lines.unended() == Target(ROOTS[1])
    assert lines.feed(b"\n\xef\xbb\xbf" + line(2)) == Target(ROOTS[1])
    assert [complaint[:27] for complaint in complaints] == ["line 2 of the roots is left"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("size", [3, 1_000])
def test_utf_16_is_called_by_its_name_and_once(encoding: str, size: int) -> None:
    complaints: list[str] = []
    lines = TargetParser(complaints.append)
    data = "".join(f"{root.hex()}\n" for root in ROOTS).encode(encoding)
    for start in range(0, len(data), size):
        assert lines.feed(data[start : start + size]) is None
    lines.end()
    assert complaints == [
        "line 1 of the roots is left out: it holds NUL bytes or a mark of UTF-16: write the roots as UTF-8"
    ]


def test_of_many_bad_lines_in_a_row_the_first_few_are_reported() -> None:
    complaints: list[str] = []
    lines = TargetParser(complaints.append)
    for number in range(1_000):
        lines.feed(b"%d\n" % number)
        # What is read again from its start, as a file is that changes all the time, begins no new row.
        lines.reset()
    assert len(complaints) == MAX_REPORTED_LINES + 1
    assert complaints[-1] == (
        "the next lines of the roots name no root either; they are left out without a note "
        "until one names a root"
    )
    lines.feed(line(1) + b"nonsense\n")
    assert complaints[-1].startswith("line 2 of the roots is left out: 'nonsense'")


def test_what_came_of_an_unended_line_is_counted_anew_after_each_end() -> None:
    lines = TargetParser(lambda sentence: None)
    lines.feed(b"x" * 1_000)
    lines.feed(b"x" * 1_000)
    assert lines.unended_bytes == 2_000
    lines.feed(b"x\n" + b"x" * 7)
    assert lines.unended_bytes == 7
    lines.feed(b"\n")
    assert lines.unended_bytes == 0


# Files, FIFOs and streams.


class Aims:
    """What a reader aimed at, to be waited for."""

    def __init__(self) -> None:
        self.targets: list[Target] = []
        self.complaints: list[str] = []
        self._changed = trio.Event()

    def aim(self, target: Target) -> None:
        self.targets.append(target)
        self._changed.set()

    async def reach(self, number: int, revision: int | None = None) -> None:
        while Target(ROOTS[number], revision) not in self.targets[-1:]:
            self._changed = trio.Event()
            await self._changed.wait()

    async def read(self, source: Path) -> None:
        await read_targets(source, self.aim, self.complaints.append)


async def test_a_file_is_followed_as_it_grows(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    file, aims = tmp_path / "roots", Aims()
    file.write_bytes(b"".join(map(line, range(5))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, file)
        await aims.reach(4)
        # Those that were old when it was opened are no targets.
        assert aims.targets == [Target(ROOTS[4])]
        with file.open("ab") as growing:
            growing.write(line(5)[:20])
            growing.flush()
            await trio.sleep(10)
            growing.write(line(5)[20:] + b"nonsense\n")
        await aims.reach(5)
        assert len(aims.complaints) == 1
        assert aims.complaints[0].startswith("line 7 of the roots is left out: 'nonsense' is not a root")
        nursery.cancel_scope.cancel()


async def test_a_file_that_was_cut_off_or_replaced_is_read_from_its_start(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    file, aims = tmp_path / "roots", Aims()
    file.write_bytes(line(1) + line(2) + b"unended")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, file)
        await aims.reach(2)
        file.write_bytes(line(3))
        await aims.reach(3)
        (tmp_path / "new").write_bytes(line(4) + line(5) + line(6))
        file.unlink()
        await trio.sleep(1)
        (tmp_path / "new").rename(file)
        await aims.reach(6)
        nursery.cancel_scope.cancel()
    assert aims.complaints == []


async def test_a_file_that_is_written_anew_in_place_is_read_from_its_start(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    file, aims = tmp_path / "roots", Aims()
    file.write_bytes(line(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, file)
        await aims.reach(1)
        # As long as before, and within the same tick of the clock: not even the time of the change differs.
        before = file.stat()
        file.write_bytes(line(2))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await aims.reach(2)
        file.write_bytes(line(3, 17))
        await aims.reach(3, 17)
        # Longer than before, and other bytes where the old ones were.
        file.write_bytes(line(5) + b"nonsense\n" + line(4))
        await aims.reach(4)
        # Only the number is another.
        file.write_bytes(line(5) + b"nonsense\n" + line(4, 8))
        await aims.reach(4, 8)
        # Behind a newest line that stays, and far before the end.
        file.write_bytes(line(1) + b"#\n" * 4_000)
        await aims.reach(1)
        file.write_bytes(line(6) + b"#\n" * 4_000)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
        await aims.reach(6)
        file.write_bytes(b"")
        await trio.sleep(10)
        assert aims.targets[-1] == Target(ROOTS[6])
        file.write_bytes(line(7))
        await aims.reach(7)
        nursery.cancel_scope.cancel()


async def test_a_last_line_without_an_end_counts_once_nobody_goes_on_with_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    file, aims = tmp_path / "roots", Aims()
    file.write_bytes(line(1)[:-1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, file)
        await aims.reach(1)
        file.write_bytes(line(2, 12)[:-1])
        await aims.reach(2, 12)
        with file.open("ab") as growing:
            growing.write(b"3\n" + line(3)[:40])
        await aims.reach(2, 123)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert aims.targets[-1] == Target(ROOTS[2], 123)
    assert aims.complaints == []


async def test_roots_that_cannot_be_read_for_a_while_are_named_once_and_read_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    file, aims = tmp_path / "roots", Aims()
    file.write_bytes(line(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, file)
        await aims.reach(1)
        file.unlink()
        await trio.sleep(10)
        # A link to itself cannot be read by anybody, root included.
        file.symlink_to(file)
        await trio.sleep(10)
        file.unlink()
        file.write_bytes(line(2))
        await aims.reach(2)
        nursery.cancel_scope.cancel()
    assert [complaint.removeprefix(f"{file} ") for complaint in aims.complaints] == [
        "is missing: the last root that it named is followed until it is there again"
    ]


async def test_whatever_comes_in_the_place_of_a_fifo_or_a_file_is_read_as_what_it_is(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source, aims = tmp_path / "roots", Aims()
    os.mkfifo(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, source)
        await trio.to_thread.run_sync(source.write_bytes, line(1))
        await aims.reach(1)
        source.unlink()
        os.mkfifo(source)
        await trio.to_thread.run_sync(source.write_bytes, line(2))
        await aims.reach(2)
        source.unlink()
        source.write_bytes(line(3))
        await aims.reach(3)
        source.unlink()
        os.mkfifo(source)
        # Nobody writes to it yet, and nobody waits for that.
        await trio.sleep(10)
        await trio.to_thread.run_sync(source.write_bytes, line(4))
        await aims.reach(4)
        nursery.cancel_scope.cancel()


async def test_a_fifo_outlives_its_writers(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    fifo, aims = tmp_path / "fifo", Aims()
    os.mkfifo(fifo)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aims.read, fifo)
        for number in (1, 2, 3):
            await trio.to_thread.run_sync(fifo.write_bytes, line(number))
            await aims.reach(number)
        nursery.cancel_scope.cancel()


async def test_a_stream_ends_with_its_last_line() -> None:
    aims = Aims()
    with standard_input(line(1) + line(2)[:-1]):
        await aims.read(Path("-"))
    assert aims.targets == [Target(ROOTS[1]), Target(ROOTS[2])]
    # It cannot be waited for, but need not be.
    await aims.read(Path(os.devnull))
    assert len(aims.targets) == 2


async def test_a_file_of_roots_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Aims().read(tmp_path / "missing")


# The command of --on-root.


def reached(number: int) -> Reached:
    return Reached(ROOTS[number], number, keys=1)


async def run_hook(
    command: str, store: Path, use: Callable[[RootHook], object] = lambda _: None
) -> list[str]:
    """Offer a first root, then whatever ``use`` does; return the complaints when all is done."""
    complaints: list[str] = []
    hook = RootHook(command, store, complaints.append)
    async with trio.open_nursery() as nursery:
        hook.enqueue_newest(reached(1))
        use(hook)
        nursery.start_soon(hook.run)
        await hook.wait_until_idle()
        nursery.cancel_scope.cancel()
    return complaints


async def test_the_command_knows_root_revision_and_store(tmp_path: Path) -> None:
    command = f'echo "$MERKLESYNC_ROOT $MERKLESYNC_REVISION $MERKLESYNC_STORE" > {tmp_path}/out'
    assert await run_hook(command, tmp_path / "store") == []
    assert (tmp_path / "out").read_text() == f"{ROOTS[1].hex()} 1 {tmp_path}/store\n"


async def test_the_command_is_run_for_the_newest_root_only(tmp_path: Path) -> None:
    def use(hook: RootHook) -> None:
        for number in (2, 3):
            hook.enqueue_newest(reached(number))

    await run_hook(f"echo $MERKLESYNC_REVISION >> {tmp_path}/out", tmp_path, use)
    assert (tmp_path / "out").read_text() == "3\n"


async def test_one_command_is_run_at_a_time(tmp_path: Path) -> None:
    for number in (1, 4):
        os.mkfifo(tmp_path / f"go{number}")
    complaints: list[str] = []
    command = "echo begin $MERKLESYNC_REVISION >> out; read line < go$MERKLESYNC_REVISION; echo end >> out"
    hook = RootHook(f"cd {tmp_path}; {command}", tmp_path, complaints.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hook.run)
        hook.enqueue_newest(reached(1))
        # Whoever opens a FIFO for writing waits until somebody reads: the first command is at work then.
        go = await trio.to_thread.run_sync(os.open, tmp_path / "go1", os.O_WRONLY)
        for number in (2, 3, 4):
            hook.enqueue_newest(reached(number))
        os.close(go)
        await trio.to_thread.run_sync((tmp_path / "go4").write_bytes, b"\n")
        await hook.wait_until_idle()
        nursery.cancel_scope.cancel()
    assert (tmp_path / "out").read_text() == "begin 1\nend\nbegin 4\nend\n"
    assert complaints == []


async def test_a_command_that_fails_is_shown_and_run_again(tmp_path: Path) -> None:
    root = ROOTS[1].hex()
    assert await run_hook("exit 3", tmp_path) == [
        f"the command of --on-root ended with exit code 3 for root {root}"
    ]
    assert await run_hook("kill -9 $$", tmp_path) == [
        f"the command of --on-root was ended by SIGKILL for root {root}"
    ]


async def test_a_shell_that_is_missing_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await run_hook("true", tmp_path) == [
        "the command of --on-root could not be run: No such file or directory"
    ]


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
async def test_a_command_ends_with_the_follower(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, trap: str
) -> None:
    os.mkfifo(tmp_path / "group")
    hook = RootHook(f"{trap}echo $$ > {tmp_path}/group; while :; do sleep 100; done", tmp_path, pytest.fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hook.run)
        hook.enqueue_newest(reached(1))
        group = int(await trio.to_thread.run_sync((tmp_path / "group").read_text))
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(group, signal.SIG_DFL)
