"""What a cache counts, as Prometheus metrics that are read when they are scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from coatcheck.errors import MissingExtra

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "coatcheck.telemetry.prometheus needs prometheus_client: install coatcheck[prometheus]",
        name=missing.name,
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from coatcheck.engine.stats import CacheStats, Latency, ResourceStats, StoreStats

    Stats = Callable[[], CacheStats]
    Resources = Mapping[str, ResourceStats]

OUTCOMES: Final = {
    "hit": "hits",
    "stale_hit": "stale_hits",
    "coalesced": "coalesced",
    "miss": "misses",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""Outcomes of gets, and where each is counted."""

BREAKER_STATES: Final = ("closed", "open", "half_open")


class Breaker(Protocol):
    """How a circuit breaker stands, as `coatcheck.upstream.breaker.BreakerState` tells."""

    @property
    def state(self) -> str:
        """One of ``BREAKER_STATES``."""

    @property
    def failures(self) -> int:
        """Failures in a row so far."""

    @property
    def opened(self) -> int:
        """How often it has opened."""


class CacheCollector(Collector):
    """A collector of one cache, for a registry. It reads the counters when it is scraped and costs nothing else.

    Labels are resource, outcome, cause and, of the breaker, state: all are fixed sets, and all their series are there
    from the beginning, however many users there are.

    Args:
        stats: as ``cache.stats``.
        breaker: as ``client.breaker.state``; None when there is none.
    """

    def __init__(self, stats: Stats, *, breaker: Callable[[], Breaker] | None = None) -> None:
        self._stats = stats
        self._breaker = breaker

    def collect(self) -> Iterator[Metric]:
        """Return all metrics, of one reading of the counters."""
        stats = self._stats()
        yield from _gets(stats.resources)
        yield from _loads(stats.resources)
        yield from _contents(stats)
        yield from _observing(stats)
        if stats.store is not None:
            yield from _storing(stats.store)
        if self._breaker is not None:
            yield from _breaking(self._breaker())


def _gets(resources: Resources) -> Iterator[Metric]:
    gets = CounterMetricFamily("coatcheck_gets", "Gets by how they ended.", labels=("resource", "outcome"))
    saved = GaugeMetricFamily(
        "coatcheck_calls_saved",
        "Upstream calls that the gets would have cost without a cache, less the loads. A load ahead of its gets lowers it.",
        labels=("resource",),
    )
    time_saved = GaugeMetricFamily(
        "coatcheck_time_saved_seconds",
        "How much less callers waited than without a cache, at the mean load times seen so far.",
        labels=("resource",),
    )
    hits = HistogramMetricFamily(
        "coatcheck_hit_duration_seconds", "Durations of hits, sampled.", labels=("resource",)
    )
    for name, of in resources.items():
        for outcome, field in OUTCOMES.items():
            gets.add_metric((name, outcome), getattr(of, field))
        saved.add_metric((name,), of.calls_saved)
        time_saved.add_metric((name,), of.time_saved)
        _add(hits, name, of.hit_latency)
    yield from (gets, saved, time_saved, hits)


def _loads(resources: Resources) -> Iterator[Metric]:
    started = CounterMetricFamily(
        "coatcheck_loads_started", "Loads that began, by why.", labels=("resource", "cause")
    )
    ended = CounterMetricFamily(
        "coatcheck_loads", "Loads that ended, by how.", labels=("resource", "outcome")
    )
    running = GaugeMetricFamily("coatcheck_loads_running", "Loads under way.", labels=("resource",))
    refreshes = CounterMetricFamily(
        "coatcheck_refresh_failures", "Background loads that failed.", labels=("resource",)
    )
    durations = HistogramMetricFamily(
        "coatcheck_load_duration_seconds", "Durations of loads.", labels=("resource",)
    )
    for name, of in resources.items():
        for cause, number in of.loads_by_cause.items():
            started.add_metric((name, cause), number)
        for outcome, number in of.loads_by_end.items():
            ended.add_metric((name, outcome), number)
        running.add_metric((name,), of.loading)
        refreshes.add_metric((name,), of.refresh_failures)
        _add(durations, name, of.load_latency)
    yield from (started, ended, running, refreshes, durations)


def _contents(stats: CacheStats) -> Iterator[Metric]:
    entries = GaugeMetricFamily("coatcheck_entries", "Entries held.", labels=("resource",))
    sizes = GaugeMetricFamily(
        "coatcheck_entries_bytes", "Memory that the entries take, estimated.", labels=("resource",)
    )
    removed = CounterMetricFamily(
        "coatcheck_entries_removed", "Entries that left the memory, by why.", labels=("resource", "cause")
    )
    for name, of in stats.resources.items():
        entries.add_metric((name,), of.entries)
        sizes.add_metric((name,), of.bytes)
        for cause, number in of.removals.items():
            removed.add_metric((name, cause), number)
    yield from (entries, sizes, removed)
    yield GaugeMetricFamily("coatcheck_sessions", "Users that something is held for.", value=stats.sessions)
    yield GaugeMetricFamily(
        "coatcheck_sessions_bytes", "Memory that all sessions take, estimated.", value=stats.bytes
    )
    ended = CounterMetricFamily(
        "coatcheck_sessions_ended", "Sessions that left the memory, by why.", labels=("cause",)
    )
    for cause, number in stats.sessions_removed.items():
        ended.add_metric((cause,), number)
    yield ended


def _observing(stats: CacheStats) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "coatcheck_loads_abandoned",
        "Loaders that go on after their deadline.",
        value=stats.abandoned_loads,
    )
    yield CounterMetricFamily(
        "coatcheck_events_dropped",
        "Events that the observer was too slow for.",
        value=stats.events_dropped,
    )
    yield CounterMetricFamily(
        "coatcheck_observer_failures",
        "Exceptions that the observer raised.",
        value=stats.observer_failures,
    )


def _storing(stats: StoreStats) -> Iterator[Metric]:
    for name, told, number in (
        ("sessions_opened", "Sessions asked for in the store, found or not.", stats.sessions_opened),
        ("entries_restored", "Entries that came into memory from the store.", stats.entries_restored),
        ("entries_rejected", "Stored copies that were not what they should be.", stats.entries_rejected),
        ("failures", "Operations of the store that failed or took too long.", stats.failures),
        ("bypassed", "Operations left out because the store had just failed.", stats.bypassed),
    ):
        yield CounterMetricFamily(f"coatcheck_store_{name}", told, value=number)
    writes = CounterMetricFamily(
        "coatcheck_store_writes", "Entries stored and removed, by what became of it.", labels=("outcome",)
    )
    for outcome, number in stats.writes.items():
        writes.add_metric((outcome,), number)
    yield writes
    for name, told, level in (
        ("writes_waiting", "Writes to the store that are not applied yet.", stats.writes_waiting),
        (
            "distrusted_users",
            "Users of whom nothing is read until a clear is applied.",
            stats.distrusted_users,
        ),
        ("distrusted", "1 while nothing at all is read from the store.", int(stats.distrusts_everyone)),
    ):
        yield GaugeMetricFamily(f"coatcheck_store_{name}", told, value=level)


def _breaking(breaker: Breaker) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "coatcheck_breaker_state", "1 for the state that the circuit breaker is in.", labels=("state",)
    )
    for state in BREAKER_STATES:
        states.add_metric((state,), float(state == breaker.state))
    yield states
    yield GaugeMetricFamily(
        "coatcheck_breaker_failures", "Requests that failed in a row.", value=breaker.failures
    )
    yield CounterMetricFamily(
        "coatcheck_breaker_opened", "How often the circuit breaker has opened.", value=breaker.opened
    )


def _add(family: HistogramMetricFamily, resource: str, latency: Latency) -> None:
    buckets = [(repr(bound), float(number)) for bound, number in latency.buckets]
    family.add_metric((resource,), [*buckets, ("+Inf", float(latency.count))], latency.total)
