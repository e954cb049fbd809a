"""Whether an entry may be served is decided by pure functions of its age."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck import Policy
from coatcheck.engine.policy import (
    JITTER_STEPS,
    Freshness,
    ageing_point,
    death,
    expiry,
    in_force,
    judge,
    may_hide,
)
from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    Forbidden,
    Gone,
    LoadTimeout,
    NotFound,
    PolicyError,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
    WrongType,
)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


FULL = in_force(Policy(ttl=seconds(100), refresh_ahead=0.8, jitter=0, stale_if_error=seconds(50)))


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0, Freshness.FRESH),
        (79.999, Freshness.FRESH),
        (80, Freshness.AGEING),
        (99.999, Freshness.AGEING),
        (100, Freshness.STALE),
        (149.999, Freshness.STALE),
        (150, Freshness.DEAD),
    ],
)
def test_each_span_ends_exactly_where_the_policy_says(age: float, expected: Freshness) -> None:
    """The last moment before a border belongs to the span, the border to the next."""
    assert expected is judge(FULL, 1_000.0, 0, 1_000.0 + age)


def test_without_refresh_ahead_and_grace_an_entry_is_fresh_or_dead() -> None:
    """The default policy has two spans."""
    rule = in_force(Policy(ttl=seconds(100)))
    assert Freshness.FRESH is judge(rule, 0.0, JITTER_STEPS, 99.999)
    assert Freshness.DEAD is judge(rule, 0.0, 0, 100.0)


@given(st.integers(0, JITTER_STEPS), st.floats(0, 0.99), st.floats(0.01, 0.99))
def test_jitter_only_moves_the_refresh_earlier(jitter: int, share: float, ahead: float) -> None:
    """No entry's background load is due later than refresh_ahead says, nor earlier than the jitter allows."""
    rule = in_force(Policy(ttl=seconds(100), refresh_ahead=ahead, jitter=share))
    point = ageing_point(rule, 0.0, jitter)
    assert 100 * ahead * (1 - share) - 1e-9 <= point <= 100 * ahead
    assert 100.0 == expiry(rule, 0.0)


def test_a_shorter_ttl_acts_on_what_is_held() -> None:
    """Deadlines are computed from the policy in force."""
    rule = in_force(Policy(ttl=seconds(10)), before=FULL, now=1_050.0)
    assert Freshness.DEAD is judge(rule, 1_000.0, 0, 1_050.0)
    assert Freshness.FRESH is judge(rule, 1_045.0, 0, 1_050.0)


def test_a_longer_ttl_revives_nothing() -> None:
    """What had expired stays expired, what was dead stays dead, and the rest lives longer."""
    longer = Policy(ttl=seconds(1_000), stale_if_error=seconds(1_000))
    rule = in_force(longer, before=FULL, now=1_200.0)
    assert Freshness.DEAD is judge(rule, 1_050.0, 0, 1_200.0)
    assert Freshness.STALE is judge(rule, 1_100.0, 0, 1_200.0)
    assert Freshness.FRESH is judge(rule, 1_101.0, 0, 1_200.0)
    assert -math.inf == expiry(rule, 1_100.0)
    assert -math.inf == death(rule, 1_050.0)


def test_a_policy_shortened_and_lengthened_again_revives_nothing() -> None:
    """Going back to the first policy does not undo what the second let expire."""
    first = in_force(Policy(ttl=seconds(100)))
    second = in_force(Policy(ttl=seconds(10)), before=first, now=1_050.0)
    third = in_force(Policy(ttl=seconds(100)), before=second, now=1_050.0)
    assert Freshness.FRESH is not judge(third, 1_040.0, 0, 1_050.0)
    assert Freshness.FRESH is judge(third, 1_041.0, 0, 1_050.0)
    fourth = in_force(Policy(ttl=seconds(200)), before=third, now=1_060.0)
    assert Freshness.FRESH is not judge(fourth, 1_040.0, 0, 1_060.0)


@given(st.data())
def test_no_sequence_of_policies_revives_an_entry(data: st.DataObject) -> None:
    """Whatever is set in whatever order, an entry's freshness only ever falls."""
    order = [Freshness.FRESH, Freshness.AGEING, Freshness.STALE, Freshness.DEAD]
    spans = st.integers(1, 50)
    now, rule, worst = 0.0, in_force(Policy(ttl=seconds(data.draw(spans)))), 0
    for _ in range(data.draw(st.integers(1, 6))):
        now += data.draw(st.integers(0, 30))
        worst = max(worst, order.index(judge(rule, 0.0, 0, now)))
        grace = data.draw(st.integers(0, 20))
        policy = Policy(
            ttl=seconds(data.draw(spans)), stale_if_error=seconds(grace), failure_throttle=seconds(0)
        )
        rule = in_force(policy, before=rule, now=now)
        seen = order.index(judge(rule, 0.0, 0, now))
        # Fresh and ageing are both in time; below them nothing comes back.
        assert max(seen, 1) >= max(worst, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": seconds(0)},
        {"ttl": seconds(-1)},
        {"ttl": 3600},
        {"ttl": None},
        {"deadline": seconds(0)},
        {"deadline": 30},
        {"refresh_ahead": 0},
        {"refresh_ahead": 1},
        {"refresh_ahead": 80},
        {"refresh_ahead": math.nan},
        {"refresh_ahead": "0.8"},
        {"jitter": -0.1},
        {"jitter": 1},
        {"jitter": math.nan},
        {"jitter": None},
        {"stale_if_error": seconds(-1)},
        {"stale_if_error": 60},
        {"stale_if_error": seconds(30), "failure_throttle": seconds(30)},
        {"failure_throttle": seconds(-1)},
        {"negative_ttl": seconds(61)},
        {"negative_ttl": seconds(-1)},
        {"soft_timeout": seconds(0)},
        {"soft_timeout": seconds(30)},
        {"soft_timeout": 1},
    ],
    ids=str,
)
def test_a_policy_that_contradicts_itself_says_what_to_write(wrong: dict[str, Any]) -> None:
    """The error names the figure that is wrong."""
    with pytest.raises(PolicyError, match="|".join(wrong)):
        Policy(**wrong)


@pytest.mark.parametrize(
    ("error", "hidden"),
    [
        (LoadTimeout(""), True),
        (UpstreamTimeout(""), True),
        (UpstreamUnreachable(""), True),
        (UpstreamFailed("", status=503), True),
        (RateLimited(""), True),
        (BadUpstreamBody(""), True),
        (AuthExpired(""), False),
        (Forbidden(""), False),
        (NotFound(""), False),
        (Gone(""), False),
        (WrongType(""), False),
        (ValueError(), False),
        (TimeoutError(), False),
    ],
    ids=lambda each: type(each).__name__,
)
def test_only_an_unavailable_upstream_may_be_hidden(error: Exception, hidden: bool) -> None:
    """A refusal, a bug or a foreign error is never covered up by an old value."""
    assert hidden is may_hide(error)
