"""What a cache may hold and do at once, and what goes when it is more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coatcheck import Catalog, Limits, Policy
from coatcheck.engine.cache import IDLE_SECONDS, SWEEP_SECONDS
from coatcheck.errors import CacheClosed, PolicyError
from coatcheck.testing import settle
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import Resource, SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_the_session_unused_longest_leaves_whole(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """Beyond max_sessions the least recently used goes with all its entries; a hit is a use."""
    cache = make_cache(world, limits=Limits(max_sessions=3))
    for user in ("ann", "bob", "cid"):
        await cache.session(user).get(world.hosts)
        await clock.advance(1)
    await cache.session("ann").get(world.hosts)
    await clock.advance(1)
    await cache.session("dan").get(world.account)
    assert {"ann", "cid", "dan"} == set(cache.users())
    assert 7 == cache.stats().entries
    assert 1 == cache.stats().sessions_removed["evicted"]
    assert 1 == cache.stats().resources["zones"].removals["evicted"]


@pytest.mark.parametrize("look", ["session", "peek", "stats", "refresh"])
async def test_looking_at_a_session_is_no_use_of_it(
    make_cache: MakeCache, clock: FakeClock, look: str
) -> None:
    """Neither a handle nor a peek nor figures nor a background load keep a session from being evicted."""
    world = World(default=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    cache = make_cache(world, limits=Limits(max_sessions=2))
    ann = cache.session("ann")
    await ann.get(world.account)
    await clock.advance(60)
    gate = world.hold("account")
    if look == "refresh":
        await ann.get(world.account)
        load = await gate.hold()
        world.release("account")
        await clock.advance(1)
        await cache.session("bob").get(world.account)
        await clock.advance(1)
        await load.succeed(1)
    else:
        world.release("account")
        await cache.session("bob").get(world.account)
        await clock.advance(1)
        if look == "session":
            cache.session("ann")
        elif look == "peek":
            assert None is not cache.session("ann").peek(world.account)
        else:
            cache.stats("ann")
    await cache.session("cid").get(world.account)
    assert {"bob", "cid"} == set(cache.users())


async def test_looking_at_a_user_that_holds_nothing_occupies_nothing(
    cache: SessionCache[Any], world: World
) -> None:
    """A handle, a peek and figures of a stranger leave no trace."""
    for number in range(100):
        session = cache.session(f"stranger {number}")
        assert None is session.peek(world.account)
        assert None is session.peek(world.hosts)
        assert None is cache.stats(f"stranger {number}").idle_for
    assert (0, 0) == (cache.stats().sessions, cache.stats().bytes)


async def test_bytes_are_bounded_by_evicting_whole_sessions(make_cache: MakeCache, clock: FakeClock) -> None:
    """The estimate never stays above the bound while there is a session to evict."""
    world = World()
    world.answers["item"] = "x" * 10_000
    cache = make_cache(world, limits=Limits(max_bytes=100_000))
    for number in range(50):
        await cache.session(f"user {number}").get(world.item, number=1)
        await clock.advance(1)
        assert cache.stats().bytes <= 100_000
    assert f"user {49}" in cache.users()
    assert "user 0" not in cache.users()
    assert 4 == cache.stats().sessions


async def test_a_session_with_work_under_way_is_not_evicted(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """Its load is kept when it ends; what is at rest goes in its place."""
    cache = make_cache(world, limits=Limits(max_sessions=1))
    gate = world.hold("account")
    getting = asyncio.create_task(cache.session("ann").get(world.account))
    load = await gate.hold()
    await clock.advance(5)
    await cache.session("bob").get(world.item, number=1)
    await load.succeed(1)
    assert 1 == await getting
    assert 1 == await cache.session("ann").get(world.account)
    assert 1 == gate.calls


async def test_eviction_never_interrupts_a_call(make_cache: MakeCache, world: World) -> None:
    """I10: a session is not evicted in the gap between the load of a dependency and that of the leaf."""
    cache = make_cache(world, limits=Limits(max_sessions=1))
    users = [f"user {number}" for number in range(20)]
    for _ in range(2):
        looks = await asyncio.gather(*(cache.session(user).get(world.hosts) for user in users))
        assert [f"{user}/east/all" for user in users] == [look[0] for look in looks]


async def test_eviction_changes_how_often_is_loaded_and_not_what(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """I10: with room for one session the answers are those of a cache with room for all."""
    answers = []
    for limits in (Limits(), Limits(max_sessions=1), Limits(max_bytes=1), Limits(max_keys_per_session=1)):
        world = World()
        world.numbers.update(ann=1, bob=2)
        cache = make_cache(world, limits=limits)
        seen: list[Any] = []
        for user in ("ann", "bob", "ann", "bob", "ann"):
            session = cache.session(user)
            seen += [await session.get(world.hosts), await session.get(world.item, number=1)]
            seen += [await session.get(world.zones, project=4), await session.get(world.notes)]
        answers.append(seen)
    assert all(seen == answers[0] for seen in answers)


async def test_keys_per_session_are_bounded(make_cache: MakeCache, world: World, clock: FakeClock) -> None:
    """Beyond the bound the entries loaded first go; aliases take nobody's room."""
    cache = make_cache(world, limits=Limits(max_keys_per_session=3))
    session = cache.session("ann")
    for _ in range(2):
        await session.get(world.hosts)
    assert 3 == cache.stats().entries
    for number in range(10):
        await clock.advance(1)
        await session.get(world.item, number=number)
        assert 3 == cache.stats().entries
    world.calls.clear()
    for number in (7, 8, 9):
        await session.get(world.item, number=number)
    assert [] == world.calls
    await session.get(world.item, number=0)
    assert 1 == world.count("item")


async def test_an_entry_just_loaded_is_not_the_one_to_go(make_cache: MakeCache, world: World) -> None:
    """Also when all were loaded at the same moment, or when its own load began first."""
    cache = make_cache(world, limits=Limits(max_keys_per_session=2))
    session = cache.session("ann")
    for number in (9, 8, 7, 6):
        await session.get(world.item, number=number)
        before = world.count("item")
        await session.get(world.item, number=number)
        assert before == world.count("item")


async def test_so_many_loads_run_at_once_overall(make_cache: MakeCache, world: World) -> None:
    """I11: the rest waits, in order of arrival."""
    cache = make_cache(world, limits=Limits(max_loads=3))
    gate = world.hold("account")
    getting = [asyncio.create_task(cache.session(f"user {n}").get(world.account)) for n in range(10)]
    await settle()
    for number in range(10):
        assert min(10, 3 + number) == gate.calls
        load = await gate.hold()
        assert f"user {number}" == load.api.user
        await load.succeed(number)
    assert list(range(10)) == await asyncio.gather(*getting)


async def test_so_many_loads_run_at_once_for_one_user(make_cache: MakeCache, world: World) -> None:
    """One user's many loads take no other's slots."""
    cache = make_cache(world, limits=Limits(max_loads=10, max_loads_per_user=2))
    gate = world.hold("item")
    ann = [asyncio.create_task(cache.session("ann").get(world.item, number=n)) for n in range(8)]
    await settle()
    assert 2 == gate.calls
    bob = asyncio.create_task(cache.session("bob").get(world.item, number=1))
    await settle()
    assert 3 == gate.calls
    for _ in range(9):
        await (await gate.hold()).succeed("x")
    assert 9 == len(await asyncio.gather(*ann, bob))


@pytest.mark.parametrize("ending", ["succeeds", "fails", "times out", "is swallowed"])
async def test_a_slot_is_free_when_its_load_has_ended_in_whatever_way(
    make_cache: MakeCache, world: World, clock: FakeClock, ending: str
) -> None:
    """Scenario 10: also a loader that ignores its deadline holds no slot beyond it."""
    cache = make_cache(world, limits=Limits(max_loads=1))
    late = asyncio.Event()

    async def stubborn() -> str:
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                if ending == "times out":
                    raise
        return "late"

    gate = world.hold("item")
    if ending in {"times out", "is swallowed"}:
        world.release("item")
        world.answers["item"] = lambda _user, number: stubborn()
    first = asyncio.create_task(cache.session("ann").get(world.item, number=1))
    await settle()
    second = asyncio.create_task(cache.session("bob").get(world.account))
    await settle()
    assert 0 == world.count("account")
    if ending == "succeeds":
        await (await gate.hold()).succeed("x")
    elif ending == "fails":
        await (await gate.hold()).fail(ValueError())
    else:
        await clock.advance(29)
        assert 0 == world.count("account")
        await clock.advance(1)
    await asyncio.gather(first, return_exceptions=True)
    if ending in {"times out", "is swallowed"}:
        # Bob's own deadline began when his load was asked for, and has passed with Ann's.
        await asyncio.gather(second, return_exceptions=True)
        assert 1 == await cache.session("bob").get(world.account)
    else:
        assert 1 == await second
    late.set()
    await settle()


async def test_a_load_inside_another_takes_no_slot_of_its_own(make_cache: MakeCache) -> None:
    """With a single slot a loader that asks for something else is not waiting for itself."""
    catalog: Catalog[Any] = Catalog("inside")
    caches: list[SessionCache[Any]] = []

    @catalog.resource
    async def inner(api: Any) -> int:
        return 1

    @catalog.resource
    async def outer(api: Any) -> int:
        return 1 + await caches[0].session("ann").get(inner)

    caches.append(make_cache(Holder(catalog), limits=Limits(max_loads=1, max_loads_per_user=1)))
    assert 2 == await caches[0].session("ann").get(outer)


async def test_waiting_callers_come_before_background_loads(make_cache: MakeCache, clock: FakeClock) -> None:
    """A slot that falls free goes to a load that somebody waits for."""
    world = World(item=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    cache = make_cache(world, limits=Limits(max_loads=1))
    session = cache.session("ann")
    for number in (1, 2):
        await session.get(world.item, number=number)
    gate = world.hold("item")
    await clock.advance(60)
    for number in (1, 2):
        await session.get(world.item, number=number)
    running = await gate.hold()
    caller = asyncio.create_task(cache.session("bob").get(world.item, number=3))
    await settle()
    await running.succeed("x")
    load = await gate.hold()
    assert 3 == load.arguments["number"]
    await load.succeed("y")
    assert "y" == await caller
    await (await gate.hold()).succeed("z")


async def test_a_cache_that_waits_for_its_pace_closes_at_once(make_cache: MakeCache, world: World) -> None:
    """The moment at which the next load might have begun is waited for by nobody any more."""
    cache = make_cache(world, limits=Limits(max_loads_per_second=0.01))
    await cache.session("ann").get(world.account)
    waiting = asyncio.create_task(cache.session("bob").get(world.account))
    await settle()
    await cache.aclose()
    with pytest.raises(CacheClosed):
        await waiting
    assert 1 == world.count("account")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("max_bytes", 0),
        ("max_sessions", -1),
        ("max_loads", 1.5),
        ("max_refreshes", None),
        ("max_keys_per_session", True),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(name: str, wrong: Any) -> None:
    """The error names it."""
    with pytest.raises(PolicyError, match=name):
        Limits(**{name: wrong})


async def test_the_sweep_drops_what_is_dead(cache: SessionCache[Any], world: World, clock: FakeClock) -> None:
    """An entry that may not be served any more does not wait for a get to leave the memory."""
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=SWEEP_SECONDS / 2)))
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts)
    await clock.advance(SWEEP_SECONDS + 1)
    assert 2 == cache.stats().entries
    assert 1 == cache.stats().resources["account"].removals["expired"]
    assert ("ann",) == cache.users()


async def test_the_sweep_ends_sessions_that_hold_nothing(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """An idle session without entries is closed, and its connection with it; one in use stays."""
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=10)))
    await cache.session("ann").get(world.account)
    await clock.advance(IDLE_SECONDS - 10)
    await cache.session("bob").get(world.account)
    await clock.advance(SWEEP_SECONDS)
    assert ("bob",) == cache.users()
    assert [1, 0] == [api.closed for api in world.apis]


async def test_the_sweep_goes_on_after_many_sessions_have_ended(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A few old sessions among many cleared ones are swept, and so is whatever comes later."""
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=10)))
    for number in range(6):
        await cache.session(f"old {number}").get(world.account)
    for number in range(75):
        await cache.session(f"new {number}").get(world.account)
        await cache.clear(f"new {number}")
    await clock.advance(IDLE_SECONDS + SWEEP_SECONDS)
    assert () == cache.users()
    await cache.session("ann").get(world.account)
    await clock.advance(IDLE_SECONDS + SWEEP_SECONDS)
    assert () == cache.users()


async def test_a_user_id_that_grows_in_memory_is_counted_out_as_it_was_counted_in(
    cache: SessionCache[Any], world: World
) -> None:
    """A string that somebody has encoded carries its UTF-8 along; the books do not care."""
    user = "".join(["é"] * 100)
    await cache.session(user).get(world.account)
    for held in cache.users():
        msgspec.json.encode(held)
    await cache.clear(user)
    assert 0 == cache.stats().bytes


async def test_one_round_of_the_sweep_looks_at_every_session(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Sessions that end while the round goes on do not shorten it for those behind them."""
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=10)))
    for number in range(200):
        await cache.session(f"user {number}").get(world.account)

    await clock.advance(IDLE_SECONDS + SWEEP_SECONDS)

    assert () == cache.users()


@pytest.mark.parametrize("limits", [Limits(max_loads=1), Limits(max_loads_per_user=1)], ids=["all", "user"])
async def test_a_loader_may_wait_for_a_load_that_waits_for_its_own_slot(
    make_cache: MakeCache, limits: Limits
) -> None:
    """Begun from outside it stood in line; whoever has the slot now waits for it, so it needs none."""
    catalog: Catalog[Any] = Catalog("nested")
    gate = asyncio.Event()
    caches: list[SessionCache[Any]] = []

    @catalog.resource
    async def inner(api: Any) -> int:
        return 2

    @catalog.resource
    async def outer(api: Any, forced: bool = False) -> int:
        await gate.wait()
        return 1 + await caches[0].session("ann").get(inner, force_refresh=forced)

    caches.append(make_cache(Holder(catalog), limits=limits))
    session = caches[0].session("ann")
    for forced in (False, True):
        gate.clear()
        getting = [asyncio.create_task(session.get(outer, forced=forced, force_refresh=True))]
        await settle()
        getting.append(asyncio.create_task(session.get(inner, force_refresh=True)))
        await settle()
        gate.set()
        assert await asyncio.gather(*getting) == [3, 2]


async def test_connect_may_ask_the_cache_though_all_slots_wait_for_it(make_cache: MakeCache) -> None:
    """As for a token that is kept in another session: what it loads is a part of the load that it connects for."""
    catalog: Catalog[Any] = Catalog("tokens")
    caches: list[SessionCache[Any]] = []

    @catalog.resource
    async def token(api: str) -> str:
        return f"token of {api}"

    @catalog.resource
    async def name(api: str) -> str:
        return api

    kept: Resource[Any] = token

    async def connect(user: str) -> str:
        return user if user == "service" else f"{user} with {await caches[0].session('service').get(kept)}"

    caches.append(make_cache(Holder(catalog), limits=Limits(max_loads=2), connect=connect))
    users = [f"user-{number}" for number in range(5)]
    tasks = [asyncio.create_task(caches[0].session(user).get(name)) for user in users]
    assert await asyncio.gather(*tasks) == [f"{user} with token of service" for user in users]


async def test_a_background_load_that_a_caller_comes_to_wait_for_waits_like_one(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """A busy cache would let it stand behind all callers, and him with it."""
    world = World(account=Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0.0))
    cache = make_cache(world, limits=Limits(max_loads=1))
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(95)
    gate = world.hold("item")
    asked = [asyncio.create_task(session.get(world.item, number=0))]
    first = await gate.hold()
    await session.get(world.account)  # its refresh stands in line
    await clock.advance(6)
    waits = asyncio.create_task(session.get(world.account))
    await settle()
    asked += [asyncio.create_task(session.get(world.item, number=number)) for number in (1, 2)]
    await settle()
    await first.succeed("zero")
    await settle(waits.done)
    for number in (1, 2):
        await (await gate.hold()).succeed(str(number))
    await asyncio.gather(*asked)
    assert cache.stats().resources["account"].loads == 2
