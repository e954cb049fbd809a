from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_count = itertools.count()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what importing made, so that tests which look for garbage look only through their own."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def _own_home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test have folders for data and settings of its own, which are not there until something makes them."""
    home = homes / str(next(_count))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
