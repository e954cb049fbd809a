"""What do readers notice of the end of a TTL?"""

from __future__ import annotations

import asyncio
import gc
import warnings
from datetime import timedelta
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import peers, subject
from benchmarks.report import Goal, Report, answer
from coatcheck import Catalog, Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Get = Callable[[], Awaitable[Any]]

SLOW = 0.005
# Of the TTL. What is loaded then ages no further than this before the readers end.
AHEAD = 0.8
ONE_LOAD = Goal(1.0)
NO_READ = Goal(0.0)


class Upstream:
    """A loader that takes its time, and counts."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.loads = 0

    async def load(self, _user: str, _resource: str) -> str:
        """Fetch."""
        self.loads += 1
        await asyncio.sleep(self.delay)
        return subject.TEXT


async def measure(quick: bool) -> Report:
    """Readers of one key go on through the end of its TTL; with refresh ahead nobody should see it."""
    readers, delay, ttl, rounds = (20, 0.01, 0.05, 1) if quick else (500, 0.1, 0.8, 3)
    report = Report(
        f"expiry: what do {readers} readers notice of the end of a TTL, with a loader of {delay * 1e3:g} ms?",
        "one load for each TTL; every reader kept waiting once; the loader's own time",
    )
    found, missing = ([], []) if quick else peers.installed()
    report.notes += [f"not installed: {name}" for name in missing]
    results: dict[str, list[tuple[int, int, float]]] = {}
    for _ in range(rounds):
        for name, ahead in (("coatcheck refresh ahead", AHEAD), ("coatcheck without", None)):
            upstream = Upstream(delay)
            catalog, text = declared(upstream, ttl, ahead)
            async with subject.roomy(catalog) as cache:
                get = partial(cache.session("user").get, text)
                results.setdefault(name, []).append(await read(get, readers, ttl, upstream))
        if any(peer is peers.Cashews for peer in found):
            upstream = Upstream(delay)
            early = peers.CashewsEarly(upstream.load, 100, ttl=ttl, early=ttl * AHEAD)
            get = partial(early.get, "user", "text")
            results.setdefault(early.name, []).append(await read(get, readers, ttl, upstream))
    for name, rows in results.items():
        ours, ahead_of = name.startswith("coatcheck"), name == "coatcheck refresh ahead"
        slow = median(row[0] for row in rows)
        loads = median(row[1] for row in rows)
        slowest = median(row[2] for row in rows) * 1e3
        report.add(f"{name}: loads", loads, "loads", floor=1, goal=ONE_LOAD if ours else None)
        report.add(
            f"{name}: reads over {SLOW * 1e3:g} ms", slow, "reads", floor=readers, goal=NO_READ if ahead_of else None
        )  # fmt: skip
        report.add(f"{name}: slowest read", slowest, "ms", floor=delay * 1e3)
    return report


def declared(upstream: Upstream, ttl: float, ahead: float | None) -> tuple[Catalog[None], Any]:
    """Return a catalog of one resource with such a TTL."""
    catalog: Catalog[None] = Catalog("expiry")

    async def text(api: None) -> str:
        return await upstream.load("user", "text")

    with warnings.catch_warnings():
        # A TTL of less than a second is no policy to advise on.
        warnings.simplefilter("ignore")
        return catalog, catalog.resource(Policy(ttl=timedelta(seconds=ttl), refresh_ahead=ahead))(text)


async def read(get: Get, readers: int, ttl: float, upstream: Upstream) -> tuple[int, int, float]:
    """Read through one end of the TTL; return the slow reads, the loads of that time and the slowest read."""
    await get()
    before = upstream.loads
    # Past the first end, but not to where the second load would begin.
    until = perf_counter() + ttl * 1.2
    gc.collect()
    reads = await asyncio.gather(*(one_reader(get, until, place / readers) for place in range(readers)))
    return (
        sum(slow for slow, _ in reads),
        upstream.loads - before,
        max(slowest for _, slowest in reads),
    )


async def one_reader(get: Get, until: float, place: float) -> tuple[int, float]:
    """Read about every 50 ms, the readers spread evenly over that time."""
    slow, slowest = 0, 0.0
    await asyncio.sleep(0.05 * place)
    while perf_counter() < until:
        began = perf_counter()
        await get()
        took = perf_counter() - began
        slow, slowest = slow + (took > SLOW), max(slowest, took)
        await asyncio.sleep(0.05)
    return slow, slowest


if __name__ == "__main__":
    answer(measure)
