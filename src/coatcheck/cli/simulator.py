"""``coatcheck simulator``: the upstream API to try things against."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from coatcheck.cli.options import LatencyScale, Seed, Users
from coatcheck.clock import SystemClock

STOP_ON_STDIN = "--until-stdin-ends"

SHOWN = 3
"""Accounts that are printed."""


async def simulator(
    *,
    port: Annotated[
        int,
        Parameter(
            help="The port to listen on, on this machine only; 0 for a free one.",
            validator=Number(gte=0, lte=65_535),
        ),
    ] = 0,
    seed: Seed = 1,
    users: Users = 20,
    latency_scale: LatencyScale = 1.0,
    until_stdin_ends: Annotated[bool, Parameter(show=False, negative="")] = False,
) -> int:
    """Run the simulated upstream until Ctrl-C or SIGTERM.

    Prints its URL, three accounts, and how to ask it for something.
    """
    from coatcheck.simulator import Settings, Simulator  # noqa: PLC0415 - an HTTP server takes its time to import

    server = Simulator(
        Settings(seed=seed, users=users, latency_scale=latency_scale), sleep=SystemClock().sleep
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if until_stdin_ends:
        # Whoever started this holds the other end; however that process ends, this one does, too.
        loop.add_reader(sys.stdin.fileno(), _read_on, stop)
    try:
        url = await server.start(port=port)
    except OSError as error:
        raise OSError(error.errno, f"port {port}: {error.strerror}") from None
    try:
        accounts = {each["email"]: each["password"] for each in server.users(limit=SHOWN)}
        print(f"upstream: {url}")
        for email, password in accounts.items():
            print(f"account:  {email} {password}")
        print(
            f"try:      COATCHECK_UPSTREAM_URL={url}"
            f" COATCHECK_ACCOUNTS={shlex.quote(msgspec.json.encode(accounts).decode())}"
            f" {_program()} get endpoints --user {next(iter(accounts))}",
            flush=True,
        )
        await stop.wait()
    finally:
        await server.close()
    return 0


def _program() -> str:
    """Return what a shell in this place calls this program by."""
    called = sys.argv[0]
    return (
        "coatcheck" if shutil.which("coatcheck") or Path(called).name != "coatcheck" else shlex.quote(called)
    )


def _read_on(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        stop.set()
