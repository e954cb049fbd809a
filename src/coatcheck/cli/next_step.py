"""What to do when the configured upstream did not answer a look-up: a failure says what happened, this what helps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    BreakerOpen,
    Forbidden,
    Gone,
    LoadTimeout,
    NotFound,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from coatcheck.errors import LoadError

_URL: Final = "upstream_url (COATCHECK_UPSTREAM_URL)"

_STEPS: Final[tuple[tuple[tuple[type[LoadError], ...], str], ...]] = (
    ((UpstreamUnreachable,), f"check {_URL}, and that it can be reached from here"),
    ((UpstreamTimeout, LoadTimeout), f"try again later; if it never answers, check {_URL}"),
    ((UpstreamFailed,), "the fault is the upstream's: try again later"),
    ((BadUpstreamBody,), f"check that {_URL} is that of the API, and no page or proxy before it"),
    ((UpstreamRejected,), f"check scheme, host and prefix in {_URL}"),
    (
        (AuthExpired,),
        "what this user is logged in with is set by accounts (COATCHECK_ACCOUNTS) or token (COATCHECK_TOKEN)",
    ),
    ((Forbidden,), "this user's account needs the right to it at the upstream"),
    ((NotFound, Gone), f"check --user and --arg, and the prefix in {_URL}"),
)


def next_step(error: LoadError) -> str | None:
    """Return what the caller of a command can do about a failed load; None if nobody can tell."""
    if isinstance(error, RateLimited | BreakerOpen):
        wait = error.retry_after
        return f"try again in {math.ceil(wait)} s" if wait is not None and wait > 0 else "try again later"
    if isinstance(error, BadUpstreamBody) and error.limit is not None:
        return f"if the API sends that much, set max_body (COATCHECK_MAX_BODY) higher; else check {_URL}"
    return next((step for kinds, step in _STEPS if isinstance(error, kinds)), None)
