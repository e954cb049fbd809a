"""What happened is told in small frozen events, to an observer that can neither delay nor harm the cache."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Policy
from coatcheck.engine.events import EntryRemoved, Feed, LoadEnded, RefusalServed, SessionEnded, StaleServed
from coatcheck.engine.stats import Cause, End, Removal
from coatcheck.errors import Forbidden, UpstreamTimeout
from engine.world import World

if TYPE_CHECKING:
    from coatcheck.engine.events import Event
    from coatcheck.testing import FakeClock
    from engine.conftest import MakeCache


async def test_loads_and_ends_are_told_in_order(make_cache: MakeCache, clock: FakeClock) -> None:
    """One event for each load that ended, entry that left, stale answer and remembered refusal; none for hits."""
    world = World(account=Policy(ttl=timedelta(seconds=100), stale_if_error=timedelta(seconds=100), jitter=0))
    seen: list[Event] = []
    cache = make_cache(world, on_event=seen.append)
    session, ann = cache.session("ann"), cache.pseudonym("ann")

    def ended(resource: str, cause: Cause, end: End, seconds: float = 0.0, **more: Any) -> LoadEnded:
        return LoadEnded(resource, cause, end, seconds, ended=clock.wall(), pseudonym=ann, **more)

    gate = world.hold("account")
    getting = asyncio.create_task(session.get(world.account))
    load = await gate.hold()
    await clock.advance(2)
    await load.succeed(1)
    await getting
    for _ in range(3):
        await session.get(world.account)
    world.release("account")
    await cache.settled()
    assert [ended("account", Cause.GET, End.STORED, 2.0)] == seen

    seen.clear()
    await clock.advance(120)
    world.fail("account", lambda: UpstreamTimeout("slow"))
    await session.get(world.account)
    await cache.settled()
    failed = ended("account", Cause.GET, End.FAILED, error="UpstreamTimeout")
    assert [failed, StaleServed("account", ann)] == seen

    seen.clear()
    world.fail("account", lambda: Forbidden("no"))
    for force in (True, False):
        with pytest.raises(Forbidden):
            await session.get(world.account, force_refresh=force)
    await session.get(world.item, number=1)
    await session.invalidate(world.item)
    await session.clear()
    await cache.settled()
    assert [
        EntryRemoved("account", Removal.REFUSED, ann),
        ended("account", Cause.FORCE, End.FAILED, error="Forbidden", refused=True),
        RefusalServed("account", "Forbidden", ann),
        ended("item", Cause.GET, End.STORED),
        EntryRemoved("item", Removal.INVALIDATED, ann),
        SessionEnded(Removal.CLEARED, 0, ann),
    ] == seen


def test_events_cannot_be_changed() -> None:
    """An observer that keeps them may rely on them."""
    event: Any = EntryRemoved("account", Removal.EXPIRED)
    with pytest.raises(AttributeError):
        event.resource = "other"


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit()], ids=repr)
async def test_an_observer_that_raises_harms_nothing(
    make_cache: MakeCache, world: World, error: BaseException
) -> None:
    """It is counted, and told of the next event all the same."""
    told = []

    def observer(event: Event) -> None:
        told.append(event)
        raise error

    cache = make_cache(world, on_event=observer)
    assert 1 == await cache.session("ann").get(world.account)
    await cache.session("ann").get(world.item, number=1)
    await cache.settled()
    assert (2, 2) == (len(told), cache.stats().observer_failures)


async def test_an_observer_may_ask_for_figures_and_set_policies(make_cache: MakeCache, world: World) -> None:
    """It is told outside of the cache's own steps."""
    seen: list[int] = []

    def observer(_event: Event) -> None:
        seen.append(cache.stats().entries)
        cache.set_policy(world.account, Policy())

    cache = make_cache(world, on_event=observer)
    await cache.session("ann").get(world.hosts)
    await cache.settled()
    assert 3 == len(seen)
    assert 3 == seen[-1]


async def test_an_observer_that_hangs_delays_nobody_and_loses_events_which_are_counted(
    make_cache: MakeCache, world: World
) -> None:
    """The queue is bounded; what was queued is told when the observer goes on."""
    going_on = threading.Event()
    seen: list[Event] = []

    def observer(event: Event) -> None:
        going_on.wait()
        seen.append(event)

    cache = make_cache(world, on_event=observer)
    cache._feed._backlog = 3
    for number in range(10):
        await cache.session("ann").get(world.item, number=number)
    dropped = cache.stats().events_dropped
    # The one that hangs is no longer waiting, unless its thread has not come to it yet.
    assert dropped in {6, 7}
    going_on.set()
    await cache.settled()
    assert 10 - dropped == len(seen)


async def test_a_pseudonym_stands_for_one_user_under_one_key(make_cache: MakeCache, world: World) -> None:
    """The same for the same key, different for every user and, without a key, for every cache."""
    key = bytes(range(32))
    one, two, own = (make_cache(world, pseudonym_key=each) for each in (key, key, None))
    assert one.pseudonym("ann") == two.pseudonym("ann")
    assert one.pseudonym("ann") != one.pseudonym("bob")
    assert one.pseudonym("ann") != own.pseudonym("ann")
    assert "ann" not in one.pseudonym("ann")


async def test_without_an_observer_no_event_is_made(make_cache: MakeCache, world: World) -> None:
    """Events cost nothing then."""
    cache = make_cache(world)
    await cache.session("ann").get(world.hosts)
    assert cache._feed._waiting.empty()
    assert not Feed(None).observed
