"""The blocking face: hits in the thread that asks, loads in a thread of the cache's own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import signal
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Policy, SyncCache, SyncSession
from coatcheck.errors import (
    CacheClosed,
    CatalogError,
    InvalidKey,
    LoaderBroke,
    MissingArgument,
    PolicyError,
    ReentrantLoad,
    SessionCleared,
    UnknownArgument,
    UpstreamFailed,
    WouldBlockLoop,
)
from coatcheck.testing import FakeClock
from engine.conftest import beneath_of, memory_only, on_stores
from engine.threads import PATIENCE, Api, Upstream, conserved, meet, result, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

pytestmark = on_stores
beneath = beneath_of("memory", "bare")

ANN = "ann@example.com"
BOB = "bob@example.com"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def cache(upstream: Upstream) -> Iterator[SyncCache[Api]]:
    with SyncCache(upstream.catalog, connect=upstream.connect) as cache:
        yield cache


@pytest.fixture
def session(cache: SyncCache[Api]) -> SyncSession:
    return cache.session(ANN)


def thread_of(cache: SyncCache[Any]) -> threading.Thread:
    thread = cache._portal._thread
    assert thread is not None
    return thread


class Interrupted(BaseException):
    """What a signal raises in the main thread, as a KeyboardInterrupt."""


# -- its thread -------------------------------------------------------------------------------------------------------


# A SQLite store has its threads from the moment when it is made.
@memory_only
def test_nothing_begins_before_the_first_load(upstream: Upstream) -> None:
    before = threading.active_count()
    with SyncCache(upstream.catalog, connect=upstream.connect) as cache:
        session = cache.session(ANN)
        assert session.peek(upstream.account) is None
        assert () == cache.users()
        assert 0 == cache.stats().total.gets
        cache.set_policy(upstream.account, Policy())
        assert before == threading.active_count()

        session.get(upstream.account)
        assert before + 1 == threading.active_count()
        thread = thread_of(cache)
        assert thread.daemon
        assert "coatcheck" == thread.name

    assert not thread.is_alive()


def test_loads_run_in_the_cache_s_thread_and_hits_in_the_caller_s(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    assert (1, 1) == (session.get(upstream.account), session.get(upstream.account))
    (call,) = upstream.calls
    assert thread_of(cache).ident == call.thread
    assert (1, 1) == (cache.stats().total.misses, cache.stats().total.hits)


def test_a_cache_that_nobody_has_any_more_ends_its_thread(upstream: Upstream) -> None:
    cache = SyncCache(upstream.catalog, connect=upstream.connect)
    session = cache.session(ANN)
    session.get(upstream.account)
    thread = thread_of(cache)

    del cache
    gc.collect()
    assert 2 == session.get(upstream.account, force_refresh=True)

    del session
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_loop_that_something_ended_is_followed_by_another(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    session.get(upstream.account)
    thread = thread_of(cache)
    assert cache._portal._stop is not None
    cache._portal._stop()
    thread.join(PATIENCE)

    assert 1 == session.get(upstream.account)
    assert 2 == session.get(upstream.account, force_refresh=True)
    assert thread is not thread_of(cache)


# -- the calls --------------------------------------------------------------------------------------------------------


def test_every_call_does_what_its_awaited_twin_does(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    assert (f"{ANN}/10/all",) == session.get(upstream.zones)
    assert (f"{ANN}/10/all",) == session.get(upstream.zones)
    assert (f"{ANN}/7/some",) == session.get(upstream.zones, project=7, kind="some")
    assert (f"{ANN}/20/all",) == session.get(upstream.zones, force_refresh=True, deep=True)
    assert 2 == session.get(upstream.account, max_age=timedelta(hours=1))
    assert 3 == session.get(upstream.account, max_age=timedelta(0))

    looked = session.lookup(upstream.account)
    assert (3, "hit", b"3") == (looked.value, looked.outcome.value, looked.body)
    assert "miss" == session.lookup(upstream.account, force_refresh=True).outcome.value
    peeked = session.peek(upstream.account)
    assert peeked is not None
    assert 4 == peeked.value

    session.put(upstream.account, 5)
    assert 50 == session.get(upstream.project)
    session.put(upstream.zones, ("mine",), project=50)
    assert (5, ("mine",), [1, 2]) == session.get_many(upstream.account, upstream.zones, upstream.notes)
    session.invalidate(upstream.zones, project=50)
    assert (f"{ANN}/50/all",) == session.get(upstream.zones)
    session.invalidate(upstream.account)
    assert 5 == session.get(upstream.account)

    assert ANN == session.call(lambda api: asyncio.sleep(0, api.user))
    assert session.clear().durable
    assert session.peek(upstream.account) is None
    session.warm()
    assert session.peek(upstream.zones) is not None


def test_the_calls_of_the_cache_itself(cache: SyncCache[Api], upstream: Upstream) -> None:
    for user in (ANN, BOB):
        cache.session(user).warm()
    assert {ANN, BOB} == set(cache.users())
    assert 4 == cache.stats(ANN).total.loads + cache.stats(BOB).total.loads - 2
    assert 2 == cache.stats().sessions

    cache.invalidate(upstream.account)
    assert cache.session(ANN).peek(upstream.account) is None
    assert cache.clear(ANN).durable
    assert (BOB,) == cache.users()
    assert cache.clear_all().durable
    assert () == cache.users()

    shorter = Policy(ttl=timedelta(minutes=1))
    cache.set_policies({upstream.account: shorter, upstream.notes: shorter})
    assert shorter == cache.policy(upstream.account) == cache.policy(upstream.notes)
    assert "<SyncCache threads: 0 sessions>" == repr(cache)


def test_what_is_wrong_with_a_call_is_raised_where_it_is_made(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    def fail(_number: int) -> int:
        raise UpstreamFailed("out of order", status=503)

    upstream.answer = fail
    with pytest.raises(UpstreamFailed, match="out of order"):
        session.get(upstream.account)
    with pytest.raises(UpstreamFailed):
        session.get_many(upstream.notes, upstream.zones)
    with pytest.raises(UnknownArgument):
        session.get(upstream.account, number=1)
    with pytest.raises(CatalogError):
        session.put(upstream.project, 1)
    with pytest.raises(PolicyError):
        cache.set_policy(upstream.project, Policy())
    with pytest.raises(InvalidKey):
        cache.session("")
    with pytest.raises(InvalidKey):
        cache.clear("")


def test_a_timeout_that_a_loader_raises_is_its_own(upstream: Upstream, session: SyncSession) -> None:
    def fail(_number: int) -> int:
        raise TimeoutError("its own")

    upstream.answer = fail
    with pytest.raises(TimeoutError, match="its own"):
        session.get(upstream.account)


def test_a_missing_argument_is_told_of(upstream: Upstream) -> None:
    @upstream.catalog.resource
    async def item(_api: Api, number: int) -> int:
        return number

    with SyncCache(upstream.catalog, connect=upstream.connect) as cache:
        with pytest.raises(MissingArgument, match="pass number="):
            cache.session(ANN).get(item)
        with pytest.raises(MissingArgument, match="get_many takes none: use get"):
            cache.session(ANN).get_many(upstream.account, item)
        with pytest.raises(MissingArgument, match="peek takes none: use lookup"):
            cache.session(ANN).peek(item)
        assert 3 == cache.session(ANN).get(item, number=3)


def test_a_cache_that_is_not_enabled_keeps_nothing(upstream: Upstream) -> None:
    with SyncCache(upstream.catalog, connect=upstream.connect, enabled=False) as cache:
        assert [1, 2] == [cache.session(ANN).get(upstream.account) for _ in range(2)]


# There is no cache in it.
@memory_only
def test_the_options_of_a_get_are_shown_to_readers() -> None:
    shown = inspect.signature(SyncSession.get)
    assert ["self", "resource", "force_refresh", "deep", "max_age", "arguments"] == list(shown.parameters)
    assert shown.return_annotation == "T"


def test_a_value_that_can_be_changed_is_each_caller_s_own(upstream: Upstream, session: SyncSession) -> None:
    session.get(upstream.notes).append(3)
    session.get(upstream.notes).append(4)
    assert [1, 2] == session.get(upstream.notes)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_that_ask_at_once_cost_one_load(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    threads = 8
    gate = upstream.hold_first()
    start = threading.Barrier(threads + 1)

    def get() -> int:
        start.wait(PATIENCE)
        return session.get(upstream.account)

    getting = [spawn(get) for _ in range(threads)]
    start.wait(PATIENCE)
    meet(upstream.begun)
    gate.open()

    assert [-1] * threads == [result(each) for each in getting]
    stats = cache.stats().resources["account"]
    assert (1, threads, 1) == (len(upstream.calls), stats.gets, stats.misses)


def test_hits_are_served_while_the_cache_s_thread_is_blocked(
    upstream: Upstream, cache: SyncCache[Api], session: SyncSession
) -> None:
    blocked, over = threading.Event(), threading.Event()
    session.get_many(upstream.zones, upstream.notes)

    def block(number: int) -> int:
        blocked.set()
        meet(over)
        return number

    upstream.answer = block
    other = spawn(lambda: cache.session(BOB).get(upstream.account))
    meet(blocked)
    try:
        for _ in range(2):
            assert 1 == session.get(upstream.account)
            assert (f"{ANN}/10/all",) == session.get(upstream.zones)
            assert (f"{ANN}/10/all",) == session.get(upstream.zones, kind="all", project=10)
            assert (1, 10, [1, 2]) == session.get_many(upstream.account, upstream.project, upstream.notes)
            assert "hit" == session.lookup(upstream.zones).outcome.value
            assert session.peek(upstream.zones) is not None
    finally:
        over.set()
    assert 2 == result(other)


def test_gets_of_many_threads_are_counted_exactly(cache: SyncCache[Api], upstream: Upstream) -> None:
    threads, rounds = 4, 500
    start = threading.Barrier(threads)

    def many(thread: int) -> None:
        session = cache.session((ANN, BOB)[thread % 2])
        start.wait(PATIENCE)
        for number in range(rounds):
            session.get(upstream.account)
            session.get(upstream.zones, kind=f"{number % 5}")
            if number % 50 == 0:
                session.get(upstream.notes, force_refresh=True)
            else:
                session.lookup(upstream.notes)

    for each in [spawn(lambda thread=thread: many(thread)) for thread in range(threads)]:  # type: ignore[misc]
        result(each)

    stats = cache.stats()
    for name in ("account", "zones", "notes"):
        each_resource = stats.resources[name]
        assert threads * rounds == each_resource.gets
        assert conserved(each_resource)
        assert each_resource.loads == sum(each_resource.loads_by_end.values())
        users = [cache.stats(user).resources[name] for user in (ANN, BOB)]
        assert (each_resource.gets, each_resource.hits) == (
            sum(user.gets for user in users),
            sum(user.hits for user in users),
        )
    assert (2, 10) == (stats.resources["account"].loads, stats.resources["zones"].loads)


def test_a_hit_begins_the_refresh_that_is_due() -> None:
    clock = FakeClock()
    upstream = Upstream(Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    with SyncCache(upstream.catalog, connect=upstream.connect, clock=clock) as cache:
        session = cache.session(ANN)
        gate = upstream.hold_first()
        upstream.answer = lambda number: number if number == 1 else gate.passed()
        assert 1 == session.get(upstream.account)
        upstream.begun.clear()
        clock.jump(60)
        for _ in range(100):
            assert 1 == session.get(upstream.account)
        meet(upstream.begun)
        for _ in range(100):
            assert 1 == session.get(upstream.account)
        gate.open()
        cache._portal.wait(cache._cache.settled)

        assert -1 == session.get(upstream.account)
        stats = cache.stats().resources["account"]
        assert (2, 1, 201) == (stats.loads, stats.loads_by_cause["refresh"], stats.hits)


def test_hits_are_sampled(cache: SyncCache[Api], upstream: Upstream, session: SyncSession) -> None:
    for _ in range(5):
        session.get(upstream.account)
    assert 1 == cache.stats().resources["account"].hit_latency.count


def test_a_caller_that_is_interrupted_hurts_nobody(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    gate = upstream.hold_first()

    def interrupt(*_: object) -> None:
        raise Interrupted

    def strike() -> None:
        meet(upstream.begun)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        striking = spawn(strike)
        with pytest.raises(Interrupted):
            session.get(upstream.account)
        result(striking)
    finally:
        signal.signal(signal.SIGUSR1, before)
    other = spawn(lambda: session.get(upstream.account))
    gate.open()

    assert -1 == result(other)
    assert -1 == session.get(upstream.account)
    assert 1 == len(upstream.calls)
    assert not gate.cancelled.is_set()
    stats = cache.stats().resources["account"]
    assert (3, 1, 0) == (stats.gets, stats.cancelled, stats.failed)
    assert conserved(stats)


def test_nothing_of_the_callers_context_reaches_a_loader(upstream: Upstream) -> None:
    principal: contextvars.ContextVar[str] = contextvars.ContextVar("principal", default="nobody")
    seen: list[str] = []

    def answer(number: int) -> int:
        seen.append(principal.get())
        return number

    def connect(user: str) -> Api:
        seen.append(principal.get())
        return upstream.connect(user)

    upstream.answer = answer
    principal.set("ann")
    with SyncCache(
        upstream.catalog, connect=connect, on_event=lambda _event: seen.append(principal.get())
    ) as cache:
        cache.session(ANN).get(upstream.account)
        cache.session(ANN).get(upstream.account, force_refresh=True)
        cache.session(ANN).clear()
        cache._portal.wait(lambda: asyncio.sleep(0))
    assert ["nobody"] * len(seen) == seen
    assert len(seen) >= 5


def test_a_session_cleared_while_a_forced_load_is_queued_tells_so(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    gate = upstream.hold_first()
    first = spawn(lambda: session.get(upstream.account, force_refresh=True))
    meet(upstream.begun)
    second = spawn(lambda: session.get(upstream.account, force_refresh=True))
    state = cache._cache._sessions.states[ANN]
    assert state.flights is not None
    while len(state.flights.all()) < 2:
        cache._portal.wait(lambda: asyncio.sleep(0))
    session.clear()
    gate.open()

    assert -1 == result(first)
    with pytest.raises(SessionCleared):
        result(second)


# -- where a loop runs ------------------------------------------------------------------------------------------------


def test_where_a_loop_runs_hits_are_served_and_all_else_is_refused(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    session.get(upstream.account)

    async def run() -> None:
        assert 1 == session.get(upstream.account)
        assert 10 == session.get(upstream.project)
        assert (1, 10) == session.get_many(upstream.account, upstream.project)
        assert session.peek(upstream.zones) is None
        for call in (
            lambda: session.get(upstream.zones),
            lambda: session.lookup(upstream.zones),
            lambda: session.get_many(upstream.account, upstream.zones),
            lambda: session.put(upstream.account, 1),
            lambda: session.invalidate(upstream.account),
            session.warm,
            session.clear,
            cache.clear_all,
            lambda: cache.clear(ANN),
            lambda: cache.invalidate(upstream.account),
        ):
            with pytest.raises(WouldBlockLoop, match="SessionCache"):
                call()

    asyncio.run(run())
    assert 0 == cache.stats().resources["zones"].gets


def test_a_cache_can_be_closed_where_a_loop_runs(cache: SyncCache[Api], upstream: Upstream) -> None:
    cache.session(ANN).get(upstream.account)

    async def run() -> None:
        cache.close()

    asyncio.run(run())
    assert not thread_of(cache).is_alive()


def test_a_loader_can_neither_block_on_its_own_cache_nor_close_it(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    calls: list[Any] = [lambda: session.get(upstream.notes), cache.close]
    upstream.answer = lambda number: calls[number - 1]()
    for _ in calls:
        with pytest.raises(WouldBlockLoop):
            session.get(upstream.account)


def test_a_loader_may_ask_from_a_thread(
    cache: SyncCache[Api], upstream: Upstream, session: SyncSession
) -> None:
    """Also for what it is loading itself, which is refused and no deadlock."""

    async def ask(resource: Any) -> int:
        return len(await asyncio.to_thread(lambda: session.get(resource)))

    upstream.answer = lambda number: ask((upstream.account, upstream.notes)[number - 1])
    with pytest.raises(ReentrantLoad):
        session.get(upstream.account)
    assert 2 == session.get(upstream.account)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_after_the_close_everything_raises(upstream: Upstream) -> None:
    cache = SyncCache(upstream.catalog, connect=upstream.connect)
    session = cache.session(ANN)
    session.get(upstream.zones)
    session.get(upstream.zones)
    cache.close()
    cache.close()

    for call in (
        lambda: session.get(upstream.zones),
        lambda: session.get(upstream.zones, force_refresh=True),
        lambda: cache.session(ANN).get(upstream.zones),
        lambda: session.lookup(upstream.zones),
        lambda: session.get_many(upstream.zones),
        lambda: session.peek(upstream.zones),
        lambda: session.put(upstream.account, 1),
        lambda: session.invalidate(upstream.account),
        session.warm,
        session.clear,
        cache.clear_all,
        cache.__enter__,
    ):
        with pytest.raises(CacheClosed):
            call()
        with pytest.raises(CacheClosed):
            result(spawn(call))
    assert [1] == [api.closed for api in upstream.apis]
    assert 1 == cache.stats().resources["account"].loads


# A SQLite store has its threads from the moment when it is made.
@memory_only
def test_closing_a_cache_that_was_never_used_begins_nothing(upstream: Upstream) -> None:
    before = threading.active_count()
    cache = SyncCache(upstream.catalog, connect=upstream.connect)
    cache.close()

    with pytest.raises(CacheClosed):
        cache.session(ANN).get(upstream.account)
    assert before == threading.active_count()


def test_all_who_wait_at_the_close_get_cache_closed(cache: SyncCache[Api], upstream: Upstream) -> None:
    upstream.hold_first()
    session = cache.session(ANN)
    waiters: list[Future[Any]] = [
        spawn(lambda: session.get(upstream.account, force_refresh=True)) for _ in range(4)
    ]
    waiters.append(spawn(lambda: session.get(upstream.zones)))
    meet(upstream.begun)
    # Close from several threads at once: each returns when it is closed.
    for each in [spawn(cache.close) for _ in range(3)]:
        result(each)

    assert not thread_of(cache).is_alive()
    for waiter in waiters:
        with pytest.raises(CacheClosed):
            result(waiter)
    assert conserved(cache.stats().total)


def test_a_close_does_not_wait_for_ever_for_a_loader_that_will_not_end(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.engine.sync.CLOSE_SECONDS", 0.01)
    over = threading.Event()

    async def stubborn() -> int:
        while not over.is_set():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue
        return 1

    upstream.answer = lambda _number: stubborn()
    cache = SyncCache(upstream.catalog, connect=upstream.connect)
    waiter = spawn(lambda: cache.session(ANN).get(upstream.account))
    meet(upstream.begun)
    cache.close()

    with pytest.raises(CacheClosed):
        result(waiter)
    assert 1 == cache.stats().abandoned_loads
    over.set()
    thread_of(cache).join(PATIENCE)
    assert not thread_of(cache).is_alive()


def test_a_cache_never_used_is_garbage(upstream: Upstream) -> None:
    gone = weakref.ref(SyncCache(upstream.catalog, connect=upstream.connect))
    gc.collect()
    assert gone() is None


def test_work_that_had_begun_when_its_loop_ended_is_not_begun_again(
    cache: SyncCache[Api], session: SyncSession
) -> None:
    begun: list[int] = []
    waits = threading.Event()

    async def work(api: Any) -> None:
        begun.append(1)
        waits.set()
        await asyncio.get_running_loop().create_future()

    calling = spawn(lambda: session.call(work))
    meet(waits)
    assert cache._portal._stop is not None
    cache._portal._stop()
    with pytest.raises(LoaderBroke):
        result(calling)
    assert [1] == begun


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_work_that_ends_the_program_ends_nobody_elses(
    cache: SyncCache[Api], upstream: Upstream, end: type[BaseException]
) -> None:
    """It is raised to who asked for that work, in the thread that did."""
    gate = upstream.hold_first()
    other = spawn(lambda: cache.session(BOB).get(upstream.account))
    meet(upstream.begun)

    async def work(api: Any) -> None:
        raise end

    with pytest.raises(end):
        cache.session(ANN).call(work)
    gate.open()
    assert -1 == result(other)
    assert 1 == len(upstream.calls)


def test_asyncio_is_shown_no_value(cache: SyncCache[Api], session: SyncSession, upstream: Upstream) -> None:
    """In debug mode it logs slow tasks, with what they returned or raised."""
    shown: list[str] = []

    async def secret(api: Any) -> str:
        return "CANARY"

    async def raises(api: Any) -> str:
        raise ValueError("CANARY")

    session.get(upstream.account)
    loop = cache._portal._loop
    assert loop is not None
    loop.set_task_factory(watching(shown))
    assert session.call(secret) == "CANARY"
    with pytest.raises(ValueError, match="CANARY"):
        session.call(raises)
    assert session.get(upstream.notes) == [1, 2]
    assert shown
    assert "CANARY" not in str(shown)
    assert "[1, 2]" not in str(shown)


def watching(shown: list[str]) -> Any:
    """Return a task factory that notes how tasks look when they have ended."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        task.add_done_callback(lambda ended: shown.append(repr(ended)))
        return task

    return factory
