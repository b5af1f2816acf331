"""The command ``check``: every branch of a store derived anew and compared."""

from pathlib import Path

import click

from merklesync.commands.options import json_option, store_argument
from merklesync.commands.stores import check_with_bar, head_as_json, open_for_reading, show_root
from merklesync.console.bar import progress_bar, wants_bar
from merklesync.console.output import format_key_count, print_facts, print_json


@click.command()
@store_argument
@click.option("--history", is_flag=True, help="Compare all of every retained revision with its root.")
@json_option
def check(store: Path, *, history: bool, as_json: bool) -> None:
    """Derive every branch of STORE and its root anew from the values, and compare.

    While a sync is under way, that is done for what is there of it, and for what readers see meanwhile.

    Of older revisions the counts of pairs and the topmost nodes are compared; with --history all that can be
    read of them, which takes several times as long.

    Ends with exit code 3, naming the first difference, when they differ.

    JSON: ok (true), root (null while a first sync is unfinished), revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database:
        head = head_as_json(database.head, database.scheme)
        with progress_bar("checking", shows_progress=wants_bar(as_json=as_json)) as bar:
            checked = check_with_bar(database, bar, history=history)
    if as_json:
        print_json({"ok": True, **head})
    else:
        # Before a first sync has ended readers see no keys, but those that came so far were looked at.
        keys = checked if head["root"] is None else head["keys"]
        so_far = " so far" if head["root"] is None else ""
        print_facts({"ok": f"{format_key_count(keys)}{so_far}", "root": show_root(head)})
