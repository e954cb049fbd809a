"""Tokens by log-in: one log-in at a time for each account, and none that another account waits for."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    CoatcheckError,
    LoaderBroke,
    NoCredentials,
    SettingsError,
    UpstreamTimeout,
)
from coatcheck.upstream.tokens import sendable

MARGIN = 30.0
"""Seconds before its ``exp`` at which a token is replaced."""

DEFAULT_LIFE = 60.0
"""Seconds for which a token is used that does not say when it ends: a tenth of what the known ones live."""

LONGEST_LIFE = 86_400.0
"""Seconds after which a token is replaced whatever it says."""


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """An e-mail and a password. Two are the same account only if both are: a wrong password opens nobody's token."""

    email: str
    password: str


LogIn = Callable[[Account], Awaitable[str]]
"""Logs an account in and returns its token; raises a `LoadError` if it cannot."""


@dataclass(frozen=True, slots=True)
class _Instant:
    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True, repr=False)
class _Kept:
    token: str
    until: _Instant


@dataclass(frozen=True, slots=True, repr=False)
class _Outcome:
    # A task shows its result in its repr, and asyncio logs that of a slow one.
    token: str | None = None
    error: CoatcheckError | None = None


class LogIns:
    """The tokens of all accounts, logged in when needed.

    For each account at most one log-in runs, and everyone who needs its token waits for that one; accounts never wait
    for each other. A log-in is a task of its own: it goes on when those who wait for it are cancelled. Past its
    deadline it is cancelled, and nobody waits until it has ended.

    A token is kept until `MARGIN` before its ``exp``. Its life is also measured on the monotonic clock, from the
    beginning of the log-in, and never exceeds ``exp`` - ``iat``; so a wall clock set back prolongs nothing. A token
    that has ended by our wall clock when it comes serves those who wait for it and is not kept.

    Used from several event loops, each has its own running log-ins, and the tokens are common.
    """

    def __init__(
        self,
        log_in: LogIn,
        *,
        clock: Clock | None = None,
        margin: float = MARGIN,
        default_life: float = DEFAULT_LIFE,
        deadline: float = 30.0,
    ) -> None:
        """Keep the settings; log in nobody.

        Args:
            log_in: called in an empty context, once at a time for each account.
            clock: wall and monotonic time.
            margin: seconds before ``exp`` at which a token is replaced.
            default_life: seconds for which a token is kept that has no readable ``exp``.
            deadline: seconds after which a log-in is given up.

        Raises:
            SettingsError: a figure is negative or not finite, or the deadline is zero.
        """
        # Asked this way round, since NaN is neither.
        if not (0 <= margin < math.inf and 0 <= default_life < math.inf and 0 < deadline < math.inf):
            raise SettingsError(
                "margin and default_life of log-ins must not be negative, the deadline must be positive, all finite"
            )
        self._log_in = log_in
        self._clock = SystemClock() if clock is None else clock
        self._margin = margin
        self._default_life = default_life
        self._deadline = deadline
        self._kept: dict[Account, _Kept] = {}
        self._flights: dict[Account, asyncio.Task[_Outcome]] = {}
        # asyncio keeps only weak references, and a forgotten log-in has left `_flights`.
        self._running: set[asyncio.Task[_Outcome]] = set()
        # What was given up and has not ended: a log-in may ignore that it was cancelled. Waited for by nobody.
        self._abandoned: set[asyncio.Task[_Outcome]] = set()

    def provider(self, account: Account | None) -> AccountTokens:
        """Return the tokens of *account*.

        Raises:
            NoCredentials: *account* is None: a user whose account is not known is nobody else instead.
        """
        if account is None:
            raise NoCredentials("no account is known for this user")
        return AccountTokens(self, account)

    async def token(self, account: Account) -> str:
        """Return the token of *account*, logging in if none is kept that is still good.

        Raises:
            LoadError: what the log-in raised, as an exception of the caller's own; `UpstreamTimeout` past the
                deadline; `LoaderBroke` if the log-in was cancelled or raised what is not ours.
        """
        kept = self._kept.get(account)
        if kept is not None:
            now = self._now()
            if now.monotonic < kept.until.monotonic and now.wall < kept.until.wall:
                return kept.token
        return await self._join(account)

    async def renew(self, account: Account, rejected: str) -> str:
        """Return another token of *account* than *rejected*: what was kept meanwhile, or that of a new log-in.

        Raises:
            AuthExpired: the log-in gave the same token again.
            LoadError: as for `token`.
        """
        kept = self._kept.get(account)
        if kept is not None and kept.token == rejected:
            del self._kept[account]
        token = await self.token(account)
        if token == rejected:
            raise AuthExpired("the upstream refused the token, and a log-in gave the same one")
        return token

    def forget(self, account: Account) -> None:
        """Drop the token of *account*. A log-in under way answers those who wait for it and is not kept."""
        self._kept.pop(account, None)
        self._flights.pop(account, None)

    async def aclose(self) -> None:
        """Drop all tokens, and cancel the log-ins that run on this event loop. May be repeated."""
        self._kept.clear()
        self._flights.clear()
        here = asyncio.get_running_loop()
        ending = [task for task in self._running if task.get_loop() is here]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)

    async def _join(self, account: Account) -> str:
        loop = asyncio.get_running_loop()
        flight = self._flights.get(account)
        # A log-in of another loop cannot be awaited here, and that of an ended loop never comes to its end.
        if flight is None or flight.get_loop() is not loop:
            # An empty context: what one caller's request carries must not reach the log-in that serves others.
            flight = loop.create_task(self._run(account), context=contextvars.Context())
            flight.add_done_callback(partial(self._land, account, self._now()))
            self._flights[account] = flight
            self._running.add(flight)
        # Unlike awaiting the task, this does not cancel it with the caller.
        await asyncio.wait((flight,))
        if flight.cancelled():
            raise LoaderBroke("the log-in was cancelled")
        outcome = flight.result()
        if outcome.error is not None:
            raise _twin(outcome.error)
        assert outcome.token is not None
        return outcome.token

    async def _run(self, account: Account) -> _Outcome:
        trying = asyncio.create_task(self._try(account))
        try:
            await asyncio.wait((trying,), timeout=self._deadline)
        except asyncio.CancelledError:
            self._give_up(trying)
            raise
        if not trying.done():
            self._give_up(trying)
            return _Outcome(error=UpstreamTimeout(f"no end of the log-in within {self._deadline:g} s"))
        if trying.cancelled():
            return _Outcome(error=LoaderBroke("the log-in was cancelled"))
        return trying.result()

    async def _try(self, account: Account) -> _Outcome:
        # Returned and not raised: an exception that nobody waits for any more would be reported as unretrieved.
        try:
            token = await self._log_in(account)
            if not sendable(token):
                return _Outcome(error=BadUpstreamBody("the log-in brought no token that can be sent"))
        except CoatcheckError as error:
            return _Outcome(error=error)
        except TimeoutError:
            return _Outcome(error=UpstreamTimeout("the log-in ended with a timeout of its own"))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it may hold the password; some would end the loop
            return _Outcome(error=LoaderBroke(f"the log-in raised {type(error).__name__}"))
        return _Outcome(token)

    def _give_up(self, trying: asyncio.Task[_Outcome]) -> None:
        trying.cancel()
        self._abandoned.add(trying)
        trying.add_done_callback(self._abandoned.discard)

    def _land(self, account: Account, started: _Instant, flight: asyncio.Task[_Outcome]) -> None:
        self._running.discard(flight)
        # After forget() another log-in may be under way for this account, or none may be wanted.
        if self._flights.get(account) is not flight:
            return
        del self._flights[account]
        if flight.cancelled() or flight.exception() is not None:
            return
        token = flight.result().token
        if token is not None:
            self._keep(account, token, started)

    def _keep(self, account: Account, token: str, started: _Instant) -> None:
        exp, iat = _span(token)
        if exp is None:
            self._kept[account] = _Kept(token, _Instant(started.monotonic + self._default_life, math.inf))
            return
        life = min(exp - started.wall, LONGEST_LIFE if iat is None else exp - iat, LONGEST_LIFE)
        if life > self._margin:
            until = started.monotonic + life - self._margin
            self._kept[account] = _Kept(token, _Instant(until, exp - self._margin))

    def _now(self) -> _Instant:
        return _Instant(self._clock.monotonic(), self._clock.wall())


class AccountTokens:
    """The `TokenProvider` of one account. It can log in until it is told to forget."""

    def __init__(self, log_ins: LogIns, account: Account) -> None:
        """Use *log_ins*, which others share, for *account*."""
        self._log_ins = log_ins
        self._account: Account | None = account

    async def token(self) -> str:
        """Return the account's token; see `LogIns.token`."""
        return await self._log_ins.token(self._known())

    async def renew(self, rejected: str) -> str:
        """Return another token of the account; see `LogIns.renew`."""
        return await self._log_ins.renew(self._known(), rejected)

    def forget(self) -> None:
        """Drop the token and the password; others who use the same account log in again."""
        account, self._account = self._account, None
        if account is not None:
            self._log_ins.forget(account)

    def _known(self) -> Account:
        if self._account is None:
            raise NoCredentials("the account was forgotten")
        return self._account


class _Claims(msgspec.Struct):
    exp: object = None
    iat: object = None


def _span(token: str) -> tuple[float | None, float | None]:
    """Return ``exp`` and ``iat`` of a JWT, each None if it cannot be read.

    The signature is the upstream's business: a token that lies about itself only costs a log-in.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None, None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(payload, type=_Claims)
    except (ValueError, RecursionError):
        return None, None
    return _seconds(claims.exp), _seconds(claims.iat)


def _seconds(claim: object) -> float | None:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return None
    try:
        return float(claim)
    except OverflowError:
        return None


def _twin(error: CoatcheckError) -> CoatcheckError:
    """Return an exception like *error*: one object raised by many waiters would grow a traceback in each."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin
