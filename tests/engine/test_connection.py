"""Connect is called once for a session, and what it returned is closed when the session and its loads have ended."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Limits, Policy
from coatcheck.engine.connections import CALL_SECONDS, CLOSE_SECONDS
from coatcheck.errors import (
    AuthExpired,
    CacheClosed,
    LoaderBroke,
    LoadTimeout,
    SessionCleared,
    UpstreamUnreachable,
)
from coatcheck.testing import settle
from engine.world import Api, World

if TYPE_CHECKING:
    from coatcheck import SessionCache
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_a_session_connects_once(cache: SessionCache[Any], world: World) -> None:
    """Not before its first load; then all its loads, also those at once, share the object."""
    session = cache.session("ann")
    session.peek(world.account)
    assert [] == world.connected
    await session.warm()
    await session.get(world.account, force_refresh=True)
    assert ["ann"] == world.connected


@pytest.mark.parametrize("kind", ["plain", "coroutine", "future"])
async def test_connect_may_answer_at_once_or_be_awaited(
    make_cache: MakeCache, world: World, kind: str
) -> None:
    """It returns the object, or something to await for it."""

    async def connecting(user: str) -> Api:
        return world.connect(user)

    def connect(user: str) -> Any:
        if kind == "plain":
            return world.connect(user)
        return connecting(user) if kind == "coroutine" else asyncio.ensure_future(connecting(user))

    session = make_cache(world, connect=connect).session("ann")
    assert "ann has 1" == await session.get(world.item, number=1)
    assert ["ann"] == world.connected


async def test_a_clear_drops_the_connection(cache: SessionCache[Any], world: World) -> None:
    """Credentials go with the session; the next one connects anew."""
    session = cache.session("ann")
    await session.get(world.account)
    await session.clear()
    await settle()
    assert 1 == world.apis[0].closed
    await session.get(world.account)
    assert ["ann", "ann"] == world.connected
    assert 0 == world.apis[1].closed


async def test_a_connection_is_closed_only_after_its_loads_have_ended(
    cache: SessionCache[Any], world: World
) -> None:
    """A load in flight across a clear keeps what it works with, and the new session has its own."""
    gates = [world.hold(name) for name in ("account", "notes")]
    session = cache.session("ann")
    getting = [asyncio.create_task(session.get(resource)) for resource in (world.account, world.notes)]
    loads = [await gate.hold() for gate in gates]
    await session.clear()
    await settle()
    assert 0 == world.apis[0].closed
    await loads[0].succeed(1)
    assert 0 == world.apis[0].closed
    await loads[1].succeed([])
    await asyncio.gather(*getting)
    await settle()
    assert 1 == world.apis[0].closed


async def test_a_connection_is_closed_after_the_deadline_of_a_load_that_does_not_end(
    cache: SessionCache[Any], world: World, clock: FakeClock
) -> None:
    """The deadline ends a load, whatever its loader does."""
    gate = world.hold("account")
    getting = asyncio.create_task(cache.session("ann").get(world.account))
    await gate.hold()
    await cache.clear("ann")
    await clock.advance(29)
    assert 0 == world.apis[0].closed
    await clock.advance(1)
    assert 1 == world.apis[0].closed
    with pytest.raises(LoadTimeout):
        await getting


async def test_eviction_drops_the_connection(make_cache: MakeCache, world: World) -> None:
    """Every way out of the memory is the same."""
    cache = make_cache(world, limits=Limits(max_sessions=1))
    for user in ("ann", "bob"):
        await cache.session(user).get(world.account)
    await settle()
    assert [1, 0] == [api.closed for api in world.apis]


@pytest.mark.parametrize("error", [AuthExpired("no"), UpstreamUnreachable("no"), KeyError("bug")], ids=repr)
async def test_a_failing_connect_fails_the_load_and_is_tried_again(
    make_cache: MakeCache, world: World, error: Exception
) -> None:
    """Its error is the load's; no loader is called; the next load connects anew."""
    failing = [error]

    async def connect(user: str) -> Api:
        if failing:
            raise failing.pop()
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    with pytest.raises(type(error)):
        await cache.session("ann").get(world.item, number=1)
    assert [] == world.calls
    assert 0 == cache.stats().total.loads
    assert 1 == await cache.session("ann").get(world.account)


async def test_an_unreachable_log_in_is_hidden_by_a_stale_value(
    make_cache: MakeCache, clock: FakeClock
) -> None:
    """To a caller it is the same whether the upstream or its log-in is away."""
    world = World(default=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100)))

    def connect(user: str) -> Any:
        raise UpstreamUnreachable("no")

    cache = make_cache(world, connect=connect)
    await cache.session("ann").put(world.account, 1)
    await clock.advance(150)
    assert (await cache.session("ann").lookup(world.account)).stale


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit])
async def test_a_connect_that_raises_no_ordinary_exception_breaks_its_loads_only(
    make_cache: MakeCache, world: World, kind: type[BaseException]
) -> None:
    """All who wait for it hear of it as an error of their load."""

    async def connect(user: str) -> Api:
        raise kind

    cache = make_cache(world, connect=connect)
    session = cache.session("ann")
    results = await asyncio.gather(
        session.get(world.account), session.get(world.notes), return_exceptions=True
    )
    assert [LoaderBroke, LoaderBroke] == [type(result) for result in results]


async def test_a_connect_that_hangs_is_given_up_at_a_loads_deadline(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """Everybody who waits for it gets LoadTimeout, none a foreign cancellation; the next load connects anew."""
    hanging = [asyncio.Event()]

    async def connect(user: str) -> Api:
        if hanging:
            await hanging.pop().wait()
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    session = cache.session("ann")
    first = asyncio.create_task(session.get(world.account))
    await clock.advance(29)
    second = asyncio.create_task(session.get(world.notes))
    called = asyncio.create_task(session.call(_name_of))
    await clock.advance(1)
    for task in (first, second, called):
        with pytest.raises(LoadTimeout):
            await task
    assert [] == world.calls
    assert 1 == await session.get(world.account)
    assert ["ann"] == world.connected


async def _name_of(api: Api) -> str:
    return api.user


async def test_a_connect_that_takes_no_notice_is_closed_when_it_answers_at_last(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """What it brings after it was given up is used by nobody, and does not keep the cache from closing."""
    late = asyncio.Event()

    async def connect(user: str) -> Api:
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                continue
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    getting = asyncio.create_task(cache.session("ann").get(world.account))
    await clock.advance(30)
    with pytest.raises(LoadTimeout):
        await getting
    await cache.aclose()
    late.set()
    await settle()
    assert [1] == [api.closed for api in world.apis]
    assert [] == world.calls


async def test_closing_the_cache_closes_every_connection(make_cache: MakeCache, world: World) -> None:
    """`async with` ends all sessions; whoever asks later is told that the cache is closed."""
    async with make_cache(world) as cache:
        for user in ("ann", "bob"):
            await cache.session(user).get(world.account)
    assert [1, 1] == [api.closed for api in world.apis]
    session = cache.session("ann")
    for call in (
        session.get(world.account), session.lookup(world.account), session.put(world.account, 1), session.clear(),
        session.invalidate(world.account), session.warm(), session.get_many(world.account), cache.clear("ann"),
        cache.clear_all(), cache.invalidate(world.account), session.call(_name_of),
    ):  # fmt: skip
        with pytest.raises(CacheClosed):
            await call
    with pytest.raises(CacheClosed):
        session.peek(world.account)
    with pytest.raises(CacheClosed):
        async with cache:
            pass
    await cache.aclose()


async def test_closing_the_cache_ends_loads_under_way(make_cache: MakeCache, world: World) -> None:
    """Callers that wait get CacheClosed, whatever they wait for: a load, the next forced load, a slot or a log-in."""
    cache = make_cache(world, limits=Limits(max_loads=1))
    gate = world.hold("account")
    session = cache.session("ann")
    waiting: list[asyncio.Task[Any]] = []
    waiting.append(asyncio.create_task(session.get(world.account, force_refresh=True)))
    await gate.hold()
    waiting.append(asyncio.create_task(session.get(world.account, force_refresh=True)))
    waiting.append(asyncio.create_task(session.get(world.hosts)))
    waiting.append(asyncio.create_task(cache.session("bob").get(world.item, number=1)))
    await settle()
    await cache.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [CacheClosed] * 4 == [type(result) for result in results]
    assert ["ann"] == world.connected
    assert [1] == [api.closed for api in world.apis]


async def test_a_cache_that_was_never_used_can_be_closed(make_cache: MakeCache, world: World) -> None:
    """Nothing happens before the first use, so nothing is to be undone."""
    async with make_cache(world):
        pass
    assert [] == world.connected


@pytest.mark.parametrize("error", [ValueError("secret of ann"), SystemExit()], ids=repr)
async def test_a_connection_that_fails_to_close_is_logged_by_kind(
    make_cache: MakeCache, world: World, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """The session is gone; there is nobody to raise it to, and its text is nobody's business."""

    class Failing(Api):
        async def aclose(self) -> None:
            raise error

    caplog.set_level(logging.DEBUG)
    cache = make_cache(world, connect=Failing)
    await cache.session("ann").get(world.account)
    await cache.clear("ann")
    await settle()
    told = [record.getMessage() for record in caplog.records if record.name.startswith("coatcheck")]
    assert [f"closing a connection failed: {type(error).__name__}"] == told


async def test_a_connection_whose_closing_hangs_does_not_keep_the_cache_open(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    """It is waited for so long, then given up."""

    class Hanging(Api):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    cache = make_cache(world, connect=Hanging)
    await cache.session("ann").get(world.account)
    closing = asyncio.create_task(cache.aclose())
    await clock.advance(CLOSE_SECONDS - 0.5)
    assert not closing.done()
    await clock.advance(0.5)
    assert closing.done()
    await closing


async def test_an_object_without_aclose_needs_no_closing(make_cache: MakeCache, world: World) -> None:
    """Connect may return anything."""

    class Plain:
        def __init__(self, user: str) -> None:
            self.user = user

    cache = make_cache(world, connect=Plain)
    await cache.session("ann").get(world.account)
    await cache.clear("ann")
    assert 1 == await cache.session("ann").get(world.account)


async def test_a_live_call_uses_the_sessions_connection(cache: SessionCache[Any], world: World) -> None:
    """It shares the log-in, keeps and counts nothing, and raises what it raises."""
    session = cache.session("ann")
    await session.get(world.account)
    assert "ann" == await session.call(_name_of)
    assert ["ann"] == world.connected
    assert 1 == cache.stats().total.gets

    async def fails(api: Api) -> None:
        raise ValueError(api.user)

    with pytest.raises(ValueError, match="ann"):
        await session.call(fails)


async def test_a_live_call_keeps_its_connection_open_across_a_clear(
    cache: SessionCache[Any], world: World
) -> None:
    """The object is closed when the call has ended."""
    going_on = asyncio.Event()

    async def work(api: Api) -> int:
        await going_on.wait()
        return api.closed

    calling = asyncio.create_task(cache.session("ann").call(work))
    await settle()
    await cache.clear("ann")
    await settle()
    assert 0 == world.apis[0].closed
    going_on.set()
    assert 0 == await calling
    await settle()
    assert 1 == world.apis[0].closed


async def test_a_live_call_that_is_not_connected_yet_ends_with_the_session(
    make_cache: MakeCache, world: World
) -> None:
    """A clear during its log-in reaches it."""
    logging_in = asyncio.Event()

    async def connect(user: str) -> Api:
        await logging_in.wait()
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    calling = asyncio.create_task(cache.session("ann").call(_name_of))
    await settle()
    await cache.clear("ann")
    with pytest.raises(SessionCleared):
        await calling
    logging_in.set()
    await settle()
    assert [] == world.apis


async def test_a_live_call_does_not_wait_for_a_connect_that_never_ends(
    make_cache: MakeCache, world: World, clock: FakeClock
) -> None:
    asked: list[str] = []

    async def connect(user: str) -> Any:
        asked.append(user)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return world.connect(user)

    cache = make_cache(world, connect=connect)
    calling = asyncio.create_task(cache.session("ann").call(_name_of))
    await settle()
    await clock.advance(CALL_SECONDS)
    with pytest.raises(LoadTimeout):
        await calling
    # The next asks anew.
    assert "ann" == await cache.session("ann").call(_name_of)
