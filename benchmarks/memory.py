"""What does an entry take beyond its body, and what do collector, sweep and eviction cost?"""

from __future__ import annotations

import asyncio
import gc
from statistics import median
from time import monotonic

from benchmarks import peers, subject
from benchmarks.footprint import BuildPeer, alone, build_chained, build_flat, build_floor, build_nothing
from benchmarks.report import Goal, Report, answer
from benchmarks.timing import longest_stall
from coatcheck import Limits, SystemClock

SMALL = Goal(1.6)
SHORT = Goal(60, on_value=True)
UNNOTICED = Goal(5, on_value=True)
SIX = len(subject.NAMES)


async def measure(quick: bool) -> Report:
    """Resident memory (RSS) of fresh processes, collected and trimmed; bodies, user ids and decoded values not counted."""
    report = Report(
        "memory: what does an entry take beyond its body, and what do collector, sweep and eviction cost?",
        "a flat dict by (user, resource) with one shared value and a deadline each; an idle loop for stalls",
    )
    owners, fewer = (200, 100) if quick else (100_000, 10_000)
    weigh(report, owners)
    if not quick:
        found, missing = peers.installed()
        report.notes += [f"not installed: {name}" for name in missing]
        weigh_peers(report, fewer, [peer.name for peer in found])
    await stalls(report, owners, rounds=1 if quick else 3)
    report.notes.append(
        "RSS of one fresh process each; peers share one value, so nothing is subtracted; stalls in processor time"
    )
    return report


def weigh(report: Report, owners: int) -> None:
    """Add the rows of coatcheck and the floor."""
    entries = owners * SIX
    names = alone(build_nothing, owners).resident
    floor = alone(build_floor, owners)
    flat = alone(build_flat, owners)
    chained = alone(build_chained, owners)
    least = (floor.resident - names) / entries
    bodies = entries * subject.BODY_BYTES
    chain_bodies = owners * subject.CHAIN_BODY_BYTES
    stored = owners * subject.CHAIN_STORED
    size = f"{owners:,} users"
    report.add(f"floor, {size} x 6", least, "B/entry", floor=least)
    each = (flat.resident - names - bodies) / entries
    report.add(f"coatcheck, {size} x 6", each, "B/entry", floor=least, goal=SMALL)
    # With aliases and keys made of arguments, neither of which the floor has.
    each = (chained.resident - names - chain_bodies) / stored
    report.add(f"coatcheck chained, {size} x 5", each, "B/entry", floor=least)
    collected = floor.collection * 1e3
    report.add("floor gc.collect", collected, "ms", floor=collected)
    report.add("coatcheck gc.collect", flat.collection * 1e3, "ms", floor=collected, goal=SHORT)
    report.add("coatcheck chained gc.collect", chained.collection * 1e3, "ms", floor=collected, goal=SHORT)


def weigh_peers(report: Report, owners: int, names: list[str]) -> None:
    """Add the rows of peers, of fewer users: most take too long to fill."""
    entries = owners * SIX
    empty = alone(build_nothing, owners).resident
    floor = alone(build_floor, owners)
    least = (floor.resident - empty) / entries
    report.add(f"floor, {owners:,} users x 6", least, "B/entry", floor=least)
    for name in names:
        footprint = alone(BuildPeer(name), owners)
        report.add(
            f"{name}, {owners:,} users x 6", (footprint.resident - empty) / entries, "B/entry", floor=least
        )
        report.add(
            f"{name} gc.collect, {owners:,} users x 6",
            footprint.collection * 1e3,
            "ms",
            floor=floor.collection * 1e3,
        )


class Sweeping(SystemClock):
    """A clock that can be moved on, and whose long sleep, the sweeper's, ends when told to."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.due = asyncio.Event()
        self.at_rest = asyncio.Event()

    def monotonic(self) -> float:
        """Return the time, moved on."""
        return monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        """Sleep; a long sleep until it is due."""
        if seconds < 100:
            await asyncio.sleep(seconds)
            return
        self.at_rest.set()
        await self.due.wait()
        self.due.clear()

    async def sweep(self) -> None:
        """Let the sweeper go over everything once."""
        self.at_rest.clear()
        self.due.set()
        await self.at_rest.wait()


async def stalls(report: Report, owners: int, *, rounds: int) -> None:
    """Add the longest stalls beside insertions that each evict a session, and beside the sweep.

    The collector stands still meanwhile: what it costs has rows of its own.
    """
    catalog, resources = subject.flat()
    clock = Sweeping()
    limits = Limits(max_bytes=1 << 40, max_sessions=owners)
    idle, evicting, sweeping = [], [], []
    async with subject.roomy(catalog, limits=limits, clock=clock) as cache:
        await subject.fill(cache, subject.users(owners), resources)

        async def insert(newcomers: list[str]) -> None:
            for owner in newcomers:
                await subject.fill(cache, [owner], resources)
                await asyncio.sleep(0)

        gc.collect()
        gc.disable()
        for number in range(rounds):
            idle.append(await longest_stall(asyncio.sleep(1.0 if rounds > 1 else 0.01)))
            newcomers = [f"newcomer-{number}-{each}@example.com" for each in range(owners // 10)]
            evicting.append(await longest_stall(insert(newcomers)))
            sweeping.append(await longest_stall(clock.sweep()))
        clock.ahead = 1e9
        expiring = await longest_stall(clock.sweep())
        gc.enable()
    floor = median(idle) * 1e3
    report.add("floor longest stall", floor, "ms", floor=floor)
    for name, seconds in (
        ("evicting", median(evicting)),
        ("sweeping", median(sweeping)),
        ("sweeping, all dead", expiring),
    ):
        report.add(f"coatcheck {name}: longest stall", seconds * 1e3, "ms", floor=floor, goal=UNNOTICED)


if __name__ == "__main__":
    answer(measure)
