"""While everything fails: no id, e-mail, password, token, URL or byte of a body in any log, exception, event or repr."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from coatcheck.errors import CoatcheckError
from coatcheck.ipc.resources import paas_engagement_id
from coatcheck.upstream.client import MIB
from outage.world import ANN, BOB, HOUR, KEPT, Fault, World, keys_of, outage_world

CANARY = "CANARY"
USER = f"{CANARY}-ann"

FAULTS: list[Fault] = [
    *(
        {"kind": "status", "status": status, "body": f'{{"status": "{CANARY}", "message": "{CANARY}"}}'}
        for status in (200, 400, 401, 403, 404, 410, 418, 429, 500, 503)
    ),
    {"kind": "status", "status": 429, "retry_after": CANARY},
    {"kind": "failure_envelope", "word": "failure", "response_code": 403, "message": CANARY},
    {"kind": "failure_envelope", "word": CANARY, "response_code": 1, "message": CANARY},
    {"kind": "redirect", "location": f"http://{CANARY}.example/{CANARY}"},
    {"kind": "set_cookie", "value": CANARY},
    {"kind": "login_failure"},
    {"kind": "expired_token", "cured_by_login": False},
    {"kind": "huge_body", "bytes": 2 * MIB},
    {"kind": "gzip_bomb", "bytes": 2 * MIB},
    *(
        {"kind": kind}
        for kind in (
            "reset", "cut", "html", "bom", "big_int", "data_null", "deep_json", "duplicate_keys",
            "invalid_json", "lone_surrogate", "nan", "truncated_json", "wrong_charset", "wrong_type",
        )
    ),
]  # fmt: skip


class Secrets:
    """All that must not be told of one user: of the world, and the tokens that come up meanwhile."""

    def __init__(self, world: World) -> None:
        self._world = world
        owned = world.simulator.truth(ANN)
        engagement = owned["engagements"][0]
        self._known = {
            CANARY,
            ANN,
            ANN.partition("@")[2],
            # In every name of every body of theirs.
            ANN.partition("@")[2].partition(".")[0],
            owned["password"],
            str(engagement["paas_engagement_id"]),
            str(engagement["ipc_engagement_id"]),
            world.simulator.url,
            world.simulator.url.partition("//")[2],
            "/portalservice",
            "/paasservice",
            "Bearer",
        }

    def told_in(self, *texts: str) -> list[str]:
        """Return the texts that tell one."""
        self._known |= {kept.token for kept in self._world.log_ins._kept.values()}
        found = [text for text in texts for secret in self._known if secret.lower() in text.lower()]
        return [text[:300] for text in found]


def texts_of(error: BaseException | None) -> Iterator[str]:
    """Yield all that an exception says, and all that hangs on it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        waiting += [each.__cause__, each.__context__]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with outage_world(user_ids=lambda user: ANN if user == USER else user) as made:
        yield made


def silent_logs(secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        told = (record.getMessage(), repr(record.args), record.exc_text or "", record.stack_info or "")
        assert secrets.told_in(*told) == [], record.name


@pytest.mark.parametrize("fault", FAULTS, ids=keys_of)
async def test_nothing_is_told(world: World, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Neither with nothing held, nor served stale, nor by force, nor when the grace has ended."""
    caplog.set_level(logging.DEBUG)
    secrets = Secrets(world)
    session = world.cache.session(USER)
    told: list[str] = []

    async def ask(**options: Any) -> None:
        for resource in (*KEPT, paas_engagement_id):
            try:
                look = await session.lookup(resource, **options)
            except CoatcheckError as error:
                told.extend(texts_of(error))
            else:
                told.append(repr(look))

    world.fail(fault)
    await ask()
    world.fail()
    await world.clock.advance(301)
    await session.warm()
    world.fail(fault)
    await ask(force_refresh=True)
    world.clock.jump(25 * HOUR)
    await ask()
    for name in ("get_engagement_id", "get_endpoints", "get_zones_list", "list_vms", "list_clusters"):
        answer = await getattr(world.service, name)(user_id=USER)
        if isinstance(answer, dict) and not answer["success"]:
            told.append(repr(answer))
    world.clock.jump(24 * HOUR)
    await ask()

    await world.cache.settled()
    assert world.events
    told += [repr(event) for event in world.events]
    told += [
        repr(each)
        for each in (
            world.cache, world.service, world.client, world.client.breaker, world.client.cooldowns,
            world.client.retries, world.log_ins, session, world.cache.stats(), world.cache.stats(USER),
        )
    ]  # fmt: skip
    assert secrets.told_in(*told) == []
    silent_logs(secrets, caplog)


async def test_one_who_tells_is_found(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The control: what is looked for would be seen, in whatever it hides."""
    caplog.set_level(logging.DEBUG)
    secrets = Secrets(world)
    await world.cache.session(USER).warm()
    (kept,) = world.log_ins._kept.values()
    for secret in (USER, ANN, kept.token, world.simulator.url, world.right(ANN, paas_engagement_id)):
        assert secrets.told_in(f"it is {secret}.")
        error = KeyError("no")
        error.__context__ = ValueError(secret)
        assert secrets.told_in(*texts_of(error))
    assert not secrets.told_in("the upstream answered 503", BOB)
    logging.getLogger("coatcheck.x").debug("loading %s", USER)
    with pytest.raises(AssertionError):
        silent_logs(secrets, caplog)
