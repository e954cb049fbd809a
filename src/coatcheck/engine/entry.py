"""What one load brought, and what a caller is told of it.

The structs here are made by the million and are left out of the garbage collector's walk (``gc=False``): they never
take part in a reference cycle.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

NEVER = -math.inf
"""A deadline that has always passed."""

PER_CALLER: Any = object()
"""Stands for the value of an entry whose type can be changed: its body is decoded anew for every caller."""


class Outcome(Enum):
    """How a get was answered."""

    HIT = "hit"
    STALE_HIT = "stale_hit"
    COALESCED = "coalesced"
    MISS = "miss"


class Discreet(msgspec.Struct, gc=False):
    """Shows nothing of what it holds, wherever it is printed or logged."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Entry(Discreet, gc=False):
    """One stored result. All times are those of the cache's monotonic clock.

    Attributes:
        value: the decoded value when one object serves all callers, otherwise `PER_CALLER`.
        body: the JSON bytes.
        started: when the loader was called.
        jitter: moves this entry's refresh-ahead point.
        expires: when it, or what a get without arguments reached it through, stops being fresh.
    """

    value: Any
    body: bytes
    started: float
    jitter: int
    expires: float = NEVER


class Alias(Discreet, gc=False):
    """Where a get ends that does not end in an entry as it is filed: in a derived value, or in less time.

    Its deadline is the earliest of the chain that led there. It has the attributes of `Entry` that serving needs.

    Attributes:
        value: as for an entry.
        body: the JSON bytes.
        started: when the load that `age` counts from began.
        expires: when the first of the chain stops being fresh.
    """

    value: Any
    body: bytes
    started: float
    expires: float


class Lookup(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A value and how it was come by.

    Attributes:
        value: the value, of the resource's declared type.
        outcome: how the get was answered.
    """

    value: T
    outcome: Outcome
    _slot: Any
    _at: float

    def __repr__(self) -> str:
        return f"Lookup(outcome={self.outcome.value}, age={self.age:.3f}, fresh_for={self.fresh_for:.3f})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("outcome", self.outcome.value), ("age", self.age), ("fresh_for", self.fresh_for)]

    @property
    def body(self) -> bytes:
        """The JSON bytes, with what the declared type leaves out."""
        body: bytes = self._slot.body
        return body

    @property
    def age(self) -> float:
        """Seconds since the load of this value started."""
        return self._at - float(self._slot.started)

    @property
    def fresh_for(self) -> float:
        """Seconds until this value, or what it was resolved through, is due; 0.0 when that has passed."""
        return max(0.0, float(self._slot.expires) - self._at)

    @property
    def stale(self) -> bool:
        """Whether the value, or one it was resolved through, is past its ttl."""
        return self.outcome is Outcome.STALE_HIT


class Cleared(msgspec.Struct, frozen=True):
    """What a clear achieved.

    Attributes:
        durable: nothing of the session can come back, even after a crash. False while a store has not yet applied
            the clear; it is repeated until it has.
    """

    durable: bool = True
