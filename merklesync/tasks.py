"""Running trio from a command: signals end it in good order, errors come without the groups of nurseries."""

import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio

Result = TypeVar("Result")

# Ctrl-C, and what a service manager sends.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run ``function`` to its end and return what it returns.

    Raises:
        BaseException: What it raises; a group that holds a single exception, as that exception.
    """
    try:
        return trio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group


async def on_stop_signal(
    *actions: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call the first action at the first SIGINT or SIGTERM, the next at the next; return after the last."""
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        task_status.started()
        for action in actions:
            await anext(signals)
            action()
