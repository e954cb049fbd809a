from __future__ import annotations

import asyncio
import base64
import contextvars
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    LoaderBroke,
    NoCredentials,
    SettingsError,
    UpstreamFailed,
    UpstreamTimeout,
)
from coatcheck.upstream.log_ins import DEFAULT_LIFE, LONGEST_LIFE, Account, LogIns
from coatcheck.upstream.tokens import authorised
from upstream.secrets import CANARY, assert_silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from upstream.clock import HandClock

ANN = Account(f"ann-{CANARY}@example.com", f"password-{CANARY}")
BOB = Account("bob@example.com", "other")


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def jwt(serial: int = 0, **claims: object) -> str:
    return f"{part({'alg': 'RS256'})}.{part({'jti': f'{CANARY}-{serial}', **claims})}.c2ln"


class Gatekeeper:
    """A log-in that is held, let through or failed by the test."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.life = 600.0
        self.begun: list[Account] = []
        self.gates: dict[Account, asyncio.Event] = {}
        self.failure: BaseException | None = None
        self.says: str | None = None

    def hold(self, account: Account) -> asyncio.Event:
        return self.gates.setdefault(account, asyncio.Event())

    async def __call__(self, account: Account) -> str:
        self.begun.append(account)
        serial = len(self.begun)
        if account in self.gates:
            await self.gates[account].wait()
        if self.failure is not None:
            raise self.failure
        if self.says is not None:
            return self.says
        now = self.clock.wall()
        return jwt(serial, iat=now, exp=now + self.life)


@pytest.fixture
def gatekeeper(clock: HandClock) -> Gatekeeper:
    return Gatekeeper(clock)


@pytest_asyncio.fixture
async def log_ins(gatekeeper: Gatekeeper, clock: HandClock) -> AsyncIterator[LogIns]:
    """A LogIns that leaves nothing running behind."""
    made = LogIns(gatekeeper, clock=clock)
    yield made
    await settle()
    assert not made._flights
    await made.aclose()
    assert not made._running


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class TestKeeping:
    async def test_one_log_in_serves_until_shortly_before_exp(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        """600 seconds of life, 30 of margin."""
        first = await log_ins.token(ANN)
        clock.advance(569)
        assert await log_ins.token(ANN) == first
        clock.advance(1)
        assert await log_ins.token(ANN) != first
        assert gatekeeper.begun == [ANN, ANN]

    async def test_half_an_hour_of_load_costs_four_log_ins(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        for _ in range(1800):
            await log_ins.token(ANN)
            clock.advance(1)
        assert len(gatekeeper.begun) == 4

    async def test_a_wall_clock_set_back_prolongs_nothing(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        await log_ins.token(ANN)
        clock.unix -= 3600
        clock.advance(570)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    async def test_a_wall_clock_behind_the_upstreams_prolongs_nothing(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        """Then exp seems far away; exp - iat tells how long it lives."""
        gatekeeper.says = jwt(iat=clock.wall() + 7200, exp=clock.wall() + 7800)
        await log_ins.token(ANN)
        clock.advance(569)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 1
        clock.advance(1)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    async def test_a_wall_clock_set_forward_ends_it(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        """As after a suspended machine, whose monotonic clock stood still."""
        await log_ins.token(ANN)
        clock.unix += 3600
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    async def test_life_counts_from_the_beginning_of_a_slow_log_in(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        gate = gatekeeper.hold(ANN)
        gatekeeper.says = jwt(iat=clock.wall(), exp=clock.wall() + 600)
        task = asyncio.create_task(log_ins.token(ANN))
        await settle()
        clock.mono += 500
        gate.set()
        await task
        clock.mono += 70
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    @pytest.mark.parametrize(
        "token",
        [
            "opaque",
            "a.b",
            "a.!!!.c",
            "a.b.c",
            f"a.{part([1])}.c",
            f"a.{part({})}.c",
            jwt(exp="soon"),
            jwt(exp=True),
            jwt(exp=None),
            jwt(exp=10**400),
        ],
    )
    async def test_a_token_that_does_not_say_lives_for_the_default(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock, token: str
    ) -> None:
        gatekeeper.says = token
        assert await log_ins.token(ANN) == token
        clock.advance(DEFAULT_LIFE - 1)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 1
        clock.advance(1)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    @pytest.mark.parametrize("token", [jwt(exp=10**12), jwt(exp=1e300, iat=0), jwt(exp=10**12, iat="x")])
    async def test_no_token_lives_longer_than_a_day(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock, token: str
    ) -> None:
        gatekeeper.says = token
        await log_ins.token(ANN)
        clock.advance(LONGEST_LIFE - 31)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 1
        clock.advance(1)
        await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    @pytest.mark.parametrize("life", [-600, 0, 30])
    async def test_a_token_at_its_end_is_given_and_not_kept(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock, life: float
    ) -> None:
        gatekeeper.life = life
        assert await log_ins.token(ANN)
        assert await log_ins.token(ANN)
        assert len(gatekeeper.begun) == 2

    @pytest.mark.parametrize("figure", ["margin", "default_life", "deadline"])
    @pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
    def test_settings_are_checked(self, gatekeeper: Gatekeeper, figure: str, wrong: Any) -> None:
        with pytest.raises(SettingsError):
            LogIns(gatekeeper, **{figure: wrong})

    def test_a_deadline_is_not_at_once(self, gatekeeper: Gatekeeper) -> None:
        with pytest.raises(SettingsError):
            LogIns(gatekeeper, deadline=0)


class TestSingleFlight:
    async def test_fifty_at_once_cost_one_log_in(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        tokens = await asyncio.gather(*(log_ins.token(ANN) for _ in range(50)))
        assert len(set(tokens)) == 1
        assert gatekeeper.begun == [ANN]

    async def test_a_slow_log_in_blocks_nobody_else(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        gate = gatekeeper.hold(ANN)
        slow = asyncio.create_task(log_ins.token(ANN))
        await settle()
        await log_ins.token(BOB)
        assert not slow.done()
        gate.set()
        assert await slow != await log_ins.token(BOB)

    async def test_another_password_is_another_account(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        """Knowing somebody's e-mail opens nobody's token."""
        await log_ins.token(ANN)
        gatekeeper.failure = AuthExpired("the log-in was refused")
        with pytest.raises(AuthExpired):
            await log_ins.token(Account(ANN.email, "guessed"))

    @pytest.mark.parametrize("cancelled", [[0], [1], [0, 1, 2]])
    async def test_cancelling_waiters_hurts_no_other(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, cancelled: list[int]
    ) -> None:
        """The log-in goes on, and what it brings is kept."""
        gate = gatekeeper.hold(ANN)
        tasks = [asyncio.create_task(log_ins.token(ANN)) for _ in range(3)]
        await settle()
        for index in cancelled:
            tasks[index].cancel()
        await settle()
        gate.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ends] == [
            index in cancelled for index in range(3)
        ]
        await settle()
        await log_ins.token(ANN)
        assert gatekeeper.begun == [ANN]

    async def test_a_failure_with_nobody_waiting_is_silent(
        self, log_ins: LogIns, gatekeeper: Gatekeeper
    ) -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        gate = gatekeeper.hold(ANN)
        gatekeeper.failure = UpstreamFailed("500", status=500)
        task = asyncio.create_task(log_ins.token(ANN))
        await settle()
        task.cancel()
        await settle()
        gate.set()
        await settle()
        assert task.cancelled()
        assert not reported

    async def test_everyone_gets_an_exception_of_their_own(
        self, log_ins: LogIns, gatekeeper: Gatekeeper
    ) -> None:
        gatekeeper.failure = UpstreamFailed("the upstream answered 503", status=503)
        ends = await asyncio.gather(*(log_ins.token(ANN) for _ in range(3)), return_exceptions=True)
        assert len({id(end) for end in ends}) == 3
        for end in ends:
            assert isinstance(end, UpstreamFailed)
            assert (str(end), end.status, end.response_code) == ("the upstream answered 503", 503, None)
        assert gatekeeper.begun == [ANN]

    async def test_a_failed_log_in_is_tried_again(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        gatekeeper.failure = UpstreamFailed("500", status=500)
        with pytest.raises(UpstreamFailed):
            await log_ins.token(ANN)
        gatekeeper.failure = None
        assert await log_ins.token(ANN)

    @pytest.mark.parametrize(
        "failure",
        [
            RuntimeError(CANARY),
            TimeoutError(CANARY),
            asyncio.CancelledError(CANARY),
            BaseException(CANARY),
            SystemExit(CANARY),
            KeyboardInterrupt(CANARY),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    async def test_what_a_log_in_raises_is_not_passed_on_unless_ours(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, failure: BaseException
    ) -> None:
        """Foreign exceptions may hold the password, and no caller that was not cancelled ends cancelled."""
        gatekeeper.failure = failure
        ours = UpstreamTimeout if isinstance(failure, TimeoutError) else LoaderBroke
        with pytest.raises(ours) as caught:
            await log_ins.token(ANN)
        assert_silent(caught.value)

    @pytest.mark.parametrize("says", ["", f"{CANARY} is no token"])
    async def test_a_log_in_must_bring_a_token(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, says: str
    ) -> None:
        gatekeeper.says = says
        with pytest.raises(BadUpstreamBody) as caught:
            await log_ins.token(ANN)
        assert_silent(caught.value)

    async def test_a_log_in_has_a_deadline(self, gatekeeper: Gatekeeper, clock: HandClock) -> None:
        log_ins = LogIns(gatekeeper, clock=clock, deadline=0.02)
        gatekeeper.hold(ANN)
        with pytest.raises(UpstreamTimeout):
            await log_ins.token(ANN)

    async def test_one_that_ignores_its_end_holds_nobody_up(self, clock: HandClock) -> None:
        """Neither the next who asks for that account nor who closes; what it brings at last is not kept."""
        begun: list[Account] = []
        let_go = asyncio.Event()

        async def stubborn(account: Account) -> str:
            begun.append(account)
            while not let_go.is_set():
                with suppress(asyncio.CancelledError):
                    await let_go.wait()
            return "late"

        log_ins = LogIns(stubborn, clock=clock, deadline=0.02)
        try:
            async with asyncio.timeout(5):
                for _ in range(2):
                    with pytest.raises(UpstreamTimeout):
                        await log_ins.token(ANN)
                waiting = asyncio.create_task(log_ins.token(BOB))
                await settle()
                await log_ins.aclose()
                with pytest.raises(LoaderBroke):
                    await waiting
            assert begun == [ANN, ANN, BOB]
            assert (len(log_ins._abandoned), log_ins._running) == (3, set())
        finally:
            # Also if it failed: the loop cannot be closed before.
            let_go.set()
        await settle()
        assert not log_ins._abandoned
        assert not log_ins._kept

    async def test_it_runs_in_an_empty_context(self, clock: HandClock) -> None:
        """What belongs to one caller's request does not reach a log-in that serves others."""
        ambient: contextvars.ContextVar[str] = contextvars.ContextVar("ambient")
        seen: list[str] = []

        async def log_in(account: Account) -> str:
            seen.append(ambient.get("nothing"))
            return "token"

        ambient.set("of a caller")
        await LogIns(log_in, clock=clock).token(ANN)
        assert seen == ["nothing"]


class TestRenewal:
    async def test_fifty_refusals_of_one_token_cost_one_log_in(
        self, log_ins: LogIns, gatekeeper: Gatekeeper
    ) -> None:
        """And one retry each."""
        first = await log_ins.token(ANN)
        calls = 0
        everyone = asyncio.Barrier(50)

        async def call(token: str) -> str:
            nonlocal calls
            calls += 1
            if token == first:
                await everyone.wait()
                raise AuthExpired("401")
            return token

        provider = log_ins.provider(ANN)
        tokens = await asyncio.gather(*(authorised(provider, call) for _ in range(50)))
        assert (calls, len(set(tokens))) == (100, 1)
        assert gatekeeper.begun == [ANN, ANN]

    async def test_a_late_refusal_of_the_old_token_costs_none(
        self, log_ins: LogIns, gatekeeper: Gatekeeper
    ) -> None:
        old = await log_ins.token(ANN)
        new = await log_ins.renew(ANN, old)
        assert await log_ins.renew(ANN, old) == new != old
        assert len(gatekeeper.begun) == 2

    async def test_the_same_token_again_is_the_end(
        self, log_ins: LogIns, gatekeeper: Gatekeeper, clock: HandClock
    ) -> None:
        gatekeeper.says = jwt(iat=clock.wall(), exp=clock.wall() + 600)
        token = await log_ins.token(ANN)
        with pytest.raises(AuthExpired) as caught:
            await log_ins.renew(ANN, token)
        assert_silent(caught.value)

    async def test_a_refused_renewal_is_raised(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        async def call(token: str) -> None:
            raise AuthExpired("401")

        await log_ins.token(ANN)
        gatekeeper.failure = AuthExpired("the log-in was refused")
        with pytest.raises(AuthExpired, match="log-in was refused"):
            await authorised(log_ins.provider(ANN), call)
        assert len(gatekeeper.begun) == 2

    async def test_another_account_is_untouched(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        bobs = await log_ins.token(BOB)
        await log_ins.renew(ANN, await log_ins.token(ANN))
        assert await log_ins.token(BOB) == bobs


class TestForgetting:
    async def test_a_token_is_dropped(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        await log_ins.token(ANN)
        bobs = await log_ins.token(BOB)
        log_ins.forget(ANN)
        assert ANN not in log_ins._kept
        assert await log_ins.token(BOB) == bobs
        await log_ins.token(ANN)
        assert gatekeeper.begun == [ANN, BOB, ANN]

    async def test_a_log_in_under_way_is_not_kept(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        """Who waits for it is answered."""
        gate = gatekeeper.hold(ANN)
        waiting = asyncio.create_task(log_ins.token(ANN))
        await settle()
        log_ins.forget(ANN)
        gate.set()
        assert await waiting
        assert ANN not in log_ins._kept

    async def test_an_old_log_in_does_not_replace_its_successor(
        self, log_ins: LogIns, gatekeeper: Gatekeeper
    ) -> None:
        """Begun before forget() and ended after the next, it neither stores its token nor ends the other's flight."""
        old_gate = gatekeeper.hold(ANN)
        old = asyncio.create_task(log_ins.token(ANN))
        await settle()
        log_ins.forget(ANN)
        new_gate = gatekeeper.gates[ANN] = asyncio.Event()
        new = asyncio.create_task(log_ins.token(ANN))
        await settle()
        old_gate.set()
        await old
        joined = asyncio.create_task(log_ins.token(ANN))
        await settle()
        new_gate.set()
        assert await new == await joined == await log_ins.token(ANN) != await old
        assert gatekeeper.begun == [ANN, ANN]

    async def test_a_provider_forgets_its_account(self, log_ins: LogIns) -> None:
        provider = log_ins.provider(ANN)
        await provider.token()
        provider.forget()
        provider.forget()
        assert not log_ins._kept
        with pytest.raises(NoCredentials):
            await provider.token()
        with pytest.raises(NoCredentials):
            await provider.renew("x")

    async def test_without_an_account_there_is_no_provider(self, log_ins: LogIns) -> None:
        """Nobody else's account is taken instead."""
        with pytest.raises(NoCredentials):
            log_ins.provider(None)

    async def test_closing_ends_what_runs(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        await log_ins.token(BOB)
        gatekeeper.hold(ANN)
        waiting = asyncio.create_task(log_ins.token(ANN))
        await settle()
        await log_ins.aclose()
        with pytest.raises(LoaderBroke):
            await waiting
        assert not log_ins._kept

    async def test_nothing_shows_in_a_repr(self, log_ins: LogIns, clock: HandClock) -> None:
        await log_ins.token(ANN)
        for each in (ANN, log_ins, log_ins.provider(ANN), log_ins._kept):
            assert CANARY not in repr(each)

    async def test_nothing_shows_in_the_repr_of_a_task(self, log_ins: LogIns, gatekeeper: Gatekeeper) -> None:
        """asyncio logs slow tasks and broken callbacks by their repr, which has the result in it."""
        gate = gatekeeper.hold(ANN)
        waiting = asyncio.create_task(log_ins.token(ANN))
        await settle()
        (flight,) = log_ins._running
        assert CANARY not in repr(flight)
        gate.set()
        await waiting
        assert flight.done()
        assert CANARY not in repr(flight)


def test_a_log_in_of_another_loop_is_not_waited_for(clock: HandClock) -> None:
    """It may never come to its end. The next loop begins its own; a token that was kept serves there, too."""
    gatekeeper = Gatekeeper(clock)
    log_ins = LogIns(gatekeeper, clock=clock)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    gate = gatekeeper.hold(ANN)
    waiting = first.create_task(log_ins.token(ANN))
    first.run_until_complete(log_ins.token(BOB))
    gatekeeper.gates.clear()
    new = second.run_until_complete(log_ins.token(ANN))
    second.run_until_complete(log_ins.token(BOB))
    assert sorted(account is ANN for account in gatekeeper.begun) == [False, True, True]

    gate.set()
    assert first.run_until_complete(waiting) != new
    assert second.run_until_complete(log_ins.token(ANN)) == new
    second.run_until_complete(log_ins.aclose())
    first.close()
    second.close()
