"""How many loads run at once and how many begin in a second: callers first, background loads with what they leave.

All of it belongs to one event loop. Cancelling a waiter costs nobody its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from coatcheck.clock import Clock
    from coatcheck.engine.deadlines import Deadlines


class Ticket:
    """Who waits at gates, one after the other, and how urgently.

    Attributes:
        background: comes after callers.
        exempt: takes no slot: somebody who has one waits for this.
    """

    __slots__ = ("_line", "_waiter", "background", "exempt")

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self.exempt = False
        self._line: Line | None = None
        self._waiter: asyncio.Future[bool | None] | None = None

    def stand(self, line: Line | None, waiter: asyncio.Future[bool | None] | None) -> None:
        """Note where this waits now."""
        self._line, self._waiter = line, waiter

    def hasten(self) -> None:
        """Come no more after callers: one has come to wait for this."""
        self.background = False
        if self._line is not None and self._waiter is not None:
            self._line.hasten(self._waiter)

    def excuse(self) -> None:
        """Take no slot any more, and wait for none."""
        self.exempt = True
        if (
            self._line is not None
            and self._line.excuses
            and self._waiter is not None
            and not self._waiter.done()
        ):
            self._waiter.set_result(False)


class Gate(Protocol):
    """Something that a load waits for before it begins."""

    async def take(self, ticket: Ticket) -> bool:
        """Wait for one's turn; tell whether there is something to give back."""
        ...

    def give_back(self) -> None:
        """End one's turn."""
        ...


class Line:
    """Those who wait, in the order of their arrival, callers before background loads.

    Args:
        excuses: one who is excused need not wait here.
    """

    def __init__(self, *, excuses: bool) -> None:
        self.excuses = excuses
        self._callers: deque[asyncio.Future[bool | None]] = deque()
        self._background: deque[asyncio.Future[bool | None]] = deque()

    async def wait(
        self,
        ticket: Ticket,
        *,
        grant: Callable[[], None],
        unused: Callable[[], None] | None = None,
        within: Deadlines | None = None,
    ) -> bool:
        """Wait for one's turn; tell whether it came, or one was excused, or the time was over.

        Args:
            ticket: whose.
            grant: calls those whose turn it is already.
            unused: called when one was called and cancelled at once.
            within: ends the wait; None for waiting as long as it takes.
        """
        # With None its time is over.
        waiter: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        (self._background if ticket.background else self._callers).append(waiter)
        ticket.stand(self, waiter)
        grant()
        if within is not None and not waiter.done():
            within.begin(waiter)
        try:
            return await waiter is True
        except asyncio.CancelledError:
            if unused is not None and not waiter.cancelled() and waiter.result():
                unused()
            raise
        finally:
            ticket.stand(None, None)
            if within is not None:
                within.end(waiter)

    def anybody(self) -> bool:
        """Tell whether somebody waits who was not cancelled."""
        for waiting in (self._callers, self._background):
            while waiting and waiting[0].done():
                waiting.popleft()
        return bool(self._callers or self._background)

    def call(self) -> None:
        """Let the first come. Somebody must be waiting."""
        (self._callers or self._background).popleft().set_result(True)

    def hasten(self, waiter: asyncio.Future[bool | None]) -> None:
        """Put one of the background behind the callers that are here."""
        with contextlib.suppress(ValueError):
            self._background.remove(waiter)
            self._callers.append(waiter)


class Slots:
    """So many at once."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._line = Line(excuses=True)

    async def take(self, ticket: Ticket, *, within: Deadlines | None = None) -> bool:
        """Wait for a slot; tell whether one was taken, which it is not by who is exempt, or when the time is over."""
        if ticket.exempt:
            return False
        return await self._line.wait(ticket, grant=self._grant, unused=self.give_back, within=within)

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
        self._line = Line(excuses=False)
        self._counting = False

    async def take(self, ticket: Ticket) -> bool:
        """Wait for the moment at which another load may begin. One cancelled just then leaves it unused."""
        return await self._line.wait(ticket, grant=self._grant)

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
