"""Policies that contradict themselves are refused, odd ones warned about, in words that say what to write instead."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Catalog, Policy, SessionCache
from coatcheck.engine.policy import PolicyAdvice
from coatcheck.errors import PolicyError

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ttl": timedelta(0)}, "ttl"),
        ({"ttl": -HOUR}, "ttl"),
        ({"ttl": 3600}, "timedelta"),
        ({"deadline": timedelta(0)}, "deadline"),
        ({"refresh_ahead": 1.0}, "between 0 and 1"),
        ({"refresh_ahead": 1.5}, "between 0 and 1"),
        ({"refresh_ahead": 0.0}, "between 0 and 1"),
        ({"jitter": 1.0}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"stale_if_error": -SECOND}, "stale_if_error"),
        ({"failure_throttle": -SECOND}, "failure_throttle"),
        ({"stale_if_error": HOUR, "failure_throttle": HOUR}, "shorter than stale_if_error"),
        ({"stale_if_error": SECOND, "failure_throttle": HOUR}, "shorter than stale_if_error"),
        ({"soft_timeout": timedelta(0), "stale_if_error": HOUR}, "soft_timeout"),
        ({"soft_timeout": HOUR, "stale_if_error": HOUR}, "shorter than the deadline"),
        ({"negative_ttl": timedelta(seconds=61)}, "negative_ttl"),
        ({"negative_ttl": -SECOND}, "negative_ttl"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(fields: dict[str, Any], says: str) -> None:
    """The message names the field and what to write."""
    with pytest.raises(PolicyError, match=says):
        Policy(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"soft_timeout": SECOND}, "stale_if_error"),
        ({"stale_if_error": HOUR, "failure_throttle": timedelta(0)}, "every get calls"),
        ({"ttl": SECOND, "refresh_ahead": 0.9}, "refresh_ahead"),
    ],
)
def test_an_odd_policy_is_warned_about_when_declared_and_when_set(fields: dict[str, Any], says: str) -> None:
    """It works; the warning says what is odd about it, with the resource's name."""
    catalog: Catalog[str] = Catalog("advice")
    policy = Policy(**fields)

    async def odd(api: str) -> int:
        return len(api)

    with pytest.warns(PolicyAdvice, match=f"odd: .*{says}"):
        resource = catalog.resource(policy)(odd)
    cache = SessionCache(catalog, connect=str)
    with pytest.warns(PolicyAdvice, match=f"odd: .*{says}"):
        cache.set_policy(resource, policy)


def test_a_coherent_policy_is_not_warned_about() -> None:
    """Neither the defaults nor all features together, set with sense."""
    catalog: Catalog[str] = Catalog("sense")
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @catalog.resource
        async def plain(api: str) -> int:
            return len(api)

        @catalog.resource(
            Policy(ttl=HOUR, refresh_ahead=0.9, stale_if_error=HOUR, soft_timeout=SECOND, negative_ttl=SECOND)
        )
        async def full(api: str) -> int:
            return len(api)

    assert ["plain", "full"] == [resource.name for resource in catalog]
