"""Trying again: seldom, soon, and never at the expense of a deadline."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from coatcheck.attempts import Attempts, attempts
from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import LoadError, SettingsError, UpstreamFailed, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

T = TypeVar("T")

CALLS_PER_RETRY: Final = 10
"""Calls that must have been made for each that is repeated."""

MOST_SAVED: Final = 10
"""Retries that calls without failures can earn for later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call is tried again.

    Attributes:
        tries: how often at most, the first time included; 1 for never again.
        backoff: the longest wait before the second try, in seconds; it doubles with each further one. How much of
            it is waited is drawn, from the half to the whole.

    Raises:
        SettingsError: a figure is not positive and finite.
    """

    tries: int = 2
    backoff: float = 0.4

    def __post_init__(self) -> None:
        # Asked this way round, since NaN is neither.
        if not (1 <= self.tries < math.inf and 0 < self.backoff < math.inf):
            raise SettingsError("tries and backoff of a retry must be positive and finite")

    def wait(self, error: LoadError, *, tried: int, left: float, dice: float) -> float | None:
        """Return the seconds to wait before the next try, or None if there should be none.

        A connection that broke and a 5xx may be gone the next moment. A timeout has used up the time there was; who
        names the time to come back at is not asked before it; anything else would be answered the same again.

        Args:
            error: how the last try ended.
            tried: how many tries there were.
            left: seconds until the deadline; there is no wait that would not end before it.
            dice: drawn from 0 up to 1.
        """
        if tried >= self.tries or not _may_pass(error):
            return None
        wait = self.backoff * 2 ** (tried - 1) * (1 + dice) / 2
        return wait if wait < left else None


class Retries:
    """Makes the calls of one client, some of them again.

    Retries never exceed a tenth of the calls that may be repeated, counted from the beginning: when everything
    fails, as little as that is added to the upstream's load. So the first calls of a process are not repeated.

    Attributes:
        calls: calls that may be repeated and left at least once.
        repeated: retries.
    """

    def __init__(
        self, retry: Retry | None = None, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        """Begin with nothing earned.

        Args:
            retry: when to try again.
            clock: waits are slept on it.
            rng: draws the waits.
        """
        self._retry = Retry() if retry is None else retry
        self._clock = SystemClock() if clock is None else clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - spreads retries; nothing is kept secret by it
        self.calls = 0
        self.repeated = 0
        # In tenths of a retry, so that it is counted exactly.
        self._earned = 0

    def __repr__(self) -> str:
        return f"<Retries: {self.repeated} in {self.calls} calls>"

    async def run(
        self,
        send: Callable[[float], Awaitable[T]],
        *,
        seconds: float,
        safe: bool,
        gate: Callable[[float], AbstractContextManager[None]],
        again: Callable[[], bool],
    ) -> T:
        """Return what *send* returns in the end.

        Args:
            send: makes one try, within the seconds that it is given.
            seconds: for all tries and the waits between them. A wait must also end before the deadline of the load
                that this runs in.
            safe: whether the call may be repeated.
            gate: entered around each try with the seconds until the next deadline; may raise instead of letting it
                leave.
            again: asked after a failure whether it makes sense to go on.

        Raises:
            LoadError: what the last try raised; `UpstreamTimeout` if a wait took longer than it should have.
        """
        load = attempts.get()
        now = self._clock.monotonic()
        end = now + seconds
        last = end if load is None else min(end, load.deadline)
        tried = 0
        while True:
            try:
                with gate(last - now):
                    self._count(load, earns=safe and tried == 0)
                    return await send(end - now)
            except LoadError as error:
                tried += 1
                left = last - self._clock.monotonic()
                wait = (
                    self._retry.wait(error, tried=tried, left=left, dice=self._rng.random()) if safe else None
                )
                if wait is None or not again() or not self._pay():
                    raise
            # Outside of `except`, so that what goes wrong next does not carry this exception along.
            await self._clock.sleep(wait)
            now = self._clock.monotonic()
            if now >= last:
                raise UpstreamTimeout(f"no answer from the upstream within {seconds:g} s")

    def _count(self, load: Attempts | None, *, earns: bool) -> None:
        if load is not None:
            load.made += 1
        if earns:
            self.calls += 1
            self._earned = min(self._earned + 1, CALLS_PER_RETRY * MOST_SAVED)

    def _pay(self) -> bool:
        if self._earned < CALLS_PER_RETRY:
            return False
        self._earned -= CALLS_PER_RETRY
        self.repeated += 1
        return True


def _may_pass(error: LoadError) -> bool:
    if isinstance(error, UpstreamFailed):
        return error.status >= 500 and not error.retry_after
    return isinstance(error, UpstreamUnreachable)
