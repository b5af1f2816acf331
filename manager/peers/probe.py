"""What a peer says of itself, and which roots it has, asked on a connection of its own.

A server greets each client with its head, its scheme and its limits.  None of that is proved; it tells which
scheme a new store needs, and, to whoever trusts the peer, which root to sync to.  Which of some roots it
retains is asked with the smallest request there is, and what it answers is not proved either.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from manager.errors import PeerError, PeerRefused, reason_of
from manager.limits import Limits
from manager.peers.address import Address
from manager.peers.client import PeerClient
from merkledb import MAX_FOREIGN_REVISION, Scheme
from syncproto import (
    MAX_CONTROL_BYTES,
    RANGE_OVERHEAD_BYTES,
    ErrorCode,
    Hello,
    RemoteProtocolError,
)

# Long enough for a server far away to accept and greet, short enough to wait for.
PROBE_TIMEOUT_SECONDS: Final = 10.0
USER_AGENT: Final = "merklesync-command"
# The smallest that can be asked for: the pair of the empty key, if there is one.
_PROBE_KEY: Final = b""
_PROBE_BYTES: Final = MAX_CONTROL_BYTES - RANGE_OVERHEAD_BYTES
# The scheme is the peer's, see ``Conversation``.
_HELLO: Final = Hello(
    hasher="blake3",
    branch_factor=16,
    root=None,
    revision=0,
    max_frame_bytes=MAX_CONTROL_BYTES,
    user_agent=USER_AGENT,
)


class ProbeFailure(NamedTuple):
    """A peer that could not be reached, speaks something else, or has no place for us now.

    Attributes:
        address: Where it was expected.
        reason: What went wrong.
        retry_seconds: After which an overloaded peer wants to be tried again; None of all others.
        has_answered: Whether anything came from there: a refusal, or what is not merklesync.
    """

    address: Address
    reason: str
    retry_seconds: float | None = None
    has_answered: bool = False

    @property
    def is_overload(self) -> bool:
        """Whether it answered that it is overloaded."""
        return self.retry_seconds is not None


class ProbeResult(NamedTuple):
    """A peer that greeted us.

    Attributes:
        address: Where it listens.
        hello: What it said.
        seconds: How long it took to connect and be greeted.
        retains: For each root that it was asked about, whether it has it; without those that it did not
            answer for.
    """

    address: Address
    hello: Hello
    seconds: float
    retains: dict[bytes, bool]

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that the peer says it serves; None where there is no such scheme."""
        try:
            return Scheme(self.hello.hasher, self.hello.branch_factor)  # type: ignore[arg-type]  # it raises then
        except ValueError:
            return None

    @property
    def is_implausible(self) -> bool:
        """Whether its head has a number that no honest store reaches, so that it must not be followed."""
        return self.hello.revision > MAX_FOREIGN_REVISION


async def probe(address: Address, roots: Sequence[bytes] = ()) -> ProbeResult | ProbeFailure:
    """Connect to a peer, wait for its greeting, ask it which of ``roots`` it has, and take leave.

    It takes ``PROBE_TIMEOUT_SECONDS`` at most.  Cancelled, it leaves no connection.

    Args:
        address: Where the peer listens.
        roots: Asked for one after the other, each in one round trip.
    """
    began = trio.current_time()
    met: ProbeResult | None = None
    failure: PeerError | None = None
    has_answered = False
    with trio.move_on_after(PROBE_TIMEOUT_SECONDS):
        try:
            stream = await trio.open_tcp_stream(*address)
        except UnicodeError:
            return ProbeFailure(address, "that is no name of a machine")
        except OSError as error:
            return ProbeFailure(address, reason_of(error))
        client = PeerClient(stream, _HELLO, None, Limits())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            if await client.greeted() or client.peer_hello is not None:
                assert client.peer_hello is not None
                met = ProbeResult(address, client.peer_hello, trio.current_time() - began, {})
                await _ask(client, roots, met.retains)
            failure, has_answered = client.failure, client.has_answered
            await client.leave()
            nursery.cancel_scope.cancel()
    # A peer that greeted and then fell silent was met all the same.
    return met or _probe_failure(address, failure, has_answered=has_answered)


async def _ask(client: PeerClient, roots: Sequence[bytes], retains: dict[bytes, bool]) -> None:
    """Note for each of ``roots`` whether the peer has it, as long as it answers."""
    hello = client.peer_hello
    for root in roots if hello is not None and hello.max_requests else ():
        try:
            await client.ask(root, _PROBE_KEY, _PROBE_KEY, max_keys=1, max_bytes=_PROBE_BYTES)
        except PeerRefused as refusal:
            if refusal.code is ErrorCode.LIMIT_TOO_SMALL:
                retains[root] = True
            elif refusal.code in (ErrorCode.UNKNOWN_ROOT, ErrorCode.HISTORY_GONE):
                retains[root] = False
        except PeerError:
            # A peer that has taken its leave already cannot be asked any more.
            return
        else:
            retains[root] = True


def _probe_failure(address: Address, failure: PeerError | None, *, has_answered: bool) -> ProbeFailure:
    """Return what it means that a connection ended before a greeting; None: it did not, the time was over."""
    if failure is None:
        return ProbeFailure(address, f"it said nothing within {PROBE_TIMEOUT_SECONDS:.0f} seconds")
    reason, cause, retry_seconds = str(failure), failure.__cause__, None
    if isinstance(failure, PeerRefused) and failure.is_overload:
        reason, retry_seconds = f"it is overloaded: {failure.message}", (failure.detail or 0) / 1000
    elif isinstance(failure, PeerRefused):
        reason = f"it refused: {failure.message}"
    elif isinstance(cause, RemoteProtocolError) and has_answered:
        reason = f"it does not speak merklesync: {cause}"
    elif isinstance(cause, RemoteProtocolError):
        reason = "it closed the connection without a word: try again later"
    return ProbeFailure(address, reason, retry_seconds, has_answered)
