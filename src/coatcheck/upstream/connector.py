"""Connections that nothing was left on: what an upstream says unasked is nobody's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class CleanConnector(aiohttp.TCPConnector):
    """Hands out no connection on which anything lies unread.

    aiohttp looks for that when a connection goes back to the pool, but not when it leaves it again. What came
    meanwhile, such as a second answer to the last request, would be taken for the answer to the next one: that of
    another user.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a connection from the pool, or a new one.

        Raises:
            ClientConnectionError: something lay on one more of them than the pool can hold.
        """
        for _ in range(self.limit + 1):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("the upstream speaks without being asked")
