"""Everything held for one user, and the fence around it."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any

from coatcheck.engine.entry import Alias, Entry
from coatcheck.engine.flight import SingleFlight
from coatcheck.engine.stats import Count

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from coatcheck.engine.catalog import Resource
    from coatcheck.errors import Refused


class State:
    """What is held for one user between two clears. The object itself is the fence.

    A load writes only into the state that it began under. A closed state is empty and stays so; nothing is written
    into it and it begins no load. Changed on the home loop only; read in any thread.

    Attributes:
        slots: entries by key, and aliases by their resource's key.
        used: when a caller last got something.
        hits: by resource; added to in any thread.
        counts: all else that is counted, by resource and kind.
        refusals: refusals remembered, by key, with the time until which they are.
        connection: what ``connect`` returned, or the task that is asking for it.
        loading: loads that have not ended, kept or not.
    """

    __slots__ = (
        "closed", "connection", "counts", "flights", "gate", "hits", "loading", "refusals", "slots", "used", "user",
    )  # fmt: skip

    def __init__(self, user: str, resources: int, now: float) -> None:
        self.user = user
        self.slots: dict[str, Entry | Alias] = {}
        self.used = now
        self.hits = [0] * resources
        self.counts = array("i", bytes(4 * resources * len(Count)))
        self.closed = False
        # Made when needed: a session at rest has none of these.
        self.flights: SingleFlight | None = None
        self.refusals: dict[str, tuple[Refused, float]] | None = None
        self.connection: asyncio.Future[Any] | None = None
        self.gate: asyncio.Semaphore | None = None
        self.loading = 0

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

    def counts_of(self, index: int) -> array[int]:
        """Return the counts of one resource."""
        return self.counts[index * len(Count) : (index + 1) * len(Count)]

    def at_rest(self) -> bool:
        """Tell whether no load is under way."""
        return self.loading == 0 and not self.flights


# What CPython 3.11 takes for an entry beside its body, its value and its key: the struct, two floats, the head of a
# bytes object, and its share of a dictionary; and for a session: the state, its lists, its id and a place in two maps.
ENTRY_BYTES = sys.getsizeof(Entry(0.0, None, b"", 0.0, 0)) + 2 * sys.getsizeof(0.0) + sys.getsizeof(b"") + 40
ALIAS_BYTES = sys.getsizeof(Alias(0.0, None, b"", 0.0, 0.0)) + 2 * sys.getsizeof(0.0) + 40
SESSION_BYTES = 620
