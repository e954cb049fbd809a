"""A user who is refused sees nothing old, and nobody else notices (scenarios 21, 22, S8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ipc.rig import Gate

from coatcheck import Limits, Resource
from coatcheck.errors import AuthExpired, Forbidden, Gone, LoadError, NotFound, Refused, Unavailable
from coatcheck.ipc.resources import engagement_data, ipc_engagement_id, zones_list
from outage.world import ANN, BOB, DOWN, KEPT, PATHS, World, outage_world

REFUSALS: list[tuple[int, type[Refused]]] = [
    (401, AuthExpired),
    (403, Forbidden),
    (404, NotFound),
    (410, Gone),
]
AT_ONCE = 50


@pytest.mark.parametrize(("status", "error"), REFUSALS)
@pytest.mark.parametrize("resource", KEPT, ids=lambda each: each.name)
async def test_an_old_value_is_never_seen_again(
    world: World, resource: Resource[Any], status: int, error: type[Refused]
) -> None:
    """Not when the refusal comes, not while it is remembered, not when the upstream is down after it."""
    session = world.cache.session(ANN)
    await world.expired(ANN, BOB)
    world.fail({"kind": "status", "status": status, "path": PATHS[resource.name], "user": ANN})
    world.asked()
    for _ in range(10):
        with pytest.raises(error):
            await session.get(resource)
    # With a token renewed once, if that could have helped; then it is remembered.
    assert world.asked(ANN)[PATHS[resource.name]] == (2 if status == 401 else 1)
    assert session.peek(resource) is None

    world.fail(DOWN)
    await world.clock.advance(6)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await session.get(resource)
    assert (await world.cache.session(BOB).lookup(resource)).stale


@pytest.mark.parametrize("status", [401, 403])
async def test_what_hangs_on_what_is_revoked_goes_with_it(world: World, status: int) -> None:
    """Also under an id that the caller brings."""
    session = world.cache.session(ANN)
    await world.fill(ANN)
    ipc_id = await session.get(ipc_engagement_id)
    assert await session.get(zones_list, ipc_engagement_id=ipc_id)
    world.fail({"kind": "status", "status": status, "path": PATHS[engagement_data.name]})
    with pytest.raises(Refused):
        await session.get(engagement_data, force_refresh=True)

    world.fail(DOWN)
    for call in (session.get(zones_list), session.get(zones_list, ipc_engagement_id=ipc_id)):
        with pytest.raises(LoadError):
            await call


@pytest.mark.parametrize(("status", "error"), REFUSALS[:2])
async def test_ten_minutes_of_refusals_show_no_old_value(
    world: World, status: int, error: type[Refused]
) -> None:
    session = world.cache.session(ANN)
    await world.expired(ANN)
    world.fail({"kind": "status", "status": status})
    refused = 0
    for turn in range(10 * 60 // 2):
        with pytest.raises(error):
            await session.get(KEPT[turn % len(KEPT)])
        refused += 1
        await world.clock.advance(2)
    assert refused == 300
    assert world.cache.stats().total.stale_hits == 0


async def fifty_at_once(*, cured: bool) -> None:
    """Have fifty loads of Ann's answered 401 together, while Bob goes on."""
    gate = Gate()
    limits = Limits(max_loads_per_user=AT_ONCE)
    # Without keeping, so that each get is a load.
    async with outage_world(sleep=gate, enabled=False, limits=limits) as world:
        right = world.right(ANN, engagement_data)
        for user in (ANN, BOB):
            await world.cache.session(user).get(engagement_data)
        world.asked()
        world.fail(
            {"kind": "expired_token", "user": ANN, "cured_by_login": cured},
            {"kind": "delay", "ms": 1, "path": PATHS[engagement_data.name]},
        )
        session = world.cache.session(ANN)
        gets = [asyncio.create_task(session.get(engagement_data)) for _ in range(AT_ONCE)]
        bobs = asyncio.create_task(world.cache.session(BOB).get(engagement_data))
        await gate.arrived(AT_ONCE + 1)
        assert world.simulator.calls()["total"] == AT_ONCE + 1
        gate.open()
        assert await bobs == world.right(BOB, engagement_data)
        await gate.arrived(AT_ONCE)
        gate.open()
        ends = await asyncio.gather(*gets, return_exceptions=True)

        calls = {user: world.simulator.calls(user)["by_path"] for user in (ANN, BOB)}
        assert (calls[ANN]["auth"], calls[ANN]["engagements"]) == (1, 2 * AT_ONCE)
        assert (calls[BOB].get("auth", 0), calls[BOB]["engagements"]) == (0, 1)
        if cured:
            assert ends == [right] * AT_ONCE
        else:
            assert {AuthExpired} == {type(end) for end in ends}
            assert AT_ONCE == len({id(end) for end in ends})


@pytest.mark.parametrize("cured", [True, False])
async def test_fifty_loads_answered_401_renew_one_token(cured: bool) -> None:
    """Each is tried once more and no oftener, whether that helps or not; Bob's token stays."""
    await fifty_at_once(cured=cured)
