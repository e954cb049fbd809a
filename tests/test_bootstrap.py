"""The parts put together: whose credentials are used, what closing closes, and that importing does nothing."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from coatcheck import Limits
from coatcheck.bootstrap import IpcCache, _OnFirstUse, build_executor, ipc_cache, session_store
from coatcheck.engine.store import Owner
from coatcheck.errors import (
    BadUpstreamBody,
    CacheClosed,
    InvalidKey,
    KeysUnusable,
    NoCredentials,
    SettingsError,
    StoreFailed,
    StoreInUse,
    Unavailable,
    UpstreamTimeout,
)
from coatcheck.ipc import APIExecutorService
from coatcheck.ipc.resources import POLICY, catalog, endpoints, engagement_data, paas_engagement_id
from coatcheck.settings import (
    AccountSettings,
    LimitSettings,
    Settings,
    SharedAccount,
    default_keys,
    default_store,
)
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import inspect
from coatcheck.testing import FakeClock, settle
from coatcheck.upstream.log_ins import Account
from coatcheck.upstream.tokens import CallerToken

ANN = "user-0001@tenant-0001.example"
BOB = "user-0003@tenant-0003.example"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(seed=3, users=3, latency_scale=0)) as simulator:
        yield simulator


def password(simulator: Simulator, email: str) -> SecretStr:
    return SecretStr(simulator.truth(email)["password"])


def engagement(simulator: Simulator, email: str) -> int:
    found: int = simulator.truth(email)["engagements"][0]["paas_engagement_id"]
    return found


async def token(simulator: Simulator, email: str) -> str:
    """Return what a log-in of a program's own would bring."""
    async with ipc_cache(Settings(upstream_url=simulator.url), credentials=lambda _: None) as cache:
        account = Account(email, password(simulator, email).get_secret_value())
        return await cache._log_ins.token(account)


async def test_a_user_is_logged_in_with_their_own_account(simulator: Simulator) -> None:
    settings = Settings(
        upstream_url=simulator.url,
        accounts={
            ANN: AccountSettings(password=password(simulator, ANN)),
            "bobby": AccountSettings(password=password(simulator, BOB), email=BOB),
        },
    )
    async with ipc_cache(settings) as cache:
        assert await cache.session(ANN).get(paas_engagement_id) == engagement(simulator, ANN)
        assert await cache.session("bobby").get(paas_engagement_id) == engagement(simulator, BOB)


async def test_a_user_without_credentials_is_nobody_else(simulator: Simulator) -> None:
    settings = Settings(
        upstream_url=simulator.url, accounts={ANN: AccountSettings(password=password(simulator, ANN))}
    )
    async with ipc_cache(settings) as cache:
        await cache.session(ANN).get(paas_engagement_id)
        before = simulator.calls()["total"]
        for user in (BOB, ANN.upper(), f"{ANN} "):
            with pytest.raises(NoCredentials):
                await cache.session(user).get(paas_engagement_id)
            with pytest.raises(NoCredentials):
                await cache.session(user).call(lambda api: api.engagements())
        assert simulator.calls()["total"] == before


async def test_the_shared_account_serves_only_those_without_one(simulator: Simulator) -> None:
    settings = Settings(
        upstream_url=simulator.url,
        accounts={ANN: AccountSettings(password=password(simulator, ANN))},
        everyone_sees_data_of=SharedAccount(email=BOB, password=password(simulator, BOB)),
    )
    async with ipc_cache(settings) as cache:
        assert await cache.session(ANN).get(paas_engagement_id) == engagement(simulator, ANN)
        assert await cache.session("anybody").get(paas_engagement_id) == engagement(simulator, BOB)


async def test_the_token_is_the_default_users_alone(simulator: Simulator) -> None:
    given = SecretStr(await token(simulator, ANN))
    simulator.reset()
    async with ipc_cache(Settings(upstream_url=simulator.url, default_email="me", token=given)) as cache:
        assert await cache.session("me").get(paas_engagement_id) == engagement(simulator, ANN)
        with pytest.raises(NoCredentials):
            await cache.session(ANN).get(paas_engagement_id)
    assert simulator.calls()["by_path"] == {"engagements": 1}


async def test_a_programs_own_credentials_replace_those_of_the_settings(simulator: Simulator) -> None:
    bearer = await token(simulator, BOB)
    settings = Settings(
        upstream_url=simulator.url, accounts={ANN: AccountSettings(password=password(simulator, ANN))}
    )
    known = {"bob": CallerToken(lambda: bearer)}
    async with ipc_cache(settings, credentials=known.get) as cache:
        assert await cache.session("bob").get(paas_engagement_id) == engagement(simulator, BOB)
        with pytest.raises(NoCredentials):
            await cache.session(ANN).get(paas_engagement_id)


def ann_alone(simulator: Simulator) -> dict[str, AccountSettings]:
    return {ANN: AccountSettings(password=password(simulator, ANN))}


async def test_without_an_upstream_there_is_no_cache() -> None:
    with pytest.raises(SettingsError, match="COATCHECK_UPSTREAM_URL"):
        ipc_cache(Settings())


async def test_nothing_is_opened_before_the_first_use() -> None:
    async with ipc_cache(Settings(upstream_url="http://127.0.0.1:1")) as cache:
        assert cache.session(ANN).peek(endpoints) is None


async def test_timeout_and_size_of_a_body_are_those_of_the_settings(simulator: Simulator) -> None:
    accounts = ann_alone(simulator)
    async with ipc_cache(Settings(upstream_url=simulator.url, accounts=accounts, max_body=100)) as cache:
        with pytest.raises(BadUpstreamBody):
            await cache.session(ANN).get(endpoints)
    simulator.set_faults([{"kind": "hang", "path": "engagements"}])
    short = Settings(upstream_url=simulator.url, accounts=accounts, timeout=timedelta(milliseconds=50))
    async with ipc_cache(short) as cache:
        with pytest.raises(UpstreamTimeout):
            await cache.session(ANN).get(engagement_data)


async def test_the_ttl_of_the_settings_is_that_of_every_resource() -> None:
    settings = Settings(upstream_url="http://127.0.0.1:1", ttl=timedelta(minutes=5))
    async with ipc_cache(settings) as cache:
        kept = [cache.policy(resource) for resource in catalog if not resource.derived]
        assert {policy.ttl for policy in kept} == {timedelta(minutes=5)}
        assert {policy.refresh_ahead for policy in kept} == {POLICY.refresh_ahead}
    async with ipc_cache(Settings(upstream_url="http://127.0.0.1:1")) as cache:
        assert cache.policy(endpoints) == POLICY


@pytest.mark.parametrize(("seconds", "ahead"), [(1, None), (9, None), (60, POLICY.refresh_ahead)])
async def test_a_ttl_too_short_for_refresh_ahead_goes_without_it_and_without_a_warning(
    seconds: int, ahead: float | None, recwarn: pytest.WarningsRecorder
) -> None:
    settings = Settings(upstream_url="http://127.0.0.1:1", ttl=timedelta(seconds=seconds))
    async with ipc_cache(settings) as cache:
        kept = [cache.policy(resource) for resource in catalog if not resource.derived]
    assert {(policy.ttl, policy.refresh_ahead) for policy in kept} == {(timedelta(seconds=seconds), ahead)}
    assert not recwarn.list


async def test_limits_are_those_of_the_settings_unless_the_program_has_its_own(simulator: Simulator) -> None:
    settings = Settings(
        upstream_url=simulator.url,
        limits=LimitSettings(max_sessions=1),
        everyone_sees_data_of=SharedAccount(email=ANN, password=password(simulator, ANN)),
    )
    for limits, held in ((None, 1), (Limits(max_sessions=3), 3)):
        async with ipc_cache(settings, limits=limits) as cache:
            for number in range(3):
                await cache.session(f"user {number}").get(engagement_data)
            assert len(cache.users()) == held


async def test_without_keeping_every_get_loads_and_the_token_stays(simulator: Simulator) -> None:
    settings = Settings(upstream_url=simulator.url, accounts=ann_alone(simulator))
    async with ipc_cache(settings, enabled=False) as cache:
        for _ in range(3):
            await cache.session(ANN).get(endpoints)
    assert simulator.calls()["by_path"] == {"auth": 1, "engagements": 3, "endpoints": 3}


async def test_closing_closes_the_client_and_drops_the_tokens(simulator: Simulator) -> None:
    cache = ipc_cache(Settings(upstream_url=simulator.url, accounts=ann_alone(simulator)))
    await cache.session(ANN).get(endpoints)
    await cache.aclose()
    await cache.aclose()
    with pytest.raises(CacheClosed):
        await cache.session(ANN).get(endpoints)
    with pytest.raises(CacheClosed):
        await cache._client.request("GET", "/")
    assert cache._log_ins._kept == {}


async def test_a_log_in_that_hangs_does_not_keep_the_cache_from_closing(simulator: Simulator) -> None:
    simulator.set_faults([{"kind": "hang", "path": "auth"}])
    cache = ipc_cache(Settings(upstream_url=simulator.url, accounts=ann_alone(simulator)))
    waiting = asyncio.ensure_future(cache.session(ANN).get(endpoints))
    await settle(lambda: simulator.calls()["total"] > 0)
    await cache.aclose()
    with pytest.raises(CacheClosed):
        await waiting


async def test_the_executor_closes_what_it_was_built_of(simulator: Simulator) -> None:
    settings = Settings(
        upstream_url=simulator.url, accounts=ann_alone(simulator), default_email=ANN, strict_users=False
    )
    executor = build_executor(settings)
    assert await executor.get_engagement_id() == engagement(simulator, ANN)
    cache = executor._cache
    assert isinstance(cache, IpcCache)
    await executor.close()
    with pytest.raises(CacheClosed):
        await cache._client.request("GET", "/")


async def test_a_strict_executor_refuses_a_call_that_names_nobody(simulator: Simulator) -> None:
    settings = Settings(upstream_url=simulator.url, default_email=ANN, strict_users=True)
    executor = build_executor(settings)
    with pytest.raises(InvalidKey):
        await executor.get_engagement_id()
    await executor.close()


class Built:
    """What stands behind a name that is made on first use."""

    def __init__(self) -> None:
        self.session_cache_duration = timedelta(hours=1)


def test_what_is_made_on_first_use_is_made_once_however_many_ask_first() -> None:
    made: list[Built] = []
    start = threading.Barrier(8)

    def build() -> Built:
        made.append(Built())
        return made[-1]

    lazy = _OnFirstUse(build)

    def ask() -> None:
        start.wait()
        assert lazy.session_cache_duration == timedelta(hours=1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_is_set_on_it_is_set_on_what_stands_behind_it() -> None:
    built = Built()
    lazy = _OnFirstUse(lambda: built)
    lazy.session_cache_duration = timedelta(minutes=5)
    assert built.session_cache_duration == timedelta(minutes=5)
    assert repr(lazy) == repr(built)


def test_a_first_use_that_fails_may_be_repeated() -> None:
    ready = False

    def build() -> Built:
        if not ready:
            raise SettingsError("setting COATCHECK_TTL: is wrong")
        return Built()

    lazy = _OnFirstUse(build)
    with pytest.raises(SettingsError):
        _ = lazy.session_cache_duration
    assert "not used yet" in repr(lazy)
    ready = True
    assert lazy.session_cache_duration == timedelta(hours=1)


def test_it_lists_the_methods_without_being_made() -> None:
    def build() -> Built:
        raise AssertionError

    assert set(dir(_OnFirstUse(build))) >= {name for name in dir(APIExecutorService) if name[0] != "_"}


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COATCHECK_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_coatcheck_brings_no_extra_with_it_and_reads_nothing() -> None:
    done = run(
        "import sys, coatcheck\n"
        "from coatcheck import *\n"
        "extras = {'aiohttp', 'yarl', 'pydantic', 'pydantic_settings', 'rich', 'cyclopts'}\n"
        "print(sorted(extras & sys.modules.keys()))\n"
        "from coatcheck import api_executor_service\n"
        "print(api_executor_service)\n"
        "try:\n"
        "    api_executor_service.user_sessions\n"
        "except coatcheck.CoatcheckError as error:\n"
        "    print(error)\n",
        COATCHECK_TTL="wrong",
    )
    assert done.stdout.splitlines() == [
        "[]",
        "<api_executor_service, not used yet>",
        "setting COATCHECK_TTL: must be seconds, or a duration such as PT30M",
    ], done.stderr


@pytest.mark.parametrize("missing", ["aiohttp", "pydantic_settings"])
def test_a_missing_extra_is_named_with_how_to_install_it(missing: str) -> None:
    done = run(
        f"import sys; sys.modules['{missing}'] = None\n"
        "import coatcheck\n"
        "try:\n"
        "    coatcheck.api_executor_service\n"
        "except ImportError as error:\n"
        "    print(error, error.__context__)\n"
    )
    assert done.stdout == (
        f"api_executor_service needs {missing}, an extra: install coatcheck[ipc] None\n"
    ), done.stderr


def test_what_ipc_needs_is_named_with_how_to_install_it() -> None:
    done = run(
        "import sys; sys.modules['aiohttp'] = None\n"
        "from coatcheck.errors import MissingExtra\n"
        "try:\n"
        "    import coatcheck.ipc\n"
        "except MissingExtra as error:\n"
        "    print(error, error.name)\n"
    )
    assert done.stdout == "coatcheck.upstream.client needs aiohttp: install coatcheck[ipc] aiohttp\n", (
        done.stderr
    )


@pytest.mark.parametrize("missing", ["platformdirs", "pydantic", "pydantic_settings"])
@pytest.mark.parametrize("module", ["settings", "bootstrap"])
def test_what_settings_need_is_named_with_how_to_install_it(module: str, missing: str) -> None:
    """They are imported by name, past the face of the package."""
    done = run(
        f"import sys; sys.modules['{missing}'] = None\n"
        "from coatcheck.errors import MissingExtra\n"
        "try:\n"
        f"    import coatcheck.{module}\n"
        "except MissingExtra as error:\n"
        "    print(error, error.name)\n"
    )
    assert done.stdout == f"coatcheck.settings needs {missing}: install coatcheck[ipc] {missing}\n", (
        done.stderr
    )


def test_what_the_simulator_needs_is_named_with_how_to_install_it() -> None:
    """It knows nothing of the rest of the package, and so not its errors."""
    done = run(
        "import sys; sys.modules['aiohttp'] = None\n"
        "try:\n"
        "    from coatcheck.simulator import Simulator\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error, error.name)\n"
    )
    assert done.stdout == "coatcheck.simulator needs aiohttp: install coatcheck[ipc] aiohttp\n", done.stderr


def test_other_names_are_missing_as_usual() -> None:
    done = run("import coatcheck\nprint(hasattr(coatcheck, 'no_such_name'))")
    assert done.stdout == "False\n"


async def test_the_figures_tell_of_the_upstream() -> None:
    """Beside the cache's own: the breaker's state, the calls that left and those that were repeated."""
    clock = FakeClock()
    settings = Settings(
        upstream_url="http://127.0.0.1:1",
        accounts={"ann@example.com": AccountSettings(password=SecretStr("p"))},
    )
    async with ipc_cache(settings, clock=clock) as cache:
        before = cache.stats()
        assert ("closed", 0) == (before.upstream.breaker.state, before.upstream.calls)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await cache.session("ann@example.com").get(engagement_data)
        after = cache.stats()

        assert "open" == after.upstream.breaker.state
        assert 5 == after.total.failed
        assert 5 == cache.stats("ann@example.com").total.failed


# -- across restarts --------------------------------------------------------------------------------------------------


async def test_the_drop_in_service_keeps_a_users_session_across_restarts(simulator: Simulator) -> None:
    settings = Settings(upstream_url=simulator.url, accounts=ann_alone(simulator), default_email=ANN)
    executor = build_executor(settings)
    before = await executor.get_business_units_list(user_id=ANN)
    await executor.close()
    calls = simulator.calls()["total"]
    assert calls > 0

    executor = build_executor(settings)
    assert await executor.get_business_units_list(user_id=ANN) == before
    assert await executor.get_engagement_id() == engagement(simulator, ANN)
    await executor.close()
    assert simulator.calls()["total"] == calls


async def test_a_logout_is_one_after_a_restart_too(simulator: Simulator) -> None:
    settings = Settings(upstream_url=simulator.url, accounts=ann_alone(simulator))
    executor = build_executor(settings)
    await executor.get_business_units_list(user_id=ANN)
    await executor._clear_user_session(ANN)
    await executor.close()
    calls = simulator.calls()["total"]

    executor = build_executor(settings)
    await executor.get_business_units_list(user_id=ANN)
    await executor.close()
    assert simulator.calls()["total"] == 2 * calls


async def test_in_memory_alone_a_restart_begins_anew_and_nothing_is_made(simulator: Simulator) -> None:
    settings = Settings(upstream_url=simulator.url, accounts=ann_alone(simulator), store="memory")
    for number in (1, 2):
        executor = build_executor(settings)
        assert executor._cache.stats().store is None
        await executor.get_business_units_list(user_id=ANN)
        await executor.close()
        assert simulator.calls()["by_path"]["departments"] == number
    assert not default_store().exists()
    assert not default_keys().exists()


async def test_the_store_is_where_the_settings_say_and_private(simulator: Simulator, tmp_path: Path) -> None:
    path, keys = tmp_path / "data" / "sessions", tmp_path / "keys"
    settings = Settings(upstream_url=simulator.url, store=str(path), keys=keys)
    await build_executor(settings).close()
    assert [0o600, 0o600] == [stat.S_IMODE(each.stat().st_mode) for each in (path, keys)]
    assert not default_store().exists()
    assert not default_keys().exists()


OTHER_FILE = "; COATCHECK_STORE, or store in the TOML file, names another file, or `memory` for none"


def told_alone(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "coatcheck.bootstrap"]


async def test_a_second_program_goes_without_the_default_store_and_says_so(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(upstream_url=simulator.url, accounts=ann_alone(simulator))
    first, second = build_executor(settings), build_executor(settings)
    (warning,) = told_alone(caplog)
    assert warning.startswith("sessions are kept in memory alone and do not survive a restart: the store at ")
    assert warning.endswith(OTHER_FILE)
    assert second._cache.stats().store is None
    assert await second.get_engagement_id(user_id=ANN) == engagement(simulator, ANN)
    await first.close()
    await second.close()


async def test_a_store_that_is_named_must_be_usable(simulator: Simulator, tmp_path: Path) -> None:
    settings = Settings(upstream_url=simulator.url, store=str(tmp_path / "sessions"))
    first = build_executor(settings)
    with pytest.raises(StoreInUse) as caught:
        build_executor(settings)
    assert "Redis/Valkey" in str(caught.value)
    assert str(caught.value).endswith(OTHER_FILE)
    assert 1 == len(str(caught.value).splitlines())
    await first.close()
    await build_executor(settings).close()

    with pytest.raises(StoreFailed):
        build_executor(Settings(upstream_url=simulator.url, store=str(tmp_path)))
    keys = tmp_path / "open to all"
    keys.write_text("x")
    keys.chmod(0o644)
    with pytest.raises(KeysUnusable):
        build_executor(Settings(upstream_url=simulator.url, store=str(tmp_path / "other"), keys=keys))


async def test_keys_that_others_may_read_are_gone_without(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    keys = default_keys()
    keys.parent.mkdir(parents=True)
    keys.write_text("x")
    keys.chmod(0o644)
    store = session_store(Settings(upstream_url=simulator.url))
    assert store is None
    (warning,) = told_alone(caplog)
    assert "is open to others" in warning


async def test_keys_that_a_setting_names_must_be_usable_for_the_default_store_too(tmp_path: Path) -> None:
    keys = tmp_path / "open to all"
    keys.write_text("x")
    keys.chmod(0o644)
    with pytest.raises(KeysUnusable, match="is open to others"):
        session_store(Settings(keys=keys))
    # The store itself may still be another's, and is gone without.
    settings = Settings(keys=tmp_path / "keys")
    first = session_store(settings)
    assert first is not None
    assert session_store(settings) is None
    await first.aclose()


async def test_a_slip_in_the_name_of_the_keys_ends_nothing_that_is_stored(tmp_path: Path) -> None:
    """New keys are made for a store that is not there yet, not for one that is."""
    store, keys = str(tmp_path / "sessions"), tmp_path / "good.keys"
    opened = session_store(Settings(store=store, keys=keys))
    assert opened is not None
    await opened.open(Owner("ipc", "ann@example.com"))
    await opened.aclose()
    with pytest.raises(KeysUnusable, match="coatcheck keys new"):
        session_store(Settings(store=store, keys=tmp_path / "god.keys"))
    assert not (tmp_path / "god.keys").exists()
    again = session_store(Settings(store=store, keys=keys))
    assert again is not None
    assert 1 == (await again.size()).sessions
    await again.aclose()


async def test_with_keys_in_the_settings_the_store_is_sealed_with_them_and_no_file_is_made(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Where secrets come by the environment, none comes to lie on the disk."""
    ring = KeyRing.drawn()
    settings = Settings(
        upstream_url=simulator.url, accounts=ann_alone(simulator), keys_text=SecretStr(ring.text())
    )
    for _ in range(2):
        executor = build_executor(settings)
        await executor.get_business_units_list(user_id=ANN)
        await executor.close()
    assert 1 == simulator.calls()["by_path"]["departments"]
    with inspect(default_store(), keys=ring) as inspector:
        assert 0 == inspector.check().rejected
        assert [ANN] == [each.owner.user for each in inspector.reveal() if each.owner is not None]
    assert not default_keys().exists()
    assert ring.keys[0].secret.hex() not in repr([vars(each) for each in caplog.records])


async def test_the_bound_of_the_store_is_that_of_the_settings(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def opened(path: Path, **options: object) -> None:
        asked.update(options, path=path)

    monkeypatch.setattr("coatcheck.bootstrap.SQLiteStore", opened)
    session_store(Settings(upstream_url=simulator.url, max_store_bytes=5_000_000))
    assert (5_000_000, default_store()) == (asked["max_bytes"], asked["path"])


async def test_what_was_loaded_with_another_account_is_not_brought_back(simulator: Simulator) -> None:
    for email in (ANN, BOB, ANN):
        settings = Settings(
            upstream_url=simulator.url,
            accounts={"me": AccountSettings(password=password(simulator, email), email=email)},
        )
        executor = build_executor(settings)
        assert await executor.get_engagement_id(user_id="me") == engagement(simulator, email)
        await executor.close()
    assert simulator.calls()["by_path"]["engagements"] == 3
