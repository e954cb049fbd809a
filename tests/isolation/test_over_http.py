"""Two hundred users with accounts of their own, over HTTP, in a storm: nobody is ever shown what is another's."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from ipc.rig import ANN, BOB, accounts_of, rigged

from coatcheck import Limits, SessionCache
from coatcheck.ipc import IpcCloud
from coatcheck.simulator import Settings
from coatcheck.upstream.log_ins import LogIns
from isolation.storm import Storm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ipc.rig import Accounts

    from coatcheck import Session
    from coatcheck.simulator import Simulator
    from coatcheck.upstream.log_ins import Account

SEED = int(os.environ.get("COATCHECK_SEED", "20250102"))
DEEP = 10 if os.environ.get("COATCHECK_DEEP") else 1
ANSWERS = 100_000 * DEEP
LOADS = 5_000 * DEEP
CANCELLED = 1_000 * DEEP
FAULTS = 2_000 * DEEP


def drift(seed: int) -> Callable[[float], Awaitable[None]]:
    """Return what the simulator sleeps in: some turns of the loop, so that answers come in another order."""
    dice = random.Random(seed)

    async def sleep(seconds: float) -> None:
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)

    return sleep


@pytest.fixture(autouse=True)
def few_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of failures are told to thousands of callers; none of them is news."""
    caplog.set_level(logging.ERROR, "coatcheck")


@pytest.mark.timeout(300 * DEEP)
async def test_a_storm_shows_nobody_what_is_anothers() -> None:
    settings = Settings(seed=SEED, users=200, latency_scale=1e-6)
    async with rigged(settings=settings, sleep=drift(SEED), limits=Limits(max_sessions=180)) as rig:
        rig.service.session_cache_duration = timedelta(minutes=45)
        storm = Storm(rig, SEED)
        tally = await storm.rage(
            rounds=1_000 * DEEP, answers=ANSWERS, loads=LOADS, cancelled=CANCELLED, faults=FAULTS
        )
        await rig.cache.settled()
        seen = f"seed {SEED}: {tally}"
        assert tally.foreign == [], seen
        assert tally.wrong == [], seen
        assert tally.answers >= ANSWERS, seen
        assert tally.loads >= LOADS, seen
        assert tally.cancelled >= max(CANCELLED, 0.3 * tally.callers), seen
        assert tally.faults >= FAULTS, seen
        assert min(tally.did[what] for what in ("clear", "force", "service_by_force", "invalidate")) >= 100, (
            seen
        )
        assert len(rig.cache.users()) <= 180
        assert len(rig.tokens_kept()) <= 180


class OneSessionForTwo(SessionCache[IpcCloud]):
    """A cache whose key tells two of its users not apart."""

    def session(self, user: str) -> Session:
        return super().session(ANN if user == BOB else user)


class OneTokenForAll(LogIns):
    """Tokens that are kept under a default key."""

    async def token(self, account: Account) -> str:
        for kept in self._kept.values():
            return kept.token
        return await super().token(account)


def one_account_for_all(simulator: Simulator) -> Accounts:
    known = accounts_of(simulator)
    return lambda user: known(ANN)


@pytest.mark.parametrize("broken", ["session", "token", "account"])
async def test_the_storm_finds_what_is_broken(broken: str) -> None:
    """The control: with one of three bugs in the house the same run reports foreign answers."""
    settings = Settings(seed=SEED, users=20, latency_scale=1e-6)
    async with rigged(
        settings=settings,
        sleep=drift(SEED),
        cache=OneSessionForTwo if broken == "session" else SessionCache,
        log_ins_of=OneTokenForAll if broken == "token" else LogIns,
        accounts=one_account_for_all if broken == "account" else accounts_of,
    ) as rig:
        rig.service.session_cache_duration = timedelta(minutes=45)
        tally = await Storm(rig, SEED, faulty=False).rage(rounds=100, answers=6_000)
        assert len(tally.foreign) >= 20, f"seed {SEED}: {tally}"
