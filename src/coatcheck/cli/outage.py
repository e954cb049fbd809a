"""An outage, a slow spell, a storm of 429 and a recovery, and what users saw of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from coatcheck.bootstrap import ipc_cache
from coatcheck.cli.chat_session import (
    CHAT_SESSION,
    list_business_units,
    list_endpoints,
    list_environments,
    list_zones,
)
from coatcheck.cli.progress import progress
from coatcheck.cli.truth import Truth, Verdict, accounts_of
from coatcheck.cli.upstream_process import upstream_process
from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import LoadError
from coatcheck.ipc.resources import business_units, catalog, endpoints, environments_list, zones_list
from coatcheck.settings import Settings
from coatcheck.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from coatcheck.engine.cache import SessionCache
    from coatcheck.engine.catalog import Resource
    from coatcheck.ipc.api import IpcCloud
    from coatcheck.simulator import Settings as SimulatorSettings

SPEED: Final = 60.0
"""Seconds that pass for the cache in one of ours: a minute is a second."""

TTL: Final = timedelta(minutes=2)
"""Instead of a day, so that what is held does expire while the upstream is in trouble."""

GETS_PER_SECOND: Final = 400
"""Of all users together, at most: two slow cores have to serve them and the simulator."""

SHORTEST_PAUSE: Final = 0.05

PATIENCE: Final = 50
"""How many times as long as a caller waits a load may take: seconds of ours, in which also a busy machine gets there."""

# What is asked for, and which step of the chat session says what is right. The live lists of that session are left out:
# nothing of them is held, and when the upstream is down they fail.
_ASKED: Final[tuple[tuple[Resource[Any], int], ...]] = tuple(
    (resource, CHAT_SESSION.index(step))
    for resource, step in (
        (endpoints, list_endpoints),
        (business_units, list_business_units),
        (environments_list, list_environments),
        (zones_list, list_zones),
    )
)


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What users saw in one phase.

    Attributes:
        seconds: how long it took, by the machine's clock.
        gets: answered or failed.
        foreign: answers that show something of another user.
        upstream_calls: calls that arrived, log-ins and failed ones included.
    """

    name: str
    seconds: float
    gets: int
    fresh: int
    stale: int
    failed: int
    foreign: int
    upstream_calls: int


class OutageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; as JSON it is what ``coatcheck demo --outage --json`` prints.

    Attributes:
        speed: seconds of the cache's clock in one of the machine's. All further spans are by the cache's clock.
        ttl_seconds: how long things are fresh, shortened for this replay.
        soft_timeout_seconds: how long a caller waits who may be given something stale, lengthened for this replay.
        grace_seconds: how much longer than the ttl a stale value may bridge an outage.
        throttle_seconds: after a failed load, how long until the next.
        wrong_answers: that differ from the truth without showing anything of another user.
    """

    users: int
    seed: int
    latency_scale: float
    speed: float
    ttl_seconds: float
    soft_timeout_seconds: float
    grace_seconds: float
    throttle_seconds: float
    phases: list[Phase]
    wrong_answers: int
    foreign_answers: int


class Upstream(Protocol):
    """What switches faults on and counts calls."""

    async def set_faults(self, *faults: Mapping[str, object]) -> None:
        """Put these faults in the place of all that are in force."""
        ...

    async def calls_by_path(self) -> dict[str, int]:
        """Return the calls since the last time this was asked."""
        ...


class HurriedClock:
    """A clock on which time passes so many times as fast as on another. The wall clock, by which tokens end, is that one's."""

    def __init__(self, clock: Clock, speed: float) -> None:
        self._clock = clock
        self._speed = speed
        self.wall = clock.wall

    def monotonic(self) -> float:
        """Return a time that passes faster."""
        return self._clock.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* of that time."""
        await self._clock.sleep(seconds / self._speed)


@dataclass(frozen=True)
class _Plan:
    name: str
    minutes: float
    faults: tuple[Mapping[str, object], ...] = ()


def plan(soft_timeout: float) -> list[_Plan]:
    """Return the phases. In the slow spell a call takes half as long again as a caller waits."""
    return [
        _Plan("calm", 3),
        _Plan("outage", 5, ({"kind": "status", "status": 503},)),
        _Plan("slow spell", 4, ({"kind": "delay", "ms": 1500 * soft_timeout},)),
        _Plan("429 storm", 4, ({"kind": "status", "status": 429, "retry_after": "60"},)),
        _Plan("recovery", 3),
    ]


async def go_through(simulated: SimulatorSettings, *, speed: float = SPEED) -> OutageReport:
    """Run a simulator, and users who ask for what is kept of theirs while it goes through all phases.

    Shows its progress on a terminal.

    Args:
        simulated: the simulator's world.
        speed: of the cache's clock; latencies and the simulator know nothing of it.

    Raises:
        CoatcheckError: an upstream call failed before the first phase.
    """
    # Not started: it only says what is right.
    simulator = Simulator(simulated)
    truth = Truth(simulator)
    users = [account.email for account in simulator.world.accounts()]
    async with upstream_process(simulated) as upstream:
        with quiet(), progress() as track:
            learnt = track("learning what is right", len(users))
            for user in users:
                truth.learn(user)
                learnt()
            clock = HurriedClock(SystemClock(), speed)
            # By our clock: longer than calls take when all is well, also on a busy machine.
            soft_timeout = 0.1 + simulated.latency_scale
            patience = timedelta(seconds=PATIENCE * soft_timeout * speed)
            settings = Settings(upstream_url=upstream.url, timeout=patience)
            async with ipc_cache(settings, credentials=accounts_of(simulator), clock=clock) as cache:
                hurry(cache, timedelta(seconds=soft_timeout * speed), patience)
                rehearsal = Rehearsal(cache, truth, users, upstream, speed=speed)
                await rehearsal.fill(track("filling the cache", len(users)))
                phases = [
                    await rehearsal.phase(each.name, each.minutes, *each.faults)
                    for each in plan(soft_timeout)
                ]
                policy = cache.policy(endpoints)
    assert policy.soft_timeout is not None
    return OutageReport(
        users=simulated.users,
        seed=simulated.seed,
        latency_scale=simulated.latency_scale,
        speed=speed,
        ttl_seconds=policy.ttl.total_seconds(),
        soft_timeout_seconds=policy.soft_timeout.total_seconds(),
        grace_seconds=policy.stale_if_error.total_seconds(),
        throttle_seconds=policy.failure_throttle.total_seconds(),
        phases=phases,
        wrong_answers=rehearsal.wrong,
        foreign_answers=sum(phase.foreign for phase in phases),
    )


def hurry(cache: SessionCache[IpcCloud], soft_timeout: timedelta, deadline: timedelta) -> None:
    """Shorten the ttl so that things expire in a replay, and lengthen what callers and loads may take of hurried time."""
    cache.set_policies(
        {
            resource: msgspec.structs.replace(
                resource.policy,
                ttl=TTL,
                soft_timeout=soft_timeout,
                deadline=max(resource.policy.deadline, deadline),
            )
            for resource in catalog
            if not resource.derived
        }
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the cache would log of an outage, which is no news here, off a terminal that nobody has set up logs for."""
    logger, nobody = logging.getLogger("coatcheck"), logging.NullHandler()
    logger.addHandler(nobody)
    try:
        yield
    finally:
        logger.removeHandler(nobody)


class Rehearsal:
    """Users who ask again and again for what is kept of theirs.

    Attributes:
        wrong: answers that differed from the truth without showing anything of another user.
    """

    def __init__(
        self,
        cache: SessionCache[IpcCloud],
        truth: Truth,
        users: Sequence[str],
        upstream: Upstream,
        *,
        speed: float,
    ) -> None:
        """Let *users*, which *truth* has learnt, ask *cache*, whose clock is so fast."""
        self._cache = cache
        self._truth = truth
        self._users = users
        self._upstream = upstream
        self._speed = speed
        self._clock = SystemClock()
        self._pause = max(SHORTEST_PAUSE, len(users) / GETS_PER_SECOND)
        self.wrong = 0

    async def fill(self, advance: Callable[[], object]) -> None:
        """Have everybody hold everything: what is not held, nothing can bridge."""
        for user in self._users:
            await self._cache.session(user).warm()
            advance()
        await self._upstream.calls_by_path()

    async def phase(self, name: str, minutes: float, *faults: Mapping[str, object]) -> Phase:
        """Let everybody ask for so many minutes of the cache's time with these faults in force, and once after it."""
        await self._upstream.set_faults(*faults)
        seen: Counter[str] = Counter()
        began = self._clock.monotonic()
        end = began + minutes * 60 / self._speed
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(self._users):
                late = self._pause * number / len(self._users)
                group.create_task(self._ask_until(user, end, late, seen))
        seconds = self._clock.monotonic() - began
        await self._cache.settled()
        return Phase(
            name=name,
            seconds=round(seconds, 3),
            gets=seen["fresh"] + seen["stale"] + seen["failed"],
            fresh=seen["fresh"],
            stale=seen["stale"],
            failed=seen["failed"],
            foreign=seen["foreign"],
            upstream_calls=sum((await self._upstream.calls_by_path()).values()),
        )

    async def _ask_until(self, user: str, end: float, late: float, seen: Counter[str]) -> None:
        await self._clock.sleep(late)
        turn = 0
        while self._clock.monotonic() < end:
            await self._ask(user, turn, seen)
            turn += 1
            await self._clock.sleep(self._pause)
        await self._ask(user, turn, seen)

    async def _ask(self, user: str, turn: int, seen: Counter[str]) -> None:
        resource, step = _ASKED[turn % len(_ASKED)]
        try:
            look = await self._cache.session(user).lookup(resource)
        except LoadError:
            seen["failed"] += 1
            return
        seen["stale" if look.stale else "fresh"] += 1
        verdict = self._truth.judge(user, step, (look.value,))
        self.wrong += verdict is Verdict.WRONG
        seen["foreign"] += verdict is Verdict.FOREIGN
