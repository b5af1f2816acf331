"""Changes collected for one commit."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from merkledb.formats.scheme import require_bytes

if TYPE_CHECKING:
    from merkledb.database import Database


class Batch:
    """Changes collected for one commit at the end of the ``with`` block; forgotten on an exception.

    Attributes:
        root: The new root, once committed.
    """

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._changes: dict[bytes, bytes | None] = {}
        self.root: bytes | None = None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        require_bytes("a key", key)
        require_bytes("a value", value)
        self._changes[key] = value

    def __delitem__(self, key: bytes) -> None:
        require_bytes("a key", key)
        self._changes[key] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.root = self._database.commit(self._changes)
