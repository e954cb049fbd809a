"""One cache and several loops: in turn, in several threads, ended, stopped and closed under those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.engine import home as homes
from coatcheck.engine.cache import SessionCache
from coatcheck.engine.policy import Policy
from coatcheck.errors import CacheClosed, LoaderBroke, SessionCleared
from coatcheck.testing import FakeClock, FaultyStore, MemoryStore, settle
from engine.conftest import beneath_of, memory_only, on_stores
from engine.threads import (
    PATIENCE,
    Api,
    Upstream,
    conserved,
    hit,
    meet,
    reach,
    result,
    spawn,
    spawn_loop,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck.engine.events import Event

pytestmark = on_stores
beneath = beneath_of("memory", "bare")

ANN = "ann@example.com"
BOB = "bob@example.com"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def cache(upstream: Upstream) -> SessionCache[Api]:
    return SessionCache(upstream.catalog, connect=upstream.connect)


class Stopped:
    """A loop of this thread that a test runs and stops by hand."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def task(self, work: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(work)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def end(self) -> None:
        """End as ``asyncio.run`` does."""
        if self.loop.is_closed():
            return
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run(asyncio.wait(tasks))
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def close_under_its_tasks(self) -> list[asyncio.Task[Any]]:
        """Close the loop as if nothing ran on it; return what did."""
        tasks = list(asyncio.all_tasks(self.loop))
        for task in tasks:
            # asyncio would say of each that it was lost, which is true and not what is tested.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.loop.close()
        return tasks


@pytest.fixture
def stopped() -> Iterator[Stopped]:
    loop = Stopped()
    yield loop
    loop.end()


# -- one loop after the other ---------------------------------------------------------------------------------------


def test_what_one_run_loaded_the_next_finds_in_memory(cache: SessionCache[Api], upstream: Upstream) -> None:
    session = cache.session(ANN)

    async def run() -> tuple[str, ...]:
        return await session.get(upstream.zones)

    first = asyncio.run(run())

    assert first == asyncio.run(run())
    assert 1 == len(upstream.calls)
    assert 1 == cache.stats().resources["zones"].hits


def test_a_clear_that_another_loop_took_over_ends_on_the_loop_that_began_it(upstream: Upstream) -> None:
    store = FaultyStore(MemoryStore())
    store.slow(0.05, "clear")
    cache = SessionCache(upstream.catalog, connect=upstream.connect, store=store)
    former, present = Stopped(), Stopped()
    former.run(cache.session(ANN).get(upstream.zones))
    clearing = former.task(cache.session(ANN).clear())
    former.run(asyncio.sleep(0))
    present.run(cache.session(BOB).get(upstream.zones))

    # It is home again now, where the first attempt goes on beside the second.
    assert former.run(asyncio.wait_for(clearing, PATIENCE)).durable
    former.run(asyncio.sleep(0.2))

    stats = cache.stats().store
    assert stats is not None
    assert 0 == stats.distrusted_users
    former.run(cache.aclose())
    present.end()
    former.end()


def test_the_next_run_loads_on_its_own_loop_with_a_new_connection(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    session = cache.session(ANN)

    async def run() -> int:
        return await session.get(upstream.account, force_refresh=True)

    assert (1, 2) == (asyncio.run(run()), asyncio.run(run()))
    first, second = upstream.calls
    assert first.loop is not second.loop
    assert 2 == len(upstream.apis)


def test_a_load_that_its_run_left_behind_keeps_nothing_and_is_begun_anew(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    upstream.hold_first()
    session = cache.session(ANN)

    async def leave() -> asyncio.Task[int]:
        getting = asyncio.create_task(session.get(upstream.account))
        await until(lambda: len(upstream.calls) == 1)
        return getting

    async def get() -> int:
        return await session.get(upstream.account)

    left = asyncio.run(leave())

    assert left.cancelled()
    assert 2 == asyncio.run(get())
    stats = cache.stats().resources["account"]
    assert (1, 1) == (stats.cancelled, stats.misses)
    assert {"failed": 1, "stored": 1} == {end: n for end, n in stats.loads_by_end.items() if n}
    assert 0 == stats.loading


def test_a_load_that_ended_with_its_loop_is_no_failure_of_the_upstream(upstream: Upstream) -> None:
    """Nothing stale is served for its sake, and the next get tries at once."""
    clock = FakeClock()
    upstream = Upstream(Policy(ttl=timedelta(seconds=10), stale_if_error=timedelta(hours=1)))
    cache = SessionCache(upstream.catalog, connect=upstream.connect, clock=clock)
    session = cache.session(ANN)

    async def get() -> int:
        return await session.get(upstream.account)

    async def leave() -> None:
        getting = asyncio.create_task(session.get(upstream.account))
        await until(lambda: len(upstream.calls) == 2)
        assert not getting.done()

    assert 1 == asyncio.run(get())
    clock.jump(11)
    upstream.answer = lambda number: asyncio.sleep(3600) if number == 2 else number
    asyncio.run(leave())

    assert 3 == asyncio.run(get())


def test_a_waiter_whose_loop_was_stopped_asks_the_next_home(
    cache: SessionCache[Api], upstream: Upstream, stopped: Stopped
) -> None:
    """It gets what that one loaded, and not what the abandoned load would have brought."""
    gate = upstream.hold_first()
    session = cache.session(ANN)

    async def begin() -> None:
        await until(lambda: len(upstream.calls) == 1)

    async def elsewhere() -> int:
        return await session.get(upstream.account)

    waiter = stopped.task(session.get(upstream.account))
    stopped.run(begin())

    assert 2 == result(spawn_loop(elsewhere))
    assert 2 == stopped.run(waiter)
    assert gate.cancelled.is_set()
    assert conserved(cache.stats().total)
    assert 2 == cache.stats().total.gets


def test_a_waiter_whose_loop_was_stopped_visits_a_home_that_still_runs(
    cache: SessionCache[Api], upstream: Upstream, stopped: Stopped
) -> None:
    upstream.hold_first()
    session = cache.session(ANN)
    adopted, over = threading.Event(), threading.Event()

    async def begin() -> None:
        await until(lambda: len(upstream.calls) == 1)

    async def next_home() -> None:
        await cache.session(BOB).get(upstream.account)
        adopted.set()
        await reach(over)

    waiter = stopped.task(session.get(upstream.account))
    stopped.run(begin())
    lives = spawn_loop(next_home)
    meet(adopted)

    assert 3 == stopped.run(waiter)
    assert upstream.calls[1].loop is upstream.calls[2].loop
    over.set()
    result(lives)


def test_an_old_loop_that_runs_again_lands_nothing(
    cache: SessionCache[Api], upstream: Upstream, stopped: Stopped
) -> None:
    """Not even a loader that will not be cancelled brings its value in."""
    ended = threading.Event()

    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return -1

    upstream.answer = lambda number: stubborn() if number == 1 else number
    session = cache.session(ANN)
    adopted, over = threading.Event(), threading.Event()

    async def begin() -> None:
        await until(lambda: len(upstream.calls) == 1)

    async def next_home() -> int:
        value = await session.get(upstream.account)
        adopted.set()
        await reach(over)
        return value

    waiter = stopped.task(session.get(upstream.account))
    stopped.run(begin())
    lives = spawn_loop(next_home)
    meet(adopted)
    stopped.run(until(ended.is_set))
    stopped.run(settle())

    assert 2 == hit(session.get(upstream.account))
    assert 2 == stopped.run(waiter)
    assert 0 == cache.stats().abandoned_loads
    over.set()
    assert 2 == result(lives)
    stats = cache.stats().resources["account"]
    assert stats.loads == sum(stats.loads_by_end.values())


def test_a_run_that_ends_while_another_loop_moves_in_disturbs_nobody(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    """asyncio.run stops its loop, then runs it once more to cancel what is left: in between, it does not run."""
    gate = upstream.hold_first()
    session = cache.session(ANN)
    adopted, over = threading.Event(), threading.Event()

    async def leave() -> asyncio.Task[int]:
        getting = asyncio.create_task(session.get(upstream.account))
        await until(lambda: len(upstream.calls) == 1)
        return getting

    async def next_home() -> int:
        value = await session.get(upstream.account)
        adopted.set()
        await reach(over)
        return value + await session.get(upstream.account, force_refresh=True)

    with asyncio.Runner() as runner:
        left = runner.run(leave())
        lives = spawn_loop(next_home)
        meet(adopted)
    assert left.cancelled()
    assert gate.cancelled.is_set()
    over.set()
    assert 2 + 3 == result(lives)
    assert 0 == cache.stats().resources["account"].loading


# The loop stops in the turn in which the clear ends; with a store it ends in a later one.
@memory_only
def test_events_are_told_also_when_the_loop_has_stopped(upstream: Upstream, stopped: Stopped) -> None:
    told: list[Event] = []
    cache = SessionCache(upstream.catalog, connect=upstream.connect, on_event=told.append)

    async def leave() -> None:
        await cache.session(ANN).put(upstream.account, 1)
        stopped.loop.stop()
        await cache.clear(ANN)

    async def come() -> None:
        await cache.session(BOB).get(upstream.account)
        await cache.settled()

    left = stopped.task(leave())
    stopped.loop.run_forever()
    assert left.done()
    asyncio.run(come())

    assert ["SessionEnded", "LoadEnded"] == [type(event).__name__ for event in told]


def test_a_call_that_had_begun_when_its_loop_ended_is_not_begun_twice(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    begun = threading.Event()
    times: list[str] = []
    over = threading.Event()

    async def work(api: Api) -> None:
        times.append(api.user)
        begun.set()
        await asyncio.Event().wait()

    async def home() -> None:
        await cache.session(BOB).get(upstream.account)
        over.set()
        await reach(begun)

    async def visit() -> None:
        await reach(over)
        with pytest.raises(LoaderBroke):
            await cache.session(ANN).call(work)

    lives, visitor = spawn_loop(home), spawn_loop(visit)
    result(lives)
    result(visitor)
    assert [ANN] == times


# -- several loops at once --------------------------------------------------------------------------------------------


def test_a_miss_from_another_thread_is_loaded_at_home(cache: SessionCache[Api], upstream: Upstream) -> None:
    async def visit() -> tuple[int, tuple[str, ...], tuple[int, ...]]:
        session = cache.session(ANN)
        await session.put(upstream.notes, [7])
        await session.invalidate(upstream.notes)
        value = await session.get(upstream.account)
        looked = await session.lookup(upstream.zones)
        many = await session.get_many(upstream.account, upstream.project)
        await session.warm()
        await session.clear()
        await cache.clear_all()
        await cache.settled()
        return value, looked.value, many

    async def home() -> None:
        await cache.session(BOB).get(upstream.account)
        visited = spawn_loop(visit)
        assert (2, (f"{ANN}/20/all",), (2, 20)) == await asyncio.wrap_future(visited)

    asyncio.run(home())
    first, second, *_ = upstream.calls
    assert {first.thread} == {call.thread for call in upstream.calls}
    assert second.loop is first.loop


def test_a_loader_that_fails_at_home_fails_for_the_visitor(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    async def visit() -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await cache.session(ANN).get(upstream.account)

    def answer(number: int) -> int:
        if number == 2:
            raise TimeoutError("its own")
        return number

    async def home() -> None:
        upstream.answer = answer
        await cache.session(BOB).get(upstream.account)
        await asyncio.wrap_future(spawn_loop(visit))

    asyncio.run(home())
    assert 1 == cache.stats().resources["account"].failed


def test_hits_are_served_in_any_thread_while_home_is_blocked(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    blocked, over = threading.Event(), threading.Event()

    def block(number: int) -> int:
        if number == 2:
            blocked.set()
            meet(over)
        return number

    upstream.answer = block

    async def home() -> None:
        session = cache.session(ANN)
        await session.get_many(upstream.zones, upstream.notes)
        await cache.session(BOB).get(upstream.account)

    lives = spawn_loop(home)
    meet(blocked)
    session = cache.session(ANN)
    try:
        assert 1 == hit(session.get(upstream.account))
        assert 1 == hit(session.get(upstream.account))
        assert 10 == hit(session.get(upstream.project))
        assert (f"{ANN}/10/all",) == hit(session.get(upstream.zones))
        assert (f"{ANN}/10/all",) == hit(session.get(upstream.zones, kind="all"))
        assert [1, 2] == hit(session.get(upstream.notes))
        looked = session.peek(upstream.account)
        assert looked is not None
        assert 1 == looked.value
        assert "hit" == hit(session.lookup(upstream.zones)).outcome.value
        assert {ANN, BOB} == set(cache.users())
        assert conserved(cache.stats().total)
        cache.set_policy(upstream.account, Policy(ttl=timedelta(days=2)))
    finally:
        over.set()
    result(lives)


def test_a_foreign_waiter_whose_home_ends_becomes_home(cache: SessionCache[Api], upstream: Upstream) -> None:
    """asyncio.run cancels all that its loop runs; the visitor was not cancelled."""
    upstream.hold_first()
    over = threading.Event()

    async def home() -> None:
        await cache.session(BOB).get(upstream.notes)
        over.set()
        await reach(upstream.begun)

    async def visit() -> int:
        await reach(over)
        return await cache.session(ANN).get(upstream.account)

    lives, visitor = spawn_loop(home), spawn_loop(visit)
    result(lives)

    assert 2 == result(visitor)
    stats = cache.stats().resources["account"]
    assert (1, 1, 0) == (stats.gets, stats.misses, stats.cancelled)


@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_a_foreign_waiter_whose_home_falls_silent_becomes_home(
    cache: SessionCache[Api], upstream: Upstream, stopped: Stopped, closed: bool
) -> None:
    """A loop that is stopped, or closed under its tasks, tells nobody."""
    gate = upstream.hold_first()
    at_home = threading.Event()

    async def home() -> None:
        await cache.session(BOB).get(upstream.notes)
        at_home.set()
        await reach(upstream.begun)

    async def visit() -> int:
        await reach(at_home)
        return await cache.session(ANN).get(upstream.account)

    visitor = spawn_loop(visit)
    stopped.run(home())
    if closed:
        left = stopped.close_under_its_tasks()
        assert left

    assert 2 == result(visitor)
    assert not gate.cancelled.is_set()
    stats = cache.stats().resources["account"]
    assert (1, 1, 0) == (stats.gets, stats.misses, stats.cancelled)


def test_a_visitor_that_comes_when_home_has_been_closed_becomes_home(
    cache: SessionCache[Api], upstream: Upstream, stopped: Stopped
) -> None:
    async def get() -> int:
        return await cache.session(ANN).get(upstream.account, force_refresh=True)

    assert 1 == stopped.run(get())
    stopped.end()

    assert 2 == result(spawn_loop(get))


def test_cancelling_a_foreign_waiter_hurts_nobody(cache: SessionCache[Api], upstream: Upstream) -> None:
    gate = upstream.hold_first()
    at_home, cancelled = threading.Event(), threading.Event()
    coming: threading.Barrier = threading.Barrier(2)

    async def home() -> int:
        await cache.session(BOB).get(upstream.notes)
        at_home.set()
        await reach(cancelled)
        gate.open()
        return await cache.session(ANN).get(upstream.account)

    async def stays() -> int:
        await reach(at_home)
        getting = asyncio.create_task(cache.session(ANN).get(upstream.account))
        await reach(upstream.begun)
        coming.wait(60)
        return await getting

    async def leaves() -> None:
        await reach(upstream.begun)
        getting = asyncio.create_task(cache.session(ANN).get(upstream.account))
        await settle()
        coming.wait(60)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        cancelled.set()

    lives, stayer, leaver = spawn_loop(home), spawn_loop(stays), spawn_loop(leaves)

    result(leaver)
    assert (-1, -1) == (result(stayer), result(lives))
    assert 1 == len(upstream.calls)
    assert not gate.cancelled.is_set()
    stats = cache.stats().resources["account"]
    assert (3, 1, 1, 0) == (stats.gets, stats.cancelled, stats.misses, stats.failed)


def test_a_visitor_whose_own_loop_ends_leaves_quietly(cache: SessionCache[Api], upstream: Upstream) -> None:
    gate = upstream.hold_first()
    at_home, left = threading.Event(), threading.Event()

    async def home() -> int:
        await cache.session(BOB).get(upstream.notes)
        at_home.set()
        await reach(left)
        gate.open()
        return await cache.session(ANN).get(upstream.account)

    async def visit() -> asyncio.Task[int]:
        await reach(at_home)
        getting = asyncio.create_task(cache.session(ANN).get(upstream.account))
        await reach(upstream.begun)
        return getting

    lives, visitor = spawn_loop(home), spawn_loop(visit)

    assert result(visitor).cancelled()
    left.set()
    assert -1 == result(lives)


@pytest.mark.parametrize("threads", [2, 5])
def test_of_loops_that_begin_at_once_one_becomes_home(threads: int) -> None:
    """Whoever wins, each thing is loaded once."""
    for _ in range(20):
        upstream = Upstream()
        cache = SessionCache(upstream.catalog, connect=upstream.connect)
        start = threading.Barrier(threads)

        async def get(
            cache: SessionCache[Api] = cache, upstream: Upstream = upstream, start: threading.Barrier = start
        ) -> int:
            start.wait(60)
            return await cache.session(ANN).get(upstream.account)

        getting = [spawn_loop(get) for _ in range(threads)]

        assert [1] * threads == [result(each) for each in getting]
        stats = cache.stats().resources["account"]
        assert (threads, 1) == (stats.gets, stats.loads)
        assert 0 == stats.failed + stats.cancelled
        assert conserved(stats)


def test_homes_that_come_and_go_lose_nothing_and_mix_nothing() -> None:
    """Many short runs in several threads: each ends under the others' loads."""
    upstream = Upstream()
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    threads, rounds = 4, 25
    start = threading.Barrier(threads)

    async def get(user: str, number: int) -> None:
        session = cache.session(user)
        with contextlib.suppress(SessionCleared):
            assert 1 <= await session.get(upstream.account, force_refresh=number % 2 == 0)
        with contextlib.suppress(SessionCleared):
            (zone,) = await session.get(upstream.zones, kind=f"{number % 3}")
            owner, _, kind = zone.split("/")
            assert (user, f"{number % 3}") == (owner, kind)
        if number % 5 == 0:
            await session.clear()

    def many(thread: int) -> None:
        start.wait(60)
        for number in range(rounds):
            asyncio.run(get((ANN, BOB)[(thread + number) % 2], number))

    for each in [spawn(lambda thread=thread: many(thread)) for thread in range(threads)]:  # type: ignore[misc]
        result(each)

    stats = cache.stats()
    assert (threads * rounds,) * 2 == (stats.resources["account"].gets, stats.resources["zones"].gets)
    assert 0 == stats.total.cancelled
    assert 0 == stats.abandoned_loads
    for each_resource in stats.resources.values():
        assert conserved(each_resource)
        assert 0 == each_resource.loading
        assert each_resource.loads == sum(each_resource.loads_by_cause.values())
        assert each_resource.loads == sum(each_resource.loads_by_end.values())


def test_a_hit_in_another_thread_is_remembered_and_sampled(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    """Otherwise a program whose gets all come from threads would resolve each of them anew."""

    async def load() -> None:
        await cache.session(ANN).get(upstream.zones)

    asyncio.run(load())
    session = cache.session(ANN)
    hit(session.get(upstream.zones))
    hit(session.get(upstream.zones))

    stats = cache.stats().resources["zones"]
    assert (2, 1) == (stats.hits, stats.hit_latency.count)


def test_a_hit_in_another_thread_begins_the_refresh_that_is_due() -> None:
    clock = FakeClock()
    upstream = Upstream(Policy(ttl=timedelta(seconds=100), refresh_ahead=0.5, jitter=0))
    cache = SessionCache(upstream.catalog, connect=upstream.connect, clock=clock)
    ready, aged, over = threading.Event(), threading.Event(), threading.Event()
    again = threading.Event()

    def answer(number: int) -> int:
        again.set()
        return number

    async def home() -> int:
        session = cache.session(ANN)
        await session.get(upstream.account)
        upstream.answer = answer
        ready.set()
        await reach(aged)
        await reach(again)
        await cache.settled()
        await reach(over)
        return await session.get(upstream.account)

    lives = spawn_loop(home)
    meet(ready)
    clock.jump(60)
    session = cache.session(ANN)
    for _ in range(100):
        assert hit(session.get(upstream.account)) in {1, 2}
    aged.set()
    meet(again)
    over.set()

    assert 2 == result(lives)
    assert 2 == len(upstream.calls)
    assert 1 == cache.stats().resources["account"].loads_by_cause["refresh"]


def test_a_shorter_ttl_acts_also_on_what_is_being_resolved_meanwhile(upstream: Upstream) -> None:
    """set_policy may come from any thread: what a get files by the old rule must not outlive it."""
    clock = FakeClock()
    setting: list[Any] = []
    caches: list[SessionCache[Api]] = []
    shorter = Policy(ttl=timedelta(seconds=9))

    @upstream.catalog.derived
    def slow(account: int) -> int:
        if not setting:
            setting.append(spawn(lambda: caches[0].set_policy(upstream.account, shorter)))
            with contextlib.suppress(TimeoutError):
                # It either waits for this get, or acts on what this get has not filed yet.
                setting[0].result(0.05)
        return account

    cache = SessionCache(upstream.catalog, connect=upstream.connect, clock=clock)
    caches.append(cache)

    async def run() -> int:
        session = cache.session(ANN)
        await session.get(upstream.account)
        clock.jump(10)
        assert 1 == await session.get(slow)
        result(setting[0])
        return await session.get(slow)

    assert 2 == asyncio.run(run())


def test_hits_of_many_threads_are_counted_exactly(cache: SessionCache[Api], upstream: Upstream) -> None:
    threads, rounds = 4, 2_000
    start = threading.Barrier(threads)

    async def load() -> None:
        await cache.session(ANN).get(upstream.zones)
        await cache.session(ANN).get(upstream.notes)

    def many() -> None:
        session = cache.session(ANN)
        start.wait(60)
        for _ in range(rounds):
            hit(session.get(upstream.account))
            hit(session.get(upstream.zones, kind="all"))
            hit(session.lookup(upstream.notes))

    asyncio.run(load())
    before = cache.stats()
    for each in [spawn(many) for _ in range(threads)]:
        result(each)

    after, user = cache.stats(), cache.stats(ANN)
    for name in ("account", "zones", "notes"):
        assert threads * rounds == after.resources[name].hits - before.resources[name].hits
        assert after.resources[name].hits == user.resources[name].hits
    # Three calls for each: account; zones with all it depends on; notes.
    saved = threads * rounds * (1 + 2 + 1)
    assert saved == after.total.calls_saved - before.total.calls_saved


def test_nothing_of_the_callers_context_reaches_a_loader_or_an_observer(upstream: Upstream) -> None:
    principal: contextvars.ContextVar[str] = contextvars.ContextVar("principal", default="nobody")
    seen: list[str] = []

    def answer(number: int) -> int:
        seen.append(principal.get())
        return number

    def connect(user: str) -> Api:
        seen.append(principal.get())
        return upstream.connect(user)

    upstream.answer = answer
    cache = SessionCache(
        upstream.catalog, connect=connect, on_event=lambda _event: seen.append(principal.get())
    )
    at_home, over = threading.Event(), threading.Event()

    async def home() -> None:
        principal.set("bob")
        await cache.session(BOB).get(upstream.account)
        at_home.set()
        await reach(over)
        await cache.settled()

    async def visit() -> None:
        await reach(at_home)
        principal.set("ann")
        await cache.session(ANN).get(upstream.account)
        over.set()

    for each in (spawn_loop(home), spawn_loop(visit)):
        result(each)
    assert 6 == len(seen)
    assert {"nobody"} == set(seen)


# -- the end ------------------------------------------------------------------------------------------------------------


def test_after_the_close_everything_raises_in_every_thread(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    async def run() -> None:
        await cache.session(ANN).get(upstream.account)
        await cache.aclose()
        await cache.aclose()

    asyncio.run(run())
    session = cache.session(ANN)

    async def each_raises() -> None:
        for call in (
            session.get(upstream.account),
            session.get(upstream.account, force_refresh=True),
            session.lookup(upstream.zones),
            session.get_many(upstream.account),
            session.warm(),
            session.put(upstream.account, 1),
            session.invalidate(upstream.account),
            session.clear(),
            cache.clear_all(),
            cache.invalidate(upstream.account),
        ):
            with pytest.raises(CacheClosed):
                await call
        with pytest.raises(CacheClosed):
            session.peek(upstream.account)
        with pytest.raises(CacheClosed):
            cache.set_policy(upstream.account, Policy())
        with pytest.raises(CacheClosed):
            await cache.__aenter__()

    asyncio.run(each_raises())
    result(spawn_loop(each_raises))
    assert 0 == cache.stats().sessions


def test_all_who_wait_at_the_close_get_cache_closed(cache: SessionCache[Api], upstream: Upstream) -> None:
    """Those at home, those from other loops, and those whose forced load is queued behind another."""
    upstream.answer = lambda _number: asyncio.Event().wait()
    at_home, waits = threading.Event(), threading.Event()

    async def home() -> None:
        session = cache.session(ANN)
        own = asyncio.create_task(session.get(upstream.account, force_refresh=True))
        chained = asyncio.create_task(session.get(upstream.zones))
        await until(lambda: len(upstream.calls) == 1)
        queued = asyncio.create_task(session.get(upstream.account, force_refresh=True))
        await settle()
        upstream.begun.clear()
        at_home.set()
        await reach(waits)
        await cache.aclose()
        for waiter in (own, chained, queued):
            with pytest.raises(CacheClosed):
                await waiter

    async def visit() -> None:
        await reach(at_home)
        getting = asyncio.create_task(cache.session(BOB).get(upstream.account))
        await reach(upstream.begun)
        waits.set()
        with pytest.raises(CacheClosed):
            await getting

    lives, visitor = spawn_loop(home), spawn_loop(visit)
    result(visitor)
    result(lives)
    stats = cache.stats()
    assert 4 == stats.total.failed == stats.total.gets
    assert [1, 1] == [api.closed for api in upstream.apis]


def test_a_cache_can_be_closed_from_another_loop_and_after_its_home_has_ended(
    cache: SessionCache[Api], upstream: Upstream
) -> None:
    async def run() -> None:
        await cache.session(ANN).get(upstream.account)

    asyncio.run(run())
    asyncio.run(cache.aclose())

    assert () == cache.users()
    assert {"closed": 1} == {cause: n for cause, n in cache.stats().sessions_removed.items() if n}


async def test_a_cache_that_nobody_has_any_more_is_garbage() -> None:
    """Also while its loop runs: what it does now and then does not keep it."""
    upstream = Upstream()
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    await cache.session(ANN).get(upstream.zones)
    await cache.settled()
    await settle()
    gone, home = weakref.ref(cache), weakref.ref(cache._home)
    assert home() in set(homes._homes)

    del cache
    gc.collect()

    assert gone() is None
    assert home() is None


def test_caches_that_were_never_used_are_garbage() -> None:
    upstream = Upstream()
    gone = [weakref.ref(SessionCache(upstream.catalog, connect=upstream.connect)) for _ in range(3)]
    gc.collect()

    assert [None] * 3 == [each() for each in gone]
