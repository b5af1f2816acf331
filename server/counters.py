"""What a server has done so far, in numbers, for a status line or for monitoring."""

from collections import Counter
from dataclasses import dataclass, field

from syncproto import ErrorCode


@dataclass(slots=True)
class Counters:
    """Numbers since the server was made; only the server writes them.

    Attributes:
        connections_open: served at this moment.
        connections_accepted: served at any time.
        connections_refused: turned away, as there were too many or the server was shutting down.
        requests: received, of any kind.
        answers: sent that held what was asked for.
        refusals: errors sent, by their code, those for whole connections included.
        protocol_errors: connections ended for the client's misbehaviour.
        timeouts: connections ended because the client was silent or did not read.
        failures: the server's own, each also reported to the observer.
        bytes_received: from clients.
        bytes_sent: to clients.
    """

    connections_open: int = 0
    connections_accepted: int = 0
    connections_refused: int = 0
    requests: int = 0
    answers: int = 0
    refusals: Counter[ErrorCode] = field(default_factory=Counter)
    protocol_errors: int = 0
    timeouts: int = 0
    failures: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
