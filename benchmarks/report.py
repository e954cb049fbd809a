"""What a benchmark found: rows, printed as a table or as one JSON object a line."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence


@dataclass(frozen=True)
class Goal:
    """A bound on a row's ratio, or on its value where the goal is no ratio."""

    bound: float
    least: bool = False
    on_value: bool = False

    def met(self, row: Row) -> bool:
        """Tell whether the row keeps to it."""
        figure = row.value if self.on_value else row.ratio
        return figure >= self.bound if self.least else figure <= self.bound

    def __str__(self) -> str:
        unit = "" if self.on_value else " x"
        return f"{'≥' if self.least else '≤'} {self.bound:g}{unit}"


@dataclass(frozen=True)
class Row:
    """One figure, in *unit*, and the floor of the same run in the same unit."""

    name: str
    value: float
    unit: str
    ratio: float
    floor: float
    goal: Goal | None = None


@dataclass
class Report:
    """A question and the rows that answer it."""

    question: str
    floor: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        floor: float,
        ratio: float | None = None,
        goal: Goal | None = None,
    ) -> None:
        """Add a row; its ratio is that of value and floor unless it was measured round by round."""
        self.rows.append(Row(name, value, unit, value / floor if ratio is None else ratio, floor, goal))

    def as_json(self) -> str:
        """Return one JSON object a line."""
        return "\n".join(
            json.dumps(
                {
                    "name": row.name,
                    "value": row.value,
                    "unit": row.unit,
                    "ratio": row.ratio,
                    "floor": row.floor,
                }
            )
            for row in self.rows
        )

    def as_table(self) -> str:
        """Return the table for people."""
        width = max(len(row.name) for row in self.rows)
        lines = [self.question, f"floor: {self.floor}", ""]
        lines.append(f"{'':{width}}  {'value':>22}  {'ratio':>8}  goal")
        for row in self.rows:
            verdict = "" if row.goal is None else f"{row.goal!s:<10} {'ok' if row.goal.met(row) else 'over'}"
            figure = f"{figure_of(row.value)} {row.unit}"
            lines.append(f"{row.name:{width}}  {figure:>22}  {row.ratio:>8.2f}  {verdict}".rstrip())
        return "\n".join([*lines, *(f"({note})" for note in self.notes), ""])


def figure_of(value: float) -> str:
    """Return a figure with the digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def answer(
    measure: Callable[[bool], Coroutine[None, None, Report]], arguments: Sequence[str] | None = None
) -> None:
    """Run a benchmark as a program: ``--json`` for rows to read by machine, ``--quick`` to see only that it runs."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a row, and nothing else")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and no peers; the figures mean nothing"
    )
    options = parser.parse_args(arguments)
    report = asyncio.run(measure(options.quick))
    print(report.as_json() if options.json else report.as_table())
