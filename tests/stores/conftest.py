from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stores.sqlite_rig import Rig

if TYPE_CHECKING:
    from pathlib import Path

    from coatcheck.testing import FakeClock


@pytest.fixture
def rig(tmp_path: Path, fake_clock: FakeClock) -> Rig:
    return Rig(tmp_path, fake_clock)
