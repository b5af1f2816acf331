"""Databases for tests of one process: in a folder of their own that goes away with them."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import merkledb
from merkledb import Database, Scheme


@contextlib.contextmanager
def new_database(
    contents: Mapping[bytes, bytes] | None = None, scheme: Scheme | None = None
) -> Iterator[Database]:
    """Open a new database that holds the contents, one commit old if there are any."""
    with (
        tempfile.TemporaryDirectory() as folder,
        merkledb.open(Path(folder) / "store", scheme=scheme or Scheme()) as database,
    ):
        if contents:
            database.commit(contents)
        yield database
