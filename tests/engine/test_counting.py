"""Every caller's get is counted once, when it ends; every load by why it began and how it ended."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Policy
from coatcheck.engine.stats import Histogram
from coatcheck.errors import CoatcheckError, Forbidden, UpstreamTimeout
from coatcheck.testing import settle
from engine.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck import Session, SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


def outcomes(cache: SessionCache[Any], name: str) -> dict[str, int]:
    """Return the counts of a resource that are not zero."""
    each = cache.stats().resources[name]
    kinds = ("hits", "stale_hits", "coalesced", "misses", "failed", "cancelled")
    return {kind: getattr(each, kind) for kind in kinds if getattr(each, kind)}


async def test_each_get_is_counted_as_what_it_was(make_cache: MakeCache, clock: FakeClock) -> None:
    """S16: miss, joined, hit, stale, failed, cancelled: one each, and their sum."""
    world = World(account=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100)))
    cache = make_cache(world)
    session = cache.session("ann")
    gate = world.hold("account")
    leads = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    joins = asyncio.create_task(session.get(world.account))
    leaves = asyncio.create_task(session.get(world.account))
    await settle()
    leaves.cancel()
    await settle()
    await load.succeed(1)
    await asyncio.gather(leads, joins)
    await session.get(world.account)
    world.release("account")
    world.fail("account", lambda: UpstreamTimeout("slow"))
    await clock.advance(150)
    await session.get(world.account)
    await clock.advance(50)
    with pytest.raises(UpstreamTimeout):
        await session.get(world.account)
    expected = {"hits": 1, "stale_hits": 1, "coalesced": 1, "misses": 1, "failed": 1, "cancelled": 1}
    assert expected == outcomes(cache, "account")
    account = cache.stats().resources["account"]
    assert (6, 3) == (account.gets, account.loads)
    assert {"stored": 1, "failed": 2} == {end: n for end, n in account.loads_by_end.items() if n}
    assert 4 - 3 == account.calls_saved


async def test_a_get_that_is_closed_half_way_is_counted(cache: SessionCache[Any], world: World) -> None:
    """As the coroutines of a loop are that was closed under them."""
    session = cache.session("ann")
    gate = world.hold("account")
    leads = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    joins = session.get(world.account)
    joins.send(None)
    joins.close()
    await load.succeed(1)
    await leads
    assert {"misses": 1, "failed": 1} == outcomes(cache, "account")
    assert 2 == cache.stats("ann").resources["account"].gets


async def test_only_what_callers_asked_for_is_counted(cache: SessionCache[Any], world: World) -> None:
    """A dependency resolved on the way is a load of its own and no get."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts)
    assert {"misses": 1, "hits": 1} == outcomes(cache, "hosts")
    assert {} == outcomes(cache, "account")
    assert {} == outcomes(cache, "project")
    resources = cache.stats().resources
    assert (0, 1) == (resources["account"].gets, resources["account"].loads_by_cause["dependency"])
    assert (1, 0) == (
        resources["hosts"].loads_by_cause["get"],
        resources["hosts"].loads_by_cause["dependency"],
    )


@pytest.mark.parametrize("way", ["get", "lookup", "get_many"])
async def test_every_way_of_asking_is_counted_alike(cache: SessionCache[Any], world: World, way: str) -> None:
    """A get, a lookup and one of many are gets; a peek, a put and an invalidation are none."""
    session = cache.session("ann")
    for _ in range(5):
        await getattr(session, way)(world.hosts)
        session.peek(world.hosts)
    await session.put(world.account, 1)
    await session.invalidate(world.item)
    assert {"misses": 1, "hits": 4} == outcomes(cache, "hosts")
    assert 5 == cache.stats().total.gets
    assert 5 == cache.stats("ann").total.gets


async def test_calls_saved_are_those_that_a_program_without_a_cache_would_have_made(
    cache: SessionCache[Any], world: World
) -> None:
    """For each get that completed, one and one for every stored ancestor that was not passed; less the loads."""
    session = cache.session("ann")
    for _ in range(4):
        await session.get(world.hosts)
    assert 4 * 3 - 3 == cache.stats().total.calls_saved
    await session.get(world.project)
    assert 10 == cache.stats().total.calls_saved
    for _ in range(3):
        await session.get(world.zones, project=10)
    assert 13 == cache.stats().total.calls_saved
    await session.get(world.hosts, kind="all")
    assert 16 == cache.stats().total.calls_saved
    await session.get(world.zones, project=77)
    assert 16 == cache.stats().total.calls_saved
    await session.get(world.account, force_refresh=True)
    assert 16 == cache.stats().total.calls_saved
    world.fail("item", lambda: Forbidden("no"))
    with pytest.raises(Forbidden):
        await session.get(world.item, number=1)
    assert 15 == cache.stats().total.calls_saved
    assert 15 == cache.stats("ann").total.calls_saved


async def test_a_thousand_callers_of_one_leaf_save_all_but_one_chain(
    cache: SessionCache[Any], world: World
) -> None:
    """Those who joined count as having saved what they would have called."""
    session = cache.session("ann")
    await asyncio.gather(*(session.get(world.hosts) for _ in range(1_000)))
    total = cache.stats().total
    assert (1_000, 3, 2_997) == (total.gets, total.loads, total.calls_saved)
    assert {"misses": 1, "coalesced": 999} == outcomes(cache, "hosts")


async def test_a_users_figures_are_theirs_and_go_with_the_session(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S16: gets, loads, saved calls, bytes, last seen; nothing of them stays after a clear."""
    await cache.session("ann").get(world.hosts)
    await cache.session("bob").get(world.account)
    await clock.advance(3)
    for _ in range(5):
        await cache.session("ann").get(world.hosts)
    ann = cache.stats("ann")
    assert (6, 5, 1, 3, 15) == (
        ann.total.gets, ann.total.hits, ann.total.misses, ann.total.loads, ann.total.calls_saved
    )  # fmt: skip
    assert (0.0, 3.0) == (ann.idle_for, cache.stats("bob").idle_for)
    assert ann.resources["hosts"] == ann.total or ann.resources["hosts"].gets == ann.total.gets
    assert 0 < cache.stats("bob").bytes < ann.bytes
    await cache.clear("ann")
    gone = cache.stats("ann")
    assert (0, 0, None) == (gone.total.gets, gone.bytes, gone.idle_for)
    assert 7 == cache.stats().total.gets


async def test_times_are_of_loads_and_of_what_was_saved(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """S16: load latency is measured always; time saved is what the chain would have taken, less what was waited."""
    gates = {name: world.hold(name) for name in ("account", "zones")}
    session = cache.session("ann")
    getting = asyncio.create_task(session.get(world.zones))
    load = await gates["account"].hold()
    await clock.advance(0.25)
    await load.succeed(1)
    load = await gates["zones"].hold()
    await clock.advance(0.5)
    await load.succeed(())
    await getting
    for _ in range(9):
        await session.get(world.zones)
    zones = cache.stats().resources["zones"]
    assert (1, 0.5) == (zones.load_latency.count, zones.load_latency.mean)
    assert 0.5 <= zones.load_latency.p50 <= 0.5 * 1.07
    assert (0.075, 0.75) == (zones.response_with, zones.response_without)
    assert 10 * 0.75 - 0.75 == zones.time_saved
    assert 1 == zones.hit_latency.count


def test_quantiles_are_right_to_a_twentieth() -> None:
    """Whatever the spread of the durations, from nanoseconds to hours."""
    rng = random.Random(3)
    for scale in (1e-8, 1e-3, 1.0, 1e3):
        histogram = Histogram()
        durations = sorted(scale * rng.lognormvariate(0, 1) for _ in range(2_000))
        for duration in durations:
            histogram.record(duration)
        for share in (0.5, 0.95, 0.99):
            exact = durations[int(share * len(durations)) - 1]
            assert exact * 0.99 <= histogram.quantile(share) <= exact * 1.07
        assert sum(durations) / 2_000 == pytest.approx(histogram.mean())
        assert 2_000 == sum(histogram.counts)


def test_durations_out_of_range_are_counted_at_the_ends() -> None:
    """Zero, below zero and beyond days are durations, too."""
    histogram = Histogram()
    for duration in (0.0, -1.0, 1e9, 1e-12):
        histogram.record(duration)
    assert 4 == histogram.number
    assert histogram.quantile(1.0) > 1_000
    assert 0.0 == Histogram().quantile(0.5)


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
async def test_hits_from_many_threads_add_up_exactly(cache: SessionCache[Any], world: World) -> None:
    """Counts are exact under threads: per resource, per user and in all."""
    for user in ("ann", "bob"):
        await cache.session(user).get_many(world.hosts, world.account, world.notes)
        await cache.session(user).get(world.item, number=1)
        await cache.session(user).get_many(world.hosts, world.account, world.notes)
    before = cache.stats()
    user_before = cache.stats("ann").total.hits
    rounds, threads = 2_000, 6
    errors: list[BaseException] = []
    ready = threading.Barrier(threads)

    def hit(user: str) -> None:
        # A hit awaits nothing, so it needs no loop.
        try:
            session = cache.session(user)
            ready.wait()
            for _ in range(rounds):
                for call in (
                    session.get(world.hosts), session.get(world.account), session.get(world.item, number=1),
                    session.lookup(world.notes),
                ):  # fmt: skip
                    try:
                        call.send(None)
                    except StopIteration:
                        continue
                    raise AssertionError("a hit awaited something")
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    working = [threading.Thread(target=hit, args=("ann" if n % 2 else "bob",)) for n in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        await asyncio.to_thread(thread.join)
    assert [] == errors
    after = cache.stats()
    for name in ("hosts", "account", "item", "notes"):
        assert rounds * threads == after.resources[name].hits - before.resources[name].hits, name
    assert 4 * rounds * threads == after.total.gets - before.total.gets
    assert 4 * rounds * threads // 2 == cache.stats("ann").total.hits - user_before
    # Each hit on hosts saves three calls, and the others one each.
    assert 6 * rounds * threads == after.total.calls_saved - before.total.calls_saved


async def something(rng: random.Random, world: World, session: Session) -> object:
    """Make one call of any kind."""
    resource: Any = rng.choice([world.account, world.project, world.zones, world.hosts, world.notes])
    calls = [
        lambda: session.get_many(world.hosts, world.notes),
        lambda: session.invalidate(resource),
        session.clear,
        session.warm,
    ]
    if rng.random() < 0.6:
        return await session.get(resource, force_refresh=rng.random() < 0.2)
    return await rng.choice(calls)()


async def test_the_identities_hold_after_whatever_was_done(make_cache: MakeCache, clock: FakeClock) -> None:
    """A few hundred random calls of all kinds; what was promised of the sums is checked when the test has ended."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    policy = Policy(
        ttl=timedelta(seconds=100), refresh_ahead=0.7, stale_if_error=timedelta(seconds=60), negative_ttl=timedelta(seconds=2)
    )  # fmt: skip
    world = World(default=policy)
    cache = make_cache(world)

    def sometimes(user: str, **arguments: Any) -> Any:
        chance = rng.random()
        if chance < 0.1:
            raise UpstreamTimeout("slow")
        if chance < 0.15:
            raise Forbidden("no")
        if chance < 0.2:
            raise ValueError
        return rng.randrange(3)

    world.answers["account"] = sometimes
    calls: list[asyncio.Task[Any]] = []
    for _ in range(400):
        if calls and rng.random() < 0.1:
            rng.choice(calls).cancel()
        else:
            calls.append(
                asyncio.create_task(something(rng, world, cache.session(rng.choice(["ann", "bob"]))))
            )
        if rng.random() < 0.3:
            await clock.advance(rng.choice([0, 1, 10, 70, 100]))
    await clock.advance(40)
    ended = await asyncio.gather(*calls, return_exceptions=True)
    unexpected = [
        each for each in ended
        if isinstance(each, BaseException)
        and not isinstance(each, CoatcheckError | asyncio.CancelledError | ValueError)
    ]  # fmt: skip
    assert [] == unexpected
    total = cache.stats().total
    assert total.loads == len(world.calls)
