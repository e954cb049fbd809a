"""Events as log records: the level says how bad, the pseudonym who."""

from __future__ import annotations

import logging

import pytest

from coatcheck import Catalog, SessionCache
from coatcheck.engine.events import EntryRemoved, Event, LoadEnded, RefusalServed, SessionEnded, StaleServed
from coatcheck.engine.stats import Cause, End, Removal
from coatcheck.telemetry import LogObserver

WHO = "0123456789abcdef"


@pytest.mark.parametrize(
    ("event", "level", "message"),
    [
        (
            LoadEnded("account", Cause.FORCE, End.STORED, 0.25, attempts=2, pseudonym=WHO),
            logging.DEBUG,
            f"load of account: stored after 0.250 s, cause force, 2 requests, session {WHO}",
        ),
        (
            LoadEnded("account", Cause.GET, End.OVERTAKEN, 0.25, attempts=1, pseudonym=WHO),
            logging.DEBUG,
            f"load of account: overtaken after 0.250 s, cause get, 1 requests, session {WHO}",
        ),
        (
            LoadEnded("account", Cause.REFRESH, End.LATE, 30.0, "LoadTimeout", attempts=1, pseudonym=WHO),
            logging.WARNING,
            f"load of account failed: LoadTimeout after 30.000 s, cause refresh, 1 requests, session {WHO}",
        ),
        (
            SessionEnded(Removal.EVICTED, 7, WHO),
            logging.INFO,
            f"session {WHO} ended: evicted, 7 entries",
        ),
        (
            EntryRemoved("account", Removal.EXPIRED, WHO),
            logging.DEBUG,
            f"entry of account removed: expired, session {WHO}",
        ),
        (StaleServed("account", WHO), logging.DEBUG, f"stale account served, session {WHO}"),
        (
            RefusalServed("account", "Forbidden", WHO),
            logging.DEBUG,
            f"refused from memory: account, Forbidden, session {WHO}",
        ),
    ],
)
def test_an_event_is_a_record(
    event: Event, level: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="coatcheck")
    LogObserver()(event)

    (record,) = caplog.records
    assert ("coatcheck", level, message) == (record.name, record.levelno, record.getMessage())
    assert event is record.coatcheck_event  # type: ignore[attr-defined]


def test_another_logger_may_be_given(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mine")
    LogObserver(logging.getLogger("mine"))(StaleServed("account", WHO))

    assert ["mine"] == [record.name for record in caplog.records]


async def test_records_name_the_pseudonym_and_never_the_user(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    catalog: Catalog[str] = Catalog("logged")

    @catalog.resource
    async def account(api: str) -> int:
        return 1

    async with SessionCache(catalog, connect=str, on_event=LogObserver()) as cache:
        await cache.session("ann@example.com").get(account)
        await cache.clear("ann@example.com")
        await cache.settled()
        who = cache.pseudonym("ann@example.com")

    mine = [record.getMessage() for record in caplog.records if record.name == "coatcheck"]
    assert 2 == len(mine)
    assert all(who in message for message in mine)
    assert "ann" not in caplog.text
