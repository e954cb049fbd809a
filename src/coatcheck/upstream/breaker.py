"""A circuit breaker: an upstream that fails again and again is left alone for a while."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import (
    BreakerOpen,
    LoadError,
    SettingsError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("coatcheck.upstream")

THRESHOLD: Final = 5
"""Failures in a row that open the breaker."""

OPEN_FOR: Final = 10.0
"""Seconds that it stays open at first."""

LONGEST_OPEN: Final = 60.0
"""Seconds that it stays open at most."""

# A 429, a refusal or a body that cannot be read shows that somebody is there who answers.
_FAILURES = (UpstreamTimeout, UpstreamUnreachable, UpstreamFailed)


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker at one moment.

    Attributes:
        state: closed, requests leave; open, none does; half_open, one may leave to find out.
        failures: failures in a row so far.
        opened: how often it has opened, also again after a failed probe.
        retry_in: seconds until a request may leave again, zero when half-open; None when closed.
    """

    state: Literal["closed", "open", "half_open"]
    failures: int
    opened: int
    retry_in: float | None


class Breaker:
    """The breaker of one origin.

    It is closed at first. Failures in a row (timeouts, broken connections, 5xx) open it; then requests are turned
    away at once. When its time has passed, one request may leave as a probe, and the others are still turned away.
    An answer to the probe closes the breaker; its failure opens it again for twice as long.

    What a request tells is heard only if it left in the period that still lasts: one that left before the breaker
    opened says nothing about the upstream as it is now. A cancelled request tells nothing, unless it had used up its
    time: then it is as good as timed out.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        threshold: int = THRESHOLD,
        open_for: float = OPEN_FOR,
        longest: float = LONGEST_OPEN,
    ) -> None:
        """Begin closed.

        Args:
            clock: monotonic time.
            threshold: failures in a row that open it.
            open_for: seconds that it stays open at first; doubled by every probe that fails.
            longest: seconds that it stays open at most.

        Raises:
            SettingsError: a figure is not positive and finite, or the spans contradict each other.
        """
        # Asked this way round, since NaN is neither.
        if not (1 <= threshold < math.inf and 0 < open_for <= longest < math.inf):
            raise SettingsError(
                "a breaker's threshold and spans must be positive and finite, the longest span the longest"
            )
        self._clock = SystemClock() if clock is None else clock
        self._threshold = threshold
        self._open_for = open_for
        self._longest = longest
        self._failures = 0
        self._opened = 0
        self._span = open_for
        # Each closed period and each probe has a token of its own, by which what its requests tell is recognised.
        self._period: object | None = object()
        self._retry_at = 0.0
        self._probe: object | None = None
        self._probe_ends = 0.0

    def __repr__(self) -> str:
        return f"<Breaker {self.state()!r}>"

    def state(self) -> BreakerState:
        """Return how it stands."""
        if self._period is not None:
            return BreakerState(state="closed", failures=self._failures, opened=self._opened, retry_in=None)
        left = max(self._retry_at - self._clock.monotonic(), 0.0)
        return BreakerState(
            state="open" if left > 0 else "half_open",
            failures=self._failures,
            opened=self._opened,
            retry_in=left,
        )

    def refuses(self) -> bool:
        """Tell whether a request would be turned away now."""
        if self._period is not None:
            return False
        now = self._clock.monotonic()
        return now < self._retry_at or (self._probe is not None and now < self._probe_ends)

    @contextmanager
    def guard(self, seconds: float) -> Iterator[None]:
        """Let one request leave within the block, and learn from how the block ends.

        Args:
            seconds: how long the request may take. A probe that takes longer, for whatever reason, no longer keeps
                others from probing.

        Raises:
            BreakerOpen: at once, if no request may leave.
        """
        token = self._enter(seconds)
        ends = self._clock.monotonic() + seconds
        try:
            yield
        except _FAILURES:
            self._failed(token)
            raise
        except LoadError:
            self._answered(token)
            raise
        except asyncio.CancelledError:
            if self._clock.monotonic() >= ends:
                self._failed(token)
            raise
        else:
            self._answered(token)
        finally:
            if token is self._probe:
                self._probe = None

    def _enter(self, seconds: float) -> object:
        if self.refuses():
            wait = max(self._retry_at - self._clock.monotonic(), 0.0)
            raise BreakerOpen(f"the upstream failed {self._so_often()} and is left alone", retry_after=wait)
        if self._period is not None:
            return self._period
        self._probe = probe = object()
        self._probe_ends = self._clock.monotonic() + seconds
        return probe

    def _answered(self, token: object) -> None:
        if token is self._period:
            self._failures = 0
        elif token is self._probe:
            logger.info("the upstream answers again")
            self._failures = 0
            self._span = self._open_for
            self._period = object()

    def _failed(self, token: object) -> None:
        if token is self._period:
            self._failures += 1
            if self._failures >= self._threshold:
                self._open()
        elif token is self._probe:
            self._failures += 1
            self._span = min(2 * self._span, self._longest)
            self._open()

    def _open(self) -> None:
        logger.warning("the upstream failed %s and is left alone for %g s", self._so_often(), self._span)
        self._opened += 1
        self._period = None
        self._retry_at = self._clock.monotonic() + self._span

    def _so_often(self) -> str:
        return "once" if self._failures == 1 else f"{self._failures} times in a row"
