"""Sources that move: a database that commits, what it held at each root, and who watches its copy."""

import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import trio

import merkledb
from manager import SerialExecutor
from merkledb import EMPTY_ROOT, Database

Result = TypeVar("Result")


class Source:
    """A database, and what it held at each root.

    Attributes:
        database: The database.
        contents: The content at each root that there was, the empty one included.
        roots: The roots in order; one that came back is there twice.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.contents: dict[bytes, dict[bytes, bytes]] = {EMPTY_ROOT: {}}
        self.roots = [EMPTY_ROOT]

    @property
    def root(self) -> bytes:
        return self.roots[-1]

    def commit(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Commit, and return the new root."""
        content = {**self.contents[self.root], **changes}
        root = self.database.commit(changes)
        self.contents[root] = {key: value for key, value in content.items() if value is not None}
        self.roots.append(root)
        return root

    def change(self, count: int, choice: random.Random) -> bytes:
        """Commit so many changes: mostly new values, some deletions, some new keys."""
        keys = choice.sample(sorted(self.contents[self.root]), count)
        changes: dict[bytes, bytes | None] = {key: choice.randbytes(8) for key in keys}
        changes |= dict.fromkeys(keys[: count // 8])
        changes |= {choice.randbytes(32): b"new" for _ in range(count // 8)}
        return self.commit(changes)


@contextlib.contextmanager
def new_source(pairs: Mapping[bytes, bytes], history: int = 256) -> Iterator[Source]:
    """Open a new source that holds the pairs, one commit old."""
    with (
        tempfile.TemporaryDirectory() as folder,
        merkledb.open(Path(folder) / "store", history=history) as database,
    ):
        source = Source(database)
        source.commit(pairs)
        yield source


class Watching(SerialExecutor):
    """An executor in the event loop that looks, after all that is done, whether the copy shows what it may.

    Attributes:
        shown: The roots that the copy has shown, in order.
    """

    def __init__(self, source: Source, copy: Database) -> None:
        self._source = source
        self._copy = copy
        self.shown: list[bytes] = []

    async def run(self, work: Callable[[], Result]) -> Result:
        await trio.lowlevel.checkpoint()
        result = work()
        self.look()
        return result

    def look(self) -> None:
        head = self._copy.head
        if head is not None and (not self.shown or head.root != self.shown[-1]):
            assert head.root in self._source.contents, "a mixture is shown"
            assert dict(self._copy.items()) == self._source.contents[head.root]
            assert len(self._copy) == len(self._source.contents[head.root])
            self.shown.append(head.root)
