from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what importing made, so that tests which look for garbage look only through their own."""
    gc.collect()
    gc.freeze()
