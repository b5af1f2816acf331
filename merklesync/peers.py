"""What peers say of themselves, and which roots they have.

A server greets whoever connects with its head, its scheme and its limits.  None of that is proved; it tells
which scheme a new store needs, and, when the user trusts the peer, which root to sync to.  Which of some
roots it retains is asked with the smallest request there is, and what it answers is not proved either.
"""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final, NamedTuple

import trio

from manager.peer import Address
from merkledb import MAX_FOREIGN_REVISION, Scheme
from merklesync.failures import ExitCode, Failure, describe
from merklesync.tasks import run_interruptibly
from syncproto import (
    MAX_CONTROL_BYTES,
    RANGE_OVERHEAD_BYTES,
    Answer,
    Connection,
    Error,
    ErrorCode,
    GetRange,
    Goodbye,
    Hello,
    LocalProtocolError,
    Message,
    Range,
    RemoteProtocolError,
    Role,
)

# Long enough for a server far away to accept and greet, short enough to wait for.
GREETING_SECONDS: Final = 10.0
# The smallest that can be asked for: the pair of the empty key, if there is one.
_QUESTION_KEY: Final = b""
USER_AGENT: Final = "merklesync-command"
_RECEIVE_BYTES: Final = 4096


class Silence(NamedTuple):
    """A peer that could not be reached, or speaks something else.

    Attributes:
        address: Where it was expected.
        reason: What went wrong.
    """

    address: Address
    reason: str


class MetPeer(NamedTuple):
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
        """The scheme that the peer says it serves; None when there is none of that name."""
        try:
            return Scheme(self.hello.hasher, self.hello.branch_factor)  # type: ignore[arg-type]  # it raises then
        except ValueError:
            return None

    @property
    def is_implausible(self) -> bool:
        """Whether its head has a number that no honest store reaches, so that nobody may follow it."""
        return self.hello.revision > MAX_FOREIGN_REVISION


def met_peers(addresses: tuple[Address, ...]) -> list[MetPeer]:
    """Connect to all peers at once, and return those that greeted, at least one, in the order given.

    Raises:
        Failure: None could be reached.
    """
    greetings = greet_all(addresses)
    met = [greeting for greeting in greetings if isinstance(greeting, MetPeer)]
    if met:
        return met
    reasons = "; ".join(
        f"{silence.address}: {silence.reason}" for silence in greetings if isinstance(silence, Silence)
    )
    raise Failure(
        f"no peer could be reached ({reasons}): check the address and that a server runs there",
        ExitCode.UNREACHABLE,
    )


def greet_all(addresses: Sequence[Address], roots: Sequence[bytes] = ()) -> list[MetPeer | Silence]:
    """Connect to all peers at once, and ask each which of ``roots`` it has.

    Returns:
        What each said, in the order given; one that is given twice, once.

    Raises:
        KeyboardInterrupt: A signal interrupted it.
    """
    return run_interruptibly(_greet_all, addresses, roots)


async def _greet_all(addresses: Sequence[Address], roots: Sequence[bytes]) -> list[MetPeer | Silence]:
    greetings: dict[Address, MetPeer | Silence] = {}

    async def keep(address: Address) -> None:
        greetings[address] = await greet(address, roots)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(keep, address)
    return [greetings[address] for address in dict.fromkeys(addresses)]


async def greet(address: Address, roots: Sequence[bytes] = ()) -> MetPeer | Silence:
    """Connect to a peer, wait for its greeting, ask it which of ``roots`` it has, and take leave."""
    began = perf_counter()
    met: MetPeer | None = None
    try:
        with trio.move_on_after(GREETING_SECONDS):
            async with await trio.open_tcp_stream(*address) as stream:
                greeting = _Greeting(stream)
                met = MetPeer(address, await greeting.hello(), perf_counter() - began, {})
                # A peer that has taken its leave already cannot be asked any more.
                with suppress(LocalProtocolError):
                    await greeting.ask(roots, met.retains)
    except OSError as error:
        reason = _reason(error)
    except RemoteProtocolError as error:
        reason = f"it does not speak merklesync: {error}"
    except trio.BrokenResourceError:
        reason = "it closed the connection"
    else:
        reason = f"it said nothing within {GREETING_SECONDS:.0f} seconds"
    # A peer that greeted and then fell silent was met all the same.
    return met or Silence(address, reason)


def _reason(error: OSError) -> str:
    """Return why a connection failed: what trio gives as the cause, for it tries all addresses of a name."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno)
    return describe(error)


class _Greeting:
    """The few words that are exchanged with a peer on one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = Connection(Role.CLIENT, _our_hello("blake3", 16))
        self._received: deque[Message] = deque()

    async def hello(self) -> Hello:
        """Wait for the peer's greeting.

        Raises:
            OSError, RemoteProtocolError, trio.BrokenResourceError: It does not greet.
        """
        while (message := await self._next()) is not None:
            if isinstance(message, Hello):
                return message
            if isinstance(message, Error):
                raise ConnectionRefusedError(f"it refused: {message.message}")
        raise trio.BrokenResourceError

    async def ask(self, roots: Sequence[bytes], retains: dict[bytes, bool]) -> None:
        """Note for each of ``roots`` whether the peer has it, one after the other, and take leave."""
        hello = self._connection.peer
        assert hello is not None
        await self._stream.send_all(self._connection.send(_our_hello(hello.hasher, hello.branch_factor)))
        for root in roots if hello.max_requests else ():
            answer = await self._answer(root)
            if (retained := _is_retained(answer)) is not None:
                retains[root] = retained
        await self._stream.send_all(self._connection.send(Goodbye()))

    async def _answer(self, root: bytes) -> Answer | None:
        max_bytes = MAX_CONTROL_BYTES - RANGE_OVERHEAD_BYTES
        request = GetRange(
            self._connection.next_request_id(), root, _QUESTION_KEY, _QUESTION_KEY, 1, max_bytes
        )
        await self._stream.send_all(self._connection.send(request))
        while (message := await self._next()) is not None:
            if isinstance(message, Range | Error):
                return message
        return None

    async def _next(self) -> Message | None:
        """Return the next message of the peer; None when it has closed the connection."""
        while not self._received:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
            if not data:
                self._connection.receive_end()
                return None
            self._received.extend(self._connection.receive_data(data))
        return self._received.popleft()


def _is_retained(answer: Answer | None) -> bool | None:
    """Return whether a peer has a root, as it answers; None where the answer does not tell."""
    match answer:
        case Range() | Error(code=ErrorCode.LIMIT_TOO_SMALL):
            return True
        case Error(code=ErrorCode.UNKNOWN_ROOT | ErrorCode.HISTORY_GONE):
            return False
    return None


def _our_hello(hasher: str, branch_factor: int) -> Hello:
    return Hello(
        hasher=hasher,
        branch_factor=branch_factor,
        root=None,
        revision=0,
        max_frame_bytes=MAX_CONTROL_BYTES,
        user_agent=USER_AGENT,
    )
