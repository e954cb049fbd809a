"""The examples run, and show what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def lines(name: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_quickstart_fetches_once_for_each_user() -> None:
    assert ["miss", "miss", "hit", "hit"] == [
        line.split()[1].strip(",") for line in lines("quickstart.py")[:4]
    ]


def test_the_first_example_of_the_readme_runs_as_copied() -> None:
    copied = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert copied is not None
    done = subprocess.run([sys.executable, "-"], input=copied[1], capture_output=True, text=True, check=False)
    assert (0, "hit ('zone-7-a', 'zone-7-b')\n", "") == (done.returncode, done.stdout, done.stderr)


def test_what_was_fetched_before_a_restart_is_there_after_it(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "sessions")
    (first,), (second,) = lines("restart.py", path), lines("restart.py", path)
    assert first.startswith("miss, ")
    assert second.startswith("hit, ")
    assert first.partition(": ")[2] == second.partition(": ")[2]
