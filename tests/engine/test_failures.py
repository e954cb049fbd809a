"""An upstream that fails makes answers staler or later, never wrong; who is refused is refused at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

import pytest

from coatcheck import Catalog, Limits, Outcome, Policy, Session, SessionCache
from coatcheck.errors import (
    AuthExpired,
    Forbidden,
    Gone,
    LoadError,
    LoadTimeout,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
    UpstreamFailed,
)
from coatcheck.testing import FakeClock, GatedLoader, settle
from engine.conftest import on_stores

pytestmark = on_stores

MINUTE = 60.0
HOUR = 3600.0
KEPT = Policy(
    ttl=timedelta(hours=24),
    stale_if_error=timedelta(hours=48),
    failure_throttle=timedelta(seconds=30),
    negative_ttl=timedelta(seconds=60),
)
DOWN = UpstreamFailed("the upstream answered 503", status=503)


class Upstream:
    """Answers with the time of the call, or fails as told."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.calls: list[tuple[str, str, float]] = []
        self.fail: Callable[[], BaseException | None] = lambda: None

    def call(self, user: str, resource: str) -> float:
        self.calls.append((user, resource, self.clock.monotonic()))
        error = self.fail()
        if error is not None:
            raise error
        return self.clock.monotonic()

    def down(self, error: BaseException = DOWN) -> None:
        self.fail = lambda: error

    def up(self) -> None:
        self.fail = lambda: None


class World:
    """An account, zones that depend on it, and a user's session."""

    def __init__(self, policy: Policy = KEPT, **options: Any) -> None:
        self.clock = FakeClock()
        self.upstream = Upstream(self.clock)
        catalog: Catalog[str] = Catalog("failing")

        @catalog.resource(policy)
        async def account(api: str) -> float:
            return self.upstream.call(api, "account")

        @catalog.derived
        def account_id(account: float) -> int:
            return int(account > 0)

        @catalog.resource(policy)
        async def zones(api: str, account_id: int) -> float:
            return self.upstream.call(api, "zones")

        self.account, self.account_id, self.zones = account, account_id, zones
        self.cache = SessionCache(
            catalog, connect=lambda user: user, clock=self.clock, rng=random.Random(7), **options
        )
        self.session: Session = self.cache.session("ann")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cache.aclose()


async def test_stale_with_throttle_to_the_end_of_the_grace() -> None:
    """An hour past the ttl: one attempt a throttle, all answers marked; past the grace the error; then a full ttl."""
    async with World() as world:
        loaded = await world.session.get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down()
        world.upstream.calls.clear()

        looks = [await world.session.lookup(world.account) for _ in range(100)]
        assert 1 == len(world.upstream.calls)
        assert {(loaded, Outcome.STALE_HIT, True)} == {
            (look.value, look.outcome, look.stale) for look in looks
        }

        await world.clock.advance(29.999)
        await world.session.get(world.account)
        assert 1 == len(world.upstream.calls)
        await world.clock.advance(0.001)
        await world.session.get(world.account)
        await world.session.get(world.account)
        assert 2 == len(world.upstream.calls)

        await world.clock.advance(47 * HOUR - 30 - 1)
        assert loaded == await world.session.get(world.account)
        await world.clock.advance(1)
        with pytest.raises(UpstreamFailed):
            await world.session.get(world.account)

        world.upstream.up()
        recovered = await world.session.lookup(world.account)
        assert 24 * HOUR == recovered.fresh_for


async def test_the_throttle_does_not_reach_past_the_grace() -> None:
    """An attempt that failed seconds before the end of the grace buys nothing beyond it."""
    async with World() as world:
        await world.session.get(world.account)
        await world.clock.advance(72 * HOUR - 5)
        world.upstream.down()
        await world.session.get(world.account)
        await world.clock.advance(5)

        with pytest.raises(UpstreamFailed):
            await world.session.get(world.account)


async def test_without_grace_nothing_stale_is_served() -> None:
    """The default: past the ttl an unavailable upstream is an error."""
    async with World(Policy(ttl=timedelta(hours=1))) as world:
        await world.session.get(world.account)
        await world.clock.advance(HOUR)
        world.upstream.down()

        with pytest.raises(Unavailable):
            await world.session.get(world.account)


@pytest.mark.parametrize(
    "error",
    [AuthExpired("401"), Forbidden("403"), NotFound("404"), Gone("410")],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_is_never_hidden_and_is_remembered(error: Refused) -> None:
    """The old value is gone for good, the refusal answers for a minute without a call, then the upstream is asked."""
    async with World() as world:
        await world.session.get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down(error)
        world.upstream.calls.clear()
        for _ in range(10):
            with pytest.raises(type(error)):
                await world.session.get(world.account)
        assert 1 == len(world.upstream.calls)

        world.upstream.down()
        await world.clock.advance(59)
        with pytest.raises(type(error)):
            await world.session.get(world.account)
        await world.clock.advance(1)
        with pytest.raises(UpstreamFailed):
            await world.session.get(world.account)

        assert 2 == len(world.upstream.calls)


@pytest.mark.parametrize(
    ("error", "kept"), [(AuthExpired("401"), False), (Forbidden("403"), False), (NotFound("404"), True)]
)
async def test_what_depends_on_a_revoked_resource_goes_under_any_arguments(
    error: Refused, kept: bool
) -> None:
    """401 and 403 take the dependents with them, also those that were asked for by other ids; 404 does not."""
    async with World() as world:
        await world.session.get(world.zones)
        await world.session.get(world.zones, account_id=99)
        world.upstream.down(error)
        with pytest.raises(Refused):
            await world.session.get(world.account, force_refresh=True)
        world.upstream.up()
        world.upstream.calls.clear()

        await world.session.get(world.zones, account_id=99)

        assert kept is (not world.upstream.calls)
        assert world.session.peek(world.zones) is None


async def test_a_refused_load_that_was_overtaken_drops_nothing() -> None:
    """The refusal of an older load says nothing of a newer value."""
    gate = GatedLoader()
    catalog: Catalog[str] = Catalog("overtaken")

    @catalog.resource(KEPT)
    async def account(api: str) -> str:
        value: str = await gate(api)
        return value

    async with SessionCache(catalog, connect=lambda user: user, clock=FakeClock()) as cache:
        session = cache.session("ann")
        ordinary = asyncio.create_task(session.get(account))
        old = await gate.hold()
        forced = asyncio.create_task(session.get(account, force_refresh=True))
        new = await gate.hold()
        await new.succeed("new")
        await old.fail(Forbidden("403"))

        assert "new" == await forced
        with pytest.raises(Forbidden):
            await ordinary
        assert "new" == await session.get(account)
        assert 2 == gate.calls


async def test_stale_is_contagious() -> None:
    """What is resolved through a stale parent is marked stale, though its own entry is fresh."""
    async with World() as world:
        await world.session.get(world.account)
        await world.clock.advance(12 * HOUR)
        await world.session.get(world.zones)
        await world.clock.advance(13 * HOUR)
        world.upstream.down()

        zones = await world.session.lookup(world.zones)
        derived = await world.session.lookup(world.account_id)

        assert zones.stale
        assert zones.fresh_for == 0.0
        assert derived.stale


async def test_a_failure_that_no_stale_value_may_hide_is_raised() -> None:
    """A loader's own mistake is not an outage."""
    async with World() as world:
        await world.session.get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down(ZeroDivisionError("a mistake"))

        with pytest.raises(ZeroDivisionError):
            await world.session.get(world.account)


async def test_a_forced_get_is_told_of_the_failure_and_leaves_what_is_held() -> None:
    """Force passes over the throttle; the old value stays for those who do not force."""
    async with World() as world:
        value = await world.session.get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down()
        await world.session.get(world.account)
        calls = len(world.upstream.calls)

        with pytest.raises(UpstreamFailed):
            await world.session.get(world.account, force_refresh=True)

        assert calls + 1 == len(world.upstream.calls)
        assert value == await world.session.get(world.account)


async def test_after_a_clear_an_outage_is_an_error() -> None:
    """Nothing that was held before the clear bridges anything after it."""
    async with World() as world:
        await world.session.get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down()
        await world.session.get(world.account)
        await world.session.clear()

        with pytest.raises(UpstreamFailed):
            await world.session.get(world.account)


class Patience:
    """A resource with a soft timeout of 100 ms, a deadline of 30 s and a gated load."""

    def __init__(self) -> None:
        self.gate = GatedLoader()
        self.clock = FakeClock()
        catalog: Catalog[str] = Catalog("patience")

        @catalog.resource(
            Policy(
                ttl=timedelta(hours=1),
                stale_if_error=timedelta(hours=24),
                soft_timeout=timedelta(milliseconds=100),
            )
        )
        async def account(api: str) -> str:
            value: str = await self.gate(api)
            return value

        self.account = account
        self.cache = SessionCache(catalog, connect=lambda user: user, clock=self.clock)
        self.session = self.cache.session("ann")

    async def hold_stale(self) -> None:
        """Have a value that is past its ttl."""
        getting = asyncio.create_task(self.session.get(self.account))
        await (await self.gate.hold()).succeed("old")
        assert "old" == await getting
        await self.clock.advance(2 * HOUR)


async def test_stale_at_the_soft_timeout_while_one_load_goes_on_and_is_kept() -> None:
    """The first caller waits 100 ms, twenty more not at all; the load they did not wait for is kept."""
    world = Patience()
    await world.hold_stale()
    async with world.cache:
        first = asyncio.create_task(world.session.lookup(world.account))
        load = await world.gate.hold()
        await world.clock.advance(0.099)
        assert not first.done()
        await world.clock.advance(0.001)
        assert ("old", True) == ((await first).value, (await first).stale)

        more = [asyncio.create_task(world.session.lookup(world.account)) for _ in range(20)]
        await settle()
        assert {"old"} == {(await each).value for each in more}
        assert 2 == world.gate.calls

        await world.clock.advance(5)
        await load.succeed("new")
        look = await world.session.lookup(world.account)

        assert ("new", False) == (look.value, look.stale)
        assert 2 == world.gate.calls


async def test_a_load_within_the_soft_timeout_is_waited_for() -> None:
    """Stale is only for those who would wait too long."""
    world = Patience()
    await world.hold_stale()
    async with world.cache:
        getting = asyncio.create_task(world.session.lookup(world.account))
        load = await world.gate.hold()
        await world.clock.advance(0.05)
        await load.succeed("new")

        assert ("new", Outcome.MISS) == ((await getting).value, (await getting).outcome)


async def test_with_nothing_held_the_deadline_is_the_end_and_frees_the_key() -> None:
    """A loader that never ends costs its callers 30 seconds, and its late result is ignored."""
    world = Patience()
    async with world.cache:
        getting = asyncio.create_task(world.session.get(world.account))
        endless = await world.gate.hold()
        await world.clock.advance(30)
        with pytest.raises(LoadTimeout):
            await getting

        again = asyncio.create_task(world.session.get(world.account))
        second = await world.gate.hold()
        await endless.succeed("late")
        await second.succeed("in time")

        assert "in time" == await again


async def test_ten_minutes_of_503_are_hardly_noticed() -> None:
    """Of gets that hold a stale value all succeed, marked stale, and one call in ten gets at most reaches the upstream."""
    users = 50
    async with World() as world:
        for user in range(users):
            await world.cache.session(f"user-{user}").get(world.account)
        await world.clock.advance(25 * HOUR)
        world.upstream.down()
        world.upstream.calls.clear()
        gets = stale = 0
        for _ in range(10 * 60 // 2):
            for user in range(users):
                look = await world.cache.session(f"user-{user}").lookup(world.account)
                gets += 1
                stale += look.stale
            await world.clock.advance(2)

    assert 15_000 == gets
    assert gets == stale
    assert len(world.upstream.calls) <= gets / 10


@pytest.fixture
def users(beneath: str) -> int:
    """A crowd: 10,000 of them in a file would take half a minute."""
    return 10_000 if beneath == "memory" else 1_000


async def test_a_crowd_that_would_expire_together_is_spread(users: int) -> None:
    """All are loaded in one instant: the peak of refreshes is at most twice the mean, and nobody waits."""
    ttl, span = 100 * MINUTE, 10 * MINUTE
    policy = Policy(ttl=timedelta(seconds=ttl), refresh_ahead=0.9, jitter=0.5)
    limits = Limits(max_refreshes=users)
    waited = 0
    async with World(policy, limits=limits) as world:
        sessions = [world.cache.session(f"user-{user}") for user in range(users)]
        for session in sessions:
            await session.get(world.account)
        world.upstream.calls.clear()
        # Everybody asks once in a span, so a refresh falls into the span in which its point lies.
        for _ in range(int(ttl / span)):
            for session in sessions:
                world.clock.jump(span / users)
                waited += session.peek(world.account) is None
                await session.get(world.account)
            await world.cache.settled()

    first: dict[str, int] = {}
    for user, _, at in world.upstream.calls:
        first.setdefault(user, int(at // span))
    per_span = Counter(first.values())
    assert users == len(first)
    assert 0 == waited
    assert max(per_span.values()) <= 2 * users / len(per_span)


async def test_a_crowd_that_has_expired_stays_below_the_limit(users: int) -> None:
    """All come back after the ttl: never more loads in a second than allowed, and all are answered."""
    rate = users / 20
    limits = Limits(max_loads_per_second=rate, max_loads=users)
    async with World(Policy(ttl=timedelta(hours=1), deadline=timedelta(hours=1)), limits=limits) as world:
        waiting = [
            asyncio.create_task(world.cache.session(f"user-{user}").get(world.account))
            for user in range(users)
        ]
        await world.clock.advance(users / rate)
        await asyncio.gather(*waiting)

    starts = sorted(at for _, _, at in world.upstream.calls)
    assert users == len(starts)
    per_second = Counter(int(at - starts[0]) for at in starts)
    assert max(per_second.values()) <= 2 * users / len(per_second)
    # In any window of a second, with a rounding error's worth of mercy.
    assert all(late - early > 1 - 1e-6 for early, late in zip(starts, starts[int(rate) :], strict=False))


async def test_errors_of_waiters_are_their_own() -> None:
    """Twenty who wait for one failing load get twenty exceptions, each with its figures."""
    gate = GatedLoader()
    catalog: Catalog[str] = Catalog("own")

    @catalog.resource
    async def account(api: str) -> str:
        value: str = await gate(api)
        return value

    async with SessionCache(catalog, connect=lambda user: user, clock=FakeClock()) as cache:
        waiting = [asyncio.create_task(cache.session("ann").get(account)) for _ in range(20)]
        await (await gate.hold()).fail(RateLimited("429", retry_after=12.0))
        errors = await asyncio.gather(*waiting, return_exceptions=True)

    assert 20 == len({id(error) for error in errors})
    assert {12.0} == {error.retry_after for error in errors if isinstance(error, RateLimited)}
    assert all(isinstance(error, LoadError) for error in errors)
