"""Stores as commands open them, and the commands about a store as a whole: ``root``, ``check``, ``rollback``.

A command that reads opens a store that is there, with the scheme it has, and creates nothing; several may
read while one writes.  A command that writes creates the store when it is missing, with the scheme that
was chosen.
"""

from pathlib import Path
from typing import Any

import click

import merkledb
from merkledb import Database, DatabaseInUse, Scheme, Snapshot
from merklesync.failures import ExitCode, Failure
from merklesync.options import Retention, SchemeChoice, json_option, store_argument
from merklesync.output import (
    Bar,
    bars_are_wanted,
    echo,
    note,
    print_facts,
    print_json,
    progress_bar,
    show_keys,
)
from merklesync.paths import is_there


def open_for_reading(path: Path) -> Database:
    """Open a store that is there.

    Raises:
        MerkleDBError: There is no store, or it cannot be read.
    """
    return merkledb.open(path, scheme=None, readonly=True, create=False)


def open_for_syncing(
    path: Path, choice: SchemeChoice | None = None, retention: Retention | None = None, *, create: bool = True
) -> Database:
    """Open a store to write to it, be it in the middle of a sync; create it when nothing is there.

    Args:
        path: The folder of the store.
        choice: The scheme for a new store; one that is there must agree with it.
        retention: How much history it keeps from now on.
        create: Whether a missing store is made.

    Raises:
        Failure: Another process writes to it, or its scheme is another.
        MerkleDBError: It cannot be opened.
    """
    choice, retention = choice or SchemeChoice(None, None), retention or Retention()
    is_there = is_store(path)
    try:
        return merkledb.open(
            path,
            # Asked for before anything of the store is changed, its retention included.
            scheme=_agreed_scheme(path, choice) if is_there else choice.complete(),
            create=create and not is_there,
            history=retention.history,
            history_seconds=retention.history_seconds,
        )
    except DatabaseInUse as error:
        raise Failure(
            f"{path} is being written by another process: wait until it ends, then try again"
        ) from error


def _agreed_scheme(path: Path, choice: SchemeChoice) -> Scheme:
    """Return the scheme of a store that is there.

    Raises:
        Failure: Another one was chosen.
    """
    with open_for_reading(path) as database:
        found = database.scheme
    if choice.complete(found) == found:
        return found
    raise Failure(
        f"{path} has {found}, not {choice.complete(found)}: "
        "leave --hasher and --branch-factor out, or name a new store"
    )


def open_for_writing(
    path: Path, choice: SchemeChoice | None = None, retention: Retention | None = None, *, create: bool = True
) -> Database:
    """Open a store to change its content here; as ``open_for_syncing``.

    Raises:
        Failure: It is in the middle of a sync; or as ``open_for_syncing``.
    """
    database = open_for_syncing(path, choice, retention, create=create)
    try:
        if not database.catching_up:
            return database
    except BaseException:
        database.close()
        raise
    database.close()
    raise Failure(
        f"{path} is in the middle of a sync: finish it with sync or follow, "
        f"or give it up with merklesync rollback {path}"
    )


def is_store(path: Path) -> bool:
    """Return whether a store, or what looks like one, is at ``path`` already.

    Raises:
        OSError: That cannot be told.
    """
    return is_there(path / "data.mdb")


def describe_store(snapshot: Snapshot) -> dict[str, Any]:
    """Return the fields that every JSON document about a store has."""
    return {
        "root": snapshot.root.hex(),
        "revision": snapshot.revision,
        "keys": len(snapshot),
        **describe_scheme(snapshot.scheme),
    }


def describe_head(database: Database) -> dict[str, Any]:
    """Return the same fields, as they are while a first sync is unfinished, too: root null, and no keys."""
    head = database.head
    root, number, keys = (None, 0, 0) if head is None else (head.root.hex(), head.number, head.keys)
    return {"root": root, "revision": number, "keys": keys, **describe_scheme(database.scheme)}


def describe_scheme(scheme: Scheme) -> dict[str, Any]:
    """Return a scheme as the fields of a JSON document."""
    return {"hasher": scheme.hasher, "branch_factor": scheme.branch_factor}


@click.command()
@store_argument
@json_option
def root(store: Path, *, as_json: bool) -> None:
    """Print the root of STORE, as hex and alone.

    JSON: root, revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database, database.snapshot() as snapshot:
        if as_json:
            print_json(describe_store(snapshot))
        else:
            echo(snapshot.root.hex())


def check_with_bar(database: Database, bar: Bar) -> None:
    """Check a store and show how far it is.

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

    database.check(count)


@click.command()
@store_argument
@json_option
def check(store: Path, *, as_json: bool) -> None:
    """Derive every branch of STORE and its root anew from the values, and compare.

    While a sync is under way, that is done for what is there of it, and for what readers see meanwhile.

    Ends with exit code 3, naming the first difference, when they differ.

    JSON: ok (true), root (null while a first sync is unfinished), revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database:
        described = describe_head(database)
        with progress_bar("checking", visible=bars_are_wanted(as_json=as_json)) as bar:
            check_with_bar(database, bar)
    if as_json:
        print_json({"ok": True, **described})
    else:
        root = described["root"] or "none yet: the first sync is unfinished"
        print_facts({"ok": f"{show_keys(described['keys'])}", "root": root})


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
            raise Failure(
                f"interrupted: {store} is still in the middle of a sync; run the same command again",
                ExitCode.INTERRUPTED,
            ) from interrupt
        described = describe_head(database)
    if as_json:
        print_json({"rolled_back": unfinished, **described})
        return
    if not unfinished:
        note(f"{store} has no unfinished sync: nothing was given up")
    echo(described["root"])
