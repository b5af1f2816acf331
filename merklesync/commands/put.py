"""The command ``put``: one pair into a store."""

from pathlib import Path

import click

from merkledb import MAX_VALUE_BYTES
from merklesync.commands.options import (
    BYTES,
    PATH,
    RetentionOption,
    SchemeOption,
    json_option,
    key_argument,
    retention_options,
    scheme_options,
    store_argument,
    text_option,
)
from merklesync.commands.stores import commit_and_print, open_for_writing
from merklesync.files.paths import open_source


@click.command()
@store_argument
@key_argument
@click.argument("value", type=BYTES, required=False)
@click.option("--file", "file", type=PATH, help="Read the value from it; - is standard input.")
@scheme_options("of a new store")
@retention_options
@text_option
@json_option
def put(
    store: Path,
    key: bytes,
    value: bytes | None,
    file: Path | None,
    *,
    scheme_option: SchemeOption,
    retention: RetentionOption,
    as_json: bool,
) -> None:
    """Store VALUE under KEY, replacing what KEY holds, and print the new root.

    KEY and VALUE are text, or 0x and hex digits. STORE is created when it is missing. To put many pairs, use
    load. A copy that is written to is refused by sync and follow from then on, unless with --replace, which
    takes back what was written; that is noted.

    JSON: root, revision, keys, hasher, branch_factor.
    """
    if (value is None) == (file is None):
        raise click.UsageError("give either VALUE or --file FILE", click.get_current_context())
    if value is None and file is not None:
        with open_source(file) as stream:
            # One byte more than allowed is enough to be refused.
            value = stream.read(MAX_VALUE_BYTES + 1)
    with open_for_writing(store, scheme_option, retention) as database:
        commit_and_print(database, {key: value}, as_json=as_json)
