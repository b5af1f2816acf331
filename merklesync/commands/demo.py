"""The command ``demo``: everything once, with a real folder and two processes.

A folder is loaded into a store, a second process serves it over TCP, this one copies it, verifying every pair
against the root, and then both stores are checked and compared pair by pair.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import click

import merkledb
from manager.peers.address import Address
from manager.scheduling.pivot import Target
from merkledb import DatabaseFull, Scheme
from merklesync.commands.load import load_folder, skipped_facts
from merklesync.commands.options import (
    LOOPBACK,
    PATH,
    SchemeOption,
    json_option,
    parse_listen_address,
    scheme_options,
)
from merklesync.commands.stores import check_with_bar, scheme_as_json
from merklesync.commands.sync import sync_store
from merklesync.console.bar import CountedPairs, progress_bar, wants_bar
from merklesync.console.output import echo, format_seconds, format_size, print_facts, print_json, print_note
from merklesync.errors import CommandError, ExitCode
from merklesync.files.bulk_load import LoadCounts
from merklesync.files.tree_reader import SkippedFiles
from merklesync.text import quote_bytes

# What a server needs to end in good order; after that it is cut off.
SERVER_END_SECONDS: Final = 10.0
# The steps whose keys a second are of interest.
TIMED_STEPS: Final = ("load", "sync")
# Where Python looks for it, the server of the demo is this package and no other.
_CODE_FOLDER: Final = Path(__file__).resolve().parent.parent


@click.command()
@click.argument("folder", type=PATH, required=False)
@click.option("--keep", is_flag=True, help="Keep both stores, and say where they are.")
@scheme_options("of the stores")
@json_option
def demo(folder: Path | None, *, keep: bool, scheme_option: SchemeOption, as_json: bool) -> None:
    """Load FOLDER into a store, serve it from a second process, sync it into a new store, compare both.

    FOLDER is the library of the running Python unless you name another. Nothing of it is changed; the stores
    are made in a temporary folder, which is removed at the end.

    JSON: folder, keys, bytes (of all keys and values), root, hasher, branch_factor, seconds (of load, sync,
    check, compare), keys_per_second (of load, sync), kept (null, or where the stores are).
    """
    source = folder or default_folder()
    # Packages that were installed into the library's folder do not belong to it.
    excluded = () if folder else (source / "site-packages",)
    with _work_folder(keep=keep) as work:
        run = _Demo(work, scheme_option.with_defaults(), {}, shows_progress=wants_bar(as_json=as_json))
        try:
            loaded, skipped = run.load(source, excluded)
            run.copy()
            run.check()
            run.compare()
        except DatabaseFull as error:
            raise CommandError(f"{error}; TMPDIR can name a folder with more room") from error
        report = _DemoReport(source, run, loaded, run.root)
    if as_json:
        print_json({**report.document(), "kept": str(work) if keep else None})
        return
    print_facts({**skipped_facts(skipped), **report.facts()})
    echo("Both stores hold the same pairs, and each was derived again from its values.")
    if keep:
        print_note(f"both stores are in {work}")


def default_folder() -> Path:
    """Return a folder of some thousand files that every machine has: the library of the running Python."""
    return Path(sysconfig.get_path("stdlib"))


@dataclass(frozen=True)
class _Demo:
    """One run of the demo: the store that is served and the one it is copied into.

    Attributes:
        work: The folder that holds both.
        scheme: Of both.
        seconds: How long each step took.
        shows_progress: Whether to draw progress bars.
    """

    work: Path
    scheme: Scheme
    seconds: dict[str, float]
    shows_progress: bool

    @property
    def served(self) -> Path:
        return self.work / "served"

    @property
    def copied(self) -> Path:
        return self.work / "copied"

    @property
    def root(self) -> bytes:
        with merkledb.open(self.served, scheme=None, readonly=True) as database:
            return database.root

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.seconds[name] = perf_counter() - began

    def load(self, folder: Path, excluded: tuple[Path, ...]) -> tuple[LoadCounts, SkippedFiles]:
        with self._timed("load"), merkledb.open(self.served, scheme=self.scheme) as database:
            return load_folder(
                database, folder, replace=False, excluded=excluded, shows_progress=self.shows_progress
            )

    def copy(self) -> None:
        root = self.root
        with (
            _server_process(self.served) as address,
            merkledb.open(self.copied, scheme=self.scheme) as database,
            self._timed("sync"),
            progress_bar("syncing", shows_progress=self.shows_progress) as bar,
        ):
            sync_store(database, (address,), Target(root), replace=False, trust_peers=False, bar=bar)

    def check(self) -> None:
        with self._timed("check"):
            for path in (self.served, self.copied):
                with (
                    merkledb.open(path, scheme=None, readonly=True) as database,
                    progress_bar(f"checking {path.name}", shows_progress=self.shows_progress) as bar,
                ):
                    check_with_bar(database, bar)

    def compare(self) -> None:
        with (
            self._timed("compare"),
            merkledb.open(self.served, scheme=None, readonly=True) as served,
            merkledb.open(self.copied, scheme=None, readonly=True) as copied,
            progress_bar("comparing", shows_progress=self.shows_progress) as bar,
        ):
            pairs = CountedPairs(served.items(), bar, total_keys=len(served))
            for ours, theirs in zip_longest(pairs, copied.items()):
                if ours != theirs:
                    key = (ours or theirs)[0]
                    raise CommandError(f"the copy differs at {quote_bytes(key)}", ExitCode.NOT_VERIFIED)


class _DemoReport(NamedTuple):
    source: Path
    run: _Demo
    loaded: LoadCounts
    root: bytes

    def document(self) -> dict[str, Any]:
        """Return it as fields of a JSON document."""
        return {
            "folder": str(self.source),
            "keys": self.loaded.keys,
            "bytes": self.loaded.size_bytes,
            "root": self.root.hex(),
            **scheme_as_json(self.run.scheme),
            "seconds": self.run.seconds,
            "keys_per_second": self._rates(),
        }

    def facts(self) -> dict[str, str]:
        """Return it for people."""
        return {
            "folder": str(self.source),
            "keys": f"{self.loaded.keys:,}",
            "bytes": f"{self.loaded.size_bytes:,} ({format_size(self.loaded.size_bytes)})",
            **{name: format_seconds(seconds) for name, seconds in self.run.seconds.items()},
            "keys a second": ", ".join(f"{rate:,.0f} ({name})" for name, rate in self._rates().items()),
            "root": self.root.hex(),
        }

    def _rates(self) -> dict[str, float]:
        return {name: self.loaded.keys / self.run.seconds[name] for name in TIMED_STEPS}


@contextmanager
def _work_folder(*, keep: bool) -> Iterator[Path]:
    """Give a new folder; remove it at the end, unless it is to be kept."""
    work = Path(tempfile.mkdtemp(prefix="merklesync-demo-"))
    try:
        yield work
    finally:
        if not keep:
            shutil.rmtree(work)


@contextmanager
def _server_process(store: Path) -> Iterator[Address]:
    """Serve a store from a process of its own, on a port that the system chooses; give the address."""
    listen = ["--listen", f"{LOOPBACK}:0", "--json"]
    command = [sys.executable, "-m", "merklesync", "serve", str(store), *listen]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, cwd=_CODE_FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            # It is asked for a pipe above.
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                _, sentence = server.communicate()
                raise CommandError(f"the server could not be started: {sentence.strip()}")
            yield parse_listen_address(json.loads(line)["address"])
        finally:
            server.terminate()
            try:
                server.communicate(timeout=SERVER_END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
