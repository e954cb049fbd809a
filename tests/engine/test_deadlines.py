from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from coatcheck.engine import guarded
from coatcheck.engine.deadlines import Deadlines
from coatcheck.errors import StoreFailed
from coatcheck.testing import FakeClock, MemoryStore, settle

if TYPE_CHECKING:
    from coatcheck.engine.store import Store


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


async def test_who_waits_while_all_tasks_are_cancelled_waits_for_its_time_and_no_longer(
    deadlines: Deadlines, clock: FakeClock
) -> None:
    """As at the end of a loop: what is cancelled there may still have something to do, as to clear a session."""
    first, second = wait(), wait()
    deadlines.begin(first)
    await settle()
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        each.cancel()
    deadlines.begin(second)
    await settle()
    assert not second.done()
    await clock.advance(2)
    assert first.done()
    assert second.done()
    third = wait()
    deadlines.begin(third)
    await settle()
    deadlines.end(third)
    await settle()
    assert tasks() == 0


@pytest.mark.parametrize("slept", [True, False])
async def test_nobody_waits_for_ever_when_the_task_is_cancelled(
    deadlines: Deadlines, clock: FakeClock, *, slept: bool
) -> None:
    first, second = wait(), wait()
    deadlines.begin(first)
    if slept:
        await settle()
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        each.cancel()
    await settle()
    assert first.result() is None
    deadlines.begin(second)
    await clock.advance(2)
    assert second.result() is None


def test_a_loop_that_was_left_takes_no_deadline_from_the_next(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "AT_ONCE", 1)
    store = guarded.GuardedStore(MemoryStore(clock=clock), clock)
    left = asyncio.new_event_loop()
    gate = left.create_future()

    async def hang(_store: Store) -> None:
        await asyncio.get_running_loop().create_future()

    async def pass_gate(_store: Store) -> None:
        await gate

    former = [left.create_task(store.read(pass_gate)), left.create_task(store.read(hang))]
    left.run_until_complete(settle())
    store.moved()
    gate.set_result(None)
    # Only now the second has its turn.
    left.run_until_complete(settle())

    async def next_home() -> bool:
        read = asyncio.ensure_future(store.read(hang))
        await clock.advance(guarded.READ_SECONDS)
        return read.done() and isinstance(read.exception(), StoreFailed)

    try:
        assert asyncio.run(next_home())
    finally:
        for each in asyncio.all_tasks(left):
            each.cancel()
        left.run_until_complete(asyncio.gather(*former, return_exceptions=True))
        left.run_until_complete(settle())
        left.close()
