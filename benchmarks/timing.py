"""Taking turns: the floor and each candidate one after the other, again and again, so that noise meets both.

What only computes is measured in processor time of its thread: what else the machine does meanwhile is not counted.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    # Does the job so many times.
    Batch = Callable[[int], Awaitable[None]]


@dataclass
class Race:
    """Seconds for one job, round by round, and its ratio to the floor measured right before it."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """Return the median of the seconds."""
        return median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """Return the median of the ratios."""
        return median(self.ratios[name])


async def race(
    floor: Batch,
    candidates: Mapping[str, Batch],
    *,
    rounds: int,
    seconds: float,
    fewest: int = 1,
    most: int = 1_000_000_000,
) -> Race:
    """Let all take turns for so many rounds, each with as many jobs a turn as take it about so many *seconds*.

    With no fewer than *fewest* jobs, where a turn has a cost of its own.
    """
    result = Race({"floor": []}, {"floor": [1.0]})
    numbers = {name: await _number(batch, seconds, fewest, most) for name, batch in candidates.items()}
    floor_number = await _number(floor, seconds, fewest, most)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, batch in candidates.items():
                least = await _timed(floor, floor_number)
                taken = await _timed(batch, numbers[name])
                result.seconds["floor"].append(least)
                result.seconds.setdefault(name, []).append(taken)
                result.ratios.setdefault(name, []).append(taken / least)
    finally:
        gc.enable()
    return result


async def longest_stall(work: Coroutine[object, object, object]) -> float:
    """Return the longest turn, in seconds of processor time, of an otherwise idle loop beside *work*."""
    longest = 0.0
    task = asyncio.create_task(work)
    before = thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = thread_time()
        longest, before = max(longest, now - before), now
    await task
    return longest


async def _number(batch: Batch, seconds: float, fewest: int, most: int) -> int:
    number = fewest
    while True:
        taken = await _timed(batch, number) * number
        if taken >= seconds / 4 or number >= most:
            return min(most, max(fewest, round(number * seconds / max(taken, 1e-9))))
        number *= 2


async def _timed(batch: Batch, number: int) -> float:
    began = thread_time()
    await batch(number)
    return (thread_time() - began) / number
