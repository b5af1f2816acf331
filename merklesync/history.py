"""The commands about what a store was before: ``log`` and ``diff``; the others take ``--at``."""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from merkledb import Database, Difference, NoCompleteRoot, Revision
from merklesync.keys import name_bytes, show_bytes
from merklesync.options import (
    MAX_COUNT,
    KeyRange,
    json_option,
    key_range_options,
    store_argument,
    text_option,
)
from merklesync.output import echo, print_json_list, show_keys
from merklesync.records import bytes_to_json
from merklesync.revisions import REVISION, RevisionName, root_named
from merklesync.stores import open_for_reading

# What stands before a key: as in other programs that show differences.
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@store_argument
@click.option("--limit", type=click.IntRange(0, MAX_COUNT), metavar="N", help="At most the N newest.")
@json_option
def log(store: Path, *, limit: int | None, as_json: bool) -> None:
    """List the revisions that STORE retains, newest first: number, root, time, and how many keys it has.

    Each can be read, proved and exported with --at, and is served to whoever asks for its root. A replica
    takes over the numbers of its source, so there some may be missing.

    JSON: store, revisions: a list of revision (the number), root, time (seconds since 1970; null where it is
    no time), keys.
    """
    with open_for_reading(store) as database:
        revisions = database.revisions()
    if not revisions:
        raise NoCompleteRoot(str(store))
    if as_json:
        print_json_list({"store": str(store)}, "revisions", map(_document, revisions[:limit]))
        return
    width = len(str(revisions[0].number))
    for revision in revisions[:limit]:
        echo(f"{revision.number:>{width}}  {revision.root.hex()}  {_time(revision)}  {_keys(revision)}")


def _document(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "root": revision.root.hex(),
        "time": None if _moment(revision) is None else revision.time,
        "keys": revision.keys,
    }


def _moment(revision: Revision) -> datetime | None:
    """Return when a revision was made; None where what the store has is no time, which JSON could not say."""
    try:
        return datetime.fromtimestamp(revision.time, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _time(revision: Revision) -> str:
    moment = _moment(revision)
    return "time unknown        " if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _keys(revision: Revision) -> str:
    return show_keys(revision.keys)


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
    old: RevisionName,
    new: RevisionName | None,
    *,
    key_range: KeyRange,
    keys_only: bool,
    as_json: bool,
) -> None:
    """List what is different in STORE between two retained revisions; NEW is the newest unless you name it.

    A line for each key, in their order: + and what NEW has added, - and what it has not any more, ~ and both
    values of what it has changed, after tabs; long values are cut. OLD and NEW are numbers as log
    lists them (r17 or 17), roots, or the first 8 or more digits of roots; either may be the older.

    JSON: old, new (roots), differences: a list of change ("added", "removed", "changed"), key and, without
    --keys-only, old and new, as get shows values, null where there is none.
    """
    with open_for_reading(store) as database:
        roots = root_named(database, old), database.root if new is None else root_named(database, new)
        with closing(_differences(database, roots, key_range)) as differences:
            if as_json:
                about = {name: root.hex() for name, root in zip(("old", "new"), roots, strict=True)}
                documents = (_describe(each, keys_only=keys_only) for each in differences)
                print_json_list(about, "differences", documents)
                return
            for difference in differences:
                echo(_line(difference, keys_only=keys_only))


def _differences(
    database: Database, roots: tuple[bytes, bytes], key_range: KeyRange
) -> Generator[Difference]:
    """Yield the differences, to be closed by the caller before the database is."""
    yield from database.differences(*roots, *key_range.bounds(database.scheme))


def _change(difference: Difference) -> str:
    if difference.old is None:
        return "added"
    return "removed" if difference.new is None else "changed"


def _line(difference: Difference, *, keys_only: bool) -> str:
    shown = f"{_SIGNS[_change(difference)]} {show_bytes(difference.key)}"
    values = () if keys_only else (difference.old, difference.new)
    return "\t".join([shown, *(name_bytes(value) for value in values if value is not None)])


def _describe(difference: Difference, *, keys_only: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "change": _change(difference),
        "key": bytes_to_json(difference.key, form="hex"),
    }
    if not keys_only:
        described |= {"old": _value(difference.old), "new": _value(difference.new)}
    return described


def _value(value: bytes | None) -> str | dict[str, str] | None:
    return None if value is None else bytes_to_json(value, form="base64")
