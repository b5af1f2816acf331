"""Who a peer is and how it is reached: a name for people, and a function that opens a stream.

Nothing here knows the protocol (see ``client``).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Self

import trio

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]


class Peer(NamedTuple):
    """A peer.

    Attributes:
        name: What errors and progress call it.
        open_stream: Opens a new connection; may raise OSError, and is called again after a connection was
            lost.
    """

    name: str
    open_stream: OpenStream

    @classmethod
    def tcp(cls, host: str, port: int) -> Self:
        """Return the peer that listens at a TCP port.

        Args:
            host: A name or an address.
            port: 1 to 65535.
        """
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(name, partial(trio.open_tcp_stream, host, port))

    @classmethod
    def parse(cls, address: str) -> Self:
        """Return the peer at ``HOST:PORT``; an IPv6 address stands in brackets.

        Raises:
            ValueError: The address is not of this form.
        """
        host, colon, port = address.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ValueError(f"{address!r} is not HOST:PORT, such as 192.0.2.1:7440 or [2001:db8::1]:7440")
        return cls.tcp(host, int(port))


PeerAddress = Peer | str | tuple[str, int]


def peer_at(address: PeerAddress) -> Peer:
    """Return the peer that a caller means.

    Args:
        address: A Peer, ``HOST:PORT``, or a pair of host and port.

    Raises:
        ValueError: A text that is not ``HOST:PORT``.
    """
    if isinstance(address, Peer):
        return address
    return Peer.parse(address) if isinstance(address, str) else Peer.tcp(*address)
