"""Loads at once and loads a second: bounded, in order, callers before background loads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from coatcheck import Limits
from coatcheck.engine.deadlines import Deadlines
from coatcheck.engine.slots import Pace, Slots, Ticket
from coatcheck.errors import PolicyError
from coatcheck.testing import FakeClock, settle


class Crowd:
    """Tasks that take their turns at a gate, and note when."""

    def __init__(self, gate: Slots | Pace, clock: FakeClock) -> None:
        self.gate = gate
        self.clock = clock
        self.turns: list[tuple[str, float]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.tickets: dict[str, Ticket] = {}
        self.taken: dict[str, bool] = {}

    def send(self, name: str, *, background: bool = False) -> None:
        self.tickets[name] = ticket = Ticket(background=background)

        async def wait() -> None:
            self.taken[name] = await self.gate.take(ticket)
            self.turns.append((name, self.clock.monotonic()))

        self.tasks[name] = asyncio.create_task(wait())

    def names(self) -> list[str]:
        return [name for name, _ in self.turns]


async def test_who_waits_too_long_for_a_slot_leaves_the_line() -> None:
    """Neither it nor who was before it costs the next its turn."""
    clock = FakeClock()
    slots, deadlines = Slots(1), Deadlines(2.0, clock)
    assert await slots.take(Ticket(), within=deadlines)
    first = asyncio.create_task(slots.take(Ticket(), within=deadlines))
    await clock.advance(1)
    second = asyncio.create_task(slots.take(Ticket(), within=deadlines))
    await clock.advance(1)
    assert first.done()
    assert not first.result()
    assert not second.done()
    slots.give_back()
    assert await second
    slots.give_back()
    # Nothing of it comes later, and nothing is left.
    await clock.advance(10)
    assert slots._free == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_more_than_the_slots_at_once_and_in_order() -> None:
    """The third waits for the first to give back, and comes before the fourth."""
    slots, clock = Slots(2), FakeClock()
    crowd = Crowd(slots, clock)
    for name in "abcd":
        crowd.send(name)
    await settle()
    assert ["a", "b"] == crowd.names()

    slots.give_back()
    await settle()

    assert ["a", "b", "c"] == crowd.names()
    crowd.tasks["d"].cancel()
    await settle()


async def test_callers_come_before_background_loads_that_came_first() -> None:
    """A background load waits until no caller does."""
    slots, clock = Slots(1), FakeClock()
    crowd = Crowd(slots, clock)
    crowd.send("first")
    await settle()
    crowd.send("refresh", background=True)
    await settle()
    crowd.send("caller")
    await settle()

    slots.give_back()
    await settle()
    slots.give_back()
    await settle()

    assert ["first", "caller", "refresh"] == crowd.names()


async def test_a_cancelled_waiter_costs_nobody_a_slot() -> None:
    """Cancelled while waiting, or in the moment of being called: the slot goes to the next."""
    slots, clock = Slots(1), FakeClock()
    crowd = Crowd(slots, clock)
    for name in "abcd":
        crowd.send(name)
    await settle()

    crowd.tasks["b"].cancel()
    slots.give_back()
    crowd.tasks["c"].cancel()
    await settle()

    assert ["a", "d"] == crowd.names()


async def test_the_pace_is_never_exceeded_and_nothing_is_lost() -> None:
    """Ten at four a second begin a quarter of a second apart."""
    clock = FakeClock()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.add(asyncio.create_task(work))

    pace = Pace(4.0, clock=clock, spawn=spawn)
    crowd = Crowd(pace, clock)
    for number in range(10):
        crowd.send(f"load-{number}", background=number < 3)
    begin = clock.monotonic()
    await clock.advance(10)

    assert [0.25 * turn for turn in range(10)] == [at - begin for _, at in crowd.turns]
    # The first moment was free when the first background load came; the others waited for every caller.
    assert ["load-0", "load-3"] == crowd.names()[:2]
    assert ["load-1", "load-2"] == crowd.names()[-2:]


@pytest.mark.parametrize("pace", [0, -1.0, float("nan"), float("inf")])
def test_a_pace_that_cannot_be_kept_is_refused(pace: float) -> None:
    """The message says what to write instead."""
    with pytest.raises(PolicyError, match="above zero"):
        Limits(max_loads_per_second=pace)


async def test_a_background_load_that_somebody_comes_to_wait_for_comes_after_the_callers_that_are_there() -> (
    None
):
    slots, clock = Slots(1), FakeClock()
    crowd = Crowd(slots, clock)
    for name in ("first", "refresh", "other refresh", "caller"):
        crowd.send(name, background="refresh" in name)
        await settle()
    crowd.tickets["other refresh"].hasten()
    crowd.send("late caller")
    for _ in range(4):
        await settle()
        slots.give_back()
    await settle()
    assert ["first", "caller", "other refresh", "late caller", "refresh"] == crowd.names()


async def test_who_is_excused_takes_no_slot_and_gives_none_back() -> None:
    slots, clock = Slots(1), FakeClock()
    crowd = Crowd(slots, clock)
    for name in "abc":
        crowd.send(name)
    await settle()
    crowd.tickets["b"].excuse()
    await settle()
    assert {"a": True, "b": False} == crowd.taken
    slots.give_back()
    await settle()
    assert ["a", "b", "c"] == crowd.names()
    crowd.tickets["b"].excuse()
    assert await slots.take(crowd.tickets["b"]) is False


async def test_the_pace_excuses_nobody() -> None:
    clock = FakeClock()
    pace = Pace(1.0, clock=clock, spawn=asyncio.ensure_future)
    crowd = Crowd(pace, clock)
    crowd.send("a")
    crowd.send("b")
    await settle()
    crowd.tickets["b"].excuse()
    await settle()
    assert ["a"] == crowd.names()
    await clock.advance(1.0)
    assert ["a", "b"] == crowd.names()
