"""Scheduled refresh: background loads for users seen lately, before what they hold ages. Off unless asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from coatcheck.errors import PolicyError

if TYPE_CHECKING:
    import random

    from coatcheck.clock import Clock
    from coatcheck.engine.refresh import Refresher
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.walk import Walker

# Sessions looked at between two looks at what else the loop has to do.
SLICE = 50


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When background loads are begun for users who ask for nothing just now.

    Attributes:
        every: the time between two rounds.
        seen_within: only sessions used so lately are kept fresh; the others may expire.
        max_loads_per_second: the pace of a round.
        jitter: how much earlier, as a fraction of ``every``, a round may begin: instances started together drift apart.

    Raises:
        PolicyError: a figure cannot work.
    """

    every: timedelta = timedelta(minutes=5)
    seen_within: timedelta = timedelta(hours=1)
    max_loads_per_second: float = 5.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        spans: tuple[object, ...] = (self.every, self.seen_within)
        if not all(isinstance(span, timedelta) for span in spans):
            raise PolicyError("every and seen_within must be timedeltas, such as timedelta(minutes=5)")
        if self.every <= timedelta(0) or self.seen_within <= timedelta(0):
            raise PolicyError("every and seen_within must be longer than zero")
        if not self.max_loads_per_second > 0:
            raise PolicyError("max_loads_per_second must be above zero")
        if not 0 <= self.jitter < 1:
            raise PolicyError("jitter is a fraction of 'every': write a number from 0 up to 1")


class Scheduler:
    """Runs the rounds of one cache's schedule."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        sessions: Sessions,
        walker: Walker,
        refresher: Refresher,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._schedule = schedule
        self._sessions = sessions
        self._walker = walker
        self._refresher = refresher
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """Begin a round whenever one is due, for ever."""
        every = self._schedule.every.total_seconds()
        while True:
            await self._clock.sleep(every * (1 - self._schedule.jitter * self._rng.random()))
            await self._round(every)

    async def _round(self, horizon: float) -> None:
        seen_within = self._schedule.seen_within.total_seconds()
        for number, state in enumerate(list(self._sessions.states.values())):
            if not state.closed and self._clock.monotonic() - state.used <= seen_within:
                await self._refresh(state, horizon)
            if number % SLICE == SLICE - 1:
                await self._clock.sleep(0)

    async def _refresh(self, state: State, horizon: float) -> None:
        now = self._clock.monotonic()
        for due in self._walker.due_before(state, now, now + horizon):
            # Time passes between two loads; a session that was cleared meanwhile begins none.
            if self._refresher.ahead(state, due.resource, due.key, due.values, self._clock.monotonic()):
                await self._clock.sleep(1 / self._schedule.max_loads_per_second)
