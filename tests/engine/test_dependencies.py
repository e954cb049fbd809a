"""Resources that depend on each other: resolved by name, keyed by value, dropped and refreshed along the chain."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Catalog, Limits, Policy
from coatcheck.errors import AuthExpired, Forbidden, NotFound, UpstreamTimeout
from coatcheck.testing import GatedLoader, settle
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_a_cold_leaf_loads_each_link_once_also_beside_gets_of_its_parents(
    cache: SessionCache[Any], world: World
) -> None:
    """S11 a: whoever comes first leads, the others join, at every link."""
    session = cache.session("ann")
    await asyncio.gather(
        session.get(world.hosts),
        session.get(world.zones),
        session.get(world.project),
        session.get(world.account),
    )
    assert ["account", "zones", "hosts"] == world.names()
    causes = {name: each.loads_by_cause for name, each in cache.stats().resources.items()}
    assert 1 == causes["account"]["dependency"] + causes["account"]["get"]


async def test_independent_branches_load_side_by_side(make_cache: MakeCache) -> None:
    """Two dependencies of one leaf wait for the upstream together, not one after the other."""
    catalog: Catalog[Any] = Catalog("side")
    gates = {"left": GatedLoader(), "right": GatedLoader()}

    @catalog.resource
    async def left(api: Any) -> int:
        return int(await gates["left"](api))

    @catalog.resource
    async def right(api: Any) -> int:
        return int(await gates["right"](api))

    @catalog.resource
    async def both(api: Any, left: int, right: int) -> int:
        return left + right

    session = make_cache(Holder(catalog)).session("ann")
    getting = asyncio.create_task(session.get(both))
    loads = [await gates["left"].hold(), await gates["right"].hold()]
    for number, load in enumerate(loads):
        await load.succeed(number)
    assert 1 == await getting


async def test_an_explicit_argument_never_changes_what_mine_is(
    cache: SessionCache[Any], world: World
) -> None:
    """A passed id is a key of its own; no parent is loaded for it, and a get without it still resolves the user's."""
    session = cache.session("ann")
    other = await session.get(world.zones, project=99)
    assert ["zones"] == world.names()
    assert 99 == other[0].project
    own = await session.get(world.zones)
    assert 10 == own[0].project
    assert 10 == await session.get(world.project)
    assert other is await session.get(world.zones, project=99)


async def test_a_parent_that_reloads_to_the_same_value_keeps_its_children(
    cache: SessionCache[Any], world: World
) -> None:
    """S11 c: an early cut-off: no call for the children."""
    session = cache.session("ann")
    hosts = await session.get(world.hosts)
    await session.invalidate(world.account)
    assert hosts is await session.get(world.hosts)
    assert ["account", "zones", "hosts", "account"] == world.names()


async def test_a_parent_that_reloads_to_another_value_leaves_its_children_behind(
    cache: SessionCache[Any], world: World
) -> None:
    """S11 c: the old children are unreachable by construction, and there again if the old value is."""
    session = cache.session("ann")
    await session.get(world.hosts)
    world.answers["account"] = 5
    await session.invalidate(world.account)
    assert 50 == (await session.get(world.zones))[0].project
    await session.get(world.hosts)
    assert ["account", "zones", "hosts"] * 2 == world.names()
    world.answers["account"] = 1
    await session.invalidate(world.account)
    assert 10 == (await session.get(world.zones))[0].project
    assert 7 == len(world.calls)


async def test_invalidating_a_parent_touches_only_this_user(cache: SessionCache[Any], world: World) -> None:
    """S11 b: others keep what they have."""
    ann, bob = cache.session("ann"), cache.session("bob")
    await asyncio.gather(ann.get(world.hosts), bob.get(world.hosts))
    world.calls.clear()
    await ann.invalidate(world.account)
    await bob.get(world.hosts)
    assert [] == world.calls


async def test_what_is_computed_from_an_old_parent_is_not_reached_through_the_new_one(
    cache: SessionCache[Any], world: World
) -> None:
    """S11 d: the parent is invalidated while the child loads from its old value; its caller alone gets that child."""
    session = cache.session("ann")
    gate = world.hold("zones")
    getting = asyncio.create_task(session.get(world.zones))
    old = await gate.hold()
    world.answers["account"] = 7
    await session.invalidate(world.account)
    later = asyncio.create_task(session.get(world.zones))
    new = await gate.hold()
    assert (10, 70) == (old.arguments["project"], new.arguments["project"])
    await new.succeed(())
    await old.succeed(())
    await asyncio.gather(getting, later)
    world.release("zones")
    await session.get(world.zones)
    assert 2 == gate.calls
    look = session.peek(world.project)
    assert look is not None
    assert 70 == look.value


async def test_a_leaf_is_no_fresher_than_its_parents(make_cache: MakeCache, clock: FakeClock) -> None:
    """S11 e: the alias ends with the first of the chain; an expired parent is reloaded before the leaf is served."""
    world = World(account=Policy(ttl=timedelta(seconds=100)), zones=Policy(ttl=timedelta(seconds=1_000)))
    session = make_cache(world).session("ann")
    first = await session.lookup(world.zones)
    assert 100.0 == first.fresh_for
    await clock.advance(60)
    assert 40.0 == (await session.lookup(world.zones)).fresh_for
    peeked = session.peek(world.zones)
    assert peeked is not None
    assert 40.0 == peeked.fresh_for
    await clock.advance(40)
    assert None is session.peek(world.zones)
    look = await session.lookup(world.zones)
    assert ["account", "zones", "account"] == world.names()
    assert (100.0, 100.0) == (look.fresh_for, look.age)


async def test_what_is_resolved_through_a_stale_parent_is_marked_stale(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S11 e: staleness is contagious, also to a child that is itself fresh, or was loaded just now."""
    world = World(account=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=900)))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.zones)
    await clock.advance(100)
    world.fail("account", lambda: UpstreamTimeout("slow"))
    look = await session.lookup(world.zones)
    assert (True, 0.0) == (look.stale, look.fresh_for)
    assert (await session.lookup(world.project)).stale
    assert (await session.lookup(world.hosts)).stale
    assert ["account", "zones", "account", "hosts"] == world.names()
    assert not (await session.lookup(world.zones, project=10)).stale
    assert None is session.peek(world.zones)
    assert 3 == cache.stats().total.stale_hits


@pytest.mark.parametrize("kind", [Forbidden, AuthExpired])
async def test_a_revoked_parent_takes_all_that_depends_on_it(
    cache: SessionCache[Any], world: World, kind: type[Exception]
) -> None:
    """401 and 403: every dependent goes, under whatever arguments; other resources and users stay."""
    ann, bob = cache.session("ann"), cache.session("bob")
    for session in (ann, bob):
        await session.get(world.hosts)
        await session.get(world.item, number=1)
    await ann.get(world.zones, project=99)
    await ann.get(world.hosts, kind="web")
    world.fail("account", lambda: kind("no"))
    with pytest.raises(kind):
        await ann.get(world.account, force_refresh=True)
    with pytest.raises(kind):
        await ann.get(world.hosts)
    del world.answers["account"]
    world.calls.clear()
    assert {"item": 1} == _entries(cache, "ann")
    await bob.get(world.hosts)
    assert [] == world.calls
    await ann.get(world.zones, project=99)
    assert ["zones"] == world.names()


def _entries(cache: SessionCache[Any], user: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, _ in cache._sessions.states[user].entries():
        name = cache._sessions.resource(key).name
        found[name] = found.get(name, 0) + 1
    return found


async def test_a_parent_not_found_leaves_its_children_unreached(
    cache: SessionCache[Any], world: World
) -> None:
    """404 and 410 say that the parent is gone, not that its children may not be seen."""
    session = cache.session("ann")
    await session.get(world.zones)
    world.fail("account", lambda: NotFound("no"))
    with pytest.raises(NotFound):
        await session.get(world.account, force_refresh=True)
    with pytest.raises(NotFound):
        await session.get(world.zones)
    assert {"zones": 1} == _entries(cache, "ann")
    assert 10 == (await session.get(world.zones, project=10))[0].project


async def test_a_dependent_that_loads_while_its_parent_is_revoked_is_not_kept(
    cache: SessionCache[Any], world: World
) -> None:
    """I9: its load began before the revocation."""
    session = cache.session("ann")
    gate = world.hold("zones")
    getting = asyncio.create_task(session.get(world.zones))
    load = await gate.hold()
    world.fail("account", lambda: Forbidden("no"))
    with pytest.raises(Forbidden):
        await session.get(world.account, force_refresh=True)
    await load.succeed(())
    assert () == await getting
    assert {} == _entries(cache, "ann")


async def test_a_leaf_three_deep_is_served_by_one_pointer(cache: SessionCache[Any], world: World) -> None:
    """Once resolved, a get without arguments asks none of the chain: the slot itself answers."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts)
    short_cut = cache._sessions.states["ann"].short_cut(world.hosts, cache._clock.monotonic())
    assert short_cut is not None
    _, slot = short_cut
    value = await session.get(world.hosts)
    assert slot.value is value


@pytest.mark.parametrize("change", ["put", "force", "invalidate", "revoke", "set_policy"])
async def test_the_pointer_goes_when_anything_in_its_chain_changes(
    cache: SessionCache[Any], world: World, clock: FakeClock, change: str
) -> None:
    """Whatever happens to an ancestor, the next get without arguments sees it."""
    session = cache.session("ann")
    for _ in range(2):
        await session.get(world.hosts)
    world.answers["account"] = 8
    if change == "put":
        await session.put(world.account, 8)
    elif change == "force":
        await session.get(world.account, force_refresh=True)
    elif change == "invalidate":
        await cache.invalidate(world.account)
    elif change == "revoke":
        world.fail("account", lambda: Forbidden("no"))
        with pytest.raises(Forbidden):
            await session.get(world.account, force_refresh=True)
        world.answers["account"] = 8
        await session.invalidate(world.account)
    else:
        await clock.advance(100)
        cache.set_policy(world.account, Policy(ttl=timedelta(seconds=100)))
    await session.get(world.hosts)
    assert 80 == world.calls[-1].arguments["zones"][0].project


async def test_get_many_and_warm_overlap(cache: SessionCache[Any], world: World) -> None:
    """What does not depend on each other loads side by side, and shared ancestors once."""
    account, notes, zones = (world.hold(name) for name in ("account", "notes", "zones"))
    session = cache.session("ann")
    getting = asyncio.create_task(session.get_many(world.notes, world.zones, world.project))
    await (await notes.hold()).succeed([])
    await (await account.hold()).succeed(3)
    await (await zones.hold()).succeed(())
    assert ([], (), 30) == await getting
    assert ["account", "notes", "zones"] == sorted(world.names())


async def test_warm_loads_all_that_can_be_resolved(cache: SessionCache[Any], world: World) -> None:
    """What needs an argument of the caller's is left out; a second time nothing is loaded."""
    session = cache.session("ann")
    await session.warm()
    assert ["account", "hosts", "notes", "zones"] == sorted(world.names())
    await session.warm()
    await session.get_many(world.hosts, world.notes)
    assert 4 == len(world.calls)


async def test_warm_leaves_out_what_depends_on_what_needs_an_argument(make_cache: MakeCache) -> None:
    """Nothing to warm is no error."""
    catalog: Catalog[Any] = Catalog("needing")

    @catalog.resource
    async def item(api: Any, number: int) -> int:
        return number

    @catalog.resource
    async def part(api: Any, item: int) -> int:
        return item

    session = make_cache(Holder(catalog)).session("ann")
    await session.warm()
    assert () == await session.get_many()
    assert 3 == await session.get(part, item=3)


async def test_the_first_error_of_get_many_is_raised(cache: SessionCache[Any], world: World) -> None:
    """The other loads go on and are kept."""
    notes = world.hold("notes")
    world.fail("account", lambda: UpstreamTimeout("slow"))
    session = cache.session("ann")
    getting = asyncio.create_task(session.get_many(world.notes, world.account))
    load = await notes.hold()
    with pytest.raises(UpstreamTimeout):
        await getting
    await load.succeed([])
    assert [] == await session.get(world.notes)
    assert 1 == notes.calls


async def test_a_cancelled_get_many_leaves_its_loads_to_be_kept(
    cache: SessionCache[Any], world: World
) -> None:
    """Cancelling the caller cancels no load."""
    notes, account = world.hold("notes"), world.hold("account")
    session = cache.session("ann")
    getting = asyncio.create_task(session.get_many(world.notes, world.account))
    loads = [await notes.hold(), await account.hold()]
    getting.cancel()
    await settle()
    assert getting.cancelled()
    await loads[0].succeed([])
    await loads[1].succeed(1)
    assert [[], 1] == [await session.get(world.notes), await session.get(world.account)]
    assert 2 == len(world.calls)


async def test_slots_are_not_held_while_dependencies_are_resolved(
    make_cache: MakeCache, world: World
) -> None:
    """With a single slot a chain of three still loads, for many users at once."""
    cache = make_cache(world, limits=Limits(max_loads=1, max_loads_per_user=1))
    await asyncio.gather(*(cache.session(user).get(world.hosts) for user in ("ann", "bob", "cid")))
    assert 9 == len(world.calls)


async def test_a_derived_value_costs_no_call_and_is_not_stored(
    cache: SessionCache[Any], world: World
) -> None:
    """It is computed from what is held."""
    session = cache.session("ann")
    assert 10 == await session.get(world.project)
    assert 10 == await session.get(world.project)
    assert ["account"] == world.names()
    assert 1 == cache.stats().entries
    assert 70 == await session.get(world.project, account=7)
    look = session.peek(world.project)
    assert look is not None
    assert (10, b"10") == (look.value, look.body)


async def test_a_derived_function_that_raises_is_counted_and_harms_nothing(make_cache: MakeCache) -> None:
    """Its error reaches the caller each time, from a load and from memory alike."""
    catalog: Catalog[Any] = Catalog("raising")

    @catalog.resource
    async def root(api: Any) -> int:
        return 0

    @catalog.derived
    def inverse(root: int) -> float:
        return 1 / root

    cache = make_cache(Holder(catalog))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await cache.session("ann").get(inverse)
    assert (3, 3) == (cache.stats().resources["inverse"].failed, cache.stats("ann").total.failed)
    assert 0 == await cache.session("ann").get(root)
    assert 1 == cache.stats().resources["root"].loads
