"""``coatcheck demo``: what it counts is true, and a wrong answer is seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cli.conftest import Coatcheck
from coatcheck import SystemClock
from coatcheck.bootstrap import ipc_cache
from coatcheck.cli import comparison
from coatcheck.cli.chat_session import CALLS_COLD, CALLS_UNCACHED, CALLS_WARM, CHAT_SESSION
from coatcheck.cli.progress import progress
from coatcheck.cli.replay import Replay, replay
from coatcheck.cli.truth import Truth, Verdict
from coatcheck.errors import UpstreamFailed
from coatcheck.settings import Settings
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.upstream.log_ins import Account

SMALL = ("--users", "3", "--passes", "2", "--latency-scale", "0")
ANN = "user-0001@tenant-0001.example"
TWO = "user-0002@tenant-0002.example"


def figures(ended_out: str) -> dict[str, Any]:
    (line,) = ended_out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_json_object_is_whole_and_true(coatcheck: Coatcheck) -> None:
    ended = coatcheck("demo", *SMALL, "--seed", "9", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = figures(ended.out)
    assert {name: found[name] for name in ("users", "passes", "seed", "latency_scale")} == {
        "users": 3, "passes": 2, "seed": 9, "latency_scale": 0.0,
    }  # fmt: skip
    check_calls(found["upstream_calls"])
    for side in ("without", "with"):
        times = found["response_ms"][side]
        assert times.keys() == {"p50", "p95", "p99"}
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    assert found["saved_ms_per_request"] > 0
    # Ten gets a pass, of which the first pass misses five.
    assert found["hit_rate"] == 0.75
    assert 1_000 < found["bytes_per_user"] < 1_000_000
    assert found["answers_checked"] == 2 * 3 * 2 * len(CHAT_SESSION)
    assert found["wrong_answers"] == 0
    assert found["foreign_answers"] == 0


def check_calls(calls: dict[str, Any]) -> None:
    """3 users, 2 passes, one log-in each on both sides."""
    assert calls.keys() == {"without", "with", "saved_percent", "by_path"}
    assert calls["without"] == 3 * (1 + 2 * CALLS_UNCACHED)
    assert calls["with"] == 3 * (1 + CALLS_COLD + CALLS_WARM)
    assert calls["saved_percent"] == 1000 * (calls["without"] - calls["with"]) // calls["without"] / 10
    by_path = {path: (each["without"], each["with"]) for path, each in calls["by_path"].items()}
    assert by_path == {
        "engagements": (42, 3),
        "conversion": (30, 3),
        "endpoints": (18, 3),
        "clusters": (6, 6),
        "vmlist": (6, 6),
        "departments": (6, 3),
        "environments": (6, 3),
        "zones": (6, 3),
        "managed": (6, 6),
        "auth": (3, 3),
    }
    assert calls["by_path"]["zones"]["saved_percent"] == 50.0


def test_the_goal_is_kept_over_ten_passes() -> None:
    without, with_ = 1 + 10 * CALLS_UNCACHED, 1 + CALLS_COLD + 9 * CALLS_WARM
    assert 1 - with_ / without >= 0.82


@pytest.mark.parametrize(("wrong", "foreign", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_an_answer_that_is_wrong_makes_the_exit_code_1(
    wrong: int, foreign: int, code: int, coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(simulated: SimulatorSettings, *, passes: int) -> comparison.Report:
        return report(simulated, passes, wrong, foreign)

    monkeypatch.setattr(comparison, "compare", compare)
    ended = coatcheck("demo", "--json")
    assert ended.code == code
    assert figures(ended.out)["wrong_answers"] == wrong
    assert figures(ended.out)["foreign_answers"] == foreign
    # The defaults, with which it is sized to end within 20 seconds.
    assert figures(ended.out)["passes"] == 10


def report(simulated: SimulatorSettings, passes: int, wrong: int, foreign: int) -> comparison.Report:
    by_path = {
        "engagements": comparison.PathCalls(10, 2, 80.0),
        "auth": comparison.PathCalls(3, 3, 0.0),
    }
    times = comparison.Quantiles(2000.0, 3000.0, 4000.0)
    return comparison.Report(
        users=simulated.users,
        passes=passes,
        seed=simulated.seed,
        latency_scale=simulated.latency_scale,
        upstream_calls=comparison.UpstreamCalls(1000, 1, 99.95, by_path),
        response_ms=comparison.Responses(times, comparison.Quantiles(0.001, 0.0, 5.0)),
        saved_ms_per_request=100.0,
        hit_rate=0.5,
        bytes_per_user=28_400,
        answers_checked=100,
        wrong_answers=wrong,
        foreign_answers=foreign,
    )


def test_without_json_it_is_a_table_that_never_rounds_up_to_all(
    coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(simulated: SimulatorSettings, *, passes: int) -> comparison.Report:
        return report(simulated, passes, 3, 4)

    monkeypatch.setattr(comparison, "compare", compare)
    ended = coatcheck("demo", "--users", "3", "--passes", "2", "--seed", "5", "--latency-scale", "0.5")
    assert (ended.code, ended.err) == (1, "")
    rows = [" ".join(line.replace("│", " ").split()) for line in ended.out.splitlines()]
    assert rows[0].startswith("The chat session of 3 users, 2 passes each,")
    assert rows[0].endswith("(seed 5, latencies 0.5 of those stated)")
    for row in (
        "engagements 10 2 80.0 %",
        "log-ins 3 3 0.0 %",
        "all 1,000 1 99.9 %",
        "p50 2,000.0 ms 0.001 ms 99.9 %",
        "p95 3,000.0 ms 0.000 ms 100.0 %",
        "p99 4,000.0 ms 5.0 ms 99.8 %",
        "time saved a request 100.0 ms",
        "memory a user 28.4 kB",
        "hit rate 50.0 %",
        "answers checked 100",
        "wrong answers 3",
        "foreign answers seen 4",
    ):
        assert row in rows


def test_table_and_json_give_the_same_percentages(
    coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are cut after one decimal: rounded, the one would say that all is saved and the other not."""
    compared = comparison.UpstreamCalls.compared(
        {"engagements": 10_000, "zones": 57, "auth": 3, "endpoints": 2},
        {"engagements": 1, "zones": 10, "auth": 2, "endpoints": 0},
    )

    async def compare(simulated: SimulatorSettings, *, passes: int) -> comparison.Report:
        return msgspec.structs.replace(report(simulated, passes, 0, 0), upstream_calls=compared)

    monkeypatch.setattr(comparison, "compare", compare)
    calls = figures(coatcheck("demo", "--json").out)["upstream_calls"]
    shown = {name: each["saved_percent"] for name, each in calls["by_path"].items()}
    assert {"engagements": 99.9, "zones": 82.4, "auth": 33.3, "endpoints": 100.0} == shown
    assert 99.8 == calls["saved_percent"]
    rows = [
        " ".join(line.replace("│", " ").split()).rsplit(maxsplit=2)
        for line in coatcheck("demo").out.splitlines()
    ]
    table = {row[0].split()[0]: row[1] for row in rows if row and row[-1] == "%"}
    named = {"log-ins" if name == "auth" else name: f"{each:.1f}" for name, each in shown.items()}
    assert {**named, "all": "99.8"}.items() <= table.items()


def test_an_upstream_that_fails_is_one_line_and_exit_1(
    coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(simulated: SimulatorSettings, *, passes: int) -> comparison.Report:
        raise UpstreamFailed("the upstream answered 500", status=500)

    monkeypatch.setattr(comparison, "compare", compare)
    ended = coatcheck("demo")
    assert (ended.code, ended.complaint) == (1, "the upstream answered 500")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(seed=9, users=3, latency_scale=0)) as simulator:
        yield simulator


def accounts(simulator: Simulator, *, mixed_up: bool = False) -> Any:
    def credentials(user: str) -> Account:
        email = TWO if mixed_up else user
        return Account(email, simulator.truth(email)["password"])

    return credentials


async def replayed(simulator: Simulator, **options: Any) -> Replay:
    truth = Truth(simulator)
    truth.learn(ANN)
    passes: list[None] = []
    async with ipc_cache(
        Settings(upstream_url=simulator.url), credentials=accounts(simulator, **options)
    ) as cache:
        done = await replay(
            cache, truth, [ANN], passes=2, clock=SystemClock(), advance=lambda: passes.append(None)
        )
    assert len(passes) == 2
    return done


async def test_every_answer_is_judged_and_timed(simulator: Simulator) -> None:
    done = await replayed(simulator)
    assert done.verdicts == {Verdict.RIGHT: 14}
    assert len(done.seconds) == 14
    shortest, longest = done.quantiles(0.0, 1.0)
    assert shortest < done.mean() < longest


async def test_anothers_account_is_seen_in_every_answer(simulator: Simulator) -> None:
    done = await replayed(simulator, mixed_up=True)
    assert done.verdicts == {Verdict.FOREIGN: 14}


async def test_the_users_own_other_engagement_is_wrong_and_not_foreign(simulator: Simulator) -> None:
    simulator.set_faults([{"kind": "changed_engagement", "user": ANN}])
    truth = Truth(simulator)
    truth.learn(ANN)
    simulator.set_faults([])
    async with ipc_cache(Settings(upstream_url=simulator.url), credentials=accounts(simulator)) as cache:
        verdicts = [
            truth.judge(ANN, number, await step(cache.session(ANN)))
            for number, step in enumerate(CHAT_SESSION)
        ]
    assert set(verdicts) == {Verdict.WRONG}


async def test_one_foreign_id_or_name_is_enough(simulator: Simulator) -> None:
    truth = Truth(simulator)
    truth.learn(ANN)
    answer = truth.expected(ANN)[2]
    assert truth.judge(ANN, 2, answer) is Verdict.RIGHT
    foreign_id = simulator.truth(TWO)["engagements"][0]["ipc_engagement_id"]
    assert truth.judge(ANN, 2, (foreign_id, answer[1])) is Verdict.FOREIGN
    text = msgspec.json.encode(answer).decode().replace("tenant-0001", "tenant-0002", 1)
    assert truth.judge(ANN, 2, tuple(json.loads(text))) is Verdict.FOREIGN
    assert truth.judge(ANN, 2, (answer[0], [])) is Verdict.WRONG


async def test_the_first_request_that_fails_ends_the_replay(simulator: Simulator) -> None:
    simulator.set_faults([{"kind": "status", "status": 500, "path": "zones"}])
    with pytest.raises(UpstreamFailed):
        await replayed(simulator)


async def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in ("", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        monkeypatch.setenv("FORCE_COLOR", terminal)
        with progress() as track:
            track("without the cache", 5)()
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("without the cache" in shown.err) is bool(terminal)
