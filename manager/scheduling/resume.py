"""What a database shows and where a sync of it begins, as values that leave the database alone.

How they are found is ``load_resume_point``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import Final, NamedTuple

from manager.errors import InvalidProgress, LocalContent
from manager.keyspace.range_map import RangeMap
from manager.limits import Limits
from manager.scheduling.backlog import Work
from manager.scheduling.checkpoint import Checkpoint, decode_checkpoint
from manager.scheduling.pivot import Target
from merkledb import EMPTY_ROOT, CorruptDatabase, Database, Revision, Scheme
from syncproto import MAX_CONTROL_BYTES, RANGE_OVERHEAD_BYTES, Hello

# What peers see in their logs.
USER_AGENT: Final = "merklesync"
# Stands in a state that nobody has saved.
_NO_TARGET: Final = Target(EMPTY_ROOT)


@dataclass(frozen=True, slots=True)
class LocalState:
    """What a database shows, and where its content stands.

    Attributes:
        head: Its newest complete revision; None while a first sync is unfinished.
        tip_root: The root of its content.
        is_at_rest: Whether its content is the head's; else it is on its way to a target.
        is_local: Whether the content was written locally, so that its revision has a number of our own.
        root: The head's; None where there is no head.
    """

    head: Revision | None
    tip_root: bytes
    is_at_rest: bool
    is_local: bool = False
    root: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", None if self.head is None else self.head.root)

    def lacks_number(self, target: Target) -> bool:
        """Whether the head has the target's root, and still the lower number of an earlier revision.

        The same root can come back under a higher number.  A replica that kept the lower one would later take
        a revision in between for a newer one.  Content that was written locally keeps the number it got here.
        """
        if self.head is None or not self.is_at_rest or self.is_local or target.revision is None:
            return False
        return self.head.root == target.root and self.head.number < target.revision


class ResumePoint(NamedTuple):
    """Where a sync begins.

    Attributes:
        local: What the database shows.
        checkpoint: What an earlier run of the sync has saved, or what stands for it.
        target: What that run was on the way to; None when there was none.
    """

    local: LocalState
    checkpoint: Checkpoint
    target: Target | None


def all_at(max_key_bytes: int, root: bytes | None) -> Checkpoint:
    """Return the state of a sync that finds everything at one root."""
    return Checkpoint(_NO_TARGET, 0, 0, 0, None, RangeMap(max_key_bytes, root), (1.0,))


def work_of(checkpoint: Checkpoint) -> list[Work]:
    """Return all ranges of a saved state as work, ascending; where no shares were saved, even ones."""
    even = 0.0 if any(checkpoint.shares) else 1.0 / len(checkpoint.ranges)
    rows = zip(checkpoint.ranges, checkpoint.shares, strict=True)
    return [Work(key_range.start, key_range.end, share or even, key_range.root) for key_range, share in rows]


def hello_of(scheme: Scheme, local: LocalState, limits: Limits) -> Hello:
    """Return what we say to every peer: we ask, and serve nothing."""
    head = local.head
    return Hello(
        hasher=scheme.hasher,
        branch_factor=scheme.branch_factor,
        root=head.root if head is not None else None,
        revision=head.number if head is not None else 0,
        max_frame_bytes=max(limits.max_proof_bytes + RANGE_OVERHEAD_BYTES, MAX_CONTROL_BYTES),
        user_agent=USER_AGENT,
    )


_logger = getLogger(__name__)

# Enough to tell a peer that lost everything and began again from one that is behind, for as long as stores
# usually retain revisions; a hundred bytes each.
MAX_KNOWN_REVISIONS: Final = 1024


def local_state_of(database: Database) -> LocalState:
    """Return what a database shows."""
    return LocalState(
        database.head,
        database.tip_root,
        is_at_rest=not database.catching_up,
        is_local=database.written_locally,
    )


def load_resume_point(database: Database) -> ResumePoint:
    """Return where a sync of ``database`` begins.

    An unfinished sync of which nothing usable was saved is rolled back first.
    """
    checkpoint = _read_progress(database) if database.catching_up else None
    if checkpoint is None and database.catching_up:
        database.roll_back()
    local = local_state_of(database)
    if checkpoint is not None:
        return ResumePoint(local, checkpoint, checkpoint.target)
    root = local.tip_root
    # Changes from nothing are the whole content, and ranges prove that at less cost.
    found = all_at(database.scheme.max_key_bytes, None if root == EMPTY_ROOT else root)
    return ResumePoint(local, found, None)


def _read_progress(database: Database) -> Checkpoint | None:
    progress = database.progress
    if progress is None:
        return None
    try:
        checkpoint = decode_checkpoint(progress, database.scheme.max_key_bytes)
    except InvalidProgress as error:
        _logger.warning("%s: %s", database.path, error)
        return None
    root = checkpoint.ranges.root_at(b"")
    if root is not None and checkpoint.ranges.is_at(root) and root != database.tip_root:
        _logger.warning("%s: the stored progress says that all is at a root, and it is not", database.path)
        return None
    return checkpoint


def known_revisions(database: Database) -> Mapping[int, bytes]:
    """Return which root is or was here under which number, as far as it is retained, older ones first.

    It only tells how peers stand to what is here, so where the list is damaged a sync goes on without it.
    """
    try:
        newest_first = database.revisions(limit=MAX_KNOWN_REVISIONS)
    except CorruptDatabase as error:
        _logger.warning("%s", error)
        return {}
    return {revision.number: revision.root for revision in reversed(newest_first)}


def require_replaceable(database: Database, target: Target, *, replace: bool) -> None:
    """Raise unless the content may be replaced by a copy of ``target``.

    Raises:
        LocalContent: It was written locally, and may not be.
    """
    if database.written_locally and not replace and database.tip_root != target.root:
        raise LocalContent(database.tip_root)
