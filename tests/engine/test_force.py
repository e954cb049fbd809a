"""A forced get never accepts a load that had begun before it, and never costs more than it must."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Catalog, Limits, Policy
from coatcheck.errors import Forbidden, UnknownArgument, UpstreamFailed, UpstreamTimeout
from coatcheck.testing import settle
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_a_forced_get_overtakes_an_ordinary_load(cache: SessionCache[Any], world: World) -> None:
    """S14, scenarios 11 and 12: it starts a load of its own; the older one answers its own waiters and is not kept."""
    gate = world.hold("account")
    session = cache.session("ann")
    ordinary = asyncio.create_task(session.get(world.account))
    old = await gate.hold()
    forced = asyncio.create_task(session.get(world.account, force_refresh=True))
    new = await gate.hold()

    await new.succeed(2)
    assert 2 == await forced
    await old.succeed(1)
    assert 1 == await ordinary
    assert 2 == await session.get(world.account)
    ends = cache.stats().resources["account"].loads_by_end
    assert (1, 1) == (ends["stored"], ends["overtaken"])


async def test_the_overtaken_load_is_not_kept_even_when_it_ends_first(
    cache: SessionCache[Any], world: World
) -> None:
    """A load below the floor is never stored, whatever the order of the ends; later gets wait for the newer one."""
    gate = world.hold("account")
    session = cache.session("ann")
    ordinary = asyncio.create_task(session.get(world.account))
    old = await gate.hold()
    forced = asyncio.create_task(session.get(world.account, force_refresh=True))
    new = await gate.hold()
    await old.succeed(1)
    assert 1 == await ordinary
    joined = asyncio.create_task(session.get(world.account))
    await settle()
    assert not joined.done()
    await new.succeed(2)
    assert [2, 2] == list(await asyncio.gather(forced, joined))
    assert 2 == gate.calls


async def test_two_forced_gets_at_once_share_one_load(cache: SessionCache[Any], world: World) -> None:
    """S14: both were asked for before the loader was called."""
    gate = world.hold("account")
    forced = [
        asyncio.create_task(cache.session("ann").get(world.account, force_refresh=True)) for _ in range(2)
    ]
    await (await gate.hold()).succeed(5)
    assert [5, 5] == await asyncio.gather(*forced)
    assert 1 == gate.calls


async def test_a_thousand_forced_gets_cost_two_loads(cache: SessionCache[Any], world: World) -> None:
    """Those who come while a forced load runs wait for it and share the next."""
    gate = world.hold("account")
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.account, force_refresh=True))
    load = await gate.hold()
    rest = [asyncio.create_task(session.get(world.account, force_refresh=True)) for _ in range(999)]
    await settle()
    assert 1 == gate.calls
    await load.succeed(1)
    assert 1 == await first
    await (await gate.hold()).succeed(2)
    assert {2} == set(await asyncio.gather(*rest))
    assert 2 == gate.calls
    assert {"get": 0, "dependency": 0, "force": 2, "refresh": 0} == (
        cache.stats().resources["account"].loads_by_cause
    )


async def test_a_forced_load_never_joins_a_refresh_that_had_begun(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """I4: also a background load is older than the caller's wish."""
    world = World(account=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    gate = world.hold("account")
    await clock.advance(60)
    await session.get(world.account)
    refresh = await gate.hold()
    forced = asyncio.create_task(session.get(world.account, force_refresh=True))
    load = await gate.hold()
    await load.succeed(3)
    await refresh.succeed(2)
    assert 3 == await forced
    assert 3 == await session.get(world.account)


async def test_a_failed_forced_get_raises_and_leaves_what_was_held(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S14: the old value is not served in its place, but stays for others, fresh or stale."""
    world = World(account=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100)))
    cache = make_cache(world)
    session = cache.session("ann")
    assert 1 == await session.get(world.account)
    world.fail("account", lambda: UpstreamFailed("bad", status=502))
    with pytest.raises(UpstreamFailed):
        await session.get(world.account, force_refresh=True)
    assert 1 == await session.get(world.account)

    await clock.advance(150)
    with pytest.raises(UpstreamFailed):
        await session.get(world.account, force_refresh=True)
    assert 1 == await session.get(world.account)


async def test_force_passes_over_the_throttle_and_the_remembered_refusal(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """A caller that insists is not told what an earlier one was told."""
    world = World(
        account=Policy(
            ttl=timedelta(seconds=100),
            stale_if_error=timedelta(seconds=100),
            negative_ttl=timedelta(seconds=60),
        )
    )
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(120)
    world.fail("account", lambda: UpstreamTimeout("slow"))
    await session.get(world.account)
    world.answers["account"] = 2
    assert 1 == await session.get(world.account)
    assert 2 == await session.get(world.account, force_refresh=True)

    world.fail("account", lambda: Forbidden("no"))
    with pytest.raises(Forbidden):
        await session.get(world.account, force_refresh=True)
    world.answers["account"] = 3
    with pytest.raises(Forbidden):
        await session.get(world.account)
    assert 3 == await session.get(world.account, force_refresh=True)
    assert 3 == await session.get(world.account)


async def test_force_reloads_the_leaf_and_deep_all_it_depends_on(
    cache: SessionCache[Any], world: World
) -> None:
    """Force is for the resource asked for; deep for its ancestors, too."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts, force_refresh=True)
    assert ["account", "zones", "hosts", "hosts"] == world.names()
    await session.get(world.hosts, force_refresh=True, deep=True)
    assert ["account", "zones", "hosts"] == world.names()[4:]


async def test_forcing_a_derived_resource_forces_what_it_is_derived_from(
    cache: SessionCache[Any], world: World
) -> None:
    """Derived is transparent."""
    session = cache.session("ann")
    assert 10 == await session.get(world.project)
    world.answers["account"] = 4
    assert 40 == await session.get(world.project, force_refresh=True)
    assert 2 == world.count("account")


async def test_forcing_a_derived_resource_forces_every_nearest_ancestor(make_cache: MakeCache) -> None:
    """An ancestor that is also reached unforced on another way is forced all the same."""
    catalog: Catalog[Any] = Catalog("ways")
    calls: list[str] = []

    @catalog.resource
    async def root(api: Any) -> int:
        calls.append("root")
        return len(calls)

    @catalog.derived
    def half(root: int) -> int:
        return root * 10

    @catalog.resource
    async def branch(api: Any, root: int) -> int:
        calls.append("branch")
        return root

    @catalog.derived
    def pair(branch: int, half: int) -> tuple[int, int]:
        return (branch, half)

    cache = make_cache(Holder(catalog))
    session = cache.session("ann")
    assert (1, 10) == await session.get(pair)
    calls.clear()
    await session.get(pair, force_refresh=True)
    assert "root" in calls
    assert "branch" in calls


async def test_a_forced_get_with_an_argument_reloads_that_key_only(
    cache: SessionCache[Any], world: World
) -> None:
    """Other keys of the resource stay as they are."""
    session = cache.session("ann")
    await session.get(world.item, number=1)
    await session.get(world.item, number=2)
    await session.get(world.item, number=1, force_refresh=True)
    await session.get(world.item, number=2)
    assert [1, 2, 1] == [call.arguments["number"] for call in world.calls]


async def test_deep_alone_is_refused(cache: SessionCache[Any], world: World) -> None:
    """It says how far a force goes."""
    with pytest.raises(UnknownArgument, match="force_refresh"):
        await cache.session("ann").get(world.account, deep=True)


async def test_a_forced_get_may_join_a_load_that_has_not_begun(make_cache: MakeCache, world: World) -> None:
    """What counts is when the loader is called, not when it was asked for."""
    cache = make_cache(world, limits=Limits(max_loads=1))
    gate = world.hold("item")
    blocking = asyncio.create_task(cache.session("bob").get(world.item, number=1))
    load = await gate.hold()
    session = cache.session("ann")
    ordinary = asyncio.create_task(session.get(world.account))
    await settle()
    forced = asyncio.create_task(session.get(world.account, force_refresh=True))
    await settle()
    await load.succeed("x")
    assert [1, 1] == list(await asyncio.gather(ordinary, forced))
    assert 1 == world.count("account")
    await blocking


async def test_max_age_wants_nothing_older(cache: SessionCache[Any], world: World, clock: FakeClock) -> None:
    """A caller may want a fresher value than the policy would give; what it loads is there for all."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(300)
    assert 1 == await session.get(world.account, max_age=timedelta(seconds=300))
    assert 1 == world.count("account")
    await clock.advance(1)
    world.answers["account"] = 2
    assert 1 == await session.get(world.account)
    assert 2 == await session.get(world.account, max_age=timedelta(seconds=300))
    assert 2 == await session.get(world.account)
    assert 2 == world.count("account")


async def test_max_age_joins_a_load_that_is_young_enough(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A running load is as old as its start: one caller joins it, a stricter one begins another."""
    gate = world.hold("account")
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    await clock.advance(10)
    joins = asyncio.create_task(session.get(world.account, max_age=timedelta(seconds=10)))
    strict = asyncio.create_task(session.get(world.account, max_age=timedelta(seconds=9)))
    newer = await gate.hold()
    await load.succeed(1)
    await newer.succeed(2)
    assert [1, 1, 2] == list(await asyncio.gather(first, joins, strict))
    assert 2 == await session.get(world.account)


async def test_max_age_is_not_satisfied_by_a_stale_value_that_is_too_old(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """When the load fails the held value may stand in only if it is as young as asked for."""
    world = World(account=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100)))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(120)
    world.fail("account", lambda: UpstreamTimeout("slow"))
    assert 1 == await session.get(world.account, max_age=timedelta(seconds=150))
    with pytest.raises(UpstreamTimeout):
        await session.get(world.account, max_age=timedelta(seconds=110))


@pytest.mark.parametrize("wrong", [300, 1.5, "5m", timedelta(seconds=-1)], ids=repr)
async def test_a_max_age_that_is_no_span_is_refused(
    cache: SessionCache[Any], world: World, wrong: Any
) -> None:
    """The error names the option."""
    with pytest.raises(UnknownArgument, match="max_age"):
        await cache.session("ann").get(world.account, max_age=wrong)
    assert [] == world.calls


async def test_a_max_age_of_zero_loads(cache: SessionCache[Any], world: World, clock: FakeClock) -> None:
    """Nothing from an earlier moment will do."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(0.001)
    await session.get(world.account, max_age=timedelta(0))
    assert 2 == world.count("account")
