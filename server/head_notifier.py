"""New heads on their way to subscribers: one task that reads the database, one message for each subscriber.

::

    database.head --> HeadNotifier --> Subscription (the newest head) --> sender of the connection
       polled, or looked at when         one of each client             takes it when it
       ``announce`` says so                                             can send

A commit may come from another process, so the database is asked now and then, by one task for the whole
server, and only while a client is subscribed.

Invariant: a subscription holds at most one message that waits, whatever the client reads.  So subscribers
cost the same whether they are quick or slow, and a slow one gets the newest head, never a queue of old ones.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from merkledb import Database
from server.handlers import HeadFacts, ThreadExecutor, read_head
from server.limits import ServerLimits
from syncproto import Error, ErrorCode, Head

# Looks that may follow each other at once, after a second without so many; then they keep their pace.
LOOKS_AT_ONCE: Final = 50


class Subscription:
    """What waits to be sent to one subscriber: nothing, the newest head, or the error that is the end.

    Args:
        request_id: Of the client's ``Subscribe``.
    """

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self.ended = False
        self._newest: HeadFacts | None = None
        self._waiting: Head | Error | None = None
        self._ready = trio.Event()

    @property
    def is_new(self) -> bool:
        """Whether no head was offered yet."""
        return self._newest is None

    @property
    def is_over(self) -> bool:
        """Whether the end was taken, so that nothing comes any more."""
        return self.ended and self._waiting is None

    def offer(self, head: HeadFacts) -> None:
        """Let a head wait, in the place of an older one that waits, unless it was offered last."""
        if head == self._newest or self.ended:
            return
        self._newest = head
        self._let_wait(Head(self.request_id, *head))

    def end(self, code: ErrorCode, message: str) -> None:
        """Let the end wait, in the place of a head that waits; no head can be offered after it."""
        if not self.ended:
            self.ended = True
            self._let_wait(Error(self.request_id, code, message))

    def _let_wait(self, message: Head | Error) -> None:
        self._waiting = message
        self._ready.set()

    async def wait(self) -> None:
        """Wait until there is something to send; a cancellation takes nothing."""
        await self._ready.wait()

    def take(self) -> Head | Error | None:
        """Return what is to be sent, which waits no more; to be called at the moment of sending."""
        message, self._waiting = self._waiting, None
        self._ready = trio.Event()
        return message


class HeadNotifier:
    """Looks for new heads while a client is subscribed.

    Args:
        database: Whose head is read; other processes may write to it.
        executor: In whose threads it is read.
        limits: How often it looks.
        report: Called with a failure to read the head, once until it can be read again.
    """

    def __init__(
        self,
        database: Database,
        executor: ThreadExecutor,
        limits: ServerLimits,
        report: Callable[[Exception], None],
    ) -> None:
        self._read = partial(read_head, database)
        self._executor = executor
        self._limits = limits
        self._report = report
        self._subscriptions: set[Subscription] = set()
        self._subscribed = trio.Event()
        self._wake = trio.Event()
        self._failing = False
        self._due = -math.inf

    def __len__(self) -> int:
        return len(self._subscriptions)

    def add(self, subscription: Subscription) -> None:
        """Offer every head to a subscription from now on, the one of this moment first."""
        self._subscriptions.add(subscription)
        self._subscribed.set()
        self.look_now()

    def remove(self, subscription: Subscription) -> None:
        """Offer no more heads to a subscription; nothing happens where it gets none."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._subscribed = trio.Event()

    def look_now(self) -> None:
        """Look at the database without waiting for the interval to pass."""
        self._wake.set()

    async def run(self) -> None:
        """Look for new heads until cancelled, which leaves every subscription as it is.

        In the event loop; each look is one small read in a thread, which a cancellation waits for.  There is
        none while no client is subscribed, else at most one in ``head_pause_seconds`` on average.
        """
        while True:
            await self._subscribed.wait()
            # Before the look, not after it: a commit during the look may be missed by it, so what asks for a
            # look from here on gets one that begins later.
            self._wake = trio.Event()
            await self._look()
            with trio.move_on_after(self._limits.head_interval_seconds):
                await self._wake.wait()
            await self._keep_pace()

    async def _keep_pace(self) -> None:
        """Wait where looks follow each other too quickly, however often there are commits or subscriptions.

        A cancellation leaves nothing behind.
        """
        pause_seconds, now = self._limits.head_pause_seconds, trio.current_time()
        # A look is due one pause after the last one was; what was not used of a second may be caught up.
        self._due = max(self._due + pause_seconds, now - LOOKS_AT_ONCE * pause_seconds)
        if self._due > now:
            await trio.sleep_until(self._due)

    async def _look(self) -> None:
        """Read the head in a thread, and offer it; a cancellation waits for the thread."""
        try:
            head = await self._executor.run(self._read)
        except Exception as error:  # noqa: BLE001 - whatever fails in a worker must not end the server
            self._fail(error)
            return
        self._failing = False
        for subscription in self._subscriptions:
            subscription.offer(head)

    def _fail(self, error: Exception) -> None:
        """Report a failure, and refuse those who have no head yet; the others have lost nothing."""
        if not self._failing:
            self._report(error)
        self._failing = True
        for subscription in [each for each in self._subscriptions if each.is_new]:
            subscription.end(ErrorCode.INTERNAL, "the server failed: use another")
            self.remove(subscription)
