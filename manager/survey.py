"""Where a sync begins: what the database shows, and what is known of its content.

At rest, all content is at the head's root, and changes from that root bring it to any other.  On its way to a
target it is what the stored progress says; where that cannot be read, or contradicts the root, the content is
rolled back to the head.

Everything here touches the database, and so runs in a thread.
"""

from collections.abc import Mapping
from logging import getLogger
from typing import Final

from manager.errors import InvalidProgress, LocalContent
from manager.goals import Target
from manager.saved import Saved, decode_saved
from manager.standing import Standing, Start, all_at
from merkledb import EMPTY_ROOT, CorruptDatabase, Database

_logger = getLogger(__name__)

# Enough to tell a peer that lost everything and began again from one that is behind, for as long as stores
# usually retain revisions; a hundred bytes each.
MAX_KNOWN_REVISIONS: Final = 1024


def standing_of(database: Database) -> Standing:
    """Return what a database shows."""
    return Standing(
        database.head,
        database.tip_root,
        is_at_rest=not database.catching_up,
        is_local=database.written_locally,
    )


def survey(database: Database) -> Start:
    """Return where a sync of ``database`` begins.

    An unfinished sync of which nothing usable was saved is rolled back first.
    """
    saved = _read_progress(database) if database.catching_up else None
    if saved is None and database.catching_up:
        database.roll_back()
    standing = standing_of(database)
    if saved is not None:
        return Start(standing, saved, saved.target)
    root = standing.tip_root
    # Changes from nothing are the whole content, and ranges prove that at less cost.
    found = all_at(database.scheme.max_key_bytes, None if root == EMPTY_ROOT else root)
    return Start(standing, found, None)


def _read_progress(database: Database) -> Saved | None:
    progress = database.progress
    if progress is None:
        return None
    try:
        saved = decode_saved(progress, database.scheme.max_key_bytes)
    except InvalidProgress as error:
        _logger.warning("%s: %s", database.path, error)
        return None
    root = saved.ranges.root_at(b"")
    if root is not None and saved.ranges.is_at(root) and root != database.tip_root:
        _logger.warning("%s: the stored progress says that all is at a root, and it is not", database.path)
        return None
    return saved


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
