"""Time, injected: the only module that reads a clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What coatcheck needs of time. All figures are seconds."""

    def monotonic(self) -> float:
        """Return a time that never goes back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Return the Unix time, which may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* of monotonic time."""
        ...


class SystemClock:
    """The machine's clock."""

    # The built-ins themselves: a Python frame around them would cost a hit a quarter of its time.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* of monotonic time."""
        await asyncio.sleep(seconds)
