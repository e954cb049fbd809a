"""Pauses that the upstream asked for, kept by user: until one has passed, nothing of that user leaves."""

from __future__ import annotations

import heapq
import itertools
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import LoadError, RateLimited, UpstreamFailed
from coatcheck.upstream.statuses import LONGEST_RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

DEFAULT_PAUSE: Final = 1.0
"""Seconds after a 429 that names no time, or none that can be read."""

JITTER: Final = 0.1
"""How much longer than asked for, as a fraction, a pause may become: those who paused together end apart."""


def asked_pause(error: LoadError) -> float:
    """Return the seconds from 0 to 300 for which *error* asks to be left alone.

    A 429 does, and any 5xx that comes with a ``Retry-After``. A time that has passed, or a negative one, asks for
    nothing; a 429 without a time that can be read asks for `DEFAULT_PAUSE`.
    """
    if isinstance(error, RateLimited):
        seconds = DEFAULT_PAUSE if error.retry_after is None else error.retry_after
    elif isinstance(error, UpstreamFailed) and error.retry_after is not None:
        seconds = error.retry_after
    else:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


class Cooldowns:
    """The pauses of all users at one origin.

    They belong to no session: clearing one, or logging out and in again, ends no pause. One that has passed leaves
    nothing behind.
    """

    def __init__(self, *, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        """Begin without a pause; *rng* draws how much longer than asked for each becomes."""
        self._clock = SystemClock() if clock is None else clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - spreads calls; nothing is kept secret by it
        self._ends: dict[Hashable, float] = {}
        # By end; may hold an earlier end of a pause that was extended. Numbered, since users may not compare.
        self._queue: list[tuple[float, int, Hashable]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Return how many users pause now."""
        self._drop_passed(self._clock.monotonic())
        return len(self._ends)

    def __repr__(self) -> str:
        return f"<Cooldowns: {len(self)} users pause>"

    def of(self, user: Hashable) -> Cooldown:
        """Return the pauses of one user. Costs nothing until there is one."""
        return Cooldown(self, user)

    def remaining(self, user: Hashable) -> float:
        """Return the seconds until the pause of *user* has passed; zero if there is none."""
        now = self._clock.monotonic()
        self._drop_passed(now)
        return self._ends.get(user, now) - now

    def begin(self, user: Hashable, seconds: float) -> None:
        """Let *user* pause for *seconds* or a little longer. A longer pause under way stays as it is."""
        now = self._clock.monotonic()
        self._drop_passed(now)
        end = now + min(seconds * (1 + JITTER * self._rng.random()), LONGEST_RETRY_AFTER)
        if end > self._ends.get(user, now):
            self._ends[user] = end
            heapq.heappush(self._queue, (end, next(self._numbers), user))

    def _drop_passed(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            end, _, user = heapq.heappop(self._queue)
            if self._ends.get(user) == end:
                del self._ends[user]


class Cooldown:
    """The pauses of one user at one origin."""

    def __init__(self, cooldowns: Cooldowns, user: Hashable) -> None:
        """Look them up in *cooldowns*, where all who act for this user find them."""
        self._cooldowns = cooldowns
        self._user = user

    def __repr__(self) -> str:
        return f"<Cooldown: {self._cooldowns.remaining(self._user):.1f} s>"

    def check(self) -> None:
        """Return if a request may leave.

        Raises:
            RateLimited: the user pauses; ``retry_after`` are the seconds that are left.
        """
        left = self._cooldowns.remaining(self._user)
        if left > 0:
            raise RateLimited(
                f"the upstream asked for fewer calls; none of this user's leaves for {left:.1f} s",
                retry_after=left,
            )

    def note(self, error: LoadError) -> None:
        """Begin the pause that *error* asks for, if it does."""
        seconds = asked_pause(error)
        if seconds > 0:
            self._cooldowns.begin(self._user, seconds)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Begin the pause that what is raised within the block asks for."""
        try:
            yield
        except LoadError as error:
            self.note(error)
            raise

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let something leave within the block, as `check` and `noting` do. Guards do not nest.

        Raises:
            RateLimited: the user pauses, and the block is not entered.
        """
        self.check()
        with self.noting():
            yield
