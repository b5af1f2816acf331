"""Messages to frames and back: one table of what each kind holds, checked in both directions.

A frame is a 4-byte big-endian length and one array ``[kind, request id, fields...]``.  Order and number of
the fields are exact: what a version of the protocol does not know it rejects, and a new field is a new
version.  The first three elements of a hello mean the same in every version, so that two versions can tell
each other apart.

Invariant: ``decode(encode(message))`` is the message, and ``encode`` makes nothing that ``decode`` rejects.
"""

from struct import Struct
from typing import Any, Final, NamedTuple

from syncproto import fields, messages
from syncproto.errors import InvalidField, InvalidMessage, MalformedFrame, UnknownKind, VersionMismatch
from syncproto.fields import Field, FieldError, Value
from syncproto.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Changes,
    Error,
    ErrorCode,
    GetChanges,
    GetHead,
    GetRange,
    Goodbye,
    Head,
    Hello,
    Kind,
    Message,
    Ping,
    Pong,
    Range,
    Subscribe,
)

LENGTH: Final = Struct(">I")

_REQUEST_ID: Final = fields.unsigned("request_id", low=1, high=messages.MAX_REQUEST_ID)
_REQUEST_ID_OR_NONE: Final = fields.unsigned("request_id", high=messages.MAX_REQUEST_ID)
_NO_REQUEST_ID: Final = fields.unsigned("request_id", high=0)
_START: Final = fields.binary("start", high=messages.MAX_BOUND_BYTES, optional=True)
_END: Final = fields.binary("end", high=messages.MAX_BOUND_BYTES, optional=True)
_PROOF: Final = fields.binary("proof", low=1, high=messages.MAX_PROOF_BYTES)
_REVISION: Final = fields.unsigned("revision", high=messages.MAX_REVISION)
_KEYS: Final = fields.unsigned("keys", high=messages.MAX_PAIRS)
_MAX_COUNT: Final = 2**32 - 1
_MAX_KEYS: Final = fields.unsigned("max_keys", low=1, high=_MAX_COUNT)
_MAX_BYTES: Final = fields.unsigned("max_bytes", low=1, high=messages.MAX_PROOF_BYTES)


class Layout(NamedTuple):
    """What a kind of message holds.

    Attributes:
        kind: The first element.
        message: The class, whose attributes are named as the fields are.
        request_id: The second element.
        fields: The others, in order.
    """

    kind: Kind
    message: type[Message]
    request_id: Field
    fields: tuple[Field, ...] = ()

    @property
    def name(self) -> str:
        """The message's name, for errors."""
        return self.message.__name__


def _root(name: str, *, optional: bool = False) -> Field:
    return fields.binary(name, low=messages.ROOT_BYTES, high=messages.ROOT_BYTES, optional=optional)


_HEAD: Final = (_root("root", optional=True), _REVISION, _KEYS)


def _check_code(value: Value) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value not in ErrorCode.__members__.values():
        raise FieldError(f"{value!r:.40} is not a code of the closed list")


def _check_detail(value: Value) -> None:
    if value is not None:
        fields.unsigned("detail", low=1, high=_MAX_COUNT).check(value)


_HELLO: Final = Layout(
    Kind.HELLO,
    Hello,
    _NO_REQUEST_ID,
    (
        fields.unsigned("version", high=_MAX_COUNT),
        fields.text("hasher", low=1, high=16),
        fields.unsigned("branch_factor", low=2, high=65_536),
        *_HEAD,
        fields.unsigned("max_frame_bytes", low=messages.MAX_CONTROL_BYTES, high=messages.MAX_FRAME_BYTES),
        fields.unsigned("max_keys", high=_MAX_COUNT),
        fields.unsigned("max_bytes", high=messages.MAX_PROOF_BYTES),
        fields.unsigned("max_requests", high=65_535),
        fields.text("user_agent", high=messages.MAX_USER_AGENT_BYTES),
    ),
)

LAYOUTS: Final[tuple[Layout, ...]] = (
    _HELLO,
    Layout(Kind.GOODBYE, Goodbye, _NO_REQUEST_ID),
    Layout(Kind.PING, Ping, _REQUEST_ID),
    Layout(Kind.PONG, Pong, _REQUEST_ID),
    Layout(
        Kind.ERROR,
        Error,
        _REQUEST_ID_OR_NONE,
        (
            Field("code", _check_code),
            fields.text("message", high=messages.MAX_TEXT_BYTES),
            Field("detail", _check_detail),
        ),
    ),
    Layout(Kind.CANCEL, Cancel, _REQUEST_ID),
    Layout(Kind.GET_HEAD, GetHead, _REQUEST_ID),
    Layout(Kind.HEAD, Head, _REQUEST_ID, _HEAD),
    Layout(Kind.GET_RANGE, GetRange, _REQUEST_ID, (_root("root"), _START, _END, _MAX_KEYS, _MAX_BYTES)),
    Layout(Kind.RANGE, Range, _REQUEST_ID, (_PROOF,)),
    Layout(
        Kind.GET_CHANGES,
        GetChanges,
        _REQUEST_ID,
        (_root("old_root"), _root("new_root"), _START, _END, _MAX_KEYS, _MAX_BYTES),
    ),
    Layout(Kind.CHANGES, Changes, _REQUEST_ID, (_PROOF,)),
    Layout(Kind.SUBSCRIBE, Subscribe, _REQUEST_ID),
)
_BY_KIND: Final = {int(layout.kind): layout for layout in LAYOUTS}
_BY_MESSAGE: Final = {layout.message: layout for layout in LAYOUTS}


def kind_of(message: Message) -> Kind:
    """Return the kind of a message."""
    return _BY_MESSAGE[type(message)].kind


class Frame(NamedTuple):
    """A message in the bytes that travel, and what a connection must know of it.

    Attributes:
        name: Of the message, for errors.
        kind: Of the message.
        request_id: 0 where the message has none.
        data: The length and the array.
    """

    name: str
    kind: Kind
    request_id: int
    data: bytes

    @property
    def ends_connection(self) -> bool:
        """Whether this is an error for request id 0."""
        return self.kind is Kind.ERROR and self.request_id == 0


def encode(message: Message) -> Frame:
    """Encode a message; pure, so that a thread which made a proof can frame it too.

    Raises:
        InvalidMessage: A field is out of its bounds.
        TypeError: It is no message.
    """
    layout = _BY_MESSAGE.get(type(message))
    if layout is None:
        raise TypeError(f"a message is one of this package's, not {type(message).__name__}")
    request_id: int = getattr(message, "request_id", 0)
    pieces = [*fields.write_value(int(layout.kind)), *_write_field(layout, layout.request_id, request_id)]
    for field in layout.fields:
        pieces.extend(_write_field(layout, field, getattr(message, field.name)))
    _check_consistent(layout, message)
    pieces.insert(0, fields.write_array_header(2 + len(layout.fields)))
    length = LENGTH.pack(sum(map(len, pieces)))
    return Frame(layout.name, layout.kind, request_id, b"".join((length, *pieces)))


def _write_field(layout: Layout, field: Field, value: Value) -> tuple[bytes, ...]:
    try:
        field.check(value)
    except FieldError as error:
        raise InvalidMessage(layout.name, field.name, str(error)) from error
    return fields.write_value(int(value) if isinstance(value, int) else value)


def _check_consistent(layout: Layout, message: Message) -> None:
    contradiction = _contradiction(message)
    if contradiction is not None:
        raise InvalidMessage(layout.name, *contradiction)


def _contradiction(message: Message) -> tuple[str, str] | None:
    """Return a field that contradicts another one, and why; None where all fit together."""
    if isinstance(message, Hello | Head):
        rootless = message.root is None and (message.revision, message.keys) != (0, 0)
        return ("root", "revision and keys are 0 where there is no root") if rootless else None
    reason = _misplaced_detail(message) if isinstance(message, Error) else None
    return None if reason is None else ("detail", reason)


def _misplaced_detail(message: Error) -> str | None:
    """Return why the detail does not belong to the code, or None where it does."""
    wants_detail = message.code in (ErrorCode.LIMIT_TOO_SMALL, ErrorCode.OVERLOADED)
    if wants_detail and message.detail is None:
        return f"{message.code.name} needs one"
    if not wants_detail and message.detail is not None:
        return f"{message.code.name} has none"
    if message.code is ErrorCode.OVERLOADED and (message.detail or 0) > messages.MAX_RETRY_AFTER_MILLISECONDS:
        return f"{message.detail} ms are more than {messages.MAX_RETRY_AFTER_MILLISECONDS}"
    return None


def decode(payload: memoryview) -> Message:
    """Decode what follows the length of a frame.

    Args:
        payload: The array, whole; only what becomes a field is copied.

    Raises:
        MalformedFrame: Not an array of the values that the protocol uses, too short, or too long.
        UnknownKind: The kind is not one of this version's.
        InvalidField: A value has the wrong type or is out of its bounds.
        VersionMismatch: A hello of another version.
        TypeError: It is no memoryview.
    """
    if not isinstance(payload, memoryview):
        raise TypeError(f"payload is a memoryview, not {type(payload).__name__}")
    try:
        count = fields.read_array_header(payload)
        kind, position = fields.read_value(payload, 1)
    except FieldError as error:
        raise MalformedFrame(str(error)) from error
    layout = _layout_of(kind)
    if layout is _HELLO:
        _check_version(payload, position)
    if count != 2 + len(layout.fields):
        raise MalformedFrame(f"a {layout.name} of {count} elements instead of {2 + len(layout.fields)}")
    return _build(layout, _read_fields(layout, payload, position))


def _layout_of(kind: Value) -> Layout:
    if not isinstance(kind, int):
        raise MalformedFrame("the kind is no integer")
    layout = _BY_KIND.get(kind)
    if layout is None:
        raise UnknownKind(kind)
    return layout


def _check_version(payload: memoryview, position: int) -> None:
    """Compare the versions before the rest of a hello is looked at, which may differ between versions."""
    _, position = _read_field(_HELLO, _HELLO.request_id, payload, position)
    version, _ = _read_field(_HELLO, _HELLO.fields[0], payload, position)
    if isinstance(version, int) and version != PROTOCOL_VERSION:
        raise VersionMismatch(PROTOCOL_VERSION, version)


def _read_fields(layout: Layout, payload: memoryview, position: int) -> dict[str, Any]:
    values = {}
    for field in (layout.request_id, *layout.fields):
        values[field.name], position = _read_field(layout, field, payload, position)
    if position != len(payload):
        raise MalformedFrame(f"{len(payload) - position} bytes trail a {layout.name}")
    return values


def _read_field(layout: Layout, field: Field, payload: memoryview, position: int) -> tuple[Value, int]:
    try:
        value, position = fields.read_value(payload, position)
    except FieldError as error:
        raise MalformedFrame(f"{layout.name}.{field.name}: {error}") from error
    try:
        field.check(value)
    except FieldError as error:
        raise InvalidField(layout.name, field.name, str(error)) from error
    return value, position


def _build(layout: Layout, values: dict[str, Any]) -> Message:
    if layout.request_id is _NO_REQUEST_ID:
        del values["request_id"]
    if layout.kind is Kind.ERROR:
        values["code"] = ErrorCode(values["code"])
    message = layout.message(**values)
    contradiction = _contradiction(message)
    if contradiction is not None:
        raise InvalidField(layout.name, *contradiction)
    return message
