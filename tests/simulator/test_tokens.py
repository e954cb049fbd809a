"""Log-in and tokens."""

from __future__ import annotations

import base64

import msgspec
import pytest

from coatcheck.simulator import NAMES, Settings, Simulator
from coatcheck.simulator.routes import ROUTES, Route

from .conftest import ENGAGEMENTS, LOGIN, ONE, TWO, Caller, Wall


def claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    decoded: dict[str, object] = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


async def test_a_login_brings_a_token_with_the_claims_of_the_contract(caller: Caller, wall: Wall) -> None:
    """Three parts, ten minutes, the user's e-mail; not the common envelope."""
    password = caller.simulator.truth(ONE)["password"]
    got = await caller.post(LOGIN, {"email": ONE, "password": password})

    assert got.status == 200
    assert set(got.json) == {"statusCode", "accessToken"}
    found = claims(got.json["accessToken"])
    assert (found["iat"], found["exp"]) == (int(wall.now), int(wall.now) + 600)
    assert found["email"] == found["preferred_username"] == ONE
    assert {"iss", "aud", "sub", "typ", "azp", "session_state", "realm_access", "scope", "name"} <= set(found)


@pytest.mark.parametrize("email", [ONE, "nobody@nowhere.example"])
async def test_bad_credentials_are_answered_by_a_sentence_in_the_place_of_the_token(
    caller: Caller, email: str
) -> None:
    """HTTP 200, the same for a wrong password and an unknown account."""
    got = await caller.post(LOGIN, {"email": email, "password": "wrong"})

    assert got.status == 200
    assert got.json == {"statusCode": 500, "accessToken": "Failed to generate token after retries"}


@pytest.mark.parametrize("body", [None, [], {"email": ONE}, {"email": 1, "password": "x"}])
async def test_a_login_that_names_no_credentials_is_a_bad_request(caller: Caller, body: object) -> None:
    """400, counted for nobody."""
    assert (await caller.post(LOGIN, body)).status == 400
    assert caller.simulator.calls()["by_user"] == {"nobody": 1}


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.name != "auth"], ids=lambda route: route.name
)
async def test_every_call_but_the_login_needs_a_token(caller: Caller, route: Route) -> None:
    """401 before anything else is looked at."""
    path = route.path.replace("{id:[^/]+}", "1")
    got = await (caller.get(path) if route.method == "GET" else caller.post(path, {}))

    assert got.status == 401
    assert got.json["responseCode"] == 401
    assert caller.simulator.calls()["by_path"] == {route.name: 1}


async def test_a_token_is_good_until_it_expires(caller: Caller, wall: Wall) -> None:
    """The second of ``exp`` is the first that is refused."""
    token = await caller.login(ONE)

    wall.now += 599
    assert (await caller.get(ENGAGEMENTS, token)).status == 200
    wall.now += 1
    assert (await caller.get(ENGAGEMENTS, token)).status == 401


async def test_forged_and_altered_tokens_are_refused(caller: Caller) -> None:
    """Another user's claims under a good signature, a cut or prolonged signature, no signature, no token."""
    one, two = await caller.login(ONE), await caller.login(TWO)
    head, payload, signature = one.split(".")
    forged = [
        f"{head}.{two.split('.')[1]}.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature[:-1]}",
        f"{head}.{payload}.{signature}A",
        f"{head}.{payload[:-2]}AA.{signature}",
        f"{head}.{payload}.{signature}.",
        "none",
        "",
        "é.é.é",
    ]

    statuses = [(await caller.get(ENGAGEMENTS, token)).status for token in forged]

    assert statuses == [401] * len(forged)
    assert caller.simulator.calls()["by_user"]["nobody"] == len(forged)


async def test_a_token_of_another_world_is_refused(caller: Caller, wall: Wall) -> None:
    """The key follows from the seed."""
    async with Simulator(Settings(seed=8, users=12, latency_scale=0), wall=wall) as other:
        token = await Caller(other, caller.session).login(ONE)

    assert (await caller.get(ENGAGEMENTS, token)).status == 401


async def test_the_scheme_must_be_bearer(caller: Caller) -> None:
    """In any case of letters; no other scheme will do."""
    token = await caller.login(ONE)

    for scheme, status in (("bearer", 200), ("BEARER", 200), ("Basic", 401), ("", 401)):
        headers = {"Authorization": f"{scheme} {token}"}
        async with caller.session.get(caller.simulator.url + ENGAGEMENTS, headers=headers) as response:
            assert response.status == status


async def test_the_lifetime_is_a_setting(caller: Caller, wall: Wall) -> None:
    """So many seconds from ``iat`` to ``exp``."""
    async with Simulator(Settings(users=1, latency_scale=0, token_lifetime=5), wall=wall) as simulator:
        found = claims(await Caller(simulator, caller.session).login(ONE))

    assert found["exp"] == int(wall.now) + 5


def test_every_route_has_a_name_of_its_own() -> None:
    """Counts and faults can tell them apart."""
    assert len(NAMES) == len(set(NAMES))
