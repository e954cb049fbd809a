"""What an HTTP status means in our exception tree."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from coatcheck.errors import (
    AuthExpired,
    Forbidden,
    Gone,
    LoadError,
    NotFound,
    RateLimited,
    Refused,
    UpstreamFailed,
    UpstreamRejected,
)

LONGEST_RETRY_AFTER = 300.0
"""Seconds: no upstream can make us wait longer."""

_REFUSALS: dict[int, type[Refused]] = {401: AuthExpired, 403: Forbidden, 404: NotFound, 410: Gone}
_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def status_error(status: int, *, retry_after: float | None = None) -> LoadError:
    """Return (not raise) the exception for a *status* that is no success; 3xx is a rejection, never followed."""
    message = f"the upstream answered {status}"
    refusal = _REFUSALS.get(status)
    if refusal is not None:
        return refusal(message)
    if status == 429:
        return RateLimited(message, retry_after=retry_after)
    if status >= 500:
        return UpstreamFailed(message, status=status, retry_after=retry_after)
    return UpstreamRejected(message, status=status)


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None if it cannot be read.

    Args:
        header: seconds or an HTTP date.
        now: Unix time, against which a date is read.

    Returns:
        Between 0 and `LONGEST_RETRY_AFTER`.
    """
    if header is None:
        return None
    text = header.strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
            # HTTP knows no other zone; a date that names none would be read in the machine's.
            seconds = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
