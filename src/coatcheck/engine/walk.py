"""Gets resolved from memory alone: through what a resource depends on to an entry, without I/O and in any thread."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from coatcheck.engine.entry import NEVER, PER_CALLER, Alias, Entry
from coatcheck.engine.home import HomeEnded
from coatcheck.engine.keys import encode_arguments
from coatcheck.engine.policy import Freshness, ageing_point, expiry, judge
from coatcheck.errors import LoaderBroke

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.home import Home
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.refresh import Refresher
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State

Slot = Entry | Alias


class Due(NamedTuple):
    """An entry that has reached its refresh-ahead point."""

    resource: Resource[Any]
    key: str
    values: tuple[object, ...]

    def __repr__(self) -> str:
        return f"<due: {self.resource.name}>"


class Walker:
    """Walks through the memory of one cache."""

    def __init__(self, *, sessions: Sessions, refresher: Refresher, home: Home, rules: list[Rule]) -> None:
        self._sessions = sessions
        self._refresher = refresher
        self._home = home
        self._rules = rules

    def walk(
        self,
        state: State,
        resource: Resource[Any],
        passed: Mapping[str, object],
        now: float,
        due: list[Due] | None,
    ) -> tuple[float, Slot] | None:
        """Return where a get ends when all on its way is fresh and held, and until when, else None; no I/O.

        With a list for what is *due*, which only who holds the cache's lock may give, the way is remembered.
        """
        if not passed:
            known = state.short_cut(resource, now)
            if known is not None:
                return known
        reached = self._arguments(state, resource, passed, now, due)
        if reached is None:
            return None
        values, parents = reached
        until = min((earliest for earliest, _ in parents), default=math.inf)
        expires = min((slot.expires for _, slot in parents), default=math.inf)
        if resource.derived:
            started = min((slot.started for _, slot in parents), default=now)
            found = derived(resource, values, started=started, expires=expires)
        else:
            held = self._held(state, resource, values, now, due)
            if held is None:
                return None
            earliest, found = held
            until, found.expires = min(until, earliest), min(expires, found.expires)
        if due is not None and not passed and not state.closed:
            return until, self._remember(state, resource, values, found, until, now)
        return until, found

    def _arguments(
        self,
        state: State,
        resource: Resource[Any],
        passed: Mapping[str, object],
        now: float,
        due: list[Due] | None,
    ) -> tuple[list[object], list[tuple[float, Slot]]] | None:
        """Return the loader's arguments in declared order, and what `walk` found for those that were not passed.

        None if something on the way is not held.

        Raises:
            MissingArgument: one was not passed that cannot be found.
        """
        values: list[object] = []
        parents: list[tuple[float, Slot]] = []
        for parameter in resource.parameters:
            if parameter.name in passed:
                values.append(passed[parameter.name])
            elif parameter.dependency is None:
                values.append(parameter.value_of_default(resource.name))
            else:
                parent = self.walk(state, parameter.dependency, {}, now, due)
                if parent is None:
                    return None
                values.append(value_of(parameter.dependency, parent[1]))
                parents.append(parent)
        return values, parents

    def _held(
        self, state: State, resource: Resource[Any], values: list[object], now: float, due: list[Due] | None
    ) -> tuple[float, Alias] | None:
        key = key_of(resource, values)
        entry = state.entry(key)
        if entry is None:
            return None
        rule = self._rules[resource.index]
        freshness = judge(rule, entry.started, entry.jitter, now)
        expires = expiry(rule, entry.started)
        if freshness is Freshness.FRESH:
            until = ageing_point(rule, entry.started, entry.jitter)
        elif freshness is Freshness.AGEING:
            retry_at = state.retry_at(key)
            until = retry_at if now < retry_at else NEVER
            if due is not None:
                due.append(Due(resource, key, tuple(values)))
        else:
            return None
        leaf = Alias(value=entry.value, body=entry.body, started=entry.started, expires=expires)
        return min(until, expires), leaf

    def _remember(
        self,
        state: State,
        resource: Resource[Any],
        values: list[object],
        found: Alias,
        until: float,
        now: float,
    ) -> Slot:
        slot: Slot = found
        entry = None if resource.derived else state.entry(key_of(resource, values))
        if entry is not None:
            # Itself, in place of another object for each of many users.
            entry.expires = found.expires
            slot = entry
        self._sessions.remember(state, resource, slot, until, now)
        return slot

    def refresh(self, state: State, due: list[Due], now: float) -> None:
        """Begin the background loads that a walk found due; asked elsewhere than at home, soon."""
        begin = self._refresher.ahead if self._home.is_here() else self._refresher.from_anywhere
        with contextlib.suppress(HomeEnded):
            for each in due:
                begin(state, each.resource, each.key, each.values, now)

    def due_before(self, state: State, now: float, horizon: float) -> list[Due]:
        """Return the user's own entries that are fresh now and will have to be refreshed by *horizon*."""
        found = []
        for resource in self._sessions.resources:
            if resource.resolvable and not resource.derived:
                with contextlib.suppress(Exception):
                    # A derived function on the way may raise anything; that is told to who asks, and is no affair of
                    # the users and resources that come after.
                    found += self._due_before(state, resource, now, horizon)
        return found

    def _due_before(self, state: State, resource: Resource[Any], now: float, horizon: float) -> list[Due]:
        reached = self._arguments(state, resource, {}, now, None)
        if reached is None:
            return []
        values, _ = reached
        key = key_of(resource, values)
        entry = state.entry(key)
        rule = self._rules[resource.index]
        if entry is None or not now < expiry(rule, entry.started):
            return []
        ends = min(expiry(rule, entry.started), ageing_point(rule, entry.started, entry.jitter))
        return [Due(resource, key, tuple(values))] if ends <= horizon else []

    def to_invalidate(
        self, state: State, resource: Resource[Any], passed: Mapping[str, object], now: float
    ) -> list[tuple[Resource[Any], str | None]]:
        """Return which entries an invalidation drops: resource and key, or None for all its keys."""
        if resource.derived:
            return [
                pair
                for dependency in resource.dependencies
                if dependency.name not in passed
                for pair in self.to_invalidate(state, dependency, {}, now)
            ]
        if not passed:
            return [(resource, None)]
        reached = self._arguments(state, resource, passed, now, None)
        # Which key is meant cannot always be told without a load.
        return [(resource, None if reached is None else key_of(resource, reached[0]))]


def key_of(resource: Resource[Any], values: list[object]) -> str:
    """Return what an entry with these arguments is filed under in memory."""
    if not resource.parameters:
        return resource.key
    # Latin-1 turns bytes into a string of as many characters, one to one.
    return resource.key + encode_arguments(values).decode("latin-1")


def value_of(resource: Resource[Any], slot: Slot) -> Any:
    """Return the value for one caller: the shared one, or one of its own."""
    return resource.codec.decode(slot.body) if slot.value is PER_CALLER else slot.value


def derived(resource: Resource[Any], values: list[object], *, started: float, expires: float) -> Alias:
    """Return what a derived resource is, for these values of what it is derived from.

    Raises:
        LoaderBroke: its function raised what is no `Exception`. Any other that it raises is raised as it is.
    """
    named = {parameter.name: value for parameter, value in zip(resource.parameters, values, strict=True)}
    try:
        result = resource.loader(**named)
    except Exception:
        raise
    except BaseException as error:  # noqa: BLE001 - let through, it would end what serves everybody, or cancel who was not
        what = type(error).__name__
    else:
        body, value = resource.codec.accept(result)
        shared = value if resource.codec.shared else PER_CALLER
        return Alias(value=shared, body=body, started=started, expires=expires)
    raise LoaderBroke(f"{resource.name}: its function raised {what}")
