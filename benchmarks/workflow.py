"""How many upstream calls does a chat session cost, and what does a cached id cost beside one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report import Goal, Report, answer
from benchmarks.timing import race
from coatcheck import SystemClock
from coatcheck.bootstrap import ipc_cache
from coatcheck.cli.chat_session import CALLS_COLD, CALLS_UNCACHED, CALLS_WARM
from coatcheck.cli.replay import Replay, replay
from coatcheck.cli.truth import Truth, Verdict
from coatcheck.ipc.resources import ipc_engagement_id, paas_engagement_id
from coatcheck.settings import Settings
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.upstream.log_ins import Account

if TYPE_CHECKING:
    from benchmarks.timing import Batch
    from coatcheck import Resource
    from coatcheck.bootstrap import IpcCache

PASSES = 10
FEWER = Goal(82, least=True, on_value=True)
# Thousandths of an upstream call.
CACHED_ID = Goal(1, on_value=True)
NONE = Goal(0, on_value=True)


async def measure(quick: bool) -> Report:
    """Chat sessions of many users against the simulator, every answer checked; log-ins count on both sides."""
    report = Report(
        "workflow: how many upstream calls does a chat session cost, and what does a cached id cost beside one?",
        "calls without a cache; for ids one upstream call that is answered at once",
    )
    users = 3 if quick else 50
    async with Simulator(SimulatorSettings(users=users, latency_scale=0)) as simulator:
        truth = Truth(simulator)
        for account in simulator.world.accounts():
            truth.learn(account.email)
        async with cached(simulator, enabled=False) as cache:
            without = await session(simulator, truth, cache)
        async with cached(simulator, enabled=True) as cache:
            with_ = await session(simulator, truth, cache)
            add_calls(report, without, with_, users)
            await add_ids(report, cache, quick)
    return report


class Session:
    """What the passes of all users cost, one pass after the other, and the verdicts on their answers."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.log_ins = 0
        self.seconds: list[float] = []
        self.wrong = 0

    def add(self, calls: dict[str, int], done: Replay) -> None:
        """Count one pass in."""
        self.log_ins += calls.pop("auth", 0)
        self.calls.append(sum(calls.values()))
        self.seconds.append(done.mean())
        self.wrong += done.verdicts.total() - done.verdicts[Verdict.RIGHT]

    def total(self) -> int:
        """Return all calls, log-ins included."""
        return sum(self.calls) + self.log_ins


def cached(simulator: Simulator, *, enabled: bool) -> IpcCache:
    """Return a cache that logs every user in with their own account."""

    def credentials(user: str) -> Account:
        found = simulator.world.account(user)
        assert found is not None
        return Account(found.email, found.password)

    return ipc_cache(Settings(upstream_url=simulator.url), credentials=credentials, enabled=enabled)


async def session(simulator: Simulator, truth: Truth, cache: IpcCache) -> Session:
    """Let all users go through the chat session, pass by pass."""
    result = Session()
    users = [account.email for account in simulator.world.accounts()]
    for _ in range(PASSES):
        simulator.reset()
        done = await replay(cache, truth, users, passes=1, clock=SystemClock(), advance=lambda: None)
        result.add(simulator.calls()["by_path"], done)
    return result


def add_calls(report: Report, without: Session, with_: Session, users: int) -> None:
    """Add the rows on calls, all for one user."""
    uncached = without.calls[0] / users
    report.add("no cache, a pass", uncached, "calls", floor=CALLS_UNCACHED)
    report.add(
        "coatcheck, first pass",
        with_.calls[0] / users,
        "calls",
        floor=uncached,
        goal=Goal(CALLS_COLD, on_value=True),
    )
    report.add(
        "coatcheck, a later pass",
        max(with_.calls[1:]) / users,
        "calls",
        floor=uncached,
        goal=Goal(CALLS_WARM, on_value=True),
    )
    before, after = without.total(), with_.total()
    report.add(f"no cache, {PASSES} passes and log-ins", before / users, "calls", floor=before / users)
    report.add(f"coatcheck, {PASSES} passes and log-ins", after / users, "calls", floor=before / users)
    report.add("fewer calls", 100 * (1 - after / before), "%", floor=100, goal=FEWER)
    report.add("answers that were wrong", without.wrong + with_.wrong, "answers", floor=1, goal=NONE)


async def add_ids(report: Report, cache: IpcCache, quick: bool) -> None:
    """Add what ids cost that are held already, beside an upstream call that has no latency but its own work."""
    session = cache.session(cache.users()[0])
    paas = await session.get(paas_engagement_id)

    async def call(number: int) -> None:
        for _ in range(number):
            await session.call(lambda api: api.ipc_engagement(paas))

    def gets(resource: Resource[int]) -> Batch:
        async def batch(number: int) -> None:
            for _ in range(number):
                await session.get(resource)

        return batch

    result = await race(
        call,
        {
            "coatcheck, cached PaaS id": gets(paas_engagement_id),
            "coatcheck, cached IPC id": gets(ipc_engagement_id),
        },
        rounds=3 if quick else 15,
        seconds=0.002 if quick else 0.02,
    )
    call_seconds = result.value("floor")
    for name in result.seconds:
        if name != "floor":
            ratio = result.ratio(name)
            report.add(name, ratio * 1000, "‰ of a call", floor=1000, ratio=ratio, goal=CACHED_ID)
            report.notes.append(
                f"{name}: {result.value(name) * 1e6:.3g} µs, a call {call_seconds * 1e6:,.0f} µs"
            )


if __name__ == "__main__":
    answer(measure)
