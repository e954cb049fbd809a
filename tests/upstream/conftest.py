from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coatcheck.upstream.client import UpstreamClient
from upstream.clock import HandClock
from upstream.secrets import CANARY
from upstream.server import LocalUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[LocalUpstream]:
    server = LocalUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def client(upstream: LocalUpstream) -> AsyncIterator[UpstreamClient]:
    async with UpstreamClient(upstream.base_url) as made:
        yield made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(autouse=True)
def quiet_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log record of any logger, at any level, tells a secret."""
    caplog.set_level(0)
    yield
    for record in caplog.get_records("call"):
        assert CANARY not in record.getMessage(), record.name
        assert CANARY not in (record.exc_text or ""), record.name
