"""What ``follow`` prints: each root that is reached, the addresses it serves at, and its sync status.

Standard output has one line for each root that the store shows, standard error everything else.  With
``--json`` standard output has one document a line, and the sync status is among them.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import trio

from manager import Progress, Reached, SyncStatus
from manager.peers.address import Address
from merklesync.console.output import echo, note_if_public, print_json, print_note, root_as_json
from merklesync.following.status_text import status_sentence

Event = TypeVar("Event")
ACTIVE_STATUSES: Final = frozenset({SyncStatus.FIRST_COPY, SyncStatus.COPYING, SyncStatus.CATCHING_UP})


class EventPrinter(NamedTuple):
    """Prints what happens to a replica, for people or for programs.

    Each method blocks while the reader of the stream is slow, so call it by way of ``print_in_thread``.

    Attributes:
        as_json: Whether each event is one JSON document on one line.
    """

    as_json: bool

    def root(self, reached: Reached) -> None:
        """Print a root that the store shows now; as text, it is a line that ``--roots`` reads."""
        if self.as_json:
            document = {"root": reached.root.hex(), "revision": reached.revision, "keys": reached.keys}
            print_json({"event": "root", **document})
        else:
            echo(f"{reached.root.hex()} {reached.revision}")

    def serving(self, addresses: list[Address]) -> None:
        """Print where the store is served, at least one address."""
        names = list(map(str, addresses))
        if self.as_json:
            print_json({"event": "serving", "address": names[0], "addresses": names})
            return
        print_note(f"serving at {', '.join(names)}")
        note_if_public(addresses)

    def status(self, progress: Progress) -> None:
        """Print how the replica stands to its target and its peers, with the reason of each failed peer."""
        if self.as_json:
            print_json({"event": "situation", **_status_as_json(progress)})
            return
        done = f" ({progress.share:.0%} is done)" if progress.status in ACTIVE_STATUSES else ""
        reasons = "".join(f"; {peer.name}: {peer.reason}" for peer in progress.peers if peer.reason)
        lack = f" ({progress.reason})" if progress.reason else ""
        print_note(f"{status_sentence(progress.status)}{done}{lack}{reasons}")


def _status_as_json(progress: Progress) -> dict[str, Any]:
    return {
        "situation": str(progress.status),
        "target": root_as_json(progress.target),
        "root": root_as_json(progress.root),
        "revision": progress.revision,
        "synced_keys": progress.keys,
        "synced_changes": progress.changes,
        "share": progress.share,
        "reason": progress.reason,
        "peers": [
            {
                "name": peer.name,
                "state": str(peer.state),
                "root": root_as_json(peer.root),
                "revision": peer.revision,
                "reason": peer.reason,
            }
            for peer in progress.peers
        ],
    }


async def print_in_thread(print_event: Callable[[Event], None], event: Event) -> None:
    """Print one event in a thread, so that a slow reader does not block the event loop.

    Cancelled, it returns at once: the thread is abandoned, and prints its line when the reader allows it.

    Raises:
        CommandError: The line cannot be written.
    """
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        print_event(event)

    try:
        await trio.to_thread.run_sync(begin, abandon_on_cancel=True)
    except RuntimeError:
        if begun:
            raise
        # No thread could be started, so the line is printed in the event loop, which waits for the reader.
        print_event(event)
