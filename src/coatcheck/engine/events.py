"""What happened, as small frozen types, and the bounded feed that takes them to an observer.

No event holds a user, an argument or a value. Hits are counted, not sent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.engine.stats import Cause, End, Removal

BACKLOG = 10_000
"""Events that wait for the observer; further ones are dropped and counted."""


class LoadEnded(msgspec.Struct, frozen=True):
    """A load ended.

    Attributes:
        resource: the name of the resource.
        cause: why it began.
        end: how it ended.
        seconds: from the call of the loader.
        error: the class of the exception, when it failed.
    """

    resource: str
    cause: Cause
    end: End
    seconds: float
    error: str | None = None


class EntryRemoved(msgspec.Struct, frozen=True):
    """An entry left the memory; not told of each entry when its whole session ends."""

    resource: str
    cause: Removal


class SessionEnded(msgspec.Struct, frozen=True):
    """A session left the memory with all its entries."""

    cause: Removal
    entries: int


class StaleServed(msgspec.Struct, frozen=True):
    """A caller was given a value past its ttl."""

    resource: str


Event = LoadEnded | EntryRemoved | SessionEnded | StaleServed


class Feed:
    """Takes events to *observer* between the cache's own steps, never inside one.

    An observer that raises is counted and harms nothing; one that is too slow loses events, which are counted, too.
    """

    def __init__(self, observer: Callable[[Event], object] | None, *, backlog: int = BACKLOG) -> None:
        self._observer = observer
        self._backlog = backlog
        self._waiting: deque[Event] = deque()
        self.dropped = 0
        self.failures = 0

    def send(self, event: Event, soon: Callable[[Callable[[], None]], object]) -> None:
        """Queue *event*; *soon* calls back when the cache is between two steps."""
        if self._observer is None:
            return
        if len(self._waiting) >= self._backlog:
            self.dropped += 1
            return
        self._waiting.append(event)
        if len(self._waiting) == 1:
            soon(self._drain)

    def resume(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """Tell what waits through another *soon*: the loop that was to call back has ended."""
        if self._waiting:
            soon(self._drain)

    def _drain(self) -> None:
        assert self._observer is not None
        while True:
            try:
                event = self._waiting.popleft()
            except IndexError:
                return
            try:
                self._observer(event)
            except Exception:  # noqa: BLE001 - whatever it raises is its own; the count tells of it
                self.failures += 1
