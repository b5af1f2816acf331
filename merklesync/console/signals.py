"""Running trio from a command: signals end it in good order, errors come without the groups of nurseries.

A command is a process of its own, so it may also set what belongs to the whole process, as no library may.
"""

import gc
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import trio

Result = TypeVar("Result")

# Ctrl-C, and what a service manager sends.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# After so many new objects Python looks for garbage.  Proofs, and what a walk to changes meets, are not
# garbage while they are in use.  With Python's 700, it would go through them hundreds of times a second, and
# hold up the event loop each time.  What could be garbage meanwhile takes some megabytes at most.
_OBJECTS_BETWEEN_COLLECTIONS: Final = 100_000
# After this time a thread gives the interpreter away to one that waits for it, as the event loop waits for
# the thread that verifies.  With Python's 5 ms that alone could block the loop for as long as it ever may be;
# a tenth of it costs nothing that can be measured, because nothing else waits.
_SWITCH_SECONDS: Final = 0.0005


def run(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run ``function`` to its end and return what it returns.

    Raises:
        BaseException: What it raises; a group that holds a single exception, as that exception.
    """
    try:
        with short_pauses():
            return trio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group


@contextmanager
def short_pauses() -> Iterator[None]:
    """Let nothing hold up the event loop for long that belongs to the whole process."""
    thresholds, interval_seconds = gc.get_threshold(), sys.getswitchinterval()
    # What is here by now are the modules, which are there to stay: no collection has to look at them.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *thresholds[1:])
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_seconds)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def run_until_signal(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run ``function`` to its end, or until the first SIGINT or SIGTERM.

    Raises:
        KeyboardInterrupt: A signal came; ``function`` was cancelled.
        BaseException: As ``run``.
    """
    result: Result = run(_run_until_signal, function, *arguments)
    return result


async def _run_until_signal(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    results: list[Result] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(wait_for_stop_signals, nursery.cancel_scope.cancel)
        results.append(await function(*arguments))
        nursery.cancel_scope.cancel()
    if not results:
        raise KeyboardInterrupt
    return results[0]


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it leaves nothing half-written."""
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only; a command in another thread is ended by its caller.
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Do what SIGINT would do now, for trio knows when it may; where that is ignored, do it all the same."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


async def wait_for_stop_signals(
    *actions: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call the first action at the first SIGINT or SIGTERM, the next at the next; return after the last."""
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        task_status.started()
        for action in actions:
            await anext(signals)
            action()
