"""A clock with two hands that are moved by hand."""

from __future__ import annotations

from collections.abc import Callable


class HandClock:
    def __init__(self) -> None:
        self.mono = 1_000.0
        self.unix = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.unix

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")

    def advance(self, seconds: float) -> None:
        self.mono += seconds
        self.unix += seconds


class SkippingClock(HandClock):
    """Sleeps by moving its own hands, and notes for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()
        self.advance(seconds)
