"""What `help()` shows of every module, the types of its public names included."""

from __future__ import annotations

import importlib
import pkgutil
import pydoc

import pytest

import coatcheck

MODULES = [
    "coatcheck",
    *sorted(
        each.name
        for each in pkgutil.walk_packages(coatcheck.__path__, "coatcheck.")
        if not each.name.endswith("__main__")
    ),
]


@pytest.mark.parametrize("module", MODULES)
def test_help_is_shown(module: str) -> None:
    """The signature of a Struct needs the names in its annotations, which must be there when it is shown."""
    assert module in pydoc.plain(pydoc.render_doc(importlib.import_module(module)))
