"""A lookup tells how a value was come by; a peek looks without touching anything."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Outcome, Policy
from coatcheck.errors import MissingArgument
from coatcheck.testing import settle
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import Resource, SessionCache
    from coatcheck.testing import FakeClock


async def test_a_lookup_tells_outcome_age_and_bytes(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Miss, then hit, with the age since the load started and the time it is fresh for."""
    session = cache.session("ann")
    look = await session.lookup(world.account)
    assert (1, Outcome.MISS, 0.0, 86_400.0, b"1", False) == (
        look.value, look.outcome, look.age, look.fresh_for, look.body, look.stale
    )  # fmt: skip
    await clock.advance(10)
    look = await session.lookup(world.account)
    assert (Outcome.HIT, 10.0, 86_390.0) == (look.outcome, look.age, look.fresh_for)
    forced = await session.lookup(world.account, force_refresh=True)
    assert (Outcome.MISS, 0.0) == (forced.outcome, forced.age)
    assert Outcome.HIT is (await session.lookup(world.account, max_age=timedelta(seconds=1))).outcome


async def test_a_lookup_stays_as_it_was(cache: SessionCache[Any], world: World, clock: FakeClock) -> None:
    """What happens to the entry later does not change what was told."""
    session = cache.session("ann")
    await session.get(world.account)
    look = await session.lookup(world.account)
    await clock.advance(50)
    await session.put(world.account, 2)
    await session.clear()
    assert (1, b"1", 0.0, 86_400.0) == (look.value, look.body, look.age, look.fresh_for)


async def test_joining_is_told_apart_from_leading(cache: SessionCache[Any], world: World) -> None:
    """Who began the load missed, who joined it coalesced, also in the middle of a chain."""
    gate = world.hold("account")
    session = cache.session("ann")
    first = asyncio.create_task(session.lookup(world.account))
    load = await gate.hold()
    joined = asyncio.create_task(session.lookup(world.account))
    derived = asyncio.create_task(session.lookup(world.project))
    led_further = asyncio.create_task(session.lookup(world.zones))
    await settle()
    await load.succeed(4)
    outcomes = [look.outcome for look in await asyncio.gather(first, joined, derived, led_further)]
    assert [Outcome.MISS, Outcome.COALESCED, Outcome.COALESCED, Outcome.MISS] == outcomes


async def test_the_age_of_a_derived_value_is_that_of_its_oldest_ancestor(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """As fresh as what it is derived from."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(100)
    for _ in range(2):
        look = await session.lookup(world.project)
        assert (100.0, 86_300.0) == (look.age, look.fresh_for)


async def test_a_peek_loads_nothing_and_counts_nothing(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """None for what is not held or not fresh; not even a session is opened."""
    session = cache.session("ann")
    nothing_held: list[Resource[Any]] = [world.account, world.project, world.zones, world.hosts, world.notes]
    for resource in nothing_held:
        assert None is session.peek(resource)
    assert () == cache.users()
    await session.get(world.hosts)
    gets = cache.stats().total
    await clock.advance(1)
    look = session.peek(world.hosts)
    assert look is not None
    assert (Outcome.HIT, 1.0) == (look.outcome, look.age)
    derived = session.peek(world.project)
    assert derived is not None
    assert 10 == derived.value
    assert None is session.peek(world.notes)
    assert gets == cache.stats().total
    assert 1.0 == cache.stats("ann").idle_for
    await clock.advance(86_400)
    assert None is session.peek(world.hosts)
    assert 3 == len(world.calls)


async def test_a_peek_at_what_needs_an_argument_says_so(cache: SessionCache[Any], world: World) -> None:
    """It cannot mean anything; what to call instead is told, since it takes no argument itself."""
    for _ in ("empty", "held"):
        with pytest.raises(MissingArgument) as caught:
            cache.session("ann").peek(world.item)
        assert "item needs the argument 'number', and peek takes none: use lookup(item, number=…)" == str(
            caught.value
        )
        await cache.session("ann").get(world.account)


async def test_a_peek_works_in_any_thread(cache: SessionCache[Any], world: World) -> None:
    """Also where no loop runs."""
    await cache.session("ann").get(world.hosts)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(cache.session("ann").peek(world.hosts)))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert ("ann/east/all", "ann/west/all") == seen[0].value


async def test_a_hit_awaits_nothing(cache: SessionCache[Any], world: World) -> None:
    """A get that is served from memory does not yield to the loop, whatever its arguments."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.item, number=1)
    for call in (
        session.get(world.hosts), session.get(world.account), session.get(world.item, number=1),
        session.lookup(world.hosts), session.get(world.hosts, kind="all"), session.get(world.project),
    ):  # fmt: skip
        with pytest.raises(StopIteration):
            call.send(None)


async def test_a_policy_is_no_part_of_a_lookup(cache: SessionCache[Any], world: World) -> None:
    """What `fresh_for` says is by the policy that was in force."""
    session = cache.session("ann")
    look = await session.lookup(world.account)
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=10)))
    assert 86_400.0 == look.fresh_for
    assert 10.0 == (await session.lookup(world.account)).fresh_for
