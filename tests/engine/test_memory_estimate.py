"""The memory that a cache says it takes is what it takes, to a fifth."""

from __future__ import annotations

import enum
import gc
import itertools
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coatcheck import Body, Catalog, SystemClock
from engine.conftest import memory_only
from engine.test_single_flight import Holder
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import Resource, SessionCache
    from engine.conftest import MakeCache


class Centre(msgspec.Struct, frozen=True):
    id: int
    name: str
    region: str
    active: bool = True
    cost: float = 0.5
    parent: int | None = None


class Estate(msgspec.Struct, frozen=True):
    centres: tuple[Centre, ...]
    labels: tuple[str, ...]


def centres(number: int) -> tuple[Centre, ...]:
    return tuple(
        Centre(1_000 + each, f"data centre {each}", f"region {each % 7}", cost=each + 0.25)
        for each in range(number)
    )


class Shapes:
    """One resource of each shape that JSON from an API has."""

    def __init__(self) -> None:
        self.catalog: Catalog[Any] = Catalog("shapes")
        catalog = self.catalog
        numbers = itertools.count(1_000_000)

        @catalog.resource
        async def number(api: Any) -> int:
            return next(numbers)

        @catalog.resource
        async def name(api: Any) -> str:
            return f"the name of number {next(numbers)}"

        @catalog.resource
        async def listing(api: Any) -> tuple[Centre, ...]:
            return centres(40)

        @catalog.resource
        async def estate(api: Any) -> Estate:
            return Estate(centres(10), tuple(f"label {each}" for each in range(30)))

        @catalog.resource
        async def body(api: Any) -> Body[tuple[Centre, ...]]:
            return Body(msgspec.json.encode(centres(40)))

        @catalog.resource
        async def document(api: Any) -> dict[str, Any]:
            return {"centres": msgspec.to_builtins(centres(40)), "number": next(numbers)}

        @catalog.resource
        async def keyed(api: Any, number: int) -> tuple[int, ...]:
            return tuple(range(number, number + 20))


# Traced along with the cache's, a store's own memory would be taken for it.
@memory_only
@pytest.mark.parametrize("shape", ["number", "name", "listing", "estate", "body", "document", "keyed"])
async def test_the_estimate_is_within_a_fifth_of_what_is_allocated(make_cache: MakeCache, shape: str) -> None:
    """S16: many users with values of one shape, measured by tracemalloc against what the cache says."""
    shapes = Shapes()
    cache = make_cache(Holder(shapes.catalog), connect=lambda _user: None, clock=SystemClock())
    resource: Resource[Any] = shapes.catalog[shape]
    # What is made once, and the first values, by which the factor is measured, are not of any user.
    for number in range(10):
        await fill(cache, resource, f"warm-{number}")
    gc.collect()
    before = cache.stats().bytes
    tracemalloc.start()
    try:
        base, _ = tracemalloc.get_traced_memory()
        for number in range(40 if shape == "keyed" else 100):
            await fill(cache, resource, f"user-{number:05}@example.com")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - base
    finally:
        tracemalloc.stop()
    said = cache.stats().bytes - before
    assert 0.8 <= said / taken <= 1.2, f"said {said}, took {taken}"


async def fill(cache: SessionCache[Any], resource: Resource[Any], user: str) -> None:
    session = cache.session(user)
    for _ in range(2):
        if resource.name == "keyed":
            for number in range(10):
                await session.get(resource, number=number * 1_000)
        else:
            await session.get(resource)


async def test_the_figures_of_users_and_resources_add_up(cache: SessionCache[Any], world: World) -> None:
    """What users take together is what the cache takes; what resources take is that without the sessions."""
    for user in ("ann", "bob", "é" * 50):
        await cache.session(user).get_many(world.hosts, world.notes)
        for number in ("x" * 500, 7):
            await cache.session(user).get(world.item, number=number)
        await cache.session(user).get(world.hosts)
    stats = cache.stats()
    by_user = sum(cache.stats(user).bytes for user in cache.users())
    assert abs(by_user - stats.bytes) <= stats.entries
    assert sum(each.bytes for each in stats.resources.values()) < stats.bytes
    assert 18 == stats.entries
    await cache.clear_all()
    assert 0 == cache.stats().bytes


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Branch(msgspec.Struct, frozen=True):
    below: Branch | None = None


@pytest.mark.parametrize("shape", ["a flag", "deep"])
async def test_no_value_is_too_odd_to_be_estimated(make_cache: MakeCache, shape: str) -> None:
    """A flag iterates over itself; and how deep a value goes is the upstream's choice."""
    catalog: Catalog[Any] = Catalog("odd")

    @catalog.resource
    async def access(api: Any) -> Access:
        return Access.READ

    @catalog.resource
    async def tree(api: Any) -> Body[Branch]:
        return Body(b'{"below":' * 900 + b"{}" + b"}" * 900)

    cache = make_cache(Holder(catalog))
    resource: Resource[Any] = access if shape == "a flag" else tree
    first = await cache.session("ann").get(resource)
    assert first is await cache.session("ann").get(resource)
    assert cache.stats().bytes > 0
