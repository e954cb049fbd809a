"""The drop-in service while its upstream fails: what expired less than a day ago is answered still, and said to be so."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coatcheck.ipc.resources import POLICY, catalog
from ipc.rig import ANN, BOB, Gate, Rig, expected, rigged, slow, with_settings
from ipc.test_executor_failures import LISTS, LIVE, NONE, ROUTES, ask, assert_failed, assert_succeeded

KEPT = (*NONE, *LISTS)
HOUR = 3600.0
DOWN: list[dict[str, Any]] = [{"kind": "status", "status": 503}]


async def expire(rig: Rig, *names: str, user: str = ANN) -> None:
    """Have these answers, and let them be an hour past their ttl."""
    for name in names:
        assert_succeeded(name, await ask(rig.service, name, user))
    rig.clock.jump(25 * HOUR)
    asked(rig)


def asked(rig: Rig) -> int:
    """Return how many calls arrived since the last time, log-ins included."""
    made: int = rig.simulator.calls()["total"]
    rig.simulator.reset()
    return made


def marked(name: str, answer: Any) -> Any:
    """Return the answer without its mark, which a dictionary must carry and nothing else can."""
    if name in NONE:
        return answer
    assert answer.pop("stale") is True
    return answer


@pytest.mark.parametrize("name", KEPT)
async def test_what_has_expired_bridges_an_outage_and_is_marked(rig: Rig, name: str) -> None:
    """Nothing is called again for thirty seconds; then it is tried again."""
    await expire(rig, name)
    rig.simulator.set_faults(DOWN)
    first = marked(name, await ask(rig.service, name))
    assert first == expected(name, rig.truth(ANN))
    assert rig.service.latest_was_stale
    assert asked(rig) > 0

    await rig.clock.advance(29.9)
    assert first == marked(name, await ask(rig.service, name))
    assert asked(rig) == 0
    await rig.clock.advance(0.1)
    assert first == marked(name, await ask(rig.service, name))
    assert asked(rig) > 0


@pytest.mark.parametrize("name", KEPT)
async def test_a_day_past_its_ttl_nothing_bridges_anything(rig: Rig, name: str) -> None:
    await expire(rig, name)
    rig.simulator.set_faults(DOWN)
    rig.clock.jump(23 * HOUR - 1)
    assert marked(name, await ask(rig.service, name)) == expected(name, rig.truth(ANN))
    await rig.clock.advance(1)
    assert_failed(name, await ask(rig.service, name))
    assert not rig.service.latest_was_stale


@pytest.mark.parametrize("name", KEPT)
async def test_when_it_is_over_answers_are_fresh_and_unmarked(rig: Rig, name: str) -> None:
    await expire(rig, name)
    rig.simulator.set_faults(DOWN)
    await ask(rig.service, name)
    rig.simulator.set_faults([])
    await rig.clock.advance(30)

    assert await ask(rig.service, name) == expected(name, rig.truth(ANN))
    assert not rig.service.latest_was_stale
    rig.simulator.set_faults(DOWN)
    rig.clock.jump(21 * HOUR)
    assert await ask(rig.service, name) == expected(name, rig.truth(ANN))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("name", KEPT)
async def test_a_refusal_is_never_bridged(rig: Rig, name: str, status: int) -> None:
    """Neither when it comes, nor when the upstream is down after it."""
    await expire(rig, name)
    rig.simulator.set_faults([{"kind": "status", "status": status, "path": ROUTES[name]}])
    assert_failed(name, await ask(rig.service, name))
    rig.simulator.set_faults(DOWN)
    await rig.clock.advance(6)  # a refusal is remembered for five seconds
    assert_failed(name, await ask(rig.service, name))


@pytest.mark.parametrize("name", KEPT)
async def test_after_a_clear_an_outage_is_a_failure(rig: Rig, name: str) -> None:
    await expire(rig, name)
    rig.simulator.set_faults(DOWN)
    assert_succeeded(name, await ask(rig.service, name))
    await rig.service._clear_user_session(ANN)
    assert_failed(name, await ask(rig.service, name))
    assert not rig.service.latest_was_stale


@pytest.mark.parametrize("name", LISTS)
async def test_an_id_on_the_way_makes_an_answer_stale(rig: Rig, name: str) -> None:
    """The list itself comes fresh from the upstream."""
    await expire(rig, "get_ipc_engagement_id")
    rig.simulator.set_faults([{**DOWN[0], "path": "conversion"}])
    assert marked(name, await ask(rig.service, name)) == expected(name, rig.truth(ANN))
    assert rig.service.latest_was_stale

    given = rig.truth(ANN)["ipc_engagement_id"]
    answer = await ask(rig.service, name, ipc_engagement_id=given)
    assert answer == expected(name, rig.truth(ANN))
    assert not rig.service.latest_was_stale


@pytest.mark.parametrize("name", LIVE)
async def test_a_live_list_by_ids_that_have_expired(rig: Rig, name: str) -> None:
    await expire(rig, name)
    rig.simulator.set_faults([{**DOWN[0], "path": "engagements"}])
    answer = await ask(rig.service, name)
    assert_succeeded(name, answer)
    assert answer["stale"] is True
    assert rig.service.latest_was_stale

    rig.simulator.set_faults([])
    await rig.clock.advance(30)
    assert "stale" not in await ask(rig.service, name)
    assert not rig.service.latest_was_stale


@pytest.mark.parametrize("name", [each for each in LIVE if each != "list_endpoints"])
async def test_a_live_list_itself_is_never_old(rig: Rig, name: str) -> None:
    await expire(rig, name)
    rig.simulator.set_faults(DOWN)
    assert_failed(name, await ask(rig.service, name))
    assert not rig.service.latest_was_stale


async def test_the_latest_answer_is_that_of_the_task_that_awaited_it(rig: Rig) -> None:
    """What Bob's task was answered says nothing of what Ann's was."""
    await expire(rig, "get_endpoints")
    rig.simulator.set_faults([{**DOWN[0], "user": ANN}])

    async def told(user: str) -> bool:
        await ask(rig.service, "get_endpoints", user)
        await asyncio.sleep(0)
        return rig.service.latest_was_stale

    assert [True, False, True] == list(await asyncio.gather(told(ANN), told(BOB), told(ANN)))
    assert not rig.service.latest_was_stale
    with pytest.raises(AttributeError):
        rig.service.latest_was_stale = True  # type: ignore[misc]


async def test_a_forced_refresh_that_fails_is_a_failure(rig: Rig) -> None:
    """Who forces wants no old value, and those who do not still get it."""
    await expire(rig, "get_endpoints")
    rig.simulator.set_faults(DOWN)
    assert await ask(rig.service, "get_endpoints", force_refresh=True) is None
    assert not rig.service.latest_was_stale
    assert await ask(rig.service, "get_endpoints") == rig.truth(ANN)["endpoints"]
    assert rig.service.latest_was_stale


async def test_nobody_in_a_chat_waits_longer_than_two_seconds_for_a_call() -> None:
    """The load that was not waited for goes on; those who come meanwhile do not wait at all; then it is fresh."""
    gate = Gate()
    async with rigged(settings=with_settings(latency_scale=1), sleep=gate) as rig:
        rig.simulator.set_latency(table=slow())
        await expire(rig, "get_endpoints")
        rig.simulator.set_latency(table=slow(engagements=60_000.0))
        first = asyncio.create_task(rig.service.get_engagement_id(user_id=ANN))
        await gate.arrived()
        await rig.clock.advance(1.999)
        assert not first.done()
        await rig.clock.advance(0.001)
        assert await first == rig.truth(ANN)["paas_engagement_id"]

        for _ in range(5):
            assert await rig.service.get_engagement_id(user_id=ANN) == await first
            assert rig.service.latest_was_stale
        assert rig.calls() == "E"
        gate.open()
        await rig.cache.settled()
        assert await rig.service.get_engagement_id(user_id=ANN) == await first
        assert not rig.service.latest_was_stale
        assert rig.calls() == ""


@pytest.mark.parametrize("seconds", [15.0, 30.0, 300.0])
async def test_a_short_duration_goes_with_the_grace_and_the_throttle(rig: Rig, seconds: float) -> None:
    """How long an outage is bridged, and how often it is tried, do not depend on how long things are fresh."""
    rig.service.session_cache_duration = timedelta(seconds=seconds)
    await rig.service.get_endpoints(user_id=ANN)
    await rig.clock.advance(seconds)
    rig.simulator.set_faults(DOWN)
    rig.calls()
    assert await rig.service.get_endpoints(user_id=ANN) == rig.truth(ANN)["endpoints"]
    assert rig.service.latest_was_stale
    assert rig.calls() == "EP"
    await rig.clock.advance(29)
    assert await rig.service.get_endpoints(user_id=ANN) is not None
    assert rig.calls() == ""

    rig.clock.jump(24 * HOUR - 30)
    assert await rig.service.get_endpoints(user_id=ANN) is not None
    await rig.clock.advance(1)
    assert await rig.service.get_endpoints(user_id=ANN) is None

    rig.service.session_cache_duration = timedelta(hours=24)
    assert {POLICY} == {rig.cache.policy(each) for each in catalog if not each.derived}


async def test_a_session_shows_only_what_is_fresh(rig: Rig) -> None:
    """What is held for an outage is in no view."""
    await expire(rig, *KEPT)
    rig.simulator.set_faults(DOWN)
    await rig.service.get_zones_list(user_id=ANN)
    assert await rig.service._get_user_session(ANN) == {}
    assert ANN not in rig.service.user_sessions
