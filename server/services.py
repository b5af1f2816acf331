"""What all connections of a server share: the database, its threads, memory, limits, and the counters."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from merkledb import Database
from server.budget import AnswerBudget
from server.handlers import HistoryChecks, ThreadExecutor
from server.head_notifier import HeadNotifier
from server.limits import ServerLimits
from syncproto import ErrorCode


@dataclass(slots=True)
class Counters:
    """Numbers since the server was made; only the server writes them.

    Attributes:
        connections_open: Served at this moment.
        connections_waiting: For a place, at this moment.
        connections_accepted: Served at any time.
        connections_refused: Turned away, as there were too many or the server was shutting down.
        connections_displaced: Told to leave, as a newcomer had more right to the place.
        requests: Received, of any kind.
        answers: Sent that held what was asked for, announcements not among them.
        changes: Answers that held a change proof.
        fallbacks: Requests for changes for which a range was sent, as history did not reach back.
        announcements: Heads sent to subscribers, the first of each subscription among them.
        refusals: Errors sent, by their code, those for whole connections included.
        protocol_errors: Connections ended for the client's misbehaviour.
        timeouts: Connections ended because the client was silent or did not read.
        failures: The server's own, each also reported to the observer.
        bytes_received: From clients.
        bytes_sent: To clients.
    """

    connections_open: int = 0
    connections_waiting: int = 0
    connections_accepted: int = 0
    connections_refused: int = 0
    connections_displaced: int = 0
    requests: int = 0
    answers: int = 0
    changes: int = 0
    fallbacks: int = 0
    announcements: int = 0
    refusals: Counter[ErrorCode] = field(default_factory=Counter)
    protocol_errors: int = 0
    timeouts: int = 0
    failures: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class Services(NamedTuple):
    """What all connections of a server share.

    Attributes:
        database: Which is served.
        limits: Of the server.
        counters: Of the server.
        executor: In whose threads the database is read.
        heads: That looks for new ones.
        large_proofs: As many places as there may be large proofs at a time.
        budget: The memory of all other proofs.
        report: Called with every failure of our own.
        checks: Of proofs at old roots.
    """

    database: Database
    limits: ServerLimits
    counters: Counters
    executor: ThreadExecutor
    heads: HeadNotifier
    large_proofs: trio.Semaphore
    budget: AnswerBudget
    report: Callable[[Exception], None]
    checks: HistoryChecks
