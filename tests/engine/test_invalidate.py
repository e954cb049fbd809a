"""Invalidation drops entries on purpose, and raises the floor under loads that had begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Catalog
from coatcheck.errors import NotFound, UnknownArgument, UpstreamTimeout
from coatcheck.testing import settle
from engine.conftest import memory_only
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_an_invalidated_resource_is_loaded_anew(cache: SessionCache[Any], world: World) -> None:
    """All its keys go, those of other resources and users stay."""
    session, other = cache.session("ann"), cache.session("bob")
    for number in (1, 2):
        await session.get(world.item, number=number)
        await other.get(world.item, number=number)
    await session.get(world.account)
    await session.invalidate(world.item)
    world.calls.clear()

    await session.get(world.account)
    await other.get(world.item, number=1)
    assert [] == world.calls
    await session.get(world.item, number=1)
    await session.get(world.item, number=2)
    assert 2 == world.count("item")
    assert 2 == cache.stats().resources["item"].removals["invalidated"]


async def test_one_key_can_be_invalidated(cache: SessionCache[Any], world: World) -> None:
    """With arguments, the entry under these."""
    session = cache.session("ann")
    for number in (1, 2):
        await session.get(world.item, number=number)
    await session.invalidate(world.item, number=1)
    await session.get(world.item, number=2)
    assert 2 == world.count("item")
    await session.get(world.item, number=1)
    assert 3 == world.count("item")


async def test_some_arguments_mean_the_key_that_a_get_with_them_would_have(
    cache: SessionCache[Any], world: World
) -> None:
    """Dependencies not passed are those held; if they are not, which key is meant cannot be told and all go."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts, kind="web")
    await session.invalidate(world.hosts, kind="web")
    await session.get(world.hosts)
    assert 2 == world.count("hosts")
    await session.get(world.hosts, kind="web")
    assert 3 == world.count("hosts")

    await session.invalidate(world.account)
    await session.invalidate(world.hosts, kind="web")
    await session.get(world.hosts)
    assert 4 == world.count("hosts")


async def test_invalidating_for_every_user(cache: SessionCache[Any], world: World) -> None:
    """`cache.invalidate` reaches all sessions."""
    for user in ("ann", "bob"):
        await cache.session(user).get(world.account)
    await cache.invalidate(world.account)
    assert 0 == cache.stats().entries
    assert {"ann", "bob"} == set(cache.users())


async def test_invalidating_a_derived_resource_drops_what_it_is_derived_from(
    cache: SessionCache[Any], world: World
) -> None:
    """Derived is transparent, for one user and for all."""
    session = cache.session("ann")
    await session.get(world.project)
    await session.invalidate(world.project)
    await session.get(world.project)
    assert 2 == world.count("account")
    await cache.invalidate(world.project)
    await session.get(world.project)
    assert 3 == world.count("account")


# With a store nobody knows what is held before it was asked.
@memory_only
async def test_invalidating_what_is_not_held_opens_no_session(cache: SessionCache[Any], world: World) -> None:
    """There is nothing to drop."""
    await cache.session("ann").invalidate(world.account)
    await cache.session("ann").invalidate(world.item, number=3)
    assert () == cache.users()


@pytest.mark.parametrize("ending", ["fails", "answers", "times out"])
async def test_an_old_load_leaves_its_successor_alone(
    cache: SessionCache[Any], world: World, clock: FakeClock, ending: str
) -> None:
    """S7: load 1 runs, invalidate, load 2 stores v2; however load 1 ends, v2 stays with its life unchanged."""
    gate = world.hold("account")
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.account))
    old = await gate.hold()
    await clock.advance(10)
    await session.invalidate(world.account)
    second = asyncio.create_task(session.get(world.account))
    await (await gate.hold()).succeed(2)
    assert 2 == await second
    before = session.peek(world.account)

    if ending == "fails":
        await old.fail(UpstreamTimeout("slow"))
    elif ending == "answers":
        await old.succeed(1)
    else:
        await clock.advance(20)
    outcome = (await asyncio.gather(first, return_exceptions=True))[0]
    # Whoever waited for a load that failed is served what has been stored since.
    assert (1 if ending == "answers" else 2) == outcome

    after = session.peek(world.account)
    assert before is not None
    assert after is not None
    assert 2 == after.value
    assert before.fresh_for - (20 if ending == "times out" else 0) == after.fresh_for
    assert 2 == await session.get(world.account)
    assert 2 == gate.calls


async def test_a_get_after_an_invalidation_does_not_join_the_old_load(
    cache: SessionCache[Any], world: World
) -> None:
    """The old load answers its own waiters, the new one the rest; the new one is kept also when it ends first."""
    gate = world.hold("item")
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.item, number=1))
    old = await gate.hold()
    await session.invalidate(world.item)
    second = asyncio.create_task(session.get(world.item, number=1))
    new = await gate.hold()
    await old.succeed("old")
    third = asyncio.create_task(session.get(world.item, number=1))
    await settle()
    assert 2 == gate.calls
    await new.succeed("new")
    assert ["old", "new", "new"] == list(await asyncio.gather(first, second, third))
    assert "new" == await session.get(world.item, number=1)


async def test_an_invalidation_between_two_forced_loads_lets_the_second_begin(
    cache: SessionCache[Any], world: World
) -> None:
    """The load that was queued need not wait for one that does not count any more."""
    gate = world.hold("account")
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.account, force_refresh=True))
    old = await gate.hold()
    second = asyncio.create_task(session.get(world.account, force_refresh=True))
    await settle()
    assert 1 == gate.calls
    await session.invalidate(world.account)
    new = await gate.hold()
    await new.succeed(2)
    assert 2 == await second
    await old.succeed(1)
    assert 1 == await first
    assert 2 == await session.get(world.account)


async def test_put_holds_a_value_as_if_loaded_now(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """What is put is served, and expires as a load of that moment would."""
    session = cache.session("ann")
    await session.put(world.account, 42)
    assert 42 == await session.get(world.account)
    await clock.advance(86_399)
    assert 42 == await session.get(world.account)
    assert [] == world.calls
    await clock.advance(1)
    assert 1 == await session.get(world.account)


async def test_put_resolves_what_is_not_passed(cache: SessionCache[Any], world: World) -> None:
    """The key is that of a get with the same arguments."""
    session = cache.session("ann")
    await session.put(world.zones, ())
    assert ["account"] == world.names()
    assert () == await session.get(world.zones)
    assert () == await session.get(world.zones, project=10)
    await session.put(world.item, "put", number=3)
    assert "put" == await session.get(world.item, number=3)


async def test_a_put_during_a_load_wins(cache: SessionCache[Any], world: World) -> None:
    """A load that began before a put replaces it no more, and later gets do not join it."""
    gate = world.hold("account")
    session = cache.session("ann")
    waiter = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    await session.put(world.account, 42)
    assert 42 == await session.get(world.account)
    await load.succeed(1)
    assert 1 == await waiter
    assert 42 == await session.get(world.account)


async def test_a_put_ends_a_remembered_refusal(cache: SessionCache[Any], world: World) -> None:
    """What was put is there, whatever the upstream last said."""
    session = cache.session("ann")
    world.fail("account", lambda: NotFound("no"))
    with pytest.raises(NotFound):
        await session.get(world.account)
    await session.put(world.account, 42)
    assert 42 == await session.get(world.account)


async def test_an_invalidation_ends_a_remembered_refusal(cache: SessionCache[Any], world: World) -> None:
    """Whoever invalidates wants the upstream to be asked."""
    session = cache.session("ann")
    world.fail("item", lambda: NotFound("no"))
    for _ in range(2):
        with pytest.raises(NotFound):
            await session.get(world.item, number=1)
    assert 1 == world.count("item")
    del world.answers["item"]
    await session.invalidate(world.item, number=1)
    assert "ann has 1" == await session.get(world.item, number=1)


@pytest.mark.parametrize("option", [{"force_refresh": True}, {"max_age": None}, {"deep": True}], ids=str)
async def test_options_of_a_get_are_none_of_put_and_invalidate(
    cache: SessionCache[Any], world: World, option: dict[str, Any]
) -> None:
    """An option that would do nothing is refused, not ignored."""
    session = cache.session("ann")
    with pytest.raises(UnknownArgument, match="account"):
        await session.put(world.account, 1, **option)
    with pytest.raises(UnknownArgument, match="account"):
        await session.invalidate(world.account, **option)


async def test_a_put_whose_dependencies_fail_raises_the_first_error(make_cache: MakeCache) -> None:
    """The others end unnoticed, and nothing is stored."""
    catalog: Catalog[Any] = Catalog("failing")

    @catalog.resource
    async def left(api: Any) -> int:
        raise UpstreamTimeout("left")

    @catalog.resource
    async def right(api: Any) -> int:
        raise UpstreamTimeout("right")

    @catalog.resource
    async def both(api: Any, left: int, right: int) -> int:
        return left + right

    cache = make_cache(Holder(catalog))
    with pytest.raises(UpstreamTimeout):
        await cache.session("ann").put(both, 1)
    assert 0 == cache.stats().entries


async def test_put_of_a_mutable_value_keeps_a_copy(cache: SessionCache[Any], world: World) -> None:
    """What the caller does with its object afterwards changes nothing."""
    session = cache.session("ann")
    value = [{"days": [1]}]
    await session.put(world.notes, value)
    value[0]["days"].append(2)
    assert [{"days": [1]}] == await session.get(world.notes)
