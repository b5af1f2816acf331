"""What a command sets for its whole process, and sets back."""

import gc
import sys

import pytest
import trio

from merklesync.console.signals import run


def settings() -> tuple[tuple[int, int, int], int, float]:
    return gc.get_threshold(), gc.get_freeze_count(), sys.getswitchinterval()


def test_nothing_holds_up_the_event_loop_for_long_while_a_command_runs() -> None:
    before = settings()

    async def look() -> None:
        await trio.lowlevel.checkpoint()
        assert gc.get_threshold()[0] > before[0][0]
        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() < before[2]

    run(look)
    assert settings() == before


def test_a_command_that_fails_sets_back_what_it_set() -> None:
    before = settings()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("failed")

    with pytest.raises(KeyError):
        run(fail)
    assert settings() == before
