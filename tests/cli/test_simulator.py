"""``coatcheck simulator`` as the process that it is, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cli.conftest import Coatcheck
from coatcheck.bootstrap import ipc_cache
from coatcheck.cli.upstream_process import upstream_process
from coatcheck.errors import UpstreamUnreachable
from coatcheck.ipc.resources import paas_engagement_id
from coatcheck.settings import Settings
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[tuple[Process, dict[str, str]]]:
    """Start one and read what it says; it has been ended by then."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coatcheck", "simulator", "--latency-scale", "0", *options),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    try:
        lines = [(await process.stdout.readline()).decode() for _ in range(3)]
        yield process, dict(line.strip().split(None, 1) for line in lines)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda process: process.send_signal(signal.SIGTERM), 0),
        (lambda process: process.stdin.close(), 0),
    ],
    ids=["SIGTERM", "stdin"],
)
async def test_it_serves_until_it_is_ended(end: Callable[[Process], None], code: int) -> None:
    options = ("--seed", "4", "--users", "2", "--until-stdin-ends")
    async with running(*options) as (process, said):
        email, password = said["account:"].split()
        expected = Simulator(SimulatorSettings(seed=4, users=2)).truth(email)
        assert password == expected["password"]
        assert said["try:"] == (
            f'COATCHECK_UPSTREAM_URL={said["upstream:"]} COATCHECK_ACCOUNTS=\'{{"{email}":"{password}"}}\''
            f" coatcheck get endpoints --user {email}"
        )
        settings = Settings(upstream_url=said["upstream:"])
        async with ipc_cache(settings, credentials=lambda _: Account(email, password)) as cache:
            found = await cache.session(email).get(paas_engagement_id)
        assert found == expected["engagements"][0]["paas_engagement_id"]
        end(process)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (code, b"", b"")


def test_a_port_that_is_taken_is_one_line_and_exit_1(coatcheck: Coatcheck) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = coatcheck("simulator", "--port", str(taken.getsockname()[1]))
    assert (ended.code, ended.complaint) == (1, "Address already in use")


async def test_the_demos_upstream_counts_and_ends_with_it() -> None:
    simulated = SimulatorSettings(seed=4, users=1, latency_scale=0)
    [account] = Simulator(simulated).users()
    async with upstream_process(simulated) as upstream:
        settings = Settings(upstream_url=upstream.url)
        known = Account(account["email"], account["password"])
        async with ipc_cache(settings, credentials=lambda _: known) as cache:
            await cache.session("ann").get(paas_engagement_id)
        assert await upstream.calls_by_path() == {"auth": 1, "engagements": 1}
        assert await upstream.calls_by_path() == {}
    async with UpstreamClient(upstream.url) as client:
        with pytest.raises(UpstreamUnreachable):
            await client.request("GET", "/_sim/calls")


async def test_an_upstream_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(UpstreamUnreachable, match="did not start"):
        async with upstream_process(SimulatorSettings()):
            raise AssertionError


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_the_demo_leaves_no_process_behind(how: signal.Signals, code: int) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coatcheck", "demo", "--users", "1", "--latency-scale", "1000"),
        env={**os.environ, "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"},
        stdout=PIPE,
        stderr=PIPE,
    )
    assert demo.stderr is not None
    shown = b""
    while b"without the cache" not in shown:
        more = await demo.stderr.read(4096)
        assert more
        shown += more
    demo.send_signal(how)
    # Its upstream holds the other end of the same pipe, which is read to its end only when both have gone.
    out, err = await demo.communicate()
    assert (demo.returncode, out) == (code, b"")
    assert b"Traceback" not in err
