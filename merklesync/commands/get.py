"""The command ``get``: the value of one key."""

import sys
from pathlib import Path

import click

from merklesync.commands.options import json_option, key_argument, store_argument, text_option
from merklesync.commands.revision_option import RevisionOption, at_option, snapshot_at
from merklesync.commands.stores import open_for_reading
from merklesync.console.output import echo, print_json
from merklesync.errors import CommandError
from merklesync.files.text_pairs import pair_to_json
from merklesync.text import format_bytes, quote_bytes


@click.command()
@store_argument
@key_argument
@at_option
@text_option
@json_option
def get(store: Path, key: bytes, *, at: RevisionOption | None, as_json: bool) -> None:
    """Print the value of KEY: its bytes as they are, or, on a terminal, as text or hex.

    Ends with exit code 3 when what is read, a value or none, is not what the root says.

    JSON: key, value; a string, {"hex": ...} or {"base64": ...} each, as load reads them.
    """
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        value, revision = snapshot.verified_get(key), snapshot.revision
    if value is None:
        where = "" if at is None else f" at revision {revision}"
        raise CommandError(f"{store} has no key {quote_bytes(key)}{where}")
    if as_json:
        print_json(pair_to_json(key, value))
    elif sys.stdout.isatty():
        echo(format_bytes(value))
    else:
        echo(value, nl=False)
