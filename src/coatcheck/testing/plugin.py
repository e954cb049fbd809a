"""The pytest plugin: the fixtures `fake_clock` and `gated_loader`."""

from __future__ import annotations

import pytest

from coatcheck.testing.clock import FakeClock
from coatcheck.testing.loader import GatedLoader


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a clock that stands still until the test advances it."""
    return FakeClock()


@pytest.fixture
def gated_loader() -> GatedLoader:
    """Return a loader whose loads end when the test says so."""
    return GatedLoader()
