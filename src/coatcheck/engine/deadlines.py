"""Waits that must not last for ever: one sleeping task ends all those that may last equally long."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coatcheck.clock import Clock


class Deadlines:
    """Resolves futures with None that are not done in time. Belongs to one event loop.

    A timer for each would cost more than most of what is waited for: a task, and two turns of the loop.

    Args:
        seconds: how long each may take.
        clock: the time.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        # In the order of their deadlines, as all may last equally long.
        self._waits: dict[asyncio.Future[Any], float] = {}
        self._sleeping: asyncio.Task[None] | None = None
        self._last = False

    def begin(self, wait: asyncio.Future[Any]) -> None:
        """Resolve *wait* with None when its time is over, unless it is ended before."""
        self._waits[wait] = self._clock.monotonic() + self._seconds
        if self._sleeping is not None and self._sleeping.cancelling():
            self._lose()
        if self._sleeping is None:
            self._sleeping = asyncio.get_running_loop().create_task(
                self._sleep(), context=contextvars.Context()
            )
            self._sleeping.add_done_callback(self._ended)

    def end(self, wait: asyncio.Future[Any]) -> None:
        """Leave *wait* alone from now on."""
        self._waits.pop(wait, None)
        if self._last:
            self._stop()

    def last(self) -> None:
        """Leave nothing behind when those that are under way have ended: hardly any are to follow."""
        self._last = True
        self._stop()

    def _stop(self) -> None:
        if not self._waits and self._sleeping is not None:
            self._sleeping.cancel()
            self._sleeping = None

    def _lose(self) -> None:
        """Do without the task, which somebody else has ended, as who shuts a loop down ends all: it leaves nothing behind."""
        self._sleeping = None
        self._last = True

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._sleeping:
            return
        self._lose()
        # Nobody would end them any more.
        waits, self._waits = self._waits, {}
        for wait in waits:
            if not wait.done():
                wait.set_result(None)

    async def _sleep(self) -> None:
        """Sleep from deadline to deadline, until nobody waits."""
        while self._waits:
            wait, deadline = next(iter(self._waits.items()))
            left = deadline - self._clock.monotonic()
            if left > 0:
                await self._clock.sleep(left)
            else:
                del self._waits[wait]
                if not wait.done():
                    wait.set_result(None)
        self._sleeping = None
