"""What peers say of themselves before anything is asked of them, and the command ``status``.

A server greets whoever connects with its head, its scheme and its limits.  None of that is proved; it tells
which scheme a new store needs, and, when the user trusts the peer, which root to sync to.
"""

import os
from time import perf_counter
from typing import Any, Final, NamedTuple

import click
import trio

from merkledb import EMPTY_ROOT, Scheme
from merklesync.failures import ExitCode, Failure, describe
from merklesync.options import ADDRESS, Address, json_option
from merklesync.output import print_facts, print_json, show_keys, show_seconds, show_size
from merklesync.tasks import run
from syncproto import (
    MAX_CONTROL_BYTES,
    Connection,
    Error,
    Goodbye,
    Hello,
    RemoteProtocolError,
    Role,
    encode,
)

# Long enough for a server far away to accept and greet, short enough to wait for.
GREETING_SECONDS: Final = 10.0
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
    """

    address: Address
    hello: Hello
    seconds: float

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that the peer says it serves; None when there is none of that name."""
        try:
            return Scheme(self.hello.hasher, self.hello.branch_factor)  # type: ignore[arg-type]  # it raises then
        except ValueError:
            return None


def met_peers(addresses: tuple[Address, ...]) -> list[MetPeer]:
    """Connect to all peers at once, and return those that greeted, at least one, in the order given.

    Raises:
        Failure: None could be reached.
    """
    greetings = run(_greet_all, addresses)
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


async def _greet_all(addresses: tuple[Address, ...]) -> list[MetPeer | Silence]:
    greetings: dict[Address, MetPeer | Silence] = {}

    async def keep(address: Address) -> None:
        greetings[address] = await greet(address)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(keep, address)
    return [greetings[address] for address in dict.fromkeys(addresses)]


async def greet(address: Address) -> MetPeer | Silence:
    """Connect to a peer, wait for its greeting, and take leave."""
    began = perf_counter()
    with trio.move_on_after(GREETING_SECONDS):
        try:
            async with await trio.open_tcp_stream(*address) as stream:
                return MetPeer(address, await _read_hello(stream), perf_counter() - began)
        except OSError as error:
            return Silence(address, _reason(error))
        except RemoteProtocolError as error:
            return Silence(address, f"it does not speak merklesync: {error}")
        except trio.BrokenResourceError:
            return Silence(address, "it closed the connection")
    return Silence(address, f"it said nothing within {GREETING_SECONDS:.0f} seconds")


def _reason(error: OSError) -> str:
    """Return why a connection failed: what trio gives as the cause, for it tries all addresses of a name."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno)
    return describe(error)


async def _read_hello(stream: trio.SocketStream) -> Hello:
    connection = Connection(Role.CLIENT, _our_hello("blake3", 16))
    while data := await stream.receive_some(_RECEIVE_BYTES):
        for message in connection.receive_data(data):
            if isinstance(message, Hello):
                leave = (_our_hello(message.hasher, message.branch_factor), Goodbye())
                await stream.send_all(b"".join(encode(word).data for word in leave))
                return message
            if isinstance(message, Error):
                raise ConnectionRefusedError(f"it refused: {message.message}")
    connection.receive_end()
    raise trio.BrokenResourceError


def _our_hello(hasher: str, branch_factor: int) -> Hello:
    return Hello(
        hasher=hasher,
        branch_factor=branch_factor,
        root=EMPTY_ROOT,
        revision=0,
        max_frame_bytes=MAX_CONTROL_BYTES,
        user_agent=USER_AGENT,
    )


@click.command()
@click.argument("address", metavar="HOST:PORT", type=ADDRESS)
@json_option
def status(address: Address, *, as_json: bool) -> None:
    """Show what the server at HOST:PORT says of itself. Nothing of it is proved.

    Ends with exit code 4 when no server answers.

    JSON: address, root, revision, keys, hasher, branch_factor, protocol, user_agent, max_keys, max_bytes,
    max_requests, seconds.
    """
    met = met_peers((address,))[0]
    hello = met.hello
    if as_json:
        print_json({"address": str(address), **describe_peer(hello), "seconds": met.seconds})
        return
    print_facts(
        {
            "address": f"{address}, answered in {show_seconds(met.seconds)}",
            "root": hello.root.hex(),
            "revision": f"{hello.revision:,}",
            "keys": f"{hello.keys:,}",
            "scheme": f"{hello.hasher} with branch factor {hello.branch_factor}",
            "software": f"{hello.user_agent}, protocol {hello.version}",
            "limits": f"{show_keys(hello.max_keys)} and {show_size(hello.max_bytes)} a proof, "
            f"{hello.max_requests} requests at a time",
        }
    )


def describe_peer(hello: Hello) -> dict[str, Any]:
    """Return a greeting as the fields of a JSON document."""
    return {
        "root": hello.root.hex(),
        "revision": hello.revision,
        "keys": hello.keys,
        "hasher": hello.hasher,
        "branch_factor": hello.branch_factor,
        "protocol": hello.version,
        "user_agent": hello.user_agent,
        "max_keys": hello.max_keys,
        "max_bytes": hello.max_bytes,
        "max_requests": hello.max_requests,
    }
