"""The command ``status``: what a store, or a server, says of itself, and how the two stand to each other.

A store knows what it shows and how far an unfinished sync is, whether somebody follows at the moment or not.
How it stands to its peers only they can say, so with ``--from`` they are asked, now: the answer is as true
without a running follower as with one, and never what a dead one has left behind.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from manager.errors import InvalidProgress
from manager.peers.address import Address
from manager.scheduling.checkpoint import Checkpoint, decode_checkpoint
from merkledb import Database, Revision
from merklesync.commands.options import DEFAULT_PORT, PATH, PEER, json_option, parse_peer_address
from merklesync.commands.stores import head_as_json, open_for_reading
from merklesync.console.output import format_key_count, format_seconds, format_size, print_facts, print_json
from merklesync.errors import CommandError
from merklesync.files.paths import is_there
from merklesync.following.local_state import LocalState, sync_status_of
from merklesync.following.peers import ProbeFailure, ProbeResult, probe_all, require_probes
from merklesync.following.status_text import describe_peer_relation, status_sentence
from syncproto import Hello


@click.command()
@click.argument("subject", metavar="STORE|HOST:PORT", type=PATH)
@click.option(
    "--from",
    "addresses",
    metavar="HOST:PORT",
    type=PEER,
    multiple=True,
    help="A peer to compare STORE with; give it several times for several peers.",
)
@json_option
def status(subject: Path, *, addresses: tuple[Address, ...], as_json: bool) -> None:
    """Show how far STORE is, or what the server at HOST:PORT says of itself.

    Of a store: its newest complete root, how many revisions it retains, and whether a sync is unfinished and
    how far it is. With --from the peers are asked, too, and the situation of STORE is one of these, whether
    somebody follows at the moment or not. What peers say is not proved.

    \b
    in sync                   the newest root that is to be had is here
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

    Of a server that does not answer the exit code is 4, of one that is overloaded 1.

    JSON of a store: store, root (null while a first sync is unfinished), revision, keys, hasher,
    branch_factor, written_locally, revisions (how many are retained), oldest_revision, sync (null, or target,
    synced_keys, synced_changes, expected_keys, share), situation and peers (null without --from).

    JSON of a server: address, root, revision, keys, hasher, branch_factor, protocol, user_agent, max_keys,
    max_bytes, max_requests, seconds.
    """  # noqa: D301 - click wants the backspace itself
    address = _address_of(str(subject))
    if address is None:
        _show_store(subject, addresses, as_json=as_json)
    elif addresses:
        raise click.UsageError("--from compares a store with its peers", click.get_current_context())
    else:
        _show_peer(address, as_json=as_json)


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


def _show_peer(address: Address, *, as_json: bool) -> None:
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
        "root": None if hello.root is None else hello.root.hex(),
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


class _StoreStatus(NamedTuple):
    """What one look at a store shows.

    Attributes:
        described: The fields that every document about a store has.
        replica: How it stands.
        revisions: What it retains, newest first.
        catching_up: Whether a sync is unfinished.
        checkpoint: How far that is; None where that is not known.
    """

    described: dict[str, Any]
    replica: LocalState
    revisions: list[Revision]
    catching_up: bool
    checkpoint: Checkpoint | None


def _show_store(path: Path, addresses: tuple[Address, ...], *, as_json: bool) -> None:
    with open_for_reading(path) as database:
        look = _read_store_status(database)
    peers = probe_all(addresses, look.replica.roots) if addresses else []
    if as_json:
        print_json(_store_as_json(path, look, peers))
    else:
        print_facts(_store_as_facts(path, look, peers))


def _read_store_status(database: Database) -> _StoreStatus:
    checkpoint, revisions = _checkpoint_of(database), database.revisions()
    replica = LocalState(
        database.scheme,
        database.head,
        is_local=database.written_locally,
        target=None if checkpoint is None else checkpoint.target.root,
        known={}
        if database.written_locally
        else {revision.number: revision.root for revision in reversed(revisions)},
    )
    return _StoreStatus(head_as_json(database), replica, revisions, database.catching_up, checkpoint)


def _checkpoint_of(database: Database) -> Checkpoint | None:
    """Return how far an unfinished sync is; None where there is none, or it cannot be read."""
    progress = database.progress if database.catching_up else None
    if progress is None:
        return None
    try:
        return decode_checkpoint(progress, database.scheme.max_key_bytes)
    except InvalidProgress:
        return None


def _share_done(checkpoint: Checkpoint) -> float:
    """Return the part of the work that is done: of the keys while these are copied, else of the tree."""
    if checkpoint.expected_keys and any(root is None for root in _roots(checkpoint)):
        return min(1.0, checkpoint.keys / checkpoint.expected_keys)
    done = zip(_roots(checkpoint), checkpoint.shares, strict=True)
    return min(1.0, sum(share for root, share in done if root == checkpoint.target.root))


def _roots(checkpoint: Checkpoint) -> list[bytes | None]:
    return [key_range.root for key_range in checkpoint.ranges]


def _store_as_json(
    path: Path, look: _StoreStatus, peers: Sequence[ProbeResult | ProbeFailure]
) -> dict[str, Any]:
    return {
        "store": str(path),
        **look.described,
        "written_locally": look.replica.is_local,
        "revisions": len(look.revisions),
        "oldest_revision": look.revisions[-1].number if look.revisions else None,
        "sync": _sync_as_json(look),
        "situation": str(sync_status_of(look.replica, peers)) if peers else None,
        "peers": [_peer_as_json(look.replica, peer) for peer in peers] if peers else None,
    }


def _sync_as_json(look: _StoreStatus) -> dict[str, Any] | None:
    if not look.catching_up:
        return None
    checkpoint = look.checkpoint
    if checkpoint is None:
        return dict.fromkeys(("target", "synced_keys", "synced_changes", "expected_keys", "share"))
    return {
        "target": checkpoint.target.root.hex(),
        "synced_keys": checkpoint.keys,
        "synced_changes": checkpoint.changes,
        "expected_keys": checkpoint.expected_keys,
        "share": _share_done(checkpoint),
    }


def _peer_as_json(replica: LocalState, peer: ProbeResult | ProbeFailure) -> dict[str, Any]:
    described = {"address": str(peer.address), "standing": describe_peer_relation(replica, peer)}
    if isinstance(peer, ProbeFailure):
        return {**described, "answers": False}
    root = None if peer.hello.root is None else peer.hello.root.hex()
    return {
        **described,
        "answers": True,
        "root": root,
        "revision": peer.hello.revision,
        "keys": peer.hello.keys,
        "seconds": peer.seconds,
    }


def _store_as_facts(
    path: Path, look: _StoreStatus, peers: Sequence[ProbeResult | ProbeFailure]
) -> dict[str, str]:
    described = look.described
    facts = {
        "store": str(path),
        "root": described["root"] or "none yet: the first sync is unfinished",
        "revision": f"{described['revision']:,}",
        "keys": f"{described['keys']:,}",
        "retained": _show_retained(look.revisions),
        "content": _show_content(look),
        "sync": _show_sync(look),
    }
    if peers:
        facts["situation"] = status_sentence(sync_status_of(look.replica, peers))
    facts |= {f"peer {peer.address}": describe_peer_relation(look.replica, peer) for peer in peers}
    return facts


def _show_content(look: _StoreStatus) -> str:
    if look.replica.is_local:
        return "written here"
    return "a copy" if look.described["keys"] or look.catching_up else "none"


def _show_retained(revisions: Sequence[Revision]) -> str:
    if len(revisions) < 2:
        return f"{len(revisions)} revision{'' if revisions else 's'}"
    return f"{len(revisions):,} revisions, from {revisions[-1].number:,} to {revisions[0].number:,}"


def _show_sync(look: _StoreStatus) -> str:
    if not look.catching_up:
        return "none is unfinished"
    checkpoint = look.checkpoint
    if checkpoint is None:
        return "unfinished; how far it is cannot be told"
    expected = f" of {checkpoint.expected_keys:,}" if checkpoint.expected_keys else ""
    done = f"{checkpoint.keys:,}{expected} keys and {checkpoint.changes:,} changes are here"
    share, root = _share_done(checkpoint), checkpoint.target.root.hex()
    return f"unfinished, {share:.0%}: {done}, on the way to root {root}"
