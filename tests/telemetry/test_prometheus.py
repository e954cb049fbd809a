"""Metrics are what the cache counted, well formed, and as many series for ten users as for a hundred thousand."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from coatcheck import Catalog, Limits, Policy, SessionCache
from coatcheck.engine.stats import HIT_BOUNDS, LOAD_BOUNDS, Cause, End, Histogram, Removal
from coatcheck.errors import UpstreamFailed
from coatcheck.telemetry import CacheCollector
from coatcheck.testing import FakeClock
from coatcheck.testing.stores import Fault, FaultyStore, MemoryStore
from coatcheck.upstream.breaker import Breaker
from telemetry import exposition
from telemetry.exposition import expose
from telemetry.promlint import complaints

Labels = tuple[tuple[str, str], ...]

ANN = "ann@example.com"
DOWN = UpstreamFailed("503", status=503)


class World:
    """A cache whose loads take as long as they are told, and its metrics."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.seconds = 0.0
        self.fail = False
        catalog: Catalog[str] = Catalog("measured")

        @catalog.resource(Policy(ttl=timedelta(minutes=1), stale_if_error=timedelta(hours=1)))
        async def account(api: str) -> int:
            self.clock.jump(self.seconds)
            if self.fail:
                raise DOWN
            return 1

        @catalog.derived
        def half(account: int) -> float:
            return account / 2

        self.account, self.half = account, half
        self.cache = SessionCache(catalog, connect=str, clock=self.clock, limits=Limits(max_sessions=200_000))
        self.breaker = Breaker(clock=self.clock, threshold=2, open_for=10.0)
        self.registry = CollectorRegistry()
        self.registry.register(CacheCollector(self.cache.stats, breaker=self.breaker.state))

    def exposition(self) -> str:
        return generate_latest(self.registry).decode()

    def read(self) -> dict[tuple[str, Labels], float]:
        return dict(samples(self.exposition()))

    def value(self, name: str, **labels: str) -> float:
        return self.read()[name, tuple(sorted(labels.items()))]


def samples(text: str) -> Iterator[tuple[tuple[str, Labels], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


async def test_the_exposition_is_clean() -> None:
    text = await expose()

    assert [] == complaints(text)
    assert len(dict(samples(text))) == len(list(samples(text))) > 100


def test_the_exposition_is_printed_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, exposition.__file__], capture_output=True, text=True, check=True)
    assert ([], "") == (complaints(done.stdout), done.stderr)


async def test_the_exposition_is_clean_as_openmetrics_too() -> None:
    world = World()
    async with world.cache as cache:
        await cache.session(ANN).get(world.half)
        text = generate_openmetrics(world.registry).decode()  # type: ignore[no-untyped-call]
    families = openmetrics(text)  # type: ignore[no-untyped-call]

    assert {"coatcheck_gets", "coatcheck_load_duration_seconds"} < {each.name for each in families}


async def test_every_count_is_shown() -> None:
    world = World()
    async with world.cache as cache:
        session = cache.session(ANN)
        for _ in range(3):
            await session.get(world.account)
        await session.get(world.half)
        await session.get(world.account, force_refresh=True)
        await world.clock.advance(120)
        world.fail = True
        await session.get(world.account)
        with pytest.raises(UpstreamFailed):
            await cache.session("bob").get(world.half)
        await session.invalidate(world.account)
        await cache.clear(ANN)
        stats, shown = cache.stats(), world.read()

    for name, resource in stats.resources.items():
        mine = {
            labels: value for labels, value in shown.items() if ("resource", name) in labels[1]
        }  # fmt: skip

        def total(metric: str, name: str = name, **labels: str) -> float:
            return shown[f"coatcheck_{metric}", tuple(sorted({"resource": name, **labels}.items()))]

        assert [resource.hits, resource.stale_hits, resource.coalesced, resource.misses, resource.failed] == [
            total("gets_total", outcome=outcome)
            for outcome in ("hit", "stale_hit", "coalesced", "miss", "failed")
        ]
        assert resource.gets == sum(v for (metric, _), v in mine.items() if metric == "coatcheck_gets_total")
        for cause in Cause:
            label = cause.name.lower()
            assert resource.loads_by_cause[label] == total("loads_started_total", cause=label)
        for end in End:
            label = end.name.lower()
            assert resource.loads_by_end[label] == total("loads_total", outcome=label)
        for removal in Removal:
            label = removal.name.lower()
            assert resource.removals[label] == total("entries_removed_total", cause=label)
        assert resource.calls_saved == total("calls_saved")
        assert resource.time_saved == total("time_saved_seconds")
        assert resource.entries == total("entries")
        assert resource.bytes == total("entries_bytes")
        assert resource.loading == total("loads_running")
        assert resource.load_latency.count == total("load_duration_seconds_count")
        assert resource.hit_latency.count == total("hit_duration_seconds_count")
    assert stats.sessions == shown["coatcheck_sessions", ()] == 1
    assert stats.bytes == shown["coatcheck_sessions_bytes", ()]
    assert 1 == shown["coatcheck_sessions_ended_total", (("cause", "cleared"),)]
    assert 2 == shown["coatcheck_loads_total", (("outcome", "failed"), ("resource", "account"))]
    assert 0 == shown["coatcheck_events_dropped_total", ()] == shown["coatcheck_observer_failures_total", ()]


async def test_counters_are_read_when_they_are_scraped() -> None:
    world = World()
    async with world.cache as cache:
        for number in range(3):
            assert number == world.value("coatcheck_gets_total", resource="account", outcome="miss")
            await cache.session(f"user-{number}").get(world.account)


async def test_a_background_load_that_fails_is_counted() -> None:
    world = World()
    async with world.cache as cache:
        cache.set_policy(world.account, Policy(ttl=timedelta(minutes=1), refresh_ahead=0.5, jitter=0.0))
        await cache.session(ANN).get(world.account)
        world.fail = True
        await world.clock.advance(40)
        await cache.session(ANN).get(world.account)
        await cache.settled()

        assert 1 == world.value("coatcheck_loads_started_total", resource="account", cause="refresh")
        assert 1 == world.value("coatcheck_refresh_failures_total", resource="account")


async def test_durations_are_counted_exactly_up_to_each_bound() -> None:
    """A load of exactly a bound is within it."""
    world = World()
    durations = [*LOAD_BOUNDS, 0.0, 0.3, 61.0, 1000.0]
    async with world.cache as cache:
        cache.set_policy(world.account, Policy(deadline=timedelta(hours=1)))
        for number, world.seconds in enumerate(durations):
            # From zero on, so that nothing is lost to rounding.
            world.clock._monotonic = 0.0
            await cache.session(f"user-{number}").get(world.account)

        for bound in LOAD_BOUNDS:
            assert sum(each <= bound for each in durations) == world.value(
                "coatcheck_load_duration_seconds_bucket", resource="account", le=repr(bound)
            )
        for metric, expected in (("count", len(durations)), ("sum", sum(durations))):
            shown = world.value(f"coatcheck_load_duration_seconds_{metric}", resource="account")
            assert pytest.approx(expected) == shown


def test_a_histogram_counts_within_its_bounds() -> None:
    histogram = Histogram(HIT_BOUNDS)
    for seconds in (0.0, 2.5e-07, 3e-07, 0.01, 0.02):
        histogram.record(seconds)
    latency = histogram.summary()

    assert 5 == latency.count
    assert pytest.approx(0.03, rel=0.01) == latency.total
    assert [(2.5e-07, 2), (5e-07, 3)] == list(latency.buckets[:2])
    assert (0.01, 4) == latency.buckets[-1]


def test_the_buckets_and_quantiles_of_nothing() -> None:
    latency = Histogram().summary()

    assert tuple((bound, 0) for bound in LOAD_BOUNDS) == latency.buckets
    assert (0, 0.0, 0.0) == (latency.count, latency.total, latency.p99)


async def test_the_breaker_is_in_one_state() -> None:
    world = World()

    def states() -> list[str]:
        return [
            labels[0][1]
            for (name, labels), value in world.read().items()
            if name == "coatcheck_breaker_state" and value
        ]

    assert ["closed"] == states()
    for _ in range(2):
        with pytest.raises(UpstreamFailed), world.breaker.guard(1.0):
            raise DOWN
    assert ["open"] == states()
    assert 2 == world.value("coatcheck_breaker_failures")
    assert 1 == world.value("coatcheck_breaker_opened_total")
    world.clock.jump(10)
    assert ["half_open"] == states()


async def test_without_a_breaker_there_is_no_metric_of_it() -> None:
    world = World()
    registry = CollectorRegistry()
    registry.register(CacheCollector(world.cache.stats))

    assert "breaker" not in generate_latest(registry).decode()


async def test_there_are_as_many_series_for_ten_users_as_for_a_hundred_thousand() -> None:
    """And they are all there before the first."""
    world = World()
    async with world.cache as cache:
        before = world.read().keys()
        numbers: dict[int, int] = {}
        users = (f"user-{number}@example.com" for number in itertools.count())
        for crowd in (10, 100_000):
            for user in itertools.islice(users, crowd):
                session = cache.session(user)
                # A load for some: for all it would take too long here.
                if crowd == 10:
                    await session.get(world.account)
                else:
                    await session.put(world.account, 1)
                await session.get(world.half)
            numbers[crowd] = len(world.read())
        after = world.read()

    assert numbers[10] == numbers[100_000] == len(before)
    assert before == after.keys()
    assert 100_010 == after["coatcheck_sessions", ()]
    assert not any("user" in value for _, labels in after for _, value in labels)


async def test_the_way_to_the_store_is_measured() -> None:
    world = World()
    store = FaultyStore(MemoryStore(clock=world.clock), clock=world.clock)
    cache = SessionCache(world.cache._catalog, connect=str, store=store, clock=world.clock)
    registry = CollectorRegistry()
    registry.register(CacheCollector(cache.stats))
    await cache.session(ANN).get(world.account)
    await cache.settled()
    await cache.clear(ANN)
    store.fault(Fault.FAILS)
    await cache.session(ANN).get(world.account)
    await cache.session("bob").get(world.account)
    await cache.settled()

    found = {name: value for (name, _), value in samples(generate_latest(registry).decode())}

    assert found["coatcheck_store_sessions_opened_total"] == 1
    # One read, one write, and what was tried to clear since.
    assert found["coatcheck_store_failures_total"] == 2 + store.calls["clear"] - 1
    assert found["coatcheck_store_bypassed_total"] >= 1
    assert found["coatcheck_store_distrusted_users"] == 2
    assert found["coatcheck_store_distrusted"] == 0
    store.heal()
    await cache.aclose()
