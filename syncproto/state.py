"""Who may send what, in which state: the order of messages as one table.

Both sides run the same small machine, each side in a state of its own:

::

    BEFORE_HELLO --hello--> OPEN --goodbye--> LEAVING
          |                  |                   |
          +-- error 0 -------+------- error 0 ---+--> ENDED      (error 0: an error for request id 0)

=============  ==========================================  ===========================================
state          a client may send                           a server may send
=============  ==========================================  ===========================================
BEFORE_HELLO   hello, error 0                              hello, error 0
OPEN           requests, cancel, ping, pong, goodbye,      answers, errors, ping, pong, goodbye, error 0
               error 0
LEAVING        cancel, ping, pong, error 0                 answers, errors, ping, pong, error 0
ENDED          nothing                                     nothing
=============  ==========================================  ===========================================

What this leaves to ``connection``: ids, limits, and the rules that need both sides' states.
"""

from enum import Enum, auto
from typing import Final

from syncproto.messages import Kind


class Role(Enum):
    """Which side of the conversation a connection speaks for."""

    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    """How far one side of the conversation is."""

    BEFORE_HELLO = auto()
    OPEN = auto()
    LEAVING = auto()
    ENDED = auto()


ANSWERS: Final = frozenset({Kind.HEAD, Kind.RANGE, Kind.CHANGES, Kind.ERROR})
_REQUESTS: Final = frozenset({Kind.GET_HEAD, Kind.GET_RANGE, Kind.GET_CHANGES, Kind.SUBSCRIBE})
_EITHER: Final = frozenset({Kind.PING, Kind.PONG})
_ALLOWED: Final = {
    (Role.CLIENT, State.BEFORE_HELLO): frozenset({Kind.HELLO}),
    (Role.SERVER, State.BEFORE_HELLO): frozenset({Kind.HELLO}),
    (Role.CLIENT, State.OPEN): _EITHER | _REQUESTS | {Kind.CANCEL, Kind.GOODBYE},
    (Role.SERVER, State.OPEN): _EITHER | ANSWERS | {Kind.GOODBYE},
    (Role.CLIENT, State.LEAVING): _EITHER | {Kind.CANCEL},
    (Role.SERVER, State.LEAVING): _EITHER | ANSWERS,
}


def next_state(state: State, kind: Kind, request_id: int) -> State:
    """Return the state of a side after a message of its own that ``why_not`` allows."""
    if kind is Kind.ERROR and request_id == 0:
        return State.ENDED
    if kind is Kind.HELLO:
        return State.OPEN
    return State.LEAVING if kind is Kind.GOODBYE else state


def why_not(role: Role, state: State, kind: Kind, request_id: int) -> str | None:
    """Return why a side may not send a message of this kind, or None where it may."""
    if state is State.ENDED:
        return "an error for request id 0 ended the connection"
    if kind is Kind.ERROR and request_id == 0:
        return None
    if kind in _ALLOWED[role, state]:
        return None
    if state is State.BEFORE_HELLO:
        return "hello comes first"
    if kind in _ALLOWED[role, State.OPEN]:
        return "goodbye was said"
    return "hello was said already" if kind is Kind.HELLO else f"it is not a {role.name.lower()}'s to send"
