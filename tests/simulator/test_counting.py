"""Counts, latencies and the simulator's own paths."""

from __future__ import annotations

import aiohttp
import pytest

from coatcheck.simulator import NAMES, Settings, Simulator
from coatcheck.simulator.calls import Call, Calls, Shape
from coatcheck.simulator.latency import Latency

from .conftest import ENGAGEMENTS, LOGIN, ONE, TWO, Caller, Wall


async def test_every_call_counts_by_name_and_user_and_the_own_paths_do_not(caller: Caller) -> None:
    """Log-ins count for the e-mail in their body."""
    one, two = await caller.login(ONE), await caller.login(TWO)
    for token in (one, one, two):
        await caller.get(ENGAGEMENTS, token)
    ipc = caller.simulator.truth(ONE)["engagements"][0]["ipc_engagement_id"]
    await caller.get(f"/portalservice/api/v1/{ipc}/zonelist", one)
    await caller.get(ENGAGEMENTS)

    got = await caller.get("/_sim/calls")

    assert got.json["total"] == 7
    assert got.json["by_path"] == {"auth": 2, "engagements": 4, "zones": 1}
    assert got.json["by_user"] == {ONE: 4, TWO: 2, "nobody": 1}
    assert got.json == caller.simulator.calls()


async def test_one_users_calls_can_be_asked_for(caller: Caller) -> None:
    """By name, without anybody else's."""
    await caller.get(ENGAGEMENTS, await caller.login(ONE))
    await caller.login(TWO)

    expected = {"total": 2, "by_path": {"auth": 1, "engagements": 1}, "by_user": {ONE: 2}}
    assert caller.simulator.calls(ONE) == expected
    assert (await caller.get("/_sim/calls", params={"user": ONE})).json == expected
    assert caller.simulator.calls("nobody")["total"] == 0


async def test_calls_that_end_badly_count_too(caller: Caller) -> None:
    """Refused, expired, failed and broken ones."""
    token = await caller.login(ONE)
    caller.simulator.set_faults(
        [{"kind": "status", "status": 503, "path": "zones"}, {"kind": "expired_token"}]
    )
    await caller.get("/portalservice/api/v1/1/zonelist", token)
    await caller.get(ENGAGEMENTS, token)
    await caller.post(LOGIN, {"email": ONE, "password": "wrong"})

    assert caller.simulator.calls()["by_user"] == {ONE: 4}


async def test_a_reset_zeroes_the_counts_and_nothing_else(caller: Caller) -> None:
    """Tokens and faults stay."""
    token = await caller.login(ONE)
    caller.simulator.set_faults([{"kind": "data_null"}])

    got = await caller.post("/_sim/reset", None)

    assert got.json["total"] == 0
    assert (await caller.get(ENGAGEMENTS, token)).json["data"] is None
    assert caller.simulator.calls()["total"] == 1
    caller.simulator.reset()
    assert caller.simulator.calls()["total"] == 0


async def test_requests_with_a_cookie_are_noticed(caller: Caller) -> None:
    """However it came to be sent."""
    await caller.get(ENGAGEMENTS)
    await caller.get(ENGAGEMENTS, cookies={"portal_session": "x"})

    assert caller.simulator.calls()["with_cookie"] == 1


def test_seconds_are_counted_from_the_reset_and_only_the_last_hour_is_kept() -> None:
    """Memory does not grow with time."""
    clock = Wall()
    calls = Calls(clock)
    call = Call("zones", "/x", ONE, Shape.ENVELOPE, 1)
    for _ in range(3700):
        calls.end(calls.begin(call, cookie=False))
        clock.now += 1

    by_second = calls.view()["by_second"]
    assert isinstance(by_second, dict)
    assert len(by_second) == 3600
    assert (next(iter(by_second)), next(reversed(by_second))) == ("100", "3699")
    calls.reset()
    calls.end(calls.begin(call, cookie=False))
    assert calls.view()["by_second"] == {"0": 1}


def test_the_peak_is_the_most_calls_at_one_time() -> None:
    """Calls that ended make room; those from before a reset do not count."""
    calls = Calls(Wall())
    call = Call("zones", "/x", ONE, Shape.ENVELOPE, 1)
    first, second = (calls.begin(call, cookie=False) for _ in range(2))
    calls.end(first)
    calls.begin(call, cookie=False)
    assert calls.view()["peak"] == 2

    calls.reset()
    calls.end(second)
    calls.begin(call, cookie=False)
    assert calls.view()["peak"] == 1


async def test_accounts_can_be_had_over_http_whole_or_in_part(caller: Caller) -> None:
    """The same as in the process."""
    assert (await caller.get("/_sim/users")).json == caller.simulator.users()
    got = await caller.get("/_sim/users", params={"limit": "2", "offset": "3"})
    assert [user["email"] for user in got.json] == [user["email"] for user in caller.simulator.users(2, 3)]
    for beyond in ({"offset": "12"}, {"limit": "0"}):
        assert (await caller.get("/_sim/users", params=beyond)).json == []
    bad = await caller.get("/_sim/users", params={"limit": "many"})
    assert (bad.status, bad.json) == (400, {"error": "limit must be a whole number, not below 0"})


async def test_faults_can_be_switched_over_http(caller: Caller) -> None:
    """A list replaces the list, an empty one ends all; what cannot be used is a 400 with a reason."""
    assert (await caller.post("/_sim/faults", [{"kind": "html", "times": 3}])).json == [
        {"kind": "html", "times": 3, "hits": 0}
    ]
    assert (await caller.get(ENGAGEMENTS)).raw.startswith(b"<!DOCTYPE")
    assert (await caller.get("/_sim/faults")).json[0]["hits"] == 1

    bad = await caller.post("/_sim/faults", [{"kind": "nonsense"}])
    assert bad.status == 400
    assert "the kinds are" in bad.json["error"]
    async with caller.session.post(caller.simulator.url + "/_sim/faults", data=b"{") as response:
        assert response.status == 400
    assert len(caller.simulator.faults()) == 1

    assert (await caller.post("/_sim/faults", [])).json == []


async def test_latencies_can_be_changed_over_http(caller: Caller) -> None:
    """Some of the figures, the factor, or both; nonsense changes nothing."""
    got = await caller.post("/_sim/latency", {"table": {"zones": 0}})
    assert got.json["table"]["zones"] == 0
    assert got.json["scale"] == 0

    refused: list[object] = [{"table": {"nothing": 1}}, {"scale": -1}, {"speed": 2}, []]
    for nonsense in refused:
        bad = await caller.post("/_sim/latency", nonsense)
        assert bad.status == 400
        assert "\n" not in bad.json["error"]
    assert (await caller.get("/_sim/latency")).json == got.json


def test_latencies_are_the_stated_ones_times_the_factor() -> None:
    """Others take a quarter of a second."""
    latency = Latency(NAMES, 2.0)

    stated = {
        "engagements": 300,
        "conversion": 250,
        "endpoints": 400,
        "departments": 200,
        "environments": 250,
    }
    stated |= {"zones": 250, "vmlist": 400, "clusters": 600, "managed": 300, "auth": 200, "firewall": 300}
    for name, milliseconds in {**stated, "templates": 250, "unknown": 250}.items():
        assert latency.seconds(name) == pytest.approx(2 * milliseconds / 1000)
    latency.change(scale=0.5, table={"zones": 100})
    assert latency.seconds("zones") == pytest.approx(0.05)
    with pytest.raises(ValueError, match="no such call: nothing"):
        latency.change(scale=3, table={"nothing": 1})
    assert latency.seconds("zones") == pytest.approx(0.05)


async def test_latency_and_delay_pass_before_the_answer() -> None:
    """The server waits as long as the figures say, the delay unscaled."""
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    async with (
        Simulator(Settings(users=1, latency_scale=0.5), sleep=note) as simulator,
        aiohttp.ClientSession() as session,
    ):
        caller = Caller(simulator, session)
        token = await caller.login(ONE)
        simulator.set_faults([{"kind": "delay", "ms": 40}])
        await caller.get(ENGAGEMENTS, token)
        truth = simulator.truth(ONE)["engagements"][0]
        endpoints = [item["endpointId"] for item in truth["endpoints"]]
        path = f"/paasservice/paas/{truth['paas_engagement_id']}/clusterlist/stream"
        simulator.set_faults([])
        await caller.post(path, {"endpoints": endpoints}, token)

    assert waited == pytest.approx([0.1, 0.19, *[0.05] * 6])
