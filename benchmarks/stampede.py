"""What do 1,000 gets of one cold key cost, and whom does one caller's end, or the loader's, touch?"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from benchmarks import peers, subject
from benchmarks.report import Goal, Report, answer
from coatcheck import Catalog, Policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    # Opens a fresh cache over a loader and returns how to get the one key from it.
    Opened = Callable[[peers.Load], AsyncIterator[Callable[[], Awaitable[Any]]]]

PATIENCE = 20.0
ONCE = Goal(1.0)
ALL = Goal(1.0, least=True)
SCENARIOS = ("all wait", "first cancelled", "joiner cancelled", "loader fails")


class LoaderFailed(Exception):
    """What the loader raises when it is to fail."""


@dataclass
class Outcome:
    """How one scenario ended.

    Attributes:
        seconds: until the last caller had its answer.
        computing: seconds of processor time until then.
        loads: how often the loader was called.
        well: callers that ended as they should.
        due: callers that should.
    """

    seconds: float
    computing: float
    loads: int
    well: int
    due: int


async def measure(quick: bool) -> Report:
    """Each scenario on a fresh cache: all wait; the first is cancelled; a joiner is cancelled; the loader fails."""
    callers, delay, rounds = (20, 0.005, 1) if quick else (1_000, 0.05, 5)
    report = Report(
        f"stampede: what do {callers:,} gets of one cold key cost, with a loader of {delay * 1e3:g} ms?",
        "the loader awaited once; one load; every caller not cancelled itself answered",
    )
    candidates: dict[str, Opened] = {"coatcheck": opened}
    if not quick:
        found, missing = peers.installed()
        candidates.update({peer.name: opened_peer(peer) for peer in found})
        report.notes += [f"not installed: {name}" for name in missing]
    floors: list[float] = []
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for number in range(rounds):
        for name, opening in candidates.items():
            began = perf_counter()
            await asyncio.sleep(delay)
            floors.append(perf_counter() - began)
            for scenario in SCENARIOS:
                if number and name != "coatcheck" and scenario != SCENARIOS[0]:
                    continue
                outcome = await play(opening, scenario, callers, delay)
                outcomes.setdefault((name, scenario), []).append(outcome)
    floor = median(floors) * 1e3
    report.add("floor", floor, "ms", floor=floor)
    for (name, scenario), results in outcomes.items():
        ours = name == "coatcheck"
        title = f"{name} {scenario}"
        wall = median(result.seconds for result in results) * 1e3
        worst = min(results, key=lambda result: result.well / result.due)
        if scenario == SCENARIOS[0]:
            report.add(f"{title}: wall", wall, "ms", floor=floor, goal=Goal(1.3) if ours else None)
            computing = median(result.computing for result in results) * 1e3
            report.add(f"{title}: processor time", computing, "ms", floor=floor)
        loads = max(result.loads for result in results)
        report.add(f"{title}: loads", loads, "loads", floor=1, goal=ONCE if ours else None)
        report.add(
            f"{title}: answered well", worst.well, "callers", floor=worst.due, goal=ALL if ours else None
        )
    return report


async def play(opening: Opened, scenario: str, callers: int, delay: float) -> Outcome:
    """Run one scenario on a fresh cache."""
    loads = 0

    async def load(_user: str, _resource: str) -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(delay)
        if scenario == "loader fails":
            raise LoaderFailed
        return subject.TEXT

    gone = {"first cancelled": 0, "joiner cancelled": callers // 2}.get(scenario)
    async for get in opening(load):
        # Nobody pays for the garbage of the one before.
        gc.collect()
        began, began_computing = perf_counter(), thread_time()
        tasks = [asyncio.ensure_future(get()) for _ in range(callers)]
        if gone is not None:
            await asyncio.sleep(delay / 5)
            tasks[gone].cancel()
        _, hanging = await asyncio.wait(tasks, timeout=PATIENCE * delay)
        seconds, computing = perf_counter() - began, thread_time() - began_computing
        wanted = "LoaderFailed" if scenario == "loader fails" else "str"
        ends = Counter(
            end_of(task) for place, task in enumerate(tasks) if place != gone and task not in hanging
        )
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
    return Outcome(seconds, computing, loads, ends[wanted], callers - (gone is not None))


def end_of(task: asyncio.Task[Any]) -> str:
    """Return the type of what a task ended with."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return type(task.result() if error is None else error).__name__


async def opened(load: peers.Load) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Open a fresh coatcheck."""
    catalog: Catalog[None] = Catalog("stampede")

    @catalog.resource(Policy(ttl=timedelta(hours=1)))
    async def text(api: None) -> str:
        loaded: str = await load("user", "text")
        return loaded

    async with subject.roomy(catalog) as cache:
        session = cache.session("user")
        yield lambda: session.get(text)


def opened_peer(peer: Any) -> Opened:
    """Return how to open a fresh cache of a peer."""

    async def opening(load: peers.Load) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        client = peer(load, 100)

        async def get() -> Any:
            return await client.get("user", "text")

        yield get

    return opening


if __name__ == "__main__":
    answer(measure)
