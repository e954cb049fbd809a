"""From a thread back to who awaits: answers go to their event loops, all of one loop at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def deliver(calls: Sequence[Call[Any]]) -> None:
    """Bring answers that were noted to who awaits them; to be called in any thread."""
    answered = calls
    while answered:
        loop = answered[0].loop
        # Nearly always all are of one loop.
        others = [call for call in answered if call.loop is not loop]
        mine = [call for call in answered if call.loop is loop] if others else answered
        try:  # noqa: SIM105 - suppress() costs more than all the rest of it
            loop.call_soon_threadsafe(_arrive, mine)
        except RuntimeError:
            pass  # the loop is closed
        answered = others


def _arrive(calls: Sequence[Call[Any]]) -> None:
    for call in calls:
        call.arrive()
