"""follow: replicas of replicas as processes of their own, killed, restarted, and left by their sources."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from manager import PeerProgress, PeerState, Progress, SyncStatus
from merklesync.following import follower as follower_module
from merklesync.following.events import EventPrinter
from tests.support.command_line import (
    DEADLINE_SECONDS,
    commit,
    content,
    fail,
    fill,
    finish,
    free_port,
    run,
    serving,
    standard_input,
    start,
    succeed,
    succeed_json,
)

pytestmark = pytest.mark.slow

PAIRS = {b"key %d" % number: b"value %d" % number for number in range(1_000)}


class Follower:
    """A running follow, and what it says.

    Attributes:
        process: The process.
        roots: The roots that it has reached, with their revisions.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.roots: list[tuple[str, int]] = []

    def _next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended: {finish(self.process)[1]}")
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "root":
            self.roots.append((event["root"], event["revision"]))
        return event

    def address(self) -> str:
        """Return where it serves."""
        while (event := self._next())["event"] != "serving":
            pass
        return str(event["address"])

    def reach(self, root: str) -> None:
        """Wait until it shows a root."""
        while root not in [reached for reached, _ in self.roots[-1:]]:
            self._next()

    def fall_into(self, situation: str) -> dict[str, Any]:
        """Wait until it says that a situation has settled."""
        while (event := self._next()).get("situation") != situation:
            pass
        return event

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """End it; return its notes."""
        self.process.send_signal(number)
        _, notes = finish(self.process)
        assert self.process.returncode == (-number if number == signal.SIGKILL else 0), notes
        return notes


@contextmanager
def following(
    store: Path, *addresses: str, options: tuple[object, ...] = ("--trust-peer",)
) -> Iterator[Follower]:
    """Follow in another process; it is ended with the block, if not before."""
    peers = [word for address in addresses for word in ("--from", address)]
    with start("follow", store, *peers, *options, "--json", stdin=subprocess.PIPE) as process:
        follower = Follower(process)
        try:
            yield follower
            if process.poll() is None:
                follower.stop()
        finally:
            process.kill()


def serving_options(port: int = 0) -> tuple[object, ...]:
    return ("--trust-peer", "--serve", f"127.0.0.1:{port}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    fill(tmp_path / "source", PAIRS)
    return tmp_path / "source"


def put(store: Path, value: int) -> str:
    """Change one key of a store, while other processes read it; return the new root."""
    return succeed("put", store, "key 1", value).strip()


def situation(store: Path, *addresses: str) -> str:
    peers = [word for address in addresses for word in ("--from", address)]
    return str(succeed_json("status", store, *peers)["situation"])


def test_replicas_of_replicas_show_each_root_of_the_source(source: Path, tmp_path: Path) -> None:
    first, second, hooked = tmp_path / "first", tmp_path / "second", tmp_path / "hooked"
    hook = f"echo $MERKLESYNC_ROOT $MERKLESYNC_REVISION $MERKLESYNC_STORE >> {hooked}"
    with (
        serving(source) as address,
        following(first, address, options=serving_options()) as follower,
        following(second, follower.address(), options=("--trust-peer", "--on-root", hook)) as last,
    ):
        for value in range(5):
            root = put(source, value)
            last.reach(root)
        assert situation(second, address) == "in sync"
        notes = last.stop(signal.SIGINT)
        assert "stopped: " in follower.stop()
    assert notes == ""
    listed = succeed_json("log", source)["revisions"]
    numbers = {each["root"]: each["revision"] for each in listed}
    for store in (first, second):
        assert content(store) == PAIRS | {b"key 1": b"4"}
        retained = succeed_json("log", store)["revisions"]
        assert [each["root"] for each in retained][:1] == [root]
        # What a replica has retained is what it has shown, under the numbers of the source.
        assert all(numbers[each["root"]] == each["revision"] for each in retained if each["revision"])
        assert succeed_json("check", store)["root"] == root
    assert last.roots == [(each["root"], each["revision"]) for each in reversed(retained) if each["revision"]]
    lines = [line.split() for line in hooked.read_text().splitlines()]
    assert [
        [root, str(number), str(second)]
        for root, number in last.roots
        if [root] in [each[:1] for each in lines]
    ] == lines


def test_whoever_is_killed_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ports = free_port(), free_port()
    addresses = [f"127.0.0.1:{port}" for port in ports]

    def serve(stack: ExitStack) -> subprocess.Popen[str]:
        server = stack.enter_context(start("serve", source, "--listen", addresses[0], "--json"))
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline()
        return server

    def follow(stack: ExitStack) -> Follower:
        return stack.enter_context(following(first, addresses[0], options=serving_options(ports[1])))

    def follow_further(stack: ExitStack) -> Follower:
        return stack.enter_context(following(second, addresses[1]))

    with ExitStack() as stack:
        server, follower = serve(stack), follow(stack)
        follower.address()
        last = follow_further(stack)
        last.reach(put(source, 0))

        server.kill()
        server.wait()
        root = put(source, 1)
        # Nobody can bring it, and nobody has lost anything.
        assert content(second) == PAIRS | {b"key 1": b"0"}
        server = serve(stack)
        last.reach(root)

        follower.stop(signal.SIGKILL)
        root = put(source, 2)
        assert content(first) == PAIRS | {b"key 1": b"1"}
        follower = follow(stack)
        follower.reach(root)
        last.reach(root)

        last.stop(signal.SIGKILL)
        root = put(source, 3)
        follower.reach(root)
        last = follow_further(stack)
        last.reach(root)
        # What it showed when it was killed comes first, so that nobody who reads its lines misses it.
        assert [number for _, number in last.roots] == [4, 5]
        for store in (first, second):
            assert content(store) == content(source)


def test_a_source_that_is_behind_changes_nothing_and_is_followed_once_it_is_ahead(
    source: Path, tmp_path: Path
) -> None:
    copy, port = tmp_path / "copy", free_port()
    shutil.copytree(source, tmp_path / "older")
    with ExitStack() as stack:
        with serving(source, port) as address:
            follower = stack.enter_context(following(copy, address))
            for value in range(3):
                root = put(source, value)
            follower.reach(root)
        shutil.rmtree(source)
        shutil.move(tmp_path / "older", source)
        with serving(source, port) as address:
            event = follower.fall_into("peers behind")
            assert (event["root"], event["revision"], event["peers"][0]["revision"]) == (root, 4, 1)
            assert situation(copy, address) == "peers behind"
            assert "is behind, or has lost what it had: revision 1" in succeed(
                "status", copy, "--from", address
            )
            assert content(copy) == PAIRS | {b"key 1": b"2"}
            # It commits anew, and gets ahead at last, with another content.
            for value in range(10, 14):
                root = put(source, value)
            follower.reach(root)
        assert content(copy) == PAIRS | {b"key 1": b"13"}
        assert succeed_json("check", copy)["root"] == root


def test_a_source_that_lost_everything_takes_nothing_with_it(source: Path, tmp_path: Path) -> None:
    copy, port = tmp_path / "copy", free_port()
    with ExitStack() as stack:
        with serving(source, port) as address:
            follower = stack.enter_context(following(copy, address, options=serving_options()))
            own_address = follower.address()
            follower.reach(put(source, 1))
        shutil.rmtree(source)
        fill(source, {})
        with serving(source, port) as address:
            assert follower.fall_into("peers behind")["revision"] == 2
            assert situation(copy, address) == "peers behind"
            assert content(copy) == PAIRS | {b"key 1": b"1"}
            # It still serves, so whoever lost everything can have all of it back.
            shutil.rmtree(source)
            succeed("sync", source, "--from", own_address, "--trust-peer")
        assert content(source) == PAIRS | {b"key 1": b"1"}


def test_a_replica_that_lost_everything_is_copied_in_full(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with serving(source) as address:
        with following(copy, address) as follower:
            follower.reach(put(source, 1))
        shutil.rmtree(copy)
        with following(copy, address) as follower:
            follower.reach(put(source, 2))
        assert content(copy) == content(source) == PAIRS | {b"key 1": b"2"}
        assert succeed_json("log", source)["revisions"][0]["revision"] == 3


def test_one_peer_of_several_is_enough(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with serving(source) as address, following(copy, f"127.0.0.1:{free_port()}", address) as follower:
        follower.reach(put(source, 1))
        # The content of another source is never mixed in, whatever it announces, unless it is ahead.
        fill(tmp_path / "other", {b"other": b""})
        with serving(tmp_path / "other") as other:
            assert situation(copy, other) == "peers behind"
            assert situation(copy, other, address) == "in sync"


def test_whoever_reads_no_lines_holds_up_nothing_and_gets_the_newest(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled_bytes = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled_bytes += os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    with serving(source) as address:
        arguments = ("follow", copy, "--from", address, "--trust-peer")
        with start(*arguments, stdout=writing) as process, os.fdopen(reading, "rb") as lines:
            os.close(writing)
            for value in range(8):
                root = put(source, value)
                wait_for_root(copy, root, process)
            newest = f"{root} 9\n".encode()
            assert lines.read(filled_bytes) == bytes(filled_bytes)
            shown = [*iter(lines.readline, newest), newest]
            process.terminate()
            finish(process)
    # The first line waited all the time; of those behind it the newest is left.  The store shows a root a
    # moment before its line comes, so the line before that may still have been the newest.
    assert len(shown) <= 3
    assert process.returncode == 0


def wait_for_root(store: Path, root: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while run("root", store).stdout.strip() != root:
        assert process.poll() is None
        assert time.monotonic() < deadline


# Roots that are written down.


def test_roots_come_from_standard_input_until_it_ends(source: Path, tmp_path: Path) -> None:
    roots = [commit(source, {b"key 1": b"%d" % value}) for value in range(3)]
    copy, hooked = tmp_path / "copy", tmp_path / "hooked"
    options = ("--roots", "-", "--on-root", f"sleep 0.1; echo $MERKLESYNC_REVISION >> {hooked}")
    with serving(source) as address, following(copy, address, options=options) as follower:
        stdin = follower.process.stdin
        assert stdin is not None
        print(roots[0], 2, file=stdin, flush=True)
        follower.reach(roots[0])
        print("nonsense\n", roots[2], 4, file=stdin, flush=True)
        follower.reach(roots[2])
        # An older root is as good, if that is what is wanted.
        print(roots[1], file=stdin)
        _, notes = finish(follower.process)
        assert follower.process.returncode == 0
    assert (
        notes == "Note: line 2 of the roots is left out: 'nonsense' is not a root: a root has 64 hex digits\n"
    )
    assert content(copy) == PAIRS | {b"key 1": b"1"}
    assert [each["root"] for each in succeed_json("log", copy)["revisions"]][:3] == [
        roots[1],
        roots[2],
        roots[0],
    ]
    # The command was not cut off in the middle of the last root.
    assert hooked.read_text().splitlines()[-1] == "5"


def test_a_root_that_is_named_with_a_lower_revision_gets_the_next_one_and_that_is_noted(
    source: Path, tmp_path: Path
) -> None:
    roots = [commit(source, {b"key 1": b"%d" % value}) for value in range(3)]
    copy = tmp_path / "copy"
    with serving(source) as address, following(copy, address, options=("--roots", "-")) as follower:
        stdin = follower.process.stdin
        assert stdin is not None
        print(roots[2], 40, file=stdin, flush=True)
        follower.reach(roots[2])
        print(roots[1], 3, file=stdin)
        _, notes = finish(follower.process)
        assert follower.process.returncode == 0
    assert notes == (
        "Note: the root was named with revision 3, and is revision 41 here: "
        "numbers of a store never go back\n"
    )
    newest, before, *_ = succeed_json("log", copy)["revisions"]
    assert (newest["root"], newest["revision"]) == (roots[1], 41)
    assert (before["root"], before["revision"]) == (roots[2], 40)


@pytest.mark.parametrize("options", [("--roots", "/dev/zero"), ("--roots", "-")])
def test_roots_without_an_end_of_a_line_are_refused(
    source: Path, tmp_path: Path, options: tuple[str, str]
) -> None:
    with serving(source) as address, Path("/dev/zero").open("rb") as zeros:
        process = start("follow", tmp_path / "copy", "--from", address, *options, stdin=zeros.fileno())
        _, notes = finish(process)
    assert process.returncode == 1
    assert "the roots have a line of more than 1,048,576 bytes" in notes


@pytest.mark.parametrize("roots", [os.devnull, "-"])
def test_no_roots_at_all_end_at_once_and_that_is_said(source: Path, tmp_path: Path, roots: str) -> None:
    with serving(source) as address:
        result = run("follow", tmp_path / "copy", "--from", address, "--roots", roots, stdin=b"")
    name = "standard input" if roots == "-" else roots
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"Note: {name} ended before it named a root, so nothing was followed: "
        "write a root in hex on each line\n"
    )
    assert content(tmp_path / "copy") == {}


def test_a_root_that_no_peer_knows_is_waited_for(source: Path, tmp_path: Path) -> None:
    copy, roots, port = tmp_path / "copy", tmp_path / "roots", free_port()
    shutil.copytree(source, tmp_path / "newer")
    future = commit(tmp_path / "newer", {b"key 1": b"future"})
    known = succeed("root", source).strip()
    roots.write_text(known + "\n")
    with ExitStack() as stack:
        with serving(source, port) as address:
            follower = stack.enter_context(following(copy, address, options=("--roots", roots)))
            follower.reach(known)
            with roots.open("a") as file:
                print(future, file=file)
            assert follower.fall_into("no peer knows the target")["target"] == future
            assert content(copy) == PAIRS
        with serving(tmp_path / "newer", port):
            follower.reach(future)
        assert content(copy) == PAIRS | {b"key 1": b"future"}


def test_a_follower_feeds_another_through_a_pipe(source: Path, tmp_path: Path) -> None:
    root = commit(source, {b"key 1": b"1"})
    with serving(source) as address:
        with start("follow", tmp_path / "first", "--from", address, "--trust-peer") as first:
            assert first.stdout is not None
            line = first.stdout.readline()
            first.send_signal(signal.SIGTERM)
            finish(first)
        assert line == f"{root} 2\n"
        arguments = ("follow", tmp_path / "second", "--from", address, "--roots", "-")
        with start(*arguments, stdin=subprocess.PIPE) as second:
            assert second.communicate(line)[0] == line
    assert succeed_json("log", tmp_path / "second")["revisions"][0]["revision"] == 2


# How it ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_command_that_it_runs(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    os.mkfifo(tmp_path / "begun")
    hook = f"echo $$ > {tmp_path}/begun; exec sleep 1000"
    with (
        serving(source) as address,
        following(tmp_path / "copy", address, options=("--trust-peer", "--on-root", hook)) as follower,
    ):
        process_id = int((tmp_path / "begun").read_text())
        follower.stop(number)
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def test_content_written_here_is_replaced_only_when_allowed(source: Path, tmp_path: Path) -> None:
    fill(tmp_path / "mine", {b"mine": b"precious"})
    with serving(source) as address:
        arguments = ("follow", tmp_path / "mine", "--from", address)
        assert "add --replace" in fail(1, *arguments, "--trust-peer")
        assert content(tmp_path / "mine") == {b"mine": b"precious"}
        root = succeed("root", source)
        with standard_input(root.encode()):
            assert succeed(*arguments, "--replace", "--roots", "-") == f"{root.strip()} 2\n"
    assert content(tmp_path / "mine") == PAIRS


def test_a_new_store_needs_a_peer_that_answers(tmp_path: Path) -> None:
    sentence = fail(4, "follow", tmp_path / "copy", "--from", f"127.0.0.1:{free_port()}", "--trust-peer")
    assert "no peer could be reached" in sentence
    assert not (tmp_path / "copy").exists()


def test_roots_that_cannot_be_read_end_it(source: Path, tmp_path: Path) -> None:
    with serving(source) as address:
        sentence = fail(
            1, "follow", tmp_path / "copy", "--from", address, "--roots", tmp_path / "missing", "--json"
        )
    assert "No such file" in sentence


def test_a_peer_of_another_scheme_ends_it(source: Path, tmp_path: Path) -> None:
    fill(tmp_path / "copy", {}, "--hasher", "sha256")
    with serving(source) as address:
        sentence = fail(1, "follow", tmp_path / "copy", "--from", address, "--trust-peer")
        assert "it serves blake3 with branch factor 16" in sentence
        shown = succeed("status", tmp_path / "copy", "--from", address)
    assert "no peer reachable" in shown
    assert "not the scheme of this store" in shown


def test_people_read_notes(source: Path, tmp_path: Path) -> None:
    root = succeed("root", source).strip()
    arguments = ("follow", tmp_path / "copy", "--roots", "-", "--serve", ":0", "--on-root", "exit 3")
    with serving(source) as address, standard_input(root.encode()):
        result = run(*arguments, "--from", address)
    assert (result.exit_code, result.stdout) == (0, f"{root} 1\n")
    assert "Note: serving at 127.0.0.1:" in result.stderr
    assert f"Note: the command of --on-root ended with exit code 3 for root {root}\n" in result.stderr
    assert "Note: stopped: 0 answers, 0 bytes sent\n" in result.stderr


def test_a_root_that_came_back_is_followed_under_its_new_revision(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    first = fill(source, {b"a": b"1"})
    with serving(source) as address, following(copy, address) as follower:
        follower.reach(first)
    commit(source, {b"a": b"2"})
    assert commit(source, {b"a": b"1"}) == first
    hooked = tmp_path / "hooked"
    with serving(source) as address:
        assert situation(copy, address) == "in sync"
        hook = f"echo $MERKLESYNC_ROOT $MERKLESYNC_REVISION >> {hooked}"
        with following(copy, address, options=("--trust-peer", "--on-root", hook)) as follower:
            while (first, 3) not in follower.roots:
                follower._next()
        assert situation(copy, address) == "in sync"
    assert [(each["revision"], each["root"]) for each in succeed_json("log", copy)["revisions"]] == [
        (3, first),
        (1, first),
    ]
    # As the last line of a stream that ends, it is waited for.
    with serving(source) as address, standard_input(f"{first}\n".encode()):
        assert succeed("follow", tmp_path / "told", "--roots", "-", "--from", address) == f"{first} 1\n"
    with serving(source) as address, standard_input(f"{first} 3\n".encode()):
        shown = succeed("follow", tmp_path / "told", "--roots", "-", "--from", address)
    assert shown == f"{first} 1\n{first} 3\n"


def test_a_source_that_began_again_has_diverged(source: Path, tmp_path: Path) -> None:
    copy, port = tmp_path / "copy", free_port()
    root = put(source, 2)
    with serving(source, port) as address, following(copy, address) as follower:
        follower.reach(root)
    shutil.rmtree(source)
    fill(source, {b"new": b"1"})
    commit(source, {b"new": b"2"})
    with serving(source, port) as address, following(copy, address) as follower:
        event = follower.fall_into("diverged")
        shown = succeed("status", copy, "--from", address)
    assert event["root"] == root
    assert "has diverged: this revision has or had another content here: revision 2" in shown
    assert "situation diverged: no peer shows what is here" in " ".join(shown.split())
    assert succeed("root", copy).strip() == root


def test_roots_that_are_written_anew_in_place_are_followed(source: Path, tmp_path: Path) -> None:
    roots, copy = tmp_path / "roots", tmp_path / "copy"
    first = succeed("root", source).strip()
    second = put(source, 5)
    roots.write_text(f"{first} 1\n")
    with serving(source) as address, following(copy, address, options=("--roots", roots)) as follower:
        follower.reach(first)
        roots.write_text(f"{second} 2\n")
        follower.reach(second)
    assert follower.roots == [(first, 1), (second, 2)]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no other process's limits can be set here")
def test_a_follower_serves_on_while_its_disk_is_full_and_goes_on_when_it_is_not(
    source: Path, tmp_path: Path
) -> None:
    copy, root = tmp_path / "copy", succeed("root", source).strip()
    with (
        serving(source) as address,
        following(copy, address, options=serving_options()) as follower,
    ):
        served_at = follower.address()
        follower.reach(root)
        # No file may grow any more, as on a full disk.
        size = (copy / "data.mdb").stat().st_size
        _, hard = resource.prlimit(follower.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(follower.process.pid, resource.RLIMIT_FSIZE, (size, hard))
        newest = commit(source, {b"large %d" % number: bytes(500_000) for number in range(8)})
        event = follower.fall_into("no room")
        assert "is full" in event["reason"]
        assert event["root"] == root
        assert succeed_json("status", served_at)["root"] == root
        third = tmp_path / "third"
        assert succeed_json("sync", third, "--from", served_at, "--root", root)["root"] == root
        resource.prlimit(follower.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        follower.reach(newest)
        assert follower.fall_into("in sync")["reason"] == ""
    assert content(copy) == content(source)


class FakeManager:
    """A manager that is in one situation after the other, by the second."""

    def __init__(self, situations: Sequence[SyncStatus]) -> None:
        self._situations = situations

    @property
    def progress(self) -> Progress:
        situation = self._situations[min(int(trio.current_time()), len(self._situations) - 1)]
        peers = (PeerProgress("a:1", PeerState.WAITING, 1.0, 0, 0, "no connection"),)
        return Progress(situation, None, None, 0, 5, 0, 0, None, 0.25, None, None, 0.0, None, peers)


async def tell_at_once(tell: Callable[[Progress], None], progress: Progress) -> None:
    tell(progress)


@pytest.mark.parametrize(
    ("situations", "notes"),
    [
        ([SyncStatus.IN_SYNC], ["in sync"]),
        ([SyncStatus.NO_TARGET, SyncStatus.FIRST_COPY, SyncStatus.IN_SYNC], ["in sync"]),
        ([SyncStatus.IN_SYNC] * 5 + [SyncStatus.CATCHING_UP, SyncStatus.IN_SYNC] * 5, ["in sync"]),
        (
            [SyncStatus.IN_SYNC] * 5 + [SyncStatus.PEERS_BEHIND] * 100 + [SyncStatus.IN_SYNC],
            ["in sync", "peers behind", "in sync"],
        ),
        (
            [SyncStatus.IN_SYNC] * 5 + [SyncStatus.CATCHING_UP, SyncStatus.NO_PEER_KNOWS_TARGET] * 9,
            ["in sync", "no peer knows the target"],
        ),
        ([SyncStatus.FIRST_COPY] * 80 + [SyncStatus.IN_SYNC], ["first copy"] * 3 + ["in sync"]),
    ],
)
async def test_a_situation_that_lasts_is_noted_and_work_that_lasts_again(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    situations: list[SyncStatus],
    notes: list[str],
) -> None:
    # The clock would not wait for a thread.
    monkeypatch.setattr(follower_module, "print_in_thread", tell_at_once)
    for printer in (EventPrinter(as_json=False), EventPrinter(as_json=True)):
        manager: Any = FakeManager([*situations[:1] * int(trio.current_time()), *situations])
        follower = follower_module.Follower(None, manager, printer, None, None)  # type: ignore[arg-type]  # unused here
        with trio.move_on_after(len(situations) + 20):
            await follower._print_status()
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [line.removeprefix("Note: ").split(":")[0] for line in lines] == notes
    assert all(line.endswith("; a:1: no connection") for line in lines)
    assert all(("(25% is done)" in line) == ("copy" in line) for line in lines)
    assert [json.loads(line)["situation"] for line in captured.out.splitlines()] == notes
