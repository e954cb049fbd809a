"""The server itself: addresses, closing, and that it stays quiet and on its own."""

from __future__ import annotations

import ast
import asyncio
import logging
import sys
from pathlib import Path

import aiohttp
import pytest

import coatcheck.simulator
from coatcheck.simulator import Settings, Simulator

from .conftest import ENGAGEMENTS, ONE, TWO, Caller

QUICK = Settings(users=2, latency_scale=0)


async def test_a_host_name_works_and_a_cookie_then_comes_back() -> None:
    """On a name, unlike on an address, a client that keeps cookies shows it."""
    simulator = Simulator(QUICK)
    url = await simulator.start(host="localhost")
    try:
        assert url.startswith("http://localhost:")
        async with aiohttp.ClientSession() as session:
            caller = Caller(simulator, session)
            one, two = await caller.login(ONE), await caller.login(TWO)
            simulator.set_faults([{"kind": "set_cookie"}])
            await caller.get(ENGAGEMENTS, one)
            await caller.get(ENGAGEMENTS, two)
        assert simulator.calls()["with_cookie"] == 1
    finally:
        await simulator.close()


async def test_an_upstream_can_go_away_and_come_back() -> None:
    """On the same port, with its counts; tokens stay good."""
    simulator = Simulator(QUICK)
    await simulator.start()
    port = int(simulator.url.rpartition(":")[2])
    async with aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        token = await caller.login(ONE)
        await simulator.close()
        await simulator.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.get(ENGAGEMENTS, token)

        await simulator.start(port=port)
        assert (await caller.get(ENGAGEMENTS, token)).status == 200
        assert simulator.calls()["total"] == 2
        await simulator.close()


async def test_settings_and_world_can_be_seen(simulator: Simulator) -> None:
    """An account that does not exist has no truth."""
    assert simulator.settings.seed == 7
    assert simulator.world.users == 12
    with pytest.raises(LookupError, match="no such account"):
        simulator.truth("user-0013@tenant-0013.example")


async def test_starting_twice_and_asking_too_early_are_mistakes() -> None:
    """Both say so."""
    simulator = Simulator(QUICK)
    with pytest.raises(RuntimeError, match="not started"):
        _ = simulator.url
    async with simulator:
        with pytest.raises(RuntimeError, match="is running"):
            await simulator.start()


async def test_an_address_in_use_is_an_error_and_leaves_nothing_behind(simulator: Simulator) -> None:
    """The second one can still be started elsewhere."""
    port = int(simulator.url.rpartition(":")[2])
    second = Simulator(QUICK)

    with pytest.raises(OSError, match="in use"):
        await second.start(port=port)
    async with second:
        assert second.url != simulator.url


@pytest.mark.parametrize("kind", ["hang", "slow_body", "huge_body", "reset", "cut"])
async def test_clients_that_go_away_make_no_noise(
    caller: Caller, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged, and the call ends at the server as well."""
    token = await caller.login(ONE)
    caller.simulator.set_faults([{"kind": kind}])
    with caplog.at_level(logging.INFO):
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await caller.get(ENGAGEMENTS, token, timeout=aiohttp.ClientTimeout(total=0.02))
        await caller.session.close()
        await caller.simulator.close()

    assert caplog.records == []


async def test_closing_ends_what_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """At once, quietly, and for the client as a broken connection."""
    arrived = asyncio.Event()

    async def forever(_: float) -> None:
        arrived.set()
        await asyncio.Event().wait()

    simulator = Simulator(QUICK, sleep=forever)
    await simulator.start()
    simulator.set_faults([{"kind": "delay", "ms": 1}])
    async with aiohttp.ClientSession() as session:
        with caplog.at_level(logging.INFO):
            waiting = asyncio.create_task(Caller(simulator, session).get(ENGAGEMENTS))
            await arrived.wait()
            await simulator.close()
            with pytest.raises(aiohttp.ClientConnectionError):
                await waiting

    assert caplog.records == []


async def test_many_callers_at_once_each_get_their_own(simulator: Simulator) -> None:
    """Nothing of one user in another's answer, under load and with faults for a part."""
    simulator.set_faults([{"kind": "status", "status": 503, "fraction": 0.3, "path": "engagements"}])
    async with aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)

        async def ask(email: str) -> int:
            truth = simulator.truth(email)
            got = await caller.get(ENGAGEMENTS, await caller.login(email))
            if got.status == 200:
                assert got.data == [item["engagement"] for item in truth["engagements"]]
            return got.status

        users = [user["email"] for user in simulator.users()]
        statuses = await asyncio.gather(*(ask(email) for email in users * 4))

    assert set(statuses) == {200, 503}
    assert simulator.calls()["by_path"] == {"auth": 48, "engagements": 48}


def test_the_simulator_imports_nothing_of_the_rest() -> None:
    """It stands alone, so that it cannot share a mistake with what it tests."""
    root = Path(coatcheck.simulator.__file__).parent
    allowed = ("coatcheck.simulator", "aiohttp", "msgspec")
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                modules = [node.module or ""]
            tops = {
                module if module.startswith("coatcheck.simulator") else module.partition(".")[0]
                for module in modules
            }
            assert all(top.startswith(allowed) or top in sys.stdlib_module_names for top in tops), path.name
