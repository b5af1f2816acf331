"""What follows from values alone: the root of a mapping, and the check that a store is what its values make.

Every branch of the tables is derived again and compared with its row, the ids of its children included, so
none is opened and hashed for its own sake.  What is said of the revisions has to agree, their counts of pairs
with the rows of history, and their topmost nodes with their roots.  Of history, each row has to be readable;
whether it says what was there, ``history.consistency`` finds, which takes ten times as long as that.

The values are folded in stretches, so memory stays small however large the store is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter

from merkledb.arguments import require_bytes, require_instance
from merkledb.errors import HistoryGone, UnknownRoot
from merkledb.formats.branch_delta import parse_branch_delta
from merkledb.formats.branch_record import branch_id
from merkledb.formats.scheme import EMPTY_ROOT, ID_BYTES, Scheme
from merkledb.history.consistency import check_history
from merkledb.history.log import ABSENT, require_value_row
from merkledb.history.reader import HistoryReader
from merkledb.history.revisions import MAX_TIME, SEQUENCE_BYTES, Tip, find_revision, read_revision, read_tip
from merkledb.history.rows import FIRST_ROWS, HistoricalRows, StoredRows
from merkledb.kernel.choice import kernel
from merkledb.kernel.pure_fold import Branches
from merkledb.proofs.verified_reads import feed, stretches
from merkledb.snapshot import Snapshot
from merkledb.storage.store import StoreTransaction, row_key


def root_of(
    pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], scheme: Scheme | None = None
) -> bytes:
    """Return the root of the trie that holds ``pairs``.

    Args:
        pairs: A mapping, or (key, value) pairs in any order; of a key that comes twice the last value
            counts.  Keys may be longer here than a database can hold them.
        scheme: Scheme() when not given.

    Raises:
        TypeError: These are no pairs, a key or value is not bytes, or the scheme is no Scheme.
    """
    scheme = Scheme() if scheme is None else scheme
    require_instance("scheme", scheme, Scheme)
    content = _content_of(pairs)
    keys = sorted(content)
    values = [content[key] for key in keys]
    fold = kernel().fold(scheme)
    fold.feed(kernel().leaves(scheme, keys, values))
    return fold.finish()[0]


def _content_of(pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    if not isinstance(pairs, Iterable):
        raise TypeError(f"pairs are a mapping, or keys with values, not {type(pairs).__name__}")
    content = dict(pairs) if isinstance(pairs, Mapping) else dict(map(_pair_of, pairs))
    # The types of all of them are looked at many times as fast as each of them is.
    if not {bytes}.issuperset(map(type, chain(content, content.values()))):
        for key, value in content.items():
            require_bytes("a key", key)
            require_bytes("a value", value)
    return content


def _pair_of(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    try:
        key, value = pair
    except (TypeError, ValueError) as error:
        raise TypeError(f"a pair is a key and a value, not {type(pair).__name__}") from error
    return key, value


def check(transaction: StoreTransaction, on_pairs: Callable[[int], None], *, history: bool) -> None:
    """Compare a store's branches and root with what follows from its values.

    Args:
        transaction: What is checked, in one snapshot.
        on_pairs: Called with the number of pairs done since the last call.
        history: Whether all that history says of older revisions is compared with their roots, too.

    Raises:
        CorruptDatabase: It names the first difference.
    """
    _Check(transaction).run(on_pairs, history=history)


class _Check:
    """One check, in one transaction."""

    def __init__(self, transaction: StoreTransaction) -> None:
        self._transaction = transaction
        self._store, self._lmdb, self._scheme = transaction.store, transaction.lmdb, transaction.scheme
        self._difference = transaction.corrupt
        self._branches = 0

    def run(self, on_pairs: Callable[[int], None], *, history: bool) -> None:
        """Fold all values and compare."""
        fold = kernel().fold(self._scheme)
        for keys, values in stretches(self._lmdb.cursor(db=self._store.values)):
            self._compare(feed(fold, self._scheme, keys, values, self._difference))
            on_pairs(len(keys))
        root, last = fold.finish()
        self._compare(last)
        stored = self._store.entries(self._lmdb, self._store.branches)
        if stored != self._branches:
            raise self._difference(f"{stored} branches are stored, the values make {self._branches}")
        tip = read_tip(self._transaction)
        if tip.root != root:
            raise self._difference(f"the tip's root is {tip.root.hex()}, the values make {root.hex()}")
        _check_revisions(self._transaction, tip)
        _check_history_rows(self._transaction, tip)
        if tip.has_head:
            self._check_head(tip)
            if history:
                check_history(self._transaction, tip)
            _check_counts(self._transaction, tip)
            _check_tops(self._transaction, tip)

    def _check_head(self, tip: Tip) -> None:
        """Compare the head's root with what readers see, which history stands between and the tables."""
        head, _ = read_revision(self._transaction, tip.newest)
        root = tip.root
        if tip.unfinished:
            history = HistoryReader(self._transaction, tip.newest, tip.sequence)
            # To look for keys in the trie would be to trust it.
            rows = HistoricalRows(StoredRows(self._transaction), history, lambda low: low)
            fold = kernel().fold(self._scheme)
            for keys, values in stretches(rows.ascending(None, None, FIRST_ROWS)):
                feed(fold, self._scheme, keys, values, self._difference)
            root, _ = fold.finish()
        if root != head.root:
            raise self._difference(f"the head's root is {head.root.hex()}, its values make {root.hex()}")

    def _compare(self, closed: Branches) -> None:
        for path, record in zip(closed.paths, closed.records, strict=True):
            if self._lmdb.get(row_key(path), db=self._store.branches) != record:
                raise self._difference(
                    f"the branch at path [{path.hex(' ')}] is not the one that the values make"
                )
        self._branches += len(closed.paths)


def _check_revisions(transaction: StoreTransaction, tip: Tip) -> None:
    """See whether each retained revision can be read, is found by its root, and comes after the last.

    And whether each row of the revisions, retained or not, is one of a revision or of a root that there was.
    """
    number = -1
    for sequence in range(tip.oldest, tip.newest + 1):
        revision, _ = read_revision(transaction, sequence)
        if revision.number <= number:
            raise transaction.corrupt(f"revision {sequence} has number {revision.number}, as one before it")
        number = revision.number
        try:
            newest = find_revision(transaction, tip._replace(unfinished=False), revision.root)
        except (UnknownRoot, HistoryGone) as error:
            raise transaction.corrupt(f"revision {sequence} is not found by its root") from error
        if newest < sequence:
            raise transaction.corrupt(f"the root of revision {sequence} leads to an older one")
    lmdb, table = transaction.lmdb, transaction.store.revisions
    for key, row in lmdb.cursor(db=table):
        if len(key) == SEQUENCE_BYTES:
            revision, _ = read_revision(transaction, int.from_bytes(key))
            is_known = int.from_bytes(key) <= tip.newest and lmdb.get(revision.root, b"", db=table) >= key
            if not 0 <= revision.time <= MAX_TIME:
                raise transaction.corrupt(f"revision {int.from_bytes(key)} has the time {revision.time}")
        else:
            is_known = len(row) == SEQUENCE_BYTES and lmdb.get(row, b"", db=table)[:ID_BYTES] == key
        if not is_known:
            raise transaction.corrupt(f"the row 0x{key.hex()} of the revisions belongs to none of them")


def _check_history_rows(transaction: StoreTransaction, tip: Tip) -> None:
    """See whether each row of history can be read, and belongs to a revision that there was."""
    # Rows of a sync that was given up stay after the newest revision.
    end = (tip.newest + 2).to_bytes(SEQUENCE_BYTES)

    def require_revision(key: bytes) -> None:
        if len(key) < SEQUENCE_BYTES or key >= end:
            raise transaction.corrupt(f"the row 0x{key.hex()} of history belongs to no revision")

    try:
        for key, row in transaction.lmdb.cursor(db=transaction.store.value_history):
            require_revision(key)
            require_value_row(row)
        for key, row in transaction.lmdb.cursor(db=transaction.store.branch_history):
            require_revision(key)
            tokens = parse_branch_delta(row).tokens
            if max(key[SEQUENCE_BYTES:] + tokens, default=0) >= transaction.scheme.branch_factor:
                raise ValueError("it has a token that is none")
    except ValueError as error:
        raise transaction.corrupt(f"the row 0x{key.hex()} of history is unreadable: {error}") from error


def _check_counts(transaction: StoreTransaction, tip: Tip) -> None:
    """Compare how many pairs each retained revision says it has with what history and the tables make of it.

    All revisions' rows are merged by key, a few microseconds each.  Memory: a cursor a revision.
    """
    sequences = range(tip.oldest + 1, tip.newest + 2)
    values = transaction.lmdb.cursor(db=transaction.store.values)
    added = dict.fromkeys(sequences, 0)
    rows = merge(*(_touched(transaction, sequence) for sequence in sequences))
    for key, group in groupby(rows, key=itemgetter(0)):
        # Whether a key was there after a revision, the next row of it says, or else the tables.
        is_there = values.set_key(row_key(key))
        for _, sequence, was_there in reversed(list(group)):
            added[sequence] += is_there - was_there
            is_there = was_there
    pairs = transaction.store.entries(transaction.lmdb, transaction.store.values)
    for sequence in reversed(sequences):
        pairs -= added[sequence]
        revision, _ = read_revision(transaction, sequence - 1)
        if revision.keys != pairs:
            said = f"revision {sequence - 1} says that it has {revision.keys} pairs"
            raise transaction.corrupt(f"{said}, the values and their history make {pairs}")


def _touched(transaction: StoreTransaction, sequence: int) -> Iterator[tuple[bytes, int, bool]]:
    """Yield each key that a revision changed, ascending, its number, and whether the key was there before."""
    prefix = sequence.to_bytes(SEQUENCE_BYTES)
    cursor = transaction.lmdb.cursor(db=transaction.store.value_history)
    found = cursor.set_range(prefix)
    while found and (row := cursor.key()).startswith(prefix):
        # Nothing keeps the value, which may be large, until the next row is asked for.
        yield row[SEQUENCE_BYTES:], sequence, cursor.value() != ABSENT
        found = cursor.next()


def _check_tops(transaction: StoreTransaction, tip: Tip) -> None:
    """Compare the topmost node of each root that can be read with that root, which is its id."""
    for sequence in range(tip.oldest, tip.newest + 1):
        root = read_revision(transaction, sequence)[0].root
        trie = Snapshot(transaction.store, transaction.scheme, root, transaction=transaction).trie()
        top = trie.top()
        if top is None:
            found = EMPTY_ROOT
        elif top.record is None:
            found = transaction.scheme.leaf_id(top.path, trie.leaf_digest(top.path))
        else:
            trie.parse(top)
            found = branch_id(transaction.scheme, top.path, top.record)
        if found != root:
            difference = f"the topmost node of revision {sequence} is {found.hex()}, its root {root.hex()}"
            raise transaction.corrupt(difference)
