"""Paths as a person names them, and whether something is at one: a failed look is not an absence."""

import os
from pathlib import Path
from typing import Any

import click


def is_there(path: Path) -> bool:
    """Return whether something is at ``path``; a link counts as what it leads to.

    Raises:
        OSError: That cannot be told, for a folder on the way cannot be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class PathType(click.Path):
    """A path, which need not be UTF-8."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it as a ``Path``.

        Raises:
            BadParameter: No file can have it as its path; the empty one would be the present folder.
        """
        try:
            encoded = os.fsencode(value)
        except UnicodeEncodeError as error:
            raise click.BadParameter("a path holds no half of a surrogate pair: give another") from error
        if not encoded or b"\0" in encoded:
            raise click.BadParameter(
                "a path is not empty and holds no NUL byte: give another, or . for this folder"
            )
        return super().convert(value, param, ctx)
