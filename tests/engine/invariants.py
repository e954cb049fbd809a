"""What holds of every cache that nobody is waiting on, whatever was done with it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from coatcheck.engine.entry import Entry
from coatcheck.engine.policy import Freshness, judge
from coatcheck.engine.sessions import key_bytes
from coatcheck.engine.store import Owner, Written, is_shared
from coatcheck.engine.write_behind import arguments_of

if TYPE_CHECKING:
    from coatcheck.engine.cache import SessionCache
    from coatcheck.engine.outbox import Outbox
    from coatcheck.engine.state import State
    from coatcheck.engine.stats import Gets
    from coatcheck.engine.store import Store


def check_at_rest(cache: SessionCache[Any]) -> None:
    """Check that no work is left and that every count equals a recount."""
    check_no_work(cache)
    check_memory(cache)
    check_counts(cache)


def check_no_work(cache: SessionCache[Any]) -> None:
    """No load runs, none is queued, and every slot is free."""
    assert set() == cache._loads._flights
    assert 0 == cache._refresher._running
    assert 0 == cache.stats().abandoned_loads
    assert cache._sessions._limits.max_loads == cache._loads._slots._free
    assert set() == cache._loads._callers
    for state in cache._sessions.states.values():
        assert (0, None, None) == (state.loading, state.flights, state.gate)
        assert not state.closed


def check_memory(cache: SessionCache[Any]) -> None:
    """Entries and bytes, kept up to date by additions, equal a recount."""
    sessions = cache._sessions
    entries: Counter[int] = Counter()
    bodies: Counter[int] = Counter()
    keys: Counter[int] = Counter()
    aliases = 0
    for state in sessions.states.values():
        assert len(list(state.entries())) <= sessions._limits.max_keys_per_session
        aliases += sum(1 for _ in state.aliases())
        for key, entry in state.entries():
            resource = sessions.resource(key)
            assert isinstance(entry, Entry)
            entries[resource.index] += 1
            bodies[resource.index] += len(entry.body)
            keys[resource.index] += key_bytes(key, resource)
    for resource in cache._catalog:
        weights = sessions._weights[resource.index]
        counted = (entries[resource.index], bodies[resource.index], keys[resource.index])
        assert counted == (weights.entries, weights.body_bytes, weights.key_bytes), resource.name
        assert weights.bytes == weights.weigh(*counted[:2]) + weights.key_bytes
    assert sum(weights.bytes for weights in sessions._weights) == sessions._entry_bytes
    assert aliases == sessions._aliases
    assert set(sessions.states.values()) <= set(sessions._queue)
    assert sum(entries.values()) == cache.stats().entries
    by_user = sum(cache.stats(user).bytes for user in cache.users())
    # Each user's share of the decoded values is rounded down for itself.
    assert abs(by_user - cache.stats().bytes) <= sum(entries.values())


def check_counts(cache: SessionCache[Any]) -> None:
    """The identities of counting hold for each resource, for all, and for each user."""
    stats = cache.stats()
    for name, each in stats.resources.items():
        check_gets(each)
        assert each.loads == sum(each.loads_by_cause.values()), name
        assert each.loads == sum(each.loads_by_end.values()) + each.loading, name
        assert 0 == each.loading, name
    check_gets(stats.total)
    for user in cache.users():
        of_user = cache.stats(user)
        check_gets(of_user.total)
        for name, gets in of_user.resources.items():
            assert gets.gets <= stats.resources[name].gets
            assert gets.loads <= stats.resources[name].loads


def check_gets(gets: Gets) -> None:
    """Every get that ended is counted once."""
    ended = gets.hits + gets.stale_hits + gets.coalesced + gets.misses + gets.failed + gets.cancelled
    assert ended == gets.gets


async def check_in_step(
    cache: SessionCache[Any], store: Store, *, alone: bool = True, every_read_succeeded: bool = True
) -> None:
    """When all is written, a session's stored copy holds what memory holds, and nothing else.

    But for one that somebody else has cleared there, which the next write finds out; and for what a read that failed
    has left there: it is brought in the next time.
    """
    await cache.settled()
    persistence = cache._persistence
    assert persistence is not None
    stats = persistence.stats()
    assert 0 == stats.writes_waiting
    for user, state in cache._sessions.states.items():
        if state.outbox is None or state.outbox.authority is None or not persistence._repairs.trusted(user):
            continue
        stored = await store.open(Owner(cache._catalog.name, user))
        if not alone and state.outbox.id not in (None, stored.id):
            continue
        assert state.outbox.id in (None, stored.id)
        copy = {(record.resource, record.arguments): record.body for record in stored.records}
        held, dead = _held(cache, state, state.outbox)
        for key, body in copy.items():
            assert body == held.get(key, dead.get(key, None if every_read_succeeded else body))
        # In memory alone is a load that began before a delete and was kept all the same, what was written under a
        # shorter ttl, and what met the end of a session that a store of one's own had swept: a shared one ends both.
        changed = any(rule.alive_after > -math.inf for rule in cache._rules)
        swept = stats.writes[Written.ENDED.value] > 0 and not is_shared(store)
        assert held.keys() <= copy.keys() or changed or swept or stats.writes[Written.OVERTAKEN.value] > 0


def _held(
    cache: SessionCache[Any], state: State, outbox: Outbox
) -> tuple[dict[tuple[str, bytes], bytes], dict[tuple[str, bytes], bytes]]:
    """Return the bodies in memory as they are filed in the store: those that may be served, and those that may not."""
    held: dict[tuple[str, bytes], bytes] = {}
    dead: dict[tuple[str, bytes], bytes] = {}
    now = cache._clock.monotonic()
    for key, entry in state.entries():
        resource = cache._sessions.resource(key)
        freshness = judge(cache._rules[resource.index], entry.started, entry.jitter, now)
        filed = resource.signature, arguments_of(resource, key, outbox)
        (dead if freshness is Freshness.DEAD else held)[filed] = entry.body
    return held, dead
