"""Stores as commands open them, and the JSON fields that describe a store.

A command that reads opens a store that is there, with the scheme it has, and creates nothing; several may
read while one writes.  A command that writes creates the store when it is missing, with the scheme that
was chosen.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import merkledb
from merkledb import EMPTY_ROOT, Database, DatabaseInUse, MerkleDBError, Revision, Scheme, Snapshot
from merklesync.commands.options import RetentionOption, SchemeOption
from merklesync.console.bar import ProgressBar
from merklesync.console.output import echo, print_json, print_note
from merklesync.errors import CommandError
from merklesync.files.paths import is_there


def open_for_reading(path: Path) -> Database:
    """Open a store that is there.

    Raises:
        MerkleDBError: There is no store, or it cannot be read.
    """
    return merkledb.open(path, scheme=None, readonly=True, create=False)


def open_for_syncing(
    path: Path,
    scheme_option: SchemeOption | None = None,
    retention: RetentionOption | None = None,
    *,
    create: bool = True,
) -> Database:
    """Open a store to write to it, be it in the middle of a sync; create it when nothing is there.

    Args:
        path: The folder of the store.
        scheme_option: The scheme for a new store; one that is there must agree with it.
        retention: How much history it keeps from now on.
        create: Whether a missing store is made.

    Raises:
        CommandError: Another process writes to it, or its scheme is another.
        MerkleDBError: It cannot be opened.
    """
    scheme_option, retention = scheme_option or SchemeOption(None, None), retention or RetentionOption()
    exists = is_store(path)
    try:
        return merkledb.open(
            path,
            # Asked for before anything of the store is changed, its retention included.
            scheme=_scheme_to_open(path, scheme_option) if exists else scheme_option.with_defaults(),
            create=create and not exists,
            history=retention.history,
            history_seconds=retention.history_seconds,
        )
    except DatabaseInUse as error:
        raise CommandError(
            f"{path} is being written by another process: wait until it ends, then try again"
        ) from error


def _scheme_to_open(path: Path, scheme_option: SchemeOption) -> Scheme:
    """Return the scheme of a store that is there.

    Raises:
        CommandError: Another one was chosen.
    """
    with open_for_reading(path) as database:
        found = database.scheme
    if scheme_option.with_defaults(found) == found:
        return found
    raise CommandError(
        f"{path} has {found}, not {scheme_option.with_defaults(found)}: "
        "leave --hasher and --branch-factor out, or name a new store"
    )


def open_for_writing(
    path: Path,
    scheme_option: SchemeOption | None = None,
    retention: RetentionOption | None = None,
    *,
    create: bool = True,
) -> Database:
    """Open a store to change its content here; as ``open_for_syncing``.

    Raises:
        CommandError: It is in the middle of a sync; or as ``open_for_syncing``.
    """
    database = open_for_syncing(path, scheme_option, retention, create=create)
    try:
        if not database.catching_up:
            return database
    except BaseException:
        database.close()
        raise
    database.close()
    raise CommandError(
        f"{path} is in the middle of a sync: finish it with sync or follow, "
        f"or give it up with merklesync rollback {path}"
    )


def is_store(path: Path) -> bool:
    """Return whether a store, or what looks like one, is at ``path`` already.

    Raises:
        OSError: That cannot be told.
    """
    return is_there(path / "data.mdb")


def snapshot_as_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return the fields that every JSON document about a store has."""
    return {
        "root": snapshot.root.hex(),
        "revision": snapshot.revision,
        "keys": len(snapshot),
        **scheme_as_json(snapshot.scheme),
    }


def head_as_json(head: Revision | None, scheme: Scheme) -> dict[str, Any]:
    """Return the same fields of a head; None is that of an unfinished first sync: root null, and no keys."""
    root, number, keys = (None, 0, 0) if head is None else (head.root.hex(), head.number, head.keys)
    return {"root": root, "revision": number, "keys": keys, **scheme_as_json(scheme)}


def show_root(head: dict[str, Any]) -> str:
    """Return the root of what ``head_as_json`` returned, as people read it."""
    return head["root"] or "none yet: the first sync is unfinished"


def scheme_as_json(scheme: Scheme) -> dict[str, Any]:
    """Return a scheme as the fields of a JSON document."""
    return {"hasher": scheme.hasher, "branch_factor": scheme.branch_factor}


def check_with_bar(database: Database, bar: ProgressBar, *, history: bool = False) -> int:
    """Check a store, with all of its history or without, showing how far it is.

    Returns:
        How many pairs were looked at.

    Raises:
        CorruptDatabase: It names the first difference.
    """
    head = database.head
    total = 0 if head is None else head.keys
    done = 0

    def count(pairs: int) -> None:
        nonlocal done
        done += pairs
        bar.show(done, None, min(1.0, done / total) if total else None)

    database.check(count, history=history)
    return done


@contextmanager
def note_end_of_copy(database: Database) -> Iterator[None]:
    """Say that what happens in the block makes a copy of peers content that was written here, if it does.

    Also where the block ends with an error, for what it has committed before stays.
    """
    # An empty store counts as no content that was written here, wherever it comes from.
    head = database.head
    is_copy = head is not None and head.root != EMPTY_ROOT and not database.written_locally
    try:
        yield
    finally:
        with suppress(MerkleDBError):
            if is_copy and database.written_locally:
                print_note(
                    f"{database.path} was a copy of its peers, and is written here now: sync and follow "
                    "refuse it from now on, or with --replace undo what was written"
                )


def commit_and_print(database: Database, changes: dict[bytes, bytes | None], *, as_json: bool) -> None:
    """Commit changes, and print the new root, alone or with the fields of ``snapshot_as_json``."""
    with note_end_of_copy(database):
        database.commit(changes)
    with database.snapshot() as snapshot:
        described = snapshot_as_json(snapshot)
    if as_json:
        print_json(described)
    else:
        echo(described["root"])
