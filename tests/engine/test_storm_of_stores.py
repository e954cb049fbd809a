"""Gets, clears, restarts, evictions and a store that misbehaves, all at once: nobody gets what was cleared or is not theirs."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.guarded import LONGEST_PAUSE
from coatcheck.engine.limits import Limits
from coatcheck.engine.store import Store
from coatcheck.errors import LoadError, SessionCleared
from coatcheck.testing import FakeClock, settle
from coatcheck.testing.stores import Fault, FaultyStore
from engine.conftest import MakeCache
from engine.world import World

USERS = [f"user {number}" for number in range(6)]
FAULTY = ("open", "put", "delete", "clear")


class Storm:
    """What goes on in one cache after the other, on one store.

    Attributes:
        begun: by user, the clears that have begun; every value names how many had when it was loaded.
        returned: by user, the last of those that have returned: nothing that was loaded before may be seen from then on.
        wrong: answers that must not be.
    """

    def __init__(self, world: World, store: FaultyStore, clock: FakeClock, rng: random.Random) -> None:
        self.world = world
        self.store = store
        self.clock = clock
        self.rng = rng
        self.begun = dict.fromkeys(USERS, 0)
        self.returned = dict.fromkeys(USERS, 0)
        self.wrong: list[str] = []
        self.answers = 0
        world.answers["item"] = lambda user, number: f"{user}/{self.begun[user]}/{number}"

    async def get(self, cache: SessionCache[Any], user: str) -> None:
        since = self.returned[user]
        force = self.rng.random() < 0.2
        try:
            value = await cache.session(user).get(
                self.world.item, number=self.rng.randrange(3), force_refresh=force
            )
        except (SessionCleared, LoadError):
            return
        owner, loaded, _ = value.split("/")
        self.answers += 1
        if owner != user or int(loaded) < since:
            self.wrong.append(value)

    async def clear(self, cache: SessionCache[Any], user: str) -> None:
        self.begun[user] += 1
        mine = self.begun[user]
        await cache.clear(user)
        self.returned[user] = max(self.returned[user], mine)

    async def rage(self, cache: SessionCache[Any], steps: int) -> None:
        work: list[asyncio.Future[None]] = []
        for _ in range(steps):
            user = self.rng.choice(USERS)
            what = self.rng.random()
            if what < 0.6:
                work.append(asyncio.ensure_future(self.get(cache, user)))
            elif what < 0.75:
                work.append(asyncio.ensure_future(self.clear(cache, user)))
            else:
                await self.upset(what)
            if self.rng.random() < 0.5:
                await settle()
        await self.calm_down()
        await asyncio.wait(work)

    async def upset(self, what: float) -> None:
        if what < 0.85:
            self.store.fault(self.rng.choice(list(Fault)), self.rng.choice(FAULTY))
        elif what < 0.95:
            self.store.heal()
            self.store.release()
        else:
            await self.clock.advance(self.rng.choice([0.1, 1.0, 40.0]))

    async def calm_down(self) -> None:
        self.store.heal()
        self.store.release()
        for _ in range(3):
            await self.clock.advance(LONGEST_PAUSE + 1)


@pytest.mark.parametrize("seed", range(20))
async def test_nobody_gets_what_was_cleared_or_is_not_theirs(
    make_cache: MakeCache, world: World, clock: FakeClock, disk: Store, seed: int
) -> None:
    rng = random.Random(seed)
    storm = Storm(world, FaultyStore(disk, clock=clock), clock, rng)
    for _ in range(4):
        cache = make_cache(world, store=storm.store, limits=Limits(max_sessions=rng.choice([2, 100])))
        await storm.rage(cache, 60)
        await cache.settled()
        await cache.aclose()
    assert storm.wrong == []
    assert storm.answers > 50
