"""The command ``sync``: a store becomes the verified copy of a root, from peers that need not be trusted.

What stands between the user and a store that is not what it should be: the root comes from --root, or from a
peer only with --trust-peer; a store that holds content of its own is replaced only with --replace; a new
store is made only after a peer was met that serves its scheme.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import trio

from manager import LocalContent, Manager, PeerState, Progress, SyncError
from manager.peers.address import Address
from manager.peers.probe import ProbeResult
from manager.scheduling.pivot import Target
from merkledb import Database
from merklesync.commands.options import (
    ROOT,
    RetentionOption,
    SchemeOption,
    json_option,
    peers_option,
    retention_options,
    scheme_options,
    store_argument,
)
from merklesync.commands.stores import is_store, open_for_syncing, snapshot_as_json
from merklesync.console.bar import ProgressBar, progress_bar, wants_bar
from merklesync.console.output import format_key_count, format_seconds, print_facts, print_json
from merklesync.console.signals import run, wait_for_stop_signals
from merklesync.errors import CommandError, ExitCode, command_error_of
from merklesync.following.peers import GRACE_SECONDS, PATIENCE_SECONDS, require_probes
from merklesync.text import truncate

# The bar itself needs the rest of a line.
MAX_TITLE_CHARACTERS: Final = 60


@click.command()
@store_argument
@peers_option
@click.option("--root", type=ROOT, metavar="HEX", help="The root to copy, from somebody you trust.")
@click.option(
    "--trust-peer",
    is_flag=True,
    help="Copy the root (and scheme) that a peer says it has: the first --from to answer.",
)
@click.option("--replace", is_flag=True, help="Replace content that was written to STORE here.")
@scheme_options("of a new store")
@retention_options
@json_option
def sync(
    store: Path,
    *,
    addresses: tuple[Address, ...],
    root: bytes | None,
    trust_peer: bool,
    replace: bool,
    scheme_option: SchemeOption,
    retention: RetentionOption,
    as_json: bool,
) -> None:
    """Make STORE a verified copy of a root, from one or more peers.

    Every pair is verified against the root before it is stored, so no peer needs to be trusted: only whoever
    gave you the root. STORE is created when it is missing. What it has already, at whatever root, is kept
    and brought forward by changes, where a peer has the history for it. Until all is complete, STORE goes on
    showing what it showed before; a new one shows nothing. An interrupted sync goes on where it was when the
    same command runs again, or is given up with rollback.

    A peer that is overloaded is tried again when it says, for five minutes. Ends with exit code 3 when the
    last peer left sent a proof that does not hold, 4 when none could be reached, and 1 when those that could
    are overloaded, or cannot help.

    JSON: root, revision, keys, hasher, branch_factor; synced_keys, synced_changes, proof_bytes (interrupted
    runs included), fetched_keys (pairs and changes), seconds, keys_per_second (of this run); peers: for each
    name, state, keys, reason.
    """
    if (root is None) != trust_peer:
        raise click.UsageError("give either --root HEX or --trust-peer", click.get_current_context())
    target = None if root is None else Target(root)
    if trust_peer or not is_store(store):
        is_new = not is_store(store)
        wanted = scheme_option if is_new else None
        met = meet_peers(addresses, wanted, trust_peer=trust_peer, needs_root=trust_peer)
        if is_new:
            scheme_option = scheme_of_new_store(met, scheme_option, trust_peer=trust_peer)
        target = target or _target_of_first_peer(met)
    assert target is not None
    with open_for_syncing(store, scheme_option, retention) as database:
        try:
            with (
                failed_sync_hint(database),
                progress_bar("syncing", shows_progress=wants_bar(as_json=as_json)) as bar,
            ):
                progress = sync_store(
                    database, addresses, target, replace=replace, trust_peers=trust_peer, bar=bar
                )
        except KeyboardInterrupt as interrupt:
            raise CommandError(
                f"interrupted: {store} keeps what was copied; run the same command again to go on",
                ExitCode.INTERRUPTED,
            ) from interrupt
        with database.snapshot() as snapshot:
            described = snapshot_as_json(snapshot)
    if as_json:
        print_json({**described, **_progress_as_json(progress)})
    else:
        print_facts({**progress_facts(progress), "keys": f"{described['keys']:,}", "root": described["root"]})


def meet_peers(
    addresses: tuple[Address, ...],
    scheme_option: SchemeOption | None,
    *,
    trust_peer: bool,
    needs_root: bool,
) -> list[ProbeResult]:
    """Return the peers that greeted, at least one; one that will do is not kept waiting for silent ones.

    Args:
        addresses: Of the peers.
        scheme_option: What the command line says of a new store; None where the store has its scheme.
        trust_peer: Whether what nobody has named is the first peer's to say, so that others get some time.
        needs_root: Whether a peer will do only with a complete root.

    Raises:
        CommandError: None greeted.
    """

    def is_usable(peer: ProbeResult) -> bool:
        if needs_root and (peer.hello.root is None or peer.is_implausible):
            return False
        default = peer.scheme if trust_peer else None
        return scheme_option is None or scheme_option.with_defaults(default) == peer.scheme

    grace_seconds = GRACE_SECONDS if trust_peer else 0.0
    return require_probes(addresses, PATIENCE_SECONDS, is_usable, grace_seconds)


def scheme_of_new_store(
    met: list[ProbeResult], scheme_option: SchemeOption, *, trust_peer: bool
) -> SchemeOption:
    """Return the scheme for a new store: one that a peer serves, or it could never be filled from them.

    Args:
        met: The peers that answered, at least one.
        scheme_option: What the command line says.
        trust_peer: Whether what it leaves out is the first peer's to say.

    Raises:
        CommandError: No peer serves it.
    """
    scheme = scheme_option.with_defaults(met[0].scheme if trust_peer else None)
    if scheme in [peer.scheme for peer in met]:
        return SchemeOption(scheme.hasher, scheme.branch_factor)
    found = met[0].hello
    raise CommandError(
        f"{met[0].address} serves {found.hasher} with branch factor {found.branch_factor}, not {scheme}: "
        f"if that is the root's, add --hasher {found.hasher} --branch-factor {found.branch_factor}"
    )


def _target_of_first_peer(met: list[ProbeResult]) -> Target:
    """Return the root of the first peer that has one.

    Raises:
        CommandError: None has.
    """
    for peer in met:
        if peer.hello.root is not None and not peer.is_implausible:
            return Target(peer.hello.root, peer.hello.revision)
    if any(peer.is_implausible for peer in met):
        raise CommandError(
            f"{met[0].address} announces revision {met[0].hello.revision}, which no honest store reaches: "
            "name another peer, or a root that you trust with --root",
            ExitCode.NOT_VERIFIED,
        )
    raise CommandError(
        f"{met[0].address} has no complete root yet, for its own first sync is unfinished: "
        "try again later, or name another peer"
    )


def sync_store(
    database: Database,
    addresses: tuple[Address, ...],
    target: Target,
    *,
    replace: bool,
    trust_peers: bool,
    bar: ProgressBar,
) -> Progress:
    """Sync an open store to ``target`` and show how far it is.

    Args:
        database: Opened for writing.
        addresses: The peers.
        target: The root to reach.
        replace: Whether content that was written here may be replaced.
        trust_peers: Whether to go on to what the peers show next, should they do so before the end.
        bar: Where to show it.

    Raises:
        KeyboardInterrupt: A signal interrupted it; the store keeps what was copied, and how far it is.
        CommandError: It would replace content that was written here.
        SyncError: No peer could help.
    """
    manager = Manager(database, list(dict.fromkeys(addresses)), replace=replace, trust_peers=trust_peers)
    manager.update_target(*target)
    with replace_hint(database):
        return run(_sync, manager, bar)


@contextmanager
def failed_sync_hint(database: Database) -> Iterator[None]:
    """Say what a first sync that fails leaves, for nothing of it can be read."""
    try:
        yield
    except SyncError as error:
        failure = command_error_of(error)
        assert failure is not None
        left = ""
        if database.catching_up:
            left = f"; {database.path} keeps what was copied, and the same command goes on with it"
        elif database.head is not None and not database.head.number:
            left = f"; {database.path} is still empty"
        raise CommandError(f"{failure.message}{left}", ExitCode(failure.exit_code)) from error


@contextmanager
def replace_hint(database: Database) -> Iterator[None]:
    """Say what lets a sync replace content that was written here."""
    try:
        yield
    except LocalContent as error:
        raise CommandError(
            f"{database.path} holds content that was written here (root {error.root.hex()}): "
            "add --replace to replace it, or sync into a new store"
        ) from error


async def _sync(manager: Manager, bar: ProgressBar) -> Progress:
    progress: Progress | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(wait_for_stop_signals, nursery.cancel_scope.cancel)
        nursery.start_soon(_draw_bar, manager, bar)
        progress = await manager.run()
        nursery.cancel_scope.cancel()
    if progress is None:
        raise KeyboardInterrupt
    return progress


async def _draw_bar(manager: Manager, bar: ProgressBar) -> None:
    async for progress in manager.watch():
        bar.show(
            progress.keys,
            progress.bytes,
            progress.share,
            title=_title(progress),
            expected_keys=progress.expected_keys,
            # The manager knows what earlier runs did; where it foretells nothing, nothing can be foretold.
            keys_a_second=progress.keys_per_second or 0.0,
            left_seconds=progress.seconds_left,
        )


def _title(progress: Progress) -> str:
    """Return what the sync is doing: why nothing happens, where nothing does."""
    if any(peer.state is PeerState.CONNECTED for peer in progress.peers):
        return "syncing"
    reason = next((f"{peer.name}: {peer.reason}" for peer in progress.peers if peer.reason), "")
    return truncate(f"waiting for {reason}", MAX_TITLE_CHARACTERS) if reason else "connecting"


def fetched_key_count(progress: Progress) -> int:
    """Return how many pairs and changes this run fetched."""
    return sum(peer.keys for peer in progress.peers)


def _progress_as_json(progress: Progress) -> dict[str, Any]:
    seconds = progress.elapsed_seconds
    peers = [
        {"name": peer.name, "state": str(peer.state), "keys": peer.keys, "reason": peer.reason}
        for peer in progress.peers
    ]
    return {
        "synced_keys": progress.keys,
        "synced_changes": progress.changes,
        "fetched_keys": fetched_key_count(progress),
        "proof_bytes": progress.bytes,
        "seconds": seconds,
        "keys_per_second": fetched_key_count(progress) / seconds if seconds else None,
        "peers": peers,
    }


def progress_facts(progress: Progress) -> dict[str, str]:
    """Return a finished sync as facts: what was fetched, and what each of several peers gave."""
    keys, seconds = fetched_key_count(progress), progress.elapsed_seconds
    rate = f" ({keys / seconds:,.0f} keys/s)" if keys and seconds else ""
    facts = {"synced": f"{format_key_count(keys)} verified in {format_seconds(seconds)}{rate}"}
    if len(progress.peers) > 1:
        facts |= {
            f"peer {peer.name}": f"{format_key_count(peer.keys)}, {peer.state}"
            + (f": {peer.reason}" if peer.reason else "")
            for peer in progress.peers
        }
    return facts
