"""An upstream that takes too long: stale for whom something is held, an end for everybody else (scenario S9)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest
from ipc.rig import Gate

from coatcheck.errors import LoadTimeout
from coatcheck.ipc.resources import POLICY, engagement_data
from outage.world import ANN, KEPT, PATHS, outage_world

SLOW = {"kind": "delay", "ms": 1, "path": PATHS[engagement_data.name]}


async def test_who_holds_something_waits_two_seconds_and_the_load_goes_on() -> None:
    """Twenty who come after that do not wait at all and begin no load; what comes in the end is kept."""
    gate = Gate()
    async with outage_world(sleep=gate) as world:
        session = world.cache.session(ANN)
        right = world.right(ANN, engagement_data)
        await world.expired(ANN)
        world.fail(SLOW)
        first = asyncio.create_task(session.lookup(engagement_data))
        await gate.arrived()
        await world.clock.advance(1.99)
        assert not first.done()
        await world.clock.advance(0.01)
        assert ((await first).value, (await first).stale) == (right, True)
        for _ in range(20):
            assert (await session.lookup(engagement_data)).stale
        assert world.asked()[PATHS[engagement_data.name]] == 1

        await world.clock.advance(3)
        gate.open()
        await world.cache.settled()
        look = await session.lookup(engagement_data)
        assert (look.value, look.stale, look.age) == (right, False, 5.0)
        assert world.asked() == {}


async def test_who_holds_nothing_waits_to_the_deadline_and_the_key_is_free() -> None:
    """A late answer is of no consequence."""
    gate = Gate()
    async with outage_world(sleep=gate) as world:
        patience = timedelta(seconds=10)
        world.cache.set_policies(dict.fromkeys(KEPT, msgspec.structs.replace(POLICY, deadline=patience)))
        session = world.cache.session(ANN)
        world.fail({**SLOW, "times": 1})
        getting = asyncio.create_task(session.get(engagement_data))
        await gate.arrived()
        await world.clock.advance(9.99)
        assert not getting.done()
        await world.clock.advance(0.01)
        with pytest.raises(LoadTimeout):
            await getting

        look = await session.lookup(engagement_data)
        assert (look.value, look.age) == (world.right(ANN, engagement_data), 0.0)
        gate.open()
        await world.cache.settled()
        assert session.peek(engagement_data) is not None
        assert world.asked()[PATHS[engagement_data.name]] == 2
        stats = world.cache.stats()
        assert (stats.resources[engagement_data.name].loading, stats.abandoned_loads) == (0, 0)
