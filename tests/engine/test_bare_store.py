"""A SQLite store as programs have it, with threads of its own, in real time: restarts, loops, threads, and a storm."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Catalog, Limits, SessionCache, SyncCache
from coatcheck.engine.entry import Outcome
from coatcheck.engine.stats import StoreStats
from coatcheck.errors import SessionCleared, StoreInUse
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from engine.mutants_of_stores import MUTANTS
from engine.threads import Upstream, conserved, reach, result, spawn, spawn_loop

ANN, BOB = "ann@example.com", "bob@example.com"
SEEDS = 30 if os.environ.get("COATCHECK_DEEP") else 1
# A storm meets each of these rules some ten times; the threads decide how often.
MOST_STORMS = 5

OpenStore = Callable[[], SQLiteStore]


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def open_store(tmp_path: Path, ring: KeyRing) -> OpenStore:
    """Open the same file again and again."""
    return lambda: SQLiteStore(tmp_path / "sessions.db", keys=ring)


def stored(cache: SessionCache[Any] | SyncCache[Any]) -> StoreStats:
    stats = cache.stats().store
    assert stats is not None
    return stats


async def test_one_store_serves_one_cache(upstream: Upstream, open_store: OpenStore) -> None:
    """A clear of one would not reach the memory of the other."""
    store = open_store()
    async with SessionCache(upstream.catalog, connect=upstream.connect, store=store) as cache:
        with pytest.raises(StoreInUse, match="one store serves one cache"):
            SessionCache(upstream.catalog, connect=upstream.connect, store=store)
        assert 1 == await cache.session(ANN).get(upstream.account)


# -- the blocking face ------------------------------------------------------------------------------------------------


def test_a_blocking_cache_finds_what_the_one_before_it_stored(
    upstream: Upstream, open_store: OpenStore
) -> None:
    """All but what was cleared or invalidated, with no call of the upstream."""
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:
        for user in (ANN, BOB):
            cache.session(user).get_many(upstream.zones, upstream.notes)
        cache.session(BOB).invalidate(upstream.notes)
        cache.session(BOB).put(upstream.account, 7)
        assert cache.clear(ANN).durable

    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:
        account = cache.session(BOB).lookup(upstream.account)
        notes = cache.session(BOB).lookup(upstream.notes)
        assert (Outcome.HIT, 7) == (account.outcome, account.value)
        assert (Outcome.MISS, [1, 2]) == (notes.outcome, notes.value)
        assert 2 == len(upstream.calls)
        assert 3 == cache.session(ANN).get(upstream.account)
        assert 0 == stored(cache).failures


def test_threads_that_ask_for_a_stored_session_at_once_bring_it_back_once(
    upstream: Upstream, open_store: OpenStore
) -> None:
    """And none of them loads what is there."""
    threads = 8
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:
        cache.session(ANN).get(upstream.zones)
    start = threading.Barrier(threads)
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:

        def get() -> tuple[str, ...]:
            start.wait(60)
            return cache.session(ANN).get(upstream.zones)

        getting = [spawn(get) for _ in range(threads)]

        assert [(f"{ANN}/10/all",)] * threads == [result(each) for each in getting]
        assert (1, 2) == (stored(cache).sessions_opened, stored(cache).entries_restored)
        assert conserved(cache.stats().total)
    assert 1 == len(upstream.calls)


def test_what_threads_clear_is_gone_for_all_of_them_and_after_a_restart(
    upstream: Upstream, open_store: OpenStore
) -> None:
    """Each thread works on a user of its own, and sees after its clear only what was loaded after it."""
    threads, rounds = 4, 25

    def work(cache: SyncCache[Any], user: str) -> int:
        session = cache.session(user)
        newest = 0
        for _ in range(rounds):
            value = session.get(upstream.account)
            assert value > newest
            newest = value
            assert session.clear().durable
        return newest

    users = [f"user {number}" for number in range(threads)]
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:
        working = [spawn(lambda user=user: work(cache, user)) for user in users]  # type: ignore[misc]
        newest = max(result(each) for each in working)
        assert threads * rounds == newest == len(upstream.calls)
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as cache:
        assert all(cache.session(user).get(upstream.account) > newest for user in users)
        assert 0 == stored(cache).entries_restored


# -- several loops ----------------------------------------------------------------------------------------------------


def test_a_cache_goes_on_with_its_store_on_the_next_loop(upstream: Upstream, open_store: OpenStore) -> None:
    """What one run stored and memory lost, the next one finds; what the next one clears is cleared in the store."""
    cache = SessionCache(
        upstream.catalog, connect=upstream.connect, store=open_store(), limits=Limits(max_sessions=1)
    )

    async def get(user: str) -> tuple[str, ...]:
        zones = await cache.session(user).get(upstream.zones)
        await cache.settled()
        return zones

    async def clear_and_get() -> int:
        assert (await cache.clear(BOB)).durable
        return await cache.session(BOB).get(upstream.account)

    first = asyncio.run(get(ANN))
    asyncio.run(get(BOB))

    assert first == asyncio.run(get(ANN))
    assert 2 == len(upstream.calls)
    assert 3 == asyncio.run(clear_and_get())
    assert 0 == stored(cache).failures
    asyncio.run(cache.aclose())


def test_a_clear_from_a_second_loop_is_durable_while_the_first_one_runs(
    upstream: Upstream, open_store: OpenStore
) -> None:
    """The store answers on the loop at home, and the visitor is told there."""
    cache = SessionCache(upstream.catalog, connect=upstream.connect, store=open_store())
    at_home, cleared = threading.Event(), threading.Event()

    async def home() -> tuple[int, int]:
        before = await cache.session(ANN).get(upstream.account)
        await cache.settled()
        at_home.set()
        await reach(cleared)
        after = await cache.session(ANN).get(upstream.account)
        await cache.settled()
        return before, after

    async def visit() -> bool:
        await reach(at_home)
        return (await cache.clear(ANN)).durable

    lives, visitor = spawn_loop(home), spawn_loop(visit)

    assert result(visitor)
    cleared.set()
    assert (1, 2) == result(lives)
    asyncio.run(cache.aclose())
    with SyncCache(upstream.catalog, connect=upstream.connect, store=open_store()) as again:
        assert 2 == again.session(ANN).get(upstream.account)


def test_loops_that_come_and_go_mix_nothing_and_bring_nothing_back(
    upstream: Upstream, open_store: OpenStore
) -> None:
    """Memory holds one session of four, and each run ends under the reads and writes of the others."""
    cache = SessionCache(
        upstream.catalog, connect=upstream.connect, store=open_store(), limits=Limits(max_sessions=1)
    )
    threads, rounds = 4, 25
    start = threading.Barrier(threads)
    newest, floor = [0] * threads, [0] * threads

    async def turn(thread: int, number: int) -> None:
        session = cache.session(f"user {thread}")
        value = await session.get(upstream.account)
        assert newest[thread] <= value > floor[thread]
        newest[thread] = value
        (zone,) = await session.get(upstream.zones, kind=f"{number % 3}")
        owner, _, kind = zone.split("/")
        assert (f"user {thread}", f"{number % 3}") == (owner, kind)
        if number % 5 == 0:
            await session.clear()
            floor[thread] = value

    def many(thread: int) -> None:
        start.wait(60)
        for number in range(rounds):
            asyncio.run(turn(thread, number))

    for each in [spawn(lambda thread=thread: many(thread)) for thread in range(threads)]:  # type: ignore[misc]
        result(each)

    assert conserved(cache.stats().total)
    asyncio.run(cache.aclose())


# -- a storm ----------------------------------------------------------------------------------------------------------


class Storm:
    """A hundred tasks that get and clear forty users' data, of whom memory holds eight.

    Attributes:
        wrong: answers that must not be.
        answers: how many there were.
        restored: entries that the store gave back.
    """

    TASKS, STEPS = 100, 60

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.users = [f"user {number}" for number in range(40)]
        self.begun = dict.fromkeys(self.users, 0)
        self.returned = dict.fromkeys(self.users, 0)
        self.wrong: list[str] = []
        self.answers = self.restored = 0
        self.catalog: Catalog[str] = Catalog("storm")

        @self.catalog.resource
        async def item(api: str, number: int) -> str:
            # Names how many clears of this user had begun when it was loaded.
            value = f"{api}/{self.begun[api]}"
            for _ in range(self.rng.randrange(20)):
                await asyncio.sleep(0)
            return value

        self.item = item

    async def work(self, cache: SessionCache[str]) -> None:
        for _ in range(self.STEPS):
            if self.wrong:
                return
            user = self.rng.choice(self.users)
            if self.rng.random() < 0.15:
                self.begun[user] += 1
                mine = self.begun[user]
                await cache.clear(user)
                self.returned[user] = max(self.returned[user], mine)
            else:
                await self.get(cache, user)

    async def get(self, cache: SessionCache[str], user: str) -> None:
        since = self.returned[user]
        number, force = self.rng.randrange(3), self.rng.random() < 0.1
        try:
            value = await cache.session(user).get(self.item, number=number, force_refresh=force)
        except SessionCleared:
            return
        self.answers += 1
        owner, loaded = value.split("/")
        if owner != user or int(loaded) < since:
            self.wrong.append(f"{value} for {user!r}, of whom {since} clears had returned")

    async def rage(self, open_store: OpenStore) -> None:
        for _ in range(3):
            limits = Limits(max_sessions=8)
            async with SessionCache(self.catalog, connect=str, store=open_store(), limits=limits) as cache:
                await asyncio.gather(*(self.work(cache) for _ in range(self.TASKS)))
                self.restored += stored(cache).entries_restored


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_in_a_storm_nobody_gets_what_was_cleared_or_is_not_theirs(
    open_store: OpenStore, seed: int
) -> None:
    """Three caches after each other on one file; the threads decide in which order, so a seed repeats most of it, not all."""
    storm = Storm(seed)
    await storm.rage(open_store)

    assert [] == storm.wrong
    assert storm.answers > 5_000
    assert storm.restored > 0


@pytest.mark.parametrize(
    "name",
    [
        "no_fence",
        "no_fence_at_restore",
        "stored_session_is_read_while_it_is_cleared",
        "writes_go_on_after_a_clear",
    ],
)
async def test_a_storm_notices_when_a_rule_is_taken_out(open_store: OpenStore, name: str) -> None:
    """Those rules that keep what was cleared away when a clear and something slow meet."""
    with MUTANTS[name]():
        for seed in range(MOST_STORMS):
            storm = Storm(seed)
            await storm.rage(open_store)
            if storm.wrong:
                return
    raise AssertionError(f"{MOST_STORMS} storms did not notice")
