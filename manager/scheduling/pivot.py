"""Which root a sync fetches: the *pivot*, which follows the *target* without running after it.

The target is where the database shall be in the end, and may change many times a second.  The pivot is the
root that peers are asked for.  When it is reached, the newest target becomes the pivot.  Before that it gives
way to a newer target only

- when no peer has it any more, at once;
- when it has been the pivot for so long that what was fetched at the pivots before it might soon be older
  than what peers retain, and could not be brought forward by changes any more.  Where answers take long, it
  is left some of them, for each piece that is fetched at a pivot of its own has to be brought along on its
  own.

So a target that moves faster than its content can be fetched is still reached, or rather one of its roots is,
and then another: every root that the database shows was a target once.  While much is left the pivot moves on
regularly, and what was fetched is brought along.  When only the changes between pivots are left, patience
doubles with each pivot that is not reached: a sync that fetches faster than its source changes catches up.

Pure: the time is an argument.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

# Pivots whose revisions are remembered: what is fetched at one is applied seconds later, and by then there
# are a few newer ones.
_REMEMBERED_PIVOTS: Final = 64
# A pivot gets so many answers before it gives way, unless that takes so many times its patience.
_MIN_ANSWERS: Final = 8
_MAX_STRETCHING: Final = 12


class Target(NamedTuple):
    """A root that a database shall have.

    Attributes:
        root: 32 bytes.
        revision: Its number at its source; None when unknown.
    """

    root: bytes
    revision: int | None = None


class SeenHead(NamedTuple):
    """What a connected peer says that its head is.

    Attributes:
        root: The root; None when it has no complete one.
        revision: Its number.
        keys: How many pairs it has, which nothing proves.
        is_followed: Whether it announces each new one, so that this is the present one.
    """

    root: bytes | None
    revision: int
    keys: int
    is_followed: bool


def newest_announced(heads: Sequence[SeenHead], above: int) -> Target | None:
    """Return the head with the highest revision; None when none is complete with a revision ``above``."""
    complete = [
        (head.revision, head.root) for head in heads if head.root is not None and head.revision > above
    ]
    if not complete:
        return None
    revision, root = max(complete)
    return Target(root, revision)


class PivotTracker:
    """The newest target, and the pivot.

    Args:
        patience_seconds: How long a pivot that is not reached keeps back a newer target, at first.

    Attributes:
        target: The newest; None while nobody has named one.
        pivot: What is fetched; None before the first target.
        is_newest: Whether the pivot is the newest target, so that nothing waits for it to give way.
        gives_way_at: When the pivot gives way to the newest target if it is not reached, in seconds; infinity
            while it is the newest.
        is_proven: Whether a part of the pivot's own content was verified since it became the pivot.
        quiet_since: Since when nothing was verified of any pivot, though there was one to be reached.
    """

    def __init__(self, patience_seconds: float) -> None:
        self.target: Target | None = None
        self.pivot: Target | None = None
        self.is_newest = True
        self.gives_way_at = float("inf")
        self.is_proven = False
        self.quiet_since = 0.0
        self._base_seconds = patience_seconds
        self._patience_seconds = patience_seconds
        self._since = 0.0
        self._answers = 0
        self._revisions: dict[bytes, int | None] = {}

    def aim(self, target: Target) -> None:
        """Note the newest target; it becomes the pivot with ``advance``."""
        self.target = target
        if self.pivot is not None and self.pivot.root == target.root:
            self._set_pivot(target)
        self._set_deadline()

    def advance(self, now: float, *, was_reached: bool = False, more_patience: bool = False) -> None:
        """Make the newest target the pivot.

        Args:
            now: The time, in seconds.
            was_reached: Whether the database is at the old pivot, so that there was nothing to verify of it.
            more_patience: Whether the new pivot gets twice the time that this one had, instead of the usual.
        """
        if self.target is not None:
            self._set_pivot(self.target)
        if was_reached:
            self.quiet_since = now
        self._since = now
        self._answers = 0
        self.is_proven = False
        self._patience_seconds = 2 * self._patience_seconds if more_patience else self._base_seconds
        self._set_deadline()

    def count_answer(self, root: bytes, now: float) -> None:
        """Note that something was verified of a root that is or was the pivot."""
        self._answers += 1
        if self._answers == _MIN_ANSWERS:
            self._set_deadline()
        if self.pivot is not None and root == self.pivot.root:
            self.is_proven = True
            self.quiet_since = now

    def forget_proof(self, now: float) -> None:
        """Forget that a part of the pivot's content was verified, for no further one is."""
        self.is_proven = False
        self.quiet_since = now

    def _set_deadline(self) -> None:
        """Say when the pivot gives way, after anything changed that this depends on."""
        self.is_newest = self.target is None or (
            self.pivot is not None and self.pivot.root == self.target.root
        )
        # What is fetched at a pivot of its own has to be brought along on its own later.  Where answers take
        # long, a pivot is therefore left some of them; but not for ever, for there may never come any.
        stretching = 1 if self._answers >= _MIN_ANSWERS else _MAX_STRETCHING
        deadline = self._since + self._patience_seconds * stretching
        self.gives_way_at = float("inf") if self.is_newest else deadline

    def _set_pivot(self, pivot: Target) -> None:
        self.pivot = pivot
        # Put in again, so that the one that was the pivot last is forgotten last.
        self._revisions.pop(pivot.root, None)
        self._revisions[pivot.root] = pivot.revision
        if len(self._revisions) > _REMEMBERED_PIVOTS:
            del self._revisions[next(iter(self._revisions))]

    def revision_of(self, root: bytes) -> int | None:
        """Return the number that a pivot has at its source; None when unknown."""
        return self._revisions.get(root)
