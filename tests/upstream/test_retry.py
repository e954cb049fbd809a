from __future__ import annotations

import asyncio
import math
import random
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.attempts import Attempts, attempts
from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    BreakerOpen,
    LoadError,
    NotFound,
    RateLimited,
    SettingsError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.testing import FakeClock
from coatcheck.testing.settling import settle
from coatcheck.upstream.retry import CALLS_PER_RETRY, MOST_SAVED, Retries, Retry
from upstream.clock import SkippingClock

if TYPE_CHECKING:
    from collections.abc import Callable

DOWN = UpstreamFailed("503", status=503)


class TestDecision:
    @pytest.mark.parametrize(
        "error", [UpstreamUnreachable("reset"), DOWN, UpstreamFailed("500", status=500, retry_after=0.0)]
    )
    def test_what_may_pass_is_tried_once_more(self, error: LoadError) -> None:
        retry = Retry()
        assert retry.wait(error, tried=1, left=30.0, dice=0.5) is not None
        assert retry.wait(error, tried=2, left=30.0, dice=0.5) is None

    @pytest.mark.parametrize(
        "error",
        [
            RateLimited("429"),
            RateLimited("429", retry_after=0.0),
            UpstreamFailed("503", status=503, retry_after=0.1),
            UpstreamFailed("an envelope", status=200),
            UpstreamTimeout("late"),
            BreakerOpen("open"),
            BadUpstreamBody("too large"),
            UpstreamRejected("400", status=400),
            AuthExpired("401"),
            NotFound("404"),
        ],
        ids=repr,
    )
    def test_nothing_else_is(self, error: LoadError) -> None:
        assert Retry(tries=9).wait(error, tried=1, left=1e9, dice=0.0) is None

    def test_waits_are_drawn_and_double(self) -> None:
        retry = Retry(tries=4, backoff=0.4)
        for tried, longest in ((1, 0.4), (2, 0.8), (3, 1.6)):
            assert retry.wait(DOWN, tried=tried, left=30.0, dice=0.0) == pytest.approx(longest / 2)
            assert retry.wait(DOWN, tried=tried, left=30.0, dice=0.5) == pytest.approx(longest * 0.75)
        assert retry.wait(DOWN, tried=4, left=30.0, dice=0.0) is None

    @given(
        st.integers(1, 9),
        st.integers(1, 9),
        st.floats(-10, 10),
        st.floats(0, 1, exclude_max=True),
        st.floats(0.001, 10),
    )
    def test_no_wait_ends_at_the_deadline_or_later(
        self, tries: int, tried: int, left: float, dice: float, backoff: float
    ) -> None:
        wait = Retry(tries=tries, backoff=backoff).wait(DOWN, tried=tried, left=left, dice=dice)
        assert wait is None or (0 < wait < left and tried < tries)

    @pytest.mark.parametrize("figure", ["tries", "backoff"])
    @pytest.mark.parametrize("wrong", [0, math.nan, math.inf])
    def test_figures_are_checked(self, figure: str, wrong: Any) -> None:
        with pytest.raises(SettingsError):
            Retry(**{figure: wrong})


class Upstream:
    """Answers each try with the next of what it was told, then with success."""

    def __init__(self, *errors: LoadError) -> None:
        self.errors = list(errors)
        self.given: list[float] = []

    async def __call__(self, seconds: float) -> str:
        self.given.append(seconds)
        if self.errors:
            raise self.errors.pop(0)
        return "value"


async def run(
    retries: Retries,
    upstream: Upstream,
    *,
    seconds: float = 30.0,
    safe: bool = True,
    gate: Callable[[float], AbstractContextManager[None]] = lambda seconds: nullcontext(),
    again: Callable[[], bool] = lambda: True,
) -> str:
    return await retries.run(upstream, seconds=seconds, safe=safe, gate=gate, again=again)


async def earned(retries: Retries, number: int = 1) -> Retries:
    """Make as many calls as that many retries cost."""
    for _ in range(number * CALLS_PER_RETRY):
        await run(retries, Upstream())
    return retries


@pytest.fixture
def skipping() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
async def retries(skipping: SkippingClock) -> Retries:
    return await earned(Retries(clock=skipping, rng=random.Random(1)))


class TestRun:
    async def test_a_failure_that_passes_is_not_seen(self, retries: Retries, skipping: SkippingClock) -> None:
        """The second try has the time that is left."""
        upstream = Upstream(DOWN)
        assert await run(retries, upstream, seconds=5.0) == "value"
        (wait,) = skipping.slept
        assert 0.2 <= wait <= 0.4
        assert upstream.given == [5.0, pytest.approx(5.0 - wait)]

    async def test_two_tries_are_all(self, retries: Retries) -> None:
        """The last failure is raised, and nothing hangs on it."""
        await earned(retries, 5)
        last = UpstreamUnreachable("reset")
        upstream = Upstream(DOWN, last)
        with pytest.raises(UpstreamUnreachable) as caught:
            await run(retries, upstream)
        assert caught.value is last
        assert caught.value.__context__ is None
        assert len(upstream.given) == 2

    async def test_what_is_not_safe_is_not_repeated(self, retries: Retries) -> None:
        upstream = Upstream(DOWN)
        with pytest.raises(UpstreamFailed):
            await run(retries, upstream, safe=False)
        assert len(upstream.given) == 1

    async def test_nor_what_makes_no_sense(self, retries: Retries, skipping: SkippingClock) -> None:
        """And nobody waits to find that out."""
        with pytest.raises(UpstreamFailed):
            await run(retries, Upstream(DOWN), again=lambda: False)
        assert skipping.slept == []
        assert retries.repeated == 0

    async def test_the_deadline_of_the_load_counts_as_well(self, retries: Retries) -> None:
        """It may be nearer than that of the request, since a log-in came before."""
        now = 1_000.0
        token = attempts.set(Attempts(deadline=now + 0.1))
        try:
            with pytest.raises(UpstreamFailed):
                await run(retries, Upstream(DOWN))
        finally:
            attempts.reset(token)

    async def test_a_wait_that_took_too_long_is_a_timeout(
        self, retries: Retries, skipping: SkippingClock
    ) -> None:
        """The machine may be busy. There is no second try without time for it."""
        skipping.meanwhile = lambda: skipping.advance(30.0)
        upstream = Upstream(DOWN)
        with pytest.raises(UpstreamTimeout):
            await run(retries, upstream)
        assert len(upstream.given) == 1

    async def test_a_cancelled_wait_is_cancelled(self) -> None:
        clock = FakeClock()
        retries = await earned(Retries(clock=clock))
        upstream = Upstream(DOWN)
        waiting = asyncio.create_task(run(retries, upstream))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await clock.advance(60.0)
        assert len(upstream.given) == 1

    async def test_the_requests_of_a_load_are_counted(self, retries: Retries) -> None:
        """Those that left: what the gate held back is none. Outside of a load nobody counts."""
        load = Attempts()
        token = attempts.set(load)
        try:
            await run(retries, Upstream(DOWN))
            await run(retries, Upstream(), safe=False)
            with pytest.raises(BreakerOpen):
                await run(retries, Upstream(), gate=closed)
        finally:
            attempts.reset(token)
        assert load.made == 3
        await run(retries, Upstream())
        assert load.made == 3


def closed(seconds: float) -> AbstractContextManager[None]:
    raise BreakerOpen("open")


class TestBudget:
    async def test_nothing_is_repeated_before_enough_calls_were_made(self, skipping: SkippingClock) -> None:
        retries = Retries(clock=skipping)
        for number in range(1, CALLS_PER_RETRY):
            with pytest.raises(UpstreamFailed):
                await run(retries, Upstream(DOWN))
            assert (retries.calls, retries.repeated) == (number, 0)
        await run(retries, Upstream(DOWN))
        assert (retries.calls, retries.repeated) == (10, 1)
        assert repr(retries) == "<Retries: 1 in 10 calls>"

    async def test_when_everything_fails_a_tenth_is_repeated(self, skipping: SkippingClock) -> None:
        retries = Retries(clock=skipping)
        upstream = Upstream(*[DOWN] * 2_000)
        for _ in range(1_000):
            with pytest.raises(UpstreamFailed):
                await run(retries, upstream)
            assert retries.repeated * 10 <= retries.calls
        assert (retries.calls, retries.repeated, len(upstream.given)) == (1_000, 100, 1_100)

    async def test_good_days_earn_only_so_much(self, skipping: SkippingClock) -> None:
        retries = await earned(Retries(clock=skipping), 5 * MOST_SAVED)
        for _ in range(2 * MOST_SAVED):
            with pytest.raises(UpstreamFailed):
                await run(retries, Upstream(DOWN, DOWN))
        # Failing calls earn like others.
        assert MOST_SAVED <= retries.repeated <= MOST_SAVED + 2

    async def test_what_never_left_or_may_not_be_repeated_earns_nothing(
        self, skipping: SkippingClock
    ) -> None:
        retries = Retries(clock=skipping)
        for _ in range(50):
            await run(retries, Upstream(), safe=False)
            with pytest.raises(BreakerOpen):
                await run(retries, Upstream(), gate=closed)
        assert retries.calls == 0
        with pytest.raises(UpstreamFailed):
            await run(retries, Upstream(DOWN))

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
    def test_never_more_than_a_tenth(self, calls: list[tuple[bool, bool]]) -> None:
        async def make() -> None:
            retries = Retries(clock=SkippingClock())
            left = 0
            for safe, fails in calls:
                upstream = Upstream(*([DOWN, DOWN] if fails else []))
                try:
                    await run(retries, upstream, safe=safe)
                except UpstreamFailed:
                    assert fails
                left += len(upstream.given)
                assert retries.repeated * 10 <= retries.calls <= left

        asyncio.run(make())


async def check_the_deadline() -> None:
    """No wait ends beyond what the caller allows, whatever is left when the first try fails."""
    for left in (0.05, 0.19, 0.2, 0.3, 0.41, 5.0):
        clock = SkippingClock()
        retries = await earned(Retries(clock=clock, rng=random.Random(1)))
        end = clock.monotonic() + left + 10.0

        class Slow(Upstream):
            async def __call__(self, seconds: float) -> str:
                if not self.given:
                    clock.advance(10.0)  # noqa: B023 - used within this turn
                return await super().__call__(seconds)

        upstream = Slow(DOWN)
        with suppress(UpstreamFailed):
            await run(retries, upstream, seconds=left + 10.0)
        assert clock.monotonic() < end
        assert all(seconds > 0 for seconds in upstream.given)


class TestDeadline:
    async def test_no_wait_goes_beyond_it(self) -> None:
        await check_the_deadline()

    async def test_a_retry_that_ignores_it_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        honest = Retry.wait

        def ignoring(self: Retry, error: LoadError, *, tried: int, left: float, dice: float) -> float | None:
            return honest(self, error, tried=tried, left=float("inf"), dice=dice)

        monkeypatch.setattr(Retry, "wait", ignoring)
        with pytest.raises((AssertionError, UpstreamTimeout)):
            await check_the_deadline()
