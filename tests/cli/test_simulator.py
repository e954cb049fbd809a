"""``coatcheck simulator`` as the process that it is, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

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

PROGRAM = (sys.executable, "-m", "coatcheck")


@asynccontextmanager
async def running(
    *options: str, program: tuple[str, ...] = PROGRAM, path: str | None = None
) -> AsyncIterator[tuple[Process, dict[str, list[str]]]]:
    """Start one and read what it says; it has been ended by then."""
    process = await asyncio.create_subprocess_exec(
        *(*program, "simulator", "--latency-scale", "0", *options),
        env=os.environ if path is None else {**os.environ, "PATH": path},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    try:
        said: dict[str, list[str]] = {}
        while "try:" not in said:
            what, text = (await process.stdout.readline()).decode().strip().split(None, 1)
            said.setdefault(what, []).append(text)
        yield process, said
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
        [url], [told] = said["upstream:"], said["try:"]
        accounts = dict(each.split() for each in said["account:"])
        (email, password), _ = accounts.items()
        expected = Simulator(SimulatorSettings(seed=4, users=2)).truth(email)
        assert password == expected["password"]
        as_json = json.dumps(accounts, separators=(",", ":"))
        assert told == (
            f"COATCHECK_UPSTREAM_URL={url} COATCHECK_ACCOUNTS='{as_json}' coatcheck get endpoints --user {email}"
        )
        settings = Settings(upstream_url=url)
        async with ipc_cache(settings, credentials=lambda _: Account(email, password)) as cache:
            found = await cache.session(email).get(paas_engagement_id)
        assert found == expected["engagements"][0]["paas_engagement_id"]
        end(process)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (code, b"", b"")


async def test_it_prints_three_accounts_and_what_it_is_called_by_where_it_is_not_on_the_path(
    tmp_path: Path,
) -> None:
    program = tmp_path / "coatcheck"
    program.write_text("import sys; from coatcheck.cli import main; sys.exit(main())")
    async with running(program=(sys.executable, str(program)), path=str(tmp_path / "bin")) as (_, said):
        assert len({each.split()[0] for each in said["account:"]}) == 3
        assert f" {program} get endpoints " in said["try:"][0]


def test_a_port_that_is_taken_is_one_line_and_exit_1(coatcheck: Coatcheck) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = coatcheck("simulator", "--port", str(port))
    assert (ended.code, ended.complaint) == (1, f"port {port}: Address already in use")


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
