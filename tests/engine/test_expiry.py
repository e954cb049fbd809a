"""What happens at and past the end of a TTL: a load, a stale value while the upstream fails, or an error."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Outcome, Policy
from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.testing import settle
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache

HOURS = 3_600.0
LENIENT = Policy(
    ttl=timedelta(hours=24),
    stale_if_error=timedelta(hours=48),
    failure_throttle=timedelta(seconds=30),
    jitter=0,
)


def timed_out() -> UpstreamTimeout:
    return UpstreamTimeout("slow")


async def test_age_counts_from_the_call_of_the_loader(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """A slow load is not younger for it: the value was true when it was asked for."""
    gate = world.hold("account")
    getting = asyncio.create_task(cache.session("ann").get(world.account))
    load = await gate.hold()
    await clock.advance(20)
    await load.succeed(1)
    await getting
    look = await cache.session("ann").lookup(world.account)
    assert (20.0, 86_380.0) == (look.age, look.fresh_for)


async def test_a_load_slower_than_the_ttl_answers_its_waiters_only(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """What has expired before it arrived is served to nobody who comes later."""
    world = World(account=Policy(ttl=timedelta(seconds=5)))
    session = make_cache(world).session("ann")
    gate = world.hold("account")
    getting = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    await clock.advance(6)
    await load.succeed(1)
    assert 1 == await getting
    world.release("account")
    world.answers["account"] = 2
    assert 2 == await session.get(world.account)


async def test_a_failing_upstream_is_asked_once_in_every_throttle(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S8: past the TTL one call fails; a hundred answers are the old value, marked stale; then exactly one more call."""
    world = World(account=LENIENT)
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(25 * HOURS)
    world.fail("account", timed_out)
    for _ in range(100):
        look = await session.lookup(world.account)
        assert (1, Outcome.STALE_HIT, True, 0.0) == (look.value, look.outcome, look.stale, look.fresh_for)
        await clock.advance(0.299)
    assert 2 == world.count("account")
    await clock.advance(1)
    for _ in range(20):
        await session.get(world.account)
    assert 3 == world.count("account")
    account = cache.stats().resources["account"]
    assert (120, 1, 3) == (account.stale_hits, account.misses, account.loads)


async def test_the_throttle_ends_with_the_grace(make_cache: MakeCache, clock: FakeClock) -> None:
    """S8: at the end of the grace the error surfaces, also within the throttle; on recovery there is a full TTL."""
    world = World(account=LENIENT)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(72 * HOURS - 1)
    world.fail("account", timed_out)
    assert 1 == await session.get(world.account)
    await clock.advance(1)
    with pytest.raises(UpstreamTimeout):
        await session.get(world.account)
    world.answers["account"] = 2
    assert 2 == await session.get(world.account)
    await clock.advance(24 * HOURS - 1)
    assert 2 == await session.get(world.account)
    assert 4 == world.count("account")


async def test_callers_together_share_the_failing_attempt(make_cache: MakeCache, clock: FakeClock) -> None:
    """A hundred at once past the TTL: one call, all served stale."""
    world = World(account=LENIENT)
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(25 * HOURS)
    gate = world.hold("account")
    getting = [asyncio.create_task(session.lookup(world.account)) for _ in range(100)]
    await (await gate.hold()).fail(timed_out())
    looks = await asyncio.gather(*getting)
    assert {(1, True)} == {(look.value, look.stale) for look in looks}
    assert 1 == gate.calls


@pytest.mark.parametrize(
    "error",
    [
        timed_out(),
        UpstreamUnreachable("no"),
        UpstreamFailed("bad", status=500),
        RateLimited("slow"),
        BadUpstreamBody("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unavailable_upstream_is_hidden(
    make_cache: MakeCache, clock: FakeClock, error: Exception
) -> None:
    """Every error that says "for now" is hidden by a value within its grace."""
    world = World(account=LENIENT)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(25 * HOURS)
    gate = world.hold("account")
    getting = asyncio.create_task(session.get(world.account))
    await (await gate.hold()).fail(error)
    assert 1 == await getting


@pytest.mark.parametrize("kind", [AuthExpired, Forbidden, NotFound, Gone])
@pytest.mark.parametrize("forced", [False, True], ids=["expired", "forced"])
async def test_a_refusal_is_never_hidden_and_drops_the_entry(
    make_cache: MakeCache, clock: FakeClock, kind: type[Exception], forced: bool
) -> None:
    """I9: after a refusal no earlier value is served, and the refusal is remembered for a moment, not longer."""
    world = World(account=LENIENT)
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    if not forced:
        await clock.advance(25 * HOURS)
    world.fail("account", lambda: kind("no"))
    with pytest.raises(kind):
        await session.get(world.account, force_refresh=forced)
    assert 0 == cache.stats().entries
    world.fail("account", timed_out)
    for _ in range(3):
        with pytest.raises(kind):
            await session.get(world.account)
    assert 2 == world.count("account")
    await clock.advance(5)
    with pytest.raises(UpstreamTimeout):
        await session.get(world.account)
    assert 1 == cache.stats().resources["account"].removals["refused"]


async def test_each_who_is_told_of_a_remembered_refusal_is_told_in_an_exception_of_their_own(
    cache: SessionCache[Any], world: World
) -> None:
    """A remembered exception object must not collect the frames of all who got it."""
    world.fail("account", lambda: NotFound("no"))
    errors = []
    for _ in range(5):
        with pytest.raises(NotFound) as caught:
            await cache.session("ann").get(world.account)
        errors.append(caught.value)
    assert 5 == len({id(error) for error in errors})
    depths = [sum(1 for _ in _frames(error)) for error in errors]
    assert 1 == len(set(depths[1:]))


def _frames(error: BaseException) -> Any:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


async def test_a_refusal_of_one_key_says_nothing_of_another(cache: SessionCache[Any], world: World) -> None:
    """404 for one id leaves the others."""

    def answer(_user: str, number: int) -> str:
        if number == 1:
            raise NotFound("no")
        return "there"

    world.answers["item"] = answer
    session = cache.session("ann")
    with pytest.raises(NotFound):
        await session.get(world.item, number=1)
    assert "there" == await session.get(world.item, number=2)
    assert "there" == await cache.session("bob").get(world.item, number=2)


@pytest.mark.parametrize("kind", [ValueError, KeyError, TimeoutError])
async def test_a_bug_of_the_loader_is_raised_and_hides_nothing(
    make_cache: MakeCache, clock: FakeClock, kind: type[Exception]
) -> None:
    """I7: an unforeseen error reaches every caller, also those that come within the throttle; the entry stays."""
    world = World(account=LENIENT)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(25 * HOURS)
    world.fail("account", kind)
    for _ in range(3):
        with pytest.raises(kind):
            await session.get(world.account)
    world.fail("account", timed_out)
    assert 1 == await session.get(world.account)


async def test_a_bug_in_a_background_load_is_not_served_stale_after_the_ttl(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """The throttle of a failed refresh ends with the TTL, unless the failure may be hidden."""
    policy = Policy(
        ttl=timedelta(seconds=100), refresh_ahead=0.9, jitter=0, stale_if_error=timedelta(seconds=100),
        failure_throttle=timedelta(seconds=50),
    )  # fmt: skip
    world = World(account=policy)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(95)
    world.fail("account", ValueError)
    assert 1 == await session.get(world.account)
    await settle()
    await clock.advance(10)
    with pytest.raises(ValueError, match=r"^$"):
        await session.get(world.account)


async def test_without_grace_an_expired_value_is_never_served(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """The default: past the TTL the error surfaces."""
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(86_400)
    world.fail("account", timed_out)
    for _ in range(2):
        with pytest.raises(UpstreamTimeout):
            await session.get(world.account)
    assert None is session.peek(world.account)


SOFT = Policy(
    ttl=timedelta(seconds=100),
    stale_if_error=timedelta(seconds=1_000),
    soft_timeout=timedelta(milliseconds=125),
    deadline=timedelta(seconds=30),
    jitter=0,
)


async def test_a_caller_waits_no_longer_than_the_soft_timeout_when_a_stale_value_is_held(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S9: stale after 125 ms; twenty more callers at once, without another load; the load ends and is kept."""
    world = World(account=SOFT)
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.account)
    await clock.advance(200)
    gate = world.hold("account")
    getting = asyncio.create_task(session.lookup(world.account))
    load = await gate.hold()
    await clock.advance(0.0625)
    assert not getting.done()
    await clock.advance(0.0625)
    assert (1, True) == ((await getting).value, (await getting).stale)
    for _ in range(20):
        assert (await session.lookup(world.account)).stale
    assert 1 == gate.calls

    await clock.advance(4.875)
    await load.succeed(2)
    look = await session.lookup(world.account)
    assert (2, False, 5.0) == (look.value, look.stale, look.age)


async def test_a_load_that_ends_within_the_soft_timeout_is_what_the_caller_gets(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """The timer is only the longest wait."""
    world = World(account=SOFT)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(200)
    gate = world.hold("account")
    getting = asyncio.create_task(session.lookup(world.account))
    load = await gate.hold()
    await clock.advance(0.0625)
    await load.succeed(2)
    assert (2, False) == ((await getting).value, (await getting).stale)


async def test_the_soft_timeout_counts_for_nobody_without_a_stale_value(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """S9: with nothing held, or with what is held dead or unwanted, a caller waits for the load."""
    world = World(account=SOFT)
    cache = make_cache(world)
    gate = world.hold("account")
    cold = asyncio.create_task(cache.session("ann").get(world.account))
    load = await gate.hold()
    await clock.advance(10)
    assert not cold.done()
    await load.succeed(1)
    assert 1 == await cold

    await clock.advance(150)
    forced = asyncio.create_task(cache.session("ann").get(world.account, force_refresh=True))
    load = await gate.hold()
    await clock.advance(10)
    assert not forced.done()
    await load.succeed(2)
    assert 2 == await forced


async def test_a_stale_value_is_not_served_after_a_clear_that_came_while_waiting(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """The soft timeout finds nothing held any more, so the caller gets what the load brings."""
    world = World(account=SOFT)
    session = make_cache(world).session("ann")
    await session.get(world.account)
    await clock.advance(200)
    gate = world.hold("account")
    getting = asyncio.create_task(session.lookup(world.account))
    load = await gate.hold()
    await session.clear()
    await clock.advance(1)
    assert not getting.done()
    await load.succeed(2)
    assert (2, False) == ((await getting).value, (await getting).stale)


async def test_a_shorter_ttl_acts_at_once(cache: SessionCache[Any], world: World, clock: FakeClock) -> None:
    """`set_policy` reaches what is held, also what was resolved through it."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts)
    await clock.advance(600)
    cache.set_policy(world.account, Policy(ttl=timedelta(seconds=600)))
    await session.get(world.hosts)
    assert ["account", "zones", "hosts", "account"] == world.names()


async def test_a_longer_ttl_revives_nothing_that_had_expired(make_cache: MakeCache, clock: FakeClock) -> None:
    """What lived on when the policy was set lives longer, what had expired does not come back."""
    world = World(item=Policy(ttl=timedelta(seconds=100)))
    cache = make_cache(world)
    session = cache.session("ann")
    await session.get(world.item, number=1)
    await clock.advance(50)
    await session.get(world.item, number=2)
    await clock.advance(50)
    cache.set_policy(world.item, Policy(ttl=timedelta(hours=1)))
    await session.get(world.item, number=2)
    assert 2 == world.count("item")
    await session.get(world.item, number=1)
    assert 3 == world.count("item")
    await clock.advance(3_500)
    await session.get(world.item, number=2)
    assert 3 == world.count("item")


async def test_the_wall_clock_decides_nothing(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """Scenario 39: in memory a wall clock that jumps neither ends nor lengthens a life."""
    session = cache.session("ann")
    await session.get(world.account)
    clock.step_wall(25 * HOURS)
    await session.get(world.account)
    clock.step_wall(-50 * HOURS)
    await clock.advance(86_399)
    await session.get(world.account)
    assert 1 == world.count("account")
    await clock.advance(1)
    await session.get(world.account)
    assert 2 == world.count("account")


async def test_without_a_cache_every_get_loads(make_cache: MakeCache, world: World) -> None:
    """`enabled=False`: nothing is kept, nothing is shared, nothing is put; clear and invalidate do no harm."""
    cache = make_cache(world, enabled=False)
    session = cache.session("ann")
    await asyncio.gather(*(session.get(world.account) for _ in range(3)))
    assert 3 == world.count("account")
    await session.get(world.hosts)
    assert 4 == world.count("account")
    await session.put(world.account, 7)
    assert None is session.peek(world.account)
    await session.invalidate(world.account)
    assert 1 == await session.get(world.account)
    assert 1 == await session.get(world.account, force_refresh=True)
    stats = cache.stats()
    assert (0, 0) == (stats.entries, stats.total.hits)
    assert 0 == stats.total.calls_saved
    assert stats.total.loads == sum(each.loads_by_end["disabled"] for each in stats.resources.values())
    await session.clear()
    assert 1 == await session.get(world.account)
