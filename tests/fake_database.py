"""A database for tests of the server: a dict with proofs that show nothing but what was asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import msgpack
import trio

from merkledb import InvalidRange, LimitTooSmall, Scheme

Result = TypeVar("Result")


@dataclass(frozen=True)
class FakeProof:
    """Keys and values, and nothing that proves them."""

    keys: list[bytes]
    values: list[bytes]

    def encode(self) -> bytes:
        return msgpack.packb([self.keys, self.values])

    @classmethod
    def decode(cls, data: bytes) -> "FakeProof":
        return cls(*msgpack.unpackb(data))


@dataclass
class FakeSnapshot:
    """One state of a fake database."""

    content: dict[bytes, bytes]
    root: bytes
    revision: int
    failure: Exception | None

    def __len__(self) -> int:
        return len(self.content)

    def prove_range(
        self, start: bytes | None = None, end: bytes | None = None, *, max_keys: int = 1, max_bytes: int = 1
    ) -> FakeProof:
        if self.failure is not None:
            raise self.failure
        if start is not None and end is not None and start > end:
            raise InvalidRange(start, end)
        proof = FakeProof([], [])
        for key in sorted(self.content):
            if len(proof.keys) < max_keys and key >= (start or b"") and (end is None or key <= end):
                longer = FakeProof([*proof.keys, key], [*proof.values, self.content[key]])
                if len(longer.encode()) > max_bytes:
                    if not proof.keys:
                        raise LimitTooSmall(max_bytes, len(longer.encode()))
                    break
                proof = longer
        return proof


@dataclass
class FakeDatabase:
    """A dict that has a root and a revision, and fails to prove or to be read when a test wants that."""

    content: dict[bytes, bytes] = field(default_factory=dict)
    scheme: Scheme = Scheme()  # noqa: RUF009 - immutable
    revision: int = 1
    failure: Exception | None = None
    unreadable: Exception | None = None
    snapshots: int = 0

    @property
    def root(self) -> bytes:
        return sha256(msgpack.packb(sorted(self.content.items()))).digest()

    @contextmanager
    def snapshot(self) -> Iterator[FakeSnapshot]:
        if self.unreadable is not None:
            raise self.unreadable
        self.snapshots += 1
        yield FakeSnapshot(dict(self.content), self.root, self.revision, self.failure)


class VirtualWorkers:
    """Workers that take their time on the virtual clock, a limited number at a time.

    Args:
        seconds: That each piece of work takes.
        count: Of pieces at a time.
    """

    def __init__(self, seconds: float = 0, count: int = 1) -> None:
        self.seconds = seconds
        self._limiter = trio.CapacityLimiter(count)

    async def run(self, work: Callable[[], Result]) -> Result:
        async with self._limiter:
            if self.seconds:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.seconds)
            return work()
