"""Servers that lie: an honest server behind a stream that changes what it is asked and what it says.

The server itself is the real one.  Between it and the network stands a ``LyingStream``, which reads every
frame of either side and may replace it: by a tampered proof, by another message, by junk, by nothing.  The
answer to a request for something else is a lie too, and a perfectly proved one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import trio

from merkledb import ChangeProof, RangeProof
from simulation.model import Model
from simulation.tampering import TAMPERINGS, Asked
from simulation.trace import Trace
from syncproto import (
    MAX_PAIRS,
    MAX_RETRY_AFTER_MILLISECONDS,
    Changes,
    Error,
    ErrorCode,
    GetChanges,
    GetRange,
    Goodbye,
    Head,
    Hello,
    Message,
    Pong,
    Range,
    RemoteProtocolError,
    decode,
    encode,
)

_LENGTH_BYTES: Final = 4
Proving = GetRange | GetChanges
# What becomes of a frame: the frames to send in its place.
Told = list[bytes]
# What a slow liar sends at a time, and how long it waits then.
_TRICKLE_BYTES: Final = 20
_TRICKLE_SECONDS: Final = 3.0


# How long after the request an answer comes just before a peer would be left waiting for it no more.
_LATE_SECONDS: Final = 1.9


class Trickle(bytes):
    """A frame that is sent slowly."""

    __slots__ = ()


class Late(bytes):
    """A frame that is sent so long after its request."""

    __slots__ = ()


@dataclass
class Liar:
    """What one dishonest server does.

    Attributes:
        name: For the log.
        model: The truth.
        random: Where chances come from.
        repertoire: The names of the lies that it tells.
        share: The share of its frames that it lies about, 0 to 1.
        trace: Where lies are noted.
        is_believed: Whether anybody believes its heads.
    """

    name: str
    model: Model
    random: Random
    repertoire: tuple[str, ...]
    share: float
    trace: Trace
    is_believed: bool = False

    def lie(self, lies: "dict[str, Callable[..., Told | None]]", *facts: object) -> Told | None:
        """Return what a lie makes of a frame; None where it tells the truth."""
        names = [name for name in self.repertoire if name in lies]
        if not names or self.random.random() >= self.share:
            return None
        name = self.random.choice(names)
        told = lies[name](self, *facts)
        if told is not None:
            self.trace.note(f"lie: {name}", self.name)
        return told

    def other_root(self, root: bytes) -> bytes:
        """Return the root of another commit, or one that never was."""
        others = [made.root for made in self.model.made[-6:] if made.root != root]
        return self.random.choice([*others, self.random.randbytes(32)])


# Lies about an answer to a request that asks for a proof.


def _proof_lie(name: str) -> Callable[[Liar, Message, Proving], Told | None]:
    """Return the lie that tampers with a proof."""

    def tampered(liar: Liar, message: Message, request: Proving) -> Told | None:
        root = request.root if isinstance(request, GetRange) else request.new_root
        contents = liar.model.contents_of(root)
        if contents is None or not isinstance(message, Range | Changes):
            return None
        kind = RangeProof if isinstance(message, Range) else ChangeProof
        asked = Asked(contents, request.start, request.end, liar.model.scheme, liar.random)
        proof = TAMPERINGS[name](kind.decode(message.proof), asked)
        return None if proof is None else [_with(message, proof=proof.encode())]

    return tampered


def _framed(message: Message) -> bytes:
    return encode(message).data


def _with(message: Message, **fields: Any) -> bytes:
    """Return the frame of a message with other fields."""
    return encode(replace(message, **fields)).data


def _junk(liar: Liar, message: Message, request: Proving) -> Told:
    del message, request
    return [b"HTTP/1.1 400 Bad Request\r\n\r\n" if liar.random.random() < 0.5 else liar.random.randbytes(40)]


def _junk_proof(liar: Liar, message: Message, request: Proving) -> Told | None:
    del request
    if not isinstance(message, Range | Changes):
        return None
    return [_with(message, proof=liar.random.randbytes(liar.random.randrange(1, 60)))]


def _silence(liar: Liar, message: Message, request: Proving) -> Told:
    del liar, message, request
    return []


def _twice(liar: Liar, message: Message, request: Proving) -> Told:
    del liar, request
    return [_framed(message), _framed(message)]


def _trickle(liar: Liar, message: Message, request: Proving) -> Told:
    """Send the truth, a few bytes a second."""
    del liar, request
    return [Trickle(_framed(message))]


def _late(liar: Liar, message: Message, request: Proving) -> Told:
    """Send the truth, just in time."""
    del liar, request
    return [Late(_framed(message))]


def _half(liar: Liar, message: Message, request: Proving) -> Told:
    """Send the beginning of a frame, and what follows in its place."""
    del request
    frame = _framed(message)
    return [frame[: liar.random.randrange(1, len(frame))]]


def _wrong_kind(liar: Liar, message: Message, request: Proving) -> Told:
    """Answer what was not asked."""
    proof = message.proof if isinstance(message, Range | Changes) else b"\x90"
    head = Head(request.request_id, liar.model.newest.root, liar.model.newest.number, 0)
    others: list[Message] = [
        head,
        Pong(request.request_id),
        Range(request.request_id, proof),
        Changes(request.request_id, proof),
    ]
    return [_framed(liar.random.choice(others))]


def _wrong_id(liar: Liar, message: Message, request: Proving) -> Told:
    """Answer a request that nobody made."""
    return [_with(message, request_id=request.request_id + liar.random.randrange(1, 100))]


def _huge_frame(liar: Liar, message: Message, request: Proving) -> Told:
    """Announce a frame of two gigabytes."""
    del liar, request
    return [b"\x7f\xff\xff\xff" + _framed(message)[_LENGTH_BYTES:]]


def _refusal(*codes: ErrorCode) -> Callable[[Liar, Message, Proving], Told]:
    """Return the lie that refuses for no reason."""

    def refused(liar: Liar, message: Message, request: Proving) -> Told:
        del message
        code = liar.random.choice(codes)
        details = {
            ErrorCode.LIMIT_TOO_SMALL: [1, 5000, 100_000, 2**31],
            ErrorCode.OVERLOADED: [1, 5000, MAX_RETRY_AFTER_MILLISECONDS],
        }
        detail = liar.random.choice(details[code]) if code in details else None
        return [_framed(Error(request.request_id, code, "no", detail))]

    return refused


def _goodbye(liar: Liar, message: Message, request: Proving) -> Told:
    """Say goodbye, and answer nothing."""
    del liar, message
    return [_framed(Goodbye()), _framed(Error(request.request_id, ErrorCode.SHUTTING_DOWN, "leaving"))]


def _last_word(liar: Liar, message: Message, request: Proving) -> Told:
    """End the connection with an error."""
    del message, request
    code = liar.random.choice([ErrorCode.INTERNAL, ErrorCode.OVERLOADED, ErrorCode.SHUTTING_DOWN])
    return [_framed(Error(0, code, "away with you", 1000 if code is ErrorCode.OVERLOADED else None))]


ANSWERS: Final[dict[str, Callable[..., Told | None]]] = {
    **{name: _proof_lie(name) for name in TAMPERINGS},
    "junk": _junk,
    "a junk proof": _junk_proof,
    "silence": _silence,
    "the answer twice": _twice,
    "a trickle": _trickle,
    "an answer just in time": _late,
    "half a frame": _half,
    "the wrong kind": _wrong_kind,
    "the wrong request": _wrong_id,
    "a huge frame": _huge_frame,
    "the root is unknown": _refusal(ErrorCode.UNKNOWN_ROOT),
    "the history is gone": _refusal(ErrorCode.HISTORY_GONE),
    "a huge claim": _refusal(ErrorCode.LIMIT_TOO_SMALL),
    "overload": _refusal(ErrorCode.OVERLOADED),
    "a false error": _refusal(ErrorCode.INTERNAL, ErrorCode.BAD_REQUEST, ErrorCode.CANCELLED),
    "goodbye": _goodbye,
    "the last word": _last_word,
}

# Lies about who it is and what it has.


def _false_root(liar: Liar, message: Hello | Head) -> Told:
    return [_with(message, root=liar.other_root(message.root or b""))]


def _false_revision(liar: Liar, message: Hello | Head) -> Told:
    # Whoever believes the highest number there can be has no number left for whatever comes next.
    highest = 2**40 if liar.is_believed else 2**63 - 1
    return [_with(message, revision=liar.random.choice([0, 1, 10**6, highest]))]


def _unheard_of(liar: Liar, message: Hello | Head) -> Told:
    """Announce a head that nobody has, and another one each time."""
    revision = liar.random.choice([liar.model.newest.number + 1, 10**6, 2**40])
    return [_with(message, root=liar.random.randbytes(32), revision=revision + liar.random.randrange(100))]


def _false_keys(liar: Liar, message: Hello | Head) -> Told:
    return [_with(message, keys=liar.random.choice([0, 1, 10**9, MAX_PAIRS]))]


def _false_limits(liar: Liar, message: Hello | Head) -> Told | None:
    if not isinstance(message, Hello):
        return None
    changes = liar.random.choice(
        [
            {"max_requests": 0},
            {"max_requests": 65_535},
            {"max_bytes": 1},
            {"max_keys": 1},
            {"max_bytes": 2**31, "max_keys": 2**32 - 1},
        ]
    )
    return [_with(message, **changes)]


def _false_scheme(liar: Liar, message: Hello | Head) -> Told | None:
    if not isinstance(message, Hello):
        return None
    changes: dict[str, Any] = liar.random.choice(
        [{"hasher": "md5"}, {"branch_factor": 3}, {"hasher": "blake2b"}]
    )
    return [_with(message, **changes)]


# Heads that can be proven, and are not the newest: whoever believes them may end there.
FALSE_HEADS: Final = ("a false root", "a false revision")
INTRODUCTIONS: Final[dict[str, Callable[..., Told | None]]] = {
    "a false root": _false_root,
    "a false revision": _false_revision,
    "an unheard-of head": _unheard_of,
    "a false number of keys": _false_keys,
    "false limits": _false_limits,
    "a false scheme": _false_scheme,
}

# Lies that begin with hearing something else than was asked.


def _hears_other_root(liar: Liar, request: Proving) -> Told:
    """Prove the content of another root."""
    if isinstance(request, GetChanges):
        return [_with(request, new_root=liar.other_root(request.new_root))]
    return [_with(request, root=liar.other_root(request.root))]


def _hears_other_past(liar: Liar, request: Proving) -> Told | None:
    """Prove the changes since another root."""
    if not isinstance(request, GetChanges):
        return None
    return [_with(request, old_root=liar.other_root(request.old_root))]


def _hears_other_range(liar: Liar, request: Proving) -> Told | None:
    """Prove another range."""
    start = (request.start or b"") + liar.random.randbytes(1)
    if request.end is None or start <= request.end:
        return [_with(request, start=start)]
    return [_with(request, end=request.end + b"\x00")]


def _hears_no_changes(liar: Liar, request: Proving) -> Told | None:
    """Prove the whole range instead of its changes, which is nothing but a waste."""
    del liar
    if not isinstance(request, GetChanges):
        return None
    limits = (request.start, request.end, request.max_keys, request.max_bytes)
    return [_framed(GetRange(request.request_id, request.new_root, *limits))]


def _hears_small_limits(liar: Liar, request: Proving) -> Told:
    """Prove much less than is wanted, which is allowed."""
    del liar
    return [_with(request, max_keys=max(1, request.max_keys // 4))]


def _hears_a_good_quarter(liar: Liar, request: Proving) -> Told:
    """Prove just as much as counts for a full answer."""
    del liar
    return [_with(request, max_keys=request.max_keys // 4 + 1)]


def _hears_one_pair(liar: Liar, request: Proving) -> Told:
    """Prove one pair or change at a time, which is true."""
    del liar
    return [_with(request, max_keys=1)]


def _hears_nothing_but_the_start(liar: Liar, request: Proving) -> Told:
    """Prove what changes up to the first possible key, or one pair, which is true and goes on for ever."""
    if isinstance(request, GetRange):
        return _hears_one_pair(liar, request)
    return [_with(request, end=request.start or b"")]


REQUESTS: Final[dict[str, Callable[..., Told | None]]] = {
    "another root": _hears_other_root,
    "changes since another root": _hears_other_past,
    "another range": _hears_other_range,
    "a range instead of changes": _hears_no_changes,
    "less than was asked for": _hears_small_limits,
    "a good quarter": _hears_a_good_quarter,
    "a single pair": _hears_one_pair,
    "nothing but the start": _hears_nothing_but_the_start,
}
# Lies that only a look at the proof finds out.
# What is true, and next to no progress.
DRIPS: Final = ("a single pair", "nothing but the start", "changes that change nothing")
# What is true, and as little and as late as is not found to be too little or too late by itself.
DAWDLES: Final = ("a good quarter", "an answer just in time")
FORGERIES: Final = (*TAMPERINGS, *REQUESTS)
ALL: Final = (*ANSWERS, *INTRODUCTIONS, *REQUESTS)


class LyingStream(trio.abc.HalfCloseableStream):
    """What stands between an honest server and the network.

    Args:
        stream: To the client.
        liar: Who decides what is said.
        client: The node that connected.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream, liar: Liar, client: str) -> None:
        self.client = client
        self._stream = stream
        self._liar = liar
        self._heard = bytearray()
        self._requests: dict[int, Proving] = {}
        self._heard_at: dict[int, float] = {}

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a frame of the server's, or what is said in its place."""
        for frame in self._say(bytes(data)):
            await self._send_one(frame)

    async def _send_one(self, frame: bytes) -> None:
        if isinstance(frame, Late):
            answer = decode(memoryview(frame)[_LENGTH_BYTES:])
            heard_at = self._heard_at.pop(getattr(answer, "request_id", 0), 0.0)
            await trio.sleep_until(heard_at + _LATE_SECONDS)
        if not isinstance(frame, Trickle):
            await self._stream.send_all(frame)
            return
        for at in range(0, len(frame), _TRICKLE_BYTES):
            await self._stream.send_all(frame[at : at + _TRICKLE_BYTES])
            await trio.sleep(_TRICKLE_SECONDS)

    def _say(self, data: bytes) -> Told:
        message = decode(memoryview(data)[_LENGTH_BYTES:])
        told = None
        if isinstance(message, Hello | Head):
            told = self._liar.lie(INTRODUCTIONS, message)
        elif isinstance(message, Range | Changes | Error) and message.request_id in self._requests:
            told = self._liar.lie(ANSWERS, message, self._requests.pop(message.request_id))
        return [data] if told is None else told

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what the client said, or what the server shall hear in its place."""
        while data := await self._stream.receive_some(max_bytes):
            self._heard += data
            if heard := b"".join(self._hear()):
                return heard
        rest = bytes(self._heard)
        self._heard.clear()
        return rest

    def _hear(self) -> Iterator[bytes]:
        """Yield the frames that are complete, or what replaces them."""
        while len(self._heard) >= _LENGTH_BYTES:
            length = int.from_bytes(self._heard[:_LENGTH_BYTES])
            frame = bytes(self._heard[: _LENGTH_BYTES + length])
            # A length that a network corrupted is the server's to refuse.
            if len(frame) < _LENGTH_BYTES + length and length < 65_536:
                return
            del self._heard[: len(frame)]
            yield from self._instead_of(frame)

    def _instead_of(self, frame: bytes) -> Told:
        try:
            message = decode(memoryview(frame)[_LENGTH_BYTES:])
        except RemoteProtocolError:
            return [frame]
        if not isinstance(message, GetRange | GetChanges):
            return [frame]
        self._requests[message.request_id] = message
        self._heard_at[message.request_id] = trio.current_time()
        told = self._liar.lie(REQUESTS, message)
        return [frame] if told is None else told

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that no more bytes follow."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close this side."""
        await self._stream.aclose()
