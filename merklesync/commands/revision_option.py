"""Revisions as a person names them: ``--at REVISION``, and the two of ``diff``.

- Digits alone, at most seven, or ``r`` and any number of digits, are the number that ``log`` shows.
- 8 to 64 hex digits, with or without ``0x`` before them, are a root, or the beginning of one.

A beginning must be that of one retained root only.  A root that came back has several revisions with the
same content; it stands for the newest.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import click

from merkledb import EMPTY_ROOT, Database, NoCompleteRoot, Revision, Snapshot
from merklesync.errors import CommandError
from merklesync.text import HEX_PREFIX

# So many digits tell one root from 256 others but for one time in a hundred thousand, and are no number that
# most stores reach.
MIN_ROOT_DIGITS: Final = 8
ROOT_DIGITS: Final = 2 * len(EMPTY_ROOT)
_NUMBER: Final = re.compile(rf"[0-9]{{1,{MIN_ROOT_DIGITS - 1}}}|r[0-9]{{1,20}}")
_ROOT: Final = re.compile(rf"(?:0x)?[0-9a-fA-F]{{{MIN_ROOT_DIGITS},{ROOT_DIGITS}}}")


class RevisionNumber(NamedTuple):
    """A revision named by its number."""

    number: int

    def __str__(self) -> str:
        return str(self.number)


class RootPrefix(NamedTuple):
    """A revision named by the first hex digits of its root, or by all of them; in lower case."""

    digits: str

    def __str__(self) -> str:
        return self.digits


RevisionOption: TypeAlias = RevisionNumber | RootPrefix


def parse_revision(text: str) -> RevisionOption:
    """Return the revision that ``text`` names.

    Raises:
        ValueError: It names none.
    """
    if _NUMBER.fullmatch(text):
        return RevisionNumber(int(text.removeprefix("r")))
    if _ROOT.fullmatch(text):
        return RootPrefix(text.removeprefix(HEX_PREFIX).lower())
    raise ValueError(
        f"{text!r} is no revision: give its number, or at least {MIN_ROOT_DIGITS} hex digits of its root"
    )


class _RevisionType(click.ParamType[RevisionOption]):
    name = "revision"

    def convert(
        self,
        value: str | RevisionOption,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002 - click's signature
    ) -> RevisionOption:
        if not isinstance(value, str):
            return value
        try:
            return parse_revision(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error


REVISION: Final = _RevisionType()

at_option = click.option(
    "--at",
    type=REVISION,
    metavar="REVISION",
    help="As it was at a retained revision: its number (r17 or 17), or its root, or the first 8 or more "
    "digits of that; log lists them.",
)


def snapshot_at(database: Database, name: RevisionOption | None) -> Snapshot:
    """Return the revision that a person names, or the head, to be closed by the caller.

    Raises:
        CommandError: No retained revision has this name, or several have.
        MerkleDBError: UnknownRoot, HistoryGone, or NoCompleteRoot.
    """
    return database.snapshot() if name is None else database.at(resolve_root(database, name))


def resolve_root(database: Database, name: RevisionOption) -> bytes:
    """Return the root of the revision that a person names; a whole root as it is, known or not.

    Raises:
        CommandError, NoCompleteRoot: As ``snapshot_at``.
    """
    if isinstance(name, RootPrefix) and len(name.digits) == ROOT_DIGITS:
        return bytes.fromhex(name.digits)
    revisions = database.revisions()
    if not revisions:
        raise NoCompleteRoot(str(database.path))
    if isinstance(name, RevisionNumber):
        return _root_of_number(database, revisions, name.number)
    return _root_of_prefix(database, revisions, name.digits)


def _root_of_number(database: Database, revisions: Sequence[Revision], number: int) -> bytes:
    for revision in revisions:
        if revision.number == number:
            return revision.root
    newest, oldest = revisions[0].number, revisions[-1].number
    if number > newest:
        raise CommandError(f"{database.path} has no revision {number} yet: the newest is {newest}")
    if number < oldest:
        raise CommandError(
            f"revision {number} of {database.path} is not retained any more: the oldest is {oldest}; "
            "--history lets a store retain more"
        )
    raise CommandError(f"{database.path} has no revision {number}: it went over it; log lists those it has")


def _root_of_prefix(database: Database, revisions: Sequence[Revision], digits: str) -> bytes:
    found = sorted({revision.root for revision in revisions if revision.root.hex().startswith(digits)})
    if not found:
        raise CommandError(
            f"{database.path} retains no root that begins with {digits}: log lists those it has"
        )
    if len(found) > 1:
        raise CommandError(
            f"{len(found)} roots that {database.path} retains begin with {digits}, {found[0].hex()} "
            "among them: give more digits"
        )
    return found[0]
