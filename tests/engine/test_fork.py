"""A forked child: a cache that was used before the fork refuses every call there, and goes on in the parent."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import SessionCache, SyncCache
from coatcheck.errors import ForkedCache
from engine.conftest import beneath_of, lying_on, memory_only, on_stores
from engine.threads import Upstream, hit, in_child, meet, result, spawn, spawn_loop

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    on_stores,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
    # Later Pythons warn of every fork of a process with threads, which is what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
beneath = beneath_of("memory", "bare")

ANN = "ann@example.com"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


def refuses(*calls: Callable[[], Any]) -> None:
    for call in calls:
        with pytest.raises(ForkedCache):
            call()


def test_a_child_is_refused_every_call_and_the_parent_goes_on(upstream: Upstream) -> None:
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    session = cache.session(ANN)

    async def use() -> int:
        await session.get_many(upstream.zones, upstream.notes)
        return await session.get(upstream.account)

    def child() -> None:
        refuses(
            lambda: hit(session.get(upstream.account)),
            lambda: hit(session.get(upstream.notes)),
            lambda: hit(session.get(upstream.zones, kind="other")),
            lambda: hit(session.get(upstream.account, force_refresh=True)),
            lambda: hit(session.lookup(upstream.zones)),
            lambda: hit(cache.session(ANN).get(upstream.account)),
            lambda: hit(cache.session("nobody yet").get(upstream.account)),
            lambda: session.peek(upstream.account),
            lambda: session.peek(upstream.notes),
            lambda: asyncio.run(session.put(upstream.account, 1)),
            lambda: asyncio.run(session.invalidate(upstream.account)),
            lambda: asyncio.run(session.clear()),
            lambda: asyncio.run(session.warm()),
            lambda: asyncio.run(session.get_many(upstream.account)),
            lambda: asyncio.run(cache.clear_all()),
            lambda: asyncio.run(cache.aclose()),
            cache.stats,
            lambda: cache.stats(ANN),
            cache.users,
        )

    assert 1 == asyncio.run(use())
    assert 0 == in_child(child)
    assert 1 == asyncio.run(use())
    assert 1 == hit(session.get(upstream.account))
    assert 1 == len(upstream.calls)
    assert 1 == cache.stats().resources["account"].misses + cache.stats().resources["zones"].misses - 0


def test_a_child_may_make_a_cache_of_its_own(upstream: Upstream) -> None:
    used = SessionCache(upstream.catalog, connect=upstream.connect)

    async def use(cache: SessionCache[Any]) -> int:
        return await cache.session(ANN).get(upstream.account)

    def child() -> None:
        own = SessionCache(upstream.catalog, connect=upstream.connect)
        assert 2 == asyncio.run(use(own))
        assert 2 == hit(own.session(ANN).get(upstream.account))

    asyncio.run(use(used))
    assert 0 == in_child(child)


# A file is opened when the cache is made: the next test.
@memory_only
def test_a_cache_never_used_before_the_fork_works_in_the_child(upstream: Upstream) -> None:
    """A server that loads the program before it forks its workers makes such."""
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    blocking = SyncCache(upstream.catalog, connect=upstream.connect)

    async def use() -> int:
        return await cache.session(ANN).get(upstream.account)

    def child() -> None:
        assert 1 == asyncio.run(use())
        with blocking:
            assert 2 == blocking.session(ANN).get(upstream.account)
            assert 2 == blocking.session(ANN).get(upstream.account)
        assert 0 == in_child(grandchild)

    def grandchild() -> None:
        refuses(cache.stats, lambda: hit(cache.session(ANN).get(upstream.account)))

    assert 0 == in_child(child)
    assert 1 == asyncio.run(use())
    with blocking:
        assert 2 == blocking.session(ANN).get(upstream.account)


@lying_on("bare")
def test_a_cache_whose_file_was_opened_before_the_fork_is_refused_in_the_child(upstream: Upstream) -> None:
    """It could not read the file, and a clear would not reach it: the user would be back after a restart."""
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    blocking = SyncCache(upstream.catalog, connect=upstream.connect)

    async def use() -> int:
        return await cache.session(ANN).get(upstream.account)

    def child() -> None:
        refuses(
            lambda: asyncio.run(use()),
            lambda: asyncio.run(cache.clear(ANN)),
            cache.stats,
            blocking.__enter__,
            lambda: blocking.session(ANN).get(upstream.account),
        )

    assert 0 == in_child(child)
    assert 1 == asyncio.run(use())
    with blocking:
        assert 2 == blocking.session(ANN).get(upstream.account)


# The same: a cache that was never used is refused with a file.
@memory_only
def test_a_child_forked_while_another_thread_changes_the_cache_is_not_stuck(upstream: Upstream) -> None:
    """Locks are copied as they are, and who held one does not exist in the child."""
    used = SessionCache(upstream.catalog, connect=upstream.connect)
    unused = SessionCache(upstream.catalog, connect=upstream.connect)
    held, over = threading.Event(), threading.Event()

    async def use(cache: SessionCache[Any]) -> int:
        return await cache.session(ANN).get(upstream.account)

    def hold() -> None:
        with used._home.lock, unused._home.lock:
            held.set()
            meet(over)

    def child() -> None:
        refuses(
            lambda: hit(used.session(ANN).get(upstream.account, kind="x")), lambda: asyncio.run(use(used))
        )
        assert 2 == asyncio.run(use(unused))

    asyncio.run(use(used))
    holding = spawn(hold)
    meet(held)
    assert 0 == in_child(child)
    over.set()
    result(holding)


def test_a_child_forked_while_a_load_is_under_way_is_not_stuck(upstream: Upstream) -> None:
    """Who would join that load must not wait for a lock whose holder does not exist in the child."""
    cache = SessionCache(upstream.catalog, connect=upstream.connect)
    gate = upstream.hold_first()
    held, over = threading.Event(), threading.Event()

    async def use() -> int:
        return await cache.session(ANN).get(upstream.account)

    def hold() -> None:
        with cache._home.lock:
            held.set()
            meet(over)

    loading = spawn_loop(use)
    meet(upstream.begun)
    holding = spawn(hold)
    meet(held)
    assert 0 == in_child(lambda: refuses(lambda: asyncio.run(use())))
    over.set()
    result(holding)
    gate.open()
    assert -1 == result(loading)


def test_a_child_of_a_blocking_cache_is_refused_and_closes_nothing_of_the_parent_s(
    upstream: Upstream,
) -> None:
    with SyncCache(upstream.catalog, connect=upstream.connect) as cache:
        session = cache.session(ANN)
        session.get_many(upstream.zones, upstream.notes)
        session.get(upstream.account)

        def child() -> None:
            refuses(
                lambda: session.get(upstream.account),
                lambda: session.get(upstream.zones),
                lambda: session.get(upstream.account, force_refresh=True),
                lambda: session.lookup(upstream.notes),
                lambda: session.get_many(upstream.account),
                lambda: session.peek(upstream.account),
                lambda: session.put(upstream.account, 1),
                lambda: session.invalidate(upstream.account),
                session.warm,
                session.clear,
                cache.clear_all,
                cache.stats,
                cache.users,
                cache.__enter__,
            )
            cache.close()
            assert cache._portal._stop is not None
            cache._portal._stop()

        assert 0 == in_child(child)
        assert 1 == session.get(upstream.account)
        assert 2 == session.get(upstream.account, force_refresh=True)
