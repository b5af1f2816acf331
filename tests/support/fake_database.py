"""A database for tests of the server: dicts with proofs that show nothing but what was asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import msgpack
import trio

from merkledb import (
    Database,
    HistoryGone,
    InvalidRange,
    LimitTooSmall,
    NoCompleteRoot,
    Revision,
    Scheme,
    UnknownRoot,
)
from server import ThreadExecutor

Result = TypeVar("Result")
Content = dict[bytes, bytes]


@dataclass(frozen=True)
class FakeProof:
    """Keys and values, None where a key was deleted, and nothing that proves them."""

    keys: Sequence[bytes]
    values: Sequence[bytes | None]

    def encode(self) -> bytes:
        return msgpack.packb([self.keys, self.values])

    @classmethod
    def decode(cls, data: bytes) -> "FakeProof":
        return cls(*msgpack.unpackb(data))

    @classmethod
    def of(
        cls,
        values: Mapping[bytes, bytes | None],
        start: bytes | None,
        end: bytes | None,
        max_keys: int,
        max_bytes: int,
    ) -> "FakeProof":
        """Return the proof of a range, cut off at its limits."""
        if start is not None and end is not None and start > end:
            raise InvalidRange(start, end)
        proof = FakeProof([], [])
        for key in sorted(values):
            if len(proof.keys) < max_keys and key >= (start or b"") and (end is None or key <= end):
                longer = FakeProof([*proof.keys, key], [*proof.values, values[key]])
                if len(longer.encode()) > max_bytes:
                    if not proof.keys:
                        raise LimitTooSmall(max_bytes, len(longer.encode()))
                    break
                proof = longer
        return proof


@dataclass
class FakeSnapshot:
    """One state of a fake database."""

    content: Content
    failure: Exception | None
    # So the server does not verify its proofs.
    is_tip: bool = True

    def prove_range(
        self, start: bytes | None = None, end: bytes | None = None, *, max_keys: int = 1, max_bytes: int = 1
    ) -> FakeProof:
        if self.failure is not None:
            raise self.failure
        return FakeProof.of(self.content, start, end, max_keys, max_bytes)


def root_of(content: Content) -> bytes:
    return sha256(msgpack.packb(sorted(content.items()))).digest()


@dataclass
class FakeDatabase(Database):
    """What a server uses of a database, without a store.

    Dicts that have roots and revisions, and fail to prove or to be read when a test wants that.

    Attributes:
        content: At the head; a test may change it without a trace, or leave its past with ``commit``.
        scheme: For the hello.
        revision: Of the head.
        complete: Whether a first sync has ended.
        failure: Raised by every proof.
        unreadable: Raised by every read of the head, and by every proof.
        snapshots: How many proofs were asked for.
        looks: How many times the head was read.
    """

    content: Content = field(default_factory=dict)
    scheme: Scheme = Scheme()  # noqa: RUF009 - immutable
    revision: int = 1
    complete: bool = True
    failure: Exception | None = None
    unreadable: Exception | None = None
    snapshots: int = 0
    looks: int = 0
    _retained: dict[bytes, Content] = field(default_factory=dict)
    _gone: set[bytes] = field(default_factory=set)

    @property
    def root(self) -> bytes:
        return root_of(self.content)

    @property
    def head(self) -> Revision | None:
        self.looks += 1
        if self.unreadable is not None:
            raise self.unreadable
        return Revision(self.revision, self.root, keys=len(self.content)) if self.complete else None

    def commit(self, changes: Mapping[bytes, bytes | None], *, keep_history: bool = True) -> bytes:
        """Make a new head, retain the old one, and return the new root."""
        self._retained[self.root] = self.content
        merged = {**self.content, **changes}
        self.content = {key: value for key, value in merged.items() if value is not None}
        self.revision += 1
        return self.root

    def prune(self) -> None:
        """Retain nothing but the head."""
        self._gone |= self._retained.keys()
        self._retained = {}

    def _content_at(self, root: bytes) -> Content:
        if self.unreadable is not None:
            raise self.unreadable
        if not self.complete:
            raise NoCompleteRoot("/secret/path")
        content = {**self._retained, self.root: self.content}.get(root)
        if content is None:
            raise HistoryGone(root) if root in self._gone else UnknownRoot(root)
        return dict(content)

    @contextmanager
    def at(self, root: bytes) -> Iterator[FakeSnapshot]:  # type: ignore[override]  # a fake one
        self.snapshots += 1
        yield FakeSnapshot(self._content_at(root), self.failure)

    def prove_changes(  # type: ignore[override]  # its proof is a fake too
        self,
        old: bytes,
        new: bytes,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        max_keys: int = 1,
        max_bytes: int = 1,
    ) -> FakeProof:
        self.snapshots += 1
        before, after = self._content_at(old), self._content_at(new)
        if self.failure is not None:
            raise self.failure
        keys = before.keys() | after.keys()
        changes = {key: after.get(key) for key in keys if before.get(key) != after.get(key)}
        return FakeProof.of(changes, start, end, max_keys, max_bytes)


class VirtualWorkers(ThreadExecutor):
    """Workers that take their time on the virtual clock, a limited number at a time.

    Args:
        seconds: That each piece of work takes.
        count: Of pieces at a time.
    """

    def __init__(self, seconds: float = 0, count: int = 1) -> None:
        super().__init__(count)
        self.seconds = seconds

    async def run(self, work: Callable[[], Result]) -> Result:
        async with self._limiter:
            if self.seconds:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.seconds)
            return work()
