"""One running load per user and key; whoever waits for it is nobody else's business."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from coatcheck import Catalog, Limits, Policy
from coatcheck.errors import (
    CoatcheckError,
    LoaderBroke,
    LoadError,
    LoadTimeout,
    ReentrantLoad,
    Refused,
    UpstreamFailed,
    UpstreamTimeout,
)
from coatcheck.testing import GatedLoader, settle
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_a_hundred_callers_of_two_users_cost_two_loads(cache: SessionCache[Any], world: World) -> None:
    """S1: one load per user; everybody gets their own user's value; one miss each, the others coalesced."""
    gate = world.hold("item")
    getting = {
        user: [asyncio.create_task(cache.session(user).get(world.item, number=1)) for _ in range(50)]
        for user in ("ann", "bob")
    }
    for load in (await gate.hold(), await gate.hold()):
        await load.succeed(f"of {load.api.user}")

    for user, tasks in getting.items():
        assert {f"of {user}"} == set(await asyncio.gather(*tasks))
    item = cache.stats().resources["item"]
    assert (2, 98, 2, 100) == (item.misses, item.coalesced, item.loads, item.gets)


async def test_different_keys_load_side_by_side(cache: SessionCache[Any], world: World) -> None:
    """Single flight is per key: other arguments wait for nothing."""
    gate = world.hold("item")
    session = cache.session("ann")
    getting = [asyncio.create_task(session.get(world.item, number=number)) for number in (1, 2)]
    first, second = await gate.hold(), await gate.hold()
    await second.succeed("two")
    assert "two" == await getting[1]
    await first.succeed("one")
    assert "one" == await getting[0]


@pytest.mark.parametrize("cancelled", [[0], [3], [0, 3], [1, 2, 3, 4]], ids=str)
async def test_a_cancelled_waiter_takes_nobody_with_it(
    cache: SessionCache[Any], world: World, cancelled: list[int]
) -> None:
    """S2: whoever began the load or joined it may go; the load and the others go on."""
    gate = world.hold("account")
    waiters = [asyncio.create_task(cache.session("ann").get(world.account)) for _ in range(5)]
    load = await gate.hold()
    for number in cancelled:
        waiters[number].cancel()
    await settle()
    assert load.waiting
    await load.succeed(7)

    results = await asyncio.gather(*waiters, return_exceptions=True)
    for number, result in enumerate(results):
        assert (asyncio.CancelledError if number in cancelled else int) is type(result)
    assert 1 == world.count("account")
    account = cache.stats().resources["account"]
    assert (len(cancelled), 5) == (account.cancelled, account.gets)


async def test_a_load_that_all_have_left_is_finished_and_kept(cache: SessionCache[Any], world: World) -> None:
    """S2: with every waiter cancelled the load goes on, is stored, and leaves nothing behind."""
    gate = world.hold("account")
    waiters = [asyncio.create_task(cache.session("ann").get(world.account)) for _ in range(5)]
    load = await gate.hold()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert load.waiting

    await load.succeed(7)
    assert 7 == await cache.session("ann").get(world.account)
    assert 1 == world.count("account")


async def test_a_failed_load_that_all_have_left_goes_unnoticed(
    cache: SessionCache[Any], world: World
) -> None:
    """S2: with every waiter cancelled a failure leaves no unretrieved exception, and the next get loads anew."""
    gate = world.hold("account")
    waiter = asyncio.create_task(cache.session("ann").get(world.account))
    load = await gate.hold()
    waiter.cancel()
    await settle()
    await load.fail(UpstreamTimeout("slow"))

    again = asyncio.create_task(cache.session("ann").get(world.account))
    await (await gate.hold()).succeed(8)
    assert 8 == await again


async def test_a_load_that_all_have_left_ends_at_its_deadline(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Scenario 9: nobody waits, the loader never answers; at the deadline nothing is in flight."""
    gate = world.hold("account")
    waiters = [asyncio.create_task(cache.session("ann").get(world.account)) for _ in range(3)]
    load = await gate.hold()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await clock.advance(30)
    assert not load.waiting
    assert 1 == cache.stats().resources["account"].loads_by_end["late"]


async def test_a_waiter_under_a_timeout_of_its_own_leaves_the_load_alone(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S2: a caller's timeout is a cancellation like any other: only that caller ends."""
    gate = world.hold("account")
    patient = asyncio.create_task(cache.session("ann").get(world.account))
    load = await gate.hold()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await cache.session("ann").get(world.account)
    await load.succeed(7)
    assert 7 == await patient


async def test_a_waiter_in_the_middle_of_a_chain_may_be_cancelled(
    cache: SessionCache[Any], world: World
) -> None:
    """A caller that is cancelled while a dependency loads starts nothing more; the dependency is kept."""
    gate = world.hold("account")
    waiter = asyncio.create_task(cache.session("ann").get(world.hosts))
    load = await gate.hold()
    waiter.cancel()
    await settle()
    await load.succeed(5)
    assert ["account"] == world.names()
    assert 5 == await cache.session("ann").get(world.account)
    assert 1 == world.count("account")


def depth(error: BaseException) -> int:
    return len(list(traceback.walk_tb(error.__traceback__)))


class Awkward(Exception):
    """Cannot be copied the usual way."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.two = two


@pytest.mark.parametrize(
    "error",
    [
        UpstreamTimeout("slow"),
        UpstreamFailed("bad", status=503),
        ValueError("of the loader"),
        Awkward(1, two=2),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_every_waiter_gets_an_exception_of_its_own(
    cache: SessionCache[Any], world: World, error: Exception
) -> None:
    """S3: twenty waiters, one call, twenty equal exceptions that share no object and grow no traceback."""
    gate = world.hold("account")
    waiters = [asyncio.create_task(cache.session("ann").get(world.account)) for _ in range(20)]
    await (await gate.hold()).fail(error.with_traceback(None))
    errors = await asyncio.gather(*waiters, return_exceptions=True)

    assert 1 == world.count("account")
    assert 20 == len({id(each) for each in errors})
    for each in errors:
        assert isinstance(each, type(error))
        assert (error.args, error.__dict__) == (each.args, each.__dict__)
    # Who leads comes by a longer way than who joins, but by no longer one than who is alone.
    leader, *joiners = [depth(each) for each in errors if isinstance(each, BaseException)]
    assert 1 == len(set(joiners))
    alone = asyncio.create_task(cache.session("ann").get(world.account))
    await (await gate.hold()).fail(error.with_traceback(None))
    (lone,) = await asyncio.gather(alone, return_exceptions=True)
    assert isinstance(lone, BaseException)
    assert leader == depth(lone)
    assert 0 == cache.stats().entries


async def test_a_traceback_leads_to_the_loader(cache: SessionCache[Any], world: World) -> None:
    """A waiter's own exception shows where in the loader it came from, and its cause."""
    cause = KeyError("inner")

    def fail(_user: str) -> int:
        raise UpstreamTimeout("slow") from cause

    world.answers["account"] = fail
    with pytest.raises(UpstreamTimeout) as caught:
        await cache.session("ann").get(world.account)
    assert cause is caught.value.__cause__
    assert "fail" in {frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.value.__traceback__)}


async def test_after_a_failure_the_next_get_asks_again(cache: SessionCache[Any], world: World) -> None:
    """S3: a failure with nothing held is not remembered."""
    world.fail("account", lambda: UpstreamTimeout("slow"))
    for _ in range(2):
        with pytest.raises(UpstreamTimeout):
            await cache.session("ann").get(world.account)
    assert 2 == world.count("account")


async def test_a_waiter_that_retries_at_once_does_not_meet_the_failed_load(
    cache: SessionCache[Any], world: World
) -> None:
    """S3: when a waiter hears of the failure the key is free, so its retry begins, or joins, a new load."""
    gate = world.hold("account")
    session = cache.session("ann")

    async def retry() -> int:
        try:
            return await session.get(world.account)
        except UpstreamTimeout:
            return await session.get(world.account)

    waiters = [asyncio.create_task(retry()) for _ in range(20)]
    await (await gate.hold()).fail(UpstreamTimeout("slow"))
    await (await gate.hold()).succeed(9)
    assert [9] * 20 == await asyncio.gather(*waiters)
    assert 2 == gate.calls


async def test_a_loader_that_raises_cancelled_error_cancels_nobody(
    cache: SessionCache[Any], world: World
) -> None:
    """Scenario 10: a foreign CancelledError reaches the waiters as an error of the load."""
    world.fail("account", asyncio.CancelledError)
    for _ in range(2):
        with pytest.raises(LoaderBroke, match="account"):
            await cache.session("ann").get(world.account)
    assert 2 == world.count("account")


async def test_a_loader_that_cancels_itself_cancels_nobody(make_cache: MakeCache, world: World) -> None:
    """Scenario 10: a loader that cancels the task it runs in breaks its own load only."""

    def cancel(_user: str) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return asyncio.sleep(0)

    world.answers["account"] = cancel
    with pytest.raises(LoadError):
        await make_cache(world).session("ann").get(world.account)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_loader_that_raises_no_ordinary_exception_does_not_end_the_loop(
    cache: SessionCache[Any], world: World, kind: type[BaseException]
) -> None:
    """Scenario 10: what would end the program is an error of this load; others go on."""
    gate = world.hold("item")
    other = asyncio.create_task(cache.session("bob").get(world.item, number=1))
    load = await gate.hold()
    world.fail("account", kind)
    with pytest.raises(LoaderBroke, match=kind.__name__):
        await cache.session("ann").get(world.account)
    await load.succeed("fine")
    assert "fine" == await other


async def test_at_the_deadline_the_key_is_free(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S9: a loader that never returns is cancelled at its deadline, its waiters get LoadTimeout, the next get loads."""
    gate = world.hold("account")
    waiters = [asyncio.create_task(cache.session("ann").get(world.account)) for _ in range(3)]
    load = await gate.hold()
    await clock.advance(29.999)
    assert load.waiting
    await clock.advance(0.001)
    assert not load.waiting
    for waiter in waiters:
        with pytest.raises(LoadTimeout, match="account"):
            await waiter

    again = asyncio.create_task(cache.session("ann").get(world.account))
    await (await gate.hold()).succeed(8)
    assert 8 == await again


async def test_a_loader_that_swallows_cancellation_is_counted_and_its_late_result_dropped(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Scenario 10: the key is free at the deadline whatever the loader does; what it returns later is nobody's."""
    late = asyncio.Event()

    async def stubborn() -> int:
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                continue
        return 13

    world.answers["account"] = lambda _user: stubborn()
    waiter = asyncio.create_task(cache.session("ann").get(world.account))
    await settle()
    await clock.advance(30)
    with pytest.raises(LoadTimeout):
        await waiter
    assert 1 == cache.stats().abandoned_loads

    world.answers["account"] = 8
    assert 8 == await cache.session("ann").get(world.account)
    late.set()
    await settle()
    assert 0 == cache.stats().abandoned_loads
    assert 8 == await cache.session("ann").get(world.account)


async def test_a_loader_that_never_ends_is_not_collected_while_it_runs(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """An abandoned loader that nothing else refers to stays counted; asyncio itself would lose its task."""
    gates: list[Any] = []

    async def stubborn() -> int:
        while True:
            try:
                await Unreferenced(gates)
            except asyncio.CancelledError:
                continue
            return 1

    world.answers["account"] = lambda _user: stubborn()
    waiter = asyncio.create_task(cache.session("ann").get(world.account))
    await settle()
    await clock.advance(30)
    with pytest.raises(LoadTimeout):
        await waiter
    del waiter
    gc.collect()
    assert 1 == cache.stats().abandoned_loads
    gates[-1]().set_result(None)
    await settle()


class Unreferenced:
    """Awaits a future that only the awaiting task holds."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def __await__(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.seen.append(weakref.ref(future))
        return (yield from future)


async def test_waiting_for_a_slot_counts_towards_the_deadline(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """A load that gets no slot in time fails at its deadline like any other, and never calls its loader."""
    cache = make_cache(world, limits=Limits(max_loads=1))
    gate = world.hold("item")
    holder = asyncio.create_task(cache.session("ann").get(world.item, number=1))
    load = await gate.hold()
    await clock.advance(10)
    queued = asyncio.create_task(cache.session("bob").get(world.account))
    await settle()
    await clock.advance(19.9)
    await load.succeed("x")
    assert "x" == await holder
    assert 1 == await queued
    assert 1 == world.count("account")


async def test_a_loader_that_asks_for_its_own_key_fails_at_once(make_cache: MakeCache) -> None:
    """Scenario 13: it would wait for itself; also when it asks for something that depends on its own key."""
    catalog: Catalog[str] = Catalog("looping")
    caches: list[SessionCache[Any]] = []

    @catalog.resource
    async def env(api: str) -> int:
        return await caches[0].session("ann").get(env)

    @catalog.resource
    async def root(api: str) -> int:
        return await caches[0].session("ann").get(leaf)

    @catalog.resource
    async def leaf(api: str, root: int) -> int:
        return root

    caches.append(make_cache(Holder(catalog)))
    with pytest.raises(ReentrantLoad, match="env"):
        await caches[0].session("ann").get(env)
    with pytest.raises(ReentrantLoad, match="root"):
        await caches[0].session("ann").get(leaf)


class Holder(World):
    """A world with another catalog."""

    def __init__(self, catalog: Catalog[Any]) -> None:
        super().__init__()
        self.catalog = catalog


async def test_what_a_loader_left_running_may_ask_for_what_was_loaded(make_cache: MakeCache) -> None:
    """A task begun inside a load is inside of it no more when the load has ended, and its loads take slots."""
    catalog: Catalog[Any] = Catalog("outliving")
    caches: list[SessionCache[Any]] = []
    going_on = asyncio.Event()
    left: list[asyncio.Task[int]] = []

    @catalog.resource
    async def env(api: Any) -> int:
        if not left:
            left.append(asyncio.create_task(later()))
        return len(left)

    async def later() -> int:
        await going_on.wait()
        return await caches[0].session("ann").get(env, force_refresh=True)

    caches.append(make_cache(Holder(catalog)))
    await caches[0].session("ann").get(env)
    going_on.set()
    assert 1 == await left[0]
    assert 2 == caches[0].stats().resources["env"].loads


async def test_a_loader_may_ask_for_other_things(make_cache: MakeCache) -> None:
    """The same resource for another user or with other arguments is no loop."""
    catalog: Catalog[Any] = Catalog("nesting")
    caches: list[SessionCache[Any]] = []

    @catalog.resource
    async def factorial(api: Any, number: int) -> int:
        if number == 0:
            return 1
        return number * await caches[0].session(api.user).get(factorial, number=number - 1)

    @catalog.resource
    async def shared(api: Any) -> str:
        return f"of {api.user}" if api.user == "root" else await caches[0].session("root").get(shared)

    caches.append(make_cache(Holder(catalog)))
    assert 120 == await caches[0].session("ann").get(factorial, number=5)
    assert "of root" == await caches[0].session("ann").get(shared)


async def test_a_background_load_begun_inside_a_loader_is_a_load_of_its_own(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """A loader that reads an ageing entry sets off a refresh which may read what that loader is loading."""
    catalog: Catalog[Any] = Catalog("background")
    caches: list[SessionCache[Any]] = []
    gate = GatedLoader()

    @catalog.resource(Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    async def settings(api: Any) -> int:
        return len(names) if not names else await caches[0].session("ann").get(main)

    names: list[str] = []

    @catalog.resource
    async def main(api: Any) -> int:
        await caches[0].session("ann").get(settings)
        await gate(api)
        return 5

    caches.append(make_cache(Holder(catalog)))
    session = caches[0].session("ann")
    assert 0 == await session.get(settings)
    names.append("again")
    await clock.advance(60)
    getting = asyncio.create_task(session.get(main))
    await (await gate.hold()).succeed(None)
    assert 5 == await getting
    await settle()
    assert 5 == await session.get(settings)
    assert 0 == caches[0].stats().resources["settings"].refresh_failures


async def test_an_error_of_ours_is_of_our_tree() -> None:
    """LoaderBroke and LoadTimeout are load errors, which are coatcheck's own."""
    for kind in (LoaderBroke, LoadTimeout, ReentrantLoad):
        assert issubclass(kind, LoadError)
        assert issubclass(kind, CoatcheckError)


async def test_one_branch_that_fails_leaves_the_others_to_be_kept(make_cache: MakeCache) -> None:
    """With several dependencies the first error is raised; loads that had begun go on and are kept."""
    catalog: Catalog[Any] = Catalog("branches")
    good, bad = GatedLoader(), GatedLoader()

    @catalog.resource
    async def left(api: Any) -> int:
        return int(await good(api))

    @catalog.resource
    async def right(api: Any) -> int:
        return int(await bad(api))

    @catalog.resource
    async def both(api: Any, left: int, right: int) -> int:
        return left + right

    cache = make_cache(Holder(catalog))
    getting = asyncio.create_task(cache.session("ann").get(both))
    load = await good.hold()
    await (await bad.hold()).fail(UpstreamTimeout("slow"))
    with pytest.raises(UpstreamTimeout):
        await getting
    await load.succeed(3)
    assert 3 == await cache.session("ann").get(left)
    assert 1 == good.calls


async def test_a_shared_dependency_is_resolved_once_by_one_get(make_cache: MakeCache) -> None:
    """A diamond loads its top once, also when the first load of it fails while others wait."""
    catalog: Catalog[Any] = Catalog("diamond")
    calls: list[str] = []

    @catalog.resource
    async def top(api: Any) -> int:
        calls.append("top")
        return 1

    @catalog.resource
    async def left(api: Any, top: int) -> int:
        calls.append("left")
        return top + 1

    @catalog.resource
    async def right(api: Any, top: int) -> int:
        calls.append("right")
        return top + 2

    @catalog.resource
    async def bottom(api: Any, left: int, right: int) -> int:
        calls.append("bottom")
        return left * right

    cache = make_cache(Holder(catalog))
    assert 6 == await cache.session("ann").get(bottom)
    assert ["bottom", "left", "right", "top"] == sorted(calls)
    assert 6 == await cache.session("ann").get(bottom, force_refresh=True, deep=True)
    assert 8 == len(calls)


class Choosy(Refused):
    """Raises when it is asked whether it takes anything with it."""

    @property
    def revokes_dependents(self) -> bool:  # type: ignore[override]
        raise LookupError


async def test_an_error_that_raises_when_it_is_looked_at_still_ends_its_load(make_cache: MakeCache) -> None:
    """Who waits for the load is told, and its place among the background loads is free again."""
    world = World()
    cache = make_cache(world, limits=Limits(max_refreshes=1))
    world.fail("account", lambda: Choosy("no"))
    for _ in range(2):
        with pytest.raises(LoaderBroke, match="account"):
            await cache.session("ann").get(world.account)
    del world.answers["account"]
    assert await cache.session("ann").get(world.account)


class Unique(UpstreamTimeout):
    """There can be no second one."""

    def __new__(cls, *words: str) -> Self:
        if not words:
            raise TypeError
        return super().__new__(cls, *words)

    def __copy__(self) -> Unique:
        raise TypeError


async def test_an_error_that_cannot_be_copied_is_raised_itself(make_cache: MakeCache) -> None:
    world = World()
    cache = make_cache(world)
    world.fail("account", lambda: Unique("down"))
    with pytest.raises(Unique, match="down"):
        await cache.session("ann").get(world.account)
