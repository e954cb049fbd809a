"""Time that passes when a test says so, on a loop that the test runs by the turn."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.shuffled_loop import SteppedLoop

START = 1_000.0


class HandClock:
    """Time that stands still until the test lets it pass.

    Attributes:
        ahead: how much further than the time that has passed the wall clock is set.
    """

    def __init__(self, loop: SteppedLoop) -> None:
        self._loop = loop
        self.now = START
        self.ahead = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.ahead

    async def sleep(self, seconds: float) -> None:
        woken = self._loop.create_future()
        heapq.heappush(self._sleepers, (self.now + max(seconds, 0.0), next(self._order), woken))
        if seconds <= 0:
            self._loop.call_soon(self._wake_due)
        await woken

    def pass_time(self, seconds: float) -> None:
        """Wake sleepers in the order of their deadlines, each with all that it sets off before the next."""
        self._loop.drain()
        end = self.now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now = max(self.now, self._sleepers[0][0])
            self._wake_due()
            self._loop.drain()
        self.now = end

    def jump(self, seconds: float) -> None:
        """Let time pass at once, from a callback of the loop: what it wakes runs among all else that is ready."""
        self.now += seconds
        self._wake_due()

    def _wake_due(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self.now:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
