"""The five promises that the project was asked for first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine.world import DAY, World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock


async def test_the_second_call_makes_no_upstream_call(cache: SessionCache[Any], world: World) -> None:
    """What was fetched once is answered from the session, through all it depends on."""
    session = cache.session("ann")
    first = await session.get(world.hosts)

    assert first is await session.get(world.hosts)
    assert ["account", "zones", "hosts"] == world.names()


async def test_an_entry_expires_after_24_hours_to_the_second(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A value is served until the last second of its day and loaded anew in the next."""
    session = cache.session("ann")
    await session.get(world.account)

    await clock.advance(DAY - 1)
    await session.get(world.account)
    assert 1 == world.count("account")

    await clock.advance(1)
    await session.get(world.account)
    assert 2 == world.count("account")


async def test_users_are_kept_apart(cache: SessionCache[Any], world: World) -> None:
    """Each user has what was loaded for them, with a connection of their own."""
    ann, bob = cache.session("ann"), cache.session("bob")
    of_ann, of_bob = await asyncio.gather(ann.get(world.hosts), bob.get(world.hosts))

    assert ("ann/east/all", "ann/west/all") == of_ann
    assert ("bob/east/all", "bob/west/all") == of_bob
    assert of_ann == await ann.get(world.hosts)
    assert of_bob == await bob.get(world.hosts)
    assert ["ann", "bob"] == sorted(world.connected)


async def test_a_forced_refresh_loads_anew(cache: SessionCache[Any], world: World) -> None:
    """A caller that asks for it gets what the upstream says now, and so does everybody after."""
    session = cache.session("ann")
    await session.get(world.account)
    world.answers["account"] = 77

    assert 1 == await session.get(world.account)
    assert 77 == await session.get(world.account, force_refresh=True)
    assert 77 == await session.get(world.account)
    assert 2 == world.count("account")


async def test_concurrent_gets_of_one_thing_load_it_once(cache: SessionCache[Any], world: World) -> None:
    """A hundred callers at once cost one load of each thing on the way."""
    session = cache.session("ann")
    answers = await asyncio.gather(*(session.get(world.hosts) for _ in range(100)))

    assert {("ann/east/all", "ann/west/all")} == set(answers)
    assert ["account", "zones", "hosts"] == world.names()
