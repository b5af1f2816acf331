"""The database: reading the head and older revisions, commits, and applying what was verified.

Crash safety is LMDB's: every change is one transaction that is durable when the call returns, or absent.
The root, the content, the branches, the history and the manager's progress always belong together.

What readers see is the *head*, the newest complete revision.  The tables hold the *tip*.  At rest both are
the same.  ``apply`` moves the tip on, range by range, towards another root, and the head stays where it is,
read through history, until the tip's root is the one that was verified:

    head A, tip A    apply    head A, tip ?    apply    head A, tip ?    apply    head B, tip B
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import lmdb

from merkledb.arguments import require_bytes, require_callable, require_int
from merkledb.check import check
from merkledb.differences import Difference, Differences
from merkledb.errors import NoCompleteRoot, SchemeMismatch, StaleView, SyncUnfinished
from merkledb.formats.proof import ChangeProof, RangeProof, require_bounds, require_limits
from merkledb.formats.scheme import Scheme, require_range, require_root
from merkledb.history.revisions import (
    Revision,
    Tip,
    read_revision,
    read_tip,
    require_foreign_number,
    root_at_rest,
)
from merkledb.history.rows import FIRST_ROWS, StoredRows
from merkledb.kernel.choice import kernel_name
from merkledb.proofs.change_verifier import VerifiedChanges, verify_changes
from merkledb.proofs.prover import DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS, prove_changes, prove_key
from merkledb.proofs.range_verifier import VerifiedRange
from merkledb.readable import ReadableMapping
from merkledb.snapshot import Snapshot
from merkledb.storage.store import (
    MAX_ROW_KEY_BYTES,
    Store,
    StoreTransaction,
    row_key,
)
from merkledb.trie.merge_stream import sorted_changes
from merkledb.trie.trie import StoredTrie
from merkledb.view import View
from merkledb.writing.transaction import PROGRESS, Batch, WriteTransaction


class Database(ReadableMapping):
    """An open database; made by ``merkledb.open``, and a context manager.

    Reads see the newest commit; those of one ``snapshot`` belong together.  Any thread may call any method.

    Attributes:
        scheme: Its scheme.
        path: Its folder.
        readonly: Whether it was opened for reading.
    """

    def __init__(self, store: Store, scheme: Scheme, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self.scheme = scheme
        self.path = store.path
        self.readonly = store.readonly

    def __repr__(self) -> str:
        return f"<Database {str(self.path)!r}, {self.scheme}, {kernel_name()} kernel>"

    def close(self) -> None:
        """Close the database; its snapshots must be closed before."""
        self._store.close()

    # Reading the head.

    def snapshot(self) -> Snapshot:
        """Return the head as a snapshot, to be closed by the caller.

        Raises:
            NoCompleteRoot: The first sync is unfinished.
        """
        return Snapshot(self._store, self.scheme)

    @property
    def head(self) -> Revision | None:
        """The newest complete revision; None while the first sync is unfinished."""
        with self._read() as transaction:
            tip = read_tip(transaction)
            return read_revision(transaction, tip.newest)[0] if tip.has_head else None

    @contextmanager
    def _read(self) -> Iterator[StoreTransaction]:
        """Give a read transaction that ends with the ``with`` block."""
        with self._store.read() as transaction:
            yield StoreTransaction(self._store, transaction, self.scheme)

    def _complete_head(self) -> Revision:
        head = self.head
        if head is None:
            raise NoCompleteRoot(str(self.path))
        return head

    @property
    def root(self) -> bytes:
        """The root of the head; NoCompleteRoot is raised while the first sync is unfinished."""
        return self._complete_head().root

    @property
    def revision(self) -> int:
        """The number of the head; NoCompleteRoot is raised while the first sync is unfinished."""
        return self._complete_head().number

    def __len__(self) -> int:
        return self._complete_head().keys

    def _value(self, key: bytes) -> bytes | None:
        row = row_key(key)
        if len(row) > MAX_ROW_KEY_BYTES:
            return None
        transaction = self._store.begin()
        try:
            if root_at_rest(self._store, transaction) is not None:
                return transaction.get(row, db=self._store.values)
        except lmdb.Error as error:
            raise self._store.translate(error) from error
        finally:
            self._store.end(transaction)
        with self.snapshot() as snapshot:
            return snapshot.get(key)

    def items(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of [start, end] as Snapshot.items does; the snapshot ends with the iteration."""
        require_range(start, end)
        return self._items(start, end, reverse=reverse)

    def _items(
        self, start: bytes | None, end: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        with self.snapshot() as snapshot:
            yield from snapshot.items(start, end, reverse=reverse)

    def prove(self, key: bytes) -> RangeProof:
        """Return the proof that ``key`` is present with its value, or absent."""
        require_bytes("a key", key)
        with self._store.read() as lmdb_transaction:
            root = root_at_rest(self._store, lmdb_transaction)
            if root is not None:
                transaction = StoreTransaction(self._store, lmdb_transaction, self.scheme)
                return prove_key(StoredTrie(transaction, root), StoredRows(transaction), key)
        with self.snapshot() as snapshot:
            return snapshot.prove(key)

    def prove_range(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> RangeProof:
        """Return a proof of the pairs in [start, end] at the head; see Snapshot.prove_range."""
        with self.snapshot() as snapshot:
            return snapshot.prove_range(start, end, max_keys=max_keys, max_bytes=max_bytes)

    def check(self, on_pairs: Callable[[int], None] = lambda _: None, *, history: bool = False) -> None:
        """Derive every branch and the root again from the values, and compare.

        While a sync is under way, that is done for what the tables hold, and the root of the head is derived
        again from what readers see.  Of older revisions, counts of pairs and topmost nodes are compared.

        Args:
            on_pairs: Called now and then with the number of pairs done since the last call.
            history: Whether all rows of history are compared with the roots, too; some 30 µs a row.

        Raises:
            CorruptDatabase: It names the first difference.
        """
        require_callable("on_pairs", on_pairs)
        with self._read() as transaction:
            check(transaction, on_pairs, history=history)

    # Reading history.

    def revisions(self, *, limit: int | None = None) -> list[Revision]:
        """Return the retained revisions, newest first; none while the first sync is unfinished.

        Args:
            limit: How many at most; None for all.

        Raises:
            TypeError, ValueError: The limit is no number of revisions.
        """
        require_int("a limit", 0 if limit is None else limit, 0)
        with self._read() as transaction:
            tip = read_tip(transaction)
            if not tip.has_head:
                return []
            sequences = range(tip.newest, tip.oldest - 1, -1)[:limit]
            return [read_revision(transaction, sequence)[0] for sequence in sequences]

    def at(self, root: bytes) -> Snapshot:
        """Return the newest retained revision with ``root`` as a snapshot, to be closed by the caller.

        Reading it costs a lookup more for each revision since, of what is not read in order.

        Raises:
            UnknownRoot: No revision has or had this root.
            HistoryGone: One had it, and is retained no more.
            NoCompleteRoot: The first sync is unfinished.
            TypeError, ValueError: ``root`` is not bytes, or not 32 of them.
        """
        require_root(root)
        return Snapshot(self._store, self.scheme, root)

    def differences(
        self, old: bytes, new: bytes, start: bytes | None = None, end: bytes | None = None
    ) -> Iterator[Difference]:
        """Yield what is different in [start, end] between two retained roots, ascending by key.

        What is read is not compared with the roots: ``check(history=True)`` does that, for all of history.

        Raises:
            UnknownRoot, HistoryGone, InvalidRange
            TypeError, ValueError: A root is not bytes, or not 32 of them; or a bound is not bytes.
        """
        require_range(start, end)
        newer = self.at(new)
        try:
            differences = Differences(newer.at_same_snapshot(old), newer, newer.transaction)
        except BaseException:
            newer.close()
            raise
        return self._differences(newer, differences.between(start, end, FIRST_ROWS))

    def _differences(self, snapshot: Snapshot, differences: Iterator[Difference]) -> Iterator[Difference]:
        with snapshot, self._store.translated():
            for difference in differences:
                yield difference
                self._store.require_usable()

    def prove_changes(
        self,
        old: bytes,
        new: bytes,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> ChangeProof:
        """Return a proof of what leads from one retained root to another in [start, end].

        It is cut off at its end where a limit is reached, as a range proof is, and where it would
        read too much of history: then its end may be no change, and it may carry none.  Either root
        may be the older.

        Args:
            old: The root that the receiver's content of the range is at.
            new: The root that it shall be at.
            start: The smallest key, inclusive; None for no bound.
            end: The largest key, inclusive; None for no bound.
            max_keys: The most changes, at least 1; never more than 65,536 are sent.
            max_bytes: The most bytes that the encoded proof may have.

        Raises:
            UnknownRoot, HistoryGone: Of either root; prove the range instead, if it is the old one.
            InvalidRange: ``start`` lies after ``end``.
            BoundTooLong: One of them has more than 1,024 bytes.
            ValueError: ``max_keys`` is below 1, ``max_bytes`` negative, or a root has not 32 bytes.
            TypeError: A root or bound is not bytes, or a limit not an int.
            LimitTooSmall: No proof that makes progress fits into ``max_bytes``; it says how many would do.
        """
        require_bounds(start, end)
        require_limits(max_keys, max_bytes)
        with self.at(new) as newer, self._store.translated(), newer.views() as transaction:
            differences = Differences(newer.at_same_snapshot(old), newer, transaction)
            return prove_changes(differences, newer.trie(), start, end, max_keys, max_bytes)

    # Writing.

    def view(self, changes: Mapping[bytes, bytes | None]) -> View:
        """Return the state that ``changes`` would make of the head, to be closed by the caller.

        Args:
            changes: The new value of each key; None deletes it.

        Raises:
            KeyTooLong, ValueTooLong, TypeError: As ``commit``.
            SyncUnfinished: A sync is under way, so nothing could be committed.
        """
        snapshot = self.snapshot()
        try:
            if not snapshot.is_tip:
                raise SyncUnfinished(str(self.path))
            return View(snapshot, changes, self._commit_view)
        except BaseException:
            snapshot.close()
            raise

    def _commit_view(self, changes: Mapping[bytes, bytes | None], base: int) -> tuple[bytes, int]:
        """Commit the changes of views that stand on the revision with the sequence number ``base``."""
        columns = sorted_changes(changes, self.scheme)
        with self._write() as write:
            if write.tip.newest != base:
                raise StaleView
            root = write.commit(columns)
            write.put_progress(None)
            return root, write.tip.newest

    def commit(self, changes: Mapping[bytes, bytes | None], *, keep_history: bool = True) -> bytes:
        """Make all changes, durably, or none.

        A commit that changes anything makes a revision.  The content counts as written locally from then on.

        Args:
            changes: The new value of each key; None deletes it.  Deleting an absent key changes nothing.
            keep_history: False forgets all older revisions instead of adding to them, which is cheaper where
                nobody will ask for them: the batches of a bulk load.

        Returns:
            The new root.

        Raises:
            KeyTooLong, ValueTooLong: And nothing is changed.
            TypeError: ``changes`` is no mapping, or a key or value in it is not bytes.
            SyncUnfinished: A sync is under way: finish it, or roll it back.
            RevisionTooHigh: The head has the highest number that there is; and nothing is changed.
            ImplausibleTime: The clock tells a time that no calendar has; and nothing is changed.
            DatabaseFull: And nothing is changed.
            DatabaseReplaced: The folder was removed or replaced meanwhile; and nothing is changed in either.
            ReadonlyDatabase: It was opened for reading.
        """
        columns = sorted_changes(changes, self.scheme)
        with self._write() as write:
            root = write.commit(columns, keep_history=keep_history)
            write.put_progress(None)
            return root

    def batch(self) -> Batch:
        """Return a context manager that collects changes for one commit."""
        return Batch(self.commit)

    def _write(self) -> WriteTransaction:
        """Return a write transaction that ends with the ``with`` block."""
        return WriteTransaction(self._store, self.scheme, self._clock)

    # Syncing.

    @property
    def tip_root(self) -> bytes:
        """The root of what the tables hold: the head's, or while a sync is under way that of a mixture."""
        return self._tip().root

    @property
    def catching_up(self) -> bool:
        """Whether a sync is under way, so that the tables do not hold the head."""
        return self._tip().unfinished

    @property
    def written_locally(self) -> bool:
        """Whether local commits since the last ``apply`` made content, which a sync would destroy."""
        tip = self._tip()
        return tip.written_locally and not tip.unfinished and len(self) > 0

    def _tip(self) -> Tip:
        with self._read() as transaction:
            return read_tip(transaction)

    def verify_changes(
        self,
        proof: ChangeProof,
        new_root: bytes,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int | None = None,
        max_bytes: int | None = None,
    ) -> VerifiedChanges:
        """Return what ``proof`` shows: that its changes make the local content of a range that of a root.

        The local content is what the tables hold, and must be at the root that the proof starts from; where
        it is not, an honest proof is rejected with Reason.WRONG_ROOT.

        Args:
            proof: What a peer sent, decoded; nothing of it is trusted.
            new_root: A root that comes from someone you trust, 32 bytes.
            start: The start that was asked for, inclusive; None for no bound.
            end: The end that was asked for, inclusive; None for no bound.
            max_keys: The limit of changes that was asked for, if any.
            max_bytes: The limit of encoded bytes that was asked for, if any.

        Raises:
            InvalidProof: The proof does not show that; its ``reason`` says why.
            InvalidRange, BoundTooLong, TypeError, ValueError: The caller's mistake: a root that is not 32
                bytes, bounds that are none, or limits that are no whole numbers from 0 on.

        Cost: about two lookups a change, and a few kilobytes of memory.
        """
        with self._read() as transaction:
            trie = StoredTrie(transaction, read_tip(transaction).root)
            return verify_changes(trie, proof, new_root, start, end, max_keys, max_bytes)

    def apply(
        self,
        verified: VerifiedRange | VerifiedChanges | Sequence[VerifiedRange | VerifiedChanges],
        *,
        progress: bytes | None = None,
        revision: int | None = None,
    ) -> bytes:
        """Make the content of ranges what was verified, all in one durable transaction.

        Readers go on seeing the head until what the tables hold has one of the roots that were verified here;
        then that becomes the head, all at once.  The content counts as a copy from then on, which later syncs
        may replace, unless nothing was given.

        Args:
            verified: What a verification returned, once or several times, applied in order.
            progress: The manager's own state, kept in the same transaction; None forgets it.
            revision: The number of the revision that this makes, if it makes one, at most
                MAX_FOREIGN_REVISION; where it is not above the head's, or None, the number after the head's
                is taken.

        Returns:
            The new root of what the tables hold.

        Raises:
            StaleChanges: The content of a range is not what changes were verified against; verify again.
            SchemeMismatch: A range was verified under another scheme.
            RevisionTooHigh: No honest store has the number ``revision``; and nothing is changed.
            ImplausibleTime: As of ``commit``.
            DatabaseFull: And nothing is changed.
            ReadonlyDatabase: It was opened for reading.
            RevisionTooHigh, TypeError, ValueError: No honest source has a revision of that number.
        """
        require_foreign_number(revision)
        ranges = verified if isinstance(verified, Sequence) else [verified]
        for each in ranges:
            if type(each) is not VerifiedRange and type(each) is not VerifiedChanges:
                raise TypeError(f"only what a verification returns can be applied, not {type(each).__name__}")
            if each.scheme != self.scheme:
                raise SchemeMismatch(str(self.path), each.scheme, self.scheme)
        with self._write() as write:
            if ranges:
                write.apply(ranges, revision)
            write.put_progress(progress)
            return write.tip.root

    def renumber(self, revision: int) -> None:
        """Make a revision with the head's content and a higher number, for its source came back to its root.

        Where the number is not above the head's, nothing is changed.  Whether the content counts as a copy or
        as written locally stays as it is.

        Args:
            revision: The number that the source gives its head.

        Raises:
            SyncUnfinished: A sync is under way, so the head is about to be another one.
            DatabaseFull: And nothing is changed.
            ReadonlyDatabase: It was opened for reading.
            RevisionTooHigh, TypeError, ValueError: No honest source has a revision of that number.
        """
        require_int("the number of a revision", revision, 0)
        require_foreign_number(revision)
        with self._write() as write:
            write.renumber(revision)

    def roll_back(self) -> None:
        """Give up an unfinished sync: the tables hold the head again, or nothing if there was none.

        Costs as much as what the sync has changed, in several transactions; after a crash it can be repeated,
        and readers see the head all the time.  Without an unfinished sync, only its progress is forgotten.

        Raises:
            DatabaseFull: What is done is done; make room and repeat it.
            ReadonlyDatabase: It was opened for reading.
        """
        low: bytes | None = b""
        while low is not None:
            with self._write() as write:
                low = write.roll_back(low)
                write.put_progress(None)

    @property
    def progress(self) -> bytes | None:
        """The state that ``apply`` or ``set_progress`` stored last.

        None when a sync ended, or was never begun.
        """
        with self._store.read() as transaction:
            return transaction.get(PROGRESS, db=self._store.sync)

    def set_progress(self, progress: bytes | None) -> None:
        """Store the manager's state, or forget it, in a transaction of its own."""
        with self._write() as write:
            write.put_progress(progress)
