"""The drop-in service over a simulated upstream, put together for one test and taken apart after it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from coatcheck import Limits, Schedule, SessionCache
from coatcheck.ipc import APIExecutorService, IpcCloud, catalog
from coatcheck.ipc.api import log_in
from coatcheck.simulator import Settings, Simulator
from coatcheck.testing import FakeClock
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account, LogIns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from coatcheck.engine.store import Store

    Accounts = Callable[[str], Account | None]
    Sleep = Callable[[float], Awaitable[None]]

ANN: Final = "user-0001@tenant-0001.example"
"""A user with one engagement."""

TWO: Final = "user-0002@tenant-0002.example"
"""A user with two engagements."""

BOB: Final = "user-0003@tenant-0003.example"

SETTINGS: Final = Settings(seed=7, users=12, latency_scale=0)

# In the order of the contract's table of workflows.
LETTERS: Final = {
    "engagements": "E",
    "conversion": "C",
    "endpoints": "P",
    "vmlist": "V",
    "clusters": "K",
    "departments": "B",
    "environments": "N",
    "zones": "Z",
    "managed": "M",
}


class Gate:
    """What a simulator sleeps in: whoever has to wait waits until the test lets them go."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        """Wait to be let go."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._came.set()
        await waiter

    async def arrived(self, number: int = 1) -> None:
        """Return when so many wait."""
        while len(self._waiting) < number:
            self._came.clear()
            await self._came.wait()

    def open(self) -> None:
        """Let everyone go who waits."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class Hurried:
    """A clock that shows the time of another and waits for nothing: pauses between two tries take no time."""

    def __init__(self, clock: FakeClock) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.wall

    async def sleep(self, seconds: float) -> None:
        """Only give way."""
        await asyncio.sleep(0)


@dataclass
class Rig:
    """The parts of one drop-in service; `rigged` makes it."""

    simulator: Simulator
    client: UpstreamClient
    log_ins: LogIns
    cache: SessionCache[IpcCloud]
    service: APIExecutorService
    clock: FakeClock

    def truth(self, email: str, place: int = 0) -> dict[str, Any]:
        """Return what one of a user's engagements holds."""
        owned: dict[str, Any] = self.simulator.truth(email)["engagements"][place]
        return owned

    def calls(self, email: str | None = None) -> str:
        """Return the calls for data that arrived, a letter for each in the order of the table, and forget them."""
        counted = dict(self.simulator.calls(email)["by_path"])
        counted.pop("auth", None)
        self.simulator.reset()
        return "".join(letter * counted.pop(name, 0) for name, letter in LETTERS.items()) + "".join(counted)

    def log_ins_made(self, email: str | None = None) -> int:
        """Return how many log-ins arrived."""
        made: int = self.simulator.calls(email)["by_path"].get("auth", 0)
        return made

    def tokens_kept(self) -> set[str]:
        """Return whose tokens are kept."""
        return {account.email for account in self.log_ins._kept}


def accounts_of(simulator: Simulator) -> Accounts:
    """Return a look-up of the accounts of the simulator's own users; it knows no others."""

    def account(user: str) -> Account | None:
        try:
            return Account(user, simulator.truth(user)["password"])
        except LookupError:
            return None

    return account


@asynccontextmanager
async def rigged(
    *,
    settings: Settings = SETTINGS,
    clock: FakeClock | None = None,
    sleep: Sleep = asyncio.sleep,
    host: str = "127.0.0.1",
    accounts: Callable[[Simulator], Accounts] = accounts_of,
    cache: type[SessionCache[IpcCloud]] = SessionCache,
    log_ins_of: type[LogIns] = LogIns,
    store: Store | None = None,
    limits: Limits | None = None,
    schedule: Schedule | None = None,
    enabled: bool = True,
    default_email: str | None = None,
    strict: bool = False,
) -> AsyncIterator[Rig]:
    """Start a simulator and put the service before it; close all of it in the end."""
    clock = FakeClock() if clock is None else clock
    async with AsyncExitStack() as stack:
        simulator = Simulator(settings, wall=clock.wall, sleep=sleep)
        await simulator.start(host)
        stack.push_async_callback(simulator.close)
        client = await stack.enter_async_context(UpstreamClient(simulator.url, clock=Hurried(clock)))
        log_ins = log_ins_of(partial(log_in, client), clock=clock)
        stack.push_async_callback(log_ins.aclose)
        account = accounts(simulator)
        sessions = cache(
            catalog,
            connect=lambda user: IpcCloud(client, log_ins.provider(account(user))),
            store=store,
            clock=clock,
            limits=limits,
            schedule=schedule,
            enabled=enabled,
        )
        service = APIExecutorService(sessions, default_email=default_email, strict=strict, clock=clock)
        stack.push_async_callback(service.close)
        yield Rig(simulator, client, log_ins, sessions, service, clock)


def expected(name: str, owned: dict[str, Any]) -> Any:
    """Return what a kept method must answer for one engagement of the simulator's truth."""
    ipc_id = owned["ipc_engagement_id"]
    departments = {"engagement": {"id": ipc_id, "name": owned["tag"]}, "department": owned["departments"]}
    answers: dict[str, Any] = {
        "get_engagement_id": owned["paas_engagement_id"],
        "get_ipc_engagement_id": ipc_id,
        "get_endpoints": owned["endpoints"],
        "get_business_units_list": {
            "success": True,
            "data": departments,
            "engagement": departments["engagement"],
            "departments": departments["department"],
            "ipc_engagement_id": ipc_id,
        },
        "get_environments_list": {
            "success": True,
            "data": owned["environments"],
            "environments": owned["environments"],
            "ipc_engagement_id": ipc_id,
        },
        "get_zones_list": {
            "success": True,
            "data": owned["zones"],
            "zones": owned["zones"],
            "ipc_engagement_id": ipc_id,
        },
    }
    return answers[name]


def slow(**milliseconds: float) -> dict[str, float]:
    """Return a table of latencies in which only these calls take any time."""
    return {**dict.fromkeys((*LETTERS, "auth"), 0.0), **milliseconds}


def with_settings(**changes: Any) -> Settings:
    """Return the usual settings but for these."""
    return replace(SETTINGS, **changes)
