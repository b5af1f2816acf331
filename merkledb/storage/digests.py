"""Digests of large values that were read before, by the id of their leaf.

A leaf's id commits to its path and to the digest of its value, and its parent's record says the id.  So who
goes down to a leaf finds the digest here, whichever state the leaf belongs to, and nothing here is ever
outdated.  A value of 60 MB takes 50 ms and more to be read and hashed, which each request that ends beside it
would cost.
"""

from threading import Lock
from typing import Final

# Smaller values are read and hashed in less time than matters, and would drive out the others.
REMEMBERED_BYTES: Final = 16 << 10
# So many digests take about a megabyte of memory, and stand for 64 MB of values or more.
MAX_DIGESTS: Final = 4096


class Digests:
    """A bounded memory of digests; the oldest make room.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_id: dict[bytes, bytes] = {}

    def get(self, leaf_id: bytes | None) -> bytes | None:
        """Return the digest that a leaf's id commits to; None where it is not remembered."""
        return None if leaf_id is None else self._by_id.get(leaf_id)

    def put(self, leaf_id: bytes, digest: bytes) -> None:
        """Remember a digest that was derived from a value, as the leaf's id was from the digest."""
        with self._lock:
            while len(self._by_id) >= MAX_DIGESTS:
                del self._by_id[next(iter(self._by_id))]
            self._by_id[leaf_id] = digest
