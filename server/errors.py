"""What can go wrong before a server serves, as one tree.

::

    ServerError
    └── ListenError               no listener could be opened at an address
        ├── AddressInUse          another program listens there
        ├── AddressNotFound       the name cannot be resolved, or is not this machine's
        └── AddressNotAllowed     the system forbids this program to listen there

While it serves, a server raises nothing for what a client does: clients get an ``Error`` message, and the
counters and the observer of failures tell the operator.
"""

from merkledb import PicklableError


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
