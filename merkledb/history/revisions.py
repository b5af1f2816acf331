"""The revisions of a database: which roots it had, which can still be read, and where its tables stand.

Every revision has a *sequence number*, one more than the one before it: what history's rows are sorted by.
Its *number* is what people see; a replica takes over the numbers of its source, so there it may jump.

    meta table       tip          → root of the tip ‖ newest ‖ oldest ‖ flags
    revisions table  sequence     → root ‖ number ‖ time ‖ pairs ‖ location of the topmost node
                     root         → sequence number of the newest revision with that root

The *tip* is the content as the tables hold it.  At rest it is the content of the newest revision, the *head*.
While a sync is under way it is unfinished: a mixture on its way from the head to a target, which nobody sees.
What the mixture has overwritten stands in history under the sequence number after the newest, as if it were
a revision already, and when the tip is whole, it becomes one.

A pruned revision's history is gone, but its row stays for a while, so that its root is known to be gone.
"""

import math
from struct import Struct
from typing import Final, NamedTuple

from merkledb.arguments import require_int
from merkledb.errors import HistoryGone, ImplausibleTime, RevisionTooHigh, UnknownRoot
from merkledb.formats.branch_delta import NodeLocation, parse_location
from merkledb.formats.scheme import EMPTY_ROOT, ID_BYTES, require_root
from merkledb.storage.store import Store, StoreTransaction, Transaction

# 2^56 revisions are more than anybody makes; with seven bytes a row key of history has room for 504 more.
SEQUENCE_BYTES: Final = 7
# The highest number of a revision, in a store and on the wire: every language has integers that hold it.
MAX_REVISION: Final = 2**63 - 1
# The highest number that a person or a program may name with a root.  A thousand commits a second need 8,900
# years to get there.
MAX_NAMED_REVISION: Final = 2**48
# The highest number that is taken over from a peer.  It is far above the one that may be named, so that a
# store which was given even that goes on, and so do those that follow it; and below the highest of all, so
# that a store which believed a liar still has 2^62 commits of its own.
MAX_FOREIGN_REVISION: Final = 2**62
# The last second of the year 9999: calendars in programs end there, and milliseconds lie far after it.
MAX_TIME: Final = 253_402_300_799
# More than a sequence number can count to cannot be retained.
MAX_HISTORY: Final = 2 ** (8 * SEQUENCE_BYTES) - 1
# So many newest revisions stay, however old the clock says they are: it may have jumped ahead.
MIN_RETAINED_REVISIONS: Final = 8
# A commit looks at the age of so many revisions at most.  Usually it is one or two; more when the age was
# changed, or where a run of revisions is stamped with times that have not come yet.
_MAX_AGED_REVISIONS: Final = 4096
TIP: Final = b"tip"
DEFAULT_HISTORY: Final = 256
# How many pruned revisions are still known by their roots, at about a hundred bytes each.
REMEMBERED_REVISIONS: Final = 16_384
_HISTORY: Final = b"history"
_TIP: Final = Struct(">32sQQB")
# Where the tip's row has the last seven of the eight bytes of the newest sequence number.
_NEWEST: Final = slice(ID_BYTES + 1, ID_BYTES + 8)
_REVISION: Final = Struct(">32sQdQ")
_RETENTION: Final = Struct(">Qd")
_WRITTEN_LOCALLY: Final = 1
_UNFINISHED: Final = 2
# Seven bytes hold no larger sequence number, and history needs one more for a sync under way.
_MAX_SEQUENCE: Final = (1 << 8 * SEQUENCE_BYTES) - 2
# No table has as many rows, and Python's ``len`` can say it.
_MAX_PAIRS: Final = 1 << 62


class Revision(NamedTuple):
    """A state that the database had.

    Attributes:
        number: Its number; 0 is the empty state before the first commit.
        root: Its root.
        time: When it was made, in seconds since 1970.
        keys: How many pairs it has.
    """

    number: int = 0
    root: bytes = EMPTY_ROOT
    time: float = 0.0
    keys: int = 0


def require_foreign_number(number: int | None) -> None:
    """Raise unless a revision number from somewhere else may be taken over; None is no number.

    Raises:
        RevisionTooHigh: It is above MAX_FOREIGN_REVISION.
        TypeError: It is no integer.
        ValueError: It is negative.
    """
    if number is None:
        return
    require_int("the number of a revision", number, 0)
    if number > MAX_FOREIGN_REVISION:
        raise RevisionTooHigh(number, MAX_FOREIGN_REVISION)


def require_time(time: object) -> float:
    """Return what a clock says.

    Raises:
        ImplausibleTime: It is no number of seconds since 1970, or lies after the year 9999.
    """
    if not isinstance(time, int | float) or not 0 <= time <= MAX_TIME:
        raise ImplausibleTime(time)
    return time


class Tip(NamedTuple):
    """How the tables stand.

    Attributes:
        root: The root of what the tables hold.
        newest: The sequence number of the head.
        oldest: The sequence number of the oldest revision that can be read.
        written_locally: Whether the content comes from local commits, so that a sync would destroy it.
        unfinished: Whether the tables are on their way from the head to a target.
    """

    root: bytes = EMPTY_ROOT
    newest: int = 0
    oldest: int = 0
    written_locally: bool = False
    unfinished: bool = False

    @property
    def sequence(self) -> int:
        """The last sequence number that history has rows of."""
        return self.newest + self.unfinished

    @property
    def has_head(self) -> bool:
        """Whether there is a complete state to show: not while the first sync is unfinished."""
        return self.newest > 0 or not self.unfinished

    def encode(self) -> bytes:
        """Return the row."""
        flags = _WRITTEN_LOCALLY * self.written_locally | _UNFINISHED * self.unfinished
        return _TIP.pack(self.root, self.newest, self.oldest, flags)


def root_at_rest(store: Store, lmdb: Transaction) -> bytes | None:
    """Return the head's root where the tables hold the head, for reads that have no time for ``read_tip``.

    None says nothing more than that ``read_tip`` has to look: a sync is under way, or the store is damaged.
    """
    row = lmdb.get(TIP, b"", db=store.meta)
    if len(row) != _TIP.size or row[-1] > _WRITTEN_LOCALLY:
        return None
    root = row[:ID_BYTES]
    return root if lmdb.get(row[_NEWEST], b"", db=store.revisions)[:ID_BYTES] == root else None


def read_tip(transaction: StoreTransaction) -> Tip:
    """Return the tip as ``transaction`` sees it.

    Raises:
        CorruptDatabase: It is none, or the revisions say something else of the head.
    """
    row = transaction.lmdb.get(TIP, b"", db=transaction.store.meta)
    if len(row) != _TIP.size:
        raise transaction.corrupt(f"the tip's row has {len(row)} bytes")
    root, newest, oldest, flags = _TIP.unpack(row)
    if not oldest <= newest <= _MAX_SEQUENCE or flags > _WRITTEN_LOCALLY | _UNFINISHED:
        raise transaction.corrupt(f"the tip's row names revisions {oldest} to {newest} and flags {flags}")
    tip = Tip(root, newest, oldest, bool(flags & _WRITTEN_LOCALLY), bool(flags & _UNFINISHED))
    key = newest.to_bytes(SEQUENCE_BYTES)
    head = transaction.lmdb.get(key, b"", db=transaction.store.revisions)
    if len(head) < _REVISION.size:
        raise transaction.corrupt(f"the row of revision {newest}, the newest, has {len(head)} bytes")
    head_root = head[:ID_BYTES]
    if not tip.unfinished and head_root != root:
        raise transaction.corrupt(f"the tip's root is {root.hex()}, that of the head {head_root.hex()}")
    if tip.unfinished and transaction.lmdb.get(head_root, db=transaction.store.revisions) != key:
        raise transaction.corrupt(f"the head's root is {head_root.hex()}, which the revisions do not know")
    following = (newest + 1).to_bytes(SEQUENCE_BYTES)
    if transaction.lmdb.get(following, db=transaction.store.revisions) is not None:
        raise transaction.corrupt(f"the tip names revision {newest} as the newest, and there is one after it")
    return tip


class Retention(NamedTuple):
    """How much history is kept.

    Attributes:
        revisions: How many, the head included; at least 1.
        seconds: Up to which age; the newest MIN_RETAINED_REVISIONS stay however old they are.
    """

    revisions: int = DEFAULT_HISTORY
    seconds: float = math.inf


def read_retention(transaction: StoreTransaction) -> Retention:
    """Return what the store was told to keep."""
    row = transaction.lmdb.get(_HISTORY, b"", db=transaction.store.meta)
    if len(row) != _RETENTION.size:
        raise transaction.corrupt(f"the row of the retention has {len(row)} bytes")
    retention = Retention(*_RETENTION.unpack(row))
    if retention.revisions < 1 or not retention.seconds >= 0:
        raise transaction.corrupt(
            f"the row of the retention says {retention.revisions} and {retention.seconds}"
        )
    return retention


def put_retention(transaction: StoreTransaction, retention: Retention) -> None:
    """Store what is to be kept; pruning begins with the next commit."""
    transaction.lmdb.put(_HISTORY, _RETENTION.pack(*retention), db=transaction.store.meta)


def first_rows(retention: Retention, time: float) -> dict[bytes, dict[bytes, bytes]]:
    """Return the rows of a new store, by table."""
    first = bytes(SEQUENCE_BYTES)
    return {
        b"meta": {TIP: Tip().encode(), _HISTORY: _RETENTION.pack(*retention)},
        b"revisions": {first: _encode(Revision(time=time), None), EMPTY_ROOT: first},
    }


def _encode(revision: Revision, top: NodeLocation | None) -> bytes:
    location = b"" if top is None else top.encode()
    return _REVISION.pack(revision.root, revision.number, revision.time, revision.keys) + location


def put_revision(
    transaction: StoreTransaction, sequence: int, revision: Revision, top: NodeLocation | None
) -> None:
    """Store a revision.

    Args:
        transaction: The write transaction.
        sequence: Its sequence number.
        revision: What it is.
        top: The location of its topmost node; None when it is empty.
    """
    key = sequence.to_bytes(SEQUENCE_BYTES)
    transaction.lmdb.put(key, _encode(revision, top), db=transaction.store.revisions)
    transaction.lmdb.put(revision.root, key, db=transaction.store.revisions)


def read_revision(transaction: StoreTransaction, sequence: int) -> tuple[Revision, NodeLocation | None]:
    """Return the revision with a sequence number, and the location of its topmost node.

    Raises:
        CorruptDatabase: There is none, or its row is unreadable.
    """
    row = transaction.lmdb.get(sequence.to_bytes(SEQUENCE_BYTES), b"", db=transaction.store.revisions)
    if len(row) < _REVISION.size:
        raise transaction.corrupt(f"the row of revision {sequence} has {len(row)} bytes")
    root, number, time, keys = _REVISION.unpack_from(row)
    if number > MAX_REVISION or keys > _MAX_PAIRS:
        said = f"number {number}, above {MAX_REVISION}" if number > MAX_REVISION else f"{keys} pairs"
        raise transaction.corrupt(f"the row of revision {sequence} says what cannot be: {said}")
    try:
        top = parse_location(row[_REVISION.size :])
    except ValueError as error:
        raise transaction.corrupt(f"the row of revision {sequence} is unreadable: {error}") from error
    if (top is None) != (root == EMPTY_ROOT):
        raise transaction.corrupt(f"the row of revision {sequence} does not say where its topmost node is")
    return Revision(number, root, time, keys), top


def find_revision(transaction: StoreTransaction, tip: Tip, root: bytes) -> int:
    """Return the sequence number of the newest retained revision with ``root``.

    Raises:
        TypeError, ValueError: It is not bytes, or not 32 of them.
        UnknownRoot: No revision has or had it, as far as is remembered.
        HistoryGone: It is retained no more.
        CorruptDatabase: The row of the root names a revision that has another root.
    """
    require_root(root)
    row = transaction.lmdb.get(root, db=transaction.store.revisions)
    if row is None or not tip.has_head:
        raise UnknownRoot(root)
    sequence = int.from_bytes(row)
    if len(row) != SEQUENCE_BYTES or sequence > tip.newest:
        raise transaction.corrupt(f"the row of the root {root.hex()} names no revision")
    revision = transaction.lmdb.get(row, db=transaction.store.revisions)
    if revision is None or revision[:ID_BYTES] != root:
        raise transaction.corrupt(f"the row of the root {root.hex()} names revision {sequence}, another's")
    if sequence < tip.oldest:
        raise HistoryGone(root)
    return sequence


def drop_revisions(
    transaction: StoreTransaction, tip: Tip, least: int, retention: Retention, now: float
) -> Tip:
    """Return the tip with ``oldest`` as the retention wants it, and forget what is older than anybody asks.

    One revision comes with each commit, so this is a step or two, unless the retention was changed.

    Args:
        transaction: The write transaction.
        tip: With the new revision, and the oldest as it was.
        least: The oldest sequence number that history reaches back to.
        retention: What is to be kept.
        now: The time.
    """
    oldest = max(tip.oldest, least, tip.newest - retention.revisions + 1)
    if retention.seconds < math.inf:
        oldest = _oldest_by_age(transaction, oldest, tip.newest, retention.seconds, now)
    for dropped in range(tip.oldest, oldest):
        _forget(transaction, dropped - REMEMBERED_REVISIONS)
    return tip._replace(oldest=oldest)


def _oldest_by_age(
    transaction: StoreTransaction, oldest: int, newest: int, seconds: float, now: float
) -> int:
    """Return the oldest sequence number that is not too old, from ``oldest`` on.

    No clock is trusted alone.  What is too old has to be so by two revisions in a row, so that a clock which
    jumps ahead and is set right again takes nothing away.  A revision from the future says nothing of its
    age: it goes with one after it that is too old.
    """
    before = read_revision(transaction, newest - 1)[0].time
    since = min(now, before) - seconds
    kept = oldest
    for sequence in range(oldest, min(newest - MIN_RETAINED_REVISIONS + 1, oldest + _MAX_AGED_REVISIONS)):
        time = read_revision(transaction, sequence)[0].time
        if time < since:
            kept = sequence + 1
        elif time <= now:
            break
    return kept


def _forget(transaction: StoreTransaction, sequence: int) -> None:
    """Forget a pruned revision, and its root where no newer revision has it."""
    if sequence < 0:
        return
    key = sequence.to_bytes(SEQUENCE_BYTES)
    row = transaction.lmdb.pop(key, db=transaction.store.revisions)
    if row and transaction.lmdb.get(row[:ID_BYTES], db=transaction.store.revisions) == key:
        transaction.lmdb.delete(row[:ID_BYTES], db=transaction.store.revisions)
