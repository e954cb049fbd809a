"""Refresh ahead: a background load once an entry has aged past its policy's fraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coatcheck.engine.stats import Cause

if TYPE_CHECKING:
    from asyncio import Future

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.loads import Loads
    from coatcheck.engine.state import State


class Refresher:
    """Begins background loads: one for a key, and so many at once.

    A background load that fails is counted and not tried again before the failure throttle; the entry stays.
    """

    def __init__(self, loads: Loads, limits: Limits) -> None:
        self._loads = loads
        self._limit = limits.max_refreshes
        self._running = 0

    def ahead(
        self, state: State, resource: Resource[Any], key: str, values: tuple[object, ...], now: float
    ) -> bool:
        """Begin a background load if none runs, the last did not just fail and there is room; tell whether it did."""
        entry = state.entry(key)
        if entry is None or now < entry.retry_at or state.closed or self._running >= self._limit:
            return False
        if state.flights is not None and state.flights.running(key) is not None:
            return False
        flight = self._loads.launch(state, resource, key, values, cause=Cause.REFRESH, forced=False)
        self._running += 1
        flight.landed.add_done_callback(self._ended)
        return True

    def reset(self) -> None:
        """Forget the loads of a loop that has ended."""
        self._running = 0

    def _ended(self, _landed: Future[Any]) -> None:
        self._running -= 1
