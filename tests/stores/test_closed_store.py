"""A store that was closed: no cache is made with it, and one that has it already says what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coatcheck import Catalog, SessionCache, SyncCache
from coatcheck.bootstrap import ipc_cache
from coatcheck.errors import StoreFailed
from coatcheck.settings import Settings
from coatcheck.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from stores.sqlite_rig import Rig

catalog: Catalog[str] = Catalog("shop")


@catalog.resource
async def zones(api: str) -> tuple[str, ...]:
    return (api,)


async def closed(rig: Rig) -> SQLiteStore:
    async with rig.open() as store:
        assert not store.closed
    assert store.closed
    return store


async def test_no_cache_is_made_with_it(rig: Rig) -> None:
    store = await closed(rig)
    with pytest.raises(StoreFailed, match="the store is closed"):
        SessionCache(catalog, connect=str, store=store)
    with pytest.raises(StoreFailed, match="the store is closed"):
        SyncCache(catalog, connect=str, store=store)


async def test_no_ipc_cache_is_made_with_it(rig: Rig) -> None:
    store = await closed(rig)
    with pytest.raises(StoreFailed, match="the store is closed"):
        ipc_cache(Settings(upstream_url="http://127.0.0.1:9"), store=store)


async def test_one_that_a_cache_has_closed_is_not_taken_by_the_next(rig: Rig) -> None:
    async with rig.open() as store:
        async with SessionCache(catalog, connect=str, store=store) as cache:
            assert ("ann",) == await cache.session("ann").get(zones)
        with pytest.raises(StoreFailed, match="the next one needs another"):
            SessionCache(catalog, connect=str, store=store)


async def test_closed_beneath_its_cache_it_is_named_as_the_cause(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.open() as store:
        cache = SessionCache(catalog, connect=str, store=store, clock=rig.clock)
        await cache.session("ann").get(zones)
        await cache.settled()
        await store.aclose()
        assert ("bob",) == await cache.session("bob").get(zones)
        assert not (await cache.session("ann").clear()).durable
        await cache.aclose()
    assert [
        "the store was closed before its cache was: what changed since then of 2 users, clears too, is not in it"
    ] == [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
