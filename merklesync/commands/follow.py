"""The command ``follow``: a replica that stays current, and serves further replicas if it is told to.

``following.follower`` does the work; here are its options and the checks before it starts.
"""

from pathlib import Path

import click

from manager import LocalContent, Manager
from manager.peers.address import Address
from merklesync.commands.options import (
    ADDRESS,
    PATH,
    RetentionOption,
    SchemeOption,
    peers_option,
    retention_options,
    scheme_options,
    store_argument,
)
from merklesync.commands.stores import is_store, open_for_syncing
from merklesync.commands.sync import failed_sync_hint, meet_peers, replace_hint, scheme_of_new_store
from merklesync.console.output import print_note
from merklesync.console.signals import run
from merklesync.following.events import EventPrinter
from merklesync.following.follower import Follower
from merklesync.following.root_hook import RootHook


@click.command()
@store_argument
@peers_option
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
    "listen_address",
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
    listen_address: Address | None,
    replace: bool,
    scheme_option: SchemeOption,
    retention: RetentionOption,
    as_json: bool,
) -> None:
    """Keep STORE a verified copy of the newest root, until SIGINT (Ctrl-C) or SIGTERM.

    The newest root is the one that a peer announces with the highest revision (--trust-peer), or the last
    line of --roots: a root in hex and, if it is known, its revision. A root that comes back under a higher
    revision is a newer one. Revisions of STORE never go back: a root that --roots names with a revision which
    is not above STORE's is followed, gets the next one, and that is noted. Every pair and every change is
    verified against the root. STORE goes on showing its last complete root meanwhile; the next appears all at
    once. A line is printed for the root that STORE is a copy of at the start, and for each that it reaches:
    the root and its revision, which another follow can read as its --roots.

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
    that names a root counts. Lines are UTF-8; of others in a row, the first few are noted. A FIFO is followed
    for ever, too; when standard input has ended, follow ends as soon as its last root is reached. The COMMAND
    is run by sh, once at a time, for the newest root when it is slow; its output goes to standard error, and
    when it fails, that is noted. It is run for the root that STORE is a copy of at the start, too, so that
    none is missed. At the end it is told to end, and killed after 5 seconds.

    JSON, a line each: {"event": "root", root, revision, keys}; {"event": "serving", address, addresses};
    {"event": "situation", situation, target, root, revision, synced_keys, synced_changes, share, reason,
    peers}.
    """  # noqa: D301 - click wants the backspace itself
    if (roots is None) != trust_peer:
        raise click.UsageError("give either --roots FILE or --trust-peer", click.get_current_context())
    if not is_store(store):
        met = meet_peers(addresses, scheme_option, trust_peer=trust_peer, needs_root=False)
        scheme_option = scheme_of_new_store(met, scheme_option, trust_peer=trust_peer)
    printer = EventPrinter(as_json)
    with (
        open_for_syncing(store, scheme_option, retention) as database,
        failed_sync_hint(database),
        replace_hint(database),
    ):
        if database.written_locally and not replace:
            # Before a target is known, for whatever is followed will sooner or later be something else.
            raise LocalContent(database.root)
        manager = Manager(database, list(dict.fromkeys(addresses)), replace=replace, trust_peers=trust_peer)
        hook = RootHook(on_root, store, print_note) if on_root is not None else None
        run(Follower(database, manager, printer, roots, hook).run, listen_address)
