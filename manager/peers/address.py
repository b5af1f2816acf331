"""Who a peer is and how it is reached: a name for people, and a function that opens a stream.

Nothing here knows the protocol (see ``client``).
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Self

import trio

from merkledb.arguments import require_callable, require_instance, require_whole

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]


MAX_PORT: Final = 65_535


class Address(NamedTuple):
    """A TCP port of a machine.

    Attributes:
        host: A name or an address; empty where a text left it out.
        port: 0 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` stands for.

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    # Digits are counted first, for Python refuses to read a number of very many with an error of its own.
    is_port = (
        port.isascii() and port.isdecimal() and len(port) <= len(str(MAX_PORT)) and int(port) <= MAX_PORT
    )
    if not colon or not is_port or (":" in host and not is_bracketed):
        raise ValueError(_not_an_address(text))
    name = host[1:-1] if is_bracketed else host
    if not _can_be_looked_up(name):
        raise ValueError(_not_an_address(text))
    return Address(name, int(port))


def _can_be_looked_up(host: str) -> bool:
    """Return whether a name can be asked for at all: no NUL, no part empty or too long."""
    try:
        return b"\0" not in host.encode("idna")
    except UnicodeError:
        return False


def _not_an_address(text: str) -> str:
    return f"{text!r} is not HOST:PORT, such as example.org:7440 or [2001:db8::1]:7440"


class Peer(NamedTuple):
    """A peer.

    Attributes:
        name: What errors and progress call it.
        open_stream: Opens a new connection, and is called again after one was lost.  Whatever it raises, or
            the stream, is a failure of this peer and nobody else's.
    """

    name: str
    open_stream: OpenStream

    @classmethod
    def tcp(cls, host: str, port: int) -> Self:
        """Return the peer that listens at a TCP port.

        Args:
            host: A name or an address.
            port: 1 to 65535.

        Raises:
            ValueError: No name could be looked up as this host, or no port has this number.
            TypeError: The host is no text, or the port no whole number.
        """
        require_instance("host", host, str)
        require_whole("port", port)
        if not host or not _can_be_looked_up(host) or not 1 <= port <= MAX_PORT:
            raise ValueError(_not_an_address(str(Address(host, port))))
        return cls(str(Address(host, port)), partial(trio.open_tcp_stream, host, port))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the peer at ``HOST:PORT``; an IPv6 address stands in brackets.

        Raises:
            ValueError: The address is not of this form.
            TypeError: It is no text.
        """
        require_instance("an address", text, str)
        return cls.tcp(*parse_address(text))


PeerAddress = Peer | str | tuple[str, int]


def peer_at(address: PeerAddress) -> Peer:
    """Return the peer that a caller means.

    Args:
        address: A Peer, ``HOST:PORT``, or a pair of host and port.

    Raises:
        ValueError: It is not a host and a port.
        TypeError: It is none of these.
    """
    # Whatever stands in the annotation, a caller may pass anything.
    given: object = address
    match given:
        case Peer(name, open_stream):
            require_instance("the name of a peer", name, str)
            require_callable("open_stream of a peer", open_stream)
            return given
        case str():
            return Peer.parse(given)
        case (str(host), int(port)):
            return Peer.tcp(host, port)
    raise TypeError(f"a peer is a Peer, HOST:PORT, or a pair of host and port, not {given!r:.100}")


def peers_at(addresses: Sequence[PeerAddress]) -> tuple[Peer, ...]:
    """Return the peers that a caller means, at least one; as ``peer_at``.

    Raises:
        ValueError: None is given.
        TypeError: These are no peers, or a single one.
    """
    if isinstance(addresses, str | Peer) or not isinstance(addresses, Sequence):
        raise TypeError(f"peers are a list of peers, not {type(addresses).__name__}")
    if not addresses:
        raise ValueError("a sync needs at least one peer")
    return tuple(map(peer_at, addresses))
