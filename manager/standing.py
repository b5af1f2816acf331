"""What a database shows and where a sync of it begins, as values that leave the database alone.

How they are found is ``survey``.
"""

from typing import Final, NamedTuple

from manager.goals import Target
from manager.limits import Limits
from manager.ranges import RangeMap
from manager.saved import Saved
from manager.work import Work
from merkledb import EMPTY_ROOT, Revision, Scheme
from syncproto import MAX_CONTROL_BYTES, RANGE_OVERHEAD_BYTES, Hello

# What peers see in their logs.
USER_AGENT: Final = "merklesync"
# Stands in a state that nobody has saved.
_NO_TARGET: Final = Target(EMPTY_ROOT)


class Standing(NamedTuple):
    """What a database shows, and where its content stands.

    Attributes:
        head: Its newest complete revision; None while a first sync is unfinished.
        tip_root: The root of its content.
        is_at_rest: Whether its content is the head's; else it is on its way to a target.
        is_local: Whether the content was written locally, so that its revision has a number of our own.
    """

    head: Revision | None
    tip_root: bytes
    is_at_rest: bool
    is_local: bool = False

    def shows(self, root: bytes) -> bool:
        """Whether ``root`` is the head's."""
        return self.head is not None and self.head.root == root

    def lacks_number(self, target: Target) -> bool:
        """Whether the head has the target's root, and still the lower number of an earlier revision.

        The same root can come back under a higher number.  A replica that kept the lower one would later take
        a revision in between for a newer one.  Content that was written locally keeps the number it got here.
        """
        if self.head is None or not self.is_at_rest or self.is_local or target.revision is None:
            return False
        return self.head.root == target.root and self.head.number < target.revision


class Start(NamedTuple):
    """Where a sync begins.

    Attributes:
        standing: What the database shows.
        saved: What an earlier run of the sync has saved, or what stands for it.
        target: What that run was on the way to; None when there was none.
    """

    standing: Standing
    saved: Saved
    target: Target | None


def all_at(max_key_bytes: int, root: bytes | None) -> Saved:
    """Return the state of a sync that finds everything at one root."""
    return Saved(_NO_TARGET, 0, 0, 0, None, RangeMap(max_key_bytes, root), (1.0,))


def work_of(saved: Saved) -> list[Work]:
    """Return all ranges of a saved state as work, ascending; where no shares were saved, even ones."""
    even = 0.0 if any(saved.shares) else 1.0 / len(saved.ranges)
    rows = zip(saved.ranges, saved.shares, strict=True)
    return [Work(key_range.start, key_range.end, share or even, key_range.root) for key_range, share in rows]


def hello_of(scheme: Scheme, standing: Standing, limits: Limits) -> Hello:
    """Return what we say to every peer: we ask, and serve nothing."""
    head = standing.head
    return Hello(
        hasher=scheme.hasher,
        branch_factor=scheme.branch_factor,
        root=head.root if head is not None else None,
        revision=head.number if head is not None else 0,
        max_frame_bytes=max(limits.max_proof_bytes + RANGE_OVERHEAD_BYTES, MAX_CONTROL_BYTES),
        user_agent=USER_AGENT,
    )
