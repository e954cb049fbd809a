"""Faults: what each does, whom it meets, and how they are switched."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest

from coatcheck.simulator import KINDS, BadFault, Settings, Simulator
from coatcheck.simulator.calls import Call, Shape
from coatcheck.simulator.faults import Faults, parse
from coatcheck.simulator.routes import NAMES, ROUTES
from coatcheck.simulator.upstream import Incoming, Upstream

from .conftest import ENGAGEMENTS, LOGIN, ONE, TWO, Caller, Got, Wall

NEEDED: dict[str, dict[str, Any]] = {
    "status": {"status": 503},
    "redirect": {"location": "http://169.254.169.254/"},
    "delay": {"ms": 0},
    "short_token": {"seconds": 1},
    "slow_body": {"interval_ms": 0},
    "huge_body": {"bytes": 4096},
    "gzip_bomb": {"bytes": 4096},
}


def fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **NEEDED.get(kind, {}), **more}


async def spoiled(caller: Caller, kind: str, **more: Any) -> tuple[Got, Got]:
    """Return the engagement list under one fault, with what it would be without."""
    token = await caller.login(ONE)
    honest = await caller.get(ENGAGEMENTS, token)
    caller.simulator.set_faults([fault(kind, **more)])
    return await caller.get(ENGAGEMENTS, token), honest


async def test_status_brings_a_failure_envelope_and_retry_after_as_it_was_given(caller: Caller) -> None:
    """Seconds, dates and nonsense alike."""
    for text in ("5", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon"):
        got, _ = await spoiled(caller, "status", status=429, retry_after=text, path="engagements")
        assert (got.status, got.headers["Retry-After"]) == (429, text)
        assert got.json["responseCode"] == 429
        caller.simulator.set_faults([])


async def test_status_brings_a_page_or_a_text(caller: Caller) -> None:
    """HTML of its own or the body given."""
    got, _ = await spoiled(caller, "status", status=502, html=True)
    assert (got.status, got.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert got.raw.startswith(b"<!DOCTYPE html>")

    caller.simulator.set_faults([fault("status", status=500, body='{"error":"x"}', path="engagements")])
    got = await caller.get(ENGAGEMENTS)
    assert (got.status, got.raw) == (500, b'{"error":"x"}')


async def test_html_is_a_page_with_200(caller: Caller) -> None:
    """As a proxy's log-in page."""
    got, _ = await spoiled(caller, "html")

    assert (got.status, got.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_redirect_names_its_target(caller: Caller) -> None:
    """302 and the location as given."""
    got, _ = await spoiled(caller, "redirect", location="http://[::ffff:127.0.0.1]/x", status=307)

    assert (got.status, got.headers["Location"]) == (307, "http://[::ffff:127.0.0.1]/x")


async def test_set_cookie_adds_to_the_honest_answer(caller: Caller) -> None:
    """Name and value as given."""
    got, honest = await spoiled(caller, "set_cookie", name="sid", value="of-one")

    assert got.headers["Set-Cookie"] == "sid=of-one; Path=/"
    assert got.raw == honest.raw


async def test_slow_body_drips_the_whole_honest_answer(caller: Caller) -> None:
    """Piece by piece, with the length announced."""
    got, honest = await spoiled(caller, "slow_body", bytes=7)

    assert got.raw == honest.raw
    assert got.headers["Content-Length"] == str(len(honest.raw))


async def test_hang_never_sends_headers(caller: Caller) -> None:
    """Only the client's own patience ends it."""
    caller.simulator.set_faults([fault("hang")])

    with pytest.raises(TimeoutError):
        await caller.get(ENGAGEMENTS, timeout=aiohttp.ClientTimeout(total=0.05))


async def test_reset_aborts_the_connection(caller: Caller) -> None:
    """No answer at all."""
    with pytest.raises(aiohttp.ClientConnectionError):
        await spoiled(caller, "reset")


@pytest.mark.parametrize("more", [{}, {"after": 0}, {"after": 1}, {"after": 10_000_000}])
async def test_cut_closes_the_connection_within_the_body(caller: Caller, more: dict[str, int]) -> None:
    """The announced length is never reached, whatever is asked for."""
    with pytest.raises(aiohttp.ClientPayloadError):
        await spoiled(caller, "cut", **more)


@pytest.mark.parametrize("declared", [True, False])
async def test_huge_body_is_good_json_of_the_given_size(caller: Caller, declared: bool) -> None:
    """A client without a limit reads it and is content."""
    got, honest = await spoiled(caller, "huge_body", bytes=1_000_000, declared=declared)

    assert len(got.raw) == 1_000_000
    assert ("Content-Length" in got.headers) is declared
    assert got.json == honest.json


async def test_gzip_bomb_is_small_on_the_wire_and_large_in_memory(caller: Caller) -> None:
    """A thousandth of it travels."""
    token = await caller.login(ONE)
    caller.simulator.set_faults([fault("gzip_bomb", bytes=3_000_000)])
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        got = await Caller(caller.simulator, session).get(ENGAGEMENTS, token)

    assert got.headers["Content-Encoding"] == "gzip"
    assert len(got.raw) < 10_000
    assert len(gzip.decompress(got.raw)) == 3_000_000


@pytest.mark.parametrize(
    "kind", ["invalid_json", "truncated_json", "bom", "wrong_charset", "nan", "big_int", "deep_json"]
)
async def test_unreadable_bodies_come_with_200_and_the_content_type_of_json(
    caller: Caller, kind: str
) -> None:
    """A strict reader refuses every one of them."""
    got, _ = await spoiled(caller, kind)

    assert got.status == 200
    assert got.headers["Content-Type"].startswith("application/json")
    with pytest.raises((ValueError, RecursionError)):
        msgspec.json.decode(got.raw, type=dict[str, Any] if kind != "big_int" else dict[str, int])


async def test_big_int_has_as_many_digits_as_asked_for(caller: Caller) -> None:
    """More than a careful reader converts."""
    got, _ = await spoiled(caller, "big_int", digits=5000)

    assert b"9" * 5000 in got.raw


async def test_deep_json_is_as_deep_as_asked_for(caller: Caller) -> None:
    """Arrays within arrays."""
    got, _ = await spoiled(caller, "deep_json", depth=100_000)

    assert got.raw.count(b"[") == got.raw.count(b"]") == 100_000


async def test_duplicate_keys_say_failure_first_and_the_truth_last(caller: Caller) -> None:
    """So readers that keep the first and those that keep the last differ."""
    got, honest = await spoiled(caller, "duplicate_keys")
    pairs = json.loads(got.raw, object_pairs_hook=list)

    assert [value for key, value in pairs if key == "status"] == ["failure", "success"]
    assert got.json == honest.json


async def test_lone_surrogates_fail_only_where_they_are_encoded(caller: Caller) -> None:
    """The standard library reads them happily."""
    got, _ = await spoiled(caller, "lone_surrogate")
    name = json.loads(got.raw)["data"][0]["engagementName"]

    with pytest.raises(UnicodeEncodeError):
        name.encode()


async def test_wrong_type_makes_ids_text(caller: Caller) -> None:
    """All else stays as it was."""
    got, honest = await spoiled(caller, "wrong_type")

    assert got.data == [{**item, "id": str(item["id"])} for item in honest.data]


async def test_failure_envelope_comes_with_200(caller: Caller) -> None:
    """Word and code as given."""
    got, _ = await spoiled(caller, "failure_envelope", word="failed", response_code=404, message=None)

    assert got.status == 200
    assert got.json == {"status": "failed", "data": None, "message": None, "responseCode": 404}


async def test_data_null_is_a_success_without_data(caller: Caller) -> None:
    """Status, message and code are those of a success."""
    got, honest = await spoiled(caller, "data_null")

    assert got.json == {**honest.json, "data": None}


async def test_empty_list_empties_arrays_and_the_arrays_of_objects(caller: Caller) -> None:
    """The other members of an object stay."""
    got, _ = await spoiled(caller, "empty_list")
    assert got.data == []

    caller.simulator.set_faults([])
    token = await caller.login(ONE)
    truth = caller.simulator.truth(ONE)["engagements"][0]
    caller.simulator.set_faults([fault("empty_list")])
    departments = await caller.get(
        f"/portalservice/securityservice/departments/{truth['ipc_engagement_id']}", token
    )
    assert departments.data["department"] == []
    assert departments.data["engagement"]["name"] == truth["tag"]


async def test_expired_tokens_are_cured_by_a_login(caller: Caller) -> None:
    """Those issued before the fault are refused, those after it are good."""
    old = await caller.login(ONE)
    caller.simulator.set_faults([fault("expired_token", user=ONE)])
    assert (await caller.get(ENGAGEMENTS, old)).status == 401
    assert (await caller.get(ENGAGEMENTS, await caller.login(ONE))).status == 200
    assert (await caller.get(ENGAGEMENTS, old)).status == 401

    caller.simulator.set_faults([fault("expired_token", cured_by_login=False)])
    assert (await caller.get(ENGAGEMENTS, await caller.login(ONE))).status == 401


async def test_login_failure_is_that_of_bad_credentials(caller: Caller) -> None:
    """The sentence in the place of the token."""
    caller.simulator.set_faults([fault("login_failure", user=ONE)])
    password = caller.simulator.truth(ONE)["password"]
    got = await caller.post(LOGIN, {"email": ONE, "password": password})

    assert (got.status, got.json["statusCode"]) == (200, 500)
    assert await caller.login(TWO)


async def test_short_tokens_end_early(caller: Caller, wall: Wall) -> None:
    """After the seconds given instead of the lifetime configured."""
    caller.simulator.set_faults([fault("short_token", seconds=5)])
    token = await caller.login(ONE)

    assert (await caller.get(ENGAGEMENTS, token)).status == 200
    wall.now += 5
    assert (await caller.get(ENGAGEMENTS, token)).status == 401


async def test_a_changed_engagement_has_its_own_ids_and_the_old_ones_are_refused(caller: Caller) -> None:
    """Truth and answers change together, for this user alone, and back again."""
    token = await caller.login(TWO)
    before = caller.simulator.truth(TWO)["engagements"]
    others = caller.simulator.truth(ONE)
    caller.simulator.set_faults([fault("changed_engagement", user=TWO, to=3)])
    after = caller.simulator.truth(TWO)["engagements"]

    assert (await caller.get(ENGAGEMENTS, token)).data == [item["engagement"] for item in after]
    assert after[0]["tag"] == "tenant-0002.c3"
    assert after[1] == before[1]
    assert not {zone["zoneId"] for zone in after[0]["zones"]} & {
        zone["zoneId"] for zone in before[0]["zones"]
    }
    path = "/portalservice/configservice/getEndpointsByEngagement/"
    assert (await caller.get(f"{path}{after[0]['paas_engagement_id']}", token)).data == after[0]["endpoints"]
    assert (await caller.get(f"{path}{before[0]['paas_engagement_id']}", token)).status == 403
    assert caller.simulator.truth(ONE) == others

    caller.simulator.set_faults([])
    assert caller.simulator.truth(TWO)["engagements"] == before
    assert (await caller.get(f"{path}{after[0]['paas_engagement_id']}", token)).status == 403


async def test_a_fault_meets_its_user_its_route_and_no_other(caller: Caller) -> None:
    """The name of a route means that route, although other paths contain it."""
    one, two = await caller.login(ONE), await caller.login(TWO)
    caller.simulator.set_faults([fault("status", user=ONE, path="engagements")])

    assert (await caller.get(ENGAGEMENTS, one)).status == 503
    assert (await caller.get(ENGAGEMENTS, two)).status == 200
    assert (await caller.get("/portalservice/configservice/getuserengagements", one)).status == 200


async def test_a_path_that_names_no_route_is_a_part_of_the_path(caller: Caller) -> None:
    """So that a single id or service can be met."""
    token = await caller.login(ONE)
    caller.simulator.set_faults([fault("status", path="/paasservice/")])

    assert (await caller.get(ENGAGEMENTS, token)).status == 503
    assert (await caller.get("/portalservice/configservice/getuserengagements", token)).status == 200


async def test_a_fault_happens_no_more_often_than_allowed(caller: Caller) -> None:
    """And says how often it has."""
    token = await caller.login(ONE)
    caller.simulator.set_faults([fault("status", times=2)])

    assert [(await caller.get(ENGAGEMENTS, token)).status for _ in range(4)] == [503, 503, 200, 200]
    assert caller.simulator.faults() == [{"kind": "status", "status": 503, "times": 2, "hits": 2}]


def test_a_fraction_is_drawn_from_the_dice_given() -> None:
    """The same seed makes the same draws, near the fraction asked for."""

    def draws(seed: int) -> list[bool]:
        faults = Faults(NAMES, random.Random(seed))
        faults.replace([fault("html", fraction=0.3)])
        call = Call("zones", "/x", ONE, Shape.ENVELOPE, 1)
        return [bool(faults.draw(call)) for _ in range(1000)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert 250 < sum(draws(1)) < 350


def test_calls_that_a_fault_cannot_meet_cost_none_of_its_times() -> None:
    """A stream fault waits for a stream, a log-in fault for a log-in."""
    faults = Faults(NAMES, random.Random(1))
    faults.replace([fault("cut_stream", times=1), fault("login_failure", times=1)])

    assert faults.draw(Call("zones", "/x", ONE, Shape.ENVELOPE, 1)) == ()
    assert len(faults.draw(Call("clusters", "/x", ONE, Shape.STREAM, 1))) == 1
    assert len(faults.draw(Call("auth", "/x", ONE, Shape.LOGIN))) == 1


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ([{"kind": "nonsense"}], "the kinds are bad_event, big_int"),
        ([{}], "missing required field `kind`; the kinds are|`kind`"),
        ([{"kind": "status"}], "`status`"),
        ([{"kind": "status", "status": 99}], "status"),
        ([{"kind": "status", "status": 503, "colour": "red"}], "colour"),
        ([{"kind": "status", "status": 429, "retry_after": "1\r\nX: y"}], "retry_after"),
        ([{"kind": "html", "fraction": 1.5}], "fraction"),
        ([{"kind": "html", "times": 0}], "times"),
        ([{"kind": "html", "path": ""}], "path"),
        ([{"kind": "changed_engagement", "times": 1}], "holds for every call"),
        ([{"kind": "changed_engagement", "to": 6}], "to"),
        ({"kind": "html"}, "Expected `array`"),
        (["html"], "Expected `object`"),
    ],
)
def test_a_rule_that_cannot_be_used_says_why_in_one_line(faults: object, why: str) -> None:
    """Kind, parameter and place are named."""
    with pytest.raises(BadFault, match=why) as caught:
        parse(faults)

    assert "\n" not in str(caught.value)


async def test_a_bad_list_leaves_the_faults_as_they_were(simulator: Simulator) -> None:
    """All of the list is put in force, or none of it."""
    simulator.set_faults([fault("html")])

    with pytest.raises(BadFault):
        simulator.set_faults([fault("data_null"), {"kind": "nonsense"}])
    assert [rule["kind"] for rule in simulator.faults()] == ["html"]


@pytest.mark.parametrize("first", KINDS)
def test_any_two_faults_can_meet_one_call(first: str, wall: Wall) -> None:
    """Every pair on every shape of call makes some answer and breaks nothing of the simulator."""
    upstream = Upstream(Settings(users=1, latency_scale=0), wall=wall, monotonic=wall)
    calls = [incoming(upstream, name) for name in ("auth", "engagements", "clusters")]
    token = msgspec.json.decode(upstream.receive(calls[0]).answer.body)["accessToken"]

    for second in KINDS:
        upstream.set_faults([fault(first), fault(second)])
        for call in calls:
            reply = upstream.receive(replace(call, authorization=f"Bearer {token}"))
            assert isinstance(reply.answer.body, bytes)


def incoming(upstream: Upstream, name: str) -> Incoming:
    """Return the first user's call as it would arrive, without any socket and without a token."""
    truth = upstream.truth(ONE)
    engagement = truth["engagements"][0]
    body = {
        "email": ONE,
        "password": truth["password"],
        "endpoints": [engagement["endpoints"][0]["endpointId"]],
    }
    return Incoming(
        route=next(route for route in ROUTES if route.name == name),
        path="/",
        params={"id": str(engagement["paas_engagement_id"])},
        query={},
        authorization="",
        cookie=False,
        body=msgspec.json.encode(body),
    )
