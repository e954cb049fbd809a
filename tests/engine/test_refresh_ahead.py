"""Refresh ahead: past a fraction of the TTL the next get is served at once and sets off one background load."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Catalog, Limits, Outcome, Policy, current_user
from coatcheck.errors import Forbidden, UpstreamTimeout
from coatcheck.testing import settle
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache

AHEAD = Policy(ttl=timedelta(seconds=100), refresh_ahead=0.9, jitter=0, failure_throttle=timedelta(seconds=5))


@pytest.fixture
def world() -> World:
    return World(default=AHEAD)


async def test_twenty_callers_are_served_at_once_and_cost_one_load(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S10: nothing at 89; at 91 all get the old value without waiting, and one load begins."""
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(89.9)
    await session.get(world.account)
    await settle()
    assert 0 == gate.calls

    await clock.advance(0.1)
    getting = [asyncio.create_task(session.lookup(world.account)) for _ in range(20)]
    await settle()
    assert {(1, Outcome.HIT)} == {(task.result().value, task.result().outcome) for task in getting}
    assert 1 == gate.calls
    await (await gate.hold()).succeed(2)
    assert 2 == await session.get(world.account)
    await clock.advance(89.9)
    assert 2 == await session.get(world.account)
    assert 1 == gate.calls
    assert 1 == cache.stats().resources["account"].loads_by_cause["refresh"]


async def test_nobody_who_asks_means_no_refresh(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S10: time alone loads nothing, and looking is not asking."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(95)
    session.peek(world.account)
    await settle()
    assert 1 == world.count("account")


async def test_a_failed_refresh_is_hidden_counted_and_throttled(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S10: the old value is served to its end, the next attempt waits for the throttle."""
    session = cache.session("ann")
    await session.get(world.account)
    world.fail("account", lambda: UpstreamTimeout("slow"))
    await clock.advance(91)
    for _ in range(10):
        assert 1 == await session.get(world.account)
        await settle()
    assert 2 == world.count("account")
    await clock.advance(4.9)
    assert 1 == await session.get(world.account)
    await settle()
    assert 2 == world.count("account")
    await clock.advance(0.1)
    assert 1 == await session.get(world.account)
    await settle()
    assert 3 == world.count("account")
    assert 2 == cache.stats().resources["account"].refresh_failures
    await clock.advance(4)
    with pytest.raises(UpstreamTimeout):
        await session.get(world.account)


async def test_a_refused_refresh_drops_the_entry(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A refusal is never hidden, though nobody waited for it."""
    session = cache.session("ann")
    await session.get(world.account)
    world.fail("account", lambda: Forbidden("no"))
    await clock.advance(91)
    assert 1 == await session.get(world.account)
    await settle()
    with pytest.raises(Forbidden):
        await session.get(world.account)
    assert 2 == world.count("account")


async def test_a_refresh_outlives_the_caller_that_set_it_off(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S10: cancelling the caller does not reach it."""
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(91)
    getting = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    getting.cancel()
    await settle()
    await load.succeed(2)
    assert 2 == await session.get(world.account)


async def test_a_put_or_an_invalidation_during_a_refresh_wins(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S10: the refresh began before and is not kept."""
    session = cache.session("ann")
    gate = world.hold("account")
    await session.put(world.account, 1)
    await clock.advance(91)
    await session.get(world.account)
    load = await gate.hold()
    await session.put(world.account, 42)
    await load.succeed(2)
    assert 42 == await session.get(world.account)

    await clock.advance(91)
    await session.get(world.account)
    load = await gate.hold()
    await session.invalidate(world.account)
    await load.succeed(3)
    assert None is session.peek(world.account)


async def test_a_get_past_the_ttl_joins_the_refresh_that_runs(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A background load is a load like any other to those who come while it runs."""
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(91)
    await session.get(world.account)
    load = await gate.hold()
    await clock.advance(10)
    joining = asyncio.create_task(session.lookup(world.account))
    await settle()
    assert 1 == gate.calls
    await load.succeed(2)
    assert (2, Outcome.COALESCED) == ((await joining).value, (await joining).outcome)


async def test_an_ageing_ancestor_is_refreshed_by_a_get_of_its_leaf(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A leaf served through its alias still keeps its chain from expiring; equal ids keep the children."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(50)
    await session.get(world.hosts)
    await session.get(world.hosts)
    await clock.advance(41)
    await session.get(world.hosts)
    await settle()
    assert ["account", "zones", "hosts", "account"] == world.names()
    await clock.advance(20)
    await session.get(world.hosts)
    assert 4 == len(world.calls)


async def test_no_more_background_loads_run_at_once_than_allowed(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """Beyond the limit the entry is served and its refresh left to a later get."""
    cache = make_cache(world, limits=Limits(max_refreshes=2))
    session = cache.session("ann")
    for number in range(4):
        await session.get(world.item, number=number)
    gate = world.hold("item")
    await clock.advance(91)
    for number in range(4):
        await session.get(world.item, number=number)
    await settle()
    assert 2 == gate.calls
    await (await gate.hold()).succeed("new")
    for number in range(4):
        await session.get(world.item, number=number)
    await settle()
    assert 3 == gate.calls
    for _ in range(2):
        await (await gate.hold()).succeed("new")


marked: contextvars.ContextVar[str] = contextvars.ContextVar("marked", default="nothing")


async def test_loads_run_in_an_empty_context(make_cache: MakeCache, clock: FakeClock) -> None:
    """Scenario 5: neither a load nor a refresh nor connect sees the context of whoever set it off."""
    catalog: Catalog[Any] = Catalog("contexts")
    seen: list[tuple[str, str | None]] = []

    @catalog.resource(AHEAD)
    async def account(api: Any) -> int:
        seen.append((marked.get(), current_user.get()))
        return 1

    def connect(user: str) -> str:
        seen.append((marked.get(), current_user.get()))
        return user

    cache = make_cache(Holder(catalog), connect=connect)
    marked.set("of ann")
    current_user.set("ann")
    await cache.session("ann").get(account)
    await clock.advance(91)
    marked.set("of bob")
    current_user.set("bob")
    await cache.session("ann").get(account)
    await settle()
    assert [("nothing", None)] * 3 == seen
    assert 1 == cache.stats().resources["account"].loads_by_cause["refresh"]


async def test_a_refresh_uses_the_connection_of_its_own_user(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Scenario 5: whoever sets it off, the credentials are those of the session, and none are asked for anew."""
    for user in ("ann", "bob"):
        await cache.session(user).get(world.account)
    await clock.advance(91)
    for user in ("ann", "bob"):
        await cache.session(user).get(world.account)
    await settle()
    assert ["ann", "bob", "ann", "bob"] == [call.user for call in world.calls]
    assert ["ann", "bob"] == world.connected


async def test_a_refresh_is_no_use_of_the_session(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """What a background load brings does not make a session look used."""
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(91)
    await session.get(world.account)
    load = await gate.hold()
    await clock.advance(7)
    await load.succeed(2)
    assert 7.0 == cache.stats("ann").idle_for


async def test_jitter_spreads_the_refreshes_of_a_crowd(make_cache: MakeCache, clock: FakeClock) -> None:
    """Entries loaded together do not age together, and none later than refresh_ahead says."""
    world = World(item=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.9, jitter=0.5))
    cache = make_cache(world)
    session = cache.session("ann")
    for number in range(100):
        await session.get(world.item, number=number)
    begun = []
    for second in range(1, 91):
        await clock.advance(1)
        before = world.count("item")
        for number in range(100):
            await session.get(world.item, number=number)
        await settle()
        begun.extend([second] * (world.count("item") - before))
    assert min(begun) >= 45
    first = begun[:100]
    assert len(set(first)) > 20
    assert max(first) <= 90
