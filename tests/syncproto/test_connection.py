"""The rules of a conversation: order, ids, limits, and what follows a broken rule."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncproto import (
    MAX_CONTROL_BYTES,
    RANGE_OVERHEAD_BYTES,
    UNASKED_BURST,
    Cancel,
    Changes,
    Connection,
    Error,
    ErrorCode,
    FrameTooLong,
    GetChanges,
    GetHead,
    GetRange,
    Goodbye,
    Head,
    InvalidMessage,
    LocalProtocolError,
    MalformedFrame,
    Message,
    NoFreeRequest,
    NoSuchRequest,
    NotAllowedNow,
    OversizedAnswer,
    OversizedFrame,
    Ping,
    Pong,
    Range,
    RemoteProtocolError,
    RepeatedRequestId,
    RequestIdInUse,
    Role,
    State,
    Subscribe,
    TooManyRequests,
    TooManyUnasked,
    TruncatedStream,
    UnexpectedMessage,
    UnknownKind,
    UnsolicitedAnswer,
    VersionMismatch,
    decode,
    encode,
)
from syncproto.connection import EXCESS_REQUESTS_FACTOR
from syncproto.messages import MAX_HELLO_BYTES, MAX_REQUEST_ID
from syncproto.unasked import MAX_PINGS
from tests.support import syncproto_strategies as strategies
from tests.support.syncproto_strategies import CLIENT_HELLO, ROOT, SERVER_HELLO, greeted_pair

REFUSAL = Error(0, ErrorCode.SHUTTING_DOWN, "the server is shutting down")


def get_range(request_id: int, max_bytes: int = 1000) -> GetRange:
    return GetRange(request_id, ROOT, None, None, 10, max_bytes)


def get_changes(request_id: int, max_bytes: int = 1000) -> GetChanges:
    return GetChanges(request_id, bytes(32), ROOT, None, None, 10, max_bytes)


def head(request_id: int, revision: int = 1) -> Head:
    return Head(request_id, ROOT, revision, 30)


ENDED = Error(1, ErrorCode.CANCELLED, "cancelled")


def received(connection: Connection, *messages: Message) -> list[Message]:
    """Return what a connection yields for messages that no connection of the other side has checked."""
    return list(connection.receive_data(b"".join(encode(message).data for message in messages)))


def client() -> Connection:
    return greeted_pair()[0]


def server() -> Connection:
    return greeted_pair()[1]


def subscribed_pair() -> tuple[Connection, Connection]:
    """Return a client and a server, the client with subscription 1."""
    one, other = greeted_pair()
    assert list(other.receive_data(one.send(Subscribe(1)))) == [Subscribe(1)]
    return one, other


def new_client() -> Connection:
    return Connection(Role.CLIENT, CLIENT_HELLO)


def new_server() -> Connection:
    return Connection(Role.SERVER, SERVER_HELLO)


# What goes well.


def test_hellos_open_both_sides() -> None:
    one, other = greeted_pair()
    assert (one.peer, other.peer) == (SERVER_HELLO, CLIENT_HELLO)
    assert {one.our_state, one.their_state, other.our_state, other.their_state} == {State.OPEN}
    assert one.free_requests == SERVER_HELLO.max_requests
    assert other.max_answer_bytes == CLIENT_HELLO.max_frame_bytes - RANGE_OVERHEAD_BYTES


def test_before_the_hellos_nothing_may_be_asked() -> None:
    connection = new_client()
    assert (connection.free_requests, connection.max_answer_bytes) == (0, 0)


def test_a_request_and_its_answer() -> None:
    one, other = greeted_pair()
    request = get_range(one.next_request_id())
    assert list(other.receive_data(one.send(request))) == [request]
    assert (one.in_flight, other.in_flight) == (1, 1)
    answer = Range(request.request_id, b"proof")
    assert list(one.receive_data(other.send_frame(encode(answer)))) == [answer]
    assert (one.in_flight, other.in_flight) == (0, 0)


def test_answers_may_come_in_any_order() -> None:
    one, other = greeted_pair()
    assert received(other, *(get_range(number) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        one.send(get_range(number))
    for number in (2, 3, 1):
        assert list(one.receive_data(other.send(Range(number, b"p")))) == [Range(number, b"p")]
    assert one.free_requests == 3


@pytest.mark.parametrize("answer", [Changes(1, b"proof"), Range(1, b"proof")], ids=["changes", "a range"])
def test_changes_are_answered_by_changes_or_by_a_range(answer: Message) -> None:
    one, other = greeted_pair()
    assert list(other.receive_data(one.send(get_changes(1)))) == [get_changes(1)]
    assert list(one.receive_data(other.send(answer))) == [answer]
    assert (one.in_flight, other.in_flight) == (0, 0)


@pytest.mark.parametrize("make", [Changes, Range])
def test_a_proof_of_changes_may_be_as_long_as_was_asked(make: Callable[[int, bytes], Message]) -> None:
    one, other = greeted_pair()
    list(other.receive_data(one.send(get_changes(1, 70_000)) + one.send(get_range(2, 10))))
    answer = make(1, bytes(70_000))
    assert list(one.receive_data(other.send(answer))) == [answer]


def test_a_subscription_is_answered_by_any_number_of_heads() -> None:
    one, other = greeted_pair()
    assert list(other.receive_data(one.send(Subscribe(1)))) == [Subscribe(1)]
    for revision in range(1, 5):
        announced = head(1, revision)
        assert list(one.receive_data(other.send(announced))) == [announced]
    assert (one.subscription, other.subscription) == (1, 1)
    assert one.is_in_flight(1)


def test_a_subscription_may_show_that_there_is_no_complete_root() -> None:
    one, other = subscribed_pair()
    nothing = Head(1, None, 0, 0)
    assert list(one.receive_data(other.send(nothing))) == [nothing]


def test_a_subscription_counts_as_no_request() -> None:
    one, other = subscribed_pair()
    assert (one.in_flight, one.free_requests) == (0, SERVER_HELLO.max_requests)
    requests = [get_range(number) for number in (2, 3, 4)]
    assert list(other.receive_data(b"".join(map(one.send, requests)))) == requests
    assert (one.in_flight, one.free_requests, other.in_flight) == (3, 0, 3)


def test_a_client_may_subscribe_while_all_its_requests_are_in_flight() -> None:
    one, other = greeted_pair()
    for number in (2, 3, 4):
        list(other.receive_data(one.send(GetHead(number))))
    assert list(other.receive_data(one.send(Subscribe(1)))) == [Subscribe(1)]


def test_the_head_of_a_request_ends_that_request_beside_a_subscription() -> None:
    one, other = subscribed_pair()
    list(other.receive_data(one.send(GetHead(2))))
    assert list(one.receive_data(other.send(head(2)) + other.send(head(1)))) == [head(2), head(1)]
    assert (one.in_flight, one.subscription) == (0, 1)
    with pytest.raises(UnsolicitedAnswer):
        received(one, head(2))


def test_a_cancelled_subscription_is_ended_by_one_error_that_nobody_sees() -> None:
    one, other = subscribed_pair()
    assert list(other.receive_data(one.send(Cancel(1)))) == [Cancel(1)]
    assert (one.is_in_flight(1), one.subscription) == (False, 1)
    assert list(one.receive_data(other.send(ENDED))) == []
    assert (one.subscription, other.subscription) == (None, None)
    assert one.next_request_id() == 1


def test_heads_that_cross_a_cancel_are_harmless() -> None:
    one, other = subscribed_pair()
    crossing = other.send(head(1, 2))
    cancel = one.send(Cancel(1))
    assert list(one.receive_data(crossing)) == []
    assert list(other.receive_data(cancel)) == [Cancel(1)]
    # What the server had begun to send when the cancel came may still go out before the error.
    assert list(one.receive_data(other.send(head(1, 3)) + other.send(ENDED))) == []
    assert (one.subscription, other.subscription) == (None, None)


def test_heads_that_do_not_end_after_a_cancel_are_misbehaviour() -> None:
    """Nothing else counts them, for nobody sees them."""
    one, other = subscribed_pair()
    one.send(Cancel(1))
    heads = b"".join(encode(head(1, number)).data for number in range(UNASKED_BURST))
    assert list(one.receive_data(heads)) == []
    one_too_many = other.send(head(1, UNASKED_BURST))
    with pytest.raises(TooManyUnasked):
        list(one.receive_data(one_too_many))


def test_heads_that_cross_a_cancel_are_counted_for_each_subscription() -> None:
    one, other = subscribed_pair()
    for _ in range(3):
        subscription = one.subscription
        assert subscription is not None
        cancel = one.send(Cancel(subscription))
        heads = [other.send(head(subscription, number)) for number in range(UNASKED_BURST // 2)]
        assert list(one.receive_data(b"".join(heads))) == []
        list(other.receive_data(cancel))
        list(one.receive_data(other.send(replace(ENDED, request_id=subscription))))
        list(other.receive_data(one.send(Subscribe(one.next_request_id()))))


def test_no_message_is_decoded_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So whoever reads can bound the work of a step, however much has come at once."""
    one, other = subscribed_pair()
    decoded = 0

    def counting(data: memoryview) -> Message:
        nonlocal decoded
        decoded += 1
        return decode(data)

    monkeypatch.setattr("syncproto.framing.decode", counting)
    messages = one.receive_data(b"".join(other.send(head(1, number)) for number in range(5_000)))
    for number in range(1, 100):
        assert next(messages) is not None
        assert decoded == number


def test_a_cancel_that_crosses_the_end_of_a_subscription_is_left_out() -> None:
    one, other = subscribed_pair()
    end = other.send(Error(1, ErrorCode.INTERNAL, "the server failed"))
    assert list(other.receive_data(one.send(Cancel(1)))) == []
    assert list(one.receive_data(end)) == []


def test_a_server_may_end_a_subscription() -> None:
    one, other = subscribed_pair()
    end = Error(1, ErrorCode.INTERNAL, "the server failed")
    assert list(one.receive_data(other.send(end))) == [end]
    assert (one.subscription, one.is_in_flight(1)) == (None, False)


def test_a_client_may_subscribe_again_after_the_end() -> None:
    one, other = subscribed_pair()
    list(other.receive_data(one.send(Cancel(1))))
    list(one.receive_data(other.send(ENDED)))
    assert list(other.receive_data(one.send(Subscribe(1)))) == [Subscribe(1)]
    assert list(one.receive_data(other.send(head(1)))) == [head(1)]


def test_a_subscription_holds_its_id() -> None:
    one, _ = subscribed_pair()
    assert one.next_request_id() == 2


def test_an_error_ends_its_request_and_nothing_else() -> None:
    one, other = greeted_pair()
    refusal = Error(1, ErrorCode.LIMIT_TOO_SMALL, "the first pair takes 5,000 bytes", 5000)
    list(other.receive_data(one.send(get_range(1, max_bytes=1)) + one.send(GetHead(2))))
    assert list(one.receive_data(other.send(refusal))) == [refusal]
    assert list(one.receive_data(other.send(Head(2, ROOT, 7, 30)))) == [Head(2, ROOT, 7, 30)]


def test_an_id_is_free_again_after_its_answer() -> None:
    one, other = greeted_pair()
    for _ in range(3):
        assert list(other.receive_data(one.send(GetHead(9)))) == [GetHead(9)]
        assert list(one.receive_data(other.send(Head(9, ROOT, 1, 30)))) == [Head(9, ROOT, 1, 30)]


def test_request_ids_count_up_and_leave_out_those_in_flight() -> None:
    connection = client()
    connection.send(GetHead(2))
    assert [connection.next_request_id() for _ in range(3)] == [1, 3, 4]


def test_request_ids_begin_again_after_the_largest() -> None:
    connection = client()
    connection._requests._last_id = MAX_REQUEST_ID - 1
    connection.send(GetHead(1))
    assert [connection.next_request_id() for _ in range(2)] == [MAX_REQUEST_ID, 2]


@pytest.mark.parametrize("answer", [Range(1, b"late"), Error(1, ErrorCode.CANCELLED, "cancelled")])
def test_the_answer_to_a_cancelled_request_is_swallowed_once(answer: Message) -> None:
    one, other = greeted_pair()
    list(other.receive_data(one.send(get_range(1))))
    assert one.is_in_flight(1)
    assert list(other.receive_data(one.send(Cancel(1)))) == [Cancel(1)]
    assert not one.is_in_flight(1)
    assert one.in_flight == 1
    assert list(one.receive_data(other.send(answer))) == []
    assert one.free_requests == 3
    with pytest.raises(UnsolicitedAnswer):
        received(one, answer)


def test_no_more_cancels_are_ignored_than_answers_could_have_crossed() -> None:
    """They end nowhere else, so a flood of them would be handled in one step."""
    one, other = greeted_pair()
    most = EXCESS_REQUESTS_FACTOR * SERVER_HELLO.max_requests
    vain = encode(Cancel(77)).data
    assert list(other.receive_data(vain * most)) == []
    # With each answer one more may have crossed it, however often that happens.
    for number in range(1, 3 * most):
        assert list(other.receive_data(one.send(GetHead(number)))) == [GetHead(number)]
        assert list(one.receive_data(other.send(Head(number, ROOT, 1, 1)))) != []
        assert list(other.receive_data(encode(Cancel(number)).data)) == []
    with pytest.raises(UnexpectedMessage, match="no answer is left that it could have crossed"):
        list(other.receive_data(vain))


def test_a_cancel_that_crossed_the_answer_is_left_out() -> None:
    one, other = greeted_pair()
    list(other.receive_data(one.send(get_range(1))))
    answer = other.send(Range(1, b"p"))
    assert list(other.receive_data(one.send(Cancel(1)))) == []
    assert list(one.receive_data(answer)) == []


def test_pings_are_numbered_apart_from_requests() -> None:
    one, other = greeted_pair()
    assert list(other.receive_data(one.send(GetHead(1)) + one.send(Ping(1)))) == [GetHead(1), Ping(1)]
    assert list(one.receive_data(other.send(Pong(1)))) == [Pong(1)]
    assert list(one.receive_data(other.send(Ping(1)))) == [Ping(1)]
    assert list(other.receive_data(one.send(Pong(1)))) == [Pong(1)]


def test_after_a_servers_goodbye_what_is_in_flight_is_answered() -> None:
    one, other = greeted_pair()
    list(other.receive_data(one.send(get_range(1))))
    assert list(one.receive_data(other.send(Goodbye()))) == [Goodbye()]
    assert one.free_requests == 0
    assert list(one.receive_data(other.send(Range(1, b"p")))) == [Range(1, b"p")]


def test_a_request_that_crossed_the_servers_goodbye_is_refused_by_an_error() -> None:
    one, other = greeted_pair()
    farewell = other.send(Goodbye())
    assert list(other.receive_data(one.send(get_range(1)))) == [get_range(1)]
    refusal = Error(1, ErrorCode.SHUTTING_DOWN, "the server is shutting down")
    assert list(one.receive_data(farewell + other.send(refusal))) == [Goodbye(), refusal]


def test_after_a_clients_goodbye_what_is_in_flight_is_answered() -> None:
    one, other = greeted_pair()
    assert list(other.receive_data(one.send(get_range(1)) + one.send(Goodbye()))) == [get_range(1), Goodbye()]
    assert list(one.receive_data(other.send(Range(1, b"p")))) == [Range(1, b"p")]


def test_a_server_may_refuse_a_connection_before_any_hello() -> None:
    connection = new_client()
    assert received(connection, REFUSAL) == [REFUSAL]
    assert connection.their_state is State.ENDED


def test_the_end_of_the_stream_between_two_frames_is_no_error() -> None:
    client().receive_end()


def test_messages_before_a_misbehaviour_are_delivered_first() -> None:
    connection = server()
    messages = connection.receive_data(encode(GetHead(1)).data + encode(Ping(1)).data + b"\0\0\0\x01\xc1")
    assert [next(messages), next(messages)] == [GetHead(1), Ping(1)]
    with pytest.raises(MalformedFrame):
        next(messages)


# Our own mistakes: nothing is sent and nothing has changed.


def leaving(connection: Connection) -> Connection:
    connection.send(Goodbye())
    return connection


def ended(connection: Connection) -> Connection:
    connection.send(REFUSAL)
    return connection


def left(connection: Connection) -> Connection:
    assert received(connection, Goodbye()) == [Goodbye()]
    return connection


def refused(connection: Connection) -> Connection:
    assert received(connection, REFUSAL) == [REFUSAL]
    return connection


def asked(connection: Connection, *requests: Message) -> Connection:
    """Return the connection after requests: sent by a client, received by a server."""
    if connection.role is Role.CLIENT:
        for request in requests:
            connection.send(request)
    else:
        assert received(connection, *requests) == list(requests)
    return connection


def answered(connection: Connection, *answers: Message) -> Connection:
    """Return the connection of a server after its answers."""
    for answer in answers:
        connection.send(answer)
    return connection


OWN_MISTAKES: dict[str, tuple[Callable[[], Connection], Message, type[LocalProtocolError]]] = {
    "a request before our hello": (new_client, GetHead(1), NotAllowedNow),
    "a second hello": (client, CLIENT_HELLO, NotAllowedNow),
    "a goodbye before our hello": (new_client, Goodbye(), NotAllowedNow),
    "a client that answers": (client, Head(1, ROOT, 1, 30), NotAllowedNow),
    "a client that refuses a request": (client, Error(1, ErrorCode.INTERNAL, ""), NotAllowedNow),
    "a server that asks": (server, GetHead(1), NotAllowedNow),
    "a server that cancels": (server, Cancel(1), NotAllowedNow),
    "a second goodbye": (lambda: leaving(client()), Goodbye(), NotAllowedNow),
    "a request after our goodbye": (lambda: leaving(client()), GetHead(1), NotAllowedNow),
    "a request after the server's goodbye": (lambda: left(client()), GetHead(1), NotAllowedNow),
    "anything after our last error": (lambda: ended(client()), Ping(1), NotAllowedNow),
    "a last error twice": (lambda: ended(server()), REFUSAL, NotAllowedNow),
    "anything after the peer's last error": (lambda: refused(client()), Ping(1), NotAllowedNow),
    "more than our hello accepts": (client, get_range(1, CLIENT_HELLO.max_frame_bytes), NotAllowedNow),
    "an id twice": (lambda: asked(client(), GetHead(1)), get_range(1), RequestIdInUse),
    "a cancelled id": (lambda: asked(client(), GetHead(1), Cancel(1)), GetHead(1), RequestIdInUse),
    "more requests than allowed": (
        lambda: asked(client(), GetHead(1), GetHead(2), GetHead(3)),
        GetHead(4),
        NoFreeRequest,
    ),
    "more requests, one of them cancelled": (
        lambda: asked(client(), GetHead(1), GetHead(2), GetHead(3), Cancel(1)),
        GetHead(4),
        NoFreeRequest,
    ),
    "a cancel for nothing": (client, Cancel(1), NoSuchRequest),
    "a cancel twice": (lambda: asked(client(), GetHead(1), Cancel(1)), Cancel(1), NoSuchRequest),
    "an answer to nothing": (server, Head(1, ROOT, 1, 30), NoSuchRequest),
    "an error for nothing": (server, Error(1, ErrorCode.INTERNAL, ""), NoSuchRequest),
    "a head for a range": (lambda: asked(server(), get_range(1)), Head(1, ROOT, 1, 30), NotAllowedNow),
    "a range for a head": (lambda: asked(server(), GetHead(1)), Range(1, b"p"), NotAllowedNow),
    "a proof above what was asked": (
        lambda: asked(server(), get_range(1, 10)),
        Range(1, bytes(40)),
        FrameTooLong,
    ),
    "a second subscription": (lambda: asked(client(), Subscribe(1)), Subscribe(2), NotAllowedNow),
    "a second subscription before the first one has ended": (
        lambda: asked(client(), Subscribe(1), Cancel(1)),
        Subscribe(2),
        NotAllowedNow,
    ),
    "the id of a subscription": (lambda: asked(client(), Subscribe(1)), GetHead(1), RequestIdInUse),
    "a subscription with the id of a request": (
        lambda: asked(client(), GetHead(1)),
        Subscribe(1),
        RequestIdInUse,
    ),
    "a subscription before our hello": (new_client, Subscribe(1), NotAllowedNow),
    "a subscription after our goodbye": (lambda: leaving(client()), Subscribe(1), NotAllowedNow),
    "a subscription after the server's goodbye": (lambda: left(client()), Subscribe(1), NotAllowedNow),
    "a server that subscribes": (server, Subscribe(1), NotAllowedNow),
    "a cancel of a subscription twice": (
        lambda: asked(client(), Subscribe(1), Cancel(1)),
        Cancel(1),
        NoSuchRequest,
    ),
    "a head for a subscription that has ended": (
        lambda: answered(asked(server(), Subscribe(1)), ENDED),
        head(1),
        NoSuchRequest,
    ),
    "a range for a subscription": (lambda: asked(server(), Subscribe(1)), Range(1, b"p"), NotAllowedNow),
    "changes for a range": (lambda: asked(server(), get_range(1)), Changes(1, b"p"), NotAllowedNow),
    "a head for changes": (lambda: asked(server(), get_changes(1)), head(1), NotAllowedNow),
    "a client that sends changes": (client, Changes(1, b"p"), NotAllowedNow),
    "more changes than our hello accepts": (
        client,
        get_changes(1, CLIENT_HELLO.max_frame_bytes),
        NotAllowedNow,
    ),
    "changes above what was asked": (
        lambda: asked(server(), get_changes(1, 10)),
        Changes(1, bytes(40)),
        FrameTooLong,
    ),
    "a range above what was asked as changes": (
        lambda: asked(server(), get_changes(1, 10)),
        Range(1, bytes(40)),
        FrameTooLong,
    ),
    "changes when all requests are in flight": (
        lambda: asked(client(), GetHead(1), get_changes(2), get_range(3)),
        get_changes(4),
        NoFreeRequest,
    ),
    "a pong to nothing": (client, Pong(1), NoSuchRequest),
    "a ping twice": (lambda: asked(client(), Ping(1)), Ping(1), RequestIdInUse),
    "too many pings": (lambda: asked(client(), *map(Ping, range(1, MAX_PINGS + 1))), Ping(99), NoFreeRequest),
    "a frame longer than the client accepts": (
        lambda: asked(server(), get_range(1, 1 << 30)),
        Range(1, bytes(CLIENT_HELLO.max_frame_bytes)),
        FrameTooLong,
    ),
    "a field out of its bounds": (client, Ping(0), InvalidMessage),
}


def facts_of(connection: Connection) -> tuple[object, ...]:
    return (
        connection.our_state,
        connection.their_state,
        connection.in_flight,
        connection.subscription,
        connection.free_requests,
    )


@pytest.mark.parametrize(("make", "message", "error"), OWN_MISTAKES.values(), ids=OWN_MISTAKES.keys())
def test_our_own_mistake_is_refused(
    make: Callable[[], Connection], message: Message, error: type[LocalProtocolError]
) -> None:
    connection = make()
    before = facts_of(connection)
    with pytest.raises(error) as caught:
        connection.send(message)
    assert type(caught.value) is error
    assert facts_of(connection) == before


def test_only_answers_are_sent_as_frames() -> None:
    with pytest.raises(NotAllowedNow):
        client().send_frame(encode(GetHead(1)))


# The peer's misbehaviour.


def bad(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def feed(connection: Connection, pieces: list[bytes]) -> list[Message]:
    return [message for piece in pieces for message in connection.receive_data(piece)]


def frames(*messages: Message) -> bytes:
    return b"".join(encode(message).data for message in messages)


MISBEHAVIOUR: dict[str, tuple[Callable[[], Connection], bytes, type[RemoteProtocolError]]] = {
    "a request before hello": (new_server, frames(GetHead(1)), UnexpectedMessage),
    "a goodbye before hello": (new_client, frames(Goodbye()), UnexpectedMessage),
    "a request before our hello": (new_server, frames(CLIENT_HELLO, GetHead(1)), UnexpectedMessage),
    "a second hello": (server, frames(CLIENT_HELLO), UnexpectedMessage),
    "a client that answers": (server, frames(Range(1, b"p")), UnexpectedMessage),
    "a client that refuses a request": (server, frames(Error(1, ErrorCode.INTERNAL, "")), UnexpectedMessage),
    "a server that asks": (client, frames(GetHead(1)), UnexpectedMessage),
    "a server that cancels": (client, frames(Cancel(1)), UnexpectedMessage),
    "a request after goodbye": (server, frames(Goodbye(), GetHead(1)), UnexpectedMessage),
    "a second goodbye": (server, frames(Goodbye(), Goodbye()), UnexpectedMessage),
    "anything after a last error": (client, frames(REFUSAL, Ping(1)), UnexpectedMessage),
    "an answer to nothing": (client, frames(Range(1, b"p")), UnsolicitedAnswer),
    "an error for nothing": (client, frames(Error(1, ErrorCode.INTERNAL, "")), UnsolicitedAnswer),
    "an answer twice": (
        lambda: asked(client(), get_range(1)),
        frames(Range(1, b"p"), Range(1, b"p")),
        UnsolicitedAnswer,
    ),
    "a pong to nothing": (client, frames(Pong(1)), UnsolicitedAnswer),
    "a head for a range": (
        lambda: asked(client(), get_range(1)),
        frames(Head(1, ROOT, 1, 30)),
        UnexpectedMessage,
    ),
    "a range for a head": (lambda: asked(client(), GetHead(1)), frames(Range(1, b"p")), UnexpectedMessage),
    "a head without a subscription": (client, frames(head(1)), UnsolicitedAnswer),
    "a head for another id than the subscription's": (
        lambda: asked(client(), Subscribe(1)),
        frames(head(2)),
        UnsolicitedAnswer,
    ),
    "a head after the end of the subscription": (
        lambda: asked(client(), Subscribe(1)),
        frames(ENDED, head(1)),
        UnsolicitedAnswer,
    ),
    "a head after the end of a cancelled subscription": (
        lambda: asked(client(), Subscribe(1), Cancel(1)),
        frames(head(1), ENDED, head(1)),
        UnsolicitedAnswer,
    ),
    "two ends of a subscription": (
        lambda: asked(client(), Subscribe(1), Cancel(1)),
        frames(ENDED, ENDED),
        UnsolicitedAnswer,
    ),
    "a range for a subscription": (
        lambda: asked(client(), Subscribe(1)),
        frames(Range(1, b"p")),
        UnexpectedMessage,
    ),
    "changes for a subscription": (
        lambda: asked(client(), Subscribe(1)),
        frames(Changes(1, b"p")),
        UnexpectedMessage,
    ),
    "two heads for one request": (
        lambda: asked(client(), Subscribe(1), GetHead(2)),
        frames(head(1), head(2), head(2)),
        UnsolicitedAnswer,
    ),
    "a second subscription": (server, frames(Subscribe(1), Subscribe(2)), UnexpectedMessage),
    "a subscription twice": (server, frames(Subscribe(1), Subscribe(1)), RepeatedRequestId),
    "a request with the subscription's id": (server, frames(Subscribe(1), GetHead(1)), RepeatedRequestId),
    "a subscription again before its end": (
        server,
        frames(Subscribe(1), Cancel(1), Subscribe(2)),
        UnexpectedMessage,
    ),
    "a subscription before hello": (new_server, frames(Subscribe(1)), UnexpectedMessage),
    "a subscription before our hello": (new_server, frames(CLIENT_HELLO, Subscribe(1)), UnexpectedMessage),
    "a subscription after goodbye": (server, frames(Goodbye(), Subscribe(1)), UnexpectedMessage),
    "a server that subscribes": (client, frames(Subscribe(1)), UnexpectedMessage),
    "a client that announces": (lambda: asked(server(), Subscribe(1)), frames(head(1)), UnexpectedMessage),
    "a client that sends changes": (server, frames(Changes(1, b"p")), UnexpectedMessage),
    "changes for a range": (
        lambda: asked(client(), get_range(1)),
        frames(Changes(1, b"p")),
        UnexpectedMessage,
    ),
    "a head for changes": (lambda: asked(client(), get_changes(1)), frames(head(1)), UnexpectedMessage),
    "changes twice": (
        lambda: asked(client(), get_changes(1)),
        frames(Changes(1, b"p"), Changes(1, b"p")),
        UnsolicitedAnswer,
    ),
    "changes and a range": (
        lambda: asked(client(), get_changes(1)),
        frames(Changes(1, b"p"), Range(1, b"p")),
        UnsolicitedAnswer,
    ),
    "changes above what their request allowed": (
        lambda: asked(client(), get_changes(1, 10)),
        frames(Changes(1, bytes(11))),
        OversizedAnswer,
    ),
    "a range above what a request of changes allowed": (
        lambda: asked(client(), get_changes(1, 10)),
        frames(Range(1, bytes(11))),
        OversizedAnswer,
    ),
    "changes above all that was asked": (
        lambda: asked(client(), get_changes(1, 5000)),
        frames(Changes(1, bytes(5000 + RANGE_OVERHEAD_BYTES))),
        OversizedFrame,
    ),
    "far too many requests beside a subscription": (
        lambda: asked(server(), Subscribe(99)),
        frames(*map(get_changes, range(1, EXCESS_REQUESTS_FACTOR * SERVER_HELLO.max_requests + 2))),
        TooManyRequests,
    ),
    "a proof above what its request allowed": (
        lambda: asked(client(), get_range(1, 10)),
        frames(Range(1, bytes(11))),
        OversizedAnswer,
    ),
    "a frame above all that was asked": (
        lambda: asked(client(), get_range(1, 5000), get_range(2, 6000)),
        frames(Range(1, bytes(6000 + RANGE_OVERHEAD_BYTES))),
        OversizedFrame,
    ),
    "a frame of 4 GiB": (client, b"\xff\xff\xff\xff", OversizedFrame),
    "a frame above a hello's limit": (new_server, (MAX_HELLO_BYTES + 1).to_bytes(4, "big"), OversizedFrame),
    "a request above a control frame": (server, (MAX_CONTROL_BYTES + 1).to_bytes(4, "big"), OversizedFrame),
    "another protocol": (new_server, b"GET / HTTP/1.1\r\n\r\n", OversizedFrame),
    "an id twice": (server, frames(GetHead(1), GetHead(1)), RepeatedRequestId),
    "a ping twice": (server, frames(Ping(1), Ping(1)), RepeatedRequestId),
    "too many pings": (server, frames(*map(Ping, range(1, MAX_PINGS + 2))), TooManyRequests),
    "far too many requests": (
        server,
        frames(*map(GetHead, range(1, EXCESS_REQUESTS_FACTOR * SERVER_HELLO.max_requests + 2))),
        TooManyRequests,
    ),
    "an unknown kind": (server, bad(b"\x92\x17\x01"), UnknownKind),
    "an empty frame": (server, bytes(4), MalformedFrame),
    "another version": (new_server, bad(b"\x93\x00\x00\x02"), VersionMismatch),
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["whole", "one by one"])
@pytest.mark.parametrize(("make", "data", "error"), MISBEHAVIOUR.values(), ids=MISBEHAVIOUR.keys())
def test_misbehaviour_ends_the_connection_for_ever(
    make: Callable[[], Connection], data: bytes, error: type[RemoteProtocolError], one_by_one: bool
) -> None:
    connection = make()
    pieces = [bytes([byte]) for byte in data] if one_by_one else [data]
    with pytest.raises(error) as caught:
        feed(connection, pieces)
    assert type(caught.value) is error
    assert connection.their_state is State.ENDED
    with pytest.raises(error) as again:
        connection.receive_data(b"more")
    assert again.value is caught.value
    connection.receive_end()


def test_after_misbehaviour_only_the_last_word_may_be_sent() -> None:
    connection = server()
    with pytest.raises(UnexpectedMessage):
        received(connection, CLIENT_HELLO)
    with pytest.raises(NotAllowedNow):
        connection.send(Ping(1))
    last_word = Error(0, ErrorCode.BAD_REQUEST, "hello was said already")
    assert received(client(), last_word) == [last_word]
    connection.send(last_word)
    assert connection.our_state is State.ENDED


@pytest.mark.parametrize("count", [1, 4, 10])
def test_a_stream_that_ends_inside_a_frame_is_truncated(count: int) -> None:
    connection = server()
    list(connection.receive_data(frames(get_range(1))[:count]))
    with pytest.raises(TruncatedStream) as caught:
        connection.receive_end()
    assert caught.value.buffered_bytes == count


def test_a_stream_that_ends_before_hello_is_truncated() -> None:
    with pytest.raises(TruncatedStream):
        new_client().receive_end()


def test_a_large_limit_for_frames_admits_no_more_than_was_asked() -> None:
    connection = Connection(Role.CLIENT, replace(CLIENT_HELLO, max_frame_bytes=1 << 30))
    connection.send(connection.hello)
    received(connection, SERVER_HELLO)
    connection.send(get_range(1, 10_000))
    with pytest.raises(OversizedFrame) as caught:
        list(connection.receive_data((1 << 29).to_bytes(4, "big")))
    assert caught.value.limit == 10_000 + RANGE_OVERHEAD_BYTES


# Anything at all.


def outcome(connection: Connection, pieces: list[bytes]) -> tuple[list[Message], type[Exception] | None]:
    """Return what a connection yields for bytes in pieces, and the kind of error that ends it."""
    messages: list[Message] = []
    try:
        for piece in pieces:
            messages.extend(connection.receive_data(piece))
    except RemoteProtocolError as error:
        return messages, type(error)
    return messages, None


@given(st.lists(strategies.messages, max_size=6), st.booleans())
def test_any_messages_in_any_order_give_the_same_however_they_are_cut(
    messages: list[Message], to_client: bool
) -> None:
    data = frames(*messages)[:2000]
    make = client if to_client else server
    one_by_one, whole = make(), make()
    assert outcome(one_by_one, [bytes([byte]) for byte in data])[1] == outcome(whole, [data])[1]
    assert one_by_one.in_flight == whole.in_flight


@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_never_give_another_error(data: bytes, to_client: bool) -> None:
    outcome(client() if to_client else server(), [data])


small_ids = st.integers(1, 4)
client_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(get_range, small_ids),
    st.builds(GetHead, small_ids),
    st.builds(get_changes, small_ids),
    st.builds(Subscribe, small_ids),
    st.builds(Cancel, small_ids),
    st.builds(Ping, small_ids),
    st.builds(Pong, small_ids),
    st.just(Goodbye()),
)
server_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Range, small_ids, st.just(b"p")),
    st.builds(Changes, small_ids, st.just(b"p")),
    st.builds(head, small_ids),
    st.builds(Error, small_ids, st.just(ErrorCode.UNKNOWN_ROOT), st.just("")),
    st.builds(Ping, small_ids),
    st.builds(Pong, small_ids),
    st.just(Goodbye()),
)


@given(st.lists(st.tuples(st.booleans(), client_messages, server_messages, st.booleans()), max_size=40))
def test_what_one_side_may_send_the_other_accepts(steps: list[tuple[bool, Message, Message, bool]]) -> None:
    """Messages wait on their way as long as chance wants, so that they cross."""
    one, other = greeted_pair()
    to_one, to_other = bytearray(), bytearray()
    for from_client, client_message, server_message, deliver in steps:
        try:
            if from_client:
                to_other += one.send(client_message)
            else:
                to_one += other.send(server_message)
        except LocalProtocolError:
            pass
        if deliver:
            list(other.receive_data(to_other))
            list(one.receive_data(to_one))
            to_one.clear()
            to_other.clear()
    list(other.receive_data(to_other))
    list(one.receive_data(to_one))
    assert (one.in_flight, one.subscription) == (other.in_flight, other.subscription)
    assert one.in_flight <= SERVER_HELLO.max_requests
