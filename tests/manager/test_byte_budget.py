"""The budget of bytes: first come, first served, and bounded."""

import trio
import trio.testing
from trio.testing import MockClock

from manager.memory import ByteBudget


def budget_of(limit_bytes: int) -> ByteBudget:
    return ByteBudget(limit_bytes, lambda: None)


async def test_bytes_within_the_limit_are_granted_at_once(autojump_clock: MockClock) -> None:
    budget = budget_of(100)
    await budget.reserve(60)
    await budget.reserve(40)
    assert budget.reserved_bytes == 100
    assert not budget.is_starving


async def test_who_comes_too_late_waits_until_enough_is_released(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    budget = budget_of(100)
    granted: list[int] = []

    async def want(count: int) -> None:
        await budget.reserve(count)
        granted.append(count)

    await budget.reserve(90)
    nursery.start_soon(want, 50)
    await trio.testing.wait_all_tasks_blocked()
    assert budget.is_starving
    budget.release(30)
    await trio.testing.wait_all_tasks_blocked()
    assert granted == []
    budget.release(10)
    await trio.testing.wait_all_tasks_blocked()
    assert granted == [50]


async def test_a_large_reservation_is_not_starved_by_small_ones(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    budget = budget_of(100)
    granted: list[int] = []

    async def want(count: int) -> None:
        await budget.reserve(count)
        granted.append(count)

    await budget.reserve(50)
    nursery.start_soon(want, 80)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(want, 30)
    await trio.testing.wait_all_tasks_blocked()
    assert granted == []
    budget.release(50)
    await trio.testing.wait_all_tasks_blocked()
    assert granted == [80]
    budget.release(80)
    await trio.testing.wait_all_tasks_blocked()
    assert granted == [80, 30]


async def test_more_than_the_whole_budget_is_granted_when_nothing_else_is(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    budget = budget_of(100)
    await budget.reserve(1)
    nursery.start_soon(budget.reserve, 500)
    await trio.testing.wait_all_tasks_blocked()
    assert budget.reserved_bytes == 1
    budget.release(1)
    await trio.testing.wait_all_tasks_blocked()
    assert budget.reserved_bytes == 500


async def test_who_is_cancelled_leaves_the_line_to_the_next(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    budget = budget_of(100)
    await budget.reserve(90)
    with trio.move_on_after(1) as impatient:
        await budget.reserve(50)
    assert impatient.cancelled_caught
    assert not budget.is_starving
    await budget.reserve(10)
    assert budget.reserved_bytes == 100


async def test_who_is_cancelled_after_the_grant_gives_it_back(autojump_clock: MockClock) -> None:
    budget = budget_of(100)
    await budget.reserve(100)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(budget.reserve, 70)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            budget.release(100)
    assert budget.reserved_bytes == 0


async def test_whoever_holds_memory_back_is_told_that_somebody_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    told: list[bool] = []
    budget = ByteBudget(10, lambda: told.append(budget.is_starving))
    await budget.reserve(10)
    assert told == []
    nursery.start_soon(budget.reserve, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert told == [True]
    budget.release(10)
