from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outage.world import World, outage_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with outage_world() as made:
        yield made
