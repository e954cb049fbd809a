from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from upstream.conftest import client, quiet_logs, upstream

from coatcheck.ipc.api import IpcCloud
from coatcheck.upstream.tokens import StaticToken

if TYPE_CHECKING:
    from coatcheck.upstream.client import UpstreamClient

__all__ = ["client", "cloud", "quiet_logs", "upstream"]


@pytest.fixture
def cloud(client: UpstreamClient) -> IpcCloud:
    return IpcCloud(client, StaticToken("token"))
