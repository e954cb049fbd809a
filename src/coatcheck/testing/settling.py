"""Letting an event loop run until nothing moves, without waiting for time to pass."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = 1_000
"""Turns of the loop after which a condition that still does not hold fails."""

QUIET_TURNS = 25
"""Turns of the loop that end any chain of callbacks which waits for nothing outside."""


async def settle(until: Callable[[], bool] | None = None) -> None:
    """Yield to the loop until *until* holds; without it, for as many turns as any chain of ready tasks takes.

    Raises:
        AssertionError: the condition did not come to hold.
    """
    for _ in range(QUIET_TURNS if until is None else TURNS):
        if until is not None and until():
            return
        await asyncio.sleep(0)  # noqa: TID251 - gives way; no time is waited for
    if until is not None:
        raise AssertionError(f"the condition did not hold after {TURNS} turns of the loop")
