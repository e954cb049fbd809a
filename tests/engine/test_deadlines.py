from __future__ import annotations

import asyncio

import pytest

from coatcheck.engine.deadlines import Deadlines
from coatcheck.testing import FakeClock, settle


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deadlines(clock: FakeClock) -> Deadlines:
    return Deadlines(2.0, clock)


def wait() -> asyncio.Future[int | None]:
    return asyncio.get_running_loop().create_future()


def tasks() -> int:
    return len(asyncio.all_tasks()) - 1


async def test_each_ends_at_its_own_time(deadlines: Deadlines, clock: FakeClock) -> None:
    first, second = wait(), wait()
    deadlines.begin(first)
    await clock.advance(1.5)
    deadlines.begin(second)
    assert not first.done()
    await clock.advance(0.5)
    assert first.result() is None
    assert not second.done()
    await clock.advance(1.49)
    assert not second.done()
    await clock.advance(0.01)
    assert second.result() is None
    assert tasks() == 0


async def test_what_ended_before_is_left_alone(deadlines: Deadlines, clock: FakeClock) -> None:
    ended, done = wait(), wait()
    deadlines.begin(ended)
    deadlines.begin(done)
    deadlines.end(ended)
    done.set_result(1)
    await clock.advance(2)
    assert not ended.done()
    assert done.result() == 1
    deadlines.end(done)


async def test_one_task_sleeps_for_all_and_none_when_nobody_waits(
    deadlines: Deadlines, clock: FakeClock
) -> None:
    for _ in range(100):
        each = wait()
        deadlines.begin(each)
        deadlines.end(each)
    assert tasks() == 1
    await clock.advance(2)
    assert tasks() == 0
    late = wait()
    deadlines.begin(late)
    await clock.advance(2)
    assert late.result() is None


async def test_a_new_wait_behind_one_that_ended_has_all_its_time(
    deadlines: Deadlines, clock: FakeClock
) -> None:
    first = wait()
    deadlines.begin(first)
    await clock.advance(1)
    deadlines.end(first)
    second = wait()
    deadlines.begin(second)
    await clock.advance(1.99)
    assert not second.done()
    await clock.advance(0.01)
    assert second.result() is None


@pytest.mark.parametrize("turns", range(3))
async def test_when_its_task_was_cancelled_the_next_wait_has_another(
    deadlines: Deadlines, clock: FakeClock, turns: int
) -> None:
    """A program that cancels all tasks that it sees goes on with a cache that asks its store."""
    first, second = wait(), wait()
    deadlines.begin(first)
    await settle()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    for _ in range(turns):
        await clock.sleep(0)
    deadlines.begin(second)
    await clock.advance(2)
    assert first.result() is None
    assert second.result() is None


async def test_after_the_last_nothing_stays_behind(deadlines: Deadlines, clock: FakeClock) -> None:
    first, second = wait(), wait()
    deadlines.begin(first)
    deadlines.last()
    await settle()
    assert tasks() == 1
    deadlines.begin(second)
    deadlines.end(first)
    await clock.advance(2)
    assert second.result() is None
    assert tasks() == 0
    third, fourth = wait(), wait()
    deadlines.begin(third)
    await settle()
    deadlines.end(third)
    # In the same turn.
    deadlines.begin(fourth)
    await clock.advance(2)
    assert fourth.result() is None
    assert tasks() == 0
