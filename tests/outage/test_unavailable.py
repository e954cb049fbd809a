"""An upstream that cannot answer: what is held bridges it, marked, until the end of its grace (scenarios 17, 20, 24, 25, S8)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from coatcheck import Outcome, Resource
from coatcheck.errors import (
    BadUpstreamBody,
    LoadError,
    RateLimited,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.ipc.resources import POLICY, engagement_data, ipc_engagement_id, zones_list
from outage.world import ANN, BOB, DOWN, HOUR, KEPT, PATHS, Fault, RunningClock, World, keys_of, outage_world

ZOO: list[tuple[Fault, type[Unavailable]]] = [
    *(({"kind": "status", "status": status}, UpstreamFailed) for status in (500, 502, 503, 504)),
    ({"kind": "status", "status": 502, "html": True}, UpstreamFailed),
    ({"kind": "status", "status": 429, "retry_after": "1"}, RateLimited),
    ({"kind": "reset"}, UpstreamUnreachable),
    ({"kind": "cut"}, UpstreamUnreachable),
    ({"kind": "cut", "after": 0}, UpstreamUnreachable),
    ({"kind": "failure_envelope", "word": "error", "response_code": 500, "message": None}, UpstreamFailed),
    *(
        ({"kind": kind}, BadUpstreamBody)
        for kind in (
            "bom", "big_int", "data_null", "deep_json", "duplicate_keys", "html", "invalid_json",
            "lone_surrogate", "nan", "truncated_json", "wrong_charset", "wrong_type",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "error"), ZOO, ids=keys_of)
async def test_a_failure_is_bridged_and_nothing_of_it_is_kept(
    world: World, fault: Fault, error: type[Unavailable]
) -> None:
    """Marked and with its age; past the grace the failure itself is raised; then what is right, anew."""
    right = world.right(ANN, zones_list)
    session = world.cache.session(ANN)
    await world.expired(ANN)
    world.fail({**fault, "path": PATHS[zones_list.name]})

    look = await session.lookup(zones_list)
    assert (look.value, look.stale, look.outcome) == (right, True, Outcome.STALE_HIT)
    assert look.age == 25 * HOUR
    assert look.fresh_for == 0.0
    assert session.peek(zones_list) is None

    world.clock.jump(23 * HOUR)
    with pytest.raises(error):
        await session.get(zones_list)
    world.fail()
    await world.clock.advance(11)  # the pause of a 429, or an open breaker
    again = await session.lookup(zones_list)
    assert (again.value, again.stale, again.age) == (right, False, 0.0)


@pytest.mark.parametrize(
    "fault", [{"kind": "hang"}, {"kind": "slow_body", "interval_ms": 5, "bytes": 1}], ids=keys_of
)
async def test_a_body_that_drips_ends_at_the_total_deadline(world: World, fault: Fault) -> None:
    """Each byte comes in time, the whole does not: the slot is free again, and what is held is served."""
    right = world.right(ANN, zones_list)
    session = world.cache.session(ANN)
    await world.expired(ANN)
    await session.get(engagement_data)
    world.fail({**fault, "path": PATHS[zones_list.name]})
    # Of real time, of which only what cannot succeed has so little.
    usual, world.client._timeout = world.client._timeout, 0.05
    try:
        with pytest.raises(UpstreamTimeout):
            await session.get(zones_list, force_refresh=True)
        look = await session.lookup(zones_list)
    finally:
        world.client._timeout = usual
    assert (look.value, look.stale) == (right, True)
    await world.cache.settled()
    stats = world.cache.stats()
    assert (stats.resources[zones_list.name].loading, stats.abandoned_loads) == (0, 0)

    world.fail()
    await world.clock.advance(31)
    assert not (await session.lookup(zones_list)).stale


async def test_one_attempt_a_throttle_to_the_end_of_the_grace(world: World) -> None:
    """S8, over HTTP: a hundred gets in thirty seconds cost one call; nothing is stretched past the grace."""
    session = world.cache.session(ANN)
    path = PATHS[engagement_data.name]
    await world.expired(ANN)
    world.fail({**DOWN, "path": path})

    looks = [await session.lookup(engagement_data)]
    for _ in range(99):
        await world.clock.advance(0.3)
        looks.append(await session.lookup(engagement_data))
    assert {(world.right(ANN, engagement_data), True)} == {(look.value, look.stale) for look in looks}
    assert world.asked()[path] == 1

    await world.clock.advance(1.3)
    assert (await session.lookup(engagement_data)).stale
    assert (await session.lookup(engagement_data)).stale
    assert world.asked() == {path: 1}

    # Five seconds before its end an attempt fails, which buys nothing beyond it.
    world.clock.jump(23 * HOUR - 31 - 5)
    assert (await session.lookup(engagement_data)).stale
    await world.clock.advance(5)
    with pytest.raises(UpstreamFailed):
        await session.get(engagement_data)

    world.fail()
    assert (await session.lookup(engagement_data)).fresh_for == 24 * HOUR


async def test_what_was_reached_by_a_stale_id_is_stale(world: World) -> None:
    """Though it is fresh itself; by an id that the caller brings it is."""
    session = world.cache.session(ANN)
    await world.fill(ANN)
    world.clock.jump(12 * HOUR)
    right = await session.get(zones_list, force_refresh=True)
    world.clock.jump(13 * HOUR)
    world.fail({**DOWN, "path": PATHS[engagement_data.name]})

    look = await session.lookup(zones_list)
    assert (look.value, look.stale, look.age) == (right, True, 13 * HOUR)
    ipc_id = world.right(ANN, ipc_engagement_id)
    assert not (await session.lookup(zones_list, ipc_engagement_id=ipc_id)).stale


@pytest.mark.parametrize("resource", KEPT, ids=lambda each: each.name)
async def test_after_a_clear_nothing_bridges_anything(world: World, resource: Resource[Any]) -> None:
    """Scenario 17: neither what had been served in this outage, nor anything by another way."""
    session = world.cache.session(ANN)
    await world.expired(ANN, BOB)
    world.fail(DOWN)
    assert (await session.lookup(resource)).stale
    await session.clear()

    for call in (
        lambda: session.get(resource),
        lambda: session.lookup(resource),
        lambda: session.get(resource, force_refresh=True),
        lambda: world.cache.session(ANN).get(resource),
    ):
        with pytest.raises(Unavailable):
            await call()
    assert session.peek(resource) is None
    assert (await world.cache.session(BOB).lookup(resource)).stale


async def test_what_was_never_held_fails_as_it_is(world: World) -> None:
    """Everybody has an exception of their own."""
    world.fail({**DOWN, "path": PATHS[engagement_data.name]})
    session = world.cache.session(ANN)
    ends = await asyncio.gather(*(session.get(zones_list) for _ in range(20)), return_exceptions=True)
    assert {UpstreamFailed} == {type(end) for end in ends}
    assert 20 == len({id(end) for end in ends})
    assert world.asked() == {"auth": 1, PATHS[engagement_data.name]: 1}


async def test_ten_minutes_of_503() -> None:
    """By the fake clock: all who hold something are answered, all marked; hardly a call leaves; then all is fresh."""
    async with outage_world(users=20) as world:
        users = world.users()
        right = {(user, each.name): world.right(user, each) for user in users for each in KEPT}
        await world.expired(*users)
        world.fail(DOWN)
        gets = stale = correct = 0
        for turn in range(10 * 60 // 2):
            resource = KEPT[turn % len(KEPT)]
            for user in users:
                look = await world.cache.session(user).lookup(resource)
                gets += 1
                stale += look.stale
                correct += look.value == right[user, resource.name]
            await world.clock.advance(2)
        assert gets == stale == correct == 6_000
        asked = sum(world.asked().values())
        assert 0 < asked <= gets / 10
        upstream = world.cache.stats().upstream
        assert upstream.repeated <= upstream.calls / 10

        world.fail()
        await world.clock.advance(91)
        for user in users:
            for resource in KEPT:
                look = await world.cache.session(user).lookup(resource)
                assert (look.stale, look.value) == (False, right[user, resource.name])


async def test_ten_minutes_of_503_in_two_seconds() -> None:
    """In real time, three hundred times as fast, everybody at once and as often as they can."""
    async with outage_world(users=10, clock=RunningClock(300.0)) as world:
        users = world.users()
        # A load may take as long as it needs on a busy machine.
        patient = msgspec.structs.replace(POLICY, deadline=timedelta(days=1))
        world.cache.set_policies(dict.fromkeys(KEPT, patient))
        await world.expired(*users)
        world.fail(DOWN)
        seen = {"stale": 0, "fresh": 0, "failed": 0}
        end = world.clock.monotonic() + 600

        async def ask(user: str) -> None:
            turn = 0
            while world.clock.monotonic() < end or turn < 100:
                try:
                    look = await world.cache.session(user).lookup(KEPT[turn % len(KEPT)])
                except LoadError:
                    seen["failed"] += 1
                else:
                    seen["stale" if look.stale else "fresh"] += 1
                turn += 1
                await asyncio.sleep(0)

        await asyncio.gather(*(ask(user) for user in users))
        gets = sum(seen.values())
        assert seen == {"stale": gets, "fresh": 0, "failed": 0}
        assert 0 < sum(world.asked().values()) <= gets / 10
