"""What is counted: plain additions while gets run, sums only when somebody asks.

On builds with the GIL a ``+=`` on a list item or a slot is one uninterrupted step, which keeps the counts exact under
threads: gets are counted in the thread of the caller, loads on the home loop.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from enum import IntEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coatcheck.engine.catalog import Resource


LOAD_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds that the buckets of what waits for an upstream end at."""

HIT_BOUNDS = (2.5e-07, 5e-07, 1e-06, 2.5e-06, 5e-06, 1e-05, 2.5e-05, 5e-05, 0.0001, 0.00025, 0.001, 0.01)
"""Seconds that the buckets of what is answered from memory end at."""


class Count(IntEnum):
    """What is counted for each resource, and for each user and resource, besides hits."""

    STALE_HITS = 0
    COALESCED = 1
    MISSES = 2
    FAILED = 3
    CANCELLED = 4
    LOADS = 5
    # Calls that the completed gets would have cost without a cache, beyond what plain hits on the resource would.
    OWED = 6


class Cause(IntEnum):
    """Why a load began."""

    GET = 0
    DEPENDENCY = 1
    FORCE = 2
    REFRESH = 3


class End(IntEnum):
    """How a load ended."""

    STORED = 0
    FAILED = 1
    CLEARED = 2
    OVERTAKEN = 3
    LATE = 4
    DISABLED = 5


class Removal(IntEnum):
    """Why an entry left the memory."""

    CLEARED = 0
    INVALIDATED = 1
    REPLACED = 2
    EXPIRED = 3
    EVICTED = 4
    REFUSED = 5
    CLOSED = 6


class Histogram:
    """Durations in buckets that grow by a sixteenth of a power of two: quantiles are right to 5 %.

    Beside them the durations are counted exactly within *bounds*, in seconds: those of a histogram to be plotted.
    """

    __slots__ = ("bounds", "counts", "number", "total", "within")

    PER_OCTAVE = 16
    SMALLEST = -30  # 2**-30 s is about a nanosecond
    OCTAVES = 44

    def __init__(self, bounds: tuple[float, ...] = LOAD_BOUNDS) -> None:
        self.bounds = bounds
        # One more, for what is beyond the last bound.
        self.within = [0] * (len(bounds) + 1)
        self.counts = [0] * (self.PER_OCTAVE * self.OCTAVES)
        self.number = 0
        self.total = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        mantissa, exponent = math.frexp(max(seconds, 1e-9))
        bucket = (exponent - 1 - self.SMALLEST) * self.PER_OCTAVE + int((mantissa * 2 - 1) * self.PER_OCTAVE)
        self.counts[min(max(bucket, 0), len(self.counts) - 1)] += 1
        self.within[bisect_left(self.bounds, seconds)] += 1
        self.number += 1
        self.total += seconds

    def upper(self, bucket: int) -> float:
        """Return the end of a bucket, in seconds."""
        octave, step = divmod(bucket, self.PER_OCTAVE)
        return math.ldexp(1 + (step + 1) / self.PER_OCTAVE, octave + self.SMALLEST)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that this *share* of all did not exceed; 0.0 when there are none."""
        wanted = share * self.number
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return self.upper(bucket)
        return 0.0

    def mean(self) -> float:
        """Return the mean in seconds; 0.0 when there are none."""
        return self.total / self.number if self.number else 0.0

    def summary(self) -> Latency:
        """Return the figures to show. The buckets fit the count, also while others record."""
        within = list(accumulate(self.within.copy()))
        return Latency(
            count=within[-1],
            total=self.total,
            buckets=tuple(zip(self.bounds, within, strict=False)),
            mean=self.mean(),
            p50=self.quantile(0.50),
            p95=self.quantile(0.95),
            p99=self.quantile(0.99),
        )


class Tally:
    """The counters of one resource, all users together. Hits are counted beside it, by `Ledger.hits`."""

    __slots__ = (
        "causes", "counts", "ends", "hit_latency", "load_latency", "loading", "refresh_failures", "removals", "wait_latency",
    )  # fmt: skip

    def __init__(self) -> None:
        self.counts = [0] * len(Count)
        self.causes = [0] * len(Cause)
        self.ends = [0] * len(End)
        self.removals = [0] * len(Removal)
        self.loading = 0
        self.refresh_failures = 0
        self.hit_latency = Histogram(HIT_BOUNDS)
        self.load_latency = Histogram()
        self.wait_latency = Histogram()


class Ledger:
    """The counters of one cache, which outlive its sessions.

    Attributes:
        hits: one number for each resource, by its mark; the first is the tick, which hits note as the time of their
            session's last use: a float for each of many sessions would be one more piece of memory to wait for.
            Emptied in a forked child, so that a hit fails there.
        tallies: all else, by index.
    """

    def __init__(self, resources: Sequence[Resource[object]]) -> None:
        self.resources = tuple(resources)
        self.hits: list[Any] = [-math.inf] + [0] * max((each.mark for each in self.resources), default=0)
        self.tallies = tuple(Tally() for _ in resources)
        self.abandoned = 0
        self.sessions_removed = [0] * len(Removal)

    def chain_time(self, resource: Resource[object]) -> float:
        """Return the seconds that a get would take without a cache: its own mean load after its slowest dependency's."""
        before = max((self.chain_time(dependency) for dependency in resource.dependencies), default=0.0)
        return before + self.tallies[resource.index].load_latency.mean()


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. Quantiles are right to 5 %, all else is exact.

    Attributes:
        buckets: for fixed bounds, in seconds and growing, how many durations were no longer.
    """

    count: int = 0
    total: float = 0.0
    buckets: tuple[tuple[float, int], ...] = ()
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


class Gets(msgspec.Struct, frozen=True, kw_only=True):
    """Callers' gets by how they ended, and what they saved.

    ``gets = hits + stale_hits + coalesced + misses + failed + cancelled``.

    Attributes:
        loads: loads that began, whatever for.
        calls_saved: upstream calls that the completed gets would have cost without a cache, less the loads.
        time_saved: seconds that callers waited less than they would have, at the mean load times seen so far.
    """

    gets: int = 0
    hits: int = 0
    stale_hits: int = 0
    coalesced: int = 0
    misses: int = 0
    failed: int = 0
    cancelled: int = 0
    loads: int = 0
    calls_saved: int = 0
    time_saved: float = 0.0


class ResourceStats(Gets, frozen=True, kw_only=True):
    """The figures of one resource.

    Attributes:
        loads_by_cause: loads that began, by why: get, dependency, force, refresh. They sum to ``loads``.
        loads_by_end: loads that ended, by how: stored, failed, cleared, overtaken, late,
            disabled. With ``loading`` they sum to
            ``loads``.
        loading: loads under way.
        refresh_failures: background loads that failed.
        removals: entries that left the memory, by why.
        entries: entries held.
        bytes: the memory that they take, estimated.
        hit_latency: of hits, sampled: the first on each freshly resolved entry.
        load_latency: of loads.
        response_with: mean seconds of a get as it was.
        response_without: mean seconds of a get as it would have been without a cache.
    """

    loads_by_cause: dict[str, int] = {}
    loads_by_end: dict[str, int] = {}
    loading: int = 0
    refresh_failures: int = 0
    removals: dict[str, int] = {}
    entries: int = 0
    bytes: int = 0
    hit_latency: Latency = Latency()
    load_latency: Latency = Latency()
    response_with: float = 0.0
    response_without: float = 0.0


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of what leads to a cache's store.

    Attributes:
        sessions_opened: sessions asked for, found or not.
        entries_restored: entries that came into memory from it.
        entries_rejected: stored copies that did not open or were not what they should be: removed, never served.
        writes: entries stored and removed, by what became of it: applied, overtaken, ended.
        writes_waiting: those not applied yet.
        failures: operations that failed or took too long.
        bypassed: operations that were left out, because the store had just failed or too many asked it at once.
        distrusted_users: users of whom nothing is read until a clear of theirs is applied.
        distrusts_everyone: whether that holds for all.
    """

    sessions_opened: int = 0
    entries_restored: int = 0
    entries_rejected: int = 0
    writes: dict[str, int] = {}
    writes_waiting: int = 0
    failures: int = 0
    bypassed: int = 0
    distrusted_users: int = 0
    distrusts_everyone: bool = False


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a cache.

    Attributes:
        resources: the figures of each, by name.
        total: their sums.
        sessions: users that something is held for.
        entries: entries held.
        bytes: the memory that all sessions take, estimated.
        sessions_removed: sessions that ended, by why.
        abandoned_loads: loaders that went on after their deadline and have not ended yet.
        events_dropped: events that an observer was too slow for.
        observer_failures: exceptions that an observer raised.
        store: what was brought from the store and written to it; None without one.
    """

    resources: dict[str, ResourceStats]
    total: Gets
    sessions: int
    entries: int
    bytes: int
    sessions_removed: dict[str, int]
    abandoned_loads: int
    events_dropped: int
    observer_failures: int
    store: StoreStats | None = None


class UserStats(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one user's session; gone with it.

    Attributes:
        resources: the figures of each resource, by name.
        total: their sums.
        bytes: the memory that the session takes, estimated.
        idle_for: seconds since its last get, to 5 ms; None when there is no session.
    """

    resources: dict[str, Gets]
    total: Gets
    bytes: int = 0
    idle_for: float | None = None


def gets_of(resource: Resource[object], ledger: Ledger, hits: int, counts: Sequence[int]) -> Gets:
    """Return the figures that *hits* and *counts* of one resource make."""
    tally = ledger.tallies[resource.index]
    answered = hits + counts[Count.STALE_HITS] + counts[Count.COALESCED] + counts[Count.MISSES]
    waited = (answered - hits) * tally.wait_latency.mean() + hits * tally.hit_latency.mean()
    return Gets(
        gets=answered + counts[Count.FAILED] + counts[Count.CANCELLED],
        hits=hits,
        stale_hits=counts[Count.STALE_HITS],
        coalesced=counts[Count.COALESCED],
        misses=counts[Count.MISSES],
        failed=counts[Count.FAILED],
        cancelled=counts[Count.CANCELLED],
        loads=counts[Count.LOADS],
        calls_saved=hits * resource.calls() + counts[Count.OWED] - counts[Count.LOADS],
        time_saved=max(0.0, answered * ledger.chain_time(resource) - waited),
    )


def sum_of(parts: Sequence[Gets]) -> Gets:
    """Return the sums of several resources' figures."""
    return Gets(**{name: sum(getattr(each, name) for each in parts) for name in Gets.__struct_fields__})


def resource_stats(resource: Resource[object], ledger: Ledger, *, entries: int, size: int) -> ResourceStats:
    """Return the figures of one resource."""
    tally = ledger.tallies[resource.index]
    gets = gets_of(resource, ledger, ledger.hits[resource.mark], tally.counts)
    answered = gets.hits + gets.stale_hits + gets.coalesced + gets.misses
    waited = (answered - gets.hits) * tally.wait_latency.mean() + gets.hits * tally.hit_latency.mean()
    return ResourceStats(
        **{name: getattr(gets, name) for name in Gets.__struct_fields__},
        loads_by_cause={cause.name.lower(): tally.causes[cause] for cause in Cause},
        loads_by_end={end.name.lower(): tally.ends[end] for end in End},
        loading=tally.loading,
        refresh_failures=tally.refresh_failures,
        removals={removal.name.lower(): tally.removals[removal] for removal in Removal},
        entries=entries,
        bytes=size,
        hit_latency=tally.hit_latency.summary(),
        load_latency=tally.load_latency.summary(),
        response_with=waited / answered if answered else 0.0,
        response_without=ledger.chain_time(resource),
    )
