"""``coatcheck demo --restart``: what came back from the store is counted truly."""

from __future__ import annotations

import json

import pytest

from cli.conftest import Coatcheck
from coatcheck.cli import restart
from coatcheck.simulator import Settings as SimulatorSettings


async def test_what_is_kept_costs_no_call_after_a_restart() -> None:
    found = await restart.begin_anew(SimulatorSettings(seed=9, users=3, latency_scale=0), passes=3)

    calls = found.calls_after
    assert (found.passes_before, found.passes_after) == (1, 2)
    # What must be live, and the log-ins for it, are asked for either way; what is kept, only without the store.
    live = {path: calls.by_path.pop(path) for path in ("auth", "clusters", "vmlist", "managed")}
    assert all(each.without == each.with_ > 0 for each in live.values())
    assert all((each.without, each.with_) == (3, 0) for each in calls.by_path.values())
    assert len(calls.by_path) == 6
    assert found.entries_restored == 3 * 6
    assert found.store_bytes > 0
    assert (found.answers_checked, found.wrong_answers, found.foreign_answers) == (2 * 3 * 3 * 7, 0, 0)


def test_the_command_prints_a_table_or_one_object(coatcheck: Coatcheck) -> None:
    arguments = ("demo", "--restart", "--users", "2", "--passes", "2", "--latency-scale", "0")
    shown = coatcheck(*arguments)
    assert shown.code == 0
    assert "without store" in shown.out
    ended = coatcheck(*arguments, "--json")
    assert json.loads(ended.out)["entries_restored"] == 12


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--restart", "--outage"), "give one of them"),
        (("--restart", "--passes", "1"), "--passes must be 2 or more"),
    ],
)
def test_what_cannot_be_shown_is_said(coatcheck: Coatcheck, arguments: tuple[str, ...], part: str) -> None:
    ended = coatcheck("demo", *arguments)
    assert ended.code == 2
    assert part in ended.err
