"""Whose name a request is made in: tokens, where they come from, and what happens when one is refused."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

from coatcheck.errors import AuthExpired, NoCredentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck.upstream.cooldown import Cooldown

T = TypeVar("T")

_TOKEN = re.compile(r"[!-~]+")


class TokenProvider(Protocol):
    """Gives the tokens of one user, or of one account that was named for this user in so many words.

    All methods may be called concurrently. Cancelling a caller hurts no other.
    """

    async def token(self) -> str:
        """Return a token that is believed to be good.

        Raises:
            NoCredentials: nothing is known to get one with.
            LoadError: getting one failed.
        """
        ...

    async def renew(self, rejected: str) -> str:
        """Return another token than *rejected*, which the upstream answered with 401.

        However many callers report the same token, it is replaced once.

        Raises:
            AuthExpired: there is no other.
            LoadError: getting one failed.
        """
        ...

    def forget(self) -> None:
        """Drop token and credentials; later calls raise `NoCredentials`. May be repeated."""
        ...


class StaticToken:
    """One token, given once. It cannot be renewed."""

    def __init__(self, token: str) -> None:
        """Keep *token*.

        Raises:
            ValueError: it cannot be sent in a header; the message does not show it.
        """
        if not sendable(token):
            raise ValueError("the token cannot be sent in a header")
        self._token: str | None = token

    async def token(self) -> str:
        """Return the token."""
        if self._token is None:
            raise NoCredentials("the token was forgotten")
        return self._token

    async def renew(self, rejected: str) -> str:  # noqa: ARG002
        """Raise `AuthExpired`: there is no other token."""
        raise AuthExpired("the upstream refused the token, and there is no other")

    def forget(self) -> None:
        """Drop the token."""
        self._token = None


class CallerToken:
    """The token that the caller came with, asked for anew at every use: it may change while the session lives."""

    def __init__(self, current: Callable[[], str | None]) -> None:
        """Ask *current* for this user's token; None or an empty string means that there is none now.

        It must answer for one user wherever it is called from: a background load runs in no request's context.
        """
        self._current: Callable[[], str | None] | None = current

    async def token(self) -> str:
        """Return what the callable gives now."""
        token = None if self._current is None else self._current()
        if token is None or not sendable(token):
            raise NoCredentials("the caller brought no token that can be sent")
        return token

    async def renew(self, rejected: str) -> str:
        """Return the caller's token if it has changed since."""
        token = await self.token()
        if token == rejected:
            raise AuthExpired("the upstream refused the caller's token")
        return token

    def forget(self) -> None:
        """Drop the callable."""
        self._current = None


def sendable(token: object) -> bool:
    """Tell whether *token* is a string that an HTTP header can carry: printable ASCII without blanks, not empty."""
    return isinstance(token, str) and _TOKEN.fullmatch(token) is not None


async def authorised(
    tokens: TokenProvider, call: Callable[[str], Awaitable[T]], *, cooldown: Cooldown | None = None
) -> T:
    """Return what *call* returns when given a token, with one renewal and one retry if it raises `AuthExpired`.

    Args:
        tokens: the user's.
        call: makes the request; that it leaves only when it may is its own business.
        cooldown: the user's: while it lasts no token is asked for, since that may need a log-in; and what a log-in
            asks for is noted.

    Raises:
        AuthExpired: the renewed token was refused as well, or there is none.
        RateLimited: at once, during a pause.
        LoadError: whatever else *call* or getting a token raises.
    """
    guard = nullcontext if cooldown is None else cooldown.guard
    with guard():
        token = await tokens.token()
    try:
        return await call(token)
    except AuthExpired:
        # Renewed below, so that what goes wrong there does not carry this exception along.
        pass
    with guard():
        token = await tokens.renew(token)
    return await call(token)
