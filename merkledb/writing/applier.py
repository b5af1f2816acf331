"""Writing: a commit of changes, and the application of what was verified, each inside one transaction.

All come down to the same step.  A stream of items is folded; the branches that the fold yields are put; of
the branches that stood where the stream went, those that did not close again are deleted.  What is going to
be overwritten or deleted is put into history before the first row of the step is written.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from merkledb.errors import StaleChanges
from merkledb.history.log import HistoryWriter, branch_delta_rows
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import Items, joined
from merkledb.proofs.change_verifier import VerifiedChanges
from merkledb.proofs.range_verifier import VerifiedRange
from merkledb.storage.store import (
    StoreTransaction,
    Table,
    Transaction,
    delete_rows,
    key_of_row,
    put_sorted,
    row_key,
    seek,
)
from merkledb.trie.merge_stream import ChangeColumns, ChangeStream
from merkledb.trie.node import Node
from merkledb.trie.trie import StoredTrie, is_inside

# History of a range that is replaced is written in stretches of so many rows or bytes.
_STRETCH_ROWS: Final = 4096
_STRETCH_BYTES: Final = 4 << 20


class Applier:
    """Changes the content of a store within one write transaction.

    Args:
        transaction: What is written in; its owner commits it.
        history: Where what is overwritten goes; None when nobody will ask for it.
    """

    def __init__(self, transaction: StoreTransaction, history: HistoryWriter | None) -> None:
        self._transaction = transaction
        self._store, self._lmdb = transaction.store, transaction.lmdb
        self._history = history

    def commit(self, changes: ChangeColumns, root: bytes) -> bytes:
        """Make ``changes`` to the content with ``root``; return the new root."""
        trie = StoredTrie(self._transaction, root)
        # The walk finds all branches and buckets that the changes touch, as they are before any row is
        # written.
        stream = ChangeStream(trie, changes)
        stream.walk()
        new_root, branches = self._fold(stream.other_items(), *stream.pairs())
        if new_root == root:
            return root
        # A branch that was opened and is not among those that closed has too few children left, or lies in a
        # bucket.
        opened = stream.records
        gone = sorted(opened.keys() - branches.keys())
        if self._history is not None:
            # History reads the places of children from the trie as it was, so it comes before the first
            # write.
            changed = [path for path in sorted(opened) if branches.get(path) != opened[path]]
            rows = branch_delta_rows(trie, changed, opened, branches, stream.visited)
            self._history.put_branches(changed, rows)
            self._keep_changed(changes, stream.bucket_pairs, stream.unread)
        self._put(changes, branches, gone)
        return new_root

    def apply(self, verified: VerifiedRange | VerifiedChanges, root: bytes) -> bytes:
        """Make the content of a range what ``verified`` found; return the new local root.

        The stream is what the store holds outside the range, and the topmost nodes that the verification
        found inside.

        Args:
            verified: What a verification returned.
            root: The local root until now.

        Raises:
            StaleChanges: The content of the range is not what changes were verified against.
        """
        path_of = self._transaction.scheme.codec.path
        start = None if verified.start is None else path_of(verified.start)
        end = None if verified.end is None else path_of(verified.end)
        trie = StoredTrie(self._transaction, root)
        if isinstance(verified, VerifiedChanges):
            # The ids of the topmost nodes commit to all that the range holds: where they are the same, the
            # changes apply now as they did when they were verified.
            before = tuple((part.path, part.node_id) for part in trie.inside(start, end))
            if before != verified.before:
                raise StaleChanges(verified.start)
        # On the paths of both bounds lie the branches that are partly outside: the fold makes them anew.
        outer = {
            node.path: node.record
            for node in trie.boundary_nodes(start, end)
            if node.record is not None and node.bucket is None and not is_inside(node, start, end)
        }
        new_root, branches = self._fold(joined(trie.outside(start, end), verified.top_nodes), [], [])
        if isinstance(verified, VerifiedChanges):
            self._apply_changes(trie, verified, outer, branches)
        else:
            self._apply_range(trie, verified, outer, branches, start, end)
        return new_root

    def _apply_changes(
        self,
        trie: StoredTrie,
        verified: VerifiedChanges,
        outer: Mapping[bytes, bytes],
        branches: dict[bytes, bytes],
    ) -> None:
        """Write verified changes.

        Args:
            trie: The content until now.
            verified: What is to be written.
            outer: The records of the branches on the paths of the range's bounds, until now, by path.
            branches: The same afterwards.
        """
        if self._history is not None:
            rows = {**verified.history, **dict(_history_rows(trie, outer, branches))}
            paths = sorted(rows)
            self._history.put_branches(paths, [rows[path] for path in paths])
            self._keep_changed(verified.changes, verified.bucket_pairs, verified.unread)
        gone = [path for path in outer if path not in branches]
        self._put(verified.changes, {**branches, **verified.branches}, sorted([*gone, *verified.gone]))

    def _apply_range(
        self,
        trie: StoredTrie,
        verified: VerifiedRange,
        outer: Mapping[bytes, bytes],
        branches: dict[bytes, bytes],
        start: bytes | None,
        end: bytes | None,
    ) -> None:
        """Replace a range by verified pairs; the arguments are as in ``_apply_changes``, and the bounds."""
        branches.update(verified.branches)
        if self._history is not None:
            before = {path: record for path, record in outer.items() if not _holds(path, start, end)}
            rows = _history_rows(trie, before, branches)
            self._history.put_branches([path for path, _ in rows], [row for _, row in rows])
            self._keep_branches(trie, start, end, branches)
            self._keep_values(verified)
        self._replace_values(verified)
        delete_rows(self._lmdb, self._store.branches, [path for path in outer if path not in branches])
        _delete_between(self._lmdb, self._store.branches, start, end, branches)
        self._put_branches(branches)

    def _fold(self, items: Items, keys: list[bytes], values: list[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
        """Return the root of items and pairs, in any order, and the records of the branches by path."""
        try:
            root, closed = kernel().fold_all(self._transaction.scheme, items, keys, values)
        except ValueError as error:
            raise self._transaction.corrupt(f"its branches contradict each other: {error}") from error
        return root, dict(zip(closed.paths, closed.records, strict=True))

    def _put_branches(self, branches: Mapping[bytes, bytes]) -> None:
        paths = sorted(branches)
        put_sorted(self._lmdb, self._store.branches, paths, list(map(branches.__getitem__, paths)))

    def _put(self, changes: ChangeColumns, branches: Mapping[bytes, bytes], gone: Iterable[bytes]) -> None:
        """Make changes, put the branches that follow from them, and delete those that are gone, by path."""
        put_sorted(self._lmdb, self._store.values, changes.put_keys, changes.put_values)
        delete_rows(self._lmdb, self._store.values, changes.deleted_keys)
        self._put_branches(branches)
        delete_rows(self._lmdb, self._store.branches, gone)

    def _keep_changed(
        self, changes: ChangeColumns, bucket_pairs: Mapping[bytes, bytes], unread: Collection[bytes]
    ) -> None:
        """Keep the values that changes are going to replace.

        Args:
            changes: In columns.
            bucket_pairs: What the walk has read, by key.
            unread: The paths of those keys which it met and has not read; what it never met was absent.
        """
        assert self._history is not None
        new, unread_keys = changes.new, set(map(self._transaction.scheme.codec.pack, unread))
        keys = sorted(new) if changes.deleted_keys else changes.put_keys
        read = [key for key in keys if key not in unread_keys and bucket_pairs.get(key) != new[key]]
        self._history.put_values(read, list(map(bucket_pairs.get, read)))
        if unread_keys:
            self._keep_unread(sorted(unread_keys), new, self._history)

    def _keep_unread(
        self, keys: list[bytes], new: Mapping[bytes, bytes | None], history: HistoryWriter
    ) -> None:
        """Keep values that may be large, a few at a time."""
        changed: list[bytes] = []
        values: list[bytes | None] = []
        size = 0
        for key in keys:
            value = self._lmdb.get(row_key(key), db=self._store.values)
            if value == new[key]:
                continue
            changed.append(key)
            values.append(value)
            size += 0 if value is None else len(value)
            if size > _STRETCH_BYTES:
                history.put_values(changed, values)
                changed, values, size = [], [], 0
        history.put_values(changed, values)

    # The content of a range that is replaced.

    def _keep_branches(
        self, trie: StoredTrie, start: bytes | None, end: bytes | None, branches: Mapping[bytes, bytes]
    ) -> None:
        """Keep the branches in [start, end] (paths) that become others, or go."""
        assert self._history is not None
        for paths, records in _stretches(self._lmdb, self._store.branches, start, end):
            before = dict(zip(paths, records, strict=True))
            for path, record in before.items():
                trie.parse(Node(path, record))
            rows = _history_rows(trie, before, branches)
            self._history.put_branches([path for path, _ in rows], [row for _, row in rows])

    def _keep_values(self, verified: VerifiedRange) -> None:
        """Keep the values of a range that become others, go, or were not there."""
        assert self._history is not None
        wanted = dict(zip(verified.keys, verified.values, strict=True))
        there: set[bytes] = set()
        for keys, values in _stretches(self._lmdb, self._store.values, verified.start, verified.end):
            changed = [pair for pair in zip(keys, values, strict=True) if wanted.get(pair[0]) != pair[1]]
            self._history.put_values([key for key, _ in changed], [value for _, value in changed])
            there.update(keys)
        new = [key for key in verified.keys if key not in there]
        self._history.put_values(new, [None] * len(new))

    def _replace_values(self, verified: VerifiedRange) -> None:
        """Put the verified pairs that are not there yet; delete the other keys of the range."""
        wanted = dict(zip(verified.keys, verified.values, strict=True))
        unchanged = _delete_between(self._lmdb, self._store.values, verified.start, verified.end, wanted)
        new = [key for key in verified.keys if key not in unchanged] if unchanged else verified.keys
        new_values = [wanted[key] for key in new] if unchanged else verified.values
        put_sorted(self._lmdb, self._store.values, new, new_values)


def _stretches(
    lmdb: Transaction, table: Table, start: bytes | None, end: bytes | None
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield the rows of [start, end] in stretches of bounded size, as keys and values."""
    keys: list[bytes] = []
    values: list[bytes] = []
    size = 0
    cursor = lmdb.cursor(db=table)
    rows = cursor if seek(cursor, start) else ()
    for row, value in rows:
        key = key_of_row(row)
        if end is not None and key > end:
            break
        keys.append(key)
        values.append(value)
        size += len(value)
        if len(keys) == _STRETCH_ROWS or size > _STRETCH_BYTES:
            yield keys, values
            keys, values, size = [], [], 0
    yield keys, values


def _delete_between(
    lmdb: Transaction, table: Table, start: bytes | None, end: bytes | None, wanted: dict[bytes, bytes]
) -> set[bytes]:
    """Delete the rows of [start, end] that are not wanted.

    Return the keys of those that stand there as wanted.
    """
    unchanged: set[bytes] = set()
    cursor = lmdb.cursor(db=table)
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
            unchanged.add(key)
        found = cursor.next()
    return unchanged


def _holds(path: bytes, start: bytes | None, end: bytes | None) -> bool:
    return (start is None or path >= start) and (end is None or path <= end)


def _history_rows(
    trie: StoredTrie, before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    """Return (path, row) of what history keeps of branches that become others, or go, ascending.

    Args:
        trie: The content until now.
        before: The branches' records until now, by path.
        after: The records afterwards of those that stay.
    """
    paths = [path for path in sorted(before) if after.get(path) != before[path]]
    return list(zip(paths, branch_delta_rows(trie, paths, before, after), strict=True))
