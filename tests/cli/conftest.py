"""The command line, called as a program calls it, with no setting of whoever runs the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coatcheck.cli import main


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that it complained with."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line.removeprefix("coatcheck: ")


Coatcheck = Callable[..., Ended]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("COATCHECK_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def coatcheck(bare: None, capsys: pytest.CaptureFixture[str]) -> Coatcheck:
    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return call
