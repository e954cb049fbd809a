"""What `help()` shows of every module, the types of its public names included."""

from __future__ import annotations

import importlib
import pkgutil
import pydoc
import re
from pathlib import Path

import pytest

import coatcheck
from coatcheck import Limits, Session, SessionCache
from coatcheck.engine.limits import MIB

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"

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


@pytest.mark.parametrize(("name", "shown"), [("cache", SessionCache), ("session", Session)])
def test_the_guide_has_a_row_for_every_call_and_for_no_other(name: str, shown: type) -> None:
    """A call that is not in the tables is found by nobody who does not read the source."""
    rows = [line for line in GUIDE.read_text("utf-8").splitlines() if line.startswith("| `")]
    named = {call for row in rows for call in re.findall(rf"{name}\.(\w+)\(", row.split(" | ")[0])}
    assert named == {
        each for each in dir(shown) if not each.startswith("_") and callable(getattr(shown, each))
    }


def test_what_the_guides_import_is_there() -> None:
    """An error that is to be handled is of no use without the place that it is imported from."""
    texts = [(GUIDE.with_name(name)).read_text("utf-8") for name in ("guide.md", "ipc.md")]
    blocks = [block for text in texts for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL)]
    imports = [line for block in blocks for line in re.findall(r"^from coatcheck.+", block, re.MULTILINE)]
    assert "from coatcheck.errors import LoadError, SessionCleared" in imports
    for line in imports:
        exec(line, {})


def test_the_guide_has_each_bound_with_its_default() -> None:
    """A bound that nobody finds is met when something goes, or waits, and nobody knows why."""
    section = GUIDE.read_text("utf-8").split("## Limits\n")[1].split("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE))
    limits = Limits()
    assert shown.pop("max_bytes") == f"{limits.max_bytes // MIB} MiB"
    assert shown.pop("max_loads_per_second") == "none"
    assert limits.max_loads_per_second is None
    others = set(Limits.__struct_fields__) - {"max_bytes", "max_loads_per_second"}
    assert shown == {name: f"{getattr(limits, name):,}" for name in others}
