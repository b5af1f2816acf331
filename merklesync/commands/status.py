"""The command ``status``: what a store, or a server, says of itself, and how the two stand to each other.

A store holds what it shows and how far an unfinished sync is, whether a ``follow`` runs or not.  How it
stands to its peers only they can say, so with ``--from`` they are asked, now.  Nothing that a ``follow``
wrote down is read, because that could be out of date.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from manager.peers.address import Address
from manager.peers.probe import ProbeFailure, ProbeResult
from manager.scheduling.checkpoint import Checkpoint
from merkledb import Revision
from merklesync.commands.options import DEFAULT_PORT, PATH, PEER, json_option, parse_peer_address
from merklesync.commands.stores import head_as_json, open_for_reading, show_root
from merklesync.console.output import (
    format_key_count,
    format_seconds,
    format_size,
    print_facts,
    print_json,
    root_as_json,
)
from merklesync.errors import CommandError
from merklesync.files.paths import is_there
from merklesync.following.peers import probe_all, require_probes
from merklesync.following.status_text import describe_peer_relation, status_sentence
from merklesync.following.store_status import StoreStatus, sync_status_of
from syncproto import Hello


@click.command()
@click.argument("store_or_address", metavar="STORE|HOST:PORT", type=PATH)
@click.option(
    "--from",
    "addresses",
    metavar="HOST:PORT",
    type=PEER,
    multiple=True,
    help="A peer to compare STORE with; give it several times for several peers.",
)
@json_option
def status(store_or_address: Path, *, addresses: tuple[Address, ...], as_json: bool) -> None:
    """Show how far STORE is, or what the server at HOST:PORT says of itself.

    Of a store: its newest complete root, how many revisions it retains, and whether a sync is unfinished and
    how far it is. With --from the peers are asked, too, and the situation of STORE is one of these, whether
    somebody follows at the moment or not. What peers say is not proved.

    \b
    in sync                   the newest root that is to be had is here, if also
                              under a lower revision than there
    catching up               peers are ahead: changes bring STORE forward
    copying                   peers are ahead, and none has the root of STORE:
                              its content is copied in full
    first copy                STORE has never had a complete content
    peers behind              every peer is behind, or has lost what it had:
                              STORE stays as it is
    diverged                  no peer shows what is here, and one shows another
                              content under a revision that STORE has or had
    no peer knows the target  an unfinished sync needs a newer target
    peers overloaded          none has a place for a client now; STORE stays
    no peer reachable         none answers; STORE stays as it is
    no target                 no peer has anything to show

    Of a full disk, only the one that follows knows.

    Of a server that does not answer the exit code is 4, of one that is overloaded or refuses, and of what is
    no server of ours, 1.

    JSON of a store: store, root (null while a first sync is unfinished), revision, keys, hasher,
    branch_factor, written_locally, revisions (how many are retained), oldest_revision, sync (null, or target,
    synced_keys, synced_changes, expected_keys, share), situation and peers (null without --from).

    JSON of a server: address, root, revision, keys, hasher, branch_factor, protocol, user_agent, max_keys,
    max_bytes, max_requests, seconds.
    """  # noqa: D301 - click wants the backspace itself
    address = _address_of(str(store_or_address))
    if address is None:
        _print_store(store_or_address, addresses, as_json=as_json)
    elif addresses:
        raise click.UsageError("--from compares a store with its peers", click.get_current_context())
    else:
        _print_peer(address, as_json=as_json)


def _address_of(subject: str) -> Address | None:
    """Return the address that is meant; None where something is at the path."""
    if is_there(Path(subject)):
        return None
    if ":" not in subject:
        raise CommandError(f"{subject} is neither a store nor HOST:PORT, such as example.org:{DEFAULT_PORT}")
    try:
        return parse_peer_address(subject)
    except ValueError as error:
        raise click.BadParameter(f"there is no store {subject!r}, and {error}") from error


# Of a server.


def _print_peer(address: Address, *, as_json: bool) -> None:
    met = require_probes((address,))[0]
    hello = met.hello
    if as_json:
        print_json({"address": str(address), **hello_as_json(hello), "seconds": met.seconds})
        return
    print_facts(
        {
            "address": f"{address}, answered in {format_seconds(met.seconds)}",
            "root": "none yet: its first sync is unfinished" if hello.root is None else hello.root.hex(),
            "revision": f"{hello.revision:,}",
            "keys": f"{hello.keys:,}",
            "scheme": f"{hello.hasher} with branch factor {hello.branch_factor}",
            "software": f"{hello.user_agent}, protocol {hello.version}",
            "limits": f"{format_key_count(hello.max_keys)} and {format_size(hello.max_bytes)} a proof, "
            f"{hello.max_requests} requests at a time",
        }
    )


def hello_as_json(hello: Hello) -> dict[str, Any]:
    """Return a greeting as the fields of a JSON document."""
    return {
        "root": root_as_json(hello.root),
        "revision": hello.revision,
        "keys": hello.keys,
        "hasher": hello.hasher,
        "branch_factor": hello.branch_factor,
        "protocol": hello.version,
        "user_agent": hello.user_agent,
        "max_keys": hello.max_keys,
        "max_bytes": hello.max_bytes,
        "max_requests": hello.max_requests,
    }


# Of a store.


def _print_store(path: Path, addresses: tuple[Address, ...], *, as_json: bool) -> None:
    with open_for_reading(path) as database:
        store = StoreStatus.read(database)
    peers = probe_all(addresses, store.roots) if addresses else []
    if as_json:
        print_json(_store_as_json(path, store, peers))
    else:
        print_facts(_store_as_facts(path, store, peers))


def _share_done(checkpoint: Checkpoint) -> float:
    """Return the part of the work that is done: of the keys while these are copied, else of the tree."""
    if checkpoint.expected_keys and any(root is None for root in _roots(checkpoint)):
        return min(1.0, checkpoint.keys / checkpoint.expected_keys)
    done = zip(_roots(checkpoint), checkpoint.shares, strict=True)
    return min(1.0, sum(share for root, share in done if root == checkpoint.target.root))


def _roots(checkpoint: Checkpoint) -> list[bytes | None]:
    return [key_range.root for key_range in checkpoint.ranges]


def _store_as_json(
    path: Path, store: StoreStatus, peers: Sequence[ProbeResult | ProbeFailure]
) -> dict[str, Any]:
    return {
        "store": str(path),
        **head_as_json(store.head, store.scheme),
        "written_locally": store.is_local,
        "revisions": len(store.revisions),
        "oldest_revision": store.revisions[-1].number if store.revisions else None,
        "sync": _sync_as_json(store),
        "situation": str(sync_status_of(store, peers)) if peers else None,
        "peers": [_peer_as_json(store, peer) for peer in peers] if peers else None,
    }


def _sync_as_json(store: StoreStatus) -> dict[str, Any] | None:
    if not store.catching_up:
        return None
    checkpoint = store.checkpoint
    if checkpoint is None:
        return dict.fromkeys(("target", "synced_keys", "synced_changes", "expected_keys", "share"))
    return {
        "target": checkpoint.target.root.hex(),
        "synced_keys": checkpoint.keys,
        "synced_changes": checkpoint.changes,
        "expected_keys": checkpoint.expected_keys,
        "share": _share_done(checkpoint),
    }


def _peer_as_json(store: StoreStatus, peer: ProbeResult | ProbeFailure) -> dict[str, Any]:
    relation = {"address": str(peer.address), "standing": describe_peer_relation(store, peer)}
    if isinstance(peer, ProbeFailure):
        return {**relation, "answers": False}
    return {
        **relation,
        "answers": True,
        "root": root_as_json(peer.hello.root),
        "revision": peer.hello.revision,
        "keys": peer.hello.keys,
        "seconds": peer.seconds,
    }


def _store_as_facts(
    path: Path, store: StoreStatus, peers: Sequence[ProbeResult | ProbeFailure]
) -> dict[str, str]:
    head = head_as_json(store.head, store.scheme)
    facts = {
        "store": str(path),
        "root": show_root(head),
        "revision": f"{head['revision']:,}",
        "keys": f"{head['keys']:,}",
        "retained": _retained_as_text(store.revisions),
        "content": _content_as_text(store),
        "sync": _sync_as_text(store),
    }
    if peers:
        facts["situation"] = status_sentence(sync_status_of(store, peers))
    facts |= {f"peer {peer.address}": describe_peer_relation(store, peer) for peer in peers}
    return facts


def _content_as_text(store: StoreStatus) -> str:
    if store.is_local:
        return "written here"
    if (store.head is not None and store.head.keys) or store.catching_up:
        return "a copy"
    return "none: nothing was loaded or synced yet" if store.is_first else "none"


def _retained_as_text(revisions: Sequence[Revision]) -> str:
    if len(revisions) < 2:
        return f"{len(revisions)} revision{'' if revisions else 's'}"
    return f"{len(revisions):,} revisions, from {revisions[-1].number:,} to {revisions[0].number:,}"


def _sync_as_text(store: StoreStatus) -> str:
    if not store.catching_up:
        return "none is unfinished"
    checkpoint = store.checkpoint
    if checkpoint is None:
        return "unfinished; how far it is cannot be told"
    share, root = _share_done(checkpoint), checkpoint.target.root.hex()
    return f"unfinished, {share:.0%}: {_fetched_as_text(checkpoint)}, on the way to root {root}"


def _fetched_as_text(checkpoint: Checkpoint) -> str:
    """Return what has come: keys where content is copied, changes where it is brought forward."""
    copies = checkpoint.keys > 0 or any(root is None for root in _roots(checkpoint))
    expected = f" of {checkpoint.expected_keys:,}" if checkpoint.expected_keys else ""
    keys = f"{checkpoint.keys:,}{expected} keys" if copies else ""
    changes = f"{checkpoint.changes:,} changes" if checkpoint.changes or not copies else ""
    return f"{' and '.join(filter(None, (keys, changes)))} fetched so far"
