"""What a command sets for its whole process, and sets back."""

import gc

import pytest
import trio

from merklesync.tasks import run


def test_garbage_is_looked_for_seldom_while_a_command_runs() -> None:
    before = gc.get_threshold()

    async def look() -> int:
        await trio.lowlevel.checkpoint()
        assert gc.get_freeze_count() > 0
        return gc.get_threshold()[0]

    assert run(look) > before[0]
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_a_command_that_fails_sets_back_what_it_set() -> None:
    before = gc.get_threshold()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("failed")

    with pytest.raises(KeyError):
        run(fail)
    assert gc.get_threshold() == before
