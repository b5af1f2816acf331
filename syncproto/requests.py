"""The requests in flight on one connection, the same on both sides, and what may answer each.

- A request leaves at its answer: what it asked for, or an error.  A cancelled one stays until then.
- The subscription, one at most, is apart: it counts as no request, a head answers it without ending it, and
  only an error ends it.
- All share one space of ids.
- A cancel can cross the answer on its way.  So each answer allows one cancel of something that is not in
  flight any more, and a number of them is allowed from the beginning.

What this leaves to ``connection``: who may ask when, and whose mistake a wrong answer is.
"""

from typing import Final

from syncproto.messages import MAX_REQUEST_ID, GetChanges, GetHead, GetRange, Kind, Request, Subscribe

_ANSWERS: Final = {
    GetHead: frozenset({Kind.HEAD}),
    Subscribe: frozenset({Kind.HEAD}),
    GetRange: frozenset({Kind.RANGE}),
    # Where history does not reach back to the old root, the content of the range serves as well.
    GetChanges: frozenset({Kind.CHANGES, Kind.RANGE}),
}


def max_proof_bytes(request: Request) -> int:
    """Return how long a proof that answers a request may be, 0 where none can answer it."""
    return request.max_bytes if isinstance(request, GetRange | GetChanges) else 0


def why_no_answer(request: Request, kind: Kind) -> str | None:
    """Return why a message of this kind does not answer a request, or None where it does."""
    if kind is Kind.ERROR or kind in _ANSWERS[type(request)]:
        return None
    return f"request {request.request_id} was a {type(request).__name__}"


class Requests:
    """The requests in flight, by their ids.

    Args:
        max_late_cancels: Cancels that may come for what was answered, before there are more answers.

    Attributes:
        subscription: The id of the subscription, also of one that was cancelled and has not ended; or None.
        crossing_heads: How many heads of it came after it was cancelled.
    """

    def __init__(self, max_late_cancels: int) -> None:
        self._in_flight: dict[int, Request] = {}
        self._cancelled: set[int] = set()
        self._last_id = 0
        self._max_late_cancels = max_late_cancels
        self._late_cancels_left = max_late_cancels
        self.subscription: int | None = None
        self.crossing_heads = 0

    def __len__(self) -> int:
        """Return how many there are, cancelled ones included and the subscription not."""
        return len(self._in_flight) - (self.subscription is not None)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._in_flight

    def get(self, request_id: int) -> Request | None:
        """Return a request, None where none of this id is in flight."""
        return self._in_flight.get(request_id)

    def is_wanted(self, request_id: int) -> bool:
        """Whether a request is in flight and was not cancelled."""
        return request_id in self._in_flight and request_id not in self._cancelled

    def next_id(self) -> int:
        """Return an id that is not in flight: ids count up and begin again at 1 after ``MAX_REQUEST_ID``."""
        while True:
            self._last_id = self._last_id % MAX_REQUEST_ID + 1
            if self._last_id not in self._in_flight:
                return self._last_id

    def add(self, request: Request) -> None:
        """Note a request whose id is not in flight."""
        self._in_flight[request.request_id] = request
        if isinstance(request, Subscribe):
            self.subscription = request.request_id

    def cancel(self, request_id: int) -> bool:
        """Note that an answer is not wanted any more; return False where none was to come or it was noted."""
        was_wanted = self.is_wanted(request_id)
        if was_wanted:
            self._cancelled.add(request_id)
        return was_wanted

    def allow_late_cancel(self) -> bool:
        """Note a cancel of what is not in flight; return whether it may have crossed the answer."""
        if not self._late_cancels_left:
            return False
        self._late_cancels_left -= 1
        return True

    def answer(self, request_id: int, kind: Kind) -> bool:
        """Note an answer to a request in flight, and return whether it is wanted."""
        wanted = request_id not in self._cancelled
        if not wanted and request_id == self.subscription:
            self.crossing_heads += 1
        if request_id != self.subscription or kind is Kind.ERROR:
            self._remove(request_id)
        if wanted:
            self._late_cancels_left = min(self._late_cancels_left + 1, self._max_late_cancels)
        return wanted

    def _remove(self, request_id: int) -> None:
        del self._in_flight[request_id]
        self._cancelled.discard(request_id)
        if request_id == self.subscription:
            self.subscription = None
            self.crossing_heads = 0

    @property
    def max_proof_bytes(self) -> int:
        """The longest proof that may still come, 0 where none may."""
        return max(map(max_proof_bytes, self._in_flight.values()), default=0)
