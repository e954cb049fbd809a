from __future__ import annotations

import pytest

from coatcheck.errors import (
    AuthExpired,
    Forbidden,
    Gone,
    LoadError,
    NotFound,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
)
from coatcheck.upstream.statuses import retry_after, status_error

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, UpstreamRejected),
        (304, UpstreamRejected),
        (400, UpstreamRejected),
        (401, AuthExpired),
        (403, Forbidden),
        (404, NotFound),
        (410, Gone),
        (418, UpstreamRejected),
        (429, RateLimited),
        (500, UpstreamFailed),
        (503, UpstreamFailed),
        (599, UpstreamFailed),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[LoadError]) -> None:
    error = status_error(status)
    assert type(error) is kind
    assert getattr(error, "status", status) == status


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("nan", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 2.5 ", 2.5),
        ("-5", 0.0),
        ("999999999", 300.0),
        ("9" * 5_000, 300.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 14 Nov 2033 22:14:20 GMT", 300.0),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
        ("Tue, 14 Nov 99999999 22:14:20 GMT", None),
    ],
)
def test_retry_after_is_read_within_bounds(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, from none to five minutes; anything else is as if it were not there."""
    assert retry_after(header, NOW) == seconds
