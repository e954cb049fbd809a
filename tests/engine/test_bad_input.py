"""Every error is of our tree, names what was wrong and how to mend it, and leaves what was cached as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Catalog, CoatcheckError, Policy, SessionCache, SyncCache
from coatcheck.errors import (
    InvalidKey,
    MissingArgument,
    PolicyError,
    SettingsError,
    UnknownArgument,
    UnknownResource,
    WrongType,
)
from coatcheck.testing.stores import MemoryStore
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck import Session
    from engine.conftest import MakeCache

Mistake = tuple[str, "Callable[[Session, World], Awaitable[Any]]", type[CoatcheckError], str]


def wrong(value: Any) -> Any:
    """Hide from the type checker what it would have told."""
    return value


MISTAKES: list[Mistake] = [
    ("unknown resource", lambda s, w: s.get(wrong("account")), UnknownResource, "str"),
    (
        "another catalog's",
        lambda s, w: s.get(World().account),
        UnknownResource,
        "account is no resource of catalog 'estate'",
    ),
    (
        "missing argument",
        lambda s, w: s.get(w.item),
        MissingArgument,
        "item needs the argument 'number': pass number=",
    ),
    ("missing in a put", lambda s, w: s.put(w.item, "x"), MissingArgument, "number"),
    ("missing in a lookup", lambda s, w: s.lookup(w.item), MissingArgument, "number"),
    (
        "missing in one of many",
        lambda s, w: s.get_many(w.account, w.item),
        MissingArgument,
        "item needs the argument 'number', and get_many takes none: use get(item, number=…)",
    ),
    ("unknown argument", lambda s, w: s.get(w.item, nubmer=1), UnknownArgument, "'nubmer'; it takes: number"),
    ("unknown of none", lambda s, w: s.get(w.account, number=1), UnknownArgument, "it takes: none"),
    ("unknown in a put", lambda s, w: s.put(w.account, 1, number=1), UnknownArgument, "number"),
    ("unknown in an invalidation", lambda s, w: s.invalidate(w.account, number=1), UnknownArgument, "number"),
    ("a grandparent's argument", lambda s, w: s.get(w.hosts, account=1), UnknownArgument, "kind, zones"),
    ("an argument that changes", lambda s, w: s.get(w.item, number=[1]), InvalidKey, "number"),
    ("a wrong value", lambda s, w: s.put(w.account, wrong("one")), WrongType, "account"),
    ("a wrong max_age", lambda s, w: s.get(w.account, max_age=wrong(5)), UnknownArgument, "timedelta"),
]


@pytest.mark.parametrize(("name", "call", "kind", "told"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
@pytest.mark.parametrize("held", [False, True], ids=["empty", "held"])
async def test_a_call_that_cannot_work_says_why_and_changes_nothing(
    cache: SessionCache[Any],
    world: World,
    name: str,
    call: Any,
    kind: type[CoatcheckError],
    told: str,
    held: bool,
) -> None:
    """Nothing is loaded for it, no session opened, nothing dropped, and the next good call is served as before."""
    session = cache.session("ann")
    if held:
        await session.get(world.hosts)
        await session.get(world.item, number=1)
    users, entries = cache.users(), cache.stats().entries
    loads = world.count("hosts"), world.count("item"), world.count("zones")
    with pytest.raises(kind) as caught:
        await call(session, world)
    assert told in str(caught.value)
    assert isinstance(caught.value, CoatcheckError)
    assert loads == (world.count("hosts"), world.count("item"), world.count("zones"))
    if name != "missing in one of many":
        assert (users, entries) == (cache.users(), cache.stats().entries)
    if held:
        before = len(world.calls)
        await session.get(world.hosts)
        await session.get(world.item, number=1)
        assert before == len(world.calls)


async def test_a_missing_argument_of_an_ancestor_is_named(make_cache: MakeCache) -> None:
    """A leaf whose parent needs an argument cannot be resolved; nothing on the way is loaded to find that out."""
    catalog: Catalog[Any] = Catalog("chain")
    calls: list[str] = []

    @catalog.resource
    async def first(api: Any) -> int:
        calls.append("first")
        return 1

    @catalog.resource
    async def second(api: Any, first: int, number: int) -> int:
        return first + number

    @catalog.resource
    async def third(api: Any, first: int, second: int) -> int:
        return second + first

    cache = make_cache(Holder(catalog))
    session = cache.session("ann")
    for name, call, told in (
        ("get", session.get, "which third does not take: pass second=…"),
        ("lookup", session.lookup, "which third does not take: pass second=…"),
        ("get_many", session.get_many, "and get_many takes none: use get(third, second=…)"),
    ):
        with pytest.raises(MissingArgument) as caught:
            await call(third)
        assert f"second needs the argument 'number', {told}" == str(caught.value), name
    assert [] == calls
    assert 6 == await cache.session("ann").get(third, second=5)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), 0, 3600, None, "24h"], ids=repr)
async def test_a_ttl_that_is_no_time_is_refused(cache: SessionCache[Any], world: World, ttl: Any) -> None:
    """Zero never means for ever; the policy in force stays."""
    await cache.session("ann").get(world.account)
    with pytest.raises(PolicyError, match="ttl"):
        cache.set_policy(world.account, Policy(ttl=ttl))
    assert timedelta(days=1) == cache.policy(world.account).ttl
    await cache.session("ann").get(world.account)
    assert 1 == world.count("account")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("catalog", "estate"),
        ("connect", None),
        ("connect", "an address"),
        ("store", "sessions.sqlite"),
        ("store", MemoryStore),
        ("authority", "me"),
        ("limits", {"max_sessions": 5}),
        ("clock", 5),
        ("on_event", []),
        ("schedule", 60),
    ],
)
def test_a_cache_of_wrong_parts_is_not_made(name: str, part: Any) -> None:
    """It says which part, and what it should be; found out later, it would be at somebody's first get."""
    world = World()
    parts: dict[str, Any] = {"catalog": world.catalog, "connect": world.connect, name: part}
    for cache in (SessionCache, SyncCache):
        with pytest.raises(SettingsError, match=f"{name} must be"):
            cache(parts["catalog"], **{key: value for key, value in parts.items() if key != "catalog"})
