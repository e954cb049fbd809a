"""From a thread back to who awaits: answers go to their event loops, all of one loop at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class Call(Generic[T]):
    """One call under way, made on an event loop and answered in a thread.

    Who made it may be cancelled or gone, and its loop closed: then the answer goes nowhere, and nobody is harmed.
    """

    __slots__ = ("_error", "_result", "future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self._result: T
        self._error: Exception | None = None

    def succeed(self, result: T) -> None:
        """Note the answer; `deliver` brings it."""
        self._result = result
        self._error = None

    def fail(self, error: Exception) -> None:
        """Note what to raise; `deliver` brings it."""
        self._error = error

    def arrive(self) -> None:
        """Hand over what was noted; to be called on the loop."""
        if self.future.done():
            return
        if self._error is None:
            self.future.set_result(self._result)
        else:
            self.future.set_exception(self._error)


def deliver(calls: Iterable[Call[Any]]) -> None:
    """Bring answers that were noted to who awaits them; to be called in any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call[Any]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, answered in by_loop.items():
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_arrive, answered)


def _arrive(calls: list[Call[Any]]) -> None:
    for call in calls:
        call.arrive()
