"""The command ``serve``: a store for whoever connects, until it is told to stop."""

from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import click
import trio

from manager.peers.address import Address
from merkledb import Database
from merklesync.options import ADDRESS, DEFAULT_PORT, LOOPBACK, json_option, store_argument
from merklesync.output import note, print_facts, print_json, show_keys, show_size
from merklesync.stores import describe_head, open_for_reading
from merklesync.tasks import on_stop_signal, run
from server import Server, addresses_of, open_listeners


@click.command()
@store_argument
@click.option(
    "--listen",
    "address",
    metavar="HOST:PORT",
    type=ADDRESS,
    default=Address(LOOPBACK, DEFAULT_PORT),
    show_default=f"{LOOPBACK}:{DEFAULT_PORT}",
    help="Where to accept connections; port 0 lets the system choose one.",
)
@json_option
def serve(store: Path, address: Address, *, as_json: bool) -> None:
    """Serve STORE, with proofs, to whoever connects; until SIGINT (Ctrl-C) or SIGTERM.

    Only this machine can connect unless --listen says otherwise: 0.0.0.0:PORT is every network that the
    machine is in. Clients can read all of STORE, at every root that it retains, and change nothing. Other
    commands may write to STORE meanwhile; whoever follows it hears of each new root.

    The first signal lets what is in flight be answered, the second stops at once.

    JSON, as soon as connections are accepted: address, addresses, root (null while a first sync is
    unfinished), revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database:
        run(_serve, database, address, partial(_announce, database, as_json=as_json))


async def _serve(database: Database, address: Address, announce: Callable[[list[Address]], None]) -> None:
    listeners = await open_listeners(*address)
    server = Server(database)
    async with trio.open_nursery() as stopping:
        await stopping.start(on_stop_signal, server.stop, stopping.cancel_scope.cancel)
        async with trio.open_nursery() as serving:
            await serving.start(server.serve, listeners)
            announce([Address(*bound) for bound in addresses_of(listeners)])
        stopping.cancel_scope.cancel()
    note(f"stopped: {show_served(server)}")


def show_served(server: Server) -> str:
    """Return what a server has done, as people read it."""
    return f"{server.counters.answers:,} answers, {show_size(server.counters.bytes_sent)} sent"


def _announce(database: Database, addresses: list[Address], *, as_json: bool) -> None:
    described = describe_head(database)
    names = list(map(str, addresses))
    if as_json:
        print_json({"address": names[0], "addresses": names, **described})
        return
    root = described["root"] or "none yet: the first sync is unfinished"
    print_facts({"serving": f"{show_keys(described['keys'])}", "address": ", ".join(names), "root": root})
    note_who_can_read(addresses)
    note("Ctrl-C stops")


def note_who_can_read(addresses: list[Address]) -> None:
    """Tell a person when other machines can connect to what is served at ``addresses``."""
    if not all(is_loopback(address.host) for address in addresses):
        note("every machine that can reach this address can read all of the store")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
