"""The paths of the files of a tree as people have them, in ascending order and in little memory.

A folder's content follows from its path alone, so that only the folders on the way down to one file are in
memory.  A folder holds some files, and divides the rest at random among some folders; with a million files
the usual path has eight parts and ninety bytes.
"""

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final


def _words(text: str) -> list[str]:
    return text.split()


# Below so many files a folder has no folders.
_FEW_FILES: Final = 12
_MOST_FILES: Final = 24
_MOST_FOLDERS: Final = 12
# A folder below so many others holds all its files itself, so that no path is longer than a key may be.
_DEEPEST: Final = 9

_WORDS: Final = _words("""
    account archive article backup batch billing book branch build cache camera chapter client cloud
    common config contract core course daily data design device document draft engine export family
    figure filter final garden history holiday house image import index invoice kernel kitchen lecture
    letter library main manual map market meeting memory message model module month music network notes
    office order page parser patch payment photo picture plan project proof protocol query recipe record
    release report request research result review sample schedule script search server session sketch
    source storage summary system table target template test thesis ticket tools travel tutorial utility
    vector video week
""")
_ENDINGS: Final = _words(
    ".py .js .ts .rs .c .h .md .txt .json .yaml .html .css .png .jpg .pdf .csv .xml .docx"
)


def file_paths(count: int) -> Iterator[bytes]:
    """Yield the paths of ``count`` files, each of at most 252 bytes, strictly ascending."""
    return _files_below("", count, 0)


def _files_below(folder: str, count: int, depth: int) -> Iterator[bytes]:
    chances = Random(folder)
    for name, files in sorted(_content(chances, count, depth).items()):
        if files:
            yield from _files_below(folder + name, files, depth + 1)
        else:
            yield (folder + name).encode()


def _content(chances: Random, count: int, depth: int) -> dict[str, int]:
    """Return what a folder holds.

    Returns:
        How many files are below each name: none for a file.  The name of a folder ends with its slash, which
        is what it is sorted by.
    """
    few = count <= _FEW_FILES or depth == _DEEPEST
    here = count if few else min(count, chances.randint(0, _MOST_FILES))
    names: dict[str, int] = {}
    for share in _shares(chances, count - here):
        names[_new_name(chances, names, ["/"])] = share
    for _ in range(here):
        names[_new_name(chances, names, _ENDINGS)] = 0
    return names


def _shares(chances: Random, count: int) -> list[int]:
    """Divide ``count`` at random into some numbers, none of them zero."""
    cuts = sorted(chances.randint(0, count) for _ in range(chances.randint(1, _MOST_FOLDERS - 1)))
    return [high - low for low, high in pairwise([0, *cuts, count]) if high > low]


def _new_name(chances: Random, taken: dict[str, int], endings: list[str]) -> str:
    while True:
        name = chances.choice(_WORDS) + _second_part(chances) + chances.choice(endings)
        if name not in taken:
            return name


def _second_part(chances: Random) -> str:
    kind = chances.random()
    if kind < 1 / 3:
        return ""
    if kind < 2 / 3:
        return "-" + chances.choice(_WORDS)
    return f"_{chances.randrange(10_000):04}"
