"""Plain columns, for people and for what reads a pipe: nothing is cut, whatever the width of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ENTRIES: Final = ("entry", "entries")
"""Of what most is counted, for `counted`."""

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))


def columns(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows of the same length in aligned columns; those at the places *right* end at the same place."""
    all_rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    for row in all_rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def span(seconds: float | None) -> str:
    """Return how long something is, rounded down, in the largest unit of which there are two or more."""
    if seconds is None:
        return "-"
    for name, length in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {name}"
    return f"{int(seconds)} s"


def counted(number: int, one: str, many: str) -> str:
    """Return how many there are of something."""
    return f"{number:,} {one if number == 1 else many}"


def printable(text: str) -> str:
    """Return *text*, which somebody else made up, without what a terminal would obey."""
    return text if text.isprintable() else ascii(text)[1:-1]
