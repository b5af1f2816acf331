"""Where blocking work runs: what the machine lacks for it is an error of its own, and may be there later."""

import pytest
import trio

from manager import MachineExhausted, SerialExecutor


async def test_work_without_memory_is_a_typed_error() -> None:
    def exhaust() -> None:
        raise MemoryError

    with pytest.raises(MachineExhausted, match="no memory left for the sync"):
        await SerialExecutor().run(exhaust)


async def test_work_without_memory_and_without_a_thread_is_the_same_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    def exhaust() -> None:
        raise MemoryError

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    with pytest.raises(MachineExhausted, match="no memory left for the sync"):
        await SerialExecutor().run(exhaust)


async def test_another_failure_of_the_work_is_raised_as_it_is() -> None:
    def fail() -> None:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        await SerialExecutor().run(fail)
