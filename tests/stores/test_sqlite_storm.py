"""Many tasks on one cache and one file, the store's own threads beside them: nobody gets what was cleared or is not theirs."""

from __future__ import annotations

import asyncio
import random

import pytest

from coatcheck import Catalog, Limits, SessionCache
from coatcheck.errors import SessionCleared
from stores.sqlite_rig import Rig

USERS = [f"user {number}" for number in range(30)]


@pytest.mark.parametrize("seed", range(2))
async def test_a_storm_on_a_file_brings_nobody_what_was_cleared_or_is_not_theirs(rig: Rig, seed: int) -> None:
    """Few sessions fit into memory: nearly every get asks the file. Across restarts, too."""
    draw = random.Random(seed)
    catalog: Catalog[str] = Catalog("ipc")
    # Every value names whose it is and how many clears of theirs had begun when its load did.
    begun, returned = dict.fromkeys(USERS, 0), dict.fromkeys(USERS, 0)
    wrong: list[str] = []
    restored = 0

    @catalog.resource
    async def item(user: str, number: int) -> str:
        value = f"{user}/{begun[user]}"
        for _ in range(draw.randrange(10)):
            await asyncio.sleep(0)
        return value

    async def get(cache: SessionCache[str], user: str) -> None:
        since = returned[user]
        force = draw.random() < 0.1
        try:
            value = await cache.session(user).get(item, number=draw.randrange(3), force_refresh=force)
        except SessionCleared:
            return
        owner, loaded = value.split("/")
        if owner != user or int(loaded) < since:
            wrong.append(value)

    async def clear(cache: SessionCache[str], user: str) -> None:
        begun[user] += 1
        mine = begun[user]
        await cache.clear(user)
        returned[user] = max(returned[user], mine)

    async def rage(cache: SessionCache[str]) -> None:
        for _ in range(30):
            await (clear if draw.random() < 0.15 else get)(cache, draw.choice(USERS))

    for _ in range(3):
        async with (
            rig.open() as store,
            SessionCache(catalog, connect=str, store=store, limits=Limits(max_sessions=8)) as cache,
        ):
            await asyncio.gather(*(rage(cache) for _ in range(40)))
            stored = cache.stats().store
            assert stored is not None
            restored += stored.entries_restored
    assert [] == wrong
    assert restored > 0
