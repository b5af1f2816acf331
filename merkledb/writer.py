"""Writing: a commit of changes, and the application of verified ranges, each inside one transaction.

Both come down to the same step.  A stream of items is folded; the branches that the fold closes are put; of
the branches that stood where the stream went, those that did not close again are deleted.
"""

from operator import itemgetter

from merkledb.changes import Changes, ChangeStream
from merkledb.errors import CorruptDatabase
from merkledb.fold import Fold, Items
from merkledb.proof import Branch
from merkledb.scheme import Scheme
from merkledb.store import Store, Table, Transaction, delete_rows, key_of_row, put_sorted, seek
from merkledb.trie import Trie
from merkledb.verifier import VerifiedRange, boundary_items


class Writer:
    """Changes the content of a store within one write transaction.

    Args:
        store: What is written.
        transaction: The write transaction; its owner commits it.
        scheme: The store's scheme.
    """

    def __init__(self, store: Store, transaction: Transaction, scheme: Scheme) -> None:
        self._store = store
        self._transaction = transaction
        self._scheme = scheme

    def commit(self, changes: Changes, root: bytes) -> bytes:
        """Make ``changes`` to the content with ``root``; return the new root."""
        trie = Trie(self._store, self._transaction, self._scheme)
        items = ChangeStream(trie, changes).prepare(root)
        new_root, branches = self._fold(items)
        put_sorted(self._transaction, self._store.values, changes.put_keys, changes.put_values)
        delete_rows(self._transaction, self._store.values, changes.deleted_keys)
        self._put_branches(branches)
        delete_rows(self._transaction, self._store.branches, sorted(items.records.keys() - branches.keys()))
        return new_root

    def apply(self, verified: VerifiedRange) -> bytes:
        """Make the content of a range what ``verified`` found; return the new local root.

        The stream is what the store holds outside the range, and the topmost nodes that the verification
        found inside.
        """
        path_of = self._scheme.codec.path
        start = None if verified.start is None else path_of(verified.start)
        end = None if verified.end is None else path_of(verified.end)
        trie = Trie(self._store, self._transaction, self._scheme)
        spines = [node.path for node in trie.spines(start, end) if node.record is not None]
        items = _with_frontier(self._scheme, trie.boundary(start, end), verified.frontier)
        root, branches = self._fold(items)
        branches.update(verified.branches)
        self._replace_values(verified)
        delete_rows(
            self._transaction, self._store.branches, [path for path in spines if path not in branches]
        )
        self._delete_between(self._store.branches, start, end, branches)
        self._put_branches(branches)
        return root

    def _fold(self, items: Items) -> tuple[bytes, dict[bytes, bytes]]:
        """Return the root of a whole stream, and the records of the branches that closed by path."""
        fold = Fold(self._scheme)
        try:
            closed = fold.feed(items)
        except ValueError as error:
            raise CorruptDatabase(
                str(self._store.path), f"its branches contradict each other: {error}"
            ) from error
        root, last = fold.finish()
        branches = dict(zip(closed.paths, closed.records, strict=True))
        branches.update(zip(last.paths, last.records, strict=True))
        return root, branches

    def _put_branches(self, branches: dict[bytes, bytes]) -> None:
        paths = sorted(branches)
        put_sorted(self._transaction, self._store.branches, paths, [branches[path] for path in paths])

    def _replace_values(self, verified: VerifiedRange) -> None:
        """Put the verified pairs that are not there yet; delete the other keys of the range."""
        wanted = dict(zip(verified.keys, verified.values, strict=True))
        held = self._delete_between(self._store.values, verified.start, verified.end, wanted)
        new = [key for key in verified.keys if key not in held] if held else verified.keys
        new_values = [wanted[key] for key in new] if held else verified.values
        put_sorted(self._transaction, self._store.values, new, new_values)

    def _delete_between(
        self, table: Table, start: bytes | None, end: bytes | None, wanted: dict[bytes, bytes]
    ) -> set[bytes]:
        """Delete the rows of [start, end] that are not wanted.

        Return the keys of those that stand there as wanted.
        """
        held: set[bytes] = set()
        cursor = self._transaction.cursor(db=table)
        found = seek(cursor, start)
        while found:
            key = key_of_row(cursor.key())
            if end is not None and key > end:
                break
            value = wanted.get(key)
            if value is None:
                cursor.delete()
                found = bool(cursor.key())
                continue
            if value == cursor.value():
                held.add(key)
            found = cursor.next()
        return held


def _with_frontier(scheme: Scheme, boundary: tuple[Branch, ...], frontier: Items) -> Items:
    """Return the items of a local boundary and of a frontier as one stream.  No path is in both."""
    rows = boundary_items(scheme, boundary)
    rows += zip(frontier.paths, frontier.ids, frontier.digests, strict=True)
    rows.sort(key=itemgetter(0))
    return Items([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], {})
