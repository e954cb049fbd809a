"""Time that stands still until a test advances it."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from coatcheck.testing.settling import settle


class FakeClock:
    """A `Clock` for tests.

    Args:
        monotonic: where the monotonic clock starts, in seconds.
        wall: where the Unix time starts, in seconds.
    """

    def __init__(self, *, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<FakeClock at {self._monotonic}: {len(self._sleepers)} asleep>"

    def monotonic(self) -> float:
        """Return the monotonic time."""
        return self._monotonic

    def wall(self) -> float:
        """Return the Unix time."""
        return self._wall

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been advanced by *seconds*; zero only gives way."""
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - gives way; no time is waited for
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: wake sleepers in the order of their deadlines, each with all it sets off before the next."""
        end = self._monotonic + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            deadline, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            # After a jump it may have passed.
            self._move(max(deadline, self._monotonic))
            woken.set_result(None)
            await settle()
        self._move(end)
        await settle()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock on or, with a negative number, back; the monotonic one does not notice."""
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Move on without waking anybody: for code that runs no loop, and for days in which a test wants nothing to happen.

        Sleepers whose time has come meanwhile wake with the next `advance()`.
        """
        self._move(self._monotonic + seconds)

    def _move(self, monotonic: float) -> None:
        self._wall += monotonic - self._monotonic
        self._monotonic = monotonic
