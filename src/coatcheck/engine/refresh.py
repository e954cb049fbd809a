"""Refresh ahead: a background load once an entry has aged past its policy's fraction."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from coatcheck.engine.home import HomeEnded
from coatcheck.engine.stats import Cause

if TYPE_CHECKING:
    from asyncio import Future

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.home import Home
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.loads import Loads
    from coatcheck.engine.state import State


class Refresher:
    """Begins background loads: one for a key, and so many at once.

    A background load that fails is counted and not tried again before the failure throttle; the entry stays.
    """

    def __init__(self, loads: Loads, home: Home, limits: Limits) -> None:
        self._loads = loads
        self._home = home
        self._limit = limits.max_refreshes
        self._running = 0
        # Counts the homes: loads of a former one are no longer among those running.
        self._era = 0
        self._asked: set[tuple[State, str]] = set()

    def ahead(
        self, state: State, resource: Resource[Any], key: str, values: tuple[object, ...], now: float
    ) -> bool:
        """Begin a background load if none runs, the last did not just fail and there is room; tell whether it did."""
        with self._home.step:
            if self._running >= self._limit or not _wanted(state, key, now):
                return False
            flight = self._loads.launch(state, resource, key, values, cause=Cause.REFRESH, forced=False)
            self._running += 1
            flight.landed.add_done_callback(functools.partial(self._ended, self._era))
            return True

    def from_anywhere(
        self, state: State, resource: Resource[Any], key: str, values: tuple[object, ...], now: float
    ) -> None:
        """Do the same soon, asked in any thread; asked often, it is done once."""
        asked = self._asked
        if (state, key) in asked or not _wanted(state, key, now):
            return

        def begin() -> None:
            asked.discard((state, key))
            with contextlib.suppress(HomeEnded):
                self.ahead(state, resource, key, values, now)

        asked.add((state, key))
        self._home.soon(begin)

    def reset(self) -> None:
        """Forget the loads of a loop that has ended."""
        self._running = 0
        self._era += 1
        self._asked = set()

    def _ended(self, era: int, _landed: Future[Any]) -> None:
        if era == self._era:
            self._running -= 1


def _wanted(state: State, key: str, now: float) -> bool:
    if state.entry(key) is None or now < state.retry_at(key) or state.closed:
        return False
    flights = state.flights  # read once: home may end the last of them meanwhile
    return flights is None or flights.running(key) is None
