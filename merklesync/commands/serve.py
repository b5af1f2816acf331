"""The command ``serve``: a store, with proofs, for every client that connects, until a signal stops it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import trio

from manager.peers.address import Address
from merkledb import Database
from merklesync.commands.options import ADDRESS, DEFAULT_PORT, LOOPBACK, json_option, store_argument
from merklesync.commands.stores import head_as_json, open_for_reading, show_root
from merklesync.console.output import (
    format_key_count,
    format_server_totals,
    note_if_public,
    print_facts,
    print_json,
    print_note,
)
from merklesync.console.signals import run, wait_for_stop_signals
from server import Server, addresses_of, open_listeners


@click.command()
@store_argument
@click.option(
    "--listen",
    "listen_address",
    metavar="HOST:PORT",
    type=ADDRESS,
    default=Address(LOOPBACK, DEFAULT_PORT),
    show_default=f"{LOOPBACK}:{DEFAULT_PORT}",
    help="Where to accept connections; port 0 lets the system choose one.",
)
@json_option
def serve(store: Path, listen_address: Address, *, as_json: bool) -> None:
    """Serve STORE, with proofs, to whoever connects; until SIGINT (Ctrl-C) or SIGTERM.

    Only this machine can connect unless --listen says otherwise: 0.0.0.0:PORT is every network that the
    machine is in. Clients can read all of STORE, at every root that it retains, and change nothing. Other
    commands may write to STORE meanwhile; whoever follows it hears of each new root.

    The first signal lets what is in flight be answered, the second stops at once.

    JSON, as soon as connections are accepted: address, addresses, root (null while a first sync is
    unfinished), revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database:
        run(_serve, database, listen_address, partial(_print_addresses, database, as_json=as_json))


async def _serve(
    database: Database, listen_address: Address, print_addresses: Callable[[list[Address]], None]
) -> None:
    listeners = await open_listeners(*listen_address)
    server = Server(database)
    async with trio.open_nursery() as stopping:
        await stopping.start(wait_for_stop_signals, server.stop, stopping.cancel_scope.cancel)
        async with trio.open_nursery() as serving:
            await serving.start(server.serve, listeners)
            print_addresses([Address(*bound) for bound in addresses_of(listeners)])
        stopping.cancel_scope.cancel()
    print_note(f"stopped: {format_server_totals(server)}")


def _print_addresses(database: Database, addresses: list[Address], *, as_json: bool) -> None:
    head = head_as_json(database.head, database.scheme)
    names = list(map(str, addresses))
    if as_json:
        print_json({"address": names[0], "addresses": names, **head})
        return
    print_facts(
        {"serving": f"{format_key_count(head['keys'])}", "address": ", ".join(names), "root": show_root(head)}
    )
    note_if_public(addresses)
    print_note("Ctrl-C stops")
