"""TCP listeners, and what can be wrong with an address before a server serves, as one tree of errors.

::

    ServerError
    └── ListenError               no listener could be opened at an address
        ├── AddressInUse          another program listens there
        ├── AddressNotFound       the name cannot be resolved, or is not this machine's
        └── AddressNotAllowed     the system forbids this program to listen there

While it serves, a server raises nothing for what a client does: clients get an ``Error`` message, and the
counters and the observer of failures tell the operator.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Final

import trio

from merkledb import PicklableError
from merkledb.arguments import require_instance, require_whole

_MAX_PORT: Final = 65_535


class ServerError(PicklableError):
    """The root of every error that this package raises on purpose."""


class ListenError(ServerError):
    """No listener could be opened at an address.

    Attributes:
        host: The name or number that was given.
        port: The port that was given.
    """

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen at {host}:{port}: {reason}")
        self.host = host
        self.port = port


class AddressInUse(ListenError):
    """Another program listens at the address."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, "another program listens there; stop it, or choose another port")


class AddressNotFound(ListenError):
    """The name cannot be resolved, or is the address of another machine."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, "that is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all")


class AddressNotAllowed(ListenError):
    """The system forbids this program to listen at the address."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, "the system does not allow it; choose a port from 1024 on")


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Open TCP listeners at every address that a name stands for.

    A name is resolved in a thread.  A cancellation leaves no listener open.

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
        TypeError: The host is no text, or the port no whole number.
    """
    require_instance("host", host, str)
    require_whole("port", port)
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
    """Return host and port of each listener, as the system chose them.

    Raises:
        TypeError: These are no listeners of TCP.
    """
    require_instance("listeners", listeners, Sequence)
    for listener in listeners:
        require_instance("a listener", listener, trio.SocketListener)
    names = (listener.socket.getsockname() for listener in listeners)
    return [(name[0], name[1]) for name in names]
