"""The command ``follow``: a replica that stays current, and serves further replicas if it is told to.

::

    peers --> Manager.follow --> roots reached --> standard output, --on-root, the subscribers of --serve
                    ^
        --roots, or with --trust-peer what peers announce

Standard output has one line for each root that the store shows, standard error whatever else there is to
say.  With ``--json`` standard output has one document a line, and how the replica stands is among them.
Neither whoever reads these lines nor the command of ``--on-root`` holds up the replica: who is slow gets the
newest root.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click
import trio

from manager import LocalContent, Manager, Progress, Reached, ReachedStream, SyncStatus
from manager.peers.address import Address
from manager.scheduling.pivot import Target
from merkledb import Database
from merklesync.hooks import RootHook
from merklesync.options import (
    ADDRESS,
    PATH,
    Retention,
    SchemeChoice,
    from_option,
    retention_options,
    scheme_options,
    store_argument,
)
from merklesync.output import echo, note, print_json
from merklesync.peers import PATIENCE_SECONDS, met_peers
from merklesync.serving import note_who_can_read, show_served
from merklesync.situations import sentence
from merklesync.stores import is_store, open_for_syncing
from merklesync.syncs import content_protected, scheme_of_new
from merklesync.targets import read_targets
from merklesync.tasks import on_stop_signal, run
from server import Server, addresses_of, open_listeners

# A situation that is over sooner is of no interest to people; a replica of a store that is written all the
# time changes between two of them several times a second.
SETTLED_SECONDS: Final = 2.0
# How often work that takes long says how far it is.
REPEAT_SECONDS: Final = 30.0
Told = TypeVar("Told")
_WORK: Final = frozenset({SyncStatus.FIRST_COPY, SyncStatus.COPYING, SyncStatus.CATCHING_UP})


@click.command()
@store_argument
@from_option
@click.option("--trust-peer", is_flag=True, help="Follow what the peers say that their newest root is.")
@click.option(
    "--roots",
    type=PATH,
    metavar="FILE",
    help="Follow the roots that are written to FILE, from somebody you trust; - is standard input.",
)
@click.option(
    "--on-root",
    metavar="COMMAND",
    help="Run it for each root reached, with MERKLESYNC_ROOT, MERKLESYNC_REVISION and MERKLESYNC_STORE.",
)
@click.option(
    "--serve",
    "address",
    metavar="HOST:PORT",
    type=ADDRESS,
    help="Serve STORE as well; port 0 lets the system choose one.",
)
@click.option("--replace", is_flag=True, help="Replace content that was written to STORE here.")
@scheme_options("of a new store")
@retention_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON documents instead, one a line.")
def follow(  # noqa: PLR0913 - one parameter for each argument and option
    store: Path,
    *,
    addresses: tuple[Address, ...],
    trust_peer: bool,
    roots: Path | None,
    on_root: str | None,
    address: Address | None,
    replace: bool,
    scheme: SchemeChoice,
    retention: Retention,
    as_json: bool,
) -> None:
    """Keep STORE a verified copy of the newest root, until SIGINT (Ctrl-C) or SIGTERM.

    The newest root is the one that a peer announces with the highest revision (--trust-peer), or the last
    line of --roots: a root in hex and, if it is known, its revision. A root that comes back under a higher
    revision is a newer one. Every pair and every change is verified against it. STORE goes on showing its
    last complete root meanwhile; the next appears all at once. A line is printed for the root that STORE is a
    copy of at the start, and for each that it reaches: the root and its revision, which another follow can
    read as its --roots.

    \b
    STORE is behind        it is brought forward by changes; where no peer has
                           the history for that, its content is copied in full.
    A peer is behind, or   STORE stays as it is, other peers are tried, and the
    does not know a root   peer is followed again as soon as it is ahead.
    A peer lost everything STORE stays as it is, and so does all that it serves.
    A peer began again     STORE stays as it is until the peer's revision is
                           higher; with --trust-peer it is followed then.
    The disk is full       STORE stays as it is and is served, and writing is
                           tried again, until there is room.
    STORE lost everything  it is copied in full; a new STORE needs a peer that
                           answers at the start.

    Which of these holds is noted on standard error; status STORE --from HOST:PORT shows it at any time, also
    while nobody follows.

    A FILE is followed for ever, whether it grows, is written anew in place, or is replaced; the last line
    that names a root counts. A FIFO is followed for ever, too; when standard input has ended, follow ends as
    soon as its last root is reached. The COMMAND is run by sh, once at a time, for the newest root when it is
    slow; its output goes to standard error, and when it fails, that is noted. It is run for the root that
    STORE is a copy of at the start, too, so that none is missed. At the end it is told to end, and killed
    after 5 seconds.

    JSON, a line each: {"event": "root", root, revision, keys}; {"event": "serving", address, addresses};
    {"event": "situation", situation, target, root, revision, synced_keys, synced_changes, share, reason,
    peers}.
    """  # noqa: D301 - click wants the backspace itself
    if (roots is None) != trust_peer:
        raise click.UsageError("give either --roots FILE or --trust-peer", click.get_current_context())
    if not is_store(store):
        scheme = scheme_of_new(met_peers(addresses, PATIENCE_SECONDS), scheme, trust_peer=trust_peer)
    teller = _Teller(as_json)
    with open_for_syncing(store, scheme, retention) as database, content_protected(database):
        if database.written_locally and not replace:
            # Before a target is known, for whatever is followed will sooner or later be something else.
            raise LocalContent(database.root)
        manager = Manager(database, list(dict.fromkeys(addresses)), replace=replace, trust_peers=trust_peer)
        hook = RootHook(on_root, store, note) if on_root is not None else None
        run(_Follower(database, manager, teller, roots, hook).run, address)


class _Teller(NamedTuple):
    """Says what happens, for people or for machines; its methods wait for whoever reads that."""

    as_json: bool

    def root(self, reached: Reached) -> None:
        if self.as_json:
            document = {"root": reached.root.hex(), "revision": reached.revision, "keys": reached.keys}
            print_json({"event": "root", **document})
        else:
            echo(f"{reached.root.hex()} {reached.revision}")

    def serving(self, addresses: list[Address]) -> None:
        names = list(map(str, addresses))
        if self.as_json:
            print_json({"event": "serving", "address": names[0], "addresses": names})
            return
        note(f"serving at {', '.join(names)}")
        note_who_can_read(addresses)

    def status(self, progress: Progress) -> None:
        if self.as_json:
            print_json({"event": "situation", **_describe(progress)})
            return
        done = f" ({progress.share:.0%} is done)" if progress.status in _WORK else ""
        reasons = "".join(f"; {peer.name}: {peer.reason}" for peer in progress.peers if peer.reason)
        lack = f" ({progress.reason})" if progress.reason else ""
        note(f"{sentence(progress.status)}{done}{lack}{reasons}")


def _describe(progress: Progress) -> dict[str, Any]:
    return {
        "situation": str(progress.status),
        "target": _hex(progress.target),
        "root": _hex(progress.root),
        "revision": progress.revision,
        "synced_keys": progress.keys,
        "synced_changes": progress.changes,
        "share": progress.share,
        "reason": progress.reason,
        "peers": [
            {
                "name": peer.name,
                "state": str(peer.state),
                "root": _hex(peer.root),
                "revision": peer.revision,
                "reason": peer.reason,
            }
            for peer in progress.peers
        ],
    }


async def _aside(tell: Callable[[Told], None], told: Told) -> None:
    """Say something without letting the replica wait for whoever reads it."""
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        tell(told)

    try:
        await trio.to_thread.run_sync(begin, abandon_on_cancel=True)
    except RuntimeError:
        if begun:
            raise
        # The system has no thread to give, so the replica has to wait after all.
        tell(told)


def _hex(root: bytes | None) -> str | None:
    return None if root is None else root.hex()


class _Follower:
    """One run of ``follow``.

    Args:
        database: The replica.
        manager: Of the replica.
        teller: Says what happens.
        roots: Where the targets are written; None where peers announce them.
        hook: Runs a command for each root; None where there is none.
    """

    def __init__(
        self, database: Database, manager: Manager, teller: _Teller, roots: Path | None, hook: RootHook | None
    ) -> None:
        self._database = database
        self._manager = manager
        self._teller = teller
        self._roots = roots
        self._hook = hook
        self._server: Server | None = None
        self._following = trio.CancelScope()
        # Whether no target will be named after the present one.
        self._is_last = False
        # The root and number that were told last, or that there were at the start.
        self._told: tuple[bytes | None, int] | None = None

    async def run(self, address: Address | None) -> None:
        """Follow until a signal comes, or the last of the targets is reached."""
        async with trio.open_nursery() as stopping:
            await stopping.start(on_stop_signal, self._following.cancel, stopping.cancel_scope.cancel)
            async with trio.open_nursery() as serving:
                if address is not None:
                    await self._serve(address, serving)
                with self._following:
                    await self._follow()
                if self._server is not None:
                    self._server.stop()
            stopping.cancel_scope.cancel()
        if self._server is not None:
            note(f"stopped: {show_served(self._server)}")

    async def _serve(self, address: Address, serving: trio.Nursery) -> None:
        listeners = await open_listeners(*address)
        self._server = Server(self._database)
        await serving.start(self._server.serve, listeners)
        self._teller.serving([Address(*bound) for bound in addresses_of(listeners)])

    async def _follow(self) -> None:
        reached = self._manager.roots()
        async with trio.open_nursery() as nursery:
            if self._hook is not None:
                nursery.start_soon(self._hook.run)
            nursery.start_soon(self._tell_roots, reached)
            nursery.start_soon(self._tell_situations)
            if self._roots is not None:
                nursery.start_soon(self._read_targets, self._roots)
            await self._manager.follow()

    # Targets.

    async def _read_targets(self, source: Path) -> None:
        await read_targets(source, self._aim, note)
        self._is_last = True
        await self._end_at_last()

    def _aim(self, target: Target) -> None:
        self._manager.update_target(*target)

    async def _end_at_last(self) -> None:
        """End when the database shows the last target, and all is done that is to be done for it."""
        progress = self._manager.progress
        is_told = self._told == (progress.root, progress.revision)
        if self._is_last and (progress.target is None or (self._manager.is_at_target and is_told)):
            if self._hook is not None:
                await self._hook.finished()
            self._following.cancel()

    # What is to be said.

    async def _tell_roots(self, reached_roots: ReachedStream) -> None:
        """Say, for each root, that the database shows it."""
        head = self._database.head
        first: Reached | None = None
        self._told = (None, 0) if head is None else (head.root, head.number)
        if head is not None and head.number and not self._database.written_locally:
            first = Reached(head.root, head.number, head.keys)
            await self._tell_root(first)
        async for reached in reached_roots:
            if reached != first:
                await self._tell_root(reached)

    async def _tell_root(self, reached: Reached) -> None:
        if self._server is not None:
            self._server.announce()
        if self._hook is not None:
            self._hook.offer(reached)
        await _aside(self._teller.root, reached)
        self._told = (reached.root, reached.revision)
        await self._end_at_last()

    async def _tell_situations(self) -> None:
        """Say how the replica stands: when what was said is over for good, and while work goes on.

        It is over when no look shows it for a while, so a replica that changes between two other situations
        all the time is not taken for what it was before.
        """
        told: SyncStatus | None = None
        told_at, true_at = 0.0, trio.current_time()
        while True:
            progress, now = self._manager.progress, trio.current_time()
            if progress.status is told:
                true_at = now
            is_over = now - true_at >= SETTLED_SECONDS
            is_due = progress.status is told and told in _WORK and now - told_at >= REPEAT_SECONDS
            if is_over or is_due:
                await _aside(self._teller.status, progress)
                told, told_at, true_at = progress.status, now, now
            await trio.sleep(SETTLED_SECONDS / 2)
