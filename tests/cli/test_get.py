"""``coatcheck get`` against a simulator in this process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cli.conftest import Coatcheck, Ended
from coatcheck.cli.next_step import next_step
from coatcheck.engine.flight import own_copy
from coatcheck.errors import (
    BadUpstreamBody,
    BreakerOpen,
    LoadError,
    LoadTimeout,
    NoCredentials,
    RateLimited,
    UpstreamTimeout,
)
from coatcheck.settings import default_keys, default_store
from coatcheck.simulator import Settings, Simulator
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

ANN = "user-0001@tenant-0001.example"
TWO = "user-0002@tenant-0002.example"
"""A user with two engagements."""

CANARY = "c4n4ry-pa55word"
NAMES = "engagement_data, paas_engagement_id, ipc_engagement_id, endpoints, business_units, environments_list, zones_list"

URL = "upstream_url (COATCHECK_UPSTREAM_URL)"
LARGER = f"if the API sends that much, set max_body (COATCHECK_MAX_BODY) higher; else check {URL}"
LOGGED_IN = (
    "what this user is logged in with is set by accounts (COATCHECK_ACCOUNTS) or token (COATCHECK_TOKEN)"
)

Get = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Settings(seed=5, users=3, latency_scale=0)) as simulator:
        yield simulator


@pytest.fixture
def get(simulator: Simulator, coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Call it in a thread, since it runs a loop of its own."""
    accounts = {user: simulator.truth(user)["password"] for user in (ANN, TWO)}
    monkeypatch.setenv("COATCHECK_UPSTREAM_URL", simulator.url)
    monkeypatch.setenv("COATCHECK_ACCOUNTS", json.dumps(accounts))

    async def call(*arguments: str) -> Ended:
        ended = await asyncio.to_thread(coatcheck, "get", *arguments)
        for password in (*accounts.values(), CANARY):
            assert password not in ended.out + ended.err
        assert "Traceback" not in ended.err
        return ended

    return call


@pytest.mark.parametrize(
    ("resource", "place"),
    [
        ("engagement_data", "engagement"),
        ("paas_engagement_id", "paas_engagement_id"),
        ("ipc_engagement_id", "ipc_engagement_id"),
        ("endpoints", "endpoints"),
        ("environments_list", "environments"),
        ("zones_list", "zones"),
    ],
)
async def test_it_prints_the_users_value_as_the_upstream_sent_it(
    get: Get, simulator: Simulator, resource: str, place: str
) -> None:
    ended = await get(resource, "--user", ANN)
    assert ended.code == 0
    assert json.loads(ended.out) == simulator.truth(ANN)["engagements"][0][place]


async def test_value_and_outcome_go_different_ways(get: Get) -> None:
    ended = await get("endpoints", "--user", ANN)
    assert ended.out.startswith("[\n  {\n")
    assert ended.out.endswith("]\n")
    assert ended.err.startswith("miss, age 0.")
    assert ended.err.endswith(" s, fresh for 24:00:00\n")


async def test_as_json_it_is_one_object_with_everything(get: Get, simulator: Simulator) -> None:
    ended = await get("ipc_engagement_id", "--user", ANN, "--json")
    (line,) = ended.out.splitlines()
    shown = json.loads(line)
    assert shown.keys() == {"resource", "outcome", "age", "fresh_for", "value"}
    assert shown["resource"] == "ipc_engagement_id"
    assert shown["outcome"] == "miss"
    assert shown["age"] >= 0
    assert 0 < shown["fresh_for"] <= 86_400
    assert shown["value"] == simulator.truth(ANN)["engagements"][0]["ipc_engagement_id"]
    assert ended.err == ""


async def test_an_argument_is_json_or_else_text(get: Get, simulator: Simulator) -> None:
    other = simulator.truth(TWO)["engagements"][1]
    ended = await get(
        "endpoints", "--user", TWO, "--arg", f"paas_engagement_id={other['paas_engagement_id']}"
    )
    assert json.loads(ended.out) == other["endpoints"]
    ended = await get("endpoints", "--user", TWO, "--arg", "paas_engagement_id=mine")
    assert (ended.code, ended.complaint) == (
        2,
        "--arg paas_engagement_id has a value of another type than it takes",
    )


async def test_refresh_is_a_forced_get(get: Get, simulator: Simulator) -> None:
    ended = await get("endpoints", "--user", ANN, "--refresh")
    assert ended.code == 0
    assert simulator.calls()["by_path"]["endpoints"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], f"no such resource in catalog 'ipc'; it has: {NAMES}"),
        (["endpoints", "--arg", "x=1"], "endpoints takes no argument 'x'; it takes: paas_engagement_id"),
        (
            ["endpoints", "--arg", "force_refresh=true"],
            "endpoints takes no argument 'force_refresh'; it takes: paas_engagement_id",
        ),
        (
            ["endpoints", "--arg", "x"],
            "--arg takes name=value, such as --arg paas_engagement_id=4101",
        ),
        (["endpoints", "--arg", "=1"], "--arg takes name=value, such as --arg paas_engagement_id=4101"),
        (
            ["endpoints", "--arg", "paas_engagement_id=1", "--arg", "paas_engagement_id=2"],
            "--arg paas_engagement_id is given twice",
        ),
        (
            ["endpoints", "--arg", "paas_engagement_id=[1]"],
            "--arg paas_engagement_id has a value of another type than it takes",
        ),
    ],
)
async def test_a_mistake_is_one_line_and_exit_2_and_costs_no_call(
    get: Get, simulator: Simulator, arguments: list[str], complaint: str
) -> None:
    ended = await get(*arguments, "--user", ANN)
    assert (ended.code, ended.complaint) == (2, complaint)
    assert simulator.calls()["total"] == 0


async def test_no_user_is_no_user(get: Get) -> None:
    ended = await get("endpoints", "--user", "")
    assert (ended.code, ended.complaint) == (2, "a user id must not be empty")


async def test_a_user_without_an_account_is_told_where_to_put_one(get: Get, simulator: Simulator) -> None:
    ended = await get("endpoints", "--user", "somebody")
    assert (ended.code, ended.complaint) == (
        1,
        "no account is configured for this user: add one to COATCHECK_ACCOUNTS, or to accounts in the TOML file",
    )
    assert simulator.calls()["total"] == 0


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (403, "this user's account needs the right to it at the upstream"),
        (500, "the fault is the upstream's: try again later"),
        (404, f"check --user and --arg, and the prefix in {URL}"),
        (410, f"check --user and --arg, and the prefix in {URL}"),
        (429, "try again later"),
        (301, f"check scheme, host and prefix in {URL}"),
        (401, LOGGED_IN),
    ],
)
async def test_an_upstream_error_is_one_line_with_what_to_do_and_exit_1(
    get: Get, simulator: Simulator, status: int, step: str
) -> None:
    """What happened, and what can be done about it by whoever ran the command."""
    simulator.set_faults([{"kind": "status", "status": status, "path": "endpoints"}])
    ended = await get("endpoints", "--user", ANN)
    assert (ended.code, ended.complaint) == (1, f"the upstream answered {status}; {step}")


async def test_a_refused_log_in_is_one_line_and_exit_1(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_ACCOUNTS", json.dumps({ANN: CANARY}))
    ended = await get("endpoints", "--user", ANN)
    assert (ended.code, ended.complaint) == (
        1,
        f"the log-in was refused: check the e-mail and the password of this user's account; {LOGGED_IN}",
    )


async def test_an_upstream_that_is_not_there_is_one_line_and_exit_1(get: Get, simulator: Simulator) -> None:
    await simulator.close()
    ended = await get("endpoints", "--user", ANN)
    assert ended.code == 1
    assert ended.complaint.startswith("the connection to the upstream failed (")
    assert ended.complaint.endswith(f"); check {URL}, and that it can be reached from here")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (RateLimited("…", retry_after=2.1), "try again in 3 s"),
        (RateLimited("…"), "try again later"),
        (BreakerOpen("…", retry_after=7.0), "try again in 7 s"),
        (BreakerOpen("…"), "try again later"),
        (LoadTimeout("…"), f"try again later; if it never answers, check {URL}"),
        (UpstreamTimeout("…"), f"try again later; if it never answers, check {URL}"),
        (BadUpstreamBody("…"), f"check that {URL} is that of the API, and no page or proxy before it"),
        (BadUpstreamBody("…", limit=5), LARGER),
        (NoCredentials("…"), None),
    ],
)
def test_what_to_do_depends_on_what_failed(error: LoadError, step: str | None) -> None:
    """None for what says it itself."""
    assert step == next_step(error)


async def test_a_body_that_is_too_large_is_told_with_the_setting_that_it_is_too_large_for(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several wait for the load, each of whom is told by an exception of its own."""
    monkeypatch.setenv("COATCHECK_MAX_BODY", "100")
    ended = await get("zones_list", "--user", ANN)
    assert (1, f"the body has more than 100 bytes; {LARGER}") == (ended.code, ended.complaint)
    error = own_copy(BadUpstreamBody("…", limit=5))
    assert isinstance(error, BadUpstreamBody)
    assert error.limit == 5


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_settings_may_come_from_a_file(
    get: Get, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    monkeypatch.delenv("COATCHECK_UPSTREAM_URL")
    monkeypatch.delenv("COATCHECK_ACCOUNTS")
    password = simulator.truth(ANN)["password"]
    write(mine, f'upstream_url = "{simulator.url}"\nttl = 60\naccounts."{ANN}" = "{password}"')
    ended = await get("endpoints", "--user", ANN, "--config", str(mine))
    assert ended.code == 0
    assert ended.err.endswith("fresh for 0:01:00\n")


def test_without_an_upstream_it_says_how_to_set_one_and_that_the_demo_needs_none(
    coatcheck: Coatcheck,
) -> None:
    ended = coatcheck("get", "endpoints", "--user", ANN)
    assert ended.code == 2
    assert "COATCHECK_UPSTREAM_URL" in ended.complaint
    assert "coatcheck.toml" in ended.complaint
    assert "`coatcheck demo` needs none" in ended.complaint


def test_a_wrong_setting_is_one_line_and_exit_2(
    coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_UPSTREAM_URL", f"http://ann:{CANARY}@host")
    ended = coatcheck("get", "endpoints", "--user", ANN)
    assert (ended.code, ended.complaint) == (
        2,
        "setting COATCHECK_UPSTREAM_URL: must be http(s)://host[:port][/prefix] and nothing else",
    )


def test_two_wrong_settings_are_two_lines(coatcheck: Coatcheck) -> None:
    Path("coatcheck.toml").write_text(f"max_body = 0\nupstream = '{CANARY}'")
    ended = coatcheck("get", "endpoints", "--user", ANN)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "coatcheck: setting max_body in coatcheck.toml: must be 1 or more",
        "coatcheck: setting upstream in coatcheck.toml: there is no such setting",
    ]


# -- what is stored between two runs ----------------------------------------------------------------------------------


def endpoint_calls(simulator: Simulator) -> int:
    return int(simulator.calls()["by_path"].get("endpoints", 0))


async def test_what_one_run_fetched_the_next_one_has(get: Get, simulator: Simulator) -> None:
    first = json.loads((await get("endpoints", "--user", ANN, "--json")).out)
    calls = simulator.calls()["total"]
    second = json.loads((await get("endpoints", "--user", ANN, "--json")).out)
    assert (first["outcome"], second["outcome"]) == ("miss", "hit")
    assert second["value"] == first["value"]
    assert second["age"] > first["age"]
    assert second["fresh_for"] < first["fresh_for"]
    assert simulator.calls()["total"] == calls
    assert endpoint_calls(simulator) == 1


async def test_what_is_stored_is_its_users_alone(get: Get, simulator: Simulator) -> None:
    await get("endpoints", "--user", ANN)
    ended = await get("endpoints", "--user", TWO)
    assert json.loads(ended.out) == simulator.truth(TWO)["engagements"][0]["endpoints"]
    assert ended.err.startswith("miss")
    assert (await get("endpoints", "--user", ANN)).err.startswith("hit")


async def test_a_refresh_replaces_what_is_stored(get: Get, simulator: Simulator) -> None:
    await get("endpoints", "--user", ANN)
    await get("endpoints", "--user", ANN, "--refresh")
    assert endpoint_calls(simulator) == 2
    ended = await get("endpoints", "--user", ANN)
    assert ended.err.startswith("hit")
    assert endpoint_calls(simulator) == 2


async def test_the_keys_may_be_in_the_environment(
    get: Get, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the second look-up is a hit with them, and no file of keys is made."""
    ring = KeyRing.drawn()
    secret = ring.keys[0].secret.hex()
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", ring.text())
    shown = [await get("endpoints", "--user", ANN) for _ in range(2)]
    assert ["miss", "hit,"] == [each.err[:4] for each in shown]
    assert endpoint_calls(simulator) == 1
    assert not default_keys().exists()
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", f"{ring.text()} {secret}")
    shown.append(await get("endpoints", "--user", ANN))
    assert (2, "") == (shown[-1].code, shown[-1].out)
    assert shown[-1].err.startswith("coatcheck: setting COATCHECK_KEYS_TEXT: line 3 of the keys is no key")
    assert not any(secret in each.out + each.err for each in shown)


async def test_in_memory_alone_nothing_stays(
    get: Get, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_STORE", "memory")
    for _ in range(2):
        assert (await get("endpoints", "--user", ANN)).err.startswith("miss")
    assert endpoint_calls(simulator) == 2
    path, keys = default_store(), default_keys()
    assert not path.exists()
    assert not keys.exists()


async def test_a_store_that_another_program_has_open_is_gone_without(
    get: Get, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    store = SQLiteStore(default_store(), keys=KeyRing.drawn())
    for _ in range(2):
        ended = await get("endpoints", "--user", ANN)
        assert (ended.code, ended.err[:4]) == (0, "miss")
    await store.aclose()
    assert endpoint_calls(simulator) == 2
    warning = f"sessions are kept in memory alone and do not survive a restart: the store at {default_store()} is open"
    assert [each.getMessage().startswith(warning) for each in caplog.records if "alone" in each.message] == [
        True,
        True,
    ]


async def test_one_that_is_named_is_not(
    get: Get, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "sessions.sqlite"
    monkeypatch.setenv("COATCHECK_STORE", str(path))
    store = SQLiteStore(path, keys=KeyRing.drawn())
    ended = await get("endpoints", "--user", ANN)
    await store.aclose()
    assert ended.code == 1
    assert ended.complaint.startswith(f"the store at {path} is open in another program")
    assert simulator.calls()["total"] == 0


async def test_a_warning_is_one_line_for_who_runs_it(simulator: Simulator) -> None:
    store = SQLiteStore(default_store(), keys=KeyRing.drawn())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COATCHECK_")}
    environment |= {
        "COATCHECK_UPSTREAM_URL": simulator.url,
        "COATCHECK_ACCOUNTS": json.dumps({ANN: simulator.truth(ANN)["password"]}),
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coatcheck", "get", "endpoints", "--user", ANN, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await running.communicate()
    await store.aclose()
    assert running.returncode == 0
    warning, outcome = [line for line in told.decode().splitlines() if not line.startswith("made new keys")]
    assert warning.startswith("sessions are kept in memory alone and do not survive a restart: ")
    assert outcome.startswith("miss")
