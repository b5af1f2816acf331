"""What is true: the content of every root that the writer ever made, and which of them is the newest.

The model is a plain dict for each root.  A store may show a root only with the content that stands here, and
may hold a pair only if some root has it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from merkledb import EMPTY_ROOT, Scheme, root_of

Contents = Mapping[bytes, bytes]
Changes = Mapping[bytes, bytes | None]


class Made(NamedTuple):
    """A commit of the writer.

    Attributes:
        number: Its revision.
        root: Its root.
    """

    number: int
    root: bytes


class Model:
    """All contents that there ever were.

    Args:
        scheme: Which makes roots of them.

    Attributes:
        made: Every commit, oldest first; the writer publishes them in this order.
        pairs: Every pair that was ever part of a content.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.made = [Made(0, EMPTY_ROOT)]
        self.pairs: set[tuple[bytes, bytes]] = set()
        self._contents: dict[bytes, Contents] = {EMPTY_ROOT: {}}

    @property
    def newest(self) -> Made:
        """The newest commit."""
        return self.made[-1]

    def contents_of(self, root: bytes) -> Contents | None:
        """Return the content of a root; None when there never was such a root."""
        return self._contents.get(root)

    def proposed(self, changes: Changes) -> bytes:
        """Note the content that the newest one becomes by changes, and return its root.

        It may become visible from now on, and counts as made when ``publish`` says so.
        """
        contents = changed(self._contents[self.newest.root], changes)
        root = root_of(contents, self.scheme)
        self._contents[root] = contents
        self.pairs.update(contents.items())
        return root

    def publish(self, made: Made) -> None:
        """Note a commit that is durable."""
        self.made.append(made)


def changed(contents: Contents, changes: Changes) -> dict[bytes, bytes]:
    """Return the contents with changes made to them."""
    after = dict(contents)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after
