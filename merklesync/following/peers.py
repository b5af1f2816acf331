"""What peers say of themselves, and which roots they have.

A server greets each client with its head, its scheme and its limits.  None of that is proved; it tells
which scheme a new store needs, and, when the user trusts the peer, which root to sync to.  Which of some
roots it retains is asked with the smallest request there is, and what it answers is not proved either.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from random import random
from time import perf_counter
from typing import Final, NamedTuple

import trio

from manager import Limits
from manager.errors import reason_of
from manager.peers.address import Address
from merkledb import MAX_FOREIGN_REVISION, PicklableError, Scheme
from merklesync.console.output import print_note
from merklesync.console.signals import run_until_signal
from merklesync.errors import CommandError, ExitCode
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
    TruncatedStream,
)

# Long enough for a server far away to accept and greet, short enough to wait for.
PROBE_TIMEOUT_SECONDS: Final = 10.0
# The smallest that can be asked for: the pair of the empty key, if there is one.
_PROBE_KEY: Final = b""
USER_AGENT: Final = "merklesync-command"
_RECEIVE_BYTES: Final = 4096
# Overloaded peers are asked again as patiently as a sync asks them.
PATIENCE_SECONDS: Final = Limits().overload_patience_seconds
_MIN_PAUSE_SECONDS: Final = Limits().backoff_seconds
_MAX_PAUSE_SECONDS: Final = Limits().max_backoff_seconds / 2


class ProbeFailure(NamedTuple):
    """A peer that could not be reached, speaks something else, or has no place for us now.

    Attributes:
        address: Where it was expected.
        reason: What went wrong.
        retry_seconds: After which an overloaded peer wants to be tried again; None of all others.
    """

    address: Address
    reason: str
    retry_seconds: float | None = None

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


def require_probes(addresses: tuple[Address, ...], patience_seconds: float = 0.0) -> list[ProbeResult]:
    """Connect to all peers at once, and return those that greeted, at least one, in the order given.

    Args:
        addresses: Of the peers.
        patience_seconds: For how long they are tried again while none greets and some are overloaded.

    Raises:
        CommandError: None could be reached, or those that could are overloaded.
    """
    greetings = run_until_signal(_meet, addresses, patience_seconds)
    met = [greeting for greeting in greetings if isinstance(greeting, ProbeResult)]
    if met:
        return met
    reasons = "; ".join(
        f"{silence.address}: {silence.reason}" for silence in greetings if isinstance(silence, ProbeFailure)
    )
    if any(isinstance(silence, ProbeFailure) and silence.is_overload for silence in greetings):
        raise CommandError(
            f"every peer that answers is overloaded ({reasons}): try again later, or name another peer"
        )
    raise CommandError(
        f"no peer could be reached ({reasons}): check the address and that a server runs there",
        ExitCode.UNREACHABLE,
    )


def probe_all(addresses: Sequence[Address], roots: Sequence[bytes] = ()) -> list[ProbeResult | ProbeFailure]:
    """Connect to all peers at once, and ask each which of ``roots`` it has.

    Returns:
        What each said, in the order given; one that is given twice, once.

    Raises:
        KeyboardInterrupt: A signal interrupted it.
    """
    return run_until_signal(_probe_all, addresses, roots)


async def _meet(addresses: Sequence[Address], patience_seconds: float) -> list[ProbeResult | ProbeFailure]:
    """Connect to all peers, and again as long as none greets and some say that they are overloaded."""
    deadline, has_noted = trio.current_time() + patience_seconds, False
    while True:
        greetings = await _probe_all(addresses, ())
        full = [
            each for each in greetings if isinstance(each, ProbeFailure) and each.retry_seconds is not None
        ]
        if not full or any(isinstance(each, ProbeResult) for each in greetings):
            return greetings
        asked = max(full[0].retry_seconds or 0.0, _MIN_PAUSE_SECONDS)
        pause = min(asked, _MAX_PAUSE_SECONDS) * (1 + random())  # noqa: S311 - jitter is no secret.
        if trio.current_time() + pause > deadline:
            return greetings
        if not has_noted:
            print_note(f"{full[0].address}: {full[0].reason}; waiting")
            has_noted = True
        await trio.sleep(pause)


async def _probe_all(
    addresses: Sequence[Address], roots: Sequence[bytes]
) -> list[ProbeResult | ProbeFailure]:
    greetings: dict[Address, ProbeResult | ProbeFailure] = {}

    async def keep(address: Address) -> None:
        greetings[address] = await probe(address, roots)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(keep, address)
    return [greetings[address] for address in dict.fromkeys(addresses)]


async def probe(address: Address, roots: Sequence[bytes] = ()) -> ProbeResult | ProbeFailure:
    """Connect to a peer, wait for its greeting, ask it which of ``roots`` it has, and take leave."""
    began = perf_counter()
    met: ProbeResult | None = None
    retry_seconds: float | None = None
    try:
        with trio.move_on_after(PROBE_TIMEOUT_SECONDS):
            async with await trio.open_tcp_stream(*address) as stream:
                greeting = _Greeting(stream)
                met = ProbeResult(address, await greeting.hello(), perf_counter() - began, {})
                # A peer that has taken its leave already cannot be asked any more.
                with suppress(LocalProtocolError):
                    await greeting.ask(roots, met.retains)
    except _Refused as refused:
        reason, retry_seconds = str(refused), refused.retry_seconds
    except UnicodeError:
        reason = "that is no name of a machine"
    except OSError as error:
        reason = reason_of(error)
    except RemoteProtocolError as error:
        reason = f"it does not speak merklesync: {error}"
        if isinstance(error, TruncatedStream) and not error.buffered_bytes:
            reason = "it closed the connection without a word: try again later"
    except trio.BrokenResourceError as error:
        reason = f"the connection broke: {reason_of(error)}"
    else:
        reason = f"it said nothing within {PROBE_TIMEOUT_SECONDS:.0f} seconds"
    # A peer that greeted and then fell silent was met all the same.
    return met or ProbeFailure(address, reason, retry_seconds)


class _Refused(PicklableError):
    """A peer refused the connection before it greeted; with overload, it says when to try again."""

    def __init__(self, error: Error) -> None:
        is_overload = error.code is ErrorCode.OVERLOADED
        super().__init__(f"it {'is overloaded' if is_overload else 'refused'}: {error.message}")
        self.retry_seconds = (error.detail or 0) / 1000 if is_overload else None


class _Greeting:
    """The few words that are exchanged with a peer on one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = Connection(Role.CLIENT, _our_hello("blake3", 16))
        self._received: deque[Message] = deque()

    async def hello(self) -> Hello:
        """Wait for the peer's greeting.

        Raises:
            _Refused: It refuses the connection.
            OSError, RemoteProtocolError, trio.BrokenResourceError: It does not greet.
        """
        while (message := await self._next()) is not None:
            if isinstance(message, Hello):
                return message
            if isinstance(message, Error):
                raise _Refused(message)
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
        request = GetRange(self._connection.next_request_id(), root, _PROBE_KEY, _PROBE_KEY, 1, max_bytes)
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
