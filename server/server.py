"""The server: accepts connections, bounds them, and ends them in good order.

It serves one database, over any trio listener.  What is said on a connection is ``connection``; what is
read from the database is ``handlers``.  Nothing that a client does raises here, and no failure of one
connection ends another.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import trio

from merkledb import Database
from merkledb.arguments import require_callable, require_instance
from server.budget import AnswerBudget
from server.closing import Refusals
from server.connection import ClientConnection
from server.handlers import HistoryChecks, ThreadExecutor, read_head
from server.head_notifier import HeadNotifier
from server.limits import DOOR_SECONDS, LINGER_SECONDS, ServerLimits
from server.places import Place, Places, network_of
from server.services import Counters, Services
from server.waiting_line import ClientLeft, WaitingLine
from syncproto import MAX_CONTROL_BYTES, Error, ErrorCode, Hello, InvalidMessage, encode

USER_AGENT: Final = "merklesync-server/0.1"

Listeners: TypeAlias = Sequence[trio.abc.Listener[trio.abc.Stream]]

_log: Final = logging.getLogger(__name__)


def _log_failure(error: Exception) -> None:
    _log.error("the server failed to answer a client, and goes on: %s", error, exc_info=error)


class Server:
    """Serves one database.

    Args:
        database: To prove ranges and changes of; the caller closes it after ``serve`` has returned.  It may
            be written to meanwhile, also by another process, and need not have a complete root yet.
        limits: Of connections, requests, proofs and waits.
        executor: In whose threads the database is read; one of ``limits.max_threads`` when None.
        on_failure: Called with every failure of our own, in the event loop; logs it when None.  Clients are
            told of a failure, and nothing of its cause.
        user_agent: Program and version, for the clients' logs; at most 128 bytes.
        network_of: Returns the network of a client, whose connections share what ``ServerLimits`` allows to a
            network; an empty text where it is not known.

    Attributes:
        counters: What was done so far.
        limits: As given.

    Raises:
        TypeError: An argument is of another type than these.
        ValueError: The user agent is too long, or holds control characters.
    """

    def __init__(
        self,
        database: Database,
        *,
        limits: ServerLimits | None = None,
        executor: ThreadExecutor | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        user_agent: str = USER_AGENT,
        network_of: Callable[[trio.abc.Stream], str] = network_of,
    ) -> None:
        self.limits: Final = ServerLimits() if limits is None else limits
        require_instance("database", database, Database)
        require_instance("limits", self.limits, ServerLimits)
        require_callable("network_of", network_of)
        if executor is not None:
            require_instance("executor", executor, ThreadExecutor)
        if on_failure is not None:
            require_callable("on_failure", on_failure)
        _require_user_agent(user_agent)
        self.counters: Final = Counters()
        self._user_agent = user_agent
        self._on_failure = on_failure or _log_failure
        self._stopping = trio.Event()
        self._network_of = network_of
        self._clients: set[ClientConnection] = set()
        places = Places(self.limits, self.counters)
        self._line = WaitingLine(places, self.limits, self.counters, self._say_hello)
        # One hello serves all that stand at the door at a time: they are many, and threads few.
        self._reading_for_door = trio.Lock()
        self._door_hello: Hello | None = None
        self._door_hello_expires_at = -math.inf
        self._refusals = Refusals(self.limits.max_connections)
        executor = executor or ThreadExecutor(self.limits.max_threads)
        self._heads = HeadNotifier(database, executor, self.limits, self._report)
        self._services = Services(
            database,
            self.limits,
            self.counters,
            executor,
            self._heads,
            trio.Semaphore(self.limits.max_large_proofs),
            AnswerBudget(self.limits.max_answer_bytes, self.limits.max_connections),
            self._report,
            HistoryChecks(),
        )

    def stop(self) -> None:
        """Begin a graceful shutdown: ``serve`` returns when all in flight is answered, or its time is up."""
        self._stopping.set()

    def announce(self) -> None:
        """Look for a new head now, so that subscribers need not wait until the server looks by itself.

        To be called in the event loop, after a commit; from a thread with ``trio.from_thread.run_sync``.
        """
        self._heads.look_now()

    async def serve(
        self,
        listeners: Listeners,
        *,
        task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop`` is called.  To be called once.

        A cancellation cuts off all clients without a word.  When this returns or raises, every listener and
        every connection is closed, and no thread reads the database any more, so that it can be closed.

        Args:
            listeners: Of trio, such as ``open_listeners`` makes, at least one; closed at the end.
            task_status: Started with the listeners when connections are accepted.

        Raises:
            TypeError, ValueError: These are no listeners, or none is given.
        """
        _require_listeners(listeners)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                await accepting.start(self._accept, listeners, connections)
                accepting.start_soon(self._heads.run)
                accepting.start_soon(self._line.run)
                task_status.started(listeners)
                await self._stopping.wait()
                # Listeners are closed first, so that a client that comes too late tries another at once.
                accepting.cancel_scope.cancel()
            self._line.close()
            connections.cancel_scope.deadline = trio.current_time() + self.limits.shutdown_timeout_seconds
            for client in self._clients:
                client.leave()

    async def _accept(
        self,
        listeners: Listeners,
        connections: trio.Nursery,
        *,
        task_status: trio.TaskStatus[list[trio.abc.Listener[trio.abc.Stream]]],
    ) -> None:
        await trio.serve_listeners(
            self._handle, list(listeners), handler_nursery=connections, task_status=task_status
        )

    async def _handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; a failure of ours ends that one and no other.

        The stream is closed and the place given back at the end, also when cancelled.
        """
        try:
            place = None
            if not self._stopping.is_set():
                place = await self._line.take(stream, self._network_of(stream))
            if place is not None:
                await self._serve(stream, place)
            elif self._stopping.is_set():
                await self._refuse(stream, Error(0, ErrorCode.SHUTTING_DOWN, "the server is shutting down"))
            else:
                sentence = "all places are taken: try again"
                delay = self.limits.retry_after_milliseconds
                await self._refuse(stream, Error(0, ErrorCode.OVERLOADED, sentence, delay))
        except ClientLeft:
            pass
        except Exception as error:  # noqa: BLE001 - one connection must not end the others
            self._report(error)
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.Stream, place: Place) -> None:
        self.counters.connections_open += 1
        self.counters.connections_accepted += 1
        try:
            hello = place.said or await self._hello()
            if hello is None:
                await self._refuse(stream, Error(0, ErrorCode.INTERNAL, "the server failed: use another"))
            else:
                place.client = ClientConnection(
                    stream, hello, self._services, place.heard, hello_was_said=place.said is not None
                )
                await self._talk(place.client)
        finally:
            self._line.leave(place)
            self.counters.connections_open -= 1

    async def _talk(self, client: ClientConnection) -> None:
        self._clients.add(client)
        try:
            if self._stopping.is_set():
                client.leave()
            await client.run()
        finally:
            self._clients.discard(client)

    async def _hello(self) -> Hello | None:
        """Return what we say first, None where not even the head can be read.

        The head is read in a thread, for which a cancellation waits.
        """
        database = self._services.database
        try:
            head = await self._services.executor.run(partial(read_head, database))
        except Exception as error:  # noqa: BLE001 - whatever fails in a worker must not end the server
            self._report(error)
            return None
        return Hello(
            hasher=database.scheme.hasher,
            branch_factor=database.scheme.branch_factor,
            root=head.root,
            revision=head.revision,
            keys=head.keys,
            max_frame_bytes=MAX_CONTROL_BYTES,
            max_keys=self.limits.max_keys,
            max_bytes=self.limits.max_bytes,
            max_requests=self.limits.max_requests,
            user_agent=self._user_agent,
        )

    async def _say_hello(self, stream: trio.abc.Stream) -> Hello | None:
        """Say our hello to a client that waits for a place; return it, None where it was not said.

        A cancellation says all of it or nothing, and waits for that, ``LINGER_SECONDS`` at most.

        Raises:
            trio.BrokenResourceError: The client has left, or does not take it.
        """
        async with self._reading_for_door:
            if trio.current_time() >= self._door_hello_expires_at:
                self._door_hello = await self._hello()
                self._door_hello_expires_at = trio.current_time() + DOOR_SECONDS
        hello = self._door_hello
        if hello is None:
            return None
        # It fits into the buffer of any network, so that this is not waited for.
        data = encode(hello).data
        with trio.CancelScope(deadline=trio.current_time() + LINGER_SECONDS, shield=True) as patience:
            await stream.send_all(data)
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("the client does not take our hello")
        self.counters.bytes_sent += len(data)
        return hello

    async def _refuse(self, stream: trio.abc.Stream, error: Error) -> None:
        """Say why, and close, also when cancelled."""
        self.counters.connections_refused += 1
        self.counters.refusals[error.code] += 1
        await self._refusals.refuse(stream, error)

    def _report(self, error: Exception) -> None:
        self.counters.failures += 1
        self._on_failure(error)


def _require_user_agent(user_agent: str) -> None:
    require_instance("user_agent", user_agent, str)
    try:
        # What a hello cannot carry is found here, and not with the first client.
        encode(
            Hello(
                hasher="blake3",
                branch_factor=2,
                root=None,
                revision=0,
                max_frame_bytes=MAX_CONTROL_BYTES,
                user_agent=user_agent,
            )
        )
    except InvalidMessage as error:
        raise ValueError(f"user_agent is a short text without control characters: {error.detail}") from error


def _require_listeners(listeners: Listeners) -> None:
    require_instance("listeners", listeners, Sequence)
    if not listeners:
        raise ValueError("a server needs at least one listener")
    for listener in listeners:
        require_instance("a listener", listener, trio.abc.Listener)


async def serve(
    database: Database,
    listeners: Listeners,
    *,
    limits: ServerLimits | None = None,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a database until cancelled; a ``Server`` can also be stopped gracefully.

    Args:
        database: To prove ranges of.
        listeners: Of trio; closed at the end.
        limits: Of connections, requests, proofs and waits.
        task_status: Started with the listeners when connections are accepted.
    """
    await Server(database, limits=limits).serve(listeners, task_status=task_status)
