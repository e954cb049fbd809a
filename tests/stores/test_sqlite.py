"""The SQLite store: the contract, and what a file adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import FakeClock
from coatcheck.testing.store_contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coatcheck.engine.store import Store


class TestSQLiteStore(StoreContract):
    durable = True

    @pytest.fixture
    def open_store(self, clock: FakeClock, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SQLiteStore(tmp_path / "sessions.db", clock=clock)
