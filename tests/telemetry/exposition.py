"""Prints what a scrape of a cache that has seen all kinds of things returns, to be checked by `promtool check metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest

from coatcheck import Catalog, Policy, SessionCache
from coatcheck.errors import Forbidden, UpstreamFailed
from coatcheck.telemetry import CacheCollector
from coatcheck.testing import FakeClock
from coatcheck.testing.stores import MemoryStore
from coatcheck.upstream.breaker import Breaker

catalog: Catalog[str] = Catalog("exposition")


@catalog.resource(
    Policy(ttl=timedelta(minutes=1), stale_if_error=timedelta(hours=1), negative_ttl=timedelta(minutes=1))
)
async def account(api: str) -> int:
    if api == "refused":
        raise Forbidden("403")
    return len(api)


@catalog.derived
def half(account: int) -> int:
    return account // 2


@catalog.resource
async def zones(api: str, half: int, region: str = "eu") -> tuple[str, ...]:
    if region == "broken":
        raise UpstreamFailed("500", status=500)
    return (region,) * half


async def expose() -> str:
    """Return the exposition, in the text format."""
    clock = FakeClock()
    breaker = Breaker(clock=clock, threshold=1)
    async with SessionCache(
        catalog, connect=str, store=MemoryStore(clock=clock), clock=clock, on_event=lambda _: None
    ) as cache:
        for user in ("anybody", "somebody", "refused"):
            session = cache.session(user)
            for _ in range(3):
                for region in ("eu", "us", "broken"):
                    with contextlib.suppress(Forbidden, UpstreamFailed):
                        await session.get(zones, region=region)
        with contextlib.suppress(UpstreamFailed), breaker.guard(1.0):
            raise UpstreamFailed("500", status=500)
        await cache.clear("somebody")
        await cache.settled()
        registry = CollectorRegistry()
        registry.register(CacheCollector(cache.stats, breaker=breaker.state))
        return generate_latest(registry).decode()


if __name__ == "__main__":
    # What it lets fail is meant to; what is left to be said is promtool's.
    logging.getLogger("coatcheck").addHandler(logging.NullHandler())
    sys.stdout.write(asyncio.run(expose()))
