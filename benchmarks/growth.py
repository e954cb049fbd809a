"""Do hit cost and memory stay in proportion from 1,000 sessions to 1,000,000?"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.footprint import resident
from benchmarks.report import Goal, Report, answer
from benchmarks.timing import race

if TYPE_CHECKING:
    from benchmarks.timing import Batch
    from coatcheck import Resource, SessionCache

FLAT = Goal(1.3)
LINEAR = Goal(1.3)
# Sessions asked again and again, few enough to stay near the processor whatever the size of the whole.
HOT = 50
PER_SESSION = 2


@dataclass
class Grown:
    """The figures at one size: ratios to the floor of the same run, and bytes."""

    sessions: int
    hot: float
    hot_ratio: float
    floor: float
    scattered: float
    scattered_ratio: float
    resident: float


async def measure(quick: bool) -> Report:
    """Each size in a process of its own, beside a flat dictionary of that size."""
    sizes = (100, 200) if quick else (1_000, 10_000, 100_000, 1_000_000)
    report = Report(
        "growth: do hit cost and memory stay in proportion from 1,000 sessions to 1,000,000?",
        "the same at the smallest size; each cost measured against a flat dict of its size",
    )
    grown = [alone(size, quick) for size in sizes]
    first = grown[0]
    for each in grown:
        size = f"{each.sessions:,} sessions"
        # A few sessions leave the processor's cache misses aside; the floor of the same run evens out the machine.
        report.add(
            f"coatcheck hit, {size}", each.hot, "ns", floor=first.hot, ratio=each.hot_ratio / first.hot_ratio, goal=FLAT
        )  # fmt: skip
    for each in grown:
        report.add(
            f"coatcheck random hit, {each.sessions:,} sessions",
            each.scattered,
            "ns",
            floor=each.scattered / each.scattered_ratio,
            ratio=each.scattered_ratio,
        )
    for each in grown:
        report.add(
            f"coatcheck memory, {each.sessions:,} sessions x {PER_SESSION}",
            each.resident / each.sessions,
            "B/session",
            floor=first.resident / first.sessions,
            goal=LINEAR,
        )
    report.notes.append("memory: RSS with bodies and ids; random hits: ratio to a flat dict of the same size")
    return report


def alone(sessions: int, quick: bool) -> Grown:
    """Measure one size in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_measure, sessions, quick).result()


def _measure(sessions: int, quick: bool) -> Grown:
    return asyncio.run(_measured(sessions, quick))


async def _measured(sessions: int, quick: bool) -> Grown:
    owners = subject.users(sessions)
    catalog, resources = subject.flat()
    cache = subject.roomy(catalog)
    held = resources[:PER_SESSION]
    # What the first use allocates once is no part of a session.
    await subject.fill(cache, ["somebody@example.com"], held)
    before = resident()
    await subject.fill(cache, owners, held)
    size = resident() - before
    look_up = subject.looker(subject.dictionary(owners, subject.NAMES[:PER_SESSION]))
    gc.freeze()
    hot = owners[:: max(1, sessions // HOT)][:HOT]
    scattered = owners[:: max(1, sessions // 50_000)]
    rounds, seconds = (2, 0.0005) if quick else (25, 0.01)
    near = await race(
        floor_gets(look_up, hot), {"hit": gets(cache, hot, held[0])}, rounds=rounds, seconds=seconds
    )
    far = await race(
        floor_gets(look_up, scattered), {"hit": gets(cache, scattered, held[0])}, rounds=rounds, seconds=seconds * 4
    )  # fmt: skip
    await cache.aclose()
    return Grown(
        sessions=sessions,
        hot=near.value("hit") * 1e9,
        hot_ratio=near.ratio("hit"),
        floor=near.value("floor") * 1e9,
        scattered=far.value("hit") * 1e9,
        scattered_ratio=far.ratio("hit"),
        resident=size,
    )


def gets(cache: SessionCache[None], owners: list[str], resource: Resource[Any]) -> Batch:
    """Get one resource of one user after the other."""
    going_round = cycle(owners)

    async def batch(number: int) -> None:
        for owner in islice(going_round, number):
            await cache.session(owner).get(resource)

    return batch


def floor_gets(look_up: Any, owners: list[str]) -> Batch:
    """Do the same from the dictionary."""
    going_round = cycle(owners)
    name = subject.NAMES[0]

    async def batch(number: int) -> None:
        for owner in islice(going_round, number):
            await look_up(owner, name)

    return batch


if __name__ == "__main__":
    answer(measure)
