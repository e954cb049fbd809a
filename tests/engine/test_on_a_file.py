"""A cache on a SQLite file to which things happen that happen to files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.entry import Outcome
from coatcheck.engine.repairs import LONGEST_PAUSE
from coatcheck.engine.stats import StoreStats
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import FakeClock
from engine.blocking_store import Blocking, LoopThread
from engine.conftest import MakeCache, memory_only
from engine.world import World

pytestmark = memory_only  # each test lays its own file beneath

ANN, BOB = "ann@example.com", "bob@example.com"

Open = Callable[[], SessionCache[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def open_cache(
    make_cache: MakeCache, world: World, path: Path, ring: KeyRing, clock: FakeClock, store_thread: LoopThread
) -> Open:
    return lambda: make_cache(world, store=Blocking(SQLiteStore(path, keys=ring, clock=clock), store_thread))


@contextlib.contextmanager
def beside(path: Path) -> Any:
    """Open the file as another program would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as connection:
        yield connection


def stored(cache: SessionCache[Any]) -> StoreStats:
    stats = cache.stats().store
    assert stats is not None
    return stats


async def filled(open_cache: Open, world: World) -> None:
    cache = open_cache()
    for user in (ANN, BOB):
        await cache.session(user).get(world.account)
        await cache.session(user).get(world.notes)
    await cache.aclose()
    world.calls.clear()


@pytest.mark.parametrize("what", ["sealed", "session"])
async def test_rows_that_were_exchanged_are_nobodys(
    open_cache: Open, world: World, path: Path, what: str
) -> None:
    """Scenario 1: neither the bodies of two users nor their places can be swapped."""
    await filled(open_cache, world)
    with beside(path) as connection:
        [one, two] = [row[0] for row in connection.execute("SELECT session FROM sessions ORDER BY session")]
        if what == "session":
            connection.execute("UPDATE entries SET session = -session")
            connection.execute("UPDATE entries SET session = ? WHERE session = ?", (one, -two))
            connection.execute("UPDATE entries SET session = ? WHERE session = ?", (two, -one))
        else:
            kinds = connection.execute(
                "SELECT kind, name, sealed FROM entries WHERE session = ?", (one,)
            ).fetchall()
            others = connection.execute(
                "SELECT kind, name, sealed FROM entries WHERE session = ?", (two,)
            ).fetchall()
            for (_, mine, body), (_, theirs, other) in zip(sorted(kinds), sorted(others), strict=True):
                connection.execute(
                    "UPDATE entries SET sealed = ? WHERE session = ? AND name = ?", (other, one, mine)
                )
                connection.execute(
                    "UPDATE entries SET sealed = ? WHERE session = ? AND name = ?", (body, two, theirs)
                )
    cache = open_cache()
    assert await cache.session(ANN).get(world.account) == 1
    assert await cache.session(BOB).get(world.account) == 2
    assert world.names() == ["account", "account"]
    assert stored(cache).entries_rejected == 4
    await cache.settled()
    await cache.aclose()
    again = open_cache()
    assert (await again.session(ANN).lookup(world.account)).outcome is Outcome.HIT
    assert stored(again).entries_rejected == 0


async def test_a_clear_of_a_locked_file_is_not_durable_and_is_repeated(
    open_cache: Open, world: World, path: Path, clock: FakeClock
) -> None:
    """Scenarios 18 and 33: gets go on, the clear counts at once, and is applied when it can be."""
    await filled(open_cache, world)
    cache = open_cache()
    with beside(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert not (await cache.clear(ANN)).durable
        assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.MISS
        assert stored(cache).distrusted_users == 1
        connection.execute("ROLLBACK")
    await clock.advance(LONGEST_PAUSE)
    await cache.settled()
    assert stored(cache).distrusted_users == 0
    await cache.aclose()
    again = open_cache()
    # What was loaded after the clear, and nothing from before.
    assert (await again.session(ANN).lookup(world.account)).outcome is Outcome.HIT
    assert (await again.session(ANN).lookup(world.notes)).outcome is Outcome.MISS
    assert (await again.session(BOB).lookup(world.notes)).outcome is Outcome.HIT


async def test_a_file_that_cannot_be_written_leaves_a_cache_in_memory(
    open_cache: Open, world: World, path: Path, clock: FakeClock
) -> None:
    """Scenario 33: nothing is lost but what could have been kept."""
    cache = open_cache()
    with beside(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for user in (ANN, BOB):
            assert (await cache.session(user).lookup(world.account)).outcome is Outcome.MISS
            assert (await cache.session(user).lookup(world.account)).outcome is Outcome.HIT
        await clock.advance(1)
        assert stored(cache).failures > 0
        connection.execute("ROLLBACK")
    await clock.advance(2 * LONGEST_PAUSE)
    await cache.settled()
    await cache.aclose()
    again = open_cache()
    assert (await again.session(ANN).lookup(world.account)).outcome is Outcome.HIT


@pytest.mark.parametrize("size", [100, 0])
async def test_of_a_damaged_file_nothing_is_served(
    open_cache: Open, world: World, path: Path, size: int
) -> None:
    """Scenario 34: it is moved aside, and the cache begins anew."""
    await filled(open_cache, world)
    with path.open("r+b") as file:
        file.write(b"no database" * 10)
        if size:
            file.truncate(size)
    cache = open_cache()
    assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.MISS
    assert (await cache.clear(ANN)).durable
    await cache.session(ANN).get(world.account)
    await cache.settled()
    await cache.aclose()
    assert len(list(path.parent.glob("sessions.db.corrupt-*"))) == 1
    again = open_cache()
    assert (await again.session(ANN).lookup(world.account)).outcome is Outcome.HIT


@pytest.mark.parametrize(("set_on", "outcome"), [(3_600, Outcome.HIT), (25 * 3_600, Outcome.MISS), (-3_600, Outcome.MISS)])  # fmt: skip
async def test_a_clock_that_was_set_lengthens_no_life(
    open_cache: Open, world: World, clock: FakeClock, set_on: float, outcome: Outcome
) -> None:
    """Scenario 39: set on, all has aged; set back, nobody knows how old anything is."""
    await filled(open_cache, world)
    clock.step_wall(set_on)
    cache = open_cache()
    look = await cache.session(ANN).lookup(world.account)
    assert look.outcome is outcome
    if outcome is Outcome.HIT:
        assert look.age == pytest.approx(set_on)
