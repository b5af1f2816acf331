"""The server: proves ranges of a database to whoever connects, within limits.

``Server`` serves over any trio listener; ``open_listeners`` opens those of TCP.
"""

from server.handlers import ThreadExecutor
from server.limits import ServerLimits
from server.listeners import (
    AddressInUse,
    AddressNotAllowed,
    AddressNotFound,
    ListenError,
    ServerError,
    addresses_of,
    open_listeners,
)
from server.server import Server, serve
from server.services import Counters

__all__ = [
    "AddressInUse",
    "AddressNotAllowed",
    "AddressNotFound",
    "Counters",
    "ListenError",
    "Server",
    "ServerError",
    "ServerLimits",
    "ThreadExecutor",
    "addresses_of",
    "open_listeners",
    "serve",
]
