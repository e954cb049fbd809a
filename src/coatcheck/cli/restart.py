"""A restart in the middle of many chat sessions, once without the store and once with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from coatcheck.bootstrap import ipc_cache
from coatcheck.cli.comparison import UpstreamCalls
from coatcheck.cli.progress import progress
from coatcheck.cli.replay import replay
from coatcheck.cli.truth import Truth, Verdict, accounts_of
from coatcheck.cli.upstream_process import UpstreamProcess, upstream_process
from coatcheck.clock import SystemClock
from coatcheck.settings import Settings
from coatcheck.simulator import Simulator
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from coatcheck.simulator import Settings as SimulatorSettings


class RestartReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo of a restart found; as JSON it is what ``coatcheck demo --restart --json`` prints.

    Attributes:
        calls_before: upstream calls before the restart, log-ins included; with and without the store the same.
        calls_after: those after it.
        entries_restored: entries that came back from the store.
        store_bytes: what the store's file and what lies beside it take when the program has ended.
    """

    users: int
    passes_before: int
    passes_after: int
    seed: int
    latency_scale: float
    calls_before: int
    calls_after: UpstreamCalls
    entries_restored: int
    store_bytes: int
    answers_checked: int
    wrong_answers: int
    foreign_answers: int


class _Run(msgspec.Struct, frozen=True):
    before: dict[str, int]
    after: dict[str, int]
    verdicts: Counter[Verdict]
    restored: int


class _Chats(msgspec.Struct, frozen=True):
    """Whose chat sessions are run, against what, and what is right."""

    upstream: UpstreamProcess
    simulator: Simulator
    truth: Truth
    users: list[str]
    passes: tuple[int, int]


async def begin_anew(simulated: SimulatorSettings, *, passes: int) -> RestartReport:
    """Run a simulator, and the chat sessions of all its users against it with a restart when half are done, twice.

    The store is one of its own, in a folder that is removed in the end. Shows its progress on a terminal.

    Raises:
        CoatcheckError: an upstream call failed, or there can be no store.
    """
    # Not started: it only says what is right.
    simulator = Simulator(simulated)
    truth = Truth(simulator)
    users = [account.email for account in simulator.world.accounts()]
    halves = (passes // 2, passes - passes // 2)
    async with upstream_process(simulated) as upstream:
        with progress() as track, tempfile.TemporaryDirectory(prefix="coatcheck-") as folder:
            learnt = track("learning what is right", len(users))
            for user in users:
                truth.learn(user)
                learnt()
            chats = _Chats(upstream, simulator, truth, users, halves)
            without = await _run(chats, lambda: None, track("without the store", len(users) * passes))
            file, keys = Path(folder) / "sessions.sqlite", KeyRing.drawn()
            with_ = await _run(
                chats, lambda: SQLiteStore(file, keys=keys), track("with the store", len(users) * passes)
            )
            size = _bytes_in(file.parent)
    verdicts = without.verdicts + with_.verdicts
    return RestartReport(
        users=simulated.users,
        passes_before=halves[0],
        passes_after=halves[1],
        seed=simulated.seed,
        latency_scale=simulated.latency_scale,
        calls_before=sum(with_.before.values()),
        calls_after=UpstreamCalls.compared(without.after, with_.after),
        entries_restored=with_.restored,
        store_bytes=size,
        answers_checked=verdicts.total(),
        wrong_answers=verdicts[Verdict.WRONG],
        foreign_answers=verdicts[Verdict.FOREIGN],
    )


async def _run(
    chats: _Chats, opened: Callable[[], SQLiteStore | None], advance: Callable[[], object]
) -> _Run:
    settings = Settings(upstream_url=chats.upstream.url)
    calls: list[dict[str, int]] = []
    verdicts: Counter[Verdict] | None = None
    restored = 0
    for passes in chats.passes:
        async with ipc_cache(settings, credentials=accounts_of(chats.simulator), store=opened()) as cache:
            done = await replay(
                cache, chats.truth, chats.users, passes=passes, clock=SystemClock(), advance=advance
            )
            stored = cache.stats().store
        calls.append(await chats.upstream.calls_by_path())
        verdicts = done.verdicts if verdicts is None else verdicts + done.verdicts
        restored = 0 if stored is None else stored.entries_restored
    assert verdicts is not None
    return _Run(calls[0], calls[1], verdicts, restored)


def _bytes_in(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir())
