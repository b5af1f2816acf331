"""One connection to one peer: several requests in flight on a trio stream, matched to their answers.

The rules of the conversation are ``syncproto.Connection``'s; this module moves the bytes, keeps the time, and turns
whatever goes wrong into a ``PeerError``.  It knows nothing of proofs: they are bytes here.

Invariants:

- One task reads and one task writes, so no request that is cancelled can leave half a frame on the stream.
- A request that nobody waits for any more was cancelled with the peer; its late answer is dropped.
- After the first failure every request, waiting or new, raises that failure.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from manager.errors import (
    ConnectionLost,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    RequestTimeout,
    SchemeDiffers,
)
from merkledb import Scheme
from syncproto import (
    Cancel,
    Connection,
    Error,
    GetHead,
    GetRange,
    Goodbye,
    Head,
    Hello,
    Message,
    Ping,
    Pong,
    Range,
    RemoteProtocolError,
    Role,
    TruncatedStream,
)

# A proof comes in a few reads instead of some hundred; each wakes a task, and waits for the interpreter's lock.
RECEIVE_BYTES: Final = 256 * 1024
# Control frames that may wait to be sent: two for each request in flight, and pongs.  A peer that reads so slowly that
# more pile up is as good as gone.
OUTBOX_FRAMES: Final = 256
# Taking leave is a courtesy, not worth a wait that anybody notices.
GOODBYE_SECONDS: Final = 0.5


class _Pending:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Head | Range | Error | PeerError | None = None

    def resolve(self, answer: Head | Range | Error | PeerError) -> None:
        self.answer = answer
        self.answered.set()


class PeerClient:
    """The client's side of one connection; made by ``connect``.

    Args:
        stream: An open stream; ``connect`` closes it.
        hello: What we say first.
        scheme: The scheme that the peer must serve.
    """

    def __init__(self, stream: trio.abc.Stream, hello: Hello, scheme: Scheme) -> None:
        self._stream = stream
        self._scheme = scheme
        self._connection = Connection(Role.CLIENT, hello)
        self._pending: dict[int, _Pending] = {}
        self._outbox, self._frames = trio.open_memory_channel[bytes](OUTBOX_FRAMES)
        self._is_sending = False
        self._failure: PeerError | None = None
        self._greeted = trio.Event()
        # Set when the peer takes no more requests: it said goodbye, or the connection failed.
        self.closing = trio.Event()

    @property
    def peer_hello(self) -> Hello:
        """What the peer said first; there is one as soon as ``connect`` has yielded."""
        assert self._connection.peer is not None
        return self._connection.peer

    @property
    def requests_in_flight(self) -> int:
        """How many requests somebody waits for."""
        return len(self._pending)

    async def get_range(self, request: GetRange, timeout_seconds: float) -> bytes:
        """Ask for a range proof and return its bytes, not verified.

        Args:
            request: What to ask for; its request id is replaced by a free one.
            timeout_seconds: How long the answer may take.

        Raises:
            PeerError: ConnectionLost, RequestTimeout, PeerMisbehaved, or PeerRefused.
        """
        ...
