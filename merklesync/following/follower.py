"""A replica kept current until a signal comes or its source of roots ends: the engine of ``follow``.

::

    peers --> Manager.follow --> roots reached --> standard output, --on-root, the subscribers of --serve
                    ^
        --roots, or with --trust-peer what peers announce

Invariant: a slow reader of standard output and a slow command of ``--on-root`` do not delay the replica; they
get the newest root instead of every root.
"""

from pathlib import Path
from typing import Final

import trio

from manager import Manager, Reached, ReachedStream, SyncStatus
from manager.peers.address import Address
from manager.scheduling.pivot import Target
from merkledb import Database
from merklesync.console.output import format_server_totals, print_note
from merklesync.console.signals import wait_for_stop_signals
from merklesync.errors import CommandError
from merklesync.files.paths import STANDARD_STREAM
from merklesync.following.events import ACTIVE_STATUSES, EventPrinter, print_in_thread
from merklesync.following.root_hook import RootHook
from merklesync.following.root_source import read_targets
from server import Server, addresses_of, open_listeners

# A status that lasts less than this is not printed: a replica of a store that is written all the time changes
# between two of them several times a second.
STATUS_SETTLE_SECONDS: Final = 2.0
# How often the share that is done is printed, while work lasts.
PROGRESS_INTERVAL_SECONDS: Final = 30.0


class Follower:
    """One run of ``follow``.

    Args:
        database: The replica.
        manager: Of the replica.
        printer: Prints roots and statuses.
        roots: The file that names the targets; None where peers announce them.
        hook: Runs a command for each root; None where there is none.
    """

    def __init__(
        self,
        database: Database,
        manager: Manager,
        printer: EventPrinter,
        roots: Path | None,
        hook: RootHook | None,
    ) -> None:
        self._database = database
        self._manager = manager
        self._printer = printer
        self._roots = roots
        self._hook = hook
        self._server: Server | None = None
        self._following = trio.CancelScope()
        # Whether standard input, where the targets came from, has ended.
        self._source_ended = False
        # How many complaints there were about its lines.
        self._lines_left_out = 0
        self._named: Target | None = None
        # The root and number that were printed last, or that the store had at the start.
        self._printed: tuple[bytes | None, int] | None = None

    async def run(self, listen_address: Address | None) -> None:
        """Follow until a signal comes, or the last of the targets is reached.

        Cancelled, the store keeps what was committed; a sync that was under way can go on later.

        Args:
            listen_address: Where to serve the store as well; None where it is not served.

        Raises:
            CommandError: All lines of the targets were left out.
        """
        async with trio.open_nursery() as stopping:
            # The first signal ends the following and lets answers in flight be sent; the second ends all.
            await stopping.start(wait_for_stop_signals, self._following.cancel, stopping.cancel_scope.cancel)
            async with trio.open_nursery() as serving:
                if listen_address is not None:
                    await self._serve(listen_address, serving)
                with self._following:
                    await self._follow()
                if self._server is not None:
                    self._server.stop()
            stopping.cancel_scope.cancel()
        if self._server is not None:
            print_note(f"stopped: {format_server_totals(self._server)}")
        if self._source_ended and self._manager.target is None:
            if self._lines_left_out:
                raise CommandError(
                    "no line named a root that can be followed: write a root in hex on each line"
                )
            print_note(
                f"{_name_of(self._roots)} ended before it named a root, so nothing was followed: "
                "write a root in hex on each line"
            )

    async def _serve(self, listen_address: Address, serving: trio.Nursery) -> None:
        listeners = await open_listeners(*listen_address)
        self._server = Server(self._database)
        await serving.start(self._server.serve, listeners)
        self._printer.serving([Address(*bound) for bound in addresses_of(listeners)])

    async def _follow(self) -> None:
        reached = self._manager.roots()
        async with trio.open_nursery() as nursery:
            if self._hook is not None:
                nursery.start_soon(self._hook.run)
            nursery.start_soon(self._print_roots, reached)
            nursery.start_soon(self._print_status)
            if self._roots is not None:
                nursery.start_soon(self._read_targets, self._roots)
            await self._manager.follow()

    # Targets.

    async def _read_targets(self, source: Path) -> None:
        await read_targets(source, self._update_target, self._complain)
        self._source_ended = True
        await self._end_if_last()

    def _complain(self, note: str) -> None:
        self._lines_left_out += 1
        print_note(note)

    def _update_target(self, target: Target) -> None:
        self._named = target
        self._manager.update_target(*target)

    def _note_other_number(self, reached: Reached) -> None:
        """Say that a root has another number here than it was named with: the number here was higher."""
        named = self._named
        if (
            named is not None
            and named.root == reached.root
            and named.revision not in (None, reached.revision)
        ):
            print_note(
                f"the root was named with revision {named.revision}, and is revision {reached.revision} "
                "here: numbers of a store never go back"
            )

    async def _end_if_last(self) -> None:
        """End when the store shows the last target, its line is printed, and the hook has run for it.

        It may wait for the hook; a cancellation meanwhile leaves that to ``RootHook.run`` to end.
        Called after each change of these three, because any of them may be the last.
        """
        progress = self._manager.progress
        is_printed = self._printed == (progress.root, progress.revision)
        if self._source_ended and (progress.target is None or (self._manager.is_at_target and is_printed)):
            if self._hook is not None:
                await self._hook.wait_until_idle()
            self._following.cancel()

    # Events.

    async def _print_roots(self, reached_roots: ReachedStream) -> None:
        """Print each root that the store shows, the one at the start included if it is a copy.

        A slow reader loses roots, not time: the stream gives the newest root after each line.  Lines are
        printed in a thread; a cancellation does not wait for one that a reader holds up.
        """
        head = self._database.head
        first: Reached | None = None
        self._printed = (None, 0) if head is None else (head.root, head.number)
        if head is not None and head.number and not self._database.written_locally:
            first = Reached(head.root, head.number, head.keys)
            await self._print_root(first)
        async for reached in reached_roots:
            if reached != first:
                await self._print_root(reached)

    async def _print_root(self, reached: Reached) -> None:
        if self._server is not None:
            self._server.announce()
        if self._hook is not None:
            self._hook.enqueue_newest(reached)
        await print_in_thread(self._printer.root, reached)
        self._note_other_number(reached)
        self._printed = (reached.root, reached.revision)
        await self._end_if_last()

    async def _print_status(self) -> None:
        """Print the sync status when the printed one is over for good, and again while work goes on.

        A status is over when it was not seen for STATUS_SETTLE_SECONDS.  To wait until a *new* one has lasted
        so long would print nothing while a replica changes between two others all the time.  Printed in a
        thread, as roots are; a cancellation leaves nothing behind.
        """
        printed: SyncStatus | None = None
        printed_at, seen_at = 0.0, trio.current_time()
        while True:
            progress, now = self._manager.progress, trio.current_time()
            if progress.status is printed:
                seen_at = now
            is_over = now - seen_at >= STATUS_SETTLE_SECONDS
            is_due = (
                progress.status is printed
                and printed in ACTIVE_STATUSES
                and now - printed_at >= PROGRESS_INTERVAL_SECONDS
            )
            if is_over or is_due:
                await print_in_thread(self._printer.status, progress)
                printed, printed_at, seen_at = progress.status, now, now
            await trio.sleep(STATUS_SETTLE_SECONDS / 2)


def _name_of(roots: Path | None) -> str:
    return "standard input" if roots == STANDARD_STREAM else str(roots)
