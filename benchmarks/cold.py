"""What does it cost to come in cold: the first get of a leaf, the whole catalog?"""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.report import Goal, Report, answer
from coatcheck import Catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from coatcheck import Resource

WITHIN = Goal(1.05)
# Milliseconds of each upstream call. The longest chain is engagement, center, list.
ENGAGEMENT, CENTER, LISTS, BESIDE = 100, 80, (120, 90, 60), (110, 70)


async def measure(quick: bool) -> Report:
    """Latencies as of a real upstream; what does not depend on each other must overlap."""
    scale, rounds = (1e-4, 1) if quick else (1e-3, 9)
    report = Report(
        "cold: what do the first get of a leaf three dependencies deep and warm() of the whole catalog cost?",
        "the longest chain of upstream latencies, awaited one after the other",
    )
    catalog, leaf = declared(scale)
    times: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        floor = await timed(one_after_the_other([ENGAGEMENT, CENTER, LISTS[0]], scale))
        async with subject.roomy(catalog) as cache:
            first = await timed(cache.session("first").get(leaf))
            whole = await timed(cache.session("second").warm())
        apart = await timed(one_after_the_other([ENGAGEMENT, CENTER, *LISTS, *BESIDE], scale))
        for name, taken in {
            "floor": floor,
            "coatcheck first get": first,
            "coatcheck warm": whole,
            "7 calls in a row": apart,
        }.items():
            times.setdefault(name, []).append(taken)
            ratios.setdefault(name, []).append(taken / floor)
    for name, seconds in times.items():
        report.add(
            name,
            median(seconds) * 1e3,
            "ms",
            floor=median(times["floor"]) * 1e3,
            ratio=median(ratios[name]),
            goal=WITHIN if name.startswith("coatcheck") else None,
        )
    return report


def declared(scale: float) -> tuple[Catalog[None], Resource[Any]]:
    """Return seven stored resources in a chain with branches, and the leaf at the end of the longest."""
    catalog: Catalog[None] = Catalog("cold")

    @catalog.resource
    async def engagement(api: None) -> tuple[int, ...]:
        await asyncio.sleep(ENGAGEMENT * scale)
        return (7, 8)

    @catalog.derived
    def engagement_id(engagement: tuple[int, ...]) -> int:
        return engagement[0]

    @catalog.resource
    async def center(api: None, engagement_id: int) -> int:
        await asyncio.sleep(CENTER * scale)
        return engagement_id + 1

    def a_list(place: int) -> Resource[Any]:
        async def loader(api: None, center: int) -> str:
            await asyncio.sleep(LISTS[place] * scale)
            return subject.TEXT

        loader.__name__ = f"list_{place}"
        return catalog.resource(loader)

    def beside(place: int) -> Resource[Any]:
        async def loader(api: None, engagement_id: int) -> str:
            await asyncio.sleep(BESIDE[place] * scale)
            return subject.TEXT

        loader.__name__ = f"beside_{place}"
        return catalog.resource(loader)

    leaves = [a_list(place) for place in range(len(LISTS))]
    for place in range(len(BESIDE)):
        beside(place)
    return catalog, leaves[0]


async def one_after_the_other(latencies: list[int], scale: float) -> None:
    """Wait as calls in a row would."""
    for latency in latencies:
        await asyncio.sleep(latency * scale)


async def timed(work: Awaitable[object]) -> float:
    """Return how long it took."""
    began = perf_counter()
    await work
    return perf_counter() - began


if __name__ == "__main__":
    answer(measure)
