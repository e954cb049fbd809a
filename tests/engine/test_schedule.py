"""The scheduled refresh keeps what users seen lately hold from ageing, at a pace, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Catalog, Policy, Schedule, SessionCache
from coatcheck.errors import LoaderBroke, PolicyError
from coatcheck.testing import FakeClock
from engine.conftest import memory_only, on_stores

pytestmark = on_stores

HOUR = 3600.0


class Upstream:
    """Counts loads, with the time of each."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.loads: list[tuple[str, str, float]] = []

    def note(self, user: str, resource: str) -> None:
        self.loads.append((user, resource, self.clock.monotonic()))

    def count(self, resource: str) -> int:
        return sum(1 for _, name, _ in self.loads if name == resource)


def build(clock: FakeClock, schedule: Schedule | None) -> tuple[SessionCache[Any], Upstream, Any, Any]:
    """Return a cache of two resources with a ttl of an hour, the second keyed by the first."""
    upstream = Upstream(clock)
    catalog: Catalog[str] = Catalog("scheduled")

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def account(api: str) -> int:
        upstream.note(api, "account")
        return 7

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def zones(api: str, account: int) -> tuple[int, ...]:
        upstream.note(api, "zones")
        return (account,)

    cache = SessionCache(
        catalog, connect=lambda user: user, clock=clock, schedule=schedule, rng=random.Random(1)
    )
    return cache, upstream, account, zones


async def test_what_would_expire_before_the_next_round_is_loaded_in_the_background() -> None:
    """A user seen lately finds a fresh value after the ttl without having waited for it."""
    clock = FakeClock()
    schedule = Schedule(every=timedelta(minutes=5), seen_within=timedelta(hours=2), jitter=0.0)
    cache, upstream, _, zones = build(clock, schedule)
    async with cache:
        session = cache.session("ann")
        await session.get(zones)
        await clock.advance(HOUR + 60)

        look = session.peek(zones)

    assert look is not None
    assert upstream.count("account") == 2
    assert upstream.count("zones") == 2


async def test_nothing_is_refreshed_unless_asked_for() -> None:
    """Without a schedule an hour passes and nothing is loaded."""
    clock = FakeClock()
    cache, upstream, _, zones = build(clock, None)
    async with cache:
        await cache.session("ann").get(zones)
        await clock.advance(2 * HOUR)

    assert len(upstream.loads) == 2


async def test_a_user_not_seen_lately_is_left_to_expire() -> None:
    """Background loads are no use of a session, so an idle user costs no calls for ever."""
    clock = FakeClock()
    schedule = Schedule(every=timedelta(minutes=5), seen_within=timedelta(minutes=70), jitter=0.0)
    cache, upstream, _, zones = build(clock, schedule)
    async with cache:
        await cache.session("ann").get(zones)
        await clock.advance(6 * HOUR)

    assert upstream.count("zones") == 2


async def test_a_round_keeps_the_pace() -> None:
    """However many users are due, no more loads begin in a second than allowed."""
    clock = FakeClock()
    schedule = Schedule(
        every=timedelta(minutes=5), seen_within=timedelta(hours=2), max_loads_per_second=2.0, jitter=0.0
    )
    cache, upstream, account, _ = build(clock, schedule)
    async with cache:
        for number in range(40):
            await cache.session(f"user-{number}").get(account)
        upstream.loads.clear()
        await clock.advance(HOUR + 60)

    starts = sorted(time for _, _, time in upstream.loads)
    assert len(starts) == 40
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(starts))


async def test_a_session_cleared_in_the_middle_of_a_round_is_not_loaded() -> None:
    """The round holds states, not users: a cleared one begins nothing, and nothing comes back."""
    clock = FakeClock()
    schedule = Schedule(
        every=timedelta(minutes=50), seen_within=timedelta(hours=2), max_loads_per_second=0.1, jitter=0.0
    )
    cache, upstream, account, _ = build(clock, schedule)
    async with cache:
        await cache.session("ann").get(account)
        await cache.session("bob").get(account)
        upstream.loads.clear()
        await clock.advance(50 * 60 + 1)
        await cache.clear("bob")
        await clock.advance(60)

        assert [user for user, _, _ in upstream.loads] == ["ann"]
        assert cache.users() == ("ann",)


async def test_what_takes_arguments_is_passed_over() -> None:
    """Nobody can tell under which argument; the other resources of the catalog are refreshed."""
    clock = FakeClock()
    loads: list[str] = []
    catalog: Catalog[str] = Catalog("scheduled")

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def zone(api: str, number: int) -> int:
        loads.append("zone")
        return number

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def machines(api: str, zone: int) -> int:
        loads.append("machines")
        return zone

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def account(api: str) -> int:
        loads.append("account")
        return 7

    schedule = Schedule(every=timedelta(minutes=5), seen_within=timedelta(hours=2), jitter=0.0)
    async with SessionCache(catalog, connect=lambda user: user, clock=clock, schedule=schedule) as cache:
        session = cache.session("ann")
        assert (7, 3, 3) == (
            await session.get(account),
            await session.get(zone, number=3),
            await session.get(machines, zone=3),
        )
        await clock.advance(HOUR + 60)

    assert Counter(loads) == {"account": 2, "zone": 1, "machines": 1}


@pytest.mark.parametrize("trouble", [IndexError, SystemExit, asyncio.CancelledError])
async def test_one_users_trouble_is_not_the_next_ones(trouble: type[BaseException]) -> None:
    """A derived function that raises for one user's data ends neither that user's round nor those to come."""
    clock = FakeClock()
    loads: list[tuple[str, str]] = []
    catalog: Catalog[str] = Catalog("scheduled")

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def accounts(api: str) -> tuple[int, ...]:
        loads.append((api, "accounts"))
        return () if api == "ann" else (7,)

    @catalog.derived
    def first(accounts: tuple[int, ...]) -> int:
        if not accounts:
            raise trouble
        return accounts[0]

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def zones(api: str, first: int) -> int:
        loads.append((api, "zones"))
        return first

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def profile(api: str) -> str:
        loads.append((api, "profile"))
        return api

    schedule = Schedule(every=timedelta(minutes=5), seen_within=timedelta(hours=4), jitter=0.0)
    async with SessionCache(catalog, connect=lambda user: user, clock=clock, schedule=schedule) as cache:
        with pytest.raises(IndexError if trouble is IndexError else LoaderBroke):
            await cache.session("ann").get(zones)
        for user in ("ann", "bob"):
            await cache.session(user).get(profile)
        await cache.session("bob").get(zones)
        await clock.advance(2 * HOUR + 60)

    often = Counter(loads)
    assert often.pop(("ann", "accounts")) == often.pop(("ann", "profile")) == 3
    assert often == {("bob", "accounts"): 3, ("bob", "zones"): 3, ("bob", "profile"): 3}


@pytest.mark.parametrize(
    "figures",
    [
        {"every": timedelta(0)},
        {"every": 60},
        {"seen_within": timedelta(seconds=-1)},
        {"max_loads_per_second": 0},
        {"jitter": 1.0},
    ],
)
# There is no cache in it.
@memory_only
def test_a_schedule_that_cannot_work_is_refused(figures: dict[str, Any]) -> None:
    """The message says what to write instead."""
    with pytest.raises(PolicyError, match=r"must be|write"):
        Schedule(**figures)
