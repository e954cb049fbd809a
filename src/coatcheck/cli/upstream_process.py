"""The simulator as a process of its own, so that its work does not delay what is measured in this one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.cli.simulator import STOP_ON_STDIN
from coatcheck.errors import UpstreamUnreachable
from coatcheck.upstream.client import MIB, UpstreamClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from coatcheck.simulator import Settings


@dataclass(frozen=True, slots=True)
class UpstreamProcess:
    """A running simulator.

    Attributes:
        url: where it listens.
    """

    url: str
    _client: UpstreamClient

    async def calls_by_path(self) -> dict[str, int]:
        """Return the calls since the last time this was asked, log-ins included, and count anew."""
        answer = await self._client.request("GET", "/_sim/calls", max_body=64 * MIB)
        await self._client.request("POST", "/_sim/reset")
        counted: dict[str, Any] = msgspec.json.decode(answer.body)
        by_path: dict[str, int] = counted["by_path"]
        return by_path

    async def set_faults(self, *faults: Mapping[str, object]) -> None:
        """Put these faults in the place of all that are in force."""
        await self._client.request("POST", "/_sim/faults", json=faults)


@asynccontextmanager
async def upstream_process(settings: Settings) -> AsyncIterator[UpstreamProcess]:
    """Start a simulator and end it.

    It ends with this process, however that ends, since it waits for the end of its standard input.

    Raises:
        UpstreamUnreachable: it did not start.
    """
    process = await asyncio.create_subprocess_exec(
        # Without -P a directory of our name where the command is called would be taken for us.
        *(sys.executable, "-P", "-m", "coatcheck", "simulator", STOP_ON_STDIN),
        *("--seed", str(settings.seed)),
        *("--users", str(settings.users)),
        *("--latency-scale", str(settings.latency_scale)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise UpstreamUnreachable("the simulator did not start")
        url = line.decode().split()[-1]
        async with UpstreamClient(url) as client:
            yield UpstreamProcess(url, client)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
