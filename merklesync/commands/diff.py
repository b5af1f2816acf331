"""The command ``diff``: what is different between two retained revisions."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click

from merkledb import Database, Difference
from merklesync.commands.options import (
    KeyRangeOption,
    json_option,
    key_range_options,
    store_argument,
    text_option,
)
from merklesync.commands.revision_option import REVISION, RevisionOption, resolve_root
from merklesync.commands.stores import open_for_reading
from merklesync.console.output import echo, print_json_list
from merklesync.files.text_pairs import bytes_to_json
from merklesync.text import format_bytes, quote_bytes

# What stands before a key: as in other programs that show differences.
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@store_argument
@click.argument("old", metavar="OLD", type=REVISION)
@click.argument("new", metavar="[NEW]", type=REVISION, required=False)
@key_range_options
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@text_option
@json_option
def diff(
    store: Path,
    old: RevisionOption,
    new: RevisionOption | None,
    *,
    key_range: KeyRangeOption,
    keys_only: bool,
    as_json: bool,
) -> None:
    """List what is different in STORE between two retained revisions; NEW is the newest unless you name it.

    A line for each key, in their order: + and what NEW has added, - and what it has not any more, ~ and both
    values of what it has changed, after tabs; long values are cut. OLD and NEW are numbers as log
    lists them (r17 or 17), roots, or the first 8 or more digits of roots; either may be the older.

    What is read is not compared with the roots: check --history does that.

    JSON: old, new (roots), differences: a list of change ("added", "removed", "changed"), key and, without
    --keys-only, old and new, as get shows values, null where there is none.
    """
    with open_for_reading(store) as database:
        roots = resolve_root(database, old), database.root if new is None else resolve_root(database, new)
        with closing(_differences(database, roots, key_range)) as differences:
            if as_json:
                about = {name: root.hex() for name, root in zip(("old", "new"), roots, strict=True)}
                documents = (_difference_as_json(each, keys_only=keys_only) for each in differences)
                print_json_list(about, "differences", documents)
                return
            for difference in differences:
                echo(_difference_as_text(difference, keys_only=keys_only))


def _differences(
    database: Database, roots: tuple[bytes, bytes], key_range: KeyRangeOption
) -> Generator[Difference]:
    """Yield the differences, to be closed by the caller before the database is."""
    yield from database.differences(*roots, *key_range.bounds(database.scheme))


def _kind_of_change(difference: Difference) -> str:
    if difference.old is None:
        return "added"
    return "removed" if difference.new is None else "changed"


def _difference_as_text(difference: Difference, *, keys_only: bool) -> str:
    shown = f"{_SIGNS[_kind_of_change(difference)]} {format_bytes(difference.key)}"
    values = () if keys_only else (difference.old, difference.new)
    return "\t".join([shown, *(quote_bytes(value) for value in values if value is not None)])


def _difference_as_json(difference: Difference, *, keys_only: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "change": _kind_of_change(difference),
        "key": bytes_to_json(difference.key, form="hex"),
    }
    if not keys_only:
        described |= {"old": _value_as_json(difference.old), "new": _value_as_json(difference.new)}
    return described


def _value_as_json(value: bytes | None) -> str | dict[str, str] | None:
    return None if value is None else bytes_to_json(value, form="base64")
