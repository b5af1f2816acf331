"""The command ``list``: the keys of a store in order, and their values."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from merklesync.commands.options import (
    MAX_COUNT,
    KeyRangeOption,
    json_option,
    key_range_options,
    store_argument,
    text_option,
)
from merklesync.commands.revision_option import RevisionOption, at_option, snapshot_at
from merklesync.commands.stores import open_for_reading
from merklesync.console.output import echo, print_json_list
from merklesync.files.sorted_pairs import Pair
from merklesync.files.text_pairs import bytes_to_json, pair_to_json
from merklesync.text import format_bytes


@click.command("list")
@store_argument
@key_range_options
@click.option("--reverse", is_flag=True, help="Largest key first.")
@click.option("--limit", type=click.IntRange(0, MAX_COUNT), metavar="N", help="At most N keys.")
@click.option("--values", is_flag=True, help="Print the values too, after a tab.")
@at_option
@text_option
@json_option
def list_pairs(
    store: Path,
    *,
    key_range: KeyRangeOption,
    reverse: bool,
    limit: int | None,
    values: bool,
    at: RevisionOption | None,
    as_json: bool,
) -> None:
    """List the keys of STORE in order, one a line: text, or 0x and hex digits where text cannot be printed.

    Ends with exit code 3 where what is read next is not what the root says.

    JSON: root, revision, pairs: a list of key (and, with --values, value), as get shows them.
    """
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        bounds = key_range.bounds(snapshot.scheme)
        pairs = islice(snapshot.verified_items(*bounds, reverse=reverse), limit)
        if as_json:
            about = {"root": snapshot.root.hex(), "revision": snapshot.revision}
            print_json_list(about, "pairs", _pairs_as_json(pairs, values=values))
            return
        for key, value in pairs:
            echo(format_bytes(key) + (f"\t{format_bytes(value)}" if values else ""))


def _pairs_as_json(pairs: Iterator[Pair], *, values: bool) -> Iterator[dict[str, str | dict[str, str]]]:
    for key, value in pairs:
        yield pair_to_json(key, value) if values else {"key": bytes_to_json(key, form="hex")}
