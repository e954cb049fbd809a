"""Every public call once, for the type checkers: checked by mypy and pyright, never executed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

import msgspec
from prometheus_client import REGISTRY

import coatcheck
from coatcheck import (
    Body,
    Catalog,
    Cleared,
    Limits,
    Lookup,
    Outcome,
    Policy,
    Resource,
    Schedule,
    Session,
    SessionCache,
    SyncCache,
    SystemClock,
    current_user,
)
from coatcheck.engine.events import Event, LoadEnded
from coatcheck.engine.stats import CacheStats, Gets, ResourceStats, UserStats
from coatcheck.errors import MissingExtra
from coatcheck.stores import KeyProvider, KeyRing, SQLiteStore
from coatcheck.telemetry import CacheCollector, LogObserver, SpanObserver, all_of
from coatcheck.testing import FakeClock, GatedLoader, HeldLoad, settle

if TYPE_CHECKING:
    from coatcheck.ipc import APIExecutorService
    from coatcheck.upstream.client import UpstreamClient


class Api:
    """What connect returns."""

    async def fetch(self, path: str) -> bytes:
        """Return a body."""
        return path.encode()

    async def aclose(self) -> None:
        """Close."""


class Account(msgspec.Struct, frozen=True):
    """An account."""

    id: int


class Zone(msgspec.Struct, frozen=True):
    """A zone."""

    name: str


catalog: Catalog[Api] = Catalog("typing")


@catalog.resource(Policy(ttl=timedelta(hours=24), refresh_ahead=0.9, jitter=0.1))
async def account(api: Api) -> Body[Account]:
    """Return the account, as it came."""
    return Body(await api.fetch("/account"))


@catalog.derived
def account_id(account: Account) -> int:
    """Return its id."""
    return account.id


@catalog.resource(Policy(ttl=timedelta(hours=1), deadline=timedelta(seconds=10)))
async def zones(api: Api, account_id: int, region: str = "eu") -> tuple[Zone, ...]:
    """Return the zones of a region."""
    return (Zone(f"{await api.fetch(region)!r}-{account_id}"),)


@catalog.resource
async def flags(api: Api) -> dict[str, bool]:
    """Return what may be changed by who gets it."""
    return {"a": bool(await api.fetch("/flags"))}


assert_type(account, Resource[Account])
assert_type(account_id, Resource[int])
assert_type(zones, Resource[tuple[Zone, ...]])
assert_type(flags, Resource[dict[str, bool]])


def connect(user: str) -> Api:
    """Return the user's API."""
    return Api()


async def connect_later(user: str) -> Api:
    """Return the user's API after a log-in."""
    return connect(user)


def observe(event: Event) -> None:
    """Look at an event."""
    assert_type(event.pseudonym, str)


async def sessions() -> None:
    """Call everything that a session offers."""
    async with SessionCache(
        catalog,
        connect=connect,
        limits=Limits(max_bytes=64 * 1024 * 1024, max_sessions=10_000),
        clock=SystemClock(),
        on_event=all_of(observe, LogObserver(), SpanObserver()),
        pseudonym_key=b"sixteen or more!",
        enabled=True,
        schedule=Schedule(every=timedelta(minutes=5), seen_within=timedelta(hours=1)),
    ) as cache:
        assert_type(cache, SessionCache[Api])
        session = cache.session("user@example.com")
        assert_type(session, Session)
        assert_type(await session.get(account), Account)
        assert_type(await session.get(account_id), int)
        assert_type(await session.get(zones, account_id=99, region="us"), tuple[Zone, ...])
        assert_type(await session.get(zones, force_refresh=True, deep=True), tuple[Zone, ...])
        assert_type(await session.get(flags, max_age=timedelta(minutes=5)), dict[str, bool])
        assert_type(await session.get_many(account, account_id), tuple[Account, int])
        assert_type(await session.get_many(account, account_id, zones), tuple[Account, int, tuple[Zone, ...]])
        await session.warm()
        look = await session.lookup(zones)
        assert_type(look, Lookup[tuple[Zone, ...]])
        assert_type(look.value, tuple[Zone, ...])
        assert_type(look.body, bytes)
        assert_type(look.outcome, Outcome)
        assert_type(look.age, float)
        assert_type(look.fresh_for, float)
        assert_type(look.stale, bool)
        assert_type(session.peek(account_id), Lookup[int] | None)
        assert_type(await session.call(lambda api: api.fetch("/live")), Any)
        await session.put(zones, (Zone("a"),), account_id=99)
        await session.invalidate(zones)
        await session.invalidate(zones, account_id=99)
        cleared = await session.clear()
        assert_type(cleared, Cleared)
        assert_type(cleared.durable, bool)
        await cache_wide(cache)


async def cache_wide(cache: SessionCache[Api]) -> None:
    """Call everything that a cache offers."""
    assert_type(await cache.clear("user@example.com"), Cleared)
    assert_type(await cache.clear_all(), Cleared)
    await cache.invalidate(zones)
    cache.set_policy(zones, Policy(ttl=timedelta(hours=1)))
    cache.set_policies({zones: Policy(), account: Policy()})
    assert_type(cache.policy(zones), Policy)
    assert_type(cache.users(), tuple[str, ...])
    stats = cache.stats()
    assert_type(stats, CacheStats)
    assert_type(stats.total, Gets)
    assert_type(stats.resources["zones"], ResourceStats)
    assert_type(cache.stats("user@example.com"), UserStats)
    assert_type(cache.pseudonym("user@example.com"), str)
    await cache.settled()
    await cache.aclose()


def blocking() -> None:
    """Call the blocking face."""
    with SyncCache(catalog, connect=connect_later) as cache:
        session = cache.session("user@example.com")
        assert_type(session.get(account_id), int)
        assert_type(session.get(zones, force_refresh=True), tuple[Zone, ...])
        assert_type(session.lookup(zones), Lookup[tuple[Zone, ...]])
        assert_type(session.peek(zones), Lookup[tuple[Zone, ...]] | None)
        session.put(zones, (), account_id=1)
        session.invalidate(zones)
        assert_type(session.clear(), Cleared)
        assert_type(cache.stats(), CacheStats)
        assert_type(cache.pseudonym("user@example.com"), str)
        cache.settled()


def stored(keys: KeyRing, provider: KeyProvider) -> None:
    """Give a store its keys in every way."""
    SessionCache(catalog, connect=connect_later, store=SQLiteStore("sessions.sqlite"))
    SessionCache(catalog, connect=connect_later, store=SQLiteStore("sessions.sqlite", keys=keys))
    SQLiteStore("sessions.sqlite", keys=provider)
    SQLiteStore("sessions.sqlite", keys=KeyRing.drawn)
    SQLiteStore("sessions.sqlite", keys=lambda: KeyRing.from_text("…"))
    assert_type(provider(), KeyRing)


def telemetry(client: UpstreamClient, cache: SessionCache[Api], event: Event) -> None:
    """Put the metrics into a registry, and look at an event."""
    REGISTRY.register(CacheCollector(cache.stats))
    REGISTRY.register(CacheCollector(cache.stats, breaker=client.breaker.state))
    if isinstance(event, LoadEnded):
        assert_type(event.attempts, int)
        assert_type(event.error, str | None)
    assert_type(MissingExtra("x").name, str | None)


async def doubles() -> None:
    """Call what is shipped for tests."""
    clock = FakeClock()
    await clock.advance(1.0)
    gate = GatedLoader()
    load = await gate.hold()
    assert_type(load, HeldLoad)
    await load.succeed(1)
    await settle(lambda: gate.calls == 1)


async def drop_in(service: APIExecutorService) -> None:
    """Call the drop-in service."""
    token = current_user.set("user@example.com")
    assert_type(await service.get_engagement_id(), int | None)
    assert_type(await service.get_ipc_engagement_id(4101, "user@example.com", True), int | None)
    await service.get_endpoints(force_refresh=True)
    await service.get_zones_list(73055)
    await service.list_managed_services("IKSKafka")
    service.session_cache_duration = timedelta(hours=1)
    await service.close()
    current_user.reset(token)


assert_type(coatcheck.api_executor_service.session_cache_duration, timedelta)
