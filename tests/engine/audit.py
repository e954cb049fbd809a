"""The inside of a cache, counted again and resolved again: what must hold between any two steps of its loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from coatcheck.engine.entry import PER_CALLER, Entry
from coatcheck.engine.row import ANSWER
from coatcheck.engine.sessions import key_bytes, text_bytes
from coatcheck.engine.state import ALIAS_BYTES, SESSION_BYTES
from coatcheck.engine.walk import key_of, value_of
from coatcheck.errors import MissingArgument

if TYPE_CHECKING:
    from coatcheck.engine.cache import SessionCache
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.state import State


def audit(cache: SessionCache[Any], now: float) -> None:
    """Compare the books with what is held, and every short cut with the long way.

    Raises:
        AssertionError: they differ.
    """
    _count_again(cache)
    _bound(cache)
    for state in cache._sessions.states.values():
        assert not state.closed
        for resource in cache._catalog:
            _follow(cache, state, resource, now)


def _count_again(cache: SessionCache[Any]) -> None:
    sessions = cache._sessions
    entries = [0] * len(cache._catalog)
    bodies = [0] * len(cache._catalog)
    keys = [0] * len(cache._catalog)
    aliases = 0
    assert sessions.rows.keys() == sessions.states.keys()
    for user, state in sessions.states.items():
        assert state.user == user
        assert sessions.rows[user] is state.row
        aliases += sum(1 for _ in state.aliases())
        for key, entry in state.entries():
            resource = sessions.resource(key)
            entries[resource.index] += 1
            bodies[resource.index] += len(entry.body)
            keys[resource.index] += key_bytes(key, resource)
    for index, weights in enumerate(sessions._weights):
        assert weights.entries == entries[index], "entries miscounted"
        assert weights.body_bytes == bodies[index], "bytes of bodies miscounted"
        assert weights.key_bytes == keys[index], "bytes of keys miscounted"
        assert weights.bytes == weights.weigh(entries[index], bodies[index]) + keys[index], "not weighed anew"
    assert sessions._entry_bytes == sum(weights.bytes for weights in sessions._weights)
    assert sessions._aliases == aliases, "aliases miscounted"
    assert sessions._user_bytes == sum(map(text_bytes, sessions.states)), "users miscounted"
    floor = len(sessions.states) * SESSION_BYTES + sessions._user_bytes + sum(bodies)
    assert sessions.bytes() >= floor
    queued = [id(state) for state in sessions._queue if not state.closed]
    assert sorted(queued) == sorted(id(state) for state in sessions.states.values()), (
        "the queue lost a session"
    )


def _bound(cache: SessionCache[Any]) -> None:
    sessions, limits = cache._sessions, cache._sessions._limits
    for state in sessions.states.values():
        assert sum(1 for _ in state.entries()) <= limits.max_keys_per_session, "too many entries in a session"
    idle = [state for state in sessions.states.values() if state.at_rest()]
    if len(sessions.states) > limits.max_sessions:
        assert len(idle) <= 1, "too many sessions, and some but the latest could go"
    # A short cut is taken on the way to a hit, in any thread; room for it is made at the next load.
    if sessions.bytes() - sessions._aliases * ALIAS_BYTES > limits.max_bytes:
        assert len(idle) <= 1, "too many bytes, and some but the latest could go"
    assert cache._refresher._running <= limits.max_refreshes


def _follow(cache: SessionCache[Any], state: State, resource: Resource[Any], now: float) -> None:
    """See that what is served by the shortest way is what the long way leads to, and no longer than that."""
    short_cut = state.short_cut(resource, now)
    if short_cut is None:
        return
    until_then, slot = short_cut
    assert value_of(resource, slot) == _answer(state, resource), (
        f"{resource.name} answers what is not in its slot"
    )
    reached = _long_way(cache, state, resource)
    assert reached is not None, f"{resource.name} is served, and what it was resolved through is gone"
    body, until = reached
    assert slot.body == body, f"{resource.name} is served in another version than it resolves to"
    assert until_then <= until, f"{resource.name} is served for longer than what it was resolved through"
    if isinstance(slot, Entry):
        assert slot in [entry for _, entry in state.entries(resource)], f"{resource.name}: served, not held"


def _answer(state: State, resource: Resource[Any]) -> Any:
    answer = state.row[resource.mark + ANSWER]
    return answer if resource.shared else resource.codec.decode(answer)


def _long_way(cache: SessionCache[Any], state: State, resource: Resource[Any]) -> tuple[bytes, float] | None:
    """Return the body that a get without arguments resolves to, and until when, without any short cut."""
    until = math.inf
    values: list[Any] = []
    for parameter in resource.parameters:
        if parameter.dependency is None:
            try:
                values.append(parameter.value_of_default(resource.name))
            except MissingArgument:
                return None
            continue
        reached = _long_way(cache, state, parameter.dependency)
        if reached is None:
            return None
        values.append(parameter.dependency.codec.decode(reached[0]))
        until = min(until, reached[1])
    if resource.derived:
        named = {parameter.name: value for parameter, value in zip(resource.parameters, values, strict=True)}
        return resource.codec.accept(resource.loader(**named))[0], until
    entry = state.entry(key_of(resource, values))
    if entry is None:
        return None
    if resource.codec.shared:
        assert entry.value is not PER_CALLER
    return entry.body, min(until, entry.started + cache._rules[resource.index].ttl)
