"""The command ``export``: a store back into a folder tree, JSON Lines, or CSV.

All of it comes from one snapshot, and is folded while it is read: what does not make the root is damage.  A
file that cannot be finished is removed; a folder tree is refused before anything is written when a key is not
a path below the target, or when the pairs do not make the root.
"""

from pathlib import Path
from time import monotonic

import click

from merkledb import Snapshot
from merklesync.commands.options import (
    PATH,
    NotationsOption,
    format_option,
    json_option,
    notation_options,
    store_argument,
)
from merklesync.commands.revision_option import RevisionOption, at_option, snapshot_at
from merklesync.commands.stores import open_for_reading, snapshot_as_json
from merklesync.console.bar import CountedPairs, progress_bar, wants_bar
from merklesync.console.output import format_key_count, format_seconds, format_size, print_facts, print_json
from merklesync.errors import CommandError, ExitCode
from merklesync.files.format import Format, format_of_target
from merklesync.files.paths import STANDARD_STREAM, new_file
from merklesync.files.text_pairs import best_notations, write_csv, write_json_lines
from merklesync.files.tree_writer import require_names, write_tree


@click.command()
@store_argument
@click.argument("destination", metavar="TARGET", type=PATH)
@format_option
@notation_options("else text where all of them are text, and auto where not; the header says which")
@at_option
@json_option
def export(
    store: Path,
    destination: Path,
    *,
    form: Format | None,
    notations: NotationsOption,
    at: RevisionOption | None,
    as_json: bool,
) -> None:
    """Write all pairs of STORE to TARGET.

    TARGET is a new file where its name ends in .jsonl, .ndjson or .csv (or --format says so), - is standard
    output, and anything else is a new or empty folder, in which each key becomes a file.

    A folder is refused, naming the keys, when one is absolute, climbs with .. (also where a backslash
    separates names), begins with a drive such as C:, is empty or has an empty name, holds a NUL byte, is too
    long for the file system, or needs one name to be a file and a folder. Nothing is ever written outside
    TARGET.

    What is written makes the root, or the command ends with exit code 3: then no file or folder is left, and
    what went to standard output is not to be used.

    JSON: root, revision, keys, hasher, branch_factor, target, format, bytes, seconds. Not with -.
    """
    began = monotonic()
    form = format_of_target(destination, form)
    notations.require_csv(form)
    if destination == STANDARD_STREAM and as_json:
        raise click.UsageError("--json and - both want standard output", click.get_current_context())
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        described = snapshot_as_json(snapshot)
        try:
            size_bytes = _write_pairs(
                snapshot, destination, form, notations, shows_progress=wants_bar(as_json=as_json)
            )
        except KeyboardInterrupt as interrupt:
            left = (
                f"{destination} holds a part: remove it and export again"
                if form is Format.FOLDER
                else "export again"
            )
            raise CommandError(f"interrupted: {left}", ExitCode.INTERRUPTED) from interrupt
    seconds = monotonic() - began
    if as_json:
        where = {"target": str(destination), "format": str(form)}
        print_json({**described, **where, "bytes": size_bytes, "seconds": seconds})
    elif destination != STANDARD_STREAM:
        exported = (
            f"{format_key_count(described['keys'])}, {format_size(size_bytes)} in {format_seconds(seconds)}"
        )
        print_facts({"exported": exported, "root": described["root"]})


def _write_pairs(
    snapshot: Snapshot, destination: Path, form: Format, notations: NotationsOption, *, shows_progress: bool
) -> int:
    """Write all pairs; return the bytes of their keys and values."""
    if form is Format.FOLDER:
        # All pairs are read here once before any is written, so here they are folded.
        require_names(destination, (key for key, _ in snapshot.folded_items()))
    keys, values = notations
    if form is Format.CSV and (keys is None or values is None):
        # The header comes first, so all pairs are looked at before one is written.
        best = best_notations(snapshot.items())
        keys, values = keys or best[0], values or best[1]
    with progress_bar("writing", shows_progress=shows_progress) as bar:
        source = snapshot.items() if form is Format.FOLDER else snapshot.folded_items()
        pairs = CountedPairs(source, bar, total_keys=len(snapshot))
        if form is Format.FOLDER:
            write_tree(destination, pairs)
            return pairs.size_bytes
        with new_file(destination) as file:
            if keys is None or values is None:
                write_json_lines(file, pairs)
            else:
                write_csv(file, pairs, keys=keys, values=values)
    return pairs.size_bytes
