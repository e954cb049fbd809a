from __future__ import annotations

import asyncio
import gc
import random
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import pytest_asyncio

from coatcheck.engine.cache import SessionCache
from coatcheck.testing import FakeClock, settle
from engine.invariants import check_at_rest
from engine.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class MakeCache(Protocol):
    """Makes a cache on a world; it is checked and closed after the test."""

    def __call__(self, world: World, **options: Any) -> SessionCache[Any]: ...


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world() -> World:
    return World()


@pytest_asyncio.fixture
async def make_cache(clock: FakeClock) -> AsyncIterator[MakeCache]:
    """Make caches whose bookkeeping is checked once more when the test has ended."""
    made: list[SessionCache[Any]] = []

    def make(world: World, **options: Any) -> SessionCache[Any]:
        given = {"connect": world.connect, "clock": clock, "rng": random.Random(7), **options}
        cache = SessionCache(world.catalog, **given)
        made.append(cache)
        return cache

    yield make
    await settle()
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
