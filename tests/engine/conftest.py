from __future__ import annotations

import asyncio
import gc
import itertools
import random
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import pytest_asyncio

from coatcheck.engine.cache import SessionCache
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import FakeClock, settle
from engine.blocking_store import Blocking, Disk, DiskFile, LoopThread
from engine.invariants import check_at_rest, check_in_step
from engine.recorded_store import FileDisk
from engine.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from coatcheck.engine.store import Store
    from engine.recorded_world import MakeDisk


def lying_on(*kinds: str) -> pytest.MarkDecorator:
    """Choose for one test what lies beneath; a line above it says why."""
    return pytest.mark.parametrize("beneath", kinds, indirect=True)


memory_only = lying_on("memory")
"""For a test of something that a store changes by design; a line above it says what that is."""

on_stores = pytest.mark.usefixtures("laid_beneath")
"""For files whose tests make their caches themselves: they, too, lie on what `beneath` says."""


class MakeCache(Protocol):
    """Makes a cache on a world; it is checked and closed after the test."""

    def __call__(self, world: World, **options: Any) -> SessionCache[Any]: ...


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def store_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.end()


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    return KeyRing.drawn()


def beneath_of(*kinds: str) -> Any:
    """Make the fixture that says what lies beneath the memory of a cache: every test runs on each of *kinds*.

    Nothing but ``memory``; a store in ``sqlite`` that takes no time as far as the loop can tell; or a ``bare`` one, as a
    program has it, for tests that count no turns of the loop.
    """

    @pytest.fixture(name="beneath", params=kinds)
    def beneath(request: pytest.FixtureRequest) -> str:
        kind: str = request.param
        return kind

    return beneath


beneath = beneath_of("memory", "sqlite")


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: FakeClock, ring: KeyRing) -> Callable[[], SQLiteStore]:
    """Make stores, each in a file of its own."""
    numbers = itertools.count()
    return lambda: SQLiteStore(tmp_path / f"sessions-{next(numbers)}.db", keys=ring, clock=clock)


@pytest.fixture
def laid_beneath(
    beneath: str, tmp_path: Path, ring: KeyRing, store_thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Lay a file of its own beneath every cache that is made with no store, also by a `SyncCache`."""
    made: list[SQLiteStore] = []
    init = SessionCache.__init__

    def on_a_file(cache: SessionCache[Any], *given: Any, **options: Any) -> None:
        if options.get("store") is None:
            store = SQLiteStore(tmp_path / f"beneath-{len(made)}.db", keys=ring, clock=options.get("clock"))
            made.append(store)
            options["store"] = store if beneath == "bare" else Blocking(store, store_thread)
        init(cache, *given, **options)

    if beneath != "memory":
        monkeypatch.setattr(SessionCache, "__init__", on_a_file)
    yield
    for each in made:
        store_thread.run(each.aclose())


@pytest.fixture
def disk(
    beneath: str, clock: FakeClock, sqlite_store: Callable[[], SQLiteStore], store_thread: LoopThread
) -> Iterator[Store]:
    """A store that outlives the caches on it: in memory, and in a file."""
    if beneath == "memory":
        yield Disk(clock=clock)
        return
    file = DiskFile(sqlite_store(), store_thread)
    yield file
    file.end()


@pytest.fixture
def file_disk(tmp_path: Path, store_thread: LoopThread, ring: KeyRing) -> MakeDisk:
    """Make disks for a recorded world: SQLite files, each in a folder of its own."""
    numbers = itertools.count()
    return lambda clock: FileDisk(
        clock, folder=tmp_path / f"disk-{next(numbers)}", ring=ring, thread=store_thread
    )


@pytest_asyncio.fixture
async def make_cache(
    clock: FakeClock, beneath: str, sqlite_store: Callable[[], SQLiteStore], store_thread: LoopThread
) -> AsyncIterator[MakeCache]:
    """Make caches whose bookkeeping is checked once more when the test has ended."""
    made: list[SessionCache[Any]] = []
    stores: list[tuple[SessionCache[Any], Store]] = []

    def make(world: World, **options: Any) -> SessionCache[Any]:
        given = {"connect": world.connect, "clock": clock, "rng": random.Random(7), **options}
        if beneath == "sqlite" and "store" not in given:
            given["store"] = Blocking(sqlite_store(), store_thread)
        cache = SessionCache(world.catalog, **given)
        made.append(cache)
        if "store" not in options and given.get("store") is not None:
            stores.append((cache, given["store"]))
        return cache

    yield make
    await settle()
    for cache, store in stores:
        if not cache._home.closed:
            await check_in_step(cache, store)
    for cache in made:
        check_at_rest(cache)
        await cache.aclose()
    await settle()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [] == left


@pytest.fixture
def cache(make_cache: MakeCache, world: World) -> SessionCache[Any]:
    return make_cache(world)


@pytest.fixture(autouse=True)
def _nothing_unretrieved(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No task's exception goes unseen, and no task is lost while it runs: asyncio tells of both in its log."""
    yield
    gc.collect()
    told = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    told += [record.getMessage() for record in caplog.get_records("teardown") if record.name == "asyncio"]
    assert [] == [message for message in told if not message.startswith("Using selector")]
