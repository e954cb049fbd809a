"""The way of an event to its observer: in order, in a thread of its own, at nobody's expense; and what it holds of a load."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import os
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Catalog, Policy, SessionCache, SyncCache
from coatcheck.attempts import attempts
from coatcheck.engine import events
from coatcheck.engine.events import EntryRemoved, Event, Feed, LoadEnded, SessionEnded
from coatcheck.engine.stats import Cause, End, Removal
from coatcheck.errors import Forbidden, InvalidKey, LoadTimeout, SettingsError, UpstreamUnreachable
from coatcheck.testing import FakeClock, GatedLoader, settle
from engine.conftest import memory_only, on_stores
from engine.threads import in_child

pytestmark = on_stores

ANN, BOB = "ann@example.com", "bob@example.com"
KEY = b"0123456789abcdef"
PATIENCE = 30.0

gone = EntryRemoved("account", Removal.INVALIDATED)


class Told:
    """A cache with an account and zones that depend on it, and all that it told."""

    def __init__(self, observer: Callable[[Event], object] | None = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.told: list[Event] = []
        self.fail: BaseException | None = None
        self.requests = 1
        self.gate: GatedLoader | None = None
        self.deadlines: list[float] = []
        catalog: Catalog[str] = Catalog("telling")
        policy = Policy(negative_ttl=timedelta(seconds=10), deadline=timedelta(seconds=30))

        @catalog.resource(policy)
        async def account(api: str) -> int:
            return await self.load()

        @catalog.resource(policy)
        async def zones(api: str, account: int) -> int:
            return await self.load()

        self.catalog, self.account, self.zones = catalog, account, zones
        self.cache = SessionCache(
            catalog, connect=str, clock=self.clock, on_event=observer or self.told.append, **options
        )

    async def load(self) -> int:
        counted = attempts.get()
        assert counted is not None
        self.deadlines.append(counted.deadline)
        counted.made += self.requests
        if self.gate is not None:
            await self.gate("api")
        if self.fail is not None:
            raise self.fail
        return 1

    async def get(self, resource: Any, **options: Any) -> None:
        with contextlib.suppress(Forbidden, UpstreamUnreachable, LoadTimeout):
            await self.cache.session(ANN).get(resource, **options)

    async def events(self) -> list[Event]:
        await self.cache.settled()
        told, self.told[:] = list(self.told), []
        return told


class Observer:
    """Notes what it is told and in which thread, and can be held up."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.threads: list[threading.Thread] = []
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def __call__(self, event: Event) -> None:
        self.threads.append(threading.current_thread())
        self.entered.set()
        assert self.let_go.wait(PATIENCE)
        self.told.append(event)

    async def reached(self) -> None:
        """Wait until it is being told something."""
        assert await asyncio.to_thread(self.entered.wait, PATIENCE)

    async def ended(self, timeout: float = PATIENCE) -> None:
        """Wait for the end of its last thread."""
        await asyncio.to_thread(self.threads[-1].join, timeout)
        assert not self.threads[-1].is_alive()


# -- what is told of a load -------------------------------------------------------------------------------------------


async def test_a_load_tells_the_requests_that_it_sent() -> None:
    """Counted by who sends them."""
    world = Told()
    async with world.cache as cache:
        world.gate = GatedLoader()
        world.requests = 3
        getting = asyncio.create_task(world.get(world.account))
        load = await world.gate.hold()
        await world.clock.advance(2.5)
        await load.succeed(None)
        await getting

        assert [
            LoadEnded(
                "account", Cause.GET, End.STORED, 2.5,
                attempts=3, ended=world.clock.wall(), pseudonym=cache.pseudonym(ANN),
            )
        ] == await world.events()  # fmt: skip


async def test_every_load_counts_its_own_attempts() -> None:
    """Also one that another one needs first, and one that a loader asks for."""
    world = Told()
    async with world.cache:
        await world.get(world.zones)
        await world.get(world.zones, force_refresh=True)

        loads = [event for event in await world.events() if isinstance(event, LoadEnded)]
        assert [("account", Cause.DEPENDENCY, 1), ("zones", Cause.GET, 1), ("zones", Cause.FORCE, 1)] == [
            (load.resource, load.cause, load.attempts) for load in loads
        ]


async def test_a_load_within_a_load_counts_its_own_attempts() -> None:
    catalog: Catalog[str] = Catalog("nested")
    told: list[Event] = []

    def sent(number: int) -> None:
        counted = attempts.get()
        assert counted is not None
        counted.made += number

    @catalog.resource
    async def inner(api: str) -> int:
        sent(10)
        return 1

    @catalog.resource
    async def outer(api: str) -> int:
        sent(1)
        await cache.session(ANN).get(inner)
        sent(1)
        return 1

    async with SessionCache(catalog, connect=str, on_event=told.append) as cache:
        await cache.session(ANN).get(outer)
        await cache.settled()
        assert [("inner", 10), ("outer", 2)] == [
            (event.resource, event.attempts) for event in told if isinstance(event, LoadEnded)
        ]


async def test_a_load_tells_those_who_send_requests_when_it_ends() -> None:
    world = Told()
    async with world.cache:
        began = world.clock.monotonic()
        await world.get(world.account)

        assert [began + 30] == world.deadlines
        assert attempts.get() is None


async def test_a_load_past_its_deadline_is_late() -> None:
    world = Told()
    async with world.cache:
        world.gate = GatedLoader()
        getting = asyncio.create_task(world.get(world.account))
        await world.gate.hold()
        await world.clock.advance(30)
        await getting

        (event,) = await world.events()
        assert isinstance(event, LoadEnded)
        assert (End.LATE, "LoadTimeout", 30.0) == (event.end, event.error, event.seconds)


# -- pseudonyms -------------------------------------------------------------------------------------------------------


async def test_a_pseudonym_can_be_computed_by_who_has_the_key() -> None:
    world = Told(pseudonym_key=KEY)
    async with world.cache as cache:
        await world.get(world.account)
        (event,) = await world.events()

        assert hmac.new(KEY, ANN.encode(), hashlib.sha256).hexdigest()[:16] == event.pseudonym
        assert cache.pseudonym(ANN) == event.pseudonym
        with pytest.raises(InvalidKey):
            cache.pseudonym("")


async def test_no_pseudonym_is_made_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Feed, "pseudonym", lambda self, user: made.append(user))
    world = Told()
    async with SessionCache(world.catalog, connect=str, clock=world.clock) as cache:
        await cache.session(ANN).get(world.zones)
        await cache.clear(ANN)
        await cache.settled()

    assert [] == made
    assert not cache._feed._attended.locked()


# There is no cache in it.
@memory_only
def test_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(SettingsError, match="16 random bytes"):
        Told(pseudonym_key=KEY[:-1])


async def test_no_event_holds_a_user() -> None:
    world = Told()
    async with world.cache:
        await world.get(world.zones)
        world.fail = Forbidden("403")
        await world.get(world.zones, force_refresh=True)
        await world.get(world.zones)
        await world.cache.clear(ANN)
        told = await world.events()

    assert len(told) > 3
    assert not any("ann" in repr(event) for event in told)


# -- at nobody's expense ----------------------------------------------------------------------------------------------


async def test_the_observer_is_called_in_one_thread_of_its_own_in_order() -> None:
    observer = Observer()
    world = Told(observer)
    async with world.cache as cache:
        for _ in range(50):
            await world.get(world.zones)
            await cache.clear(ANN)
        await cache.settled()

    assert 1 == len(set(observer.threads))
    assert threading.current_thread() not in observer.threads
    assert observer.threads[0].daemon
    assert ["account", "zones", None] * 50 == [getattr(event, "resource", None) for event in observer.told]


async def test_an_observer_that_is_held_up_holds_nobody_up() -> None:
    """Neither hits nor loads nor clears, and nothing is lost when it goes on."""
    observer = Observer()
    world = Told(observer)
    async with world.cache as cache:
        observer.let_go.clear()
        for _ in range(10):
            await world.get(world.zones)
            await world.get(world.zones)
            await cache.clear(ANN)
        await observer.reached()
        assert [] == observer.told
        observer.let_go.set()
        await cache.settled()

        assert 30 == len(observer.told)
        assert 0 == cache.stats().events_dropped


# There is no cache in it.
@memory_only
async def test_what_an_observer_is_too_slow_for_is_dropped_and_counted() -> None:
    observer = Observer()
    observer.let_go.clear()
    feed = Feed(observer, backlog=3)
    feed.send(gone)
    await observer.reached()
    for _ in range(10):
        feed.send(gone)

    assert 10 - 3 == feed.dropped
    observer.let_go.set()
    await feed.told()
    assert [gone] * 4 == observer.told
    await feed.close()


# -- the thread -------------------------------------------------------------------------------------------------------


async def test_the_thread_begins_with_the_first_event_and_ends_with_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LINGER_SECONDS", 10 * PATIENCE)
    observer = Observer()
    world = Told(observer)
    async with world.cache as cache:
        await cache.session(ANN).put(world.account, 1)
        await world.get(world.account)
        await cache.settled()
        assert not cache._feed._attended.locked()
        await cache.clear(ANN)
        await cache.settled()
        assert observer.threads[0].is_alive()

    await observer.ended()


# There is no cache in it.
@memory_only
async def test_the_thread_ends_when_nothing_happens_and_another_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)
    observer = Observer()
    feed = Feed(observer)
    for _ in range(100):
        feed.send(gone)
        await observer.reached()
        await observer.ended()
        observer.entered.clear()

    assert 100 == len(set(observer.threads))
    assert 100 == len(observer.told)


# There is no cache in it.
@memory_only
def test_no_event_is_lost_or_told_out_of_order_as_threads_end_and_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never by two at a time either."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)
    told: list[str] = []
    busy = threading.Lock()

    def observer(event: Event) -> None:
        assert busy.acquire(blocking=False)
        told.append(event.resource if isinstance(event, EntryRemoved) else "")
        busy.release()

    feed = Feed(observer)
    for number in range(2_000):
        feed.send(EntryRemoved(str(number), Removal.EXPIRED))
    asyncio.run(feed.told())

    assert [str(number) for number in range(2_000)] == told
    assert 0 == feed.failures


# There is no cache in it.
@memory_only
def test_what_is_sent_while_a_thread_gives_up_is_told_by_it() -> None:
    """The sender saw the queue attended and began no other."""
    observer = Observer()
    feed = Feed(observer)

    class Attended:
        """The lock, with a sender that comes between the last look at the queue and its release."""

        def __init__(self) -> None:
            self.lock = feed._attended
            self.sent = False

        def acquire(self, blocking: bool) -> bool:
            return self.lock.acquire(blocking=blocking)

        def locked(self) -> bool:
            return self.lock.locked()

        def release(self) -> None:
            if not self.sent:
                self.sent = True
                feed.send(gone)
            self.lock.release()

    feed._attended = Attended()  # type: ignore[assignment]
    assert feed._attended.acquire(blocking=False)
    feed._waiting.put(None)
    feed._waiting.put(None)
    feed._attend()

    assert [gone] == observer.told
    assert not feed._attended.locked()


# There is no cache in it.
@memory_only
async def test_events_wait_when_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Observer()
    feed = Feed(observer)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", refuse)
        feed.send(gone)
    assert [] == observer.told
    feed.send(gone)
    await feed.close()

    assert [gone, gone] == observer.told


async def test_a_close_tells_everything_first() -> None:
    told: list[Event] = []
    closing = threading.Event()

    def observer(event: Event) -> None:
        assert closing.wait(PATIENCE)
        told.append(event)

    world = Told(observer)
    async with world.cache as cache:
        for _ in range(20):
            await world.get(world.zones, force_refresh=True)
        # Called as the sessions end.
        cache._sessions._dismiss = lambda state: closing.set()

    assert [*[LoadEnded] * 21, SessionEnded] == [type(event) for event in told]


async def test_a_close_does_not_wait_for_an_observer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told the rest when it goes on."""
    monkeypatch.setattr(events, "PATIENCE_SECONDS", 0.0)
    observer = Observer()
    world = Told(observer)
    async with asyncio.timeout(PATIENCE / 2):
        async with world.cache:
            observer.let_go.clear()
            await world.get(world.zones)
            await observer.reached()

    assert [] == observer.told
    observer.let_go.set()
    await observer.ended()
    assert [LoadEnded, LoadEnded, SessionEnded] == [type(event) for event in observer.told]


async def test_a_cache_that_nobody_closed_is_garbage_also_if_its_observer_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)
    observer = Observer()
    world = Told(observer)
    observer.cache = world.cache  # type: ignore[attr-defined]
    await world.get(world.account)
    await world.cache.settled()
    await settle()
    await observer.ended()
    left = weakref.ref(world.cache)
    clock = world.clock  # what sleeps on it is not garbage
    del observer, world
    gc.collect()

    assert left() is None
    await clock.advance(0)


# On a file that was opened before the fork it is refused.
@memory_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_cache_that_is_first_used_in_a_forked_child_tells_its_observer_there() -> None:
    """Also when another cache of the process has a thread, which the child has not."""
    told: list[Event] = []
    used, unused = Told(), Told(told.append)

    async def use(world: Told) -> None:
        async with world.cache:
            await world.get(world.account)
            await world.cache.settled()

    async def begin() -> None:
        await used.get(used.account)
        await used.cache.settled()

    def child() -> None:
        asyncio.run(use(unused))
        assert [LoadEnded, SessionEnded] == [type(event) for event in told]

    asyncio.run(begin())
    assert 0 == in_child(child)
    assert [] == told
    asyncio.run(used.cache.aclose())


def test_the_blocking_face_tells_its_observer() -> None:
    world = Told()
    told: list[Event] = []
    with SyncCache(world.catalog, connect=str, on_event=told.append, pseudonym_key=KEY) as cache:
        cache.session(ANN).get(world.account)
        cache.settled()
        (event,) = told
        assert cache.pseudonym(ANN) == event.pseudonym

    assert [LoadEnded, SessionEnded] == [type(event) for event in told]
