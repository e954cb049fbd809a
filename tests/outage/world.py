"""IPC Cloud behind a cache, over HTTP to a simulator that fails on demand, with time moved by hand."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ipc.rig import Hurried
from isolation.storm import truth_of

from coatcheck.bootstrap import IpcCache
from coatcheck.cli.outage import HurriedClock
from coatcheck.clock import SystemClock
from coatcheck.ipc import APIExecutorService
from coatcheck.ipc.api import log_in
from coatcheck.ipc.resources import (
    business_units,
    catalog,
    endpoints,
    engagement_data,
    environments_list,
    ipc_engagement_id,
    zones_list,
)
from coatcheck.simulator import Settings, Simulator
from coatcheck.testing import FakeClock
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account, LogIns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from coatcheck import Limits, Resource
    from coatcheck.engine.events import Event

HOUR: Final = 3600.0
ANN: Final = "user-0001@tenant-0001.example"
BOB: Final = "user-0003@tenant-0003.example"

Fault = dict[str, Any]
DOWN: Final[Fault] = {"kind": "status", "status": 503}

KEPT: Final[tuple[Resource[Any], ...]] = tuple(resource for resource in catalog if not resource.derived)
PATHS: Final[dict[str, str]] = {
    engagement_data.name: "engagements",
    ipc_engagement_id.name: "conversion",
    endpoints.name: "endpoints",
    business_units.name: "departments",
    environments_list.name: "environments",
    zones_list.name: "zones",
}


class RunningClock(FakeClock):
    """One that moves by itself, so many times as fast as the machine's, and can be moved by hand all the same."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._running = HurriedClock(SystemClock(), speed)
        self._began = self._running.monotonic()

    def monotonic(self) -> float:
        """Return the monotonic time."""
        return super().monotonic() + self._running.monotonic() - self._began

    def wall(self) -> float:
        """Return the Unix time."""
        return super().wall() + self._running.monotonic() - self._began

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* of that time."""
        await self._running.sleep(seconds)


@dataclass
class World:
    """The parts of it; `outage_world` makes one."""

    simulator: Simulator
    client: UpstreamClient
    log_ins: LogIns
    cache: IpcCache
    service: APIExecutorService
    clock: FakeClock
    events: list[Event] = field(default_factory=list)

    def users(self) -> list[str]:
        """Return everybody."""
        return [account.email for account in self.simulator.world.accounts()]

    def right(self, user: str, resource: Resource[Any]) -> Any:
        """Return what a resource of a user is."""
        owned = self.simulator.truth(user)["engagements"][0]
        return truth_of(owned, user).values[resource.name]

    def fail(self, *faults: Fault) -> None:
        """Let the upstream fail so, and in no other way."""
        self.simulator.set_faults(list(faults))

    def asked(self, user: str | None = None) -> dict[str, int]:
        """Return the calls that arrived since the last time, by path."""
        counted: dict[str, int] = self.simulator.calls(user)["by_path"]
        self.simulator.reset()
        return {name: calls for name, calls in counted.items() if calls}

    async def fill(self, *users: str) -> None:
        """Have these users hold everything."""
        for user in users:
            await self.cache.session(user).warm()
        self.asked()

    async def expired(self, *users: str) -> None:
        """Have these users hold everything, an hour past its ttl."""
        await self.fill(*users)
        self.clock.jump(25 * HOUR)


def keys_of(fault: object) -> str:
    """Return a name for a test of this fault."""
    return "-".join(str(value)[:30] for value in fault.values()) if isinstance(fault, dict) else str(fault)


@asynccontextmanager
async def outage_world(
    *,
    users: int = 12,
    clock: FakeClock | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    latency_scale: float = 0.0,
    limits: Limits | None = None,
    enabled: bool = True,
    user_ids: Callable[[str], str] = str,
) -> AsyncIterator[World]:
    """Start a simulator, and put client, cache and service before it as the bootstrap does.

    Pauses between two tries take no time: they would wait for a clock that nobody moves meanwhile. An account's e-mail
    is what *user_ids* makes of a user's id.
    """
    clock = FakeClock() if clock is None else clock
    async with AsyncExitStack() as stack:
        simulator = Simulator(
            Settings(seed=7, users=users, latency_scale=latency_scale), wall=clock.wall, sleep=sleep
        )
        await simulator.start()
        stack.push_async_callback(simulator.close)
        client = UpstreamClient(simulator.url, clock=Hurried(clock))
        log_ins = LogIns(partial(log_in, client), clock=clock)

        def credentials(user: str) -> Account:
            email = user_ids(user)
            return Account(email, simulator.truth(email)["password"])

        events: list[Event] = []
        cache = IpcCache(
            client, log_ins, credentials, limits=limits, clock=clock, on_event=events.append, enabled=enabled
        )
        service = APIExecutorService(cache, clock=clock)
        stack.push_async_callback(service.close)
        yield World(simulator, client, log_ins, cache, service, clock, events)
