"""The commands about single pairs: ``put``, ``get``, ``delete`` and ``list``."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from merkledb import MAX_VALUE_BYTES, Database
from merklesync.failures import Failure
from merklesync.files import opened
from merklesync.keys import name_bytes, show_bytes
from merklesync.options import (
    BYTES,
    MAX_COUNT,
    PATH,
    KeyRange,
    Retention,
    SchemeChoice,
    json_option,
    key_range_options,
    retention_options,
    scheme_options,
    store_argument,
    text_option,
)
from merklesync.output import echo, print_json, print_json_list
from merklesync.records import bytes_to_json, pair_to_json
from merklesync.revisions import RevisionName, at_option, snapshot_at
from merklesync.sorting import Pair
from merklesync.stores import describe_store, open_for_reading, open_for_writing

key_argument = click.argument("key", type=BYTES)


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
    scheme: SchemeChoice,
    retention: Retention,
    as_json: bool,
) -> None:
    """Store VALUE under KEY, replacing what KEY holds, and print the new root.

    KEY and VALUE are text, or 0x and hex digits. STORE is created when it is missing. To put many pairs, use
    load.

    JSON: root, revision, keys, hasher, branch_factor.
    """
    if (value is None) == (file is None):
        raise click.UsageError("give either VALUE or --file FILE", click.get_current_context())
    if value is None and file is not None:
        with opened(file) as stream:
            # One byte more than allowed is enough to be refused.
            value = stream.read(MAX_VALUE_BYTES + 1)
    with open_for_writing(store, scheme, retention) as database:
        _commit(database, {key: value}, as_json=as_json)


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
            raise Failure(f"{store} has no key {name_bytes(missing)}: nothing was deleted")
        _commit(database, dict.fromkeys(keys), as_json=as_json)


def _commit(database: Database, changes: dict[bytes, bytes | None], *, as_json: bool) -> None:
    database.commit(changes)
    with database.snapshot() as snapshot:
        described = describe_store(snapshot)
    if as_json:
        print_json(described)
    else:
        echo(described["root"])


@click.command()
@store_argument
@key_argument
@at_option
@text_option
@json_option
def get(store: Path, key: bytes, *, at: RevisionName | None, as_json: bool) -> None:
    """Print the value of KEY: its bytes as they are, or, on a terminal, as text or hex.

    JSON: key, value; a string, {"hex": ...} or {"base64": ...} each, as load reads them.
    """
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        value, revision = snapshot.get(key), snapshot.revision
    if value is None:
        where = "" if at is None else f" at revision {revision}"
        raise Failure(f"{store} has no key {name_bytes(key)}{where}")
    if as_json:
        print_json(pair_to_json(key, value))
    elif sys.stdout.isatty():
        echo(show_bytes(value))
    else:
        echo(value, nl=False)


@click.command("list")
@store_argument
@key_range_options
@click.option("--reverse", is_flag=True, help="Largest key first.")
@click.option("--limit", type=click.IntRange(0, MAX_COUNT), metavar="N", help="At most N keys.")
@click.option("--values", is_flag=True, help="Print the values too, after a tab.")
@at_option
@text_option
@json_option
def list_keys(
    store: Path,
    *,
    key_range: KeyRange,
    reverse: bool,
    limit: int | None,
    values: bool,
    at: RevisionName | None,
    as_json: bool,
) -> None:
    """List the keys of STORE in order, one a line: text, or 0x and hex digits where text cannot be printed.

    JSON: root, revision, pairs: a list of key (and, with --values, value), as get shows them.
    """
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        bounds = key_range.bounds(snapshot.scheme)
        pairs = islice(snapshot.items(*bounds, reverse=reverse), limit)
        if as_json:
            about = {"root": snapshot.root.hex(), "revision": snapshot.revision}
            print_json_list(about, "pairs", _documents(pairs, values=values))
            return
        for key, value in pairs:
            echo(show_bytes(key) + (f"\t{show_bytes(value)}" if values else ""))


def _documents(pairs: Iterator[Pair], *, values: bool) -> Iterator[dict[str, str | dict[str, str]]]:
    for key, value in pairs:
        yield pair_to_json(key, value) if values else {"key": bytes_to_json(key, form="hex")}
