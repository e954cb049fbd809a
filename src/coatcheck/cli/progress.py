"""Progress bars for commands that take their time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress() -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """Show progress bars on standard error if that is a terminal; gives what adds one, which gives what advances it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def track(what: str, steps: int) -> Callable[[], object]:
            bar = bars.add_task(what, total=steps)
            return lambda: bars.advance(bar)

        yield track
