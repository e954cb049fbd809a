"""How long an entry may be served, decided without I/O: pure functions that take *now*."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

import msgspec

from coatcheck.errors import PolicyError, Unavailable


class PolicyAdvice(UserWarning):
    """A policy that works, and hardly as its author thinks."""


JITTER_STEPS = 255
"""An entry's jitter is a whole number from 0 to this: small integers cost an entry no memory."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How one resource's entries are kept. All spans are ``timedelta``; ages count from the start of the load.

    Attributes:
        ttl: how long an entry is fresh.
        refresh_ahead: the fraction of the ttl after which the next get starts a background load; None for never.
        jitter: how much earlier, as a fraction of that point, a background load may start; spreads a crowd.
        stale_if_error: the grace: how much longer than the ttl an entry may be served when the upstream is
            unavailable; zero for never.
        failure_throttle: after a failed load, how long the old entry is served before the next attempt.
        soft_timeout: how long a caller waits for a load when a stale entry is held; None for to the end.
        deadline: the end of every load: then its key is free whatever the loader does.
        negative_ttl: how long a refusal (401, 403, 404, 410) is remembered.

    Raises:
        PolicyError: the figures contradict each other.
    """

    ttl: timedelta = timedelta(hours=24)
    refresh_ahead: float | None = None
    jitter: float = 0.1
    stale_if_error: timedelta = timedelta(0)
    failure_throttle: timedelta = timedelta(seconds=30)
    soft_timeout: timedelta | None = None
    deadline: timedelta = timedelta(seconds=30)
    negative_ttl: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        for name in ("ttl", "stale_if_error", "failure_throttle", "deadline", "negative_ttl", "soft_timeout"):
            span = getattr(self, name)
            if not isinstance(span, timedelta) and not (name == "soft_timeout" and span is None):
                raise PolicyError(f"{name} must be a timedelta, such as timedelta(hours=1)")
        if self.ttl <= timedelta(0):
            raise PolicyError("ttl must be longer than zero")
        if self.deadline <= timedelta(0):
            raise PolicyError("deadline must be longer than zero")
        if self.refresh_ahead is not None and not (
            _is_number(self.refresh_ahead) and 0 < self.refresh_ahead < 1
        ):
            raise PolicyError(
                "refresh_ahead is a fraction of the ttl: write a number between 0 and 1, such as 0.8"
            )
        if not (_is_number(self.jitter) and 0 <= self.jitter < 1):
            raise PolicyError(
                "jitter is a fraction of the refresh-ahead point: write a number from 0 up to 1"
            )
        self._check_failure_spans()

    def advice(self) -> tuple[str, ...]:
        """Return what is odd about this policy, each with what to write instead; a cache warns of it when declared."""
        zero = timedelta(0)
        found = []
        if self.soft_timeout is not None and self.stale_if_error == zero:
            found.append(
                "soft_timeout does nothing without stale_if_error: nothing stale is ever served; set both"
            )
        if self.stale_if_error > zero and self.failure_throttle == zero:
            found.append(
                "with failure_throttle=0 every get calls a failing upstream; write timedelta(seconds=30)"
            )
        if self.refresh_ahead is not None and self.ttl * (1 - self.refresh_ahead) < timedelta(seconds=1):
            found.append(
                "refresh_ahead leaves a background load less than a second before the ttl ends; lower it"
            )
        return tuple(found)

    def _check_failure_spans(self) -> None:
        zero = timedelta(0)
        if self.stale_if_error < zero:
            raise PolicyError("stale_if_error must not be negative; zero means that nothing stale is served")
        if self.failure_throttle < zero:
            raise PolicyError("failure_throttle must not be negative; zero means a new attempt at every get")
        if not zero <= self.negative_ttl <= timedelta(seconds=60):
            raise PolicyError("negative_ttl must be from zero to 60 seconds: a refusal must be able to end")
        if self.soft_timeout is not None and not zero < self.soft_timeout < self.deadline:
            raise PolicyError("soft_timeout must be longer than zero and shorter than the deadline")
        if zero < self.stale_if_error <= self.failure_throttle:
            raise PolicyError(
                "failure_throttle must be shorter than stale_if_error, or the first failure would be the only attempt"
            )


def _is_number(figure: object) -> bool:
    return isinstance(figure, int | float)


class Freshness(Enum):
    """What may be done with an entry now."""

    FRESH = "fresh"
    AGEING = "ageing"
    STALE = "stale"
    DEAD = "dead"


class Rule(NamedTuple):
    """A policy in force, in seconds, with what earlier policies already let expire.

    Attributes:
        policy: what was declared or set.
        fresh_after: entries whose load started at or before this had expired under an earlier, shorter ttl.
        alive_after: entries whose load started at or before this were dead under an earlier policy.
    """

    policy: Policy
    ttl: float
    ahead: float
    grace: float
    throttle: float
    soft_timeout: float | None
    deadline: float
    negative_ttl: float
    fresh_after: float = -math.inf
    alive_after: float = -math.inf


def in_force(policy: Policy, *, before: Rule | None = None, now: float = 0.0) -> Rule:
    """Return the rule that *policy* makes; what had expired under the rule *before* it stays expired."""
    ttl = policy.ttl.total_seconds()
    rule = Rule(
        policy=policy,
        ttl=ttl,
        ahead=math.inf if policy.refresh_ahead is None else ttl * policy.refresh_ahead,
        grace=policy.stale_if_error.total_seconds(),
        throttle=policy.failure_throttle.total_seconds(),
        soft_timeout=None if policy.soft_timeout is None else policy.soft_timeout.total_seconds(),
        deadline=policy.deadline.total_seconds(),
        negative_ttl=policy.negative_ttl.total_seconds(),
    )
    if before is None:
        return rule
    return rule._replace(
        fresh_after=max(before.fresh_after, now - before.ttl),
        alive_after=max(before.alive_after, now - before.ttl - before.grace),
    )


def expiry(rule: Rule, started: float) -> float:
    """Return when an entry whose load *started* then stops being fresh."""
    return started + rule.ttl if started > rule.fresh_after else -math.inf


def death(rule: Rule, started: float) -> float:
    """Return when an entry whose load *started* then may not be served at all any more."""
    if started <= rule.alive_after:
        return -math.inf
    return started + rule.ttl + rule.grace


def ageing_point(rule: Rule, started: float, jitter: int) -> float:
    """Return when a background load is due: never later than ``refresh_ahead``, earlier by the entry's *jitter*."""
    return started + rule.ahead * (1 - rule.policy.jitter * jitter / JITTER_STEPS)


def judge(rule: Rule, started: float, jitter: int, now: float) -> Freshness:
    """Decide what may be done *now* with an entry whose load *started* then."""
    if now < expiry(rule, started):
        return Freshness.FRESH if now < ageing_point(rule, started, jitter) else Freshness.AGEING
    return Freshness.STALE if now < death(rule, started) else Freshness.DEAD


def may_hide(error: BaseException) -> bool:
    """Tell whether a stale value may be served in place of *error*."""
    return isinstance(error, Unavailable)
