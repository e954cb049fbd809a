"""Several observers in the place of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.engine.events import Event


def all_of(*observers: Callable[[Event], object]) -> Callable[[Event], None]:
    """Return an observer that tells each of *observers* in turn, also after one has raised.

    The first exception is raised when all have been told, so that the cache counts it.
    """

    def observe(event: Event) -> None:
        first: Exception | None = None
        for observer in observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - raised below
                first = first or error
        if first is not None:
            try:
                raise first
            finally:
                del first  # it would keep this frame, and this frame it

    return observe
