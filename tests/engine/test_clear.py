"""A clear removes a whole session, and nothing that began before it is ever seen after it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Limits, Policy
from coatcheck.errors import Forbidden, SessionCleared, UpstreamFailed
from coatcheck.testing import settle
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_a_cleared_session_starts_empty(cache: SessionCache[Any], world: World) -> None:
    """Everything of the user is gone, figures included; others are untouched; the handle stays good."""
    ann, bob = cache.session("ann"), cache.session("bob")
    await ann.get(world.hosts)
    await bob.get(world.hosts)

    cleared = await ann.clear()
    assert cleared.durable
    assert ("bob",) == cache.users()
    assert None is ann.peek(world.hosts)
    assert 0 == cache.stats("ann").total.gets
    assert 0 == cache.stats("ann").bytes
    assert 3 == cache.stats().entries
    world.calls.clear()
    await bob.get(world.hosts)
    assert [] == world.calls
    await ann.get(world.hosts)
    assert ["account", "zones", "hosts"] == world.names()


async def test_clearing_is_idempotent(cache: SessionCache[Any], world: World) -> None:
    """A user that holds nothing, or that was never seen, can be cleared as well."""
    assert (await cache.clear("nobody")).durable
    await cache.session("ann").get(world.account)
    await cache.clear("ann")
    assert (await cache.clear("ann")).durable
    assert () == cache.users()
    assert 1 == cache.stats().sessions_removed["cleared"]


async def test_clear_all_clears_everybody(cache: SessionCache[Any], world: World) -> None:
    """The one call that means everyone."""
    for user in ("ann", "bob", "cid"):
        await cache.session(user).get(world.account)
    await cache.clear_all()
    assert () == cache.users()
    assert (0, 0) == (cache.stats().entries, cache.stats().bytes)


async def test_a_load_in_flight_is_not_kept_across_a_clear(cache: SessionCache[Any], world: World) -> None:
    """S4, scenario 14: its waiters get the value, the cache does not; a get after the clear does not join it."""
    gate = world.hold("account")
    session = cache.session("ann")
    waiters = [asyncio.create_task(session.get(world.account)) for _ in range(2)]
    old = await gate.hold()
    await session.clear()
    later = asyncio.create_task(session.get(world.account))
    new = await gate.hold()

    await old.succeed(1)
    assert [1, 1] == await asyncio.gather(*waiters)
    assert None is session.peek(world.account)
    await new.succeed(2)
    assert 2 == await later
    assert 2 == await session.get(world.account)
    ends = cache.stats().resources["account"].loads_by_end
    assert (1, 1) == (ends["cleared"], ends["stored"])


async def test_a_load_that_fails_after_a_clear_touches_nothing_of_the_new_session(
    cache: SessionCache[Any], world: World
) -> None:
    """A refusal of the old session is neither remembered nor a reason to drop anything in the new one."""
    gate = world.hold("account")
    session = cache.session("ann")
    waiter = asyncio.create_task(session.get(world.account))
    old = await gate.hold()
    await session.clear()
    world.release("account")
    assert 1 == await session.get(world.account)
    await old.fail(Forbidden("no"))
    with pytest.raises(Forbidden):
        await waiter
    assert 1 == await session.get(world.account)
    assert 1 == await session.get(world.account, force_refresh=True)


async def test_a_refresh_in_flight_is_not_kept_across_a_clear(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S5, scenario 15: a background load that ends after the clear publishes nothing."""
    world = World(account=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.9, jitter=0))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(92)
    await session.get(world.account)
    refresh = await gate.hold()
    await session.clear()
    await refresh.succeed(666)
    assert None is session.peek(world.account)
    assert () == cache.users()
    world.release("account")
    assert 1 == await session.get(world.account)


async def test_a_load_left_behind_by_a_soft_timeout_is_not_kept_across_a_clear(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S5: the caller was served stale long ago; the load's end finds its session closed."""
    policy = Policy(
        ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100), soft_timeout=timedelta(seconds=1)
    )
    world = World(account=policy)
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(120)
    getting = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    await clock.advance(1)
    assert 1 == await getting
    await session.clear()
    await load.succeed(666)
    assert () == cache.users()


async def test_a_chain_that_is_being_resolved_starts_no_further_load_after_a_clear(
    cache: SessionCache[Any], world: World
) -> None:
    """S5: the dependency that runs ends; the caller, who would need another load, gets SessionCleared."""
    gate = world.hold("account")
    session = cache.session("ann")
    getting = asyncio.create_task(session.get(world.hosts))
    load = await gate.hold()
    await session.clear()
    await load.succeed(1)
    with pytest.raises(SessionCleared):
        await getting
    assert ["account"] == world.names()
    assert () == cache.users()
    total = cache.stats().total
    assert (1, 1) == (total.gets, total.failed)


async def test_a_forced_load_in_the_queue_is_not_begun_after_a_clear(
    cache: SessionCache[Any], world: World
) -> None:
    """Those who wait for the next forced load need a load that has not begun."""
    gate = world.hold("account")
    session = cache.session("ann")
    running = asyncio.create_task(session.get(world.account, force_refresh=True))
    load = await gate.hold()
    queued = asyncio.create_task(session.get(world.account, force_refresh=True))
    await settle()
    await session.clear()
    with pytest.raises(SessionCleared):
        await queued
    await load.succeed(1)
    assert 1 == await running
    assert 1 == gate.calls


async def test_a_load_that_waits_for_a_slot_is_not_begun_after_a_clear(
    make_cache: MakeCache, world: World
) -> None:
    """Scenario 15: its caller hears at once; neither connect nor the loader is called for the closed session."""
    cache = make_cache(world, limits=Limits(max_loads=1))
    gate = world.hold("item")
    blocking = asyncio.create_task(cache.session("bob").get(world.item, number=1))
    load = await gate.hold()
    queued = asyncio.create_task(cache.session("ann").get(world.account))
    await settle()
    await cache.clear("ann")
    await settle()
    assert queued.done()
    with pytest.raises(SessionCleared):
        await queued
    await load.succeed("x")
    assert "x" == await blocking
    assert ["bob"] == world.connected
    assert 0 == world.count("account")


async def test_a_refresh_in_the_queue_is_not_begun_after_a_clear(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """Scenario 15: a background load that waits for a slot makes no upstream call for the closed session."""
    world = World(account=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    cache = make_cache(world, limits=Limits(max_loads=1))
    await cache.session("ann").get(world.account)
    gate = world.hold("item")
    blocking = asyncio.create_task(cache.session("bob").get(world.item, number=1))
    load = await gate.hold()
    await clock.advance(29)
    blocked_again = asyncio.create_task(cache.session("bob").get(world.item, number=2))
    await load.succeed("x")
    load = await gate.hold()
    await clock.advance(25)
    await cache.session("ann").get(world.account)
    await settle()
    await cache.clear("ann")
    await load.succeed("y")
    await asyncio.gather(blocking, blocked_again)
    assert 1 == world.count("account")


async def test_a_load_that_is_being_connected_is_not_begun_after_a_clear(
    make_cache: MakeCache, world: World
) -> None:
    """A log-in under way at the clear is given up: the loader is not called, and its caller hears at once."""
    logging_in = asyncio.Event()

    async def connect(user: str) -> Any:
        await logging_in.wait()
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    getting = asyncio.create_task(cache.session("ann").get(world.account))
    await settle()
    await cache.clear("ann")
    await settle()
    with pytest.raises(SessionCleared):
        await getting
    logging_in.set()
    await settle()
    assert [] == world.calls
    assert 1 == await cache.session("ann").get(world.account)


async def test_a_failing_upstream_after_a_clear_brings_nothing_old_back(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """Scenario 17: clear, then 503: an error, never the old value, however long it might have been served stale."""
    world = World(account=Policy(ttl=timedelta(hours=1), stale_if_error=timedelta(days=1)))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(7_200)
    await session.clear()
    world.fail("account", lambda: UpstreamFailed("down", status=503))
    with pytest.raises(UpstreamFailed):
        await session.get(world.account)


async def test_a_put_that_resolves_across_a_clear_stores_nothing(
    cache: SessionCache[Any], world: World
) -> None:
    """A put belongs to the session that it began in."""
    gate = world.hold("account")
    session = cache.session("ann")
    putting = asyncio.create_task(session.put(world.zones, ()))
    load = await gate.hold()
    await session.clear()
    await load.succeed(1)
    await putting
    assert () == cache.users()


async def test_one_get_that_saw_the_clear_means_that_all_later_ones_do(
    cache: SessionCache[Any], world: World
) -> None:
    """I3d: a get invoked while a clear is under way may see either side; after a new value nothing old returns."""
    session = cache.session("ann")
    await session.get(world.account)
    world.answers["account"] = 2
    clearing = asyncio.create_task(session.clear())
    seen = []
    for _ in range(5):
        seen.append(await session.get(world.account))
        await asyncio.sleep(0)
    await clearing
    assert sorted(seen) == seen
    assert 2 == seen[-1]


async def test_other_handles_of_the_user_see_the_clear_at_once(
    cache: SessionCache[Any], world: World
) -> None:
    """Handles share the session; none keeps a copy of it."""
    one, two = cache.session("ann"), cache.session("ann")
    await one.get(world.account)
    await two.get(world.account)
    await one.clear()
    assert None is two.peek(world.account)
    world.answers["account"] = 5
    assert 5 == await two.get(world.account)
    assert 5 == await one.get(world.account)
    assert 2 == world.count("account")


async def test_counters_of_the_cache_outlive_a_session(cache: SessionCache[Any], world: World) -> None:
    """What was counted for all stays; what was counted for the user goes."""
    session = cache.session("ann")
    for _ in range(3):
        await session.get(world.account)
    await session.clear()
    account = cache.stats().resources["account"]
    assert (2, 1, 0) == (account.hits, account.misses, account.entries)
    assert 1 == account.removals["cleared"]
