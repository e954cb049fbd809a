"""When the upstream fails again and again it is left alone: stale at once, one probe, and back (scenario 24)."""

from __future__ import annotations

import asyncio

import pytest
from ipc.rig import Gate

from coatcheck.errors import BreakerOpen, LoadError
from coatcheck.ipc.resources import engagement_data, zones_list
from outage.world import ANN, DOWN, KEPT, PATHS, World, outage_world


async def opened(world: World, user: str) -> None:
    """Have this user's loads fail until the breaker opens."""
    world.fail(DOWN)
    for resource in KEPT:
        with pytest.raises(LoadError):
            await world.cache.session(user).get(resource, force_refresh=True)
    assert world.client.breaker.state().state == "open"
    world.asked()


async def test_stale_is_served_at_once_while_it_is_open(world: World) -> None:
    """Nobody waits for anything: no call leaves, and no time has to pass."""
    users = world.users()
    await world.expired(*users)
    await opened(world, ANN)

    async def ask(user: str) -> None:
        for resource in KEPT:
            look = await world.cache.session(user).lookup(resource)
            assert (look.value, look.stale) == (world.right(user, resource), True)

    await asyncio.gather(*(ask(user) for user in users for _ in range(4)))
    assert world.asked() == {}


async def test_with_nothing_held_it_says_so_at_once(world: World) -> None:
    await opened(world, ANN)
    with pytest.raises(BreakerOpen) as caught:
        await world.cache.session(ANN).get(zones_list)
    assert caught.value.retry_after == pytest.approx(10.0)
    assert world.asked() == {}


async def test_a_failed_probe_leaves_everybody_stale_for_longer(world: World) -> None:
    users = world.users()
    await world.expired(*users)
    await opened(world, ANN)
    for pause in (10.0, 20.0, 40.0, 60.0, 60.0):
        await world.clock.advance(pause - 0.01)
        for user in users:
            assert (await world.cache.session(user).lookup(zones_list)).stale
        assert world.asked() == {}
        await world.clock.advance(0.01)
        # All have a load due by now, whatever their throttle.
        ends = await asyncio.gather(
            *(world.cache.session(user).get(zones_list, force_refresh=True) for user in users),
            return_exceptions=True,
        )
        assert all(isinstance(end, LoadError) for end in ends)
        assert sum(world.asked().values()) == 1


async def test_one_probe_finds_out_that_it_is_over() -> None:
    """The others are answered meanwhile; then everybody's is fresh."""
    gate = Gate()
    async with outage_world(sleep=gate) as world:
        users = world.users()
        await world.expired(*users)
        # So that the probe is the call itself.
        for user in users:
            await world.cache.session(user).get(engagement_data)
        await opened(world, ANN)
        path = PATHS[engagement_data.name]
        world.fail({"kind": "delay", "ms": 1, "path": path})
        await world.clock.advance(30)
        probe = asyncio.create_task(world.cache.session(ANN).lookup(engagement_data, force_refresh=True))
        await gate.arrived()
        for user in users:
            assert (await world.cache.session(user).lookup(zones_list)).stale
        assert world.asked() == {path: 1}

        gate.open()
        assert (await probe).value == world.right(ANN, engagement_data)
        assert world.client.breaker.state().state == "closed"
        world.fail()
        await world.clock.advance(30)
        for user in users:
            look = await world.cache.session(user).lookup(zones_list)
            assert (look.value, look.stale) == (world.right(user, zones_list), False)
