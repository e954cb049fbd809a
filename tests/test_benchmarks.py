"""The benchmarks run and print rows; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUESTIONS = ("hit", "hit_concurrent", "stampede", "expiry", "memory", "mutable", "cold", "growth", "sqlite")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_benchmark_prints_one_json_object_for_each_row(question: str) -> None:
    """With --json there is nothing else on standard output, and every figure is finite."""
    printed = run(question, "--quick", "--json")

    rows = [json.loads(line) for line in printed.splitlines()]
    assert any(row["name"].startswith("coatcheck ") for row in rows)
    for row in rows:
        assert set(row) == {"name", "value", "unit", "ratio", "floor"}
        assert all(math.isfinite(row[figure]) for figure in ("value", "ratio", "floor"))
    assert len({row["name"] for row in rows}) == len(rows)


def test_without_json_a_benchmark_prints_its_question_its_floor_and_its_goals() -> None:
    """The table says of each goal whether it was met."""
    printed = run("mutable", "--quick")

    question, floor, *rows = printed.splitlines()
    assert question.startswith("mutable: ")
    assert floor.startswith("floor: ")
    assert any("≤ 1.1 x" in row and row.endswith((" ok", " over")) for row in rows)


def run(question: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{question}", *options],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
