"""IPC Cloud when its upstream fails in every way there is: what a call raises, and how often it asks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from upstream.clock import SkippingClock

from coatcheck import SessionCache
from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    BreakerOpen,
    Forbidden,
    Gone,
    LoadError,
    NotFound,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.ipc.api import IpcCloud, log_in
from coatcheck.ipc.resources import catalog, endpoints, engagement_data
from coatcheck.simulator import Settings, Simulator
from coatcheck.testing import FakeClock
from coatcheck.testing.settling import settle
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account, LogIns
from coatcheck.upstream.retry import CALLS_PER_RETRY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from coatcheck.clock import Clock

ANN = "user-0001@tenant-0001.example"
BOB = "user-0003@tenant-0003.example"

Fault = dict[str, Any]


@dataclass
class World:
    simulator: Simulator
    client: UpstreamClient
    log_ins: LogIns

    def cloud(self, user: str) -> IpcCloud:
        return IpcCloud(self.client, self.tokens(user), cooldown=self.client.cooldowns.of(user))

    def tokens(self, user: str) -> Any:
        return self.log_ins.provider(Account(user, self.simulator.truth(user)["password"]))

    def engagement(self, user: str) -> int:
        found: int = self.simulator.truth(user)["engagements"][0]["paas_engagement_id"]
        return found

    def asked(self, user: str | None = None) -> dict[str, int]:
        """Return the calls that arrived since the last time."""
        counted: dict[str, int] = {
            name: calls for name, calls in self.simulator.calls(user)["by_path"].items() if calls
        }
        self.simulator.reset()
        return counted


@asynccontextmanager
async def world_of(clock: Clock, **settings: float) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        simulator = Simulator(Settings(seed=7, users=12, latency_scale=0), wall=clock.wall)
        await simulator.start()
        stack.push_async_callback(simulator.close)
        client = await stack.enter_async_context(UpstreamClient(simulator.url, clock=clock, **settings))  # type: ignore[arg-type]
        log_ins = LogIns(partial(log_in, client), clock=clock)
        stack.push_async_callback(log_ins.aclose)
        yield World(simulator, client, log_ins)


ONCE: list[tuple[Fault, type[LoadError]]] = [
    ({"kind": "status", "status": 403}, Forbidden),
    ({"kind": "status", "status": 404}, NotFound),
    ({"kind": "status", "status": 410}, Gone),
    ({"kind": "status", "status": 400}, UpstreamRejected),
    ({"kind": "status", "status": 429, "retry_after": "7"}, RateLimited),
    ({"kind": "status", "status": 429, "retry_after": "soon"}, RateLimited),
    ({"kind": "status", "status": 503, "retry_after": "7"}, UpstreamFailed),
    *(
        ({"kind": kind}, BadUpstreamBody)
        for kind in (
            "invalid_json",
            "truncated_json",
            "bom",
            "wrong_charset",
            "duplicate_keys",
            "deep_json",
            "nan",
            "big_int",
            "wrong_type",
            "lone_surrogate",
            "html",
            "data_null",
            "gzip_bomb",
        )
    ),
    ({"kind": "huge_body", "bytes": 8 * 1024 * 1024, "declared": False}, BadUpstreamBody),
    (
        {"kind": "failure_envelope", "word": "failure", "response_code": 500, "message": "no"},
        UpstreamFailed,
    ),
    (
        {"kind": "failure_envelope", "word": "failure", "response_code": 429, "message": "no"},
        RateLimited,
    ),
    ({"kind": "redirect", "location": "http://169.254.169.254/latest"}, UpstreamRejected),
    ({"kind": "redirect", "location": "http://[::ffff:127.0.0.1]/"}, UpstreamRejected),
]
TWICE: list[tuple[Fault, type[LoadError]]] = [
    ({"kind": "status", "status": 500}, UpstreamFailed),
    ({"kind": "status", "status": 502, "html": True}, UpstreamFailed),
    ({"kind": "status", "status": 503}, UpstreamFailed),
    ({"kind": "status", "status": 503, "retry_after": "0"}, UpstreamFailed),
    ({"kind": "reset"}, UpstreamUnreachable),
    ({"kind": "cut"}, UpstreamUnreachable),
    # A second token, not a second try.
    ({"kind": "status", "status": 401}, AuthExpired),
]
NEVER_WHOLE: list[Fault] = [{"kind": "hang"}, {"kind": "slow_body", "interval_ms": 20}]


def name_of(fault: object) -> str:
    if isinstance(fault, dict):
        return "-".join(str(value) for value in fault.values())
    return getattr(fault, "__name__", str(fault))


class TestOneCall:
    @pytest.fixture
    async def world(self) -> AsyncIterator[World]:
        """One in which a retry has been earned."""
        async with world_of(SkippingClock()) as world:
            cloud = world.cloud(ANN)
            for _ in range(CALLS_PER_RETRY):
                await cloud.engagements()
            world.asked()
            yield world

    async def failure(self, world: World, fault: Fault) -> LoadError:
        world.simulator.set_faults([{**fault, "path": "endpoints"}])
        with pytest.raises(LoadError) as caught:
            await world.cloud(ANN).endpoints(world.engagement(ANN))
        told = f"{caught.value} {caught.value!r} {vars(caught.value)}"
        assert not any(secret in told for secret in (ANN, "http", "Simulated", "169.254"))
        assert caught.value.__context__ is None
        return caught.value

    @pytest.mark.parametrize(("fault", "kind"), ONCE, ids=name_of)
    async def test_what_would_be_answered_the_same_is_asked_once(
        self, world: World, fault: Fault, kind: type[LoadError]
    ) -> None:
        assert type(await self.failure(world, fault)) is kind
        assert world.asked() == {"endpoints": 1}

    @pytest.mark.parametrize(("fault", "kind"), TWICE, ids=name_of)
    async def test_what_may_pass_is_asked_twice(
        self, world: World, fault: Fault, kind: type[LoadError]
    ) -> None:
        assert type(await self.failure(world, fault)) is kind
        asked = world.asked()
        assert asked.pop("auth", 0) == (1 if kind is AuthExpired else 0)
        assert asked == {"endpoints": 2}

    @pytest.mark.parametrize(("fault", "kind"), TWICE, ids=name_of)
    async def test_and_if_it_passes_nobody_notices(
        self, world: World, fault: Fault, kind: type[LoadError]
    ) -> None:
        world.simulator.set_faults([{**fault, "path": "endpoints", "times": 1}])
        assert (await world.cloud(ANN).endpoints(world.engagement(ANN))).value
        assert world.asked()["endpoints"] == 2

    @pytest.mark.parametrize("fault", NEVER_WHOLE, ids=name_of)
    async def test_what_never_comes_whole_ends_with_its_time(self, fault: Fault) -> None:
        async with world_of(SkippingClock(), timeout=0.2) as world:
            assert type(await self.failure(world, fault)) is UpstreamTimeout
            assert world.asked().get("endpoints", 0) <= 1

    async def test_a_log_in_is_asked_once(self, world: World) -> None:
        """It may lock the account."""
        for fault in ({"kind": "status", "status": 503}, {"kind": "reset"}):
            world.simulator.set_faults([{**fault, "path": "auth"}])
            with pytest.raises((UpstreamFailed, UpstreamUnreachable)):
                await world.cloud(BOB).engagements()
            assert world.asked() == {"auth": 1}

    async def test_a_live_list_is_asked_twice_as_well(self, world: World) -> None:
        """It is asked for by POST but only read."""
        owned = world.simulator.truth(ANN)["engagements"][0]
        paas_id, ipc_id = owned["paas_engagement_id"], owned["ipc_engagement_id"]
        asked = [owned["endpoints"][0]["endpointId"]]
        calls: dict[str, Callable[[IpcCloud], Awaitable[object]]] = {
            "managed": lambda cloud: cloud.managed_services(ipc_id, asked, "IKSKafka"),
            "clusters": lambda cloud: cloud.clusters(paas_id, asked),
        }
        for path, call in calls.items():
            cloud = world.cloud(ANN)
            for _ in range(CALLS_PER_RETRY):
                await cloud.engagements()
            world.simulator.set_faults([{"kind": "status", "status": 503, "path": path, "times": 1}])
            world.asked()
            await call(cloud)
            assert world.asked() == {path: 2}

    async def test_an_outage_turns_everybody_away_at_once(self, world: World) -> None:
        """And the first one after it finds out that it is over."""
        clock = world.client.breaker._clock
        assert isinstance(clock, SkippingClock)
        await world.cloud(BOB).engagements()
        world.simulator.set_faults([{"kind": "status", "status": 503}])
        for _ in range(5):
            with pytest.raises((UpstreamFailed, BreakerOpen)):
                await world.cloud(ANN).engagements()
        world.asked()
        slept = len(clock.slept)
        for user in (ANN, BOB):
            with pytest.raises(BreakerOpen):
                await world.cloud(user).engagements()
        assert world.asked() == {}
        assert len(clock.slept) == slept
        world.simulator.set_faults([])
        clock.advance(10.0)
        await world.cloud(BOB).engagements()
        await world.cloud(ANN).engagements()
        assert world.asked() == {"engagements": 2}


# -- pauses, with the cache before the calls -------------------------------------------------------------------------


@asynccontextmanager
async def cached(
    world: World, clock: FakeClock, *, remembers: bool = True
) -> AsyncIterator[SessionCache[IpcCloud]]:
    """Put a cache before the world, in which a connection's pause outlasts it or not."""

    def connect(user: str) -> IpcCloud:
        return world.cloud(user) if remembers else IpcCloud(world.client, world.tokens(user))

    async with SessionCache(catalog, connect=connect, clock=clock) as cache:
        yield cache


async def check_a_log_out_is_no_way_around(*, remembers: bool) -> None:
    clock = FakeClock()
    async with world_of(clock) as world, cached(world, clock, remembers=remembers) as cache:
        session = cache.session(ANN)
        world.simulator.set_faults(
            [{"kind": "status", "status": 429, "retry_after": "60", "path": "engagements", "times": 1}]
        )
        with pytest.raises(RateLimited):
            await session.get(engagement_data)
        await cache.clear(ANN)
        await cache.settled()
        world.asked()
        for force in (False, True):
            with pytest.raises(RateLimited):
                await session.get(engagement_data, force_refresh=force)
        assert world.asked() == {}

        assert (await cache.session(BOB).get(engagement_data)).id == world.engagement(BOB)
        await clock.advance(70.0)
        assert (await session.get(engagement_data)).id == world.engagement(ANN)
        assert len(world.client.cooldowns) == 0


class TestPause:
    async def test_a_log_out_is_no_way_around(self) -> None:
        """Not even the log-in leaves before its time; others go on."""
        await check_a_log_out_is_no_way_around(remembers=True)

    async def test_a_pause_kept_with_the_session_is_noticed(self) -> None:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await check_a_log_out_is_no_way_around(remembers=False)

    async def test_a_log_in_that_is_asked_to_pause_pauses(self) -> None:
        clock = FakeClock()
        async with world_of(clock) as world, cached(world, clock) as cache:
            world.simulator.set_faults(
                [{"kind": "status", "status": 429, "retry_after": "60", "path": "auth", "times": 1}]
            )
            session = cache.session(ANN)
            results = await asyncio.gather(
                *(session.get(engagement_data) for _ in range(20)), return_exceptions=True
            )
            assert {type(result) for result in results} == {RateLimited}
            assert world.asked() == {"auth": 1}
            with pytest.raises(RateLimited) as caught:
                await session.get(engagement_data)
            assert caught.value.retry_after is not None
            assert 60.0 <= caught.value.retry_after <= 66.0
            assert world.asked() == {}

    async def test_background_loads_keep_it_as_well(self) -> None:
        """What they were to replace is served on."""
        clock = FakeClock()
        async with world_of(clock) as world, cached(world, clock) as cache:
            policy = msgspec.structs.replace(
                cache.policy(endpoints), ttl=timedelta(hours=1), refresh_ahead=0.5, jitter=0.0
            )
            cache.set_policy(endpoints, policy)
            session = cache.session(ANN)
            held = await session.get(endpoints)
            await clock.advance(2_000.0)
            world.simulator.set_faults([{"kind": "status", "status": 429, "retry_after": "60"}])
            with pytest.raises(RateLimited):
                await session.get(engagement_data, force_refresh=True)
            world.asked()
            for _ in range(3):
                assert await session.get(endpoints) == held
                await cache.settled()
            assert world.asked() == {}
            assert cache.stats().resources["endpoints"].refresh_failures >= 1

            world.simulator.set_faults([])
            await clock.advance(66.0)
            assert await session.get(endpoints) == held
            await settle()
            await cache.settled()
            assert world.asked()["endpoints"] == 1
