"""How many loads run at once and how many begin in a second: callers first, background loads with what they leave.

All of it belongs to one event loop. Cancelling a waiter costs nobody its turn.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from coatcheck.clock import Clock


class Gate(Protocol):
    """Something that a load waits for before it begins."""

    async def take(self, *, background: bool) -> None:
        """Wait for one's turn."""
        ...

    def give_back(self) -> None:
        """End one's turn."""
        ...


class Line:
    """Those who wait, in the order of their arrival, callers before background loads."""

    def __init__(self) -> None:
        self._callers: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()

    def join(self, *, background: bool) -> asyncio.Future[None]:
        """Return a future that is resolved when it is one's turn."""
        waiter = asyncio.get_running_loop().create_future()
        (self._background if background else self._callers).append(waiter)
        return waiter

    def anybody(self) -> bool:
        """Tell whether somebody waits who was not cancelled."""
        for waiting in (self._callers, self._background):
            while waiting and waiting[0].done():
                waiting.popleft()
        return bool(self._callers or self._background)

    def call(self) -> None:
        """Resolve the first waiter's future. Somebody must be waiting."""
        (self._callers or self._background).popleft().set_result(None)


class Slots:
    """So many at once."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._line = Line()

    async def take(self, *, background: bool) -> None:
        """Wait for a slot."""
        waiter = self._line.join(background=background)
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.give_back()  # called and cancelled at once: the next one's turn
            raise

    def give_back(self) -> None:
        """Free a slot."""
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        while self._free > 0 and self._line.anybody():
            self._free -= 1
            self._line.call()


class Pace:
    """So many beginnings a second, evenly spread.

    Args:
        per_second: how many.
        clock: the time.
        spawn: runs a coroutine as a task that somebody owns.
    """

    def __init__(
        self, per_second: float, *, clock: Clock, spawn: Callable[[Coroutine[None, None, None]], object]
    ) -> None:
        self._interval = 1 / per_second
        self._next = -math.inf
        self._clock = clock
        self._spawn = spawn
        self._line = Line()
        self._counting = False

    async def take(self, *, background: bool) -> None:
        """Wait for the moment at which another load may begin. A waiter cancelled just then leaves it unused."""
        waiter = self._line.join(background=background)
        self._grant()
        await waiter

    def give_back(self) -> None:
        """Do nothing: a moment is not given back."""

    def _grant(self) -> None:
        while not self._counting and self._line.anybody():
            now = self._clock.monotonic()
            if now < self._next:
                self._counting = True
                self._spawn(self._grant_in(self._next - now))
                return
            self._next = now + self._interval
            self._line.call()

    async def _grant_in(self, seconds: float) -> None:
        try:
            await self._clock.sleep(seconds)
        finally:
            self._counting = False
        self._grant()
