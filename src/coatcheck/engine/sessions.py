"""All sessions of a cache by user: opened, bounded, and ended by one path only."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from coatcheck.engine.entry import Alias
from coatcheck.engine.events import EntryRemoved, SessionEnded
from coatcheck.engine.policy import Freshness, Rule, judge
from coatcheck.engine.row import Horizons
from coatcheck.engine.state import (
    ALIAS_BYTES,
    ENTRY_BYTES,
    KEYED_BYTES,
    SESSION_BYTES,
    SESSION_RESOURCE_BYTES,
    State,
    opened,
    places_of,
)
from coatcheck.engine.stats import Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.entry import Entry
    from coatcheck.engine.events import Tell
    from coatcheck.engine.flight import Flight
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.stats import Ledger

# Sessions looked at for each one evicted: exact LRU among so many, and among the longest unexamined beyond that.
EVICTION_PROBES = 64
# Places of the queue looked at by one close while more than half of it are closed ones.
THROWN_OUT_AT_ONCE = 4
# Values measured of each resource before, and between samples afterwards: sizing a graph takes a thousand times as
# long as taking the length of its body.
SIZED_AT_FIRST = 8
SIZED_EVERY = 64


class Copied(Protocol):
    """What keeps a store in step with the memory. Called within a step."""

    def kept(self, state: State, resource: Resource[Any], key: str, entry: Entry) -> None:
        """Store an entry that has come into memory."""
        ...

    def dropped(self, state: State, resource: Resource[Any], key: str | None) -> None:
        """Remove what was dropped for good: one entry, or all of a resource."""
        ...


class Weights:
    """The memory that one resource's entries take, estimated: bodies exactly, values by a measured factor.

    Attributes:
        bytes: what all of them take.
    """

    __slots__ = ("body_bytes", "bytes", "entries", "key_bytes", "seen", "sized_bodies", "sized_values")

    def __init__(self) -> None:
        self.bytes = 0
        self.entries = 0
        self.body_bytes = 0
        self.key_bytes = 0
        self.seen = 0
        self.sized_bodies = 0
        self.sized_values = 0

    def add(self, key: str, entry: Entry, resource: Resource[Any]) -> int:
        """Count an entry in; return by how many bytes all take more than before."""
        sized = resource.codec.shared and (self.seen < SIZED_AT_FIRST or (self.seen + 1) % SIZED_EVERY == 0)
        value = size_of(entry.value) if sized else 0
        self.entries += 1
        self.body_bytes += len(entry.body)
        self.key_bytes += key_bytes(key, resource)
        self.seen += 1
        if sized:
            self.sized_bodies += len(entry.body)
            self.sized_values += value
        return self._weigh()

    def remove(self, key: str, entry: Entry, resource: Resource[Any]) -> int:
        """Count an entry out; return the same, mostly below zero."""
        self.entries -= 1
        self.body_bytes -= len(entry.body)
        self.key_bytes -= key_bytes(key, resource)
        return self._weigh()

    def factor(self) -> float:
        """Return how many bytes a decoded value takes for each of its body."""
        return self.sized_values / self.sized_bodies if self.sized_bodies else 0.0

    def weigh(self, entries: int, body_bytes: int) -> int:
        """Return the bytes that so many entries with so many bytes of bodies take."""
        return entries * ENTRY_BYTES + body_bytes + int(body_bytes * self.factor())

    def _weigh(self) -> int:
        before = self.bytes
        self.bytes = self.weigh(self.entries, self.body_bytes) + self.key_bytes
        return self.bytes - before


class Sessions:
    """The map of open states. Changed under the cache's lock only; read in any thread.

    Attributes:
        resources: the catalog's, in declared order.
        states: the open ones, by user.
        copied: what keeps a store in step; None without one.
        rows: their rows, by user, because a hit that goes by way of the state waits for that, too.
        places: see `State`.
    """

    def __init__(
        self, catalog: Catalog[Any], *, rules: list[Rule], limits: Limits, ledger: Ledger, tell: Tell,
        dismiss: Callable[[State], None],
    ) -> None:  # fmt: skip
        self.resources = tuple(catalog)
        self._by_prefix = {resource.key: resource for resource in self.resources}
        self._dependents = tuple(catalog.dependents(resource) for resource in self.resources)
        self._rules = rules
        self._limits = limits
        self._ledger = ledger
        self._tell = tell
        self._dismiss = dismiss
        self.copied: Copied | None = None
        self._weights = tuple(Weights() for _ in self.resources)
        # Theirs together: asked for more often than it changes.
        self._entry_bytes = 0
        self._session_bytes = SESSION_BYTES + len(self.resources) * SESSION_RESOURCE_BYTES
        self._aliases = 0
        self._user_bytes = 0
        # Open states in the order of their last examination, and closed ones not yet thrown out.
        self._queue: deque[State] = deque()
        self.states: dict[str, State] = {}
        self.rows: dict[str, list[Any]] = {}
        self.places = places_of(self.resources)
        self._horizons = Horizons()

    def open(self, user: str, now: float) -> State:
        """Return the user's state, a new one when nothing is held."""
        state = self.states.get(user)
        if state is None:
            state = opened(user, len(self.resources), now, self.places)
            self.states[user] = state
            self.rows[user] = state.row
            self._queue.append(state)
            self._user_bytes += text_bytes(user)
            self.make_room(keep=state)
        return state

    def close(self, state: State, cause: Removal) -> None:
        """End a session: the one way out of the map. Its loads go on for their callers and keep nothing."""
        if state.closed:
            return
        state.closed = True
        del self.states[state.user]
        del self.rows[state.user]
        self._user_bytes -= text_bytes(state.user)
        entries = 0
        for key, entry in state.entries():
            entries += 1
            resource = self.resource(key)
            self._entry_bytes += self._weights[resource.index].remove(key, entry, resource)
            self._ledger.tallies[resource.index].removals[cause] += 1
        self._aliases -= sum(1 for _ in state.aliases())
        state.empty()
        self._ledger.sessions_removed[cause] += 1
        self._throw_out()
        self._tell(state.user, lambda pseudonym: SessionEnded(cause, entries, pseudonym))
        self._dismiss(state)

    def keep(
        self, state: State, resource: Resource[Any], key: str, entry: Entry, *, stored: bool = False
    ) -> None:
        """Put an entry in, in place of what was under its key; what was resolved through the old one is resolved anew.

        What is *stored* already is not handed to the store once more, and makes no room: it comes with others, and room is
        to be made for all at once.
        """
        assert not state.closed
        self._take_out(state, resource, key, Removal.REPLACED)
        state.file(key, entry)
        self._entry_bytes += self._weights[resource.index].add(key, entry, resource)
        if self.copied is not None and not stored:
            self.copied.kept(state, resource, key, entry)
        if state.refusals is not None:
            state.refusals.pop(key, None)
        self._drop_aliases(state, resource)
        # At most so many; counting them takes longer.
        if len(self.places) + len(state.keyed or ()) > self._limits.max_keys_per_session:
            self._drop_oldest(state, keep=key)
        if not stored:
            self.make_room(keep=state)

    def remember(
        self, state: State, resource: Resource[Any], slot: Entry | Alias, until: float, now: float
    ) -> None:
        """Remember where a get without arguments ends, nearly until then; later it is found once more."""
        self._forget(state, resource)
        state.take_short_cut(resource, slot, self._horizons.before(until, now))
        self._aliases += isinstance(slot, Alias)

    def drop(
        self,
        state: State,
        resource: Resource[Any],
        cause: Removal,
        *,
        key: str | None = None,
        raise_floor: bool = True,
        stored: bool = True,
    ) -> list[Flight]:
        """Remove one entry, or all of a resource; return loads that may begin now that its older ones do not count.

        Without *raise_floor* they go on to count. Unless it is to be replaced, the store drops it, too, if it is *stored*.
        """
        keys = [found for found, _ in state.entries(resource)] if key is None else [key]
        for each in keys:
            if self._take_out(state, resource, each, cause):
                self._tell_removal(state, resource, cause)
        self._drop_aliases(state, resource)
        if self.copied is not None and stored and cause is not Removal.REPLACED:
            self.copied.dropped(state, resource, key)
        if state.refusals is not None and cause is not Removal.REFUSED:
            state.refusals = {
                refused: known
                for refused, known in state.refusals.items()
                if not (refused == key or (key is None and refused.startswith(resource.key)))
            }
        if state.flights is None or not raise_floor:
            return []
        if key is not None:
            return state.flights.raise_floor([key])
        flying = {flight.key for flight in state.flights.all() if flight.resource is resource}
        return state.flights.raise_floor(list(flying))

    def revoke(self, state: State, resource: Resource[Any]) -> list[Flight]:
        """Remove all that depends on *resource*, under any arguments; return as `drop()` does."""
        return [
            flight
            for dependent in self._dependents[resource.index]
            if not dependent.derived
            for flight in self.drop(state, dependent, Removal.REFUSED)
        ]

    def rejudge(self, resources: Iterable[Resource[Any]]) -> None:
        """Let the next get of each of these, and of what depends on them, judge anew: a policy has changed."""
        changed = set(resources)
        for resource in resources:
            changed.update(self._dependents[resource.index])
        for state in list(self.states.values()):
            for resource in changed:
                state.judge_anew(resource)

    def queued(self) -> int:
        """Return how many sessions a sweep has to look at to have looked at all; some of them may have ended."""
        return len(self._queue)

    def sweep(self, number: int, now: float, idle: float) -> None:
        """Remove dead entries of the next *number* sessions, and those that hold nothing and were not used for *idle* s."""
        for _ in range(number):
            if not self._queue:
                return  # ending a session may have thrown the closed ones out
            state = self._queue.popleft()
            if state.closed:
                continue
            for key, entry in state.entries():
                resource = self.resource(key)
                if judge(self._rules[resource.index], entry.started, entry.jitter, now) is Freshness.DEAD:
                    self._take_out(state, resource, key, Removal.EXPIRED)
                    self._drop_aliases(state, resource)
                    self._tell_removal(state, resource, Removal.EXPIRED)
            if state.refusals is not None:
                state.refusals = {
                    key: known for key, known in state.refusals.items() if now < known[1]
                } or None
            if state.at_rest() and now - state.used >= idle and not any(True for _ in state.entries()):
                self.close(state, Removal.EXPIRED)
            else:
                self._queue.append(state)

    def make_room(self, *, keep: State | None = None) -> None:
        """Evict sessions at rest, the longest unused first, as long as a limit is passed; never *keep*."""
        while len(self.states) > self._limits.max_sessions or self.bytes() > self._limits.max_bytes:
            victim = self._least_recently_used(keep)
            if victim is None:
                return
            self.close(victim, Removal.EVICTED)

    def bytes(self) -> int:
        """Return the memory that all sessions take, estimated."""
        fixed = len(self.states) * self._session_bytes + self._user_bytes + self._aliases * ALIAS_BYTES
        return fixed + self._entry_bytes

    def held(self, resource: Resource[Any]) -> tuple[int, int]:
        """Return how many entries of a resource are held, and the memory that they take, estimated."""
        weights = self._weights[resource.index]
        return weights.entries, weights.bytes

    def bytes_of(self, state: State) -> int:
        """Return the memory that one session takes, estimated."""
        size = self._session_bytes + text_bytes(state.user)
        for key, entry in state.entries():
            resource = self.resource(key)
            size += self._weights[resource.index].weigh(1, len(entry.body)) + key_bytes(key, resource)
        return size + ALIAS_BYTES * sum(1 for _ in state.aliases())

    def resource(self, key: str) -> Resource[Any]:
        """Return whose entry is filed under *key*."""
        return self._by_prefix[key[: key.index(":") + 1]]

    def _take_out(self, state: State, resource: Resource[Any], key: str, cause: Removal) -> bool:
        entry = state.take_out(key)
        if entry is None:
            return False
        if state.retries is not None:
            state.retries = {each: at for each, at in state.retries.items() if each != key} or None
        self._entry_bytes += self._weights[resource.index].remove(key, entry, resource)
        self._ledger.tallies[resource.index].removals[cause] += 1
        return True

    def _drop_aliases(self, state: State, resource: Resource[Any]) -> None:
        for dependent in (resource, *self._dependents[resource.index]):
            self._forget(state, dependent)

    def _forget(self, state: State, resource: Resource[Any]) -> None:
        self._aliases -= isinstance(state.slots[resource.index], Alias)
        state.leave_short_cut(resource)

    def _drop_oldest(self, state: State, *, keep: str) -> None:
        held = [(entry.started, key) for key, entry in state.entries()]
        if len(held) <= self._limits.max_keys_per_session:
            return
        _, key = min(each for each in held if each[1] != keep)
        resource = self.resource(key)
        self._take_out(state, resource, key, Removal.EVICTED)
        self._drop_aliases(state, resource)
        if self.copied is not None:
            # A session in memory holds all that its copy holds.
            self.copied.dropped(state, resource, key)
        self._tell_removal(state, resource, Removal.EVICTED)

    def _tell_removal(self, state: State, resource: Resource[Any], cause: Removal) -> None:
        self._tell(state.user, lambda pseudonym: EntryRemoved(resource.name, cause, pseudonym))

    def _throw_out(self) -> None:
        # A few at a time, so that no single close pays for the many before it.
        if len(self._queue) > 2 * len(self.states) + EVICTION_PROBES:
            for _ in range(THROWN_OUT_AT_ONCE):
                state = self._queue.popleft()
                if not state.closed:
                    self._queue.append(state)

    def _least_recently_used(self, keep: State | None) -> State | None:
        probed = []
        for _ in range(min(EVICTION_PROBES, len(self._queue))):
            state = self._queue.popleft()
            if not state.closed:
                probed.append(state)
        candidates = [state for state in probed if state is not keep and state.at_rest()]
        victim = min(candidates, key=lambda state: state.used, default=None)
        self._queue.extend(state for state in probed if state is not victim)
        return victim


def text_bytes(text: str) -> int:
    """Return the bytes of a string, whatever else it has come to carry: what is counted in is counted out."""
    return sys.getsizeof("") + len(text) if text.isascii() else sys.getsizeof("é") + len(text.encode())


def key_bytes(key: str, resource: Resource[Any]) -> int:
    """Return the bytes of an entry's key; the one of a resource without parameters is everybody's."""
    return text_bytes(key) + KEYED_BYTES if resource.parameters else 0


def size_of(value: object) -> int:
    """Return the bytes of a decoded value: the graph below it, small shared objects left out."""
    size = 0
    # Not by recursion: how deep it goes is the upstream's choice.
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is None or isinstance(each, bool | type | Enum):
            continue
        if isinstance(each, str | bytes | float) and not each:
            continue
        if not (isinstance(each, int) and -5 <= each <= 256):
            size += sys.getsizeof(each)
        if isinstance(each, msgspec.Struct):
            waiting += [getattr(each, name) for name in each.__struct_fields__]
        elif dataclasses.is_dataclass(each):
            waiting += [getattr(each, field.name) for field in dataclasses.fields(each)]
        elif isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
    return size
