from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    BreakerOpen,
    Forbidden,
    LoadError,
    RateLimited,
    UpstreamFailed,
)
from coatcheck.upstream.cooldown import DEFAULT_PAUSE, Cooldown, Cooldowns, asked_pause
from coatcheck.upstream.tokens import authorised
from upstream.secrets import CANARY, assert_silent

if TYPE_CHECKING:
    from upstream.clock import HandClock

ANN = f"ann@{CANARY}"
BOB = f"bob@{CANARY}"


class Exact(random.Random):
    """Draws no jitter."""

    def random(self) -> float:
        return 0.0


@pytest.fixture
def cooldowns(clock: HandClock) -> Cooldowns:
    return Cooldowns(clock=clock, rng=Exact())


def left(cooldown: Cooldown) -> float | None:
    """Return what a request would be told now; None if it may leave."""
    try:
        cooldown.check()
    except RateLimited as error:
        assert_silent(error)
        return error.retry_after
    return None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimited("429", retry_after=7.0), 7.0),
        (RateLimited("429", retry_after=0.0), 0.0),
        (RateLimited("429", retry_after=-3.0), 0.0),
        (RateLimited("429", retry_after=1e9), 300.0),
        (RateLimited("429"), DEFAULT_PAUSE),
        (UpstreamFailed("503", status=503, retry_after=7.0), 7.0),
        (UpstreamFailed("503", status=503), 0.0),
        (BreakerOpen("open", retry_after=7.0), 0.0),
        (BadUpstreamBody("no JSON"), 0.0),
        (Forbidden("403"), 0.0),
    ],
    ids=repr,
)
def test_who_asks_for_a_pause_gets_it(error: LoadError, seconds: float) -> None:
    assert asked_pause(error) == seconds


class TestPause:
    def test_it_lasts_as_long_as_was_asked(self, clock: HandClock, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        assert left(ann) is None
        ann.note(RateLimited("429", retry_after=7.0))
        assert left(ann) == 7.0
        clock.advance(6.5)
        assert left(ann) == 0.5
        clock.advance(0.5)
        assert left(ann) is None

    def test_it_is_one_users(self, cooldowns: Cooldowns) -> None:
        cooldowns.of(ANN).note(RateLimited("429", retry_after=7.0))
        assert left(cooldowns.of(BOB)) is None

    def test_and_all_who_act_for_this_user_keep_it(self, clock: HandClock, cooldowns: Cooldowns) -> None:
        """Those made before and after; so a log-out is no way around it."""
        before, between = cooldowns.of(ANN), cooldowns.of(ANN)
        between.note(RateLimited("429", retry_after=7.0))
        del between
        assert left(before) == left(cooldowns.of(ANN)) == 7.0

    def test_a_shorter_one_does_not_shorten_it(self, clock: HandClock, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        for seconds in (7.0, 3.0, 9.0, 9.0):
            ann.note(RateLimited("429", retry_after=seconds))
        assert left(ann) == 9.0
        clock.advance(7.0)
        assert left(ann) == 2.0
        clock.advance(2.0)
        assert left(ann) is None

    def test_it_is_drawn_a_little_longer_never_shorter(self, clock: HandClock) -> None:
        cooldowns = Cooldowns(clock=clock, rng=random.Random(1))
        drawn = set()
        for user in range(100):
            one = cooldowns.of(user)
            one.note(RateLimited("429", retry_after=10.0))
            seconds = left(one)
            assert seconds is not None
            assert 10.0 <= seconds <= 11.0
            drawn.add(seconds)
        assert len(drawn) > 50

    def test_it_never_exceeds_five_minutes(self, clock: HandClock) -> None:
        cooldowns = Cooldowns(clock=clock, rng=random.Random(1))
        cooldowns.of(ANN).note(RateLimited("429", retry_after=299.0))
        assert cooldowns.remaining(ANN) <= 300.0

    def test_the_wall_clock_does_not_matter(self, clock: HandClock, cooldowns: Cooldowns) -> None:
        cooldowns.of(ANN).note(RateLimited("429", retry_after=7.0))
        clock.unix += 86_400
        assert left(cooldowns.of(ANN)) == 7.0


class TestMemory:
    def test_what_has_passed_leaves_nothing_behind(self, clock: HandClock, cooldowns: Cooldowns) -> None:
        for number in range(100):
            for seconds in (1.0, 2.0, 1.5):
                cooldowns.of(f"{CANARY}{number}").note(RateLimited("429", retry_after=seconds))
        assert len(cooldowns) == 100
        clock.advance(2.0)
        cooldowns.of(ANN).note(RateLimited("429", retry_after=1.0))
        assert (len(cooldowns), len(cooldowns._ends), len(cooldowns._queue)) == (1, 1, 1)

    def test_looking_occupies_nothing(self, cooldowns: Cooldowns) -> None:
        for number in range(100):
            assert left(cooldowns.of(number)) is None
        assert not cooldowns._ends
        assert not cooldowns._queue

    def test_no_repr_shows_a_user(self, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        ann.note(RateLimited("429", retry_after=7.0))
        assert repr(cooldowns) == "<Cooldowns: 1 users pause>"
        assert repr(ann) == "<Cooldown: 7.0 s>"


class TestGuard:
    def test_nothing_is_entered_during_a_pause(self, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        with pytest.raises(RateLimited), ann.guard():
            raise RateLimited("429", retry_after=7.0)
        with pytest.raises(RateLimited) as caught, ann.guard():
            pytest.fail("entered")
        assert caught.value.retry_after == 7.0
        assert_silent(caught.value)

    def test_being_turned_away_prolongs_nothing(self, clock: HandClock) -> None:
        cooldowns = Cooldowns(clock=clock, rng=random.Random(1))
        ann = cooldowns.of(ANN)
        ann.note(RateLimited("429", retry_after=7.0))
        asked = left(ann)
        for _ in range(100):
            with pytest.raises(RateLimited), ann.guard():
                pytest.fail("entered")
        assert left(ann) == asked

    def test_noting_lets_in(self, cooldowns: Cooldowns) -> None:
        """What has come already is taken in, although the user pauses since."""
        ann = cooldowns.of(ANN)
        ann.note(RateLimited("429", retry_after=7.0))
        with ann.noting():
            pass
        with pytest.raises(RateLimited), ann.noting():
            raise RateLimited("429", retry_after=9.0)
        assert left(ann) == 9.0


class TestAuthorised:
    """A log-in is a request of the user's as well."""

    class Tokens:
        def __init__(self, error: LoadError | None = None) -> None:
            self.asked = 0
            self.error = error

        async def token(self) -> str:
            self.asked += 1
            if self.error is not None:
                raise self.error
            return "token"

        async def renew(self, rejected: str) -> str:
            return await self.token()

        def forget(self) -> None: ...

    async def test_no_token_is_asked_for_during_a_pause(self, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        ann.note(RateLimited("429", retry_after=7.0))
        tokens = self.Tokens()
        with pytest.raises(RateLimited):
            await authorised(tokens, lambda token: pytest.fail("called"), cooldown=ann)
        assert tokens.asked == 0

    async def test_nor_another_one(self, cooldowns: Cooldowns) -> None:
        """Another call of this user was told to pause meanwhile."""
        ann = cooldowns.of(ANN)
        tokens = self.Tokens()

        async def call(token: str) -> None:
            ann.note(RateLimited("429", retry_after=7.0))
            raise AuthExpired("401")

        with pytest.raises(RateLimited):
            await authorised(tokens, call, cooldown=ann)
        assert tokens.asked == 1

    async def test_what_a_log_in_asks_for_is_noted(self, cooldowns: Cooldowns) -> None:
        ann = cooldowns.of(ANN)
        tokens = self.Tokens(RateLimited("429", retry_after=7.0))
        with pytest.raises(RateLimited):
            await authorised(tokens, lambda token: pytest.fail("called"), cooldown=ann)
        assert left(ann) == 7.0
