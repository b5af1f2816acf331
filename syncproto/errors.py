"""Everything that can go wrong in ``syncproto``, as one tree.

::

    SyncProtocolError
    ├── LocalProtocolError        our own mistake: nothing was sent and the connection goes on
    │   ├── InvalidMessage        a field of a message that we made is out of its bounds
    │   ├── NotAllowedNow         the order of messages forbids this one in this state
    │   ├── RequestIdInUse        the request id still waits for its answer
    │   ├── NoSuchRequest         an answer or a cancel for a request that is not in flight
    │   ├── NoFreeRequest         the peer's limit of requests in flight is reached
    │   └── FrameTooLong          the frame is longer than the peer accepts
    └── RemoteProtocolError       the peer's misbehaviour: the connection is over
        ├── OversizedFrame        the peer announced a frame above the limit
        ├── MalformedFrame        the bytes of a frame are not what the protocol uses
        ├── UnknownKind           a message of a kind that this version does not have
        ├── InvalidField          a field has the wrong type or is out of its bounds
        ├── VersionMismatch       the peer speaks another version of the protocol
        ├── UnexpectedMessage     the order of messages forbids this one in this state
        ├── UnsolicitedAnswer     an answer to nothing that was asked
        ├── OversizedAnswer       a proof with more bytes than its request allowed
        ├── RepeatedRequestId     a request with the id of one that is still in flight
        ├── TooManyRequests       far more requests in flight than were announced
        ├── TooManyUnasked        far more heads and pings than a client needs
        └── TruncatedStream       the stream ended inside a frame, or before the peer's hello

An ``Error`` *message* is none of these: a peer that answers with a typed refusal behaves well.  Every class
carries its facts as fields and a sentence that says what to do next.
"""

import copyreg
from typing import Any, Final


class SyncProtocolError(Exception):
    """The root of every error that this package raises on purpose.

    It survives pickling, as it must to leave a process of a pool.  Python would call its class with the
    finished sentence, where most classes take facts.  The cause, which may be any object, becomes its text.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how the error is made again: its class, its arguments, its fields, and the cause's text."""
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = Exception(f"{type(self.__cause__).__name__}: {self.__cause__}")
        return copyreg.__newobj__, (type(self), *self.args), state  # type: ignore[attr-defined]


class LocalProtocolError(SyncProtocolError):
    """The caller asked for what the protocol forbids; nothing was sent and nothing changed."""


class InvalidMessage(LocalProtocolError):
    """A field of a message that we made is out of its bounds."""

    def __init__(self, message: str, field: str, detail: str) -> None:
        super().__init__(f"{message}.{field} cannot be sent: {detail}")
        self.message = message
        self.field = field
        self.detail = detail


class NotAllowedNow(LocalProtocolError):
    """The order of messages forbids this one in this state of the connection."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(f"a {message} cannot be sent now: {detail}")
        self.message = message
        self.detail = detail


class RequestIdInUse(LocalProtocolError):
    """The request id still waits for its answer."""

    def __init__(self, request_id: int) -> None:
        super().__init__(
            f"request id {request_id} is still in flight: take another, as next_request_id() does"
        )
        self.request_id = request_id


class NoSuchRequest(LocalProtocolError):
    """An answer or a cancel names a request that is not in flight."""

    def __init__(self, request_id: int) -> None:
        super().__init__(f"no request {request_id} is in flight: it was answered already, or never made")
        self.request_id = request_id


class NoFreeRequest(LocalProtocolError):
    """The peer's limit of requests in flight is reached; cancelled ones count until they are answered."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the peer accepts {limit} requests in flight: wait for an answer first")
        self.limit = limit


class FrameTooLong(LocalProtocolError):
    """The frame is longer than the peer accepts."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"a frame of {length} bytes is over the peer's limit of {limit}: send less at once")
        self.length = length
        self.limit = limit


class RemoteProtocolError(SyncProtocolError):
    """The peer broke a rule: close the connection, and trust nothing that was not answered before."""


# What a server of another kind says first, which would be the length of a frame here.
_OTHER_PROTOCOLS: Final = {
    b"HTTP": "a web server answers there (HTTP)",
    b"SSH-": "an SSH server answers there",
    # An alert, which is how TLS refuses what does not begin as it should.
    b"\x15\x03\x01\x00": "a server for TLS answers there",
    b"\x15\x03\x03\x00": "a server for TLS answers there",
}


class OversizedFrame(RemoteProtocolError):
    """The peer announced a frame above the limit; not a byte of it was buffered."""

    def __init__(self, length: int, limit: int) -> None:
        what = _OTHER_PROTOCOLS.get(length.to_bytes(8)[4:])
        if what is None:
            what = f"the peer announced a frame of {length} bytes where at most {limit} may come"
        super().__init__(f"{what}: check that the address is that of a merklesync server")
        self.length = length
        self.limit = limit


class MalformedFrame(RemoteProtocolError):
    """The bytes of a frame are not what the protocol uses."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the peer sent a malformed frame: {detail}; use another peer")
        self.detail = detail


class UnknownKind(RemoteProtocolError):
    """A message of a kind that this version of the protocol does not have."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"the peer sent a message of the unknown kind {kind}; use another peer")
        self.kind = kind


class InvalidField(RemoteProtocolError):
    """A field of the peer's message has the wrong type or is out of its bounds."""

    def __init__(self, message: str, field: str, detail: str) -> None:
        super().__init__(f"the peer sent a {message} whose {field} is wrong: {detail}; use another peer")
        self.message = message
        self.field = field
        self.detail = detail


class VersionMismatch(RemoteProtocolError):
    """The peer speaks another version of the protocol."""

    def __init__(self, ours: int, theirs: int) -> None:
        older = "peer" if theirs < ours else "local program"
        super().__init__(f"we speak protocol version {ours}, the peer version {theirs}: upgrade the {older}")
        self.ours = ours
        self.theirs = theirs


class UnexpectedMessage(RemoteProtocolError):
    """The order of messages forbids what the peer sent."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(f"the peer sent a {message} out of order: {detail}; use another peer")
        self.message = message
        self.detail = detail


class UnsolicitedAnswer(RemoteProtocolError):
    """The peer answered what was not asked, or answered twice."""

    def __init__(self, message: str, request_id: int) -> None:
        super().__init__(
            f"the peer sent a {message} for {request_id}, which is not in flight; use another peer"
        )
        self.message = message
        self.request_id = request_id


class OversizedAnswer(RemoteProtocolError):
    """The peer sent a proof with more bytes than its request allowed."""

    def __init__(self, request_id: int, length: int, limit: int) -> None:
        super().__init__(
            f"the peer answered request {request_id} with {length} bytes where it asked for at most {limit}; "
            "use another peer"
        )
        self.request_id = request_id
        self.length = length
        self.limit = limit


class RepeatedRequestId(RemoteProtocolError):
    """The peer made a request with the id of one that is still in flight."""

    def __init__(self, request_id: int) -> None:
        super().__init__(
            f"the peer used request id {request_id} again before it was answered: close the connection"
        )
        self.request_id = request_id


class TooManyRequests(RemoteProtocolError):
    """The peer has far more requests in flight than our hello announced."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the peer has more than {limit} requests in flight: close the connection")
        self.limit = limit


class TooManyUnasked(RemoteProtocolError):
    """The peer sends heads and pings without end, which no request asked for."""

    def __init__(self, per_second: int) -> None:
        super().__init__(
            f"the peer sent far more than {per_second} heads and pings a second: close the connection"
        )
        self.per_second = per_second


class TruncatedStream(RemoteProtocolError):
    """The stream ended inside a frame, or before the peer's hello."""

    def __init__(self, buffered_bytes: int) -> None:
        super().__init__(
            f"the stream ended after {buffered_bytes} bytes of an unfinished frame, or before the peer's "
            "hello: connect again"
        )
        self.buffered_bytes = buffered_bytes
