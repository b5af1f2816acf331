"""Everything that can go wrong in ``merkledb``, as one tree.

::

    MerkleDBError
    ├── CallerError               the caller asked for what cannot be
    │   ├── InvalidRange          start lies after end
    │   ├── BoundTooLong          a proof is asked for, or verified, from or to longer a key than may be sent
    │   ├── KeyTooLong            a key above the scheme's limit
    │   ├── ValueTooLong          a value above MAX_VALUE_BYTES
    │   ├── LimitTooSmall         a proof cannot fit into the bytes allowed
    │   ├── TooManyReaders        all places for snapshots are taken
    │   ├── UnknownRoot           a root that the database never had
    │   ├── HistoryGone           a root that it had, and does not retain any more
    │   ├── RevisionTooHigh       a revision number above the highest that is possible, or is taken over
    │   ├── ImplausibleTime       a clock tells a time that no calendar has
    │   ├── StaleView             another commit came before this view's
    │   ├── StaleChanges          the content that changes were verified against is another now
    │   ├── SyncUnfinished        a local commit in the middle of a sync
    │   ├── NoCompleteRoot        a read before the first sync has come to its end
    │   ├── ReadonlyDatabase      a write to a database opened for reading
    │   ├── DatabaseClosed        any use after close()
    │   ├── DatabaseOutgrown      the store is larger than what this process reserved for it
    │   ├── DatabaseReplaced      its folder was removed, moved or replaced while it was open
    │   ├── ForkedDatabase        any use in a process that was forked off after it was opened
    │   └── KernelMissing         a kernel is asked for that cannot be had
    ├── OpenError                 a path that cannot be opened as asked
    │   ├── NotADatabase          nothing is there, or something else is
    │   ├── FormatTooNew          a newer merkledb wrote it
    │   ├── FormatTooOld          a merkledb before the first release wrote it
    │   ├── SchemeMismatch        it has another hasher or branch factor
    │   └── DatabaseInUse         another process, or this one, writes to it
    ├── InvalidProof              a peer's proof does not hold; ``reason`` says why
    ├── StoreFailed               LMDB fails in a way that says nothing of what is on disk
    ├── DatabaseFull              disk, quota, or map is exhausted; the last commit stands
    └── CorruptDatabase           what is on disk contradicts itself

Every class carries its facts as fields and a sentence that says what to do next.  A bare ``lmdb.Error``
never reaches a user: ``store`` translates it, ``from`` its cause.
"""

import copyreg
from enum import StrEnum
from typing import Any


class PicklableError(Exception):
    """An error that survives pickling, as it must to leave a process of a pool.

    Python would call its class with the finished sentence, where most classes take facts.  The cause, which
    may be any object at all, becomes its text.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how the error is made again: its class, its arguments, its fields, and the cause's text."""
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = Exception(f"{type(self.__cause__).__name__}: {self.__cause__}")
        return copyreg.__newobj__, (type(self), *self.args), state  # type: ignore[attr-defined]


class MerkleDBError(PicklableError):
    """The root of every error that this package raises on purpose."""


class CallerError(MerkleDBError):
    """The caller asked for something that cannot be done; nothing was changed."""


class InvalidRange(CallerError):
    """The start of a range lies after its end."""

    def __init__(self, start: bytes, end: bytes) -> None:
        super().__init__(f"the range starts at 0x{start.hex()}, after its end 0x{end.hex()}: swap them")
        self.start = start
        self.end = end


class BoundTooLong(CallerError, ValueError):
    """The start or end of a proof has more bytes than the wire takes, which are more than any key has."""

    def __init__(self, name: str, length: int, limit: int) -> None:
        super().__init__(
            f"{name} has {length} bytes, above {limit}: no key is as long; leave it out, or cut it"
        )
        self.length = length
        self.limit = limit


class KeyTooLong(CallerError):
    """A key has more bytes than a database of this branch factor can hold."""

    def __init__(self, length: int, limit: int, branch_factor: int) -> None:
        super().__init__(
            f"a key of {length} bytes is over the limit of {limit} at branch factor {branch_factor}: "
            "shorten it, or create the store with a larger branch factor"
        )
        self.length = length
        self.limit = limit


class ValueTooLong(CallerError):
    """A value has more bytes than any database holds."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(
            f"a value of {length} bytes is over the limit of {limit}: split it over several keys"
        )
        self.length = length
        self.limit = limit


class LimitTooSmall(CallerError):
    """Not even the smallest proof that makes progress fits into ``max_bytes``."""

    def __init__(self, max_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"a proof of at most {max_bytes} bytes cannot hold the next pair: ask with {needed_bytes} bytes"
        )
        self.max_bytes = max_bytes
        self.needed_bytes = needed_bytes


class TooManyReaders(CallerError):
    """All places for readers, of all processes together, are taken."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(f"{path} has {limit} readers already: close snapshots that are not needed any more")
        self.limit = limit


class UnknownRoot(CallerError):
    """No revision of the database has, or had, this root."""

    def __init__(self, root: bytes) -> None:
        super().__init__(f"root {root.hex()} is unknown here: list the retained roots, or sync to it first")
        self.root = root


class HistoryGone(CallerError):
    """A revision had this root, and its history has been pruned."""

    def __init__(self, root: bytes) -> None:
        super().__init__(
            f"root {root.hex()} is not retained any more: ask for a newer one, or retain more revisions"
        )
        self.root = root


class RevisionTooHigh(CallerError):
    """A revision number is above the highest that a store makes, or takes over from somewhere else."""

    def __init__(self, number: int, limit: int) -> None:
        super().__init__(
            f"revision {number} is above {limit}, which no honest count of commits reaches: "
            "name its real number or none, or load or sync the content into a new store"
        )
        self.number = number
        self.limit = limit


class ImplausibleTime(CallerError):
    """The clock of a database tells a time that no calendar has."""

    def __init__(self, time: object) -> None:
        super().__init__(
            f"the clock says {time!r:.40}, which is no number of seconds from 1970 to the year 9999: "
            "set the machine's clock, or open the store with a clock that tells seconds"
        )
        self.time = time


class StaleView(CallerError):
    """A view cannot be committed, for another commit came first."""

    def __init__(self) -> None:
        super().__init__("another commit came before this view's: make the view again from the new head")


class StaleChanges(CallerError):
    """The local content of a range is not what the changes were verified against."""

    def __init__(self, start: bytes | None) -> None:
        where = "the first key" if start is None else f"0x{start.hex()}"
        super().__init__(
            f"the content from {where} on was changed after the changes were verified: verify them again"
        )
        self.start = start


class SyncUnfinished(CallerError):
    """The database is in the middle of a sync, where a commit would mix two contents."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is in the middle of a sync: finish the sync, or roll it back, and try again"
        )


class NoCompleteRoot(CallerError):
    """The first sync has not come to its end, so there is no root to show and nothing to read."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} has no complete root yet: its first sync is unfinished; let it finish")


class ReadonlyDatabase(CallerError):
    """A write to a database that was opened for reading."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was opened for reading: open it with readonly=False to write")


class DatabaseClosed(CallerError):
    """The database, or the snapshot, was closed before this call."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is closed: open it again")


class DatabaseOutgrown(CallerError):
    """Another process made the store larger than the address space that this one reserved for it.

    It is taken over at the next use for which nothing stands in the way.
    """

    def __init__(self, path: str, advice: str) -> None:
        super().__init__(f"{path} has grown above what this process reserved for it: {advice}")


class DatabaseReplaced(CallerError):
    """The folder of an open database was removed, moved, or replaced by another; nothing was changed.

    A commit would go to a file that nobody opens any more.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was removed, moved or replaced while it was open here: "
            "close it, and open it where it is now, or what is there now"
        )
        self.path = path


class ForkedDatabase(CallerError):
    """The process was forked off after the database was opened, which belongs to the parent."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was opened before this process was forked off, and belongs to its parent: "
            "start processes with spawn, or open the store after the fork"
        )


class KernelMissing(CallerError):
    """The environment asks for a kernel that is not installed, or not the one of this release."""


class OpenError(MerkleDBError):
    """A path cannot be opened as a database in the way that was asked; nothing was changed."""


class NotADatabase(OpenError):
    """Nothing is at the path, or something that is no database."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path


class FormatTooNew(OpenError):
    """A newer release wrote the database in a format that this one cannot read."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            f"{path} has format {found}, this release reads up to {known}: install a newer merklesync"
        )
        self.found = found
        self.known = known


class FormatTooOld(OpenError):
    """A merkledb before the first release wrote the database, in a format that is read no more."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            f"{path} has store format {found}, this release reads {known}: "
            "load or sync its content into a new store"
        )
        self.path = path
        self.found = found
        self.known = known


class SchemeMismatch(OpenError):
    """The database was made with another hasher or branch factor than asked for."""

    def __init__(self, path: str, expected: object, found: object) -> None:
        super().__init__(
            f"{path} holds {found}, not {expected}: open it with scheme=None, which takes the one "
            "that it has, or use another path"
        )
        self.expected = expected
        self.found = found


class DatabaseInUse(OpenError):
    """Somebody else has the database open for writing, or this process has it open at all."""

    def __init__(self, path: str, *, same_process: bool = False) -> None:
        advice = (
            "is open in this process already: use that Database object, from any thread"
            if same_process
            else "is open for writing elsewhere: close it there, or open it here with readonly=True"
        )
        super().__init__(f"{path} {advice}")


class Reason(StrEnum):
    """Why a proof was rejected; the closed list that every verifier chooses from."""

    MALFORMED = "malformed"
    WRONG_ROOT = "wrong root"
    KEYS_OUT_OF_ORDER = "keys out of order"
    KEY_OUTSIDE_RANGE = "key outside the range"
    STUB_INSIDE_RANGE = "stub inside the range"
    DIGEST_INSIDE_RANGE = "digest inside the range"
    ITEM_BELOW_STUB = "item below a stub"
    STUB_NOT_DIRECT = "stub does not hang directly under its branch"
    TOKEN_OUT_OF_RANGE = "token out of range"  # noqa: S105 - a reason, not a password
    TOKENS_OUT_OF_ORDER = "tokens out of order"
    BOUNDARY_OUT_OF_ORDER = "boundary out of order"
    EMPTY_BRANCH = "branch of the boundary tells nothing"
    BAD_ID = "id is not 32 bytes"
    BAD_DIGEST = "digest is too long or not of a whole key"
    KEY_TOO_LONG = "key too long"
    PATH_TOO_LONG = "path too long"
    VALUE_TOO_LONG = "value too long"
    TOO_MANY_KEYS = "more pairs than were asked for"
    TOO_MANY_BYTES = "more bytes than were asked for"
    WRONG_END = "end is not where a proof may end"
    NO_PROGRESS = "no progress"


class InvalidProof(MerkleDBError):
    """A proof does not show what it claims.

    Attributes:
        reason: Which rule it breaks, from the closed list.
        detail: Where, for a person to read.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"invalid proof: {reason}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


class StoreFailed(MerkleDBError):
    """LMDB failed in a way that is not expected, and that says nothing of what is on disk."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"LMDB failed with {path} ({cause}): nothing of this change was kept; open it again and repeat it"
        )


class DatabaseFull(MerkleDBError):
    """Disk, quota or map is exhausted.

    The transaction was undone; the last committed root stands and is readable.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"{path} is full ({cause}): the last change was not kept, those before it are; "
            "make room, then try again"
        )


class CorruptDatabase(MerkleDBError):
    """What is on disk contradicts itself: never written by this package, or damaged since."""

    def __init__(self, path: str, difference: str) -> None:
        super().__init__(f"{path} is damaged: {difference}; sync or load its content into a new store")
        self.difference = difference
