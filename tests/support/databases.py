"""Databases for tests of one process: in folders that go away with them, in memory where there is room."""

import contextlib
from collections.abc import Iterator, Mapping

import merkledb
from merkledb import Database, Scheme
from simulation.disk import temporary_folder


@contextlib.contextmanager
def new_database(
    contents: Mapping[bytes, bytes] | None = None, scheme: Scheme | None = None
) -> Iterator[Database]:
    """Open a new database that holds the contents, one commit old if there are any."""
    with (
        temporary_folder() as folder,
        merkledb.open(folder / "store", scheme=scheme or Scheme()) as database,
    ):
        if contents:
            database.commit(contents)
        yield database
