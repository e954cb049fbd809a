"""Event loops that a test runs by the turn, in the usual order or in another one for every seed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

MOST_TURNS = 20_000
"""Turns after which a loop that does not come to rest fails."""


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop for code in memory: it runs so many turns, or until nothing is ready any more."""

    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self._draining = False

    def turn(self, number: int = 1) -> None:
        """Run *number* turns."""
        for _ in range(number):
            self.stop()
            self.run_forever()

    def drain(self) -> None:
        """Run until nothing is ready.

        Raises:
            AssertionError: it does not come to rest.
        """
        if not self._pending():
            return
        self._draining = True
        self._turns_left = MOST_TURNS
        try:
            self.run_forever()
        finally:
            self._draining = False
        assert self._turns_left > 0, f"the loop did not come to rest in {MOST_TURNS} turns"

    def _pending(self) -> int:
        return len(self._ready)

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self._draining:
            self._turns_left -= 1
            if not self._pending() or self._turns_left <= 0:
                self.stop()


class ShuffledLoop(SteppedLoop):
    """Runs what is ready in an order that *seed* decides, and holds back about a third for the next turn.

    Any order that it finds is one that the plain loop could have come to with other timings of what is awaited. Sockets
    rely on the usual order, so it is for code in memory only.
    """

    HELD_BACK = 1 / 3

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._held: list[asyncio.Handle] = []

    def _pending(self) -> int:
        return len(self._ready) + len(self._held)

    def _run_once(self) -> None:
        ready = [*self._held, *self._ready]
        self._ready.clear()
        self._chance.shuffle(ready)
        now = [handle for handle in ready if self._chance.random() >= self.HELD_BACK] or ready[:1]
        running = {id(handle) for handle in now}
        self._held = [handle for handle in ready if id(handle) not in running]
        self._ready.extend(now)
        super()._run_once()
