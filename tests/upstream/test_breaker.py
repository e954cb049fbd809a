from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    BreakerOpen,
    CacheClosed,
    Forbidden,
    NotFound,
    RateLimited,
    SettingsError,
    Unavailable,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.upstream.breaker import Breaker, BreakerState

if TYPE_CHECKING:
    from upstream.clock import HandClock

FAILURES = [UpstreamTimeout("late"), UpstreamUnreachable("broken"), UpstreamFailed("503", status=503)]
SIGNS_OF_LIFE = [
    RateLimited("429", retry_after=5.0),
    AuthExpired("401"),
    Forbidden("403"),
    NotFound("404"),
    UpstreamRejected("400", status=400),
    BadUpstreamBody("too large"),
]


class Request:
    """One request, let through and ended when the test says so."""

    def __init__(self, breaker: Breaker, seconds: float = 30.0) -> None:
        self._guard = breaker.guard(seconds)
        self._guard.__enter__()

    def end(self, error: BaseException | None = None) -> None:
        if error is None:
            self._guard.__exit__(None, None, None)
        else:
            assert not self._guard.__exit__(type(error), error, None)

    def fail(self) -> None:
        self.end(UpstreamFailed("500", status=500))


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        Request(breaker).fail()


def opened(clock: HandClock, kind: type[Breaker] = Breaker) -> Breaker:
    breaker = kind(clock=clock, threshold=3)
    fail(breaker, 3)
    return breaker


def state(breaker: Breaker) -> str:
    return breaker.state().state


def turned_away(breaker: Breaker) -> BreakerOpen:
    assert breaker.refuses()
    with pytest.raises(BreakerOpen) as caught:
        Request(breaker)
    return caught.value


class TestClosed:
    @pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
    def test_failures_in_a_row_open_it(self, clock: HandClock, error: Unavailable) -> None:
        breaker = Breaker(clock=clock, threshold=3)
        for _ in range(3):
            assert state(breaker) == "closed"
            assert not breaker.refuses()
            Request(breaker).end(error)
        assert breaker.state() == BreakerState(state="open", failures=3, opened=1, retry_in=10.0)

    @pytest.mark.parametrize("answer", [None, *SIGNS_OF_LIFE], ids=lambda answer: type(answer).__name__)
    def test_any_answer_begins_a_new_row(self, clock: HandClock, answer: BaseException | None) -> None:
        """Also one that this user may not have, or that is nonsense: somebody is there who answers."""
        breaker = Breaker(clock=clock, threshold=3)
        for _ in range(5):
            fail(breaker, 2)
            Request(breaker).end(answer)
        assert breaker.state() == BreakerState(state="closed", failures=0, opened=0, retry_in=None)

    @pytest.mark.parametrize(
        "error", [asyncio.CancelledError(), CacheClosed("closed"), ValueError("ours")], ids=repr
    )
    def test_what_says_nothing_about_the_upstream_is_not_counted(
        self, clock: HandClock, error: BaseException
    ) -> None:
        breaker = Breaker(clock=clock, threshold=3)
        fail(breaker, 2)
        Request(breaker).end(error)
        assert breaker.state().failures == 2

    def test_a_request_cancelled_when_its_time_was_up_has_failed(self, clock: HandClock) -> None:
        """A load that is given up at its deadline takes its request along; an upstream that hangs must still show."""
        breaker = Breaker(clock=clock, threshold=3)
        for _ in range(3):
            request = Request(breaker, 7.0)
            clock.advance(7.0)
            request.end(asyncio.CancelledError())
        assert state(breaker) == "open"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"threshold": 0},
            {"threshold": math.nan},
            {"threshold": math.inf},
            {"open_for": 0},
            {"open_for": 61},
            {"open_for": math.nan},
            {"longest": math.nan},
            {"longest": math.inf},
        ],
        ids=str,
    )
    def test_a_breaker_that_would_never_open_or_never_close_is_refused(self, wrong: dict[str, float]) -> None:
        """With a threshold of NaN an upstream that is down would be asked for ever, and nobody be told."""
        with pytest.raises(SettingsError, match="positive and finite"):
            Breaker(**wrong)  # type: ignore[arg-type]


class TestOpen:
    def test_nothing_leaves_until_its_time_has_passed(self, clock: HandClock) -> None:
        breaker = opened(clock)
        for left in (10.0, 6.0, 2.0):
            error = turned_away(breaker)
            assert error.retry_after == left
            assert str(error) == "the upstream failed 3 times in a row and is left alone"
            clock.advance(4.0)
        assert state(breaker) == "half_open"
        assert not breaker.refuses()

    def test_one_failure_is_none_in_a_row(self, clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
        breaker = Breaker(clock=clock, threshold=1)
        fail(breaker)
        assert str(turned_away(breaker)) == "the upstream failed once and is left alone"
        assert ["the upstream failed once and is left alone for 10 s"] == [
            each.getMessage() for each in caplog.records
        ]

    def test_the_wall_clock_does_not_matter(self, clock: HandClock) -> None:
        breaker = opened(clock)
        clock.unix += 86_400
        turned_away(breaker)

    def test_its_repr_is_its_state(self, clock: HandClock) -> None:
        assert repr(opened(clock)) == (
            "<Breaker BreakerState(state='open', failures=3, opened=1, retry_in=10.0)>"
        )


class TestHalfOpen:
    def test_one_probe_leaves_and_its_answer_closes(self, clock: HandClock) -> None:
        breaker = opened(clock)
        clock.advance(10.0)
        probe = Request(breaker)
        for _ in range(3):
            assert turned_away(breaker).retry_after == 0.0
        assert state(breaker) == "half_open"
        probe.end()
        assert breaker.state() == BreakerState(state="closed", failures=0, opened=1, retry_in=None)
        fail(breaker, 2)
        assert state(breaker) == "closed"

    @pytest.mark.parametrize("answer", SIGNS_OF_LIFE, ids=lambda answer: type(answer).__name__)
    def test_a_refusal_is_an_answer(self, clock: HandClock, answer: BaseException) -> None:
        breaker = opened(clock)
        clock.advance(10.0)
        Request(breaker).end(answer)
        assert state(breaker) == "closed"

    def test_each_failed_probe_doubles_the_time_up_to_a_minute(self, clock: HandClock) -> None:
        breaker = opened(clock)
        spans = []
        for _ in range(5):
            left = breaker.state().retry_in
            assert left is not None
            spans.append(left)
            clock.advance(left)
            fail(breaker)
        assert spans == [10.0, 20.0, 40.0, 60.0, 60.0]
        assert breaker.state().opened == 6
        clock.advance(60.0)
        Request(breaker).end()
        fail(breaker, 3)
        assert breaker.state().retry_in == 10.0

    def test_a_probe_that_never_ends_keeps_its_place_for_its_time_only(self, clock: HandClock) -> None:
        """Then another may leave; what the first tells after all is not heard."""
        breaker = opened(clock)
        clock.advance(10.0)
        lost = Request(breaker, 7.0)
        clock.advance(6.9)
        turned_away(breaker)
        clock.advance(0.1)
        probe = Request(breaker)
        lost.fail()
        assert state(breaker) == "half_open"
        turned_away(breaker)
        probe.end()
        assert state(breaker) == "closed"


# -- checks that a mutant must not pass ------------------------------------------------------------------------------


def check_a_cancelled_probe_frees_its_place(clock: HandClock, kind: type[Breaker]) -> None:
    breaker = opened(clock, kind)
    clock.advance(10.0)
    Request(breaker).end(asyncio.CancelledError())
    assert breaker.state() == BreakerState(state="half_open", failures=3, opened=1, retry_in=0.0)
    assert not breaker.refuses()
    Request(breaker).end()
    assert state(breaker) == "closed"


def check_a_late_answer_does_not_close(clock: HandClock, kind: type[Breaker]) -> None:
    breaker = kind(clock=clock, threshold=3)
    while_open, while_probing = Request(breaker), Request(breaker)
    fail(breaker, 3)
    while_open.end()
    assert state(breaker) == "open"
    clock.advance(10.0)
    probe = Request(breaker)
    while_probing.end()
    assert state(breaker) == "half_open"
    assert breaker.refuses()
    probe.fail()
    assert breaker.state().retry_in == 20.0


def check_a_late_failure_does_not_open(clock: HandClock, kind: type[Breaker]) -> None:
    breaker = kind(clock=clock, threshold=3)
    late = [Request(breaker) for _ in range(6)]
    fail(breaker, 3)
    late.pop().fail()
    assert breaker.state() == BreakerState(state="open", failures=3, opened=1, retry_in=10.0)
    clock.advance(10.0)
    probe = Request(breaker)
    late.pop().fail()
    assert state(breaker) == "half_open"
    probe.end()
    for request in late:
        request.fail()
    assert breaker.state() == BreakerState(state="closed", failures=0, opened=1, retry_in=None)


class KeepsThePlace(Breaker):
    """Frees the probe's place only when it tells something."""

    def _enter(self, seconds: float) -> object:
        token = super()._enter(seconds)
        # Wrapped in a tuple it is not recognised as the probe in the end.
        return token if token is self._period else (token,)


class HearsLateAnswers(Breaker):
    def _answered(self, token: object) -> None:
        super()._answered(self._probe if self._period is None else self._period)
        if self._period is None:
            self._period = object()


class HearsLateFailures(Breaker):
    def _failed(self, token: object) -> None:
        super()._failed(self._probe if self._period is None else self._period)


CHECKS = [
    (check_a_cancelled_probe_frees_its_place, KeepsThePlace),
    (check_a_late_answer_does_not_close, HearsLateAnswers),
    (check_a_late_failure_does_not_open, HearsLateFailures),
]


@pytest.mark.parametrize(("check", "mutant"), CHECKS, ids=lambda value: value.__name__)
def test_what_is_told_is_heard_by_identity(clock: HandClock, check: object, mutant: type[Breaker]) -> None:
    """Only of the period that still lasts; and each check can fail."""
    assert callable(check)
    check(clock, Breaker)
    with pytest.raises((AssertionError, BreakerOpen)):
        check(clock, mutant)
