"""The chat session without the cache and with it, and the figures that come of comparing the two."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from coatcheck.bootstrap import ipc_cache
from coatcheck.cli.progress import progress
from coatcheck.cli.replay import Replay, replay
from coatcheck.cli.truth import Truth, Verdict, accounts_of
from coatcheck.cli.upstream_process import UpstreamProcess, upstream_process
from coatcheck.clock import SystemClock
from coatcheck.settings import Settings
from coatcheck.simulator import Simulator
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.engine.stats import CacheStats
    from coatcheck.simulator import Settings as SimulatorSettings


class PathCalls(msgspec.Struct, frozen=True, rename={"with_": "with"}):
    """Upstream calls of one kind, or of all.

    Attributes:
        saved_percent: cut after one decimal, never rounded up: 100 would say that nothing is left.
    """

    without: int
    with_: int
    saved_percent: float


class UpstreamCalls(PathCalls, frozen=True, rename={"with_": "with"}):
    """Upstream calls, log-ins included.

    Attributes:
        by_path: those of each kind, the most frequent first.
    """

    by_path: dict[str, PathCalls]

    @classmethod
    def compared(cls, before: dict[str, int], after: dict[str, int]) -> UpstreamCalls:
        """Return the calls by path that were made without something, compared with those made with it."""
        return cls(
            *_compared(sum(before.values()), sum(after.values())),
            by_path={
                path: PathCalls(*_compared(count, after.get(path, 0)))
                for path, count in sorted(before.items(), key=lambda each: -each[1])
            },
        )


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds that half of all requests, 95 % and 99 % of them did not exceed."""

    p50: float
    p95: float
    p99: float


class Responses(msgspec.Struct, frozen=True, rename={"with_": "with"}):
    """How long a request took, all its upstream calls included."""

    without: Quantiles
    with_: Quantiles


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo found; as JSON it is what ``coatcheck demo --json`` prints.

    Attributes:
        hit_rate: the share of all gets that were answered from memory.
        bytes_per_user: the memory of one session, estimated by the cache.
        answers_checked: with and without the cache.
        wrong_answers: that differ from the truth without showing anything of another user.
        foreign_answers: that show something of another user.
    """

    users: int
    passes: int
    seed: int
    latency_scale: float
    upstream_calls: UpstreamCalls
    response_ms: Responses
    saved_ms_per_request: float
    hit_rate: float
    bytes_per_user: int
    answers_checked: int
    wrong_answers: int
    foreign_answers: int


class _Run(msgspec.Struct, frozen=True):
    replay: Replay
    calls: dict[str, int]
    stats: CacheStats


async def compare(simulated: SimulatorSettings, *, passes: int) -> Report:
    """Run a simulator, and the chat session of all its users against it: first without the cache, then with it.

    Shows its progress on a terminal.

    Raises:
        CoatcheckError: an upstream call failed.
    """
    # Not started: it only says what is right.
    simulator = Simulator(simulated)
    truth = Truth(simulator)
    users = [account.email for account in simulator.world.accounts()]
    async with upstream_process(simulated) as upstream:
        with progress() as track:
            learnt = track("learning what is right", len(users))
            for user in users:
                truth.learn(user)
                learnt()
            runs = [
                await _run(upstream, simulator, truth, users, passes, enabled=enabled, advance=advance)
                for enabled, advance in (
                    (False, track("without the cache", len(users) * passes)),
                    (True, track("with the cache", len(users) * passes)),
                )
            ]
    return _report(simulated, passes, *runs)


async def _run(
    upstream: UpstreamProcess,
    simulator: Simulator,
    truth: Truth,
    users: list[str],
    passes: int,
    *,
    enabled: bool,
    advance: Callable[[], object],
) -> _Run:
    settings = Settings(upstream_url=upstream.url)
    # A store of its own: simulated users have no business among those of the service.
    with tempfile.TemporaryDirectory(prefix="coatcheck-") as folder:
        store = SQLiteStore(Path(folder) / "sessions.sqlite", keys=KeyRing.drawn()) if enabled else None
        async with ipc_cache(
            settings, credentials=accounts_of(simulator), store=store, enabled=enabled
        ) as cache:
            done = await replay(cache, truth, users, passes=passes, clock=SystemClock(), advance=advance)
            return _Run(done, await upstream.calls_by_path(), cache.stats())


def _report(simulated: SimulatorSettings, passes: int, without: _Run, with_: _Run) -> Report:
    verdicts = without.replay.verdicts + with_.replay.verdicts
    total = with_.stats.total
    return Report(
        users=simulated.users,
        passes=passes,
        seed=simulated.seed,
        latency_scale=simulated.latency_scale,
        upstream_calls=UpstreamCalls.compared(without.calls, with_.calls),
        response_ms=Responses(_quantiles(without.replay), _quantiles(with_.replay)),
        saved_ms_per_request=(without.replay.mean() - with_.replay.mean()) * 1000,
        hit_rate=total.hits / total.gets,
        bytes_per_user=with_.stats.bytes // with_.stats.sessions,
        answers_checked=verdicts.total(),
        wrong_answers=verdicts[Verdict.WRONG],
        foreign_answers=verdicts[Verdict.FOREIGN],
    )


def _compared(before: int, after: int) -> tuple[int, int, float]:
    return before, after, 1000 * (before - after) // before / 10


def _quantiles(done: Replay) -> Quantiles:
    return Quantiles(*(round(seconds * 1000, 4) for seconds in done.quantiles(0.50, 0.95, 0.99)))
