"""Stores as commands open them, and the commands about a store as a whole: ``root`` and ``check``.

A command that reads opens a store that is there, with the scheme it has, and creates nothing; several may
read while one writes.  A command that writes creates the store when it is missing, with the scheme that
was chosen.
"""

from pathlib import Path
from typing import Any

import click

import merkledb
from merkledb import Database, DatabaseInUse, Scheme, Snapshot
from merklesync.failures import Failure
from merklesync.options import SchemeChoice, json_option, store_argument
from merklesync.output import Bar, bars_are_wanted, note, print_facts, print_json, progress_bar, show_keys


def open_for_reading(path: Path) -> Database:
    """Open a store that is there; say so when it is a copy that was not finished.

    Raises:
        MerkleDBError: There is no store, or it cannot be read.
    """
    database = merkledb.open(path, scheme=None, readonly=True, create=False)
    if database.progress is not None:
        note(f"{path} is an unfinished copy, with a root of its own: run the same sync again to finish it")
    return database


def open_for_writing(path: Path, choice: SchemeChoice | None = None, *, create: bool = True) -> Database:
    """Open a store to write to it, creating it when nothing is there.

    Args:
        path: The folder of the store.
        choice: The scheme for a new store; one that is there must agree with it.
        create: Whether a missing store is made.

    Raises:
        Failure: Another process writes to it, or its scheme is another.
        MerkleDBError: It cannot be opened.
    """
    choice = choice or SchemeChoice(None, None)
    try:
        if not is_store(path):
            return merkledb.open(path, scheme=choice.complete(), create=create)
        database = merkledb.open(path, scheme=None, create=False)
    except DatabaseInUse as error:
        raise Failure(
            f"{path} is being written by another process: wait until it ends, then try again"
        ) from error
    if choice.complete(database.scheme) == database.scheme:
        return database
    database.close()
    raise Failure(
        f"{path} has {database.scheme}, not {choice.complete(database.scheme)}: "
        "leave --hasher and --branch-factor out, or name a new store"
    )


def is_store(path: Path) -> bool:
    """Return whether a store, or what looks like one, is at ``path`` already."""
    return (path / "data.mdb").exists()


def describe_store(snapshot: Snapshot) -> dict[str, Any]:
    """Return the fields that every JSON document about a store has."""
    return {
        "root": snapshot.root.hex(),
        "revision": snapshot.revision,
        "keys": len(snapshot),
        **describe_scheme(snapshot.scheme),
    }


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
            click.echo(snapshot.root.hex())


def check_with_bar(database: Database, bar: Bar) -> None:
    """Check a store and show how far it is.

    Raises:
        CorruptDatabase: It names the first difference.
    """
    total = len(database)
    done = 0

    def count(pairs: int) -> None:
        nonlocal done
        done += pairs
        bar.show(done, None, done / total if total else None)

    database.check(count)


@click.command()
@store_argument
@json_option
def check(store: Path, *, as_json: bool) -> None:
    """Derive every branch of STORE and its root anew from the values, and compare.

    Ends with exit code 3, naming the first difference, when they differ.

    JSON: ok (true), root, revision, keys, hasher, branch_factor.
    """
    with open_for_reading(store) as database:
        with database.snapshot() as snapshot:
            described = describe_store(snapshot)
        with progress_bar("checking", visible=bars_are_wanted(as_json=as_json)) as bar:
            check_with_bar(database, bar)
    if as_json:
        print_json({"ok": True, **described})
    else:
        print_facts({"ok": f"{show_keys(described['keys'])}", "root": described["root"]})
