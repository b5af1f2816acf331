"""The command ``root``: the root of a store."""

from pathlib import Path

import click

from merklesync.commands.options import json_option, store_argument
from merklesync.commands.stores import open_for_reading, snapshot_as_json
from merklesync.console.output import echo, print_json


@click.command()
@store_argument
@json_option
def root(store: Path, *, as_json: bool) -> None:
    """Print the root of STORE, as hex and alone.

    JSON: root, revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database, database.snapshot() as snapshot:
        if as_json:
            print_json(snapshot_as_json(snapshot))
        else:
            echo(snapshot.root.hex())
