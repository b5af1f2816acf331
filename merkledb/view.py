"""Views: a state that is proposed and not committed, with its root, reads and proofs.

A view is made as a commit is, by a fold over the changes and what they touch, but what would be written stays
in memory.  Reading looks there first, and at the state below for all that the changes did not touch.  So a
view costs what its changes cost, whatever the size of the store, and many can stand on one state.

    view      the branches that closed, and what hangs under them: changed leaves, untouched nodes
      |       of the state below
    state     a snapshot of the head, or another view

Any number of views can stand on each other.  Rows are read through *layers* of changes.  Each has at least
twice as many as the next, for one with fewer is merged with it; so there are few, however many views.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

from merkledb.arguments import require_instance
from merkledb.errors import StaleView
from merkledb.formats.branch_record import HEAVY, MAX_WEIGHT
from merkledb.history.rows import Row, Rows
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import Items, item_rows
from merkledb.readable import ReadableState
from merkledb.snapshot import Snapshot
from merkledb.storage.store import row_key
from merkledb.trie.merge_stream import ChangeColumns, ChangeStream, sorted_changes
from merkledb.trie.node import Node
from merkledb.trie.trie import OpenTrie

Commit = Callable[[Mapping[bytes, bytes | None], int], tuple[bytes, int]]


class _Layer(NamedTuple):
    """Changes of one view, or of several that stand on each other.

    Attributes:
        changes: The new values by key; None for a deletion.
        ascending: The same by row key, ascending.
    """

    changes: Mapping[bytes, bytes | None]
    ascending: list[tuple[bytes, bytes | None]]


def _layered(layers: list[_Layer], changes: Mapping[bytes, bytes | None]) -> list[_Layer]:
    """Return layers, the oldest first, with changes on top of them."""
    layers = list(layers)
    while layers and len(layers[-1].changes) < 2 * len(changes):
        changes = {**layers.pop().changes, **changes}
    if not changes:
        return layers
    return [*layers, _Layer(changes, sorted((row_key(key), value) for key, value in changes.items()))]


class View(ReadableState):
    """A proposed state.  A context manager; use it from one thread at a time.  Made by ``view``.

    Attributes:
        root: The root that a commit would give.
        scheme: The database's scheme.
        base: The state that it stands on: a snapshot of the head, or another view.
        changes: What it changes there.
    """

    def __init__(
        self, base: "Snapshot | View", changes: Mapping[bytes, bytes | None], commit: Commit
    ) -> None:
        super().__init__(base._store)  # noqa: SLF001 - a state of the same store.
        self.base = base
        self.scheme = base.scheme
        require_instance("changes", changes, Mapping)
        self.changes = dict(changes)
        self._commit = commit
        # The sequence number of the revision that a commit of this view made.
        self._committed: int | None = None
        self._base_trie = base.trie()
        self._snapshot: Snapshot = base._snapshot if isinstance(base, View) else base  # noqa: SLF001
        below: list[_Layer] = base._layers if isinstance(base, View) else []  # noqa: SLF001
        # Whatever is no change is refused here, before anything else looks at it.
        columns = sorted_changes(self.changes, self.scheme)
        self._layers: list[_Layer] = _layered(below, self.changes)
        with self._store.translated():
            self._make(columns)

    def _make(self, columns: ChangeColumns) -> None:
        assert isinstance(self._base_trie, OpenTrie)
        stream = ChangeStream(self._base_trie, columns)
        stream.walk()
        items = stream.items()
        fold = kernel().fold(self.scheme)
        try:
            closed = fold.feed(items)
        except ValueError as error:
            raise self._base_trie.corrupt(f"its branches contradict each other: {error}") from error
        self.root, last = fold.finish()
        records = dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))
        ends = _ends(items, stream, self.changes.keys(), records)
        self._view_trie = ViewTrie(self, self._base_trie, records, ends, self.read_rows)

    def _rows(self) -> "ViewRows":
        return ViewRows(self._snapshot._rows(), self._layers)  # noqa: SLF001 - of the same kind.

    def read_rows(self, low: bytes) -> Iterable[Row]:
        """Return the rows from the key ``low`` on, a few of which will be read."""
        return self._rows().ascending(low, None, MAX_WEIGHT)

    def trie(self) -> "ViewTrie":
        """Return the trie of this state."""
        return self._view_trie

    def __len__(self) -> int:
        changes: dict[bytes, bytes | None] = {}
        for layer in self._layers:
            changes.update(layer.changes)
        changed = ((key in self._snapshot, value is not None) for key, value in changes.items())
        return len(self._snapshot) + sum(after - before for before, after in changed)

    def view(self, changes: Mapping[bytes, bytes | None]) -> "View":
        """Return a view that stands on this one, which must stay open as long as it is used.

        Args:
            changes: The new value of each key; None deletes it.
        """
        return View(self, changes, self._commit)

    def commit(self) -> bytes:
        """Commit what this view proposes, with all uncommitted views below it, as one commit.

        Returns:
            The root, which is the view's.

        Raises:
            StaleView: Another commit came first; nothing is changed.
            SyncUnfinished, ReadonlyDatabase, DatabaseFull: As of any commit.
        """
        if self._committed is not None:
            raise StaleView
        changes, base = self._uncommitted()
        root, self._committed = self._commit(changes, base)
        return root

    def _uncommitted(self) -> tuple[dict[bytes, bytes | None], int]:
        """Return all changes since the last commit below, and that commit's sequence number."""
        views, base = [self], self.base
        while isinstance(base, View) and base._committed is None:  # noqa: SLF001 - a view as this one.
            views.append(base)
            base = base.base
        changes: dict[bytes, bytes | None] = {}
        for view in reversed(views):
            changes.update(view.changes)
        if isinstance(base, Snapshot):
            return changes, base.sequence
        assert base._committed is not None  # noqa: SLF001
        return changes, base._committed  # noqa: SLF001

    def close(self) -> None:
        """End the use of the database where this view stands on the head itself."""
        if isinstance(self.base, Snapshot):
            self.base.close()


def _ends(
    items: Items, stream: ChangeStream, changed_keys: Iterable[bytes], closed: Mapping[bytes, bytes]
) -> dict[bytes, bool]:
    """Return what hangs under the branches that closed, and is no bucket.

    By path, whether it is a leaf that the changes made.  What is not is an untouched node of the state below,
    found there at or below its path.
    """
    changed = set(stream.scheme.codec.paths(list(changed_keys)))
    ends = {
        path: path in changed
        for path, _, _, weight in item_rows(items)
        if weight == HEAVY and path not in closed
    }
    left = stream.reattached_children(closed)
    ends.update((path, digest is not None) for path, _, digest, weight in left if weight == HEAVY)
    return ends


class ViewTrie(OpenTrie):
    """The trie of a view.

    Args:
        view: Whose trie it is.
        base: The trie of the state below.
        records: The branches that closed, by path.
        ends: What hangs under them, see ``_ends``.
        rows: Reads the view's rows from a key on.
    """

    def __init__(
        self,
        view: View,
        base: OpenTrie,
        records: Mapping[bytes, bytes],
        ends: Mapping[bytes, bool],
        rows: Callable[[bytes], Iterable[Row]],
    ) -> None:
        super().__init__(base.transaction, view.root)
        self._view = view
        self._base = base
        self._records = records
        self._ends = ends
        self._read_rows = rows
        self._branch_paths = sorted(records)
        self._end_paths = sorted(ends)

    def node_under(self, slot: bytes) -> Node | None:
        """Return the topmost node at or below the path ``slot``, which holds no bucket; None when none is."""
        trie: OpenTrie = self
        # A loop, for views may stand on each other a thousand times.
        while isinstance(trie, ViewTrie):
            if not trie._records and not trie._ends:  # noqa: SLF001 - here and below, a trie as this one.
                return None  # All of it is a bucket, or empty.
            path = _first_below(trie._branch_paths, slot)  # noqa: SLF001
            if path is not None:
                return Node(path, trie._records[path])  # noqa: SLF001
            path = _first_below(trie._end_paths, slot)  # noqa: SLF001
            if path is not None and trie._ends[path]:  # noqa: SLF001
                return Node(path, None)
            slot, trie = slot if path is None else path, trie._base  # noqa: SLF001
        return trie.node_under(slot)

    def rows(self, low: bytes) -> Iterable[Row]:
        """Return row keys and values from the key ``low`` on."""
        return self._read_rows(low)

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""
        return self._view.get(key)


def _first_below(paths: list[bytes], slot: bytes) -> bytes | None:
    """Return the first of ascending ``paths`` that is at or below ``slot``."""
    at = bisect_left(paths, slot)
    return paths[at] if at < len(paths) and paths[at].startswith(slot) else None


class ViewRows(Rows):
    """The rows of a view: those of the snapshot below, with the layers of changes merged in.

    Args:
        base: The rows of the snapshot.
        layers: The oldest first.
    """

    def __init__(self, base: Rows, layers: list[_Layer]) -> None:
        self._base = base
        self._layers = layers

    def value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""
        for layer in reversed(self._layers):
            if key in layer.changes:
                return layer.changes[key]
        return self._base.value(key)

    def ascending(self, start: bytes | None, end: bytes | None, expected: int) -> Iterator[Row]:
        """Yield the rows from ``start`` on."""
        rows = iter(self._base.ascending(start, end, expected))
        for _, changes in self._layers:
            first = 0 if start is None else bisect_left(changes, row_key(start), key=itemgetter(0))
            rows = _merged(rows, changes, first, reverse=False)
        return rows

    def descending(self, start: bytes | None, end: bytes | None) -> Iterator[Row]:
        """Yield the rows from ``end`` down."""
        rows = iter(self._base.descending(start, end))
        for _, changes in self._layers:
            count = len(changes) if end is None else bisect_right(changes, row_key(end), key=itemgetter(0))
            rows = _merged(rows, changes, count - 1, reverse=True)
        return rows


def _merged(
    rows: Iterable[Row], changes: list[tuple[bytes, bytes | None]], at: int, *, reverse: bool
) -> Iterator[Row]:
    """Yield rows with changes merged in, both in the same order; a change hides the row with its key.

    Args:
        rows: The rows.
        changes: By row key, ascending.  They are read from where they are: there may be many more of them
            than anybody reads.
        at: The number of the first change that is of interest.
        reverse: Whether the rows descend, and the changes are to be read that way.
    """
    step, end = (-1, -1) if reverse else (1, len(changes))
    for row in rows:
        while at != end and (changes[at][0] > row[0] if reverse else changes[at][0] < row[0]):
            if (value := changes[at][1]) is not None:
                yield changes[at][0], value
            at += step
        if at != end and changes[at][0] == row[0]:
            continue
        yield row
    while at != end:
        key, value = changes[at]
        if value is not None:
            yield key, value
        at += step
