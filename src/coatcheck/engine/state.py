"""Everything held for one user, and the fence around it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import msgspec

from coatcheck.engine.entry import NEVER, Alias, Discreet, Entry
from coatcheck.engine.flight import SingleFlight
from coatcheck.engine.outbox import Outbox  # noqa: TC001 - a Struct reads its annotations
from coatcheck.engine.stats import Count

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.slots import Slots
    from coatcheck.errors import Refused

COUNT_BYTES = 4
KINDS = len(Count)


class Connected(Discreet, gc=False, eq=False):
    """What ``connect`` returned for a session."""

    api: Any


class State(Discreet, gc=False, eq=False):
    """What is held for one user between two clears. The object itself is the fence.

    A load writes only into the state that it began under. A closed state is empty and stays so; nothing is written
    into it and it begins no load. Changed under the cache's lock only; read in any thread.

    Made by the hundred thousand and left out of the garbage collector's walk: what refers back to it, a load under
    way or a connection, lets go of it when the load ends or the session closes.

    Attributes:
        marks: when a caller last got something, then the hits by resource. One list, because a hit sets both, in any
            thread: nothing else can be set as quickly.
        slots: entries by key, and aliases by their resource's key.
        counts: all else that is counted, by resource and kind: see `count()`.
        refusals: refusals remembered, by key, with the time until which they are.
        retries: entries whose last load failed, by key, with the time before which no further one is tried.
        connection: what ``connect`` returned, or the task that is asking for it: a whole task that has ended would
            be the largest part of a session at rest.
        loading: loads that have not ended, kept or not.
        outbox: what leads to the store; None while nothing was brought from it or written to it.
    """

    user: str
    marks: list[Any]
    # The collector walks arrays, and not these.
    counts: bytearray
    slots: dict[str, Entry | Alias] = msgspec.field(default_factory=dict)
    closed: bool = False
    # Made when needed: a session at rest has none of these.
    flights: SingleFlight | None = None
    refusals: dict[str, tuple[Refused, float]] | None = None
    retries: dict[str, float] | None = None
    connection: asyncio.Future[Any] | Connected | None = None
    gate: Slots | None = None
    loading: int = 0
    outbox: Outbox | None = None

    @property
    def used(self) -> float:
        """When a caller last got something."""
        return cast("float", self.marks[0])

    def use(self, now: float) -> None:
        """Note that a caller gets something."""
        self.marks[0] = now

    def __repr__(self) -> str:
        return f"<state: {len(self.slots)} slots{', closed' if self.closed else ''}>"

    def flying(self) -> SingleFlight:
        """Return the loads of this session, ready to take in another."""
        if self.flights is None:
            self.flights = SingleFlight()
        return self.flights

    def entry(self, key: str) -> Entry | None:
        """Return the entry under *key*."""
        slot = self.slots.get(key)
        return slot if isinstance(slot, Entry) else None

    def entries(self, resource: Resource[Any] | None = None) -> Iterator[tuple[str, Entry]]:
        """Return keys and entries, of one resource or all. The state may be changed meanwhile."""
        for key, slot in list(self.slots.items()):
            if isinstance(slot, Entry) and (resource is None or key.startswith(resource.key)):
                yield key, slot

    def count(self, index: int, what: Count, number: int = 1) -> None:
        """Add to what is counted of one resource, in one uninterrupted step."""
        counts = self._numbers()
        counts[index * KINDS + what] += number

    def counts_of(self, index: int) -> list[int]:
        """Return the counts of one resource."""
        return self._numbers()[index * KINDS : (index + 1) * KINDS].tolist()

    def _numbers(self) -> memoryview[int]:
        return memoryview(self.counts).cast("i")

    def retry_at(self, key: str) -> float:
        """Return before when no further load of an entry is tried, because the last one failed."""
        retries = self.retries
        return NEVER if retries is None else retries.get(key, NEVER)

    def at_rest(self) -> bool:
        """Tell whether no load is under way, and no way from or to the store."""
        outbox = self.outbox
        stored = outbox is None or (outbox.writes is None and outbox.opening is None)
        return stored and self.loading == 0 and not self.flights


def opened(user: str, resources: int, now: float) -> State:
    """Return the state of a user for whom nothing is held, in a catalog of so many resources."""
    return State(user, [now] + [0] * resources, bytearray(COUNT_BYTES * KINDS * resources))


# What CPython 3.11 takes for an entry beside its body, its value and its key: the struct, two floats, the head of a
# bytes object, and its share of a dictionary; and for a session: the state with its connection, the heads of its list,
# its counts and its dictionary with room for five, and a place in two maps; and for each resource of the catalog.
ENTRY_BYTES = sys.getsizeof(Entry(0.0, None, b"", 0.0, 0)) + 2 * sys.getsizeof(0.0) + sys.getsizeof(b"") + 24
ALIAS_BYTES = sys.getsizeof(Alias(0.0, None, b"", 0.0, 0.0)) + 2 * sys.getsizeof(0.0) + 24
SESSION_BYTES = 468
SESSION_RESOURCE_BYTES = 8 + COUNT_BYTES * KINDS
