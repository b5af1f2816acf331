"""The server: proves ranges and changes of a database to every client that connects, within limits.

``Server`` serves over any trio listener; ``open_listeners`` opens those of TCP.  A request goes this way:
``server`` accepts a client, ``places`` gives it a place, for which it may wait in ``waiting_line``,
``connection`` receives the request, ``answerer`` takes memory from ``budget``, ``handlers`` makes the answer
in a thread, ``sender`` sends it.  Begin with ``server``.
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
