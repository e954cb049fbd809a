from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from upstream.conftest import client, quiet_logs, upstream

from coatcheck import current_user
from coatcheck.ipc.api import IpcCloud
from coatcheck.upstream.tokens import StaticToken
from ipc.rig import Rig, rigged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from coatcheck.upstream.client import UpstreamClient

__all__ = ["client", "cloud", "nobody", "quiet_logs", "rig", "upstream"]


@pytest.fixture
def cloud(client: UpstreamClient) -> IpcCloud:
    return IpcCloud(client, StaticToken("token"))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as made:
        yield made


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    """No test sees the current user of another."""
    before = current_user.set(None)
    yield
    current_user.reset(before)
