"""The command ``log``: the revisions that a store retains."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from merkledb import NoCompleteRoot, Revision
from merklesync.commands.options import MAX_COUNT, json_option, store_argument
from merklesync.commands.stores import open_for_reading
from merklesync.console.output import echo, format_key_count, print_json_list


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
        print_json_list({"store": str(store)}, "revisions", map(_revision_as_json, revisions[:limit]))
        return
    width = len(str(revisions[0].number))
    for revision in revisions[:limit]:
        keys = format_key_count(revision.keys)
        echo(f"{revision.number:>{width}}  {revision.root.hex()}  {_format_time(revision)}  {keys}")


def _revision_as_json(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "root": revision.root.hex(),
        "time": None if _moment(revision) is None else revision.time,
        "keys": revision.keys,
    }


def _moment(revision: Revision) -> datetime | None:
    """Return when a revision was made; None where the stored number is not a time, nor a number for JSON."""
    try:
        return datetime.fromtimestamp(revision.time, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _format_time(revision: Revision) -> str:
    moment = _moment(revision)
    return "time unknown        " if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
