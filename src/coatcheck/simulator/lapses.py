"""Faults of the upstream itself: it treats tokens, log-ins, engagements and streams differently.

They change how an answer comes about, not the answer, and are asked for by those who make it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from coatcheck.simulator.calls import Shape
from coatcheck.simulator.rule import Rule
from coatcheck.simulator.world import CHANGES

_LOGINS = frozenset({Shape.LOGIN})
_STREAMS = frozenset({Shape.STREAM})
_WITH_TOKEN = frozenset({Shape.ENVELOPE, Shape.STREAM})


class ExpiredToken(Rule, frozen=True, tag="expired_token"):
    """Tokens count as expired: those issued before the fault was switched on, or all of them.

    Attributes:
        cured_by_login: whether a token issued later is good.
    """

    shapes = _WITH_TOKEN
    cured_by_login: bool = True

    def concerns(self, token: int, newest: int) -> bool:
        """Tell whether a token counts as expired, by its number and the last one issued before the fault."""
        return token > 0 and (not self.cured_by_login or token <= newest)


class ShortToken(Rule, frozen=True, tag="short_token"):
    """Tokens are issued for so many seconds; 0 is expired at once."""

    shapes = _LOGINS
    seconds: Annotated[int, Meta(ge=0)]


class LoginFailure(Rule, frozen=True, tag="login_failure"):
    """Log-ins fail as with bad credentials: HTTP 200, status code 500, a sentence for a token."""

    shapes = _LOGINS


class ChangedEngagement(Rule, frozen=True, tag="changed_engagement"):
    """The user's first engagement is another one, with children of its own; the old ids are refused with 403.

    A state, not an event: it holds for every call of the user until the faults are replaced, and therefore
    takes neither ``path`` nor ``fraction`` nor ``times``.

    Attributes:
        to: which other one.
    """

    shapes = _WITH_TOKEN
    to: Annotated[int, Meta(ge=1, le=CHANGES)] = 1

    def __post_init__(self) -> None:
        if self.path is not None or self.fraction != 1 or self.times is not None:
            raise ValueError("changed_engagement takes only `user` and `to`: it holds for every call")


class CutStream(Rule, frozen=True, tag="cut_stream"):
    """A stream that ends in order, but without its ``complete`` event: after so many data centres, or all."""

    shapes = _STREAMS
    after: Annotated[int, Meta(ge=0)] | None = None


class StreamError(Rule, frozen=True, tag="stream_error"):
    """A stream that reports an error for one data centre, the first one unless its id is given."""

    shapes = _STREAMS
    endpoint: int | None = None
    error: str = "Endpoint temporarily unreachable"


class BadEvent(Rule, frozen=True, tag="bad_event"):
    """A stream whose event for one data centre cannot be read, the first one unless its id is given."""

    shapes = _STREAMS
    endpoint: int | None = None
