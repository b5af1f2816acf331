"""TCP listeners, with errors that say what is wrong with the address."""

import errno
import socket
from typing import Final

import trio

from server.errors import AddressInUse, AddressNotAllowed, AddressNotFound, ListenError

_MAX_PORT: Final = 65_535


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Open TCP listeners at every address that a name stands for.

    Args:
        host: A name, an address, or ``0.0.0.0`` and ``::`` for all of the machine's.
        port: 0 to 65,535; 0 lets the system choose one, for each address its own.

    Returns:
        At least one listener; ``Server.serve`` closes them.

    Raises:
        AddressInUse: Another program listens there.
        AddressNotFound: The name cannot be resolved, or is another machine's.
        AddressNotAllowed: The system forbids it.
        ListenError: Anything else, such as a port out of range.
    """
    if not 0 <= port <= _MAX_PORT:
        raise ListenError(host, port, f"a port is a number from 0 to {_MAX_PORT}")
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressNotFound(host, port) from error
    except OSError as error:
        raise _listen_error(host, port, error) from error


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(host, port)
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressNotFound(host, port)
    if error.errno in (errno.EACCES, errno.EPERM):
        return AddressNotAllowed(host, port)
    return ListenError(host, port, error.strerror or str(error))


def addresses_of(listeners: list[trio.SocketListener]) -> list[tuple[str, int]]:
    """Return host and port of each listener, as the system chose them."""
    names = (listener.socket.getsockname() for listener in listeners)
    return [(name[0], name[1]) for name in names]
