"""The command ``rollback``: an unfinished sync is given up."""

from pathlib import Path

import click

from merklesync.commands.options import json_option, store_argument
from merklesync.commands.stores import head_as_json, open_for_syncing
from merklesync.console.output import echo, print_json, print_note
from merklesync.errors import CommandError, ExitCode


@click.command()
@store_argument
@json_option
def rollback(store: Path, *, as_json: bool) -> None:
    """Give up an unfinished sync of STORE: what it has fetched is forgotten, what readers see stays.

    There is no need for it before another sync, which goes on with what is there. It lets STORE be written
    with load, put and delete again. Interrupted, it is finished by the same command.

    JSON: rolled_back (whether there was one), root, revision, keys, hasher, branch_factor.
    """
    with open_for_syncing(store, create=False) as database:
        unfinished = database.catching_up
        try:
            database.roll_back()
        except KeyboardInterrupt as interrupt:
            raise CommandError(
                f"interrupted: {store} is still in the middle of a sync; run the same command again",
                ExitCode.INTERRUPTED,
            ) from interrupt
        head = head_as_json(database.head, database.scheme)
    if as_json:
        print_json({"rolled_back": unfinished, **head})
        return
    if not unfinished:
        print_note(f"{store} has no unfinished sync: nothing was given up")
    echo(head["root"])
