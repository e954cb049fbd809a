"""``coatcheck demo --outage``: what users saw of a failing upstream is counted truly, and a wrong answer is seen."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from cli.conftest import Coatcheck
from coatcheck.bootstrap import ipc_cache
from coatcheck.cli import outage
from coatcheck.cli.truth import Truth, accounts_of
from coatcheck.settings import Settings
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.testing import FakeClock

NAMES = ["calm", "outage", "slow spell", "429 storm", "recovery"]
ANN = "user-0001@tenant-0001.example"
TWO = "user-0002@tenant-0002.example"
FAST = 600.0


async def test_nobody_sees_a_failure_or_anything_wrong() -> None:
    """Faster than the demo goes, over HTTP to a process of its own: everybody held something and so is answered."""
    found = await outage.go_through(SimulatorSettings(seed=9, users=3, latency_scale=0), speed=FAST)
    assert NAMES == [phase.name for phase in found.phases]
    for phase in found.phases:
        assert phase.gets == phase.fresh + phase.stale
        assert (phase.failed, phase.foreign) == (0, 0)
        assert phase.gets >= 3
    # In the end everybody asks once more, and by then all has expired.
    assert found.phases[1].stale >= 3
    assert found.phases[1].upstream_calls > 0
    assert (found.wrong_answers, found.foreign_answers) == (0, 0)
    assert (found.ttl_seconds, found.grace_seconds, found.throttle_seconds) == (120.0, 86_400.0, 30.0)


class InProcess:
    """A simulator in this process, as a rehearsal knows one."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def set_faults(self, *faults: Mapping[str, object]) -> None:
        self.simulator.set_faults(list(faults))

    async def calls_by_path(self) -> dict[str, int]:
        found: dict[str, int] = self.simulator.calls()["by_path"]
        self.simulator.reset()
        return found


@asynccontextmanager
async def rehearsing(*, mixed_up: bool = False) -> AsyncIterator[tuple[outage.Rehearsal, FakeClock]]:
    """Let Ann ask; mixed up, everybody is logged in as another."""
    settings = SimulatorSettings(seed=9, users=3, latency_scale=0)
    clock = FakeClock()
    async with Simulator(settings, wall=clock.wall) as simulator:
        truth = Truth(simulator)
        truth.learn(ANN)
        known = accounts_of(simulator)

        def credentials(user: str) -> Any:
            return known(TWO if mixed_up else user)

        async with ipc_cache(
            Settings(upstream_url=simulator.url), credentials=credentials, clock=clock
        ) as cache:
            outage.hurry(cache, timedelta(seconds=6), timedelta(seconds=60))
            rehearsal = outage.Rehearsal(cache, truth, [ANN], InProcess(simulator), speed=FAST)
            await rehearsal.fill(lambda: None)
            yield rehearsal, clock


async def test_each_get_is_counted_as_what_it_was() -> None:
    """By a clock that is moved by hand: what is fresh, what is stale, what fails, and what it costs the upstream."""
    down = {"kind": "status", "status": 503}
    async with rehearsing() as (rehearsal, clock):
        calm = await rehearsal.phase("calm", 0.0)
        assert (calm.gets, calm.fresh, calm.stale, calm.upstream_calls) == (1, 1, 0, 0)

        clock.jump(121)
        down_now = await rehearsal.phase("down", 0.0, down)
        assert (down_now.gets, down_now.fresh, down_now.stale, down_now.failed) == (1, 0, 1, 0)
        assert down_now.upstream_calls > 0

        clock.jump(24 * 3600)
        beyond = await rehearsal.phase("beyond", 0.0, down)
        assert (beyond.gets, beyond.fresh, beyond.stale, beyond.failed) == (1, 0, 0, 1)

        clock.jump(61)
        again = await rehearsal.phase("again", 0.0)
        assert (again.gets, again.fresh, again.upstream_calls) == (1, 1, 3)
        assert rehearsal.wrong == 0


async def test_anothers_account_is_seen() -> None:
    async with rehearsing(mixed_up=True) as (rehearsal, _):
        phase = await rehearsal.phase("calm", 0.0)
        assert (phase.gets, phase.fresh, phase.foreign) == (1, 1, 1)


async def test_time_passes_faster() -> None:
    clock = FakeClock()
    hurried = outage.HurriedClock(clock, 60.0)
    before = hurried.monotonic()
    await clock.advance(1.0)
    assert hurried.monotonic() - before == pytest.approx(60.0)
    assert hurried.wall() == clock.wall()


def test_a_terminal_is_spared_the_logs() -> None:
    logger = logging.getLogger("coatcheck")
    before = list(logger.handlers)
    with outage.quiet():
        assert len(logger.handlers) == len(before) + 1
    assert logger.handlers == before


def report(simulated: SimulatorSettings, wrong: int = 0, foreign: int = 0) -> outage.OutageReport:
    return outage.OutageReport(
        users=simulated.users,
        seed=simulated.seed,
        latency_scale=simulated.latency_scale,
        speed=60.0,
        ttl_seconds=120.0,
        soft_timeout_seconds=12.0,
        grace_seconds=86_400.0,
        throttle_seconds=30.0,
        phases=[
            outage.Phase(
                name=name, seconds=3.04, gets=1_000, fresh=900, stale=99, failed=1, foreign=foreign, upstream_calls=17
            )
            for name in NAMES
        ],
        wrong_answers=wrong,
        foreign_answers=foreign,
    )  # fmt: skip


@pytest.mark.parametrize(("wrong", "foreign", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_the_json_object_and_the_exit_code(
    wrong: int, foreign: int, code: int, coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go_through(simulated: SimulatorSettings) -> outage.OutageReport:
        return report(simulated, wrong, foreign)

    monkeypatch.setattr(outage, "go_through", go_through)
    ended = coatcheck("demo", "--outage", "--users", "3", "--seed", "5", "--json")
    assert (ended.code, ended.err) == (code, "")
    (line,) = ended.out.splitlines()
    found = json.loads(line)
    assert (found["users"], found["seed"], found["latency_scale"]) == (3, 5, 0.1)
    assert [phase["name"] for phase in found["phases"]] == NAMES
    for phase in found["phases"]:
        assert phase.keys() == {
            "name", "seconds", "gets", "fresh", "stale", "failed", "foreign", "upstream_calls",
        }  # fmt: skip


def test_without_json_it_is_a_table_that_fits_and_says_what_was_scaled(
    coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go_through(simulated: SimulatorSettings) -> outage.OutageReport:
        return report(simulated)

    monkeypatch.setattr(outage, "go_through", go_through)
    ended = coatcheck("demo", "--outage")
    assert (ended.code, ended.err) == (0, "")
    rows = [" ".join(line.replace("│", " ").split()) for line in ended.out.splitlines()]
    assert rows[0].startswith("20 users ask for their kept lists all the time,")
    assert any(row.startswith("Scaled: 60 s pass for the cache in one.") for row in rows)
    assert any("fresh for 2 min instead of a day" in row for row in rows)
    assert any("as old as 24 h more" in row and "after 30 s" in row for row in rows)
    for name in NAMES:
        assert f"{name} 3.0 1,000 900 99 1 0 17" in rows
    assert "wrong answers 0" in rows
    assert "foreign answers seen 0" in rows


def test_passes_do_not_go_with_an_outage(coatcheck: Coatcheck) -> None:
    ended = coatcheck("demo", "--outage", "--passes", "3")
    assert ended.code == 2
    assert ended.complaint.startswith("--passes does not go with --outage")


def test_the_plan_ends_within_half_a_minute() -> None:
    """The start of a simulator and the last answers included."""
    assert sum(phase.minutes for phase in outage.plan(0.2)) * 60 / outage.SPEED <= 20
