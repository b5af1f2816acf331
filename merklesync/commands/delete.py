"""The command ``delete``: several keys out of a store, in one commit."""

from pathlib import Path

import click

from merklesync.commands.options import BYTES, json_option, store_argument, text_option
from merklesync.commands.stores import commit_and_print, open_for_writing
from merklesync.errors import CommandError
from merklesync.text import quote_bytes


@click.command()
@store_argument
@click.argument("keys", metavar="KEY...", type=BYTES, nargs=-1, required=True)
@text_option
@json_option
def delete(store: Path, keys: tuple[bytes, ...], *, as_json: bool) -> None:
    """Delete each KEY in one commit, and print the new root. Deletes nothing when one of them is not there.

    JSON: root, revision, keys, hasher, branch_factor.
    """
    with open_for_writing(store, create=False) as database:
        missing = next((key for key in keys if key not in database), None)
        if missing is not None:
            raise CommandError(f"{store} has no key {quote_bytes(missing)}: nothing was deleted")
        commit_and_print(database, dict.fromkeys(keys), as_json=as_json)
