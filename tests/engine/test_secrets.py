"""What a user holds shows in nothing that is printed, raised, logged or told."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Body, Catalog, Policy
from coatcheck.engine.flight import Failed
from coatcheck.errors import (
    BadUpstreamBody,
    CoatcheckError,
    InvalidKey,
    LoadTimeout,
    SessionCleared,
    WrongType,
)
from coatcheck.testing import GatedLoader, settle
from engine.test_single_flight import Holder

if TYPE_CHECKING:
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache

USER = "canary-user-91c"
ARGUMENT = "canary-argument-91c"
VALUE = "canary-value-91c"
BODY = "canary-body-91c"
TOKEN = "canary-token-91c"
CANARY = "canary"

RETRYING = Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100))


class Connection:
    def __init__(self, user: str) -> None:
        self.token = TOKEN


def vault() -> tuple[Catalog[Any], GatedLoader]:
    catalog: Catalog[Any] = Catalog("vault")
    gate = GatedLoader()

    @catalog.resource(RETRYING)
    async def secret(api: Any, name: str = "default") -> str:
        return VALUE

    @catalog.resource(RETRYING)
    async def papers(api: Any, secret: str) -> list[str]:
        return [VALUE, secret]

    @catalog.resource(RETRYING)
    async def letter(api: Any) -> Body[dict[str, str]]:
        return Body(b'{"text": "%s"}' % BODY.encode())

    @catalog.resource(RETRYING)
    async def torn(api: Any) -> Body[dict[str, int]]:
        return Body(b'{"text": "%s"}' % BODY.encode())

    @catalog.resource(RETRYING)
    async def mistyped(api: Any) -> int:
        return VALUE  # type: ignore[return-value]

    @catalog.resource(RETRYING)
    async def held(api: Any, name: str) -> str:
        return str(await gate(api))

    @catalog.derived
    def summary(secret: str) -> str:
        return secret

    return catalog, gate


def told(error: BaseException) -> str:
    """Return everything that printing, logging or formatting an exception shows."""
    shown = "".join(traceback.format_exception(error))
    each: BaseException | None = error
    while each is not None:
        shown += f"{each!s}{each!r}{each.args!r}{vars(each)!r}"
        each = each.__cause__ or each.__context__
    return shown


async def test_no_public_object_shows_what_it_holds(make_cache: MakeCache) -> None:
    """Each repr names kinds and figures only, at rest and with a load under way."""
    catalog, gate = vault()
    seen: list[Any] = []
    cache = make_cache(Holder(catalog), connect=Connection, on_event=seen.append)
    session = cache.session(USER)
    looks = [await session.lookup(catalog[name]) for name in ("secret", "papers", "letter", "summary")]
    looks.append(await session.lookup(catalog["secret"], name=ARGUMENT))
    peeked = session.peek(catalog["papers"])
    waiting = asyncio.create_task(session.get(catalog["held"], name=ARGUMENT))
    load = await gate.hold()
    state = cache._sessions.states[USER]
    flights = [] if state.flights is None else state.flights.all()
    objects: list[Any] = [
        cache, session, catalog, *catalog, *looks, peeked, state, *state.slots, *flights, *seen, Body(VALUE.encode()),
        cache.stats(), cache.stats(USER), await session.clear(), Failed(ValueError(VALUE)), *cache._loads._flights,
        cache._sessions, cache._loads, cache._walker, *cache._engine, Connection,
    ]  # fmt: skip
    for each in objects:
        assert CANARY not in f"{each!r}{each!s}", type(each)
        if hasattr(each, "__rich_repr__"):
            assert CANARY not in repr(list(each.__rich_repr__())), type(each)
    await load.succeed(VALUE)
    await waiting
    assert seen


async def test_no_error_of_ours_shows_what_it_is_about(make_cache: MakeCache, clock: FakeClock) -> None:
    """Neither text nor arguments nor attributes nor what they were raised from."""
    catalog, gate = vault()
    cache = make_cache(Holder(catalog), connect=Connection)
    session = cache.session(USER)
    errors: list[BaseException] = []
    wrong: Any = VALUE

    async def note(call: Any, *kinds: type[BaseException]) -> None:
        with pytest.raises(kinds) as caught:
            await call
        errors.append(caught.value)

    await note(session.get(catalog["torn"]), BadUpstreamBody)
    await note(session.get(catalog["mistyped"]), WrongType)
    await note(session.put(catalog["secret"], [VALUE], name=ARGUMENT), WrongType)
    await note(session.put(catalog["papers"], {VALUE: 1}, secret=ARGUMENT), WrongType)
    await note(session.get(catalog["secret"], name=[ARGUMENT]), InvalidKey)
    await note(session.get(catalog["secret"], name=ARGUMENT + "\ud800"), InvalidKey)
    await note(session.get(catalog["secret"], nom=ARGUMENT), CoatcheckError)
    await note(session.get(catalog["secret"], name=ARGUMENT, max_age=wrong), CoatcheckError)
    for user in (USER + "\0", USER + "\ud800", USER * 100, [USER], {USER: 1}):
        with pytest.raises(InvalidKey) as caught:
            cache.session(user)  # type: ignore[arg-type]
        errors.append(caught.value)
    with pytest.raises(CoatcheckError) as unknown:
        catalog[VALUE]
    errors.append(unknown.value)

    late = asyncio.create_task(session.get(catalog["held"], name=ARGUMENT))
    await gate.hold()
    await clock.advance(30)
    await note(late, LoadTimeout)
    running = asyncio.create_task(session.get(catalog["held"], name=ARGUMENT, force_refresh=True))
    load = await gate.hold()
    queued = asyncio.create_task(session.get(catalog["held"], name=ARGUMENT, force_refresh=True))
    await settle()
    await session.clear()
    await note(queued, SessionCleared)
    await load.succeed(VALUE)
    await running
    assert 16 == len(errors)
    for error in errors:
        assert isinstance(error, CoatcheckError)
        assert CANARY not in told(error).replace(__file__, ""), type(error)


async def test_nothing_is_logged_of_what_is_held(
    make_cache: MakeCache, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, of any logger, also asyncio's own in its debug mode, which prints tasks with their results."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    catalog, gate = vault()
    cache = make_cache(Holder(catalog), connect=Connection)
    session = cache.session(USER)
    try:
        for _ in range(2):
            for name in ("secret", "letter", "papers", "summary"):
                await session.get(catalog[name])
            await session.get_many(catalog["papers"], catalog["letter"], catalog["summary"])
            await session.get(catalog["secret"], name=ARGUMENT)
            for name in ("torn", "mistyped"):
                with pytest.raises(CoatcheckError):
                    await session.get(catalog[name])
            await clock.advance(120)
        waiting = asyncio.create_task(_discreet(session.get(catalog["held"], name=ARGUMENT)))
        load = await gate.hold()
        await load.fail(ValueError(VALUE))
        await waiting
        await session.warm()
    except CoatcheckError:
        pass  # warming meets the torn one
    finally:
        loop.set_debug(False)
    await cache.clear_all()
    await settle()
    assert caplog.records
    ours = [record for record in caplog.records if record.name == "asyncio"]
    for record in caplog.records:
        assert CANARY not in record.getMessage()
        assert CANARY not in (record.exc_text or "")
    assert ours
    caplog.clear()


async def _discreet(call: Any) -> None:
    with pytest.raises(ValueError, match=VALUE):
        await call
