"""Verifying change proofs: against the local content of a range, which is known to be at the old root.

The same fold as for a range proof, with another inside: local content, untouched subtrees closed, with the
changes merged in.  A change that the proof keeps to itself leaves a local id that does not belong to the new
root, so the root tells; that a change changes nothing is no lie, but no progress either, so such changes are
counted.

    before the range        inside                              after the range
    stubs and digests       local stubs, opened branches,       stubs and digests
    of the proof            changes                             of the proof

Stubs of the proof hang directly under their branch, as in ``pure_verify``: here that branch must be one
that the fold closed.  Local stubs are trusted and carry their own node's path.

A verification also finds what the store has to be changed by, so that applying it need not go down again:
the branches that are new, those that are gone, what history keeps of both, and the topmost nodes inside the
range before and afterwards.  The nodes before commit to all that the range held, so a look at them is enough
to know later that the changes still apply.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Final, NoReturn

from merkledb.errors import InvalidProof, Reason
from merkledb.formats.branch_record import HEAVY
from merkledb.formats.proof import ChangeProof, require_claim
from merkledb.formats.scheme import Scheme
from merkledb.history.log import branch_delta_rows
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import ItemRow, Items, item_rows, items_of, joined, sealed
from merkledb.kernel.pure_verify import RequestedRange, check_form, inside_paths, next_keys, outside_items
from merkledb.proofs.range_verifier import SEAL
from merkledb.trie.merge_stream import ChangeColumns, ChangeStream, sorted_changes
from merkledb.trie.trie import Inside, StoredTrie

# A change in memory takes about so much beside what is counted: the objects of its rows.
_CHANGE_OVERHEAD_BYTES: Final = 512


@dataclass(frozen=True, eq=False, repr=False)
class VerifiedChanges:
    """What a change proof has shown to be true at a root.  Made by ``Database.verify_changes`` alone.

    Attributes:
        scheme: The scheme of the trie.
        root: The new root.
        start: The start of the range; None for no bound.
        end: The end that was proved: the requested one, or an earlier one; None for no bound.
        complete: Whether ``end`` is the end that was requested.
        keys: The changed keys in [start, end], ascending.
        values: Their new values; None for a deletion.
        effective: How many of the changes change anything.  An honest prover sends no others, but where the
            local content is ahead; many others are no progress.
        next_keys: The first possible key of each populated slot after ``end`` and within what was requested,
            ascending: where the rest of the range can be split.
        changes: The changes in columns.
        branches: The records of the branches wholly inside the range to be stored that are new or others, by
            path.
        gone: The paths of the branches wholly inside the range that are stored no more.
        history: The rows that history keeps of branches that changed or are gone, by path.
        bucket_pairs: The pairs of the buckets that changes lie in, as they were.
        unread: The paths of the changed keys that were there and are not in ``bucket_pairs``.
        before: (path, id) of the topmost nodes inside the range, as they were.
        top_nodes: What the range becomes: its topmost stored branches, and the leaves and stubs under none of
            them, as items of the fold.
        memory_bytes: About how much memory all this takes.
    """

    seal: InitVar[object]
    scheme: Scheme
    root: bytes
    start: bytes | None
    end: bytes | None
    complete: bool
    keys: tuple[bytes, ...]
    values: tuple[bytes | None, ...]
    effective: int
    next_keys: tuple[bytes, ...]
    changes: ChangeColumns
    branches: Mapping[bytes, bytes]
    gone: tuple[bytes, ...]
    history: Mapping[bytes, bytes]
    bucket_pairs: Mapping[bytes, bytes]
    unread: frozenset[bytes]
    before: tuple[tuple[bytes, bytes], ...]
    top_nodes: Items
    memory_bytes: int

    def __post_init__(self, seal: object) -> None:
        if seal is not SEAL:
            raise TypeError("VerifiedChanges come from Database.verify_changes, never from a constructor")

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedChanges cannot be pickled: send the proof, and verify it again")

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"VerifiedChanges({len(self)} keys, {self.start!r} to {self.end!r}, root {self.root.hex()})"

    @property
    def value_bytes(self) -> int:
        """What the new values take together."""
        return sum(map(len, filter(None, self.values)))


def verify_changes(
    trie: StoredTrie,
    proof: ChangeProof,
    root: bytes,
    start: bytes | None,
    end: bytes | None,
    max_keys: int | None,
    max_bytes: int | None,
) -> VerifiedChanges:
    """Return what ``proof`` shows about the range [start, end]; see ``Database.verify_changes``.

    Args:
        trie: The local content.
        proof: What a peer sent, decoded; nothing of it is trusted.
        root: The new root.
        start: The start that was asked for; None for no bound.
        end: The end that was asked for; None for no bound.
        max_keys: The limit of changes that was asked for, if any.
        max_bytes: The limit of encoded bytes that was asked for, if any.
    """
    if not isinstance(proof, tuple):
        raise TypeError(f"a proof is what ChangeProof.decode returns, not {type(proof).__name__}")
    if type(proof) is not ChangeProof:
        raise InvalidProof(Reason.MALFORMED, "it is no change proof")
    require_claim(root, start, end, max_keys, max_bytes)
    request = check_form(proof, root, start, end, trie.scheme, max_keys, max_bytes)
    changes = sorted_changes(dict(zip(proof.keys, proof.values, strict=True)), trie.scheme)
    return _Verification(trie, proof, request, changes).run()


class _Verification:
    """One verification."""

    def __init__(
        self,
        trie: StoredTrie,
        proof: ChangeProof,
        request: RequestedRange,
        changes: ChangeColumns,
    ) -> None:
        self._trie = trie
        self._proof = proof
        self._request = request
        self._changes = changes
        self._stream = ChangeStream(trie, changes)

    def run(self) -> VerifiedChanges:
        """Fold, compare the root, and keep what applying needs."""
        request = self._request
        before = self._trie.inside(request.start_path, request.end_path)
        outside = outside_items(self._proof.boundary, request)
        self._stream.walk_inside(before, outside[1].paths[0] if outside[1].paths else None)
        self._inside = self._stream.items()
        # Before the fold, which trusts its stubs: something below one would never be looked at.
        for part in outside:
            _check_nothing_below_stubs(part)
        records, ids = self._fold(joined(outside[0], self._inside, outside[1]))
        return self._result(before, records, ids)

    def _fold(self, items: Items) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Return the records and the ids of the branches that close, by path."""
        fold = kernel().fold(self._trie.scheme)
        try:
            closed = fold.feed(items)
        except ValueError as error:
            raise self._trie.corrupt(f"its branches contradict each other: {error}") from error
        root, last = fold.finish()
        records = dict(zip(closed.paths + last.paths, closed.records + last.records, strict=True))
        # A branch of the boundary that did not close has no such children, whatever the proof says.
        for branch in self._proof.boundary:
            if branch.children and branch.path not in records:
                raise InvalidProof(Reason.STUB_NOT_DIRECT, f"below path {branch.path.hex()}")
        if root != self._request.root:
            raise InvalidProof(Reason.WRONG_ROOT, f"it has {root.hex()}")
        return records, dict(zip(closed.paths + last.paths, closed.ids + last.ids, strict=True))

    def _result(
        self, before: list[Inside], records: dict[bytes, bytes], ids: dict[bytes, bytes]
    ) -> VerifiedChanges:
        proof, request, opened = self._proof, self._request, self._stream.records
        inside = inside_paths(sorted(records), request)
        branches = {path: records[path] for path in inside if records[path] != opened.get(path)}
        gone = tuple(sorted(opened.keys() - records.keys()))
        history = self._history(records)
        return VerifiedChanges(
            seal=SEAL,
            scheme=request.scheme,
            root=request.root,
            start=request.start,
            end=proof.end,
            complete=proof.end == request.end,
            keys=proof.keys,
            values=proof.values,
            effective=self._stream.effective(self._inside),
            next_keys=tuple(next_keys(proof, request)),
            changes=self._changes.sealed(),
            branches=MappingProxyType(branches),
            gone=gone,
            history=MappingProxyType(history),
            bucket_pairs=MappingProxyType(self._stream.bucket_pairs),
            unread=frozenset(self._stream.unread),
            before=tuple((part.path, part.node_id) for part in before),
            top_nodes=sealed(self._top_nodes(inside, records, ids)),
            memory_bytes=self._memory_bytes(branches, history),
        )

    def _history(self, records: dict[bytes, bytes]) -> dict[bytes, bytes]:
        # Rows are made only of branches that become others, or go; a new branch needs none, for the row of
        # the branch above it says what was there.
        opened = self._stream.records
        paths = [path for path in sorted(opened) if records.get(path) != opened[path]]
        rows = branch_delta_rows(self._trie, paths, opened, records, self._stream.visited)
        return dict(zip(paths, rows, strict=True))

    def _top_nodes(self, inside: list[bytes], records: dict[bytes, bytes], ids: dict[bytes, bytes]) -> Items:
        """Return what the range becomes: its topmost stored branches, and the leaves under none of them."""
        covers = set(inside)
        rows = [row for row in item_rows(self._inside) if row[0] not in covers]
        rows += self._stream.reattached_children(records)
        rows += [(path, ids[path], None, HEAVY) for path in inside]
        rows.sort(key=itemgetter(0))
        topmost: list[ItemRow] = []
        # A branch comes before all that lies below it, so the last one that was taken says what it covers.
        cover: bytes | None = None
        for row in rows:
            if cover is not None and row[0].startswith(cover):
                continue
            cover = row[0] if row[0] in covers else None
            topmost.append(row)
        return items_of(topmost)

    def _memory_bytes(self, branches: dict[bytes, bytes], history: dict[bytes, bytes]) -> int:
        proof = self._proof
        bucket_pairs = self._stream.bucket_pairs
        rows = sum(
            len(path) + len(row)
            for path, row in chain(branches.items(), history.items(), bucket_pairs.items())
        )
        values = sum(map(len, filter(None, proof.values)))
        return (
            rows
            + values
            + _CHANGE_OVERHEAD_BYTES * (len(proof.keys) + len(branches) + len(history) + len(bucket_pairs))
        )


def _check_nothing_below_stubs(outside: Items) -> None:
    """Raise when something of the proof lies at or below one of its stubs.

    Nothing of the range can, for stubs lie wholly outside it.
    """
    for index, (path, digest) in enumerate(zip(outside.paths, outside.digests, strict=True)):
        following = outside.paths[index + 1 : index + 2]
        is_below = following and (following[0].startswith(path) if digest is None else following[0] == path)
        if is_below:
            raise InvalidProof(Reason.ITEM_BELOW_STUB, f"at path {path.hex()}")
