"""Hypothesis strategies for messages of the protocol, within all bounds, and shared examples."""

from dataclasses import replace

from hypothesis import strategies as st

from syncproto import (
    MAX_CONTROL_BYTES,
    MAX_FRAME_BYTES,
    RANGE_OVERHEAD_BYTES,
    Cancel,
    Changes,
    Connection,
    Error,
    ErrorCode,
    GetChanges,
    GetHead,
    GetRange,
    Goodbye,
    Head,
    Hello,
    Message,
    Ping,
    Pong,
    Range,
    Role,
    Subscribe,
)

ROOT = bytes(range(32))
CLIENT_HELLO = Hello(
    hasher="blake3",
    branch_factor=16,
    root=bytes(32),
    revision=0,
    max_frame_bytes=1 << 20,
    user_agent="client",
)
SERVER_HELLO = Hello(
    hasher="blake3",
    branch_factor=16,
    root=ROOT,
    revision=7,
    keys=30,
    max_frame_bytes=MAX_CONTROL_BYTES,
    max_keys=4096,
    max_bytes=1 << 20,
    max_requests=3,
    user_agent="server",
)


def greeted_pair() -> tuple[Connection, Connection]:
    """Return a client and a server that have exchanged their hellos."""
    client, server = Connection(Role.CLIENT, CLIENT_HELLO), Connection(Role.SERVER, SERVER_HELLO)
    assert list(server.receive_data(client.send(CLIENT_HELLO))) == [CLIENT_HELLO]
    assert list(client.receive_data(server.send(SERVER_HELLO))) == [SERVER_HELLO]
    return client, server


def _text(max_bytes: int, min_size: int = 0) -> st.SearchStrategy[str]:
    printable = st.characters(codec="utf-8").filter(str.isprintable)
    return st.text(printable, min_size=min_size, max_size=max_bytes // 4)


counts = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1])
positive_counts = counts.filter(bool)
request_ids = positive_counts
revisions = counts | st.integers(0, 2**63 - 1)
numbers_of_keys = counts | st.integers(0, 2**63 - 1)
roots = st.binary(min_size=32, max_size=32)
bounds = (
    st.none()
    | st.binary(max_size=1024)
    | st.sampled_from([b"", b"\x00", bytes(255), bytes(256), bytes(1024)])
)
proofs = st.binary(min_size=1, max_size=300) | st.sampled_from(
    [bytes(255), bytes(256), bytes(65_535), bytes(65_536)]
)

full_hellos = st.builds(
    Hello,
    hasher=_text(16, min_size=1),
    branch_factor=st.integers(2, 65_536),
    root=roots,
    revision=revisions,
    keys=numbers_of_keys,
    max_frame_bytes=st.integers(MAX_CONTROL_BYTES, MAX_FRAME_BYTES),
    max_keys=counts,
    max_bytes=st.integers(0, MAX_FRAME_BYTES - RANGE_OVERHEAD_BYTES),
    max_requests=st.integers(0, 65_535),
    user_agent=_text(128),
)
# Who has no complete root has no revision and no keys either.
hellos = full_hellos | full_hellos.map(lambda hello: replace(hello, root=None, revision=0, keys=0))
heads = st.builds(Head, request_ids, roots, revisions, numbers_of_keys) | st.builds(
    Head, request_ids, st.none(), st.just(0), st.just(0)
)
_detailed = {
    ErrorCode.LIMIT_TOO_SMALL: positive_counts,
    ErrorCode.OVERLOADED: st.integers(1, 3_600_000),
}
errors = st.sampled_from(ErrorCode).flatmap(
    lambda code: st.builds(Error, counts, st.just(code), _text(512), _detailed.get(code, st.none()))
)
_limits = (bounds, bounds, positive_counts, st.integers(1, MAX_FRAME_BYTES - RANGE_OVERHEAD_BYTES))
get_ranges = st.builds(GetRange, request_ids, roots, *_limits)
get_changes = st.builds(GetChanges, request_ids, roots, roots, *_limits)
messages: st.SearchStrategy[Message] = st.one_of(
    hellos,
    st.just(Goodbye()),
    st.builds(Ping, request_ids),
    st.builds(Pong, request_ids),
    errors,
    st.builds(Cancel, request_ids),
    st.builds(GetHead, request_ids),
    heads,
    get_ranges,
    st.builds(Range, request_ids, proofs),
    get_changes,
    st.builds(Changes, request_ids, proofs),
    st.builds(Subscribe, request_ids),
)
