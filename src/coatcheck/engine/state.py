"""Everything held for one user, and the fence around it."""

from __future__ import annotations

import asyncio  # noqa: TC003 - a Struct's annotations are read by whoever shows its signature
import sys
from collections.abc import Mapping  # noqa: TC003 - the same
from typing import TYPE_CHECKING, Any

from coatcheck.engine.entry import NEVER, PER_CALLER, Alias, Discreet, Entry
from coatcheck.engine.flight import SingleFlight
from coatcheck.engine.outbox import Outbox  # noqa: TC001 - a Struct reads its annotations
from coatcheck.engine.row import ANSWER, HITS, SLOTS, USED, WIDTH, mark_of, uncollected
from coatcheck.engine.slots import Slots  # noqa: TC001 - the same
from coatcheck.engine.stats import Count
from coatcheck.errors import Refused  # noqa: TC001 - the same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coatcheck.engine.catalog import Resource

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
        row: what a hit needs: see `coatcheck.engine.row`.
        places: the index of each resource whose one entry is filed in its slot, by its key; the same for all sessions.
        counts: all else that is counted, by resource and kind: see `count()`.
        keyed: entries of resources with parameters, by key.
        refusals: refusals remembered, by key, with the time until which they are.
        retries: entries whose last load failed, by key, with the time before which no further one is tried.
        connection: what ``connect`` returned, or the task that is asking for it: a whole task that has ended would
            be the largest part of a session at rest.
        loading: loads that have not ended, kept or not.
        outbox: what leads to the store; None while nothing was brought from it or written to it.
    """

    user: str
    row: list[Any]
    places: Mapping[str, int]
    # The collector walks arrays, and not these.
    counts: bytearray
    closed: bool = False
    # Made when needed: a session without arguments has no keyed entries, and one at rest none of the others.
    keyed: dict[str, Entry] | None = None
    flights: SingleFlight | None = None
    refusals: dict[str, tuple[Refused, float]] | None = None
    retries: dict[str, float] | None = None
    connection: asyncio.Future[Any] | Connected | None = None
    gate: Slots | None = None
    loading: int = 0
    outbox: Outbox | None = None

    @property
    def used(self) -> float:
        """When a caller last got something; noted by a hit as up to `TICK` later than it was."""
        used: float = self.row[USED]
        return used

    @property
    def slots(self) -> tuple[Entry | Alias | None, ...]:
        """What the short cut of each resource leads to, which for one without parameters is where its entry is filed.

        Replaced as a whole: the collector walks lists, and not tuples of such things.
        """
        slots: tuple[Entry | Alias | None, ...] = self.row[SLOTS]
        return slots

    def use(self, now: float) -> None:
        """Note that a caller gets something."""
        self.row[USED] = now

    def __repr__(self) -> str:
        return f"<state: {sum(1 for _ in self.entries())} entries{', closed' if self.closed else ''}>"

    def flying(self) -> SingleFlight:
        """Return the loads of this session, ready to take in another."""
        if self.flights is None:
            self.flights = SingleFlight()
        return self.flights

    def entry(self, key: str) -> Entry | None:
        """Return the entry under *key*."""
        place = self.places.get(key)
        if place is not None:
            entry: Entry | None = self.row[SLOTS][place]
            return entry
        return None if self.keyed is None else self.keyed.get(key)

    def entries(self, resource: Resource[Any] | None = None) -> Iterator[tuple[str, Entry]]:
        """Return keys and entries, of one resource or all. The state may be changed meanwhile."""
        slots = self.slots
        for key, place in self.places.items():
            slot = slots[place]
            if isinstance(slot, Entry) and (resource is None or key == resource.key):
                yield key, slot
        for key, entry in [] if self.keyed is None else list(self.keyed.items()):
            if resource is None or key.startswith(resource.key):
                yield key, entry

    def aliases(self) -> Iterator[Alias]:
        """Return what derived resources were resolved to."""
        return (slot for slot in self.slots if isinstance(slot, Alias))

    def file(self, key: str, entry: Entry) -> None:
        """Put an entry under *key*, where none is."""
        place = self.places.get(key)
        if place is not None:
            self._put(place, entry)
        elif self.keyed is None:
            self.keyed = {key: entry}
        else:
            self.keyed[key] = entry

    def take_out(self, key: str) -> Entry | None:
        """Remove and return the entry under *key*. A short cut that leads to it has to be dropped, too."""
        entry = self.entry(key)
        if entry is None:
            return None
        place = self.places.get(key)
        if place is not None:
            self._cut_off(mark_of(place))
            self._put(place, None)
        elif self.keyed is not None:
            del self.keyed[key]
            self.keyed = self.keyed or None
        return entry

    def short_cut(self, resource: Resource[Any], now: float) -> tuple[float, Entry | Alias] | None:
        """Return where a get without arguments ends, and until when, if that is known and still serves."""
        # Both before anything else is called: no other thread comes in between.
        until, slot = self.row[resource.mark], self.row[SLOTS][resource.index]
        return None if slot is None or now >= until else (until, slot)

    def take_short_cut(self, resource: Resource[Any], slot: Entry | Alias, until: float) -> None:
        """Let gets without arguments end in *slot* from here on, until then."""
        row, mark = self.row, resource.mark
        # Serving nothing meanwhile, in whatever thread.
        row[mark] = NEVER
        row[mark + ANSWER] = slot.body if slot.value is PER_CALLER else slot.value
        self._put(resource.index, slot)
        row[mark] = until

    def leave_short_cut(self, resource: Resource[Any]) -> None:
        """Let the next get of *resource* be resolved anew."""
        self._cut_off(resource.mark)
        if resource.key not in self.places and self.slots[resource.index] is not None:
            self._put(resource.index, None)

    def judge_anew(self, resource: Resource[Any]) -> None:
        """Let the next get of *resource* look at the policy in force."""
        self.row[resource.mark] = NEVER

    def _put(self, place: int, slot: Entry | Alias | None) -> None:
        slots = self.slots
        self.row[SLOTS] = (*slots[:place], slot, *slots[place + 1 :])

    def _cut_off(self, mark: int) -> None:
        self.row[mark] = NEVER
        self.row[mark + ANSWER] = None

    def hits(self, resource: Resource[Any]) -> int:
        """Return how many hits a resource had."""
        hits: int = self.row[resource.mark + HITS]
        return hits

    def empty(self) -> None:
        """Let go of all that is held. What was counted stays, and handles that still look here find nothing."""
        for place in range(len(self.slots)):
            self._cut_off(mark_of(place))
        self.row[SLOTS] = (None,) * len(self.slots)
        self.keyed = self.refusals = self.retries = None

    def count(self, index: int, what: Count, number: int = 1) -> None:
        """Add to what is counted of one resource, in one uninterrupted step."""
        counts = self._numbers()
        counts[index * KINDS + what] += number

    def count_wait(self, index: int, what: Count, owed: int) -> None:
        """Count a get of one resource that had to wait, and the calls that it would have cost without a cache."""
        counts = self._numbers()
        counts[index * KINDS + what] += 1
        counts[index * KINDS + Count.OWED] += owed

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


def places_of(resources: Iterable[Resource[Any]]) -> dict[str, int]:
    """Return the indexes of those that have one entry at most."""
    return {each.key: each.index for each in resources if not (each.parameters or each.derived)}


def opened(user: str, resources: int, now: float, places: Mapping[str, int]) -> State:
    """Return the state of a user for whom nothing is held, in a catalog of so many resources."""
    # Added, not listed: a list that grows takes more than it needs.
    row = uncollected([now, (None,) * resources] + [NEVER, None, 0] * resources)
    return State(user, row, places, bytearray(COUNT_BYTES * KINDS * resources))


# What CPython 3.11 takes for an entry beside its body, its value and its key: the struct, two floats and the head of a
# bytes object; for being filed by a key of its own: its share of a dictionary; for a session: the state with its
# connection, a float, the heads of its row, its slots and its counts, and its places in two maps and a queue; and for each
# resource of the catalog.
ENTRY_BYTES = sys.getsizeof(Entry(None, b"", 0.0, 0)) + 2 * sys.getsizeof(0.0) + sys.getsizeof(b"")
KEYED_BYTES = 24
ALIAS_BYTES = sys.getsizeof(Alias(None, b"", 0.0, 0.0)) + sys.getsizeof(b"")
SESSION_BYTES = 376
SESSION_RESOURCE_BYTES = 8 * (WIDTH + 1) + COUNT_BYTES * KINDS
