"""Pairs written as a folder tree: the other direction of ``tree_reader``, with keys that are not trusted.

Another person may have written the store, so each key is a path that may try to lead elsewhere.
``require_names`` refuses, before anything is written, every key that is not a plain relative path below the
target, here or where a backslash separates names; ``write_tree`` then opens each folder and file relative to
its parent's open descriptor, creates it new, and follows no link.

Invariants: nothing outside the target is created, opened or changed, whatever the keys are and whatever other
programs do in the target meanwhile; a file that exists is never written to.  Both functions take pairs or
keys in ascending order, and then visit each folder once.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from merklesync.errors import FileError
from merklesync.files.paths import is_there
from merklesync.files.sorted_pairs import Pair
from merklesync.text import quote_bytes

# Enough names to see the pattern; the count tells the rest.
MAX_LISTED_NAMES: Final = 3
# What every file system in use allows at least; asked for where the file system can tell.
DEFAULT_MAX_NAME_BYTES: Final = 255
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

InvalidName = tuple[bytes, str]
"""A key, and why no file can have it as its path."""


class TreeError(FileError):
    """A folder tree cannot be written; the sentence says why and what to do."""


class InvalidNames(TreeError):
    """Keys that are no path below the target; nothing was written.

    Attributes:
        names: The first few keys, with the reason.
        count: How many keys there are in all.
    """

    def __init__(self, names: list[InvalidName], count: int) -> None:
        named = ", ".join(f"{quote_bytes(key)} {reason}" for key, reason in names)
        more = f" and {count - len(names)} more" if count > len(names) else ""
        super().__init__(
            f"cannot be written as files below the target: {named}{more}; "
            "nothing was written, export to JSON Lines instead"
        )
        self.names = names
        self.count = count


class TargetNotEmpty(TreeError):
    """The target holds something already; nothing was written."""

    def __init__(self, target: Path) -> None:
        super().__init__(f"{target} is not empty: name a new or an empty folder")


class WriteFailed(TreeError):
    """A file could not be written; what was written before it stands.

    Attributes:
        key: The pair that failed.
    """

    def __init__(self, target: Path, key: bytes, cause: OSError) -> None:
        super().__init__(
            f"writing {quote_bytes(key)} failed: {cause.strerror}; "
            f"{target} holds a part: remove it and export again"
        )
        self.key = key


def name_error(key: bytes, *, max_name_bytes: int = DEFAULT_MAX_NAME_BYTES) -> str | None:
    """Return why ``key`` alone is not a path below a target, or None when it is one."""
    names = key.split(b"/")
    reasons = {
        "is empty": not key,
        "holds a NUL byte": b"\0" in key,
        "is absolute": key.startswith((b"/", b"\\")),
        "begins with a drive": key[:1].isalpha() and key[1:2] == b":",
        # A backslash is a letter here, but the tree may be copied to where it separates names.
        "climbs with ..": b".." in key and b".." in key.replace(b"\\", b"/").split(b"/"),
        "has an empty name beside a slash": b"" in names,
        "has . as a name": b"." in names,
        f"has a name of more than {max_name_bytes} bytes": len(max(names, key=len)) > max_name_bytes,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def find_name_errors(
    keys: Iterable[bytes], *, max_name_bytes: int = DEFAULT_MAX_NAME_BYTES
) -> Iterator[InvalidName]:
    """Yield every key that cannot be a file in one tree with all the others.

    Args:
        keys: In ascending order.
        max_name_bytes: The longest name between two slashes.
    """
    # Earlier keys that this key begins with, shortest first. What does not begin this key begins
    # none after it.
    prefixes: list[bytes] = []
    for key in keys:
        reason = name_error(key, max_name_bytes=max_name_bytes)
        while prefixes and not key.startswith(prefixes[-1]):
            prefixes.pop()
        file = next((prefix for prefix in prefixes if key.startswith(prefix + b"/")), None)
        if reason is None and file is not None:
            reason = f"needs {quote_bytes(file)} to be a file and a folder"
        if reason is not None:
            yield key, reason
        prefixes.append(key)


def require_names(target: Path, keys: Iterable[bytes]) -> None:
    """Check that ``write_tree`` can write ``keys``, given in ascending order, without writing anything.

    Raises:
        InvalidNames: Some cannot be written; all keys were looked at.
        TargetNotEmpty: The target holds something.
        OSError: The target cannot be a folder.
    """
    if is_there(target) and any(target.iterdir()):
        raise TargetNotEmpty(target)
    first: list[InvalidName] = []
    count = 0
    for invalid in find_name_errors(keys, max_name_bytes=_max_name_bytes(target)):
        count += 1
        if count <= MAX_LISTED_NAMES:
            first.append(invalid)
    if count:
        raise InvalidNames(first, count)


def _max_name_bytes(target: Path) -> int:
    try:
        folder = target if is_there(target) else target.absolute().parent
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return DEFAULT_MAX_NAME_BYTES


def write_tree(target: Path, pairs: Iterable[Pair]) -> None:
    """Write each pair as a file below ``target``, which is made when it is missing.

    Args:
        target: A new or an empty folder; its parent must exist.
        pairs: In ascending order, checked with ``require_names``.

    Raises:
        TargetNotEmpty: The target holds something.
        WriteFailed: The disk is full, another program writes below the target, or a key was not checked.
        OSError: The target cannot be made or opened.
    """
    if not is_there(target):
        target.mkdir()
    with ExitStack() as cleanup:
        descriptor = os.open(target, _OPEN_FOLDER)
        cleanup.callback(os.close, descriptor)
        with os.scandir(descriptor) as entries:
            if any(entries):
                raise TargetNotEmpty(target)
        folders = cleanup.enter_context(_OpenFolders(descriptor))
        for key, value in pairs:
            try:
                _write_file(folders, key, value)
            except OSError as error:
                raise WriteFailed(target, key, error) from error


def _write_file(folders: "_OpenFolders", key: bytes, value: bytes) -> None:
    if (reason := name_error(key)) is not None:
        raise OSError(0, f"its name {reason}")
    *folder_names, name = key.split(b"/")
    descriptor = os.open(name, _NEW_FILE, mode=0o666, dir_fd=folders.open_path(folder_names))
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)


class _OpenFolders:
    """The folders on the way to the file being written, each open; a key's length bounds their number."""

    def __init__(self, target_descriptor: int) -> None:
        self._target_descriptor = target_descriptor
        self._open: list[tuple[bytes, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_below(0)

    def open_path(self, names: list[bytes]) -> int:
        """Return the descriptor of the folder below the target that ``names`` lead to, making what is new."""
        shared = 0
        for (open_name, _), name in zip(self._open, names, strict=False):
            if open_name != name:
                break
            shared += 1
        self._close_below(shared)
        for name in names[shared:]:
            parent = self._descriptor()
            os.mkdir(name, dir_fd=parent)
            self._open.append((name, os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent)))
        return self._descriptor()

    def _descriptor(self) -> int:
        return self._open[-1][1] if self._open else self._target_descriptor

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])
