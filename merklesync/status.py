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
from merklesync.failures import Failure
from merklesync.options import DEFAULT_PORT, PATH, PEER, json_option, peer_address_of
from merklesync.output import print_facts, print_json, show_keys, show_seconds, show_size
from merklesync.paths import is_there
from merklesync.peers import MetPeer, Silence, greet_all, met_peers
from merklesync.situations import Replica, describe_standing, replica_situation, sentence
from merklesync.stores import describe_head, open_for_reading
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
        raise Failure(f"{subject} is neither a store nor HOST:PORT, such as example.org:{DEFAULT_PORT}")
    try:
        return peer_address_of(subject)
    except ValueError as error:
        raise click.BadParameter(f"there is no store {subject!r}, and {error}") from error


# Of a server.


def _show_peer(address: Address, *, as_json: bool) -> None:
    met = met_peers((address,))[0]
    hello = met.hello
    if as_json:
        print_json({"address": str(address), **describe_peer(hello), "seconds": met.seconds})
        return
    print_facts(
        {
            "address": f"{address}, answered in {show_seconds(met.seconds)}",
            "root": "none yet: its first sync is unfinished" if hello.root is None else hello.root.hex(),
            "revision": f"{hello.revision:,}",
            "keys": f"{hello.keys:,}",
            "scheme": f"{hello.hasher} with branch factor {hello.branch_factor}",
            "software": f"{hello.user_agent}, protocol {hello.version}",
            "limits": f"{show_keys(hello.max_keys)} and {show_size(hello.max_bytes)} a proof, "
            f"{hello.max_requests} requests at a time",
        }
    )


def describe_peer(hello: Hello) -> dict[str, Any]:
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


class _Look(NamedTuple):
    """What one look at a store shows.

    Attributes:
        described: The fields that every document about a store has.
        replica: How it stands.
        revisions: What it retains, newest first.
        catching_up: Whether a sync is unfinished.
        checkpoint: How far that is; None where that is not known.
    """

    described: dict[str, Any]
    replica: Replica
    revisions: list[Revision]
    catching_up: bool
    checkpoint: Checkpoint | None


def _show_store(path: Path, addresses: tuple[Address, ...], *, as_json: bool) -> None:
    with open_for_reading(path) as database:
        look = _look(database)
    peers = greet_all(addresses, look.replica.roots) if addresses else []
    if as_json:
        print_json(_document(path, look, peers))
    else:
        print_facts(_facts(path, look, peers))


def _look(database: Database) -> _Look:
    checkpoint, revisions = _saved(database), database.revisions()
    replica = Replica(
        database.scheme,
        database.head,
        is_local=database.written_locally,
        target=None if checkpoint is None else checkpoint.target.root,
        known={}
        if database.written_locally
        else {revision.number: revision.root for revision in reversed(revisions)},
    )
    return _Look(describe_head(database), replica, revisions, database.catching_up, checkpoint)


def _saved(database: Database) -> Checkpoint | None:
    """Return how far an unfinished sync is; None where there is none, or it cannot be read."""
    progress = database.progress if database.catching_up else None
    if progress is None:
        return None
    try:
        return decode_checkpoint(progress, database.scheme.max_key_bytes)
    except InvalidProgress:
        return None


def _share(checkpoint: Checkpoint) -> float:
    """Return the part of the work that is done: of the keys while these are copied, else of the tree."""
    if checkpoint.expected_keys and any(root is None for root in _roots(checkpoint)):
        return min(1.0, checkpoint.keys / checkpoint.expected_keys)
    done = zip(_roots(checkpoint), checkpoint.shares, strict=True)
    return min(1.0, sum(share for root, share in done if root == checkpoint.target.root))


def _roots(checkpoint: Checkpoint) -> list[bytes | None]:
    return [key_range.root for key_range in checkpoint.ranges]


def _document(path: Path, look: _Look, peers: Sequence[MetPeer | Silence]) -> dict[str, Any]:
    return {
        "store": str(path),
        **look.described,
        "written_locally": look.replica.is_local,
        "revisions": len(look.revisions),
        "oldest_revision": look.revisions[-1].number if look.revisions else None,
        "sync": _describe_sync(look),
        "situation": str(replica_situation(look.replica, peers)) if peers else None,
        "peers": [_describe_peer(look.replica, peer) for peer in peers] if peers else None,
    }


def _describe_sync(look: _Look) -> dict[str, Any] | None:
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
        "share": _share(checkpoint),
    }


def _describe_peer(replica: Replica, peer: MetPeer | Silence) -> dict[str, Any]:
    described = {"address": str(peer.address), "standing": describe_standing(replica, peer)}
    if isinstance(peer, Silence):
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


def _facts(path: Path, look: _Look, peers: Sequence[MetPeer | Silence]) -> dict[str, str]:
    described = look.described
    facts = {
        "store": str(path),
        "root": described["root"] or "none yet: the first sync is unfinished",
        "revision": f"{described['revision']:,}",
        "keys": f"{described['keys']:,}",
        "retained": _show_retained(look.revisions),
        "content": _show_origin(look),
        "sync": _show_sync(look),
    }
    if peers:
        facts["situation"] = sentence(replica_situation(look.replica, peers))
    facts |= {f"peer {peer.address}": describe_standing(look.replica, peer) for peer in peers}
    return facts


def _show_origin(look: _Look) -> str:
    if look.replica.is_local:
        return "written here"
    return "a copy" if look.described["keys"] or look.catching_up else "none"


def _show_retained(revisions: Sequence[Revision]) -> str:
    if len(revisions) < 2:
        return f"{len(revisions)} revision{'' if revisions else 's'}"
    return f"{len(revisions):,} revisions, from {revisions[-1].number:,} to {revisions[0].number:,}"


def _show_sync(look: _Look) -> str:
    if not look.catching_up:
        return "none is unfinished"
    checkpoint = look.checkpoint
    if checkpoint is None:
        return "unfinished; how far it is cannot be told"
    expected = f" of {checkpoint.expected_keys:,}" if checkpoint.expected_keys else ""
    done = f"{checkpoint.keys:,}{expected} keys and {checkpoint.changes:,} changes are here"
    return f"unfinished, {_share(checkpoint):.0%}: {done}, on the way to root {checkpoint.target.root.hex()}"
